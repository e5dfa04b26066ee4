package trail

import (
	"bytes"
	_ "embed"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// A trail of format 1, made by v1.py. Released formats never change: a failure
// here means that archived trails can no longer be verified.
//
//go:embed testdata/v1.trail
var released []byte

// releasedEntries are the entries of v1.trail, without what depends on keys.
func releasedEntries() []Entry {
	tenant, key := wire.UUID(bytes.Repeat([]byte{0xaa}, 16)), wire.UUID(bytes.Repeat([]byte{0xbb}, 16))
	entries := []Entry{
		{Kind: Start, Domain: testDomain, Platform: "sim"},
		{Kind: Request, RequestID: "req-1", Tenant: tenant, Action: "Encrypt", Key: key, KeyVersion: 3, Code: 200, Reason: "ok"},
		{Kind: Request, RequestID: "req-2", Tenant: tenant, Action: "DisableKey", Key: key, Code: 200, Reason: "ok"},
		{Kind: Aborted, Of: 3},
		{Kind: Checkpoint},
		{Kind: Request, Action: "ListKey", Code: 401, Reason: "sign error"},
		{Kind: Checkpoint},
	}
	for i := range entries {
		entries[i].Sequence = uint64(i + 1)
		entries[i].Time = 1700000000000000 + int64(i+1)
	}
	return entries
}

func TestReleased(t *testing.T) {
	w := newTestTrail("instance key", testInstance)
	for _, e := range releasedEntries() {
		w.add(e)
	}
	if got := w.bytes(); !bytes.Equal(got, released) {
		t.Errorf("the trail is encoded as\n%x, want\n%x", got, released)
	}
	rest := released
	for _, want := range w.entries {
		f, after, err := CutFrame(rest)
		if err != nil {
			t.Fatalf("CutFrame: %v", err)
		}
		got, err := Parse(f.Entry)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("Parse: got %+v, %v, want %+v", got, err, want)
		}
		rest = after
	}
	r := Verify([]File{file("v1", released)}, testDomainKey.public(), testDomain)
	if !r.Intact() || len(r.Instances) != 1 || r.Instances[0].Signed != 7 || r.Instances[0].Entries != 7 {
		t.Errorf("Verify: got %+v", r)
	}
}

func TestParseRefusals(t *testing.T) {
	enc := func(e Entry) []byte {
		e.Sequence = max(e.Sequence, 9)
		return e.Append(nil)
	}
	change := func(b []byte, at int, v byte) []byte { b[at] = v; return b }
	for name, b := range map[string][]byte{
		"empty":                  nil,
		"format 0":               change(enc(Entry{Kind: Checkpoint}), 0, 0),
		"format 2":               change(enc(Entry{Kind: Checkpoint}), 0, 2),
		"kind 0":                 enc(Entry{}),
		"kind 5":                 enc(Entry{Kind: 5}),
		"sequence 0":             (&Entry{Kind: Checkpoint}).Append(nil),
		"head only":              enc(Entry{Kind: Checkpoint})[:headSize],
		"cut short":              enc(Entry{Kind: Start})[:headSize+100],
		"trailing byte":          append(enc(Entry{Kind: Request}), 0),
		"request as checkpoint":  change(enc(Entry{Kind: Request}), 1, byte(Checkpoint)),
		"text longer than rest":  change(enc(Entry{Kind: Request}), headSize+1, 200),
		"text over the limit":    append(change(enc(Entry{Kind: Request}), headSize+1, 129), make([]byte, 129)...),
		"aborts entry 0":         enc(Entry{Kind: Aborted}),
		"aborts itself":          enc(Entry{Kind: Aborted, Of: 9}),
		"aborts a later entry":   enc(Entry{Kind: Aborted, Of: 10}),
		"platform of 2^16 bytes": change(enc(Entry{Kind: Start}), headSize+128, 0xff),
	} {
		if e, err := Parse(b); !errors.Is(err, pack.ErrMalformed) || !reflect.DeepEqual(e, Entry{}) {
			t.Errorf("%s: got %+v, %v, want ErrMalformed", name, e, err)
		}
	}
}

func TestTextIsCut(t *testing.T) {
	long := strings.Repeat("x", 1000)
	b := (&Entry{Kind: Request, Sequence: 1, RequestID: long, Action: long, Reason: long}).Append(nil)
	e, err := Parse(b)
	if err != nil || len(e.RequestID) != MaxText || len(e.Action) != MaxText || len(e.Reason) != MaxText {
		t.Errorf("Parse: got %+v, %v", e, err)
	}
	if len(b) != 462 || len(b) > MaxEntry {
		t.Errorf("longest entry has %d bytes, want 462", len(b))
	}
	if n := len((&Entry{Kind: Aborted}).Append(nil)); n != minEntry {
		t.Errorf("shortest entry has %d bytes, want %d", n, minEntry)
	}
}

