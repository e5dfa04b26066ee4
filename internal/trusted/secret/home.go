package secret

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// A Memory is what the keys of a Home lie in. The zero value is none.
type Memory uint8

// The kinds of memory, weakest first.
const (
	_      Memory = iota
	Heap          // ordinary memory: whatever protects the process protects the keys
	Locked        // mlock(2): in no swap space, core dump or forked child; a debugger reads it
	Hidden        // memfd_secret(2): as Locked, and nobody but the process has a mapping, not even the kernel
)

var memoryNames = [...]string{Heap: "ordinary memory", Locked: "locked memory (mlock)", Hidden: "secret memory (memfd_secret)"}

// String names the memory for people.
func (m Memory) String() string {
	if m == 0 || int(m) >= len(memoryNames) {
		return fmt.Sprintf("memory of kind %d", uint8(m))
	}
	return memoryNames[m]
}

// ErrMemory is returned where the kernel does not give the memory asked for. Its
// text says what to change.
var ErrMemory = errors.New("no protected memory for keys")

// regionSize is how much memory a Home takes at a time, in bytes, before guard
// pages and rounding to pages: 512 keys of 32 bytes. Containers may have an
// RLIMIT_MEMLOCK of 64 KiB only.
const regionSize = 16 << 10

const slotAlign = 16 // bytes

// A Home is where long-lived keys lie. They never move, so that what the package
// says of their memory holds for the only lasting copy. Its methods are safe for
// concurrent use.
type Home struct {
	memory Memory
	closed atomic.Bool

	mu      sync.Mutex
	regions []region
	free    []byte // what is left of the newest region
}

// region is one mapping: the usable pages, with an inaccessible one before and
// after them.
type region struct{ whole, usable []byte }

// NewHeap returns a Home in ordinary memory, for platforms whose memory is
// protected as a whole and whose run-time knows no other.
func NewHeap() *Home { return &Home{memory: Heap} }

// NewLocked returns a Home in the best memory that the kernel has, Hidden or else
// Locked; Memory tells which. It never falls back to ordinary memory. Errors:
// ErrMemory.
func NewLocked() (*Home, error) {
	hidden, err := newHome(Hidden)
	if err == nil {
		return hidden, nil
	}
	locked, lockErr := newHome(Locked)
	if lockErr == nil {
		return locked, nil
	}
	return nil, fmt.Errorf("%w: memfd_secret: %w; mlock: %w; allow at least %d KiB of locked memory (RLIMIT_MEMLOCK)",
		ErrMemory, err, lockErr, regionSize>>10)
}

// newHome returns a Home that has got its first region already.
func newHome(m Memory) (*Home, error) {
	h := &Home{memory: m}
	return h, h.grow(regionSize)
}

// Format implements fmt.Formatter. It shows the kind of memory and no key.
func (h *Home) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "keys in %s", h.memory) }

// Memory tells what the keys lie in.
func (h *Home) Memory() Memory { return h.memory }

// Make returns n zero bytes for the caller to fill through Expose. They live
// until Close; Zero clears them earlier, but their room is not used again: what
// belongs here lives as long as the process. Errors: ErrMemory.
func (h *Home) Make(n int) (Bytes, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed.Load() {
		panic("secret: home is closed")
	}
	size := (n + slotAlign - 1) / slotAlign * slotAlign
	if size > len(h.free) {
		if err := h.grow(size); err != nil {
			return Bytes{}, fmt.Errorf("%w: %d bytes more: %w", ErrMemory, n, err)
		}
	}
	b := h.free[:n:n]
	h.free = h.free[size:]
	return Bytes{func() []byte {
		if h.closed.Load() {
			panic("secret: home is closed") // or an empty key would be used
		}
		return b
	}}, nil
}

// Move is Make with the bytes of b, which it clears, also when it fails.
func (h *Home) Move(b []byte) (Bytes, error) {
	defer clear(b)
	s, err := h.Make(len(b))
	if err == nil {
		copy(s.Expose(), b)
	}
	return s, err
}

// grow adds a region of at least n bytes. What is left of the one before stays
// unused. The caller must hold h.mu.
func (h *Home) grow(n int) error {
	n = max(n, regionSize)
	if h.memory == Heap {
		b := make([]byte, n)
		h.regions, h.free = append(h.regions, region{usable: b}), b
		return nil
	}
	r, err := mapRegion(h.memory, n)
	if err != nil {
		return err
	}
	h.regions, h.free = append(h.regions, r), r.usable
	return nil
}

// Close overwrites all keys and gives the memory back. Any later use of one of
// them is a bug and panics, so it comes after everything that uses keys.
func (h *Home) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed.Swap(true) {
		return nil
	}
	var errs []error
	for _, r := range h.regions {
		clear(r.usable)
		if r.whole != nil {
			errs = append(errs, unmapRegion(r))
		}
	}
	h.regions, h.free = nil, nil
	return errors.Join(errs...)
}
