package trail

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

type testKey struct{ ed25519.PrivateKey }

func newTestKey(text string) testKey {
	seed := sha256.Sum256([]byte(text))
	return testKey{ed25519.NewKeyFromSeed(seed[:])}
}

func (k testKey) public() ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func (k testKey) sign(m []byte) (s [64]byte) { return [64]byte(ed25519.Sign(k.PrivateKey, m)) }

var (
	testDomain    = sha256.Sum256([]byte("genesis"))
	testDomainKey = newTestKey("domain key")
	testInstance  = wire.UUID{0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f}
)

// A testTrail writes a trail as a core does.
type testTrail struct {
	domain    [32]byte
	domainKey testKey
	key       testKey
	instance  wire.UUID
	chain     [32]byte
	entries   []Entry
	frames    [][]byte
}

func newTestTrail(key string, instance wire.UUID) *testTrail {
	return &testTrail{
		domain: testDomain, domainKey: testDomainKey, key: newTestKey(key), instance: instance,
		chain: First(testDomain, instance),
	}
}

// add fills in what depends on the instance and the chain.
func (w *testTrail) add(e Entry) {
	e.Instance, e.Sequence = w.instance, uint64(len(w.entries)+1)
	if e.Time == 0 {
		e.Time = 1_700_000_000_000_000 + int64(e.Sequence)
	}
	switch e.Kind {
	case Start:
		e.Domain = w.domain
		copy(e.PublicKey[:], w.key.public())
		e.Endorsement = w.domainKey.sign(EndorsementMessage(e.Domain, e.Instance, e.PublicKey))
	case Checkpoint:
		e.Head = w.chain
		e.Signature = w.key.sign(CheckpointMessage(w.domain, e.Instance, e.Sequence, e.Time, e.Head))
	}
	b := e.Append(nil)
	w.chain = Chain(w.chain, b)
	w.entries = append(w.entries, e)
	w.frames = append(w.frames, AppendFrame(nil, b, w.chain))
}

// fill writes ten entries: start, 2, 3, checkpoint 4, 5, 6, 7, checkpoint 8, and
// 9 and 10, which are not signed.
func (w *testTrail) fill() *testTrail {
	w.add(Entry{Kind: Start, Platform: "sim"})
	for len(w.entries) < 10 {
		switch n := len(w.entries) + 1; n {
		case 4, 8:
			w.add(Entry{Kind: Checkpoint})
		case 6:
			w.add(Entry{Kind: Aborted, Of: 5})
		default:
			w.add(Entry{Kind: Request, RequestID: fmt.Sprint("r", n), Action: "Encrypt", Code: 200, Reason: "ok"})
		}
	}
	return w
}

func (w *testTrail) bytes() []byte { return bytes.Join(w.frames, nil) }

func testFilled() *testTrail { return newTestTrail("instance key", testInstance).fill() }

// rechain computes the chain values anew, as anyone can, and the heads too if
// asked to.
func rechain(frames [][]byte, first [32]byte, heads bool) [][]byte {
	out := make([][]byte, len(frames))
	chain := first
	for i, b := range frames {
		f, _, err := CutFrame(b)
		if err != nil {
			panic(err)
		}
		entry := bytes.Clone(f.Entry)
		if e, err := Parse(entry); err == nil && e.Kind == Checkpoint && heads {
			e.Head = chain
			entry = e.Append(nil)
		}
		chain = Chain(chain, entry)
		out[i] = AppendFrame(nil, entry, chain)
	}
	return out
}

// alter returns a frame whose entry f has changed, with its old chain value.
func alter(frame []byte, change func(*Entry)) []byte {
	f, _, _ := CutFrame(frame)
	e, err := Parse(f.Entry)
	if err != nil {
		panic(err)
	}
	change(&e)
	return AppendFrame(nil, e.Append(nil), f.Chain)
}

func file(name string, b []byte) File { return File{name, bytes.NewReader(b), int64(len(b))} }

