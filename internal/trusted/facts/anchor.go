package facts

import (
	"fmt"
	"slices"
	"sync"

	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// MaxHeads is the most heads in each list of a Statement.
const MaxHeads = 8

// maxChain is how many heads of its chain an Anchor remembers.
const maxChain = 256

// A Statement is what attested programs tell each other about the log. Only cores
// see the log itself; all others know heads, and which of them a core has found on
// one chain.
type Statement struct {
	Head   Head   // the highest that the sender knows to be on its chain
	Proven []Head // heads on the chain of Head
	Ask    []Head // heads that the sender has heard of, and does not know to be on it
}

// Equal reports whether both say the same.
func (s Statement) Equal(other Statement) bool {
	return s.Head == other.Head && slices.Equal(s.Proven, other.Proven) && slices.Equal(s.Ask, other.Ask)
}

// Append encodes s. Layout: docs/provisioning.md#messages.
func (s *Statement) Append(dst []byte) []byte {
	dst = s.Head.append(dst)
	for _, heads := range [][]Head{s.Proven, s.Ask} {
		dst = append(dst, byte(len(heads)))
		for _, h := range heads {
			dst = h.append(dst)
		}
	}
	return dst
}

// ReadStatement reads what Append wrote.
func ReadStatement(r *pack.Reader) (s Statement) {
	s.Head = readHead(r)
	for _, list := range []*[]Head{&s.Proven, &s.Ask} {
		n := int(r.Uint8())
		if n > MaxHeads {
			r.Fail("%d heads, limit %d", n, MaxHeads)
		}
		for i := 0; i < n && r.Err() == nil; i++ {
			*list = append(*list, readHead(r))
		}
	}
	return s
}

// An Anchor is the highest head of the log that a dkeyserver or dkeycache knows. It
// goes up only, and only to heads that a core has found to continue the one it has:
// otherwise a host could have a second log grow beside the first, and the longer one
// win. It is safe for concurrent use.
type Anchor struct {
	mu      sync.Mutex
	head    Head
	chain   []Head // of head, without head itself
	ask     []Head // of those that it has asked, not known to be on the chain
	fork    error
	changed chan struct{} // closed when what it says changes
}

// NewAnchor returns an Anchor at a head, the zero one if none is known.
func NewAnchor(h Head) *Anchor { return &Anchor{head: h, changed: make(chan struct{})} }

// Head is the highest head.
func (a *Anchor) Head() Head {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.head
}

// Fork is why a statement was refused: some program knows another log, wraps
// ErrFork; nil if none does. It stays until the program ends.
func (a *Anchor) Fork() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.fork
}

// Changed returns a channel that is closed when there is something new to say.
func (a *Anchor) Changed() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changed
}

// Say is what to tell a program that has told heads.
func (a *Anchor) Say(told Statement) Statement {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := Statement{Head: a.head, Ask: slices.Clone(a.ask)}
	for _, h := range append([]Head{told.Head}, told.Ask...) {
		if h != a.head && h.Count > 0 && slices.Contains(a.chain, h) && len(s.Proven) < MaxHeads {
			s.Proven = append(s.Proven, h)
		}
	}
	return s
}

// Hear takes a statement. Of a head that does not follow it takes no note, unless the
// statement binds: it is that of a dkeyserver, which may be the only one to know of
// facts. Cores are asked about such a head then, and serve only if it is of their
// log. Errors: ErrFork.
func (a *Anchor) Hear(s Statement, binds bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	said, unknown := a.head, len(a.ask)
	err := a.follow(s)
	if err != nil {
		a.fork = err
	}
	if binds { // check: anchor-binds
		a.wonder(append([]Head{s.Head}, s.Ask...))
	}
	a.ask = slices.DeleteFunc(a.ask, a.on)
	if a.head != said || len(a.ask) != unknown {
		close(a.changed)
		a.changed = make(chan struct{})
	}
	return err
}

// follow goes up to the head of s if that is known to continue the present one.
func (a *Anchor) follow(s Statement) error {
	told := append([]Head{s.Head}, s.Proven...)
	for _, h := range told {
		if err := a.contradicts(h); err != nil {
			return err
		}
	}
	switch {
	case a.head.Count == 0 || slices.Contains(told, a.head): // check: anchor-follows
		a.link(told)
		if s.Head.Count > a.head.Count { // check: anchor-higher
			a.note(a.head)
			a.head = s.Head
		}
	case slices.Contains(a.chain, s.Head):
		a.link(told)
	}
	return nil
}

// contradicts says whether h is another head than the one with as many entries on
// the chain.
func (a *Anchor) contradicts(h Head) error {
	for _, have := range append([]Head{a.head}, a.chain...) {
		if h.Count == have.Count && h.Hash != have.Hash { // check: anchor-fork
			return fmt.Errorf("%w: two heads with %d entries, %x and %x", ErrFork, h.Count, have.Hash[:6], h.Hash[:6])
		}
	}
	return nil
}

func (a *Anchor) on(h Head) bool {
	return h.Count == 0 || h == a.head || slices.Contains(a.chain, h)
}

// link notes heads of the chain.
func (a *Anchor) link(heads []Head) {
	for _, h := range heads {
		if h != a.head {
			a.note(h)
		}
	}
}

func (a *Anchor) note(h Head) {
	if h.Count == 0 || slices.Contains(a.chain, h) {
		return
	}
	if len(a.chain) >= maxChain {
		a.chain = slices.Delete(a.chain, 0, 1)
	}
	a.chain = append(a.chain, h)
}

// wonder notes heads of which it is not known whether they are on the chain.
func (a *Anchor) wonder(heads []Head) {
	for _, h := range heads {
		if a.on(h) || slices.Contains(a.ask, h) {
			continue
		}
		if len(a.ask) >= MaxHeads {
			a.ask = slices.Delete(a.ask, 0, 1)
		}
		a.ask = append(a.ask, h)
	}
}
