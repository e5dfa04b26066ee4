package overview

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func recoverable(edit func(*Recovery)) *Status {
	s := sample()
	s.Recovery = &Recovery{Threshold: 2, Custodians: []string{"dave", "erin", "fay"}, Written: at, Versions: []uint32{1}}
	edit(s.Recovery)
	return s
}

func TestRecoveryStatus(t *testing.T) {
	s := recoverable(func(*Recovery) {})
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	const want = `"recovery":{"threshold":2,"custodians":["dave","erin","fay"],"written":"2026-11-24T12:00:00Z","versions":[1]}`
	if !strings.Contains(string(b), want) {
		t.Errorf("got %s, want %s in it", b, want)
	}
	if again, err := ParseStatus(b); err != nil || !reflect.DeepEqual(again, s) {
		t.Errorf("got %+v, %v", again, err)
	}
	asked := recoverable(func(r *Recovery) { r.Asked = &Asked{Have: []string{"dave"}, Dkeyservers: 2} })
	if b, err = asked.Encode(); err != nil || !strings.Contains(string(b), `"versions":[1],"asked":{"have":["dave"],"dkeyservers":2}}`) {
		t.Errorf("got %s, %v", b, err)
	}
	if again, err := ParseStatus(b); err != nil || !reflect.DeepEqual(again, asked) {
		t.Errorf("got %+v, %v", again, err)
	}
	for name, s := range map[string]*Status{
		"shares of more than all": recoverable(func(r *Recovery) { r.Asked = &Asked{Have: make([]string, 4)} }),
		"less than no dkeyserver": recoverable(func(r *Recovery) { r.Asked = &Asked{Dkeyservers: -1} }),
		"escape sequence asked":   recoverable(func(r *Recovery) { r.Asked = &Asked{Have: []string{"\x1b[2J"}} }),
		"threshold 0":             recoverable(func(r *Recovery) { r.Threshold = 0 }),
		"threshold beyond":        recoverable(func(r *Recovery) { r.Threshold = 4 }),
		"escape sequence":         recoverable(func(r *Recovery) { r.Custodians[0] = "\x1b[2J" }),
		"many custodians":         recoverable(func(r *Recovery) { r.Custodians = make([]string, 65) }),
	} {
		b, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseStatus(b); !errors.Is(err, ErrStatus) {
			t.Errorf("%s: got %v, want ErrStatus", name, err)
		}
	}
}

// TestWaits says for whom a dkeyserver waits, and warns of it.
func TestWaits(t *testing.T) {
	for _, row := range []struct {
		asked Asked
		want  string
	}{
		{Asked{}, "waits for 2 of dave, erin, fay"},
		{Asked{Have: []string{"erin"}}, "waits for 2 of dave, erin, fay (has erin)"},
		{Asked{Dkeyservers: 1}, "waits for 2 of dave, erin, fay, or for another dkeyserver"},
	} {
		s := recoverable(func(r *Recovery) { r.Asked = &row.asked })
		s.Key.Version = 0
		if got := s.Recovery.Waits(); got != row.want {
			t.Errorf("got %q, want %q", got, row.want)
		}
		if all := warnKey(s); len(all) != 1 || all[0].Code != "no-domain-key" || !strings.HasSuffix(all[0].Text, row.want) {
			t.Errorf("got %+v", all)
		}
	}
}

func TestRecoveryWarnings(t *testing.T) {
	without := recoverable(func(*Recovery) {})
	without.Key.Version = 0
	for _, row := range []struct {
		name string
		s    *Status
		want string
	}{
		{"current", recoverable(func(*Recovery) {}), ""},
		{"none", sample(), ""},
		{"no escrow", recoverable(func(r *Recovery) { *r = Recovery{Threshold: 1, Custodians: []string{"dave"}} }), "no-escrow"},
		{"before a rotation", recoverable(func(r *Recovery) { r.Versions = []uint32{2} }), "old-escrow"},
		{"no DomainKey here", without, ""},
	} {
		got := ""
		for _, w := range warnRecovery(row.s) {
			got = w.Code
		}
		if got != row.want {
			t.Errorf("%s: got %q, want %q", row.name, got, row.want)
		}
	}
}