func joined(frames ...[]byte) []File { return []File{file("a", bytes.Join(frames, nil))} }

func check(files []File) Report { return Verify(files, testDomainKey.public(), testDomain) }

// find returns the report on the test instance.
func find(t *testing.T, r Report) Instance {
	t.Helper()
	for _, in := range r.Instances {
		if in.ID == testInstance {
			return in
		}
	}
	t.Fatalf("no report on the instance: %+v", r)
	return Instance{}
}

func TestVerifyIntact(t *testing.T) {
	w := testFilled()
	other := newTestTrail("other key", wire.UUID{9}).fill()
	for name, files := range map[string][]File{
		"one file":       joined(w.frames...),
		"three files":    {file("c", bytes.Join(w.frames[6:], nil)), file("a", bytes.Join(w.frames[:2], nil)), file("b", bytes.Join(w.frames[2:6], nil))},
		"an empty file":  {file("e", nil), file("a", w.bytes())},
		"unused space":   joined(append(slices.Clone(w.frames), make([]byte, 100_000))...),
		"two instances":  {file("a", w.bytes()), file("b", other.bytes())},
		"mixed together": joined(slices.Concat(w.frames[:3], other.frames, w.frames[3:])...),
	} {
		r := check(files)
		in := find(t, r)
		if !r.Intact() || !in.Endorsed || in.Platform != "sim" || in.Entries != 10 || in.First != 1 || in.Last != 10 ||
			in.FirstTime != 1_700_000_000_000_001 || in.LastTime != 1_700_000_000_000_010 ||
			in.Signed != 8 || in.SignedTime != 1_700_000_000_000_008 || in.Unsigned != 2 {
			t.Errorf("%s: got %+v", name, r)
		}
	}
	if r := check(nil); !r.Intact() || len(r.Instances) != 0 {
		t.Errorf("no files: got %+v", r)
	}
}

