package secret

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"unsafe"
)

func mustMake(t testing.TB, h *Home, n int) []byte {
	t.Helper()
	s, err := h.Make(n)
	if err != nil {
		t.Fatal(err)
	}
	return s.Expose()
}

// panics reports whether f panics.
func panics(f func()) (yes bool) {
	defer func() { yes = recover() != nil }()
	f()
	return false
}

func TestHomeHandsOutRoom(t *testing.T) {
	for _, m := range memories(t) {
		h, err := newHome(m)
		if err != nil {
			t.Fatal(err)
		}
		if h.Memory() != m {
			t.Errorf("%s: Memory is %s", m, h.Memory())
		}
		all := [][]byte{}
		for _, n := range []int{32, 1, 16, 17, 0, regionSize - 64, regionSize, 3*regionSize + 1, 32} {
			b := mustMake(t, h, n)
			if len(b) != n || cap(b) != n || !bytes.Equal(b, make([]byte, n)) {
				t.Errorf("%s: Make(%d): got %d bytes, capacity %d, zero %v", m, n, len(b), cap(b), bytes.Equal(b, make([]byte, n)))
			}
			if n > 0 && uintptr(unsafe.Pointer(&b[0]))%slotAlign != 0 {
				t.Errorf("%s: Make(%d) is not aligned", m, n)
			}
			for i := range b {
				b[i] = byte(len(all) + 1)
			}
			all = append(all, b)
		}
		for i, b := range all { // no two share bytes
			if !bytes.Equal(b, bytes.Repeat([]byte{byte(i + 1)}, len(b))) {
				t.Errorf("%s: piece %d was overwritten", m, i)
			}
		}
		if err := h.Close(); err != nil {
			t.Errorf("%s: Close: %v", m, err)
		}
	}
}

func TestMoveClearsItsSource(t *testing.T) {
	h := NewHeap()
	b := []byte(marker)
	s, err := h.Move(b)
	if err != nil || string(s.Expose()) != marker || !bytes.Equal(b, make([]byte, len(b))) {
		t.Errorf("Move: got %q, %v, source %q", s.Expose(), err, b)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if out := fmt.Sprintf(verb, h) + fmt.Sprintf(verb, s); leaks(out) {
			t.Errorf("%s prints key material: %s", verb, out)
		}
	}
}

// TestCloseClears looks at the memory behind a Home in ordinary memory, the only
// one that can be looked at afterwards.
func TestCloseClears(t *testing.T) {
	h := NewHeap()
	s, err := h.Move([]byte(marker))
	if err != nil {
		t.Fatal(err)
	}
	b := s.Expose()
	if err := h.Close(); err != nil || !bytes.Equal(b, make([]byte, len(b))) {
		t.Errorf("Close: %v, left %q", err, b)
	}
	if err := h.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestUseAfterCloseIsABug(t *testing.T) {
	for _, m := range memories(t) {
		h, err := newHome(m)
		if err != nil {
			t.Fatal(err)
		}
		s, err := h.Move([]byte(marker))
		if err != nil {
			t.Fatal(err)
		}
		h.Close()
		for name, f := range map[string]func(){
			"Expose": func() { s.Expose() }, "Equal": func() { s.Equal(New(nil)) },
			"Make": func() { h.Make(1) }, "Move": func() { h.Move([]byte{1}) },
		} {
			if !panics(f) {
				t.Errorf("%s: %s goes on", m, name)
			}
		}
	}
}

func TestHomeIsShared(t *testing.T) {
	h := NewHeap()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 200 {
				s, err := h.Move(bytes.Repeat([]byte{byte(i)}, 32))
				if err != nil || !bytes.Equal(s.Expose(), bytes.Repeat([]byte{byte(i)}, 32)) {
					t.Errorf("Move: %v, %x", err, s.Expose())
				}
			}
		})
	}
	wg.Wait()
}

func TestMemoriesHaveNames(t *testing.T) {
	for m, want := range map[Memory]string{
		Heap: "ordinary memory", Locked: "locked memory (mlock)", Hidden: "secret memory (memfd_secret)",
		0: "memory of kind 0", 9: "memory of kind 9",
	} {
		if got := m.String(); got != want {
			t.Errorf("Memory(%d): got %q, want %q", m, got, want)
		}
	}
}

func TestDoCallsOnceAndPassesPanicsOn(t *testing.T) {
	calls := 0
	Do(func() { calls++ })
	if calls != 1 {
		t.Errorf("Do: called %d times", calls)
	}
	if !panics(func() { Do(func() { panic("x") }) }) {
		t.Error("Do: swallows panics")
	}
}
