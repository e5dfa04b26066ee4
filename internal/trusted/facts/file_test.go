package facts

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// A file as released versions write it. Never change it.
const knownHead = `{"entries":3,"hash":"0100000000000000000000000000000000000000000000000000000000000000"}` + "\n"

func TestHeadFile(t *testing.T) {
	dir := t.TempDir()
	if h, err := ReadHead(dir); err != nil || h != (Head{}) {
		t.Errorf("no file: got %s, %v", h, err)
	}
	want := Head{3, [32]byte{1}}
	for range 2 { // the second one takes the place of the first
		if err := WriteHead(dir, want); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, HeadFile)); err != nil || string(b) != knownHead {
		t.Errorf("got %q, %v", b, err)
	}
	if h, err := ReadHead(dir); err != nil || h != want {
		t.Errorf("got %s, %v", h, err)
	}
	for name, text := range map[string]string{
		"empty":          "",
		"no JSON":        "3",
		"cut":            knownHead[:len(knownHead)-3],
		"short hash":     strings.Replace(knownHead, "0100", "01", 1),
		"no hex":         strings.Replace(knownHead, "0100", "0x00", 1),
		"upper case":     strings.Replace(knownHead, "0100", "0A00", 1),
		"no entries":     strings.Replace(knownHead, "3", "0", 1),
		"negative":       strings.Replace(knownHead, "3", "-3", 1),
		"another member": strings.Replace(knownHead, "{", `{"more":1,`, 1),
		"more":           knownHead + knownHead,
	} {
		if err := os.WriteFile(filepath.Join(dir, HeadFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if h, err := ReadHead(dir); !errors.Is(err, ErrHead) || h != (Head{}) {
			t.Errorf("%s: got %s, %v, want ErrHead", name, h, err)
		}
		if _, err := OpenKept(dir); !errors.Is(err, ErrHead) {
			t.Errorf("%s: OpenKept: got %v, want ErrHead", name, err)
		}
	}
	if err := WriteHead(filepath.Join(dir, "nowhere"), want); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: got %v", err)
	}
}

// What an anchor says is in its file before.
func TestKept(t *testing.T) {
	dir := t.TempDir()
	k, err := OpenKept(dir)
	if err != nil {
		t.Fatal(err)
	}
	for n := uint64(1); n < 4; n++ {
		if err := k.Hear(Statement{Head: numbered(n, 1), Proven: []Head{k.Head()}}, false); err != nil {
			t.Fatal(err)
		}
		if h, err := ReadHead(dir); err != nil || h != numbered(n, 1) {
			t.Errorf("got %s, %v, want %d", h, err, n)
		}
	}
	if err := k.Hear(Statement{Head: numbered(3, 2)}, false); !errors.Is(err, ErrFork) {
		t.Errorf("fork: got %v", err)
	}
	again, err := OpenKept(dir)
	if err != nil || again.Head() != numbered(3, 1) {
		t.Errorf("opened again: got %v", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := k.Hear(Statement{Head: numbered(4, 1), Proven: []Head{numbered(3, 1)}}, false); !errors.Is(err, os.ErrNotExist) || k.Head() != numbered(4, 1) {
		t.Errorf("no directory: got %v, %s", err, k.Head())
	}
}

// Follow keeps the head that a log had at the end.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	l := shown(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		Follow(ctx, l, dir, func(err error) { t.Error(err) })
		close(done)
	}()
	entries := grow(t, grow(t, nil, fact(1, 2)), fact(2, 2))
	for i := range 2 {
		if _, err := l.Extend(uint64(i+1), entries[i*wire.FactSize:][:wire.FactSize], false); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	<-done
	if h, err := ReadHead(dir); err != nil || h != l.Head() {
		t.Errorf("got %s, %v, want %s", h, err, l.Head())
	}
	failed := 0
	Follow(ctx, l, filepath.Join(dir, "nowhere"), func(error) { failed++ })
	if failed != 1 {
		t.Errorf("no directory: %d errors", failed)
	}
}

// A Reader knows what it was told before there was a log.
func TestReader(t *testing.T) {
	two := grow(t, grow(t, nil, fact(1, 2)), fact(2, 2))
	r := NewReader()
	changed := r.Changed()
	if err := r.Hear(Statement{Head: head(t, two), Ask: []Head{head(t, two[:wire.FactSize])}}, false); err != nil {
		t.Fatal(err)
	}
	if s := r.Say(Statement{}); !s.Equal(Statement{}) {
		t.Errorf("without a log: says %v", s)
	}
	l := NewLog(&fakeKeys{1, 1}, 10)
	r.Attach(l)
	if l.Extend(1, two[:wire.FactSize], true); !errors.Is(l.Ready(), ErrBehind) {
		t.Errorf("half of it: got %v", l.Ready())
	}
	grown := r.Changed()
	if l.Extend(2, two[wire.FactSize:], true); l.Ready() != nil {
		t.Errorf("all of it: got %v", l.Ready())
	}
	select {
	case <-grown:
	default:
		t.Error("nothing is new")
	}
	select {
	case <-changed:
		t.Error("something was new without a log")
	default:
	}
	if s := r.Say(Statement{}); s.Head != head(t, two) || len(s.Proven) != 2 {
		t.Errorf("says %v", s)
	}
	if err := r.Hear(Statement{Head: Head{2, [32]byte{9}}}, true); !errors.Is(err, ErrFork) {
		t.Errorf("another head: got %v", err)
	}
	select {
	case <-l.Failed():
	default:
		t.Error("the log has not failed")
	}
	next := NewLog(&fakeKeys{1, 1}, 10) // of the core that starts then
	r.Attach(next)
	if next.Extend(1, two, true); !errors.Is(next.Ready(), ErrFork) {
		t.Errorf("the next log: got %v", next.Ready())
	}
}

func FuzzHeadFile(f *testing.F) {
	f.Add([]byte(knownHead))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := parseHead(b); err == nil && !bytes.Equal(h.encode(), b) {
			t.Error("does not re-encode")
		}
	})
}