// Every row is an attack or an accident, and names the first thing that the
// report must say.
func TestVerifyFinds(t *testing.T) {
	w := testFilled()
	first := First(testDomain, testInstance)
	other := newTestTrail("other key", wire.UUID{9}).fill()
	stranger := &testTrail{domain: [32]byte{1}, domainKey: testDomainKey, key: newTestKey("k"), instance: testInstance, chain: First([32]byte{1}, testInstance)}
	impostor := &testTrail{domain: testDomain, domainKey: newTestKey("own"), key: newTestKey("k"), instance: testInstance, chain: first}
	nodomain := newTestTrail("instance key", testInstance)
	nodomain.add(Entry{Kind: Request})
	twice := newTestTrail("instance key", testInstance)
	twice.add(Entry{Kind: Start})
	twice.add(Entry{Kind: Start})
	swap := func(i, j int) [][]byte {
		f := slices.Clone(w.frames)
		f[i-1], f[j-1] = f[j-1], f[i-1]
		return f
	}
	with := func(n int, change func(*Entry)) [][]byte {
		f := slices.Clone(w.frames)
		f[n-1] = alter(f[n-1], change)
		return f
	}
	deny := func(e *Entry) { e.Code, e.Reason = 401, "sign error" }
	for name, row := range map[string]struct {
		frames  [][]byte
		at      uint64
		problem Problem
	}{
		"changed entry":                             {with(6, func(e *Entry) { e.Of = 3 }), 6, BadChain},
		"changed entry, chain recomputed":           {rechain(with(5, deny), first, false), 8, BadCheckpoint},
		"changed entry, chain and heads recomputed": {rechain(with(5, deny), first, true), 8, BadCheckpoint},
		"changed unsigned entry":                    {with(9, deny), 9, BadChain},
		"changed last entry":                        {with(10, deny), 10, BadChain},
		"changed key":                               {rechain(with(1, func(e *Entry) { copy(e.PublicKey[:], other.key.public()) }), first, true), 1, BadStart},
		"changed platform, chain recomputed":        {rechain(with(1, func(e *Entry) { e.Platform = "sgx" }), first, true), 4, BadCheckpoint},
		"changed time of the last checkpoint":       {rechain(with(8, func(e *Entry) { e.Time++ }), first, false), 8, BadCheckpoint},
		"forged checkpoint": {rechain(with(9, func(e *Entry) {
			*e = Entry{Kind: Checkpoint, Sequence: 9, Instance: e.Instance, Signature: e.Signature}
		}), first, true), 9, BadCheckpoint},
		"another instance's checkpoint":     {rechain(with(8, func(e *Entry) { e.Signature = other.entries[7].Signature }), first, false), 8, BadCheckpoint},
		"an earlier checkpoint's signature": {rechain(with(8, func(e *Entry) { e.Head, e.Signature = w.entries[3].Head, w.entries[3].Signature }), first, false), 8, BadCheckpoint},
		"checkpoint made a request":         {rechain(with(4, func(e *Entry) { *e = Entry{Kind: Request, Sequence: 4, Instance: e.Instance} }), first, true), 8, BadCheckpoint},
		"swapped entries":                   {swap(5, 6), 6, Disorder},
		"swapped entries, renumbered": {rechain(func() [][]byte {
			f := swap(5, 7)
			f[4] = alter(f[4], func(e *Entry) { e.Sequence = 5 })
			f[6] = alter(f[6], func(e *Entry) { e.Sequence = 7 })
			return f
		}(), first, false), 8, BadCheckpoint},
		"duplicated entry":            {slices.Insert(slices.Clone(w.frames), 5, w.frames[4]), 5, Repeated},
		"duplicated with a change":    {slices.Insert(slices.Clone(w.frames), 4, alter(w.frames[4], deny)), 5, Conflict},
		"two starts":                  {twice.frames, 2, BadStart},
		"no start":                    {nodomain.frames, 1, BadStart},
		"start dropped":               {w.frames[1:], 2, BadStart},
		"trail of another domain":     {stranger.fill().frames, 1, BadStart},
		"endorsed by another key":     {impostor.fill().frames, 1, BadStart},
		"another instance's entry in": {rechain(slices.Insert(slices.Clone(w.frames[:9]), 5, alter(other.frames[4], func(e *Entry) { e.Instance = testInstance })), first, false), 5, Conflict},
		"torn":                        {append(slices.Clone(w.frames[:9]), w.frames[9][:50]), 10, Torn},
		"zeros, then something":       {append(slices.Clone(w.frames[:9]), append(make([]byte, 100_000), 1)), 10, Torn},
		"zeros, then much":            {append(slices.Clone(w.frames[:9]), append(make([]byte, 100_000), bytes.Repeat([]byte{1}, MaxWrite)...)), 10, Corrupt},
		"zeros up to no sector":       {append(slices.Clone(w.frames[:9]), append(make([]byte, 40), 1)), 10, Corrupt},
		"garbage at the end":          {append(slices.Clone(w.frames), bytes.Repeat([]byte{0xff}, 99)), 11, Corrupt},
		"unknown format":              {append(slices.Clone(w.frames[:9]), append([]byte{0, 0, 0, 42, 9}, make([]byte, 41+32)...)), 10, Corrupt},
	} {
		r := check(joined(row.frames...))
		in := find(t, r)
		if r.Intact() || in.Intact() || len(in.Findings.List) == 0 {
			t.Errorf("%s: nothing found: %+v", name, r)
			continue
		}
		got := in.Findings.List[0]
		if got.Sequence != row.at || got.Problem != row.problem {
			t.Errorf("%s: got %v, want entry %d: %v", name, got, row.at, row.problem)
		}
		if want := offsetsOf(row.frames, row.at); !slices.Contains(want, got.Offset) {
			t.Errorf("%s: got byte %d, want one of %d", name, got.Offset, want)
		}
		if s := got.String(); strings.Contains(s, "%!") || !strings.Contains(s, "entry "+fmt.Sprint(row.at)) {
			t.Errorf("%s: the finding reads %q", name, s)
		}
	}
}

