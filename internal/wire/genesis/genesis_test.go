package genesis

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

func sample() Genesis {
	return Genesis{
		Format: Format, Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), DomainKey: bytes.Repeat([]byte{1}, 32),
		AllowSim: true, OpenEnrollment: true, RequestWindow: 600,
	}
}

func TestRoundTrip(t *testing.T) {
	b, err := sample().Encode()
	if err != nil {
		t.Fatal(err)
	}
	g, id, err := Parse(b)
	if err != nil || g.Window() != DefaultWindow || !g.AllowSim || !g.OpenEnrollment {
		t.Fatalf("got %+v, %v", g, err)
	}
	// Known answer: a change here gives every existing domain another id.
	const want = "3f42925c34a8fb46bb0287a83d4d7b4946646e2666491836711b7503389ab3c0"
	if id.String() != want {
		t.Errorf("domain id: got %s, want %s", id, want)
	}
}

func TestRefusals(t *testing.T) {
	good, _ := sample().Encode()
	edit := func(old, new string) []byte { return []byte(strings.Replace(string(good), old, new, 1)) }
	for name, b := range map[string][]byte{
		"empty":          nil,
		"not JSON":       []byte("genesis"),
		"unknown member": edit(`"allowSim"`, `"mode": 1, "allowSim"`),
		"other format":   edit("/v1", "/v2"),
		"other spacing":  edit("  ", " "),
		"trailing bytes": append(bytes.Clone(good), ' '),
		"duplicate":      edit(`"allowSim": true`, `"allowSim": false, "allowSim": true`),
		"other case":     edit(`"allowSim"`, `"AllowSim"`),
		"short key":      edit("AQEB", ""),
		"no window":      edit("600", "0"),
		"long window":    edit("600", "86400"),
		"wrapped window": edit("600", "36028797018964028"), // 60 + 1<<55 seconds are a minute of nanoseconds
		"before window":  edit("600", "-600"),
		"local time":     edit("05Z", "05+01:00"),
		"too long":       append(bytes.Clone(good), make([]byte, maxSize)...),
	} {
		if _, _, err := Parse(b); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
}

func TestEncodeRefusals(t *testing.T) {
	for name, change := range map[string]func(*Genesis){
		"no format":   func(g *Genesis) { g.Format = "" },
		"no date":     func(g *Genesis) { g.Created = time.Time{} },
		"local date":  func(g *Genesis) { g.Created = g.Created.In(time.FixedZone("", 3600)) },
		"far date":    func(g *Genesis) { g.Created = g.Created.AddDate(8000, 0, 0) },
		"long key":    func(g *Genesis) { g.DomainKey = append(g.DomainKey, 1) },
		"no window":   func(g *Genesis) { g.RequestWindow = 0 },
		"59 seconds":  func(g *Genesis) { g.RequestWindow = 59 },
		"over 1 hour": func(g *Genesis) { g.RequestWindow = 3601 },
	} {
		g := sample()
		change(&g)
		if b, err := g.Encode(); !errors.Is(err, ErrInvalid) || b != nil {
			t.Errorf("%s: got %q, %v, want ErrInvalid", name, b, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	good, _ := sample().Encode()
	f.Add(good)
	with := sample()
	with.SimRoot, with.Attestation = certificate(f, simulation), accepting(hardening)
	more, _ := with.Encode()
	f.Add(more)
	f.Fuzz(func(t *testing.T, b []byte) {
		g, _, err := Parse(b)
		if err != nil {
			return
		}
		if again, err := g.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("two encodings of one genesis: %q and %q, %v", b, again, err)
		}
	})
}
