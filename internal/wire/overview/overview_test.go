package overview

import (
	"bytes"
	_ "embed"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// A status as it is sent. A later release may add members; what is here stays
// readable.
//
//go:embed testdata/status.json
var released []byte

var at = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// sample is the status of the file.
func sample() *Status {
	return &Status{
		Format: Format, At: at,
		Domain:   Domain{ID: manifest.Hash{1}, Mode: manifest.Production, Root: manifest.Seal, LeaseHours: 72},
		Manifest: Manifest{Version: 4, Date: at.AddDate(0, 0, -3), Hash: manifest.Hash{2}, Signers: []string{"alice", "carol"}, Operators: []string{"alice", "bob", "carol"}, Threshold: 2},
		Key:      Key{Version: 1}, Server: Server{Kind: "root", Release: "v1", Started: at.Add(-time.Hour)},
		Members: []Member{
			{Instance: ID{1}, Role: "dkeyserver", Via: ID{1}, State: Connected, Evidence: ByItself, Platform: "sgx", Machine: "node 1", PPID: manifest.PPID{1}, Serial: "0a", Product: 3, SVN: 1, Manifest: 4, DomainKey: 1, LeaseSeconds: 259200},
			{Instance: ID{2}, Role: "dkeycache", Via: ID{1}, State: Left, Evidence: ByQuote, Platform: "sgx", Machine: "node 2", PPID: manifest.PPID{2}, Serial: "0b", MREnclave: manifest.Hash{3}, MRSigner: manifest.Hash{4}, Product: 2, SVN: 1,
				TCBStatus: "OutOfDate", Advisories: []string{"INTEL-SA-00615"}, TCBGraceUntil: at.AddDate(0, 0, 9), CollateralGraceUntil: at.AddDate(0, 0, 8), EvidenceUntil: at.AddDate(0, 0, 7), Attested: at, Manifest: 3, DomainKey: 1, LeaseSeconds: 7200, SeenSeconds: 60, Address: "10.0.0.2:4711"},
			{Instance: ID{3}, Role: "core", Via: ID{2}, State: Removed, Evidence: ByReport, Platform: "sgx", Product: 1, SVN: 1, Debug: true},
		},
		Machines: []manifest.Platform{{Name: "node 1", PPID: manifest.PPID{1}}, {Name: "node 2", Serial: "0b"}},
		Waiting:  []Waiting{{PPID: manifest.PPID{9}, Serial: "0c", First: at, Last: at, Times: 3, Was: "node 9", From: "10.0.0.9:1"}},
	}
}

func TestStatus(t *testing.T) {
	b, err := sample().Encode()
	if err != nil {
		t.Fatal(err)
	}
	if want := bytes.TrimSpace(released); !bytes.Equal(b, want) {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	if got, err := ParseStatus(b); err != nil || !reflect.DeepEqual(got, sample()) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestMalformedStatus(t *testing.T) {
	edited := func(edit func(*Status)) string {
		s := sample()
		edit(s)
		b, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	good := edited(func(*Status) {})
	for name, text := range map[string]string{
		"empty":                "",
		"null":                 "null",
		"cut":                  good[:len(good)-1],
		"more":                 good + " ",
		"two":                  good + good,
		"spaces":               strings.Replace(good, ":", ": ", 1),
		"unknown member":       strings.Replace(good, `{"format"`, `{"alarm":1,"format"`, 1),
		"member twice":         strings.Replace(good, `"members":`, `"members":[],"members":`, 1),
		"other case":           strings.Replace(good, `"members"`, `"Members"`, 1),
		"format":               edited(func(s *Status) { s.Format = "ehsm-status/v2" }),
		"mode":                 edited(func(s *Status) { s.Domain.Mode = "fun" }),
		"role":                 edited(func(s *Status) { s.Members[0].Role = "king" }),
		"state":                edited(func(s *Status) { s.Members[0].State = "" }),
		"evidence":             edited(func(s *Status) { s.Members[0].Evidence = "trust me" }),
		"short instance":       strings.Replace(good, `"instance":"01`, `"instance":"`, 1),
		"instance in capitals": strings.Replace(good, `"instance":"01`, `"instance":"0A`, 1),
		"escape sequence":      edited(func(s *Status) { s.Members[1].Address = "\x1b[2J" }),
		"line":                 edited(func(s *Status) { s.Waiting[0].From = "a\nWARNING" }),
		"text from the right":  edited(func(s *Status) { s.Machines[0].Name = "\u202e1 edon" }),
		"reason":               edited(func(s *Status) { s.Key.Lost = "\r" }),
		"long signer":          edited(func(s *Status) { s.Manifest.Signers[0] = strings.Repeat("a", 65) }),
		"release":              edited(func(s *Status) { s.Server.Release = "\x00" }),
		"many members":         edited(func(s *Status) { s.Members = make([]Member, MaxMembers+1) }),
		"many that wait":       edited(func(s *Status) { s.Waiting = make([]Waiting, MaxWaiting+1) }),
		"many advisories":      edited(func(s *Status) { s.Members[1].Advisories = make([]string, MaxAdvisories+1) }),
	} {
		if s, err := ParseStatus([]byte(text)); !errors.Is(err, ErrStatus) {
			t.Errorf("%s: got %+v, %v", name, s, err)
		}
	}
}

func TestWarnings(t *testing.T) {
	codes := func(s *Status) string {
		var all []string
		for _, w := range s.Warnings() {
			all = append(all, w.Code)
		}
		return strings.Join(all, " ")
	}
	for _, row := range []struct {
		name string
		edit func(*Status)
		want string
	}{
		{"sample", func(*Status) {}, "one-dkeyserver tcb-grace collateral-grace lease"},
		{"nothing", func(s *Status) { s.Members = nil }, ""},
		{"simulation", func(s *Status) { s.Members, s.Domain.AllowSim = nil, true }, "simulation"},
		{"any machine", func(s *Status) { s.Members, s.Domain.AnyPlatform = nil, true }, "any-platform"},
		{"HSM without a TEE", func(s *Status) { s.Members, s.Domain.HSMWithoutTEE = nil, true }, "hsm-without-tee"},
		{"one operator", func(s *Status) { s.Members, s.Manifest.Threshold = nil, 1 }, "one-operator"},
		{"no key", func(s *Status) { s.Members, s.Key.Version = nil, 0 }, "no-domain-key"},
		{"lost key", func(s *Status) { s.Members, s.Key = nil, Key{Lost: "removed"} }, "no-domain-key"},
		{"two dkeyservers", func(s *Status) {
			s.Members = append(s.Members[:1], s.Members[0])
			s.Members[1].Instance = ID{7}
		}, ""},
		{"old manifest", func(s *Status) { s.Members = s.Members[:1]; s.Members[0].Manifest = 3 }, "one-dkeyserver old-manifest"},
		{"manifest on its way", func(s *Status) {
			s.Manifest.Since, s.Members, s.Key.Version = at.Add(-30*time.Second), s.Members[:1], 2
			s.Members[0].Manifest = 3
		}, "one-dkeyserver"},
		{"manifest that should have arrived", func(s *Status) {
			s.Manifest.Since, s.Members = at.Add(-time.Minute), s.Members[:1]
			s.Members[0].Manifest = 3
		}, "one-dkeyserver old-manifest"},
		{"old key", func(s *Status) { s.Key.Version, s.Members = 2, s.Members[:1] }, "one-dkeyserver old-domain-key"},
		{"removed says nothing", func(s *Status) { s.Members = s.Members[2:] }, ""},
		{"debug", func(s *Status) {
			s.Members = s.Members[2:]
			s.Members[0].State, s.Members[0].Manifest, s.Members[0].DomainKey = Connected, 4, 1
		}, "debug"},
		{"lease ended", func(s *Status) {
			s.Members = []Member{{Role: "dkeycache", State: Left, DomainKey: 1, LeaseSeconds: 1, SeenSeconds: 2}}
		}, "lease"},
		{"started again", func(s *Status) {
			s.Members = []Member{{Role: "dkeycache", State: Left, DomainKey: 1}, {Role: "dkeycache", State: Connected, DomainKey: 1, Manifest: 4}}
		}, ""},
	} {
		s := sample()
		row.edit(s)
		if got := codes(s); got != row.want {
			t.Errorf("%s: got %s, want %s", row.name, got, row.want)
		}
	}
	for _, w := range sample().Warnings() {
		if w.Code == "lease" && w.Text != "dkeycache on node 2 is away, and its lease ends in 119 minutes" || w.Code == "tcb-grace" && !strings.Contains(w.Text, "until 2026-12-03 12:00 UTC") {
			t.Errorf("got %q", w.Text)
		}
	}
}

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 seconds", time.Second: "a second", 59 * time.Second: "59 seconds", 60 * time.Second: "a minute", 119 * time.Second: "a minute",
		2 * time.Minute: "2 minutes", 119 * time.Minute: "119 minutes", 2 * time.Hour: "2 hours", 71 * time.Hour: "71 hours", 72 * time.Hour: "3 days", -time.Second: "no time",
	} {
		if got := Words(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

func TestClean(t *testing.T) {
	for _, row := range []struct {
		in    string
		limit int
		want  string
	}{
		{"node 1", 10, "node 1"}, {"a\x1b[31mb\n", 10, "a?[31mb?"}, {"\xff\u202e", 10, "??"}, {"abcdef", 3, "abc"}, {"äöü", 3, "ä"}, {"", 0, ""},
	} {
		got := Clean(row.in, row.limit)
		if got != row.want || !Printable(got, row.limit) {
			t.Errorf("%q: got %q, want %q", row.in, got, row.want)
		}
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add(bytes.TrimSpace(released))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseStatus(b)
		if err != nil {
			return
		}
		if again, err := s.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%s encodes to %s, %v", b, again, err)
		}
		for _, w := range s.Warnings() {
			if !Printable(w.Text, 1024) {
				t.Errorf("a warning is %q", w.Text)
			}
		}
	})
}