// offsetsOf returns where frames with the sequence number lie, and what is no
// frame.
func offsetsOf(frames [][]byte, sequence uint64) (offsets []int64) {
	at := int64(0)
	for _, b := range frames {
		f, _, err := CutFrame(b)
		_, n, ok := Peek(f.Entry)
		if err != nil || !ok || n == sequence {
			offsets = append(offsets, at)
		}
		at += int64(len(b))
	}
	return offsets
}

// Of two entries with one number, the one that the chain confirms is taken,
// whichever comes first.
func TestVerifyConflictKeepsTheGenuine(t *testing.T) {
	w := testFilled()
	forged := alter(w.frames[4], func(e *Entry) { e.Code = 401 })
	for name, frames := range map[string][][]byte{
		"forged first": slices.Insert(slices.Clone(w.frames), 4, forged),
		"forged last":  slices.Insert(slices.Clone(w.frames), 5, forged),
	} {
		in := find(t, check(joined(frames...)))
		at := slices.IndexFunc(frames, func(b []byte) bool { return bytes.Equal(b, forged) })
		want := int64(len(bytes.Join(frames[:at], nil)))
		if l := in.Findings.List; len(l) != 1 || l[0].Problem != Conflict || l[0].Offset != want || in.Entries != 10 {
			t.Errorf("%s: got %v, want a conflict at byte %d alone", name, l, want)
		}
	}
}

func TestVerifyGaps(t *testing.T) {
	w := testFilled()
	without := func(drop ...int) []File {
		var out [][]byte
		for i, f := range w.frames {
			if !slices.Contains(drop, i+1) {
				out = append(out, f)
			}
		}
		return joined(out...)
	}
	changed := slices.Delete(slices.Clone(w.frames), 5, 6)
	changed[6] = alter(changed[6], func(e *Entry) { e.Head[0] ^= 1 })
	for name, row := range map[string]struct {
		files            []File
		gaps             [][2]uint64
		signed, unsigned uint64
		problem          Problem
	}{
		"one entry":            {without(5), [][2]uint64{{5, 5}}, 8, 2, 0},
		"several":              {without(2, 3, 6, 10), [][2]uint64{{2, 3}, {6, 6}}, 8, 1, 0},
		"before a checkpoint":  {without(7), [][2]uint64{{7, 7}}, 8, 2, 0},
		"a checkpoint":         {without(4), [][2]uint64{{4, 4}}, 8, 2, 0},
		"the last checkpoint":  {without(8), [][2]uint64{{8, 8}}, 4, 5, 0},
		"a file of the middle": {[]File{file("b", bytes.Join(w.frames[7:], nil)), file("a", bytes.Join(w.frames[:3], nil))}, [][2]uint64{{4, 7}}, 8, 2, 0},
		"start":                {without(1), [][2]uint64{{1, 1}}, 0, 9, BadStart},
		"one, and one changed": {joined(changed...), [][2]uint64{{6, 6}}, 4, 5, BadCheckpoint},
	} {
		in := find(t, check(row.files))
		var gaps [][2]uint64
		for _, g := range in.Gaps {
			gaps = append(gaps, [2]uint64{g.First, g.Last})
			if s := g.String(); !strings.Contains(s, fmt.Sprintf("entries %d to %d are missing before %s", g.First, g.Last, g.File)) {
				t.Errorf("%s: the gap reads %q", name, s)
			}
		}
		if !slices.Equal(gaps, row.gaps) || in.Signed != row.signed || in.Unsigned != row.unsigned || in.Intact() {
			t.Errorf("%s: got gaps %v, signed %d, unsigned %d, want %v, %d, %d", name, gaps, in.Signed, in.Unsigned, row.gaps, row.signed, row.unsigned)
		}
		if n := len(in.Findings.List); (row.problem == 0) != (n == 0) || n > 0 && in.Findings.List[0].Problem != row.problem {
			t.Errorf("%s: got findings %v, want %v", name, in.Findings, row.problem)
		}
	}
}

