package facts

import (
	"crypto/hmac"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

const (
	// remembered is how many of the last hashes a Log keeps, to compare heads with.
	remembered = 1 << 14
	// maxTargets is how many heads beyond its own a Log waits for.
	maxTargets = 16
)

// A Log is what a core knows of the log: the table, and the chain as far as it was
// shown and verified. It is safe for concurrent use.
type Log struct {
	keys  Keys
	limit int

	ready atomic.Bool // what Ready looks at first

	mu      sync.RWMutex
	table   map[name]mark
	head    Head
	last    [macSize]byte   // MAC of the last entry
	vouched uint64          // entries up to here are genuine: this core has verified a MAC, or an attested program knows the hash
	hashes  [][32]byte      // ring of the last, by count
	targets map[uint64]Head // heads beyond what was shown
	proven  []Head          // heads told by others that are on the chain, newest last
	shown   bool            // the host has said once: that is all
	told    bool            // of a head
	broken  error           // why it will never be ready
	tip     *Draft          // the last that was made, nil: none that a further one may follow
	failed  chan struct{}   // closed when it is broken
	grown   chan struct{}   // closed when head or proven changes
}

// NewLog returns an empty log for at most limit records.
func NewLog(keys Keys, limit int) *Log {
	return &Log{
		keys: keys, limit: limit, table: map[name]mark{}, targets: map[uint64]Head{}, grown: make(chan struct{}), failed: make(chan struct{}),
	}
}

// Ready says whether the log is complete as far as this program can know. It costs
// one atomic load if so. Errors: ErrBehind, ErrFork, ErrPast, ErrFull, ErrEntry.
func (l *Log) Ready() error {
	if l.ready.Load() {
		return nil
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.state()
}

// state is Ready in full. The caller must hold l.mu.
func (l *Log) state() error {
	switch {
	case l.broken != nil: // check: fact-broken
		return l.broken
	case !l.shown: // check: fact-shown
		return fmt.Errorf("%w: it was not shown to its end since the start", ErrBehind)
	case len(l.targets) > 0: // check: fact-targets
		return fmt.Errorf("%w: %d entries were shown, there are %d", ErrBehind, l.head.Count, l.highest())
	case l.vouched < l.head.Count: // check: fact-vouched
		return fmt.Errorf("%w: nothing vouches for the last %d", ErrEntry, l.head.Count-l.vouched)
	}
	return nil
}

func (l *Log) highest() (n uint64) {
	for c := range l.targets {
		n = max(n, c)
	}
	return n
}

// settle notes what state says now. The caller must hold l.mu.
func (l *Log) settle() { l.ready.Store(l.state() == nil) }

// fail notes why the log is of no more use. The caller must hold l.mu.
func (l *Log) fail(err error) error {
	l.broken = err
	close(l.failed)
	return err
}

// Failed returns a channel that is closed when the log is of no more use: Ready says
// why. One that is read anew may be, if the host shows another one.
func (l *Log) Failed() <-chan struct{} { return l.failed }

// tell wakes those who pass heads on. The caller must hold l.mu.
func (l *Log) tell() {
	close(l.grown)
	l.grown = make(chan struct{})
}

// Judge says how a state of a record stands to the facts.
func (l *Log) Judge(id wire.RecordID, revision uint64, tag wire.Tag) Standing {
	n := nameOf(id)
	l.mu.RLock()
	m, ok := l.table[n]
	l.mu.RUnlock()
	if !ok {
		return Allowed
	}
	return m.judge(revision, tag)
}

// Known reports whether there is a fact about a record, which then must exist.
func (l *Log) Known(id wire.RecordID) bool {
	n := nameOf(id)
	l.mu.RLock()
	defer l.mu.RUnlock()
	_, ok := l.table[n]
	return ok
}

// Head is how far the log was shown.
func (l *Log) Head() Head {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.head
}

// Size is the number of records in the table.
func (l *Log) Size() int {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return len(l.table)
}

// Limit is how many records the table may have.
func (l *Log) Limit() int { return l.limit }

// Target is how many entries are known to exist.
func (l *Log) Target() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return max(l.head.Count, l.highest())
}

// Extend takes entries as the host shows them, the first with the sequence number
// first; those that the log has already are passed over. end says that the host has
// no more. It returns the facts that are new, also beside an error. Errors: ErrEntry
// for what does not follow or is not genuine: nothing from there on is taken;
// ErrFork, ErrFull: the log is of no more use.
func (l *Log) Extend(first uint64, entries []byte, end bool) (learned []Fact, err error) {
	if len(entries)%wire.FactSize != 0 {
		return nil, fmt.Errorf("%w: %d bytes", ErrEntry, len(entries))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.extend(first, entries, end)
}

// extend is Extend. The caller must hold l.mu.
func (l *Log) extend(first uint64, entries []byte, end bool) (learned []Fact, err error) {
	defer l.settle()
	if l.broken != nil {
		return nil, l.broken
	}
	l.keys.Hold()
	defer l.keys.Release()
	before := l.head.Count
	for b := range slices.Chunk(entries, wire.FactSize) {
		if first <= before {
			first++
			continue
		}
		f, err := l.take(b)
		if err != nil {
			return learned, err
		}
		learned = append(learned, f)
	}
	if end && !l.told { // check: fact-untold
		l.vouched = l.head.Count // of entries under a DomainKey that is gone nobody knows better
	}
	l.shown = l.shown || end
	if l.head.Count != before {
		l.tell()
	}
	return learned, nil
}

// take verifies one entry and adds it. The caller must hold l.mu.
func (l *Log) take(b []byte) (Fact, error) {
	e, err := parse(b)
	if err != nil {
		return Fact{}, err
	}
	if e.sequence != l.head.Count+1 { // check: fact-sequence
		return Fact{}, fmt.Errorf("%w: number %d after %d", ErrEntry, e.sequence, l.head.Count)
	}
	hash := chain(l.head.Hash, e.body)
	genuine, err := l.genuine(&e, hash)
	if err != nil {
		return Fact{}, err
	}
	n := nameOf(e.fact.ID)
	m, known := l.table[n]
	if !known && len(l.table) >= l.limit { // check: fact-limit
		return Fact{}, l.fail(fmt.Errorf("%w: %d records, and the log has more", ErrFull, len(l.table)))
	}
	if target, ok := l.targets[e.sequence]; ok {
		if target.Hash != hash { // check: fact-head
			return Fact{}, l.fail(fmt.Errorf("%w: entry %d is not the one that other programs know", ErrFork, e.sequence))
		}
		delete(l.targets, e.sequence)
		l.prove(target)
		genuine = true
	}
	if e.fact.Revision > m.revision {
		l.table[n] = mark{e.fact.Revision, [8]byte(e.fact.Tag[:8])}
	}
	l.head, l.last = Head{e.sequence, hash}, [macSize]byte(e.mac)
	if genuine {
		l.vouched = e.sequence // with all before it: the hash is over them
	}
	if at := int((e.sequence - 1) % remembered); at < len(l.hashes) {
		l.hashes[at] = hash
	} else {
		l.hashes = append(l.hashes, hash)
	}
	return e.fact, nil
}

// genuine verifies the MAC of an entry. An entry of a DomainKey version that is not
// held any more is neither genuine nor refused: a later one has to vouch for it.
func (l *Log) genuine(e *entry, hash [32]byte) (bool, error) {
	key, err := l.keys.Key(domainkey.NegativeFacts, e.version)
	if errors.Is(err, domainkey.ErrNoVersion) && e.version < l.keys.Current() {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrEntry, err)
	}
	mac := seal(key, hash)
	if !hmac.Equal(mac[:], e.mac) { // check: fact-mac
		return false, fmt.Errorf("%w: number %d was not made by a core of the domain, or follows another entry", ErrEntry, e.sequence)
	}
	return true, nil
}

// prove notes a head of others as one of the chain. The caller must hold l.mu.
func (l *Log) prove(h Head) {
	if slices.Contains(l.proven, h) {
		return
	}
	if len(l.proven) >= MaxHeads {
		l.proven = slices.Delete(l.proven, 0, 1)
	}
	l.proven = append(l.proven, h)
}

// Hear takes a statement of an attested program. The log is ready only when it has
// been shown up to all heads in it. Errors: ErrFork, ErrPast.
func (l *Log) Hear(s Statement) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.settle()
	if l.broken != nil {
		return l.broken
	}
	proven := len(l.proven)
	l.told = l.told || s.Head.Count > 0 || len(s.Ask) > 0
	for _, h := range append([]Head{s.Head}, s.Ask...) {
		if err := l.hear(h); err != nil {
			return l.fail(err)
		}
	}
	if len(l.proven) != proven {
		l.tell()
	}
	return nil
}

