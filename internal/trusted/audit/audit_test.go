package audit

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
	"github.com/ehsm-kms/ehsm/internal/wire/trail"
)

// signer is a domain of which the private key is known.
type signer struct {
	id  genesis.ID
	key ed25519.PrivateKey
}

func newSigner(seed byte) signer {
	return signer{genesis.ID{seed}, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))}
}

func (s signer) Domain() genesis.ID         { return s.id }
func (s signer) Sign(message []byte) []byte { return ed25519.Sign(s.key, message) }
func (s signer) public() ed25519.PublicKey  { return s.key.Public().(ed25519.PublicKey) }

const noon = 1_780_000_000_000_000 // Unix microseconds

func newChain(t *testing.T, s signer) *Chain {
	t.Helper()
	c, err := New(s, "test", noon)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func entryAt(time int64) *trail.Entry {
	return &trail.Entry{Kind: trail.Request, Time: time, RequestID: "r", Action: "Encrypt", Code: 200, Reason: "ok"}
}

// entries parses a run of frames and checks what the run says about itself.
func entries(t *testing.T, a wire.Audit) (all []trail.Entry) {
	t.Helper()
	for rest := a.Frames; len(rest) > 0; {
		f, more, err := trail.CutFrame(rest)
		if err != nil {
			t.Fatal(err)
		}
		e, err := trail.Parse(f.Entry)
		if err != nil {
			t.Fatal(err)
		}
		if want := a.First + uint64(len(all)); e.Sequence != want {
			t.Errorf("entry %d in the place of %d", e.Sequence, want)
		}
		all, rest = append(all, e), more
	}
	if len(all) != a.Count {
		t.Errorf("%d entries, Count says %d", len(all), a.Count)
	}
	return all
}

func kinds(all []trail.Entry) (kinds []trail.Kind) {
	for _, e := range all {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

func verify(s signer, frames []byte) trail.Report {
	return trail.Verify([]trail.File{{Name: "t", Data: bytes.NewReader(frames), Size: int64(len(frames))}}, s.public(), s.id)
}

func TestStartComesFirst(t *testing.T) {
	s := newSigner(7)
	for name, first := range map[string]func(*Chain) wire.Audit{
		"before an entry":       func(c *Chain) wire.Audit { return c.Append(entryAt(noon)) },
		"before a checkpoint":   func(c *Chain) wire.Audit { return c.Checkpoint(noon) },
		"before an abort":       func(c *Chain) wire.Audit { return c.Append(&trail.Entry{Kind: trail.Aborted, Of: 1}) },
		"before a late entry":   func(c *Chain) wire.Audit { return c.Append(entryAt(noon + 1e9)) },
		"before an early one":   func(c *Chain) wire.Audit { return c.Append(entryAt(0)) },
		"before a negative one": func(c *Chain) wire.Audit { return c.Append(entryAt(-1)) },
	} {
		c := newChain(t, s)
		a := first(c)
		e := entries(t, a)[0]
		if a.First != 1 || e.Kind != trail.Start || e.Sequence != 1 || e.Time != noon || e.Platform != "test" {
			t.Errorf("%s: got %+v", name, e)
		}
		if e.Instance != c.Instance() || e.PublicKey != c.PublicKey() || e.Domain != s.id {
			t.Errorf("%s: the entry names another instance", name)
		}
		if !ed25519.Verify(s.public(), trail.EndorsementMessage(s.id, c.Instance(), c.PublicKey()), e.Endorsement[:]) {
			t.Errorf("%s: the endorsement does not verify", name)
		}
		for _, e := range entries(t, c.Append(entryAt(noon))) {
			if e.Kind == trail.Start {
				t.Errorf("%s: a second start", name)
			}
		}
	}
}

func TestInstancesDiffer(t *testing.T) {
	s := newSigner(7)
	a, b := newChain(t, s), newChain(t, s)
	if a.Instance() == b.Instance() || a.PublicKey() == b.PublicKey() {
		t.Error("two starts have one name or one key")
	}
}

func TestCheckpointByCount(t *testing.T) {
	c := newChain(t, newSigner(7))
	n := 0 // entries since the last checkpoint
	var at []int
	for range 3 * checkpointEntries {
		for _, e := range entries(t, c.Append(entryAt(noon))) {
			if e.Kind == trail.Checkpoint {
				at = append(at, n)
				n = 0
			} else {
				n++
			}
		}
	}
	if want := []int{checkpointEntries, checkpointEntries, checkpointEntries}; !slices.Equal(at, want) {
		t.Errorf("checkpoints after %d entries, want %d", at, want)
	}
}

func TestCheckpointByTime(t *testing.T) {
	c := newChain(t, newSigner(7))
	for _, tt := range []struct {
		name string
		at   int64
		want []trail.Kind
	}{
		{"first", noon + checkpointMicros - 1, []trail.Kind{trail.Start, trail.Request}},
		{"same time", noon + checkpointMicros - 1, []trail.Kind{trail.Request}},
		{"earlier, of a slower caller", noon, []trail.Kind{trail.Request}},
		{"a second after the start", noon + checkpointMicros, []trail.Kind{trail.Request, trail.Checkpoint}},
		{"less than a second after the checkpoint", noon + 2*checkpointMicros - 1, []trail.Kind{trail.Request}},
		{"much later", noon + 100*checkpointMicros, []trail.Kind{trail.Request, trail.Checkpoint}},
		{"right behind it", noon + 100*checkpointMicros, []trail.Kind{trail.Request}},
	} {
		if got := kinds(entries(t, c.Append(entryAt(tt.at)))); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestCheckpointOnDemand(t *testing.T) {
	c := newChain(t, newSigner(7))
	steps := []struct {
		name string
		run  func() wire.Audit
		want []trail.Kind
	}{
		{"of the start", func() wire.Audit { return c.Checkpoint(noon) }, []trail.Kind{trail.Start, trail.Checkpoint}},
		{"nothing to sign", func() wire.Audit { return c.Checkpoint(noon) }, nil},
		{"nothing to sign, much later", func() wire.Audit { return c.Checkpoint(noon + 1e9) }, nil},
		{"an entry", func() wire.Audit { return c.Append(entryAt(noon)) }, []trail.Kind{trail.Request}},
		{"of the entry", func() wire.Audit { return c.Checkpoint(noon) }, []trail.Kind{trail.Checkpoint}},
		{"nothing again", func() wire.Audit { return c.Checkpoint(noon) }, nil},
	}
	for _, tt := range steps {
		if got := kinds(entries(t, tt.run())); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

// Many requests at once, and checkpoints between them: numbers without a gap,
// each run by itself in order, and a trail that verifies.
func TestConcurrentEntries(t *testing.T) {
	s := newSigner(7)
	c := newChain(t, s)
	const writers, each = 16, 200
	runs := make([][]wire.Audit, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if i%50 == w {
					runs[w] = append(runs[w], c.Checkpoint(noon))
				}
				e := entryAt(noon + int64(i))
				e.RequestID = fmt.Sprintf("%d-%d", w, i)
				runs[w] = append(runs[w], c.Append(e))
				if e.Sequence == 0 || e.Instance != c.Instance() {
					t.Errorf("the entry is not filled in: %+v", e)
				}
			}
		})
	}
	wg.Wait()
	all := slices.DeleteFunc(slices.Concat(runs...), func(a wire.Audit) bool { return a.Count == 0 })
	slices.SortFunc(all, func(a, b wire.Audit) int { return cmp.Compare(a.First, b.First) })
	all = append(all, c.Checkpoint(noon+each))
	var frames []byte
	next, requests := uint64(1), map[string]bool{}
	for _, a := range all {
		if a.First != next {
			t.Fatalf("a run begins with %d, want %d", a.First, next)
		}
		for _, e := range entries(t, a) {
			if e.Kind == trail.Request {
				requests[e.RequestID] = true
			}
		}
		next += uint64(a.Count)
		frames = append(frames, a.Frames...)
	}
	if len(requests) != writers*each {
		t.Errorf("%d different requests, want %d", len(requests), writers*each)
	}
	r := verify(s, frames)
	if !r.Intact() || len(r.Instances) != 1 || !r.Instances[0].Endorsed || r.Instances[0].Unsigned != 0 || r.Instances[0].Entries != next-1 {
		t.Errorf("verify: %+v", r)
	}
}

// What the chain is good for: copies that were changed do not verify.
func TestChangedTrails(t *testing.T) {
	s := newSigner(7)
	c := newChain(t, s)
	var runs [][]byte
	for i := range 5 {
		runs = append(runs, c.Append(entryAt(noon+int64(i))).Frames)
	}
	runs = append(runs, c.Checkpoint(noon).Frames)
	other := newChain(t, s)
	foreign := other.Append(entryAt(noon)).Frames
	frames := func(order ...int) (b []byte) {
		for _, i := range order {
			b = append(b, runs[i]...)
		}
		return b
	}
	for _, tt := range []struct {
		name   string
		frames []byte
		key    signer
		intact bool
	}{
		{"as it is", frames(0, 1, 2, 3, 4, 5), s, true},
		{"another instance beside it", append(frames(0, 1, 2, 3, 4, 5), foreign...), s, true},
		{"an entry left out", frames(0, 1, 3, 4, 5), s, false},
		{"the start left out", frames(1, 2, 3, 4, 5), s, false},
		{"two entries exchanged", frames(0, 2, 1, 3, 4, 5), s, false},
		{"an entry twice", frames(0, 1, 1, 2, 3, 4, 5), s, false},
		{"an entry changed", bytes.Replace(frames(0, 1, 2, 3, 4, 5), []byte("Encrypt"), []byte("Decrypt"), 1), s, false},
		{"of another domain", frames(0, 1, 2, 3, 4, 5), newSigner(8), false},
		{"under another domain key", frames(0, 1, 2, 3, 4, 5), signer{s.id, newSigner(8).key}, false},
	} {
		if r := verify(tt.key, tt.frames); r.Intact() != tt.intact {
			t.Errorf("%s: intact is %v: %+v", tt.name, r.Intact(), r)
		}
	}
}

// The hottest call of the package.
func BenchmarkAppend(b *testing.B) {
	c, err := New(newSigner(7), "test", noon)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		c.Append(entryAt(noon))
	}
}