// An entry that a gap hides from the chain is still covered by the checkpoint
// after it, unless it comes right after the gap.
func TestVerifyChangeAfterGap(t *testing.T) {
	w := testFilled()
	frames := slices.Delete(slices.Clone(w.frames), 4, 5) // without 5
	frames[5] = alter(frames[5], func(e *Entry) { e.Code = 401 })
	f6, _, _ := CutFrame(frames[4])
	copy(frames[5:], rechain(frames[5:], f6.Chain, false))
	in := find(t, check(joined(frames...)))
	if len(in.Findings.List) != 1 || in.Findings.List[0].Sequence != 8 || in.Findings.List[0].Problem != BadCheckpoint {
		t.Errorf("got %v, want a bad checkpoint at entry 8", in.Findings)
	}
}

func TestVerifyEnding(t *testing.T) {
	w := testFilled()
	for name, row := range map[string]struct {
		frames [][]byte
		want   string
	}{
		"whole":             {w.frames, "ends at entry 10; the 2 after checkpoint 8 are not signed, and whether more followed cannot be told from the files"},
		"cut by one":        {w.frames[:9], "ends at entry 9; the 1 after checkpoint 8 are not signed, and whether more followed cannot be told from the files"},
		"cut at checkpoint": {w.frames[:8], "ends with the signed checkpoint 8; whether entries followed it cannot be told from the files"},
		"cut to the start":  {w.frames[:1], "ends at entry 1; no entry is signed, and whether more followed cannot be told from the files"},
	} {
		in := find(t, check(joined(row.frames...)))
		if got := in.Ending(); got != row.want || !in.Intact() {
			t.Errorf("%s: got %q, %v, want %q", name, got, in.Findings, row.want)
		}
	}
}

// A report on every trail with one byte changed must name the entry that the
// byte lies in, or one beside it.
func TestVerifyEveryByte(t *testing.T) {
	w := testFilled()
	whole := w.bytes()
	for pass, mask := range map[string]func(int) byte{
		"one bit":  func(i int) byte { return 1 << (i % 8) },
		"all bits": func(int) byte { return 0xff },
	} {
		found := 0
		for i := range whole {
			b := bytes.Clone(whole)
			b[i] ^= mask(i)
			r := check(joined(b))
			if r.Intact() {
				t.Errorf("%s of byte %d changed: not found", pass, i)
				continue
			}
			found++
			n := entryAt(w.frames, i)
			first := firstBad(r)
			if at := entryAt(w.frames, int(first.Offset)); (first.Sequence+1 < n || first.Sequence > n+1) && at != n {
				t.Errorf("%s of byte %d in entry %d changed: the report begins with %v", pass, i, n, first)
			}
		}
		t.Logf("%s: %d of %d changes found", pass, found, len(whole))
	}
}

// entryAt returns the number of the entry whose frame has byte i.
func entryAt(frames [][]byte, i int) uint64 {
	for n, f := range frames {
		if i -= len(f); i < 0 {
			return uint64(n + 1)
		}
	}
	return 0
}

// firstBad returns the first finding or gap of the first instance that has one.
func firstBad(r Report) Finding {
	for _, in := range append(r.Instances, Instance{Findings: r.Unplaced}) {
		if in.Intact() {
			continue
		}
		first := Finding{Sequence: 1 << 63}
		if len(in.Findings.List) > 0 {
			first = in.Findings.List[0]
		}
		if len(in.Gaps) > 0 && in.Gaps[0].First < first.Sequence {
			first = Finding{Sequence: in.Gaps[0].First, Offset: in.Gaps[0].Offset}
		}
		return first
	}
	return Finding{}
}

