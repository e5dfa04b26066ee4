package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

func rotated(version uint32) *manifest.Settings {
	return &manifest.Settings{DomainKey: manifest.DomainKey{Version: version}}
}

func TestRecordsText(t *testing.T) {
	for _, tt := range []struct {
		name string
		r    overview.Rewrap
		told bool
		s    *manifest.Settings
		want string
	}{
		{"never rotated", overview.Rewrap{Floor: 1, Done: 1}, true, &manifest.Settings{}, ""},
		{"nobody tells", overview.Rewrap{}, false, rotated(2), "not under version 2 yet: it is given to all programs first"},
		{"given out", overview.Rewrap{Floor: 2, Done: 2}, true, rotated(3), "not under version 3 yet: it is given to all programs first"},
		{"begun", overview.Rewrap{Floor: 2, Total: 400, Looked: 99}, true, rotated(2),
			"[#####...................]  24 % wrapped under version 2, 99 of 400 records (by the word of the managers)"},
		{"many", overview.Rewrap{Floor: 2, Total: 12001234, Looked: 1000}, true, rotated(2),
			"[........................]   0 % wrapped under version 2, 1,000 of 12,001,234 records (by the word of the managers)"},
		{"no records", overview.Rewrap{Floor: 2}, true, rotated(2),
			"[........................]   0 % wrapped under version 2, 0 of 0 records (by the word of the managers)"},
		{"more than there were", overview.Rewrap{Floor: 2, Total: 10, Looked: 20}, true, rotated(2),
			"[########################] 100 % wrapped under version 2, 20 of 10 records (by the word of the managers)"},
		{"done", overview.Rewrap{Floor: 2, Done: 2, Total: 9, Looked: 9}, true, rotated(2), "all wrapped under version 2"},
		{"done but for some", overview.Rewrap{Floor: 2, Done: 2, Total: 9, Looked: 9, Refused: 4}, true, rotated(2),
			"all wrapped under version 2, but for 4 that are refused, such as those of keys that were deleted"},
	} {
		if got := recordsText(tt.r, tt.told, tt.s); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestLeftText(t *testing.T) {
	leaked := rotated(3)
	leaked.DomainKey.Compromised = []uint32{1, 2}
	for _, tt := range []struct {
		name string
		r    overview.Rewrap
		told bool
		s    *manifest.Settings
		want string
	}{
		{"no leak", overview.Rewrap{Floor: 2, Compromised: 1, Keys: 1}, true, rotated(3), ""},
		{"nobody tells", overview.Rewrap{}, false, leaked, "not counted yet: when all records are wrapped anew"},
		{"counted for another leak", overview.Rewrap{Compromised: 1, Keys: 5}, true, leaked, "not counted yet: when all records are wrapped anew"},
		{"all kinds", overview.Rewrap{Compromised: 2, Keys: 12, Secrets: 3, APIKeys: 4, Tenants: 5}, true, leaked,
			"12 keys, 3 secrets, 4 API keys in 5 tenants (by the word of the managers)"},
		{"one", overview.Rewrap{Compromised: 2, APIKeys: 1, Tenants: 1}, true, leaked, "1 API key in 1 tenant (by the word of the managers)"},
		{"many", overview.Rewrap{Compromised: 2, Keys: 100000, Tenants: 1000}, true, leaked, "100,000 keys in 1,000 tenants (by the word of the managers)"},
		{"nothing", overview.Rewrap{Compromised: 2}, true, leaked, "nothing: all that was made under version 2 or before is replaced (by the word of the managers)"},
	} {
		if got := leftText(tt.r, tt.told, tt.s); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestKeyText(t *testing.T) {
	s := &manifest.Settings{DomainKey: manifest.DomainKey{Version: 4, Compromised: []uint32{1, 2}, Forgotten: []uint32{1}}}
	want := "version 3; version 4 is asked for; compromised: versions 1, 2; forgotten: version 1"
	if got := keyText(&overview.Key{Version: 3}, "", s); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := keyText(&overview.Key{Version: 1, InMemory: true}, "", &manifest.Settings{}), "version 1, in memory only: to be given again at the next start"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := keyText(&overview.Key{InMemory: true}, ": waits for 1 of dave", &manifest.Settings{}); got != "not here: waits for 1 of dave" {
		t.Errorf("got %q", got)
	}
	for n, want := range []string{"", "; a program is to follow", "; 2 programs are to follow"} {
		if got := followText(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
	if got := keyText(&overview.Key{}, "", &manifest.Settings{}); got != "not here" {
		t.Errorf("got %q, want %q", got, "not here")
	}
}

func TestCompromised(t *testing.T) {
	now := &manifest.Settings{DomainKey: manifest.DomainKey{Version: 3, Forgotten: []uint32{1}}}
	for _, tt := range []struct {
		version uint32
		set     string // part of the change, or of the error
		does    string
	}{
		{3, `settings.domainKey={"version":4,"compromised":[2,3],"forgotten":[1]}`, "marks versions 2, 3 of the DomainKey as compromised and asks for version 4"},
		{2, `settings.domainKey={"version":3,"compromised":[2],"forgotten":[1]}`, "marks version 2 of the DomainKey as compromised"},
		{1, "marked already", ""},
		{4, "there is no version 4", ""},
	} {
		e, does, err := compromised(now, tt.version)
		if err != nil {
			if tt.does != "" || !strings.Contains(err.Error(), tt.set) {
				t.Errorf("version %d: got error %v, want %q", tt.version, err, tt.set)
			}
			continue
		}
		if !slices.Equal(e.set, []string{tt.set}) || does != tt.does {
			t.Errorf("version %d: got %q, %q, want %q, %q", tt.version, e.set, does, tt.set, tt.does)
		}
	}
}

func TestForgotten(t *testing.T) {
	now := &manifest.Settings{DomainKey: manifest.DomainKey{Version: 3, Forgotten: []uint32{1}}}
	for version, want := range map[uint32]string{1: "forgotten already", 3: "not an old one", 4: "not an old one"} {
		if _, err := forgotten(now, version); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("version %d: got error %v, want %q", version, err, want)
		}
	}
	e, err := forgotten(now, 2)
	if want := `settings.domainKey={"version":3,"forgotten":[1,2]}`; err != nil || !slices.Equal(e.set, []string{want}) {
		t.Errorf("got %v, %v, want %q", e, err, want)
	}
}

// TestLagging is whom forget waits for.
func TestLagging(t *testing.T) {
	cache := func(state overview.State, machine string, version uint32) overview.Member {
		return overview.Member{Role: "dkeycache", State: state, Machine: machine, DomainKey: version}
	}
	for _, tt := range []struct {
		name    string
		members []overview.Member
		want    string // machine
	}{
		{"all have it", []overview.Member{cache(overview.Connected, "a", 2), cache(overview.Connected, "b", 3)}, ""},
		{"one has the old version", []overview.Member{cache(overview.Connected, "a", 2), cache(overview.Connected, "b", 1)}, "b"},
		{"one has none", []overview.Member{cache(overview.Connected, "a", 2), cache(overview.Connected, "b", 0)}, "b"},
		{"one is away", []overview.Member{cache(overview.Connected, "a", 2), cache(overview.Left, "b", 1)}, "b"},
		{"one was started again", []overview.Member{cache(overview.Left, "a", 1), cache(overview.Connected, "a", 2)}, ""},
		{"one was started again and lags", []overview.Member{cache(overview.Left, "a", 2), cache(overview.Connected, "a", 1)}, "a"},
		{"one was taken out", []overview.Member{cache(overview.Connected, "a", 2), cache(overview.Removed, "b", 1)}, ""},
		{"another program of its machine is there", []overview.Member{cache(overview.Left, "a", 1), {Role: "core", State: overview.Connected, Machine: "a", DomainKey: 2}}, "a"},
	} {
		got := ""
		if m := lagging(&overview.Status{Members: tt.members}, 1); m != nil {
			got = m.Machine
		}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}