// hear takes one head. The caller must hold l.mu.
func (l *Log) hear(h Head) error {
	switch {
	case h.Count == 0 || slices.Contains(l.proven, h):
		return nil
	case h.Count > l.head.Count:
		if have, ok := l.targets[h.Count]; ok && have != h { // check: fact-two-heads
			return fmt.Errorf("%w: two heads with %d entries", ErrFork, h.Count)
		}
		if len(l.targets) >= maxTargets {
			delete(l.targets, l.lowest()) // those above are later states of some chain, and decide
		}
		l.targets[h.Count] = h
		return nil
	case l.head.Count-h.Count >= uint64(len(l.hashes)):
		return fmt.Errorf("%w: %d entries, the log has %d", ErrPast, h.Count, l.head.Count)
	}
	if l.hashes[(h.Count-1)%remembered] != h.Hash { // check: fact-past
		return fmt.Errorf("%w: entry %d is not the one that other programs know", ErrFork, h.Count)
	}
	l.prove(h)
	l.vouched = max(l.vouched, h.Count)
	return nil
}

func (l *Log) lowest() uint64 {
	n := l.highest()
	for c := range l.targets {
		n = min(n, c)
	}
	return n
}

// Say is what this core states about the log, and what is closed when that changes.
// It names no head that it does not vouch for.
func (l *Log) Say() (Statement, <-chan struct{}) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.broken != nil || l.vouched < l.head.Count { // check: fact-say
		return Statement{}, l.grown
	}
	return Statement{Head: l.head, Proven: slices.Clone(l.proven)}, l.grown
}

// Waiting reports whether the host should show more of the log.
func (l *Log) Waiting() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.broken == nil && (!l.shown || len(l.targets) > 0)
}