// Every cut of the file is seen, save between two frames, where the report says
// where it ends.
func TestVerifyEveryCut(t *testing.T) {
	w := testFilled()
	whole := w.bytes()
	ends := map[int]bool{0: true}
	for n := range w.frames {
		ends[len(bytes.Join(w.frames[:n+1], nil))] = true
	}
	for n := range len(whole) {
		r := check(joined(whole[:n]))
		if r.Intact() != ends[n] {
			t.Errorf("cut at byte %d: intact is %v, want %v", n, r.Intact(), ends[n])
		}
	}
}

// Every single entry dropped is seen, and so is every pair swapped.
func TestVerifyEveryDropAndSwap(t *testing.T) {
	w := testFilled()
	for i := range len(w.frames) - 1 {
		in := find(t, check(joined(slices.Delete(slices.Clone(w.frames), i, i+1)...)))
		if len(in.Gaps) != 1 || in.Gaps[0].First != uint64(i+1) {
			t.Errorf("entry %d dropped: got %+v", i+1, in)
		}
		for j := i + 1; j < len(w.frames); j++ {
			f := slices.Clone(w.frames)
			f[i], f[j] = f[j], f[i]
			if in := find(t, check(joined(f...))); len(in.Findings.List) == 0 || in.Findings.List[0].Problem != Disorder {
				t.Errorf("entries %d and %d swapped: got %+v", i+1, j+1, in)
			}
		}
	}
}

// Swapped over the border of two files.
func TestVerifyDisorderOverFiles(t *testing.T) {
	w := testFilled()
	a := slices.Concat(w.frames[:4], w.frames[5:6])
	b := slices.Concat(w.frames[4:5], w.frames[6:])
	in := find(t, check([]File{file("a", bytes.Join(a, nil)), file("b", bytes.Join(b, nil))}))
	if len(in.Findings.List) == 0 || in.Findings.List[0].Problem != Disorder || in.Findings.List[0].Sequence != 6 {
		t.Errorf("got %+v, want disorder at entry 6", in)
	}
}

func TestVerifyUnplaced(t *testing.T) {
	w := testFilled()
	broken := errors.New("broken disk")
	for name, row := range map[string]struct {
		file File
		want Problem
	}{
		"garbage":  {file("g", []byte("not a trail, but a letter")), Corrupt},
		"zeros":    {file("z", make([]byte, 5000)), Torn},
		"two byte": {file("t", []byte{0, 0}), Torn},
		"disk":     {File{"d", readerAt{broken}, 100}, Unreadable},
	} {
		r := check([]File{file("a", w.bytes()), row.file})
		if len(r.Unplaced.List) != 1 || r.Unplaced.List[0].Problem != row.want || r.Intact() || !r.Instances[0].Intact() {
			t.Errorf("%s: got %+v, want %v", name, r, row.want)
		}
	}
}

type readerAt struct{ err error }

func (r readerAt) ReadAt([]byte, int64) (int, error) { return 0, r.err }

// A file that gives other bytes when it is read again.
func TestVerifyFileChanges(t *testing.T) {
	b := testFilled().bytes()
	r := check([]File{{"a", &fading{data: b}, int64(len(b))}})
	in := find(t, r)
	if r.Intact() || in.Findings.List[0].Problem != Unreadable || in.Entries != 0 {
		t.Errorf("got %+v, want unreadable entries", r)
	}
}

type fading struct {
	data []byte
	done bool
}

func (f *fading) ReadAt(p []byte, at int64) (int, error) {
	if at >= int64(len(f.data)) || f.done {
		f.done = true
		return 0, io.EOF
	}
	f.done = at+int64(len(p)) >= int64(len(f.data))
	return bytes.NewReader(f.data).ReadAt(p, at)
}

func TestVerifyWithoutDomainKey(t *testing.T) {
	for name, key := range map[string]ed25519.PublicKey{"nil": nil, "short": make([]byte, 31)} {
		in := find(t, Verify(joined(testFilled().frames...), key, testDomain))
		if in.Endorsed || in.Signed != 0 || in.Unsigned != 10 || in.Findings.List[0].Problem != BadStart {
			t.Errorf("%s key: got %+v", name, in)
		}
	}
}