func TestNames(t *testing.T) {
	for got, want := range map[string]string{
		Start.String(): "start", Request.String(): "request", Checkpoint.String(): "checkpoint",
		Aborted.String(): "aborted", Kind(7).String(): "kind 7",
		Torn.String(): "torn", Disorder.String(): "disorder", Problem(0).String(): "problem 0", Problem(99).String(): "problem 99",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestPeek(t *testing.T) {
	b := (&Entry{Kind: Checkpoint, Sequence: 1 << 40, Instance: testInstance}).Append(nil)
	if id, n, ok := Peek(b); id != testInstance || n != 1<<40 || !ok {
		t.Errorf("Peek: got %s, %d, %v", id, n, ok)
	}
	for name, b := range map[string][]byte{"empty": nil, "short": b[:headSize-1], "format 2": append([]byte{2}, b[1:]...)} {
		if _, _, ok := Peek(b); ok {
			t.Errorf("%s: Peek takes it for an entry", name)
		}
	}
}

func TestFrameRefusals(t *testing.T) {
	whole := AppendFrame(nil, (&Entry{Kind: Aborted, Sequence: 2, Of: 1}).Append(nil), [32]byte{1})
	for name, row := range map[string]struct {
		in   []byte
		want error
	}{
		"end":                   {nil, io.EOF},
		"ends in the length":    {whole[:3], ErrTorn},
		"ends after the length": {whole[:4], ErrTorn},
		"ends in the entry":     {whole[:20], ErrTorn},
		"ends before the chain": {whole[:lengthSize+minEntry], ErrTorn},
		"ends in the chain":     {whole[:len(whole)-1], ErrTorn},
		"length 0":              {make([]byte, 100), ErrUnused},
		"length too small":      {[]byte{0, 0, 0, minEntry - 1, 9, 9}, ErrCorrupt},
		"length too large":      {[]byte{0, 0, 2, 1}, ErrCorrupt},
		"length 2^32-1":         {[]byte{255, 255, 255, 255}, ErrCorrupt},
	} {
		if _, err := ReadFrame(bytes.NewReader(row.in), make([]byte, MaxFrame)); !errors.Is(err, row.want) {
			t.Errorf("%s: ReadFrame: got %v, want %v", name, err, row.want)
		}
		if _, _, err := CutFrame(row.in); !errors.Is(err, row.want) {
			t.Errorf("%s: CutFrame: got %v, want %v", name, err, row.want)
		}
	}
	broken := errors.New("broken disk")
	r := io.MultiReader(bytes.NewReader(whole[:30]), errReader{broken})
	if _, err := ReadFrame(r, make([]byte, MaxFrame)); !errors.Is(err, broken) || errors.Is(err, ErrTorn) {
		t.Errorf("broken disk: got %v", err)
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func TestHotPathDoesNotAllocate(t *testing.T) {
	e := Entry{Kind: Request, Sequence: 7, RequestID: "request", Action: "Encrypt", Reason: "ok"}
	entry, frame := make([]byte, 0, MaxEntry), make([]byte, 0, MaxFrame)
	var chain [32]byte
	if n := testing.AllocsPerRun(100, func() {
		entry = e.Append(entry[:0])
		chain = Chain(chain, entry)
		frame = AppendFrame(frame[:0], entry, chain)
	}); n != 0 {
		t.Errorf("an entry costs %v allocations, want 0", n)
	}
}

func FuzzParse(f *testing.F) {
	for rest := released; len(rest) > 0; {
		fr, after, err := CutFrame(rest)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(fr.Entry)
		rest = after
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Parse(b)
		if err != nil {
			return
		}
		if again := e.Append(nil); !bytes.Equal(again, b) {
			t.Errorf("two encodings of one entry: %x and %x", b, again)
		}
		if id, n, ok := Peek(b); !ok || id != e.Instance || n != e.Sequence {
			t.Errorf("Peek: got %s, %d, %v, want %s, %d", id, n, ok, e.Instance, e.Sequence)
		}
		if len(b) < minEntry || len(b) > MaxEntry {
			t.Errorf("entry of %d bytes does not fit a frame", len(b))
		}
	})
}

func FuzzReadFrame(f *testing.F) {
	f.Add(released)
	f.Add(released[:200])
	f.Fuzz(func(t *testing.T, b []byte) {
		r, buf := bytes.NewReader(b), make([]byte, MaxFrame)
		for rest := b; ; {
			x, err := ReadFrame(r, buf)
			y, after, err2 := CutFrame(rest)
			if (err == nil) != (err2 == nil) || err != nil && err.Error() != err2.Error() {
				t.Fatalf("ReadFrame says %v, CutFrame %v", err, err2)
			}
			if err != nil {
				return
			}
			if !bytes.Equal(x.Entry, y.Entry) || x.Chain != y.Chain {
				t.Fatalf("ReadFrame gives %x, CutFrame %x", x, y)
			}
			if again := AppendFrame(nil, x.Entry, x.Chain); !bytes.Equal(again, rest[:x.Size()]) {
				t.Fatalf("frame re-encodes to %x", again)
			}
			rest = after
		}
	})
}

func BenchmarkEntry(b *testing.B) {
	e := Entry{Kind: Request, Sequence: 7, RequestID: "0123456789abcdef", Action: "Encrypt", Code: 200, Reason: "ok"}
	entry, frame := make([]byte, 0, MaxEntry), make([]byte, 0, MaxFrame)
	var chain [32]byte
	b.ReportAllocs()
	for b.Loop() {
		entry = e.Append(entry[:0])
		chain = Chain(chain, entry)
		frame = AppendFrame(frame[:0], entry, chain)
	}
}
