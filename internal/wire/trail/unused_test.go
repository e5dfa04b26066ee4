package trail

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// longTrail has a start, n requests and a checkpoint behind each ten.
func longTrail(n int) *testTrail {
	w := newTestTrail("instance key", testInstance)
	w.add(Entry{Kind: Start, Platform: "sim"})
	for i := range n {
		w.add(Entry{Kind: Request, RequestID: fmt.Sprint("request ", i), Action: "GetSecretValue", Code: 200, Reason: "ok"})
		if i%10 == 9 {
			w.add(Entry{Kind: Checkpoint})
		}
	}
	return w
}

// powerCut returns what is left of a file with unused space of which the first
// synced frames were durable and all others on their way to the disk: kept tells
// which of the sectors it has reached.
func powerCut(frames [][]byte, synced int, kept func(sector int) bool) []byte {
	whole := append(bytes.Join(frames, nil), make([]byte, 8*sector)...)
	old := make([]byte, len(whole))
	copy(old, bytes.Join(frames[:synced], nil))
	for at := 0; at < len(whole); at += sector {
		if end := min(at+sector, len(whole)); kept(at / sector) {
			copy(old[at:end], whole[at:end])
		}
	}
	return old
}

// Whatever a power cut takes of the last write, what was durable is there, and
// the report speaks of a torn end and nothing else.
func TestVerifyPowerCut(t *testing.T) {
	w := longTrail(9)
	w.add(Entry{Kind: Checkpoint})
	synced := len(w.frames)
	for i := range 24 {
		w.add(Entry{Kind: Request, RequestID: fmt.Sprint("last ", i), Action: "GetSecretValue", Code: 200, Reason: "ok"})
	}
	first := len(bytes.Join(w.frames[:synced], nil)) / sector // the first that can be missing
	sectors := len(w.bytes())/sector + 1 - first
	torn := 0
	for mask := range 1 << sectors {
		b := powerCut(w.frames, synced, func(n int) bool { return n < first || mask>>(n-first)&1 == 1 })
		r := check([]File{file("a", b)})
		in := find(t, r)
		if len(in.Gaps) > 0 || in.Entries < uint64(synced) || in.Entries > uint64(len(w.frames)) || len(r.Unplaced.List) > 0 {
			t.Fatalf("sectors %b: got %+v", mask, r)
		}
		for _, x := range in.Findings.List {
			if torn++; x.Problem != Torn {
				t.Fatalf("sectors %b: got %v, want a torn end or nothing", mask, x)
			}
		}
		if whole := mask == 1<<sectors-1; whole && (!in.Intact() || in.Entries != uint64(len(w.frames))) {
			t.Errorf("no sector is missing: got %+v", in)
		}
	}
	if torn == 0 {
		t.Error("no power cut tore anything")
	}
	t.Logf("%d sectors in doubt, %d torn ends in %d power cuts", sectors, torn, 1<<sectors)
}

// The same with frames at every place in a sector, and any sectors missing.
func TestVerifyPowerCutAnywhere(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 5))
	for round := range 400 {
		w := newTestTrail("instance key", testInstance)
		w.add(Entry{Kind: Start, Platform: "sim"})
		for range 12 {
			w.add(Entry{Kind: Request, RequestID: fmt.Sprintf("%0*d", r.IntN(64), 0), Action: "Encrypt", Code: 200, Reason: "ok"})
		}
		synced := 1 + r.IntN(len(w.frames)-1)
		in := find(t, check([]File{file("a", powerCut(w.frames, synced, func(int) bool { return r.IntN(3) > 0 }))}))
		for _, x := range in.Findings.List {
			if x.Problem != Torn {
				t.Errorf("round %d: got %v, want a torn end or nothing", round, x)
			}
		}
		if len(in.Gaps) > 0 || in.Entries < uint64(synced) {
			t.Errorf("round %d: got %+v, want the %d durable entries", round, in, synced)
		}
	}
}