func TestFindingsAreBounded(t *testing.T) {
	w := newTestTrail("instance key", testInstance)
	w.add(Entry{Kind: Start})
	for range 300 {
		w.add(Entry{Kind: Request})
		w.chain[0] ^= 1
	}
	in := find(t, check(joined(w.frames...)))
	if len(in.Findings.List) != maxFindings || in.Findings.More != 299-maxFindings {
		t.Errorf("got %d findings and %d more, want %d and %d", len(in.Findings.List), in.Findings.More, maxFindings, 299-maxFindings)
	}
	bad := AppendFrame(nil, bytes.Repeat([]byte{9}, minEntry), [32]byte{})
	r := check(joined(bytes.Repeat(bad, 500)))
	if len(r.Unplaced.List) != maxFindings || r.Unplaced.More != 500-maxFindings {
		t.Errorf("got %d findings and %d more", len(r.Unplaced.List), r.Unplaced.More)
	}
}

// The messages that are signed must differ in every input, and in kind.
func TestMessages(t *testing.T) {
	id := wire.UUID{1}
	seen := map[string]string{}
	for name, m := range map[string][]byte{
		"checkpoint":          CheckpointMessage([32]byte{1}, id, 1, 1, [32]byte{1}),
		"checkpoint domain":   CheckpointMessage([32]byte{2}, id, 1, 1, [32]byte{1}),
		"checkpoint instance": CheckpointMessage([32]byte{1}, wire.UUID{2}, 1, 1, [32]byte{1}),
		"checkpoint sequence": CheckpointMessage([32]byte{1}, id, 2, 1, [32]byte{1}),
		"checkpoint time":     CheckpointMessage([32]byte{1}, id, 1, 2, [32]byte{1}),
		"checkpoint head":     CheckpointMessage([32]byte{1}, id, 1, 1, [32]byte{2}),
		"endorsement":         EndorsementMessage([32]byte{1}, id, [32]byte{1}),
		"endorsement domain":  EndorsementMessage([32]byte{2}, id, [32]byte{1}),
		"endorsement id":      EndorsementMessage([32]byte{1}, wire.UUID{2}, [32]byte{1}),
		"endorsement key":     EndorsementMessage([32]byte{1}, id, [32]byte{2}),
	} {
		if other, ok := seen[string(m)]; ok {
			t.Errorf("%s and %s sign the same message", name, other)
		}
		seen[string(m)] = name
		if label, _, ok := bytes.Cut(m, []byte{0}); !ok || !bytes.HasPrefix(label, []byte("ehsm/audit-")) {
			t.Errorf("%s has no label", name)
		}
	}
}

func FuzzVerify(f *testing.F) {
	f.Add(released, 0)
	f.Add(testFilled().bytes(), 100)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		cut = min(max(cut, 0), len(b))
		files := []File{file("b", b[cut:]), file("a", b[:cut])}
		r := check(files)
		for _, in := range r.Instances {
			if in.Signed > 0 && !in.Endorsed || in.Last < in.First || in.Unsigned > in.Entries {
				t.Errorf("impossible report %+v", in)
			}
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	w := newTestTrail("instance key", testInstance)
	w.add(Entry{Kind: Start})
	for i := range 100_000 {
		if i%1000 == 999 {
			w.add(Entry{Kind: Checkpoint})
		}
		w.add(Entry{Kind: Request, RequestID: "0123456789abcdef", Action: "Encrypt", Code: 200, Reason: "ok"})
	}
	all := w.bytes()
	b.SetBytes(int64(len(all)))
	for b.Loop() {
		if r := check([]File{file("a", all)}); !r.Intact() {
			b.Fatalf("got %+v", r)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(w.frames)), "ns/entry")
}