// Zeros in a file are a torn end only where an interrupted write can leave them.
func TestVerifyZerosAreNotAlwaysTorn(t *testing.T) {
	w := longTrail(3000) // about 600 KiB
	whole := append(w.bytes(), make([]byte, 4*sector)...)
	end := int64(len(w.bytes()))
	hole := func(from, to int64) []byte {
		b := bytes.Clone(whole)
		clear(b[from:to])
		return b
	}
	at := int64(len(bytes.Join(w.frames[:100], nil))) // begin of a frame, far from the end
	late := sectorEnd(end - 20*sector)
	for name, row := range map[string]struct {
		b    []byte
		want Problem
	}{
		"a sector near the end":               {hole(late, late+sector), Torn},
		"ten sectors near the end":            {hole(late, late+10*sector), Torn},
		"less than a sector near the end":     {hole(late+1, late+sector), 0},
		"a frame far from the end":            {hole(at, at+200), Corrupt},
		"a sector far from the end":           {hole(sectorEnd(at), sectorEnd(at)+sector), 0},
		"many sectors far from the end":       {hole(sectorEnd(at), sectorEnd(at)+100*sector), 0},
		"from the begin of a frame, many":     {hole(at, sectorEnd(at)+100*sector), Corrupt},
		"all sectors but the last, and first": {hole(2*sector, late), 0},
	} {
		in := find(t, check([]File{file("a", row.b)}))
		if len(in.Findings.List) == 0 {
			t.Errorf("%s: nothing found", name)
			continue
		}
		got := in.Findings.List[0].Problem
		if got != row.want && (row.want != 0 || got == Torn) {
			t.Errorf("%s: got %v, want %v", name, in.Findings.List[0], row.want)
		}
	}
}

// What is missing behind a torn end shows when the trail goes on elsewhere.
func TestVerifyTornEndBeforeMore(t *testing.T) {
	w := longTrail(40)
	b := powerCut(w.frames[:30], 10, func(int) bool { return false })
	in := find(t, check([]File{file("a", b), file("b", bytes.Join(w.frames[30:], nil))}))
	if len(in.Gaps) != 1 || in.Gaps[0].First != 11 || in.Gaps[0].Last != 30 {
		t.Errorf("got %+v, want a gap of entries 11 to 30", in)
	}
}

// A chain value that ends with a zero byte is no missing sector, although it may
// be all that a sector has.
func TestVerifyChainValueEndsWithZero(t *testing.T) {
	w := newTestTrail("instance key", testInstance)
	w.add(Entry{Kind: Start, Platform: "sim"})
	e := Entry{Kind: Request, Instance: testInstance, Action: "Encrypt", Code: 200}
	least := lengthSize + len(e.Append(nil)) + chainSize
	for pad := -1; pad < 0 || pad > 50; { // the last entry is to begin where it fits
		w.add(Entry{Kind: Request, RequestID: "request", Action: "Encrypt", Code: 200, Reason: "ok"})
		pad = int(sectorEnd(int64(len(w.bytes())))) + 1 - len(w.bytes()) - least
		e.Sequence, e.Reason = uint64(len(w.frames))+1, strings.Repeat("x", max(pad, 0))
	}
	for n := range 5000 {
		e.Time = int64(n)
		b := e.Append(nil)
		if chain := Chain(w.chain, b); chain[chainSize-1] == 0 {
			whole := append(w.bytes(), AppendFrame(nil, b, chain)...)
			if len(whole)%sector != 1 {
				t.Fatalf("the trail has %d bytes, want one in its last sector", len(whole))
			}
			if in := find(t, check([]File{file("a", append(whole, make([]byte, 2*sector)...))})); !in.Intact() || in.Entries != e.Sequence {
				t.Errorf("got %+v, want all entries", in)
			}
			return
		}
	}
	t.Error("no chain value ends with zero")
}
