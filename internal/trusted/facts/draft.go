package facts

import (
	"fmt"
	"slices"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// A Draft is entries that this core has made for the end of the log. They count when
// they are stored and Stand is told, and not before: nobody is told of them.
type Draft struct {
	wire.NewFacts
	head Head // after them

	// before is the draft that it follows, nil if what it follows was in the log
	// when it was made, or is by now. Log.mu guards it.
	before *Draft
}

// end is the number of the last entry.
func (d *Draft) end() uint64 { return d.head.Count }

// Draft makes the entries that facts would be behind those of the last draft of which
// nobody has said yet what became of it, or else behind the head: so several are
// stored at once, each only behind the one before, as the store sees to. Where a draft
// is not stored, those behind it cannot be either, and are made anew. Stand or Drop
// must follow. Errors: ErrFull, and those of the keys.
func (l *Log) Draft(facts []Fact) (*Draft, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d, more := &Draft{head: l.head}, 0
	last := l.last
	if l.tip != nil && l.tip.end() > l.head.Count {
		d.before, d.head = l.tip, l.tip.head
		last = [macSize]byte(l.tip.Entries[len(l.tip.Entries)-macSize:])
	}
	for b := d.before; b != nil; b = b.before {
		more += len(b.Entries) / wire.FactSize // as if each were of another record
	}
	for _, f := range facts {
		if _, ok := l.table[nameOf(f.ID)]; !ok {
			more++
		}
	}
	if len(l.table)+more > l.limit { // check: fact-room
		return nil, fmt.Errorf("%w: %d records", ErrFull, len(l.table))
	}
	l.keys.Hold()
	defer l.keys.Release()
	version := l.keys.Current()
	key, err := l.keys.Key(domainkey.NegativeFacts, version)
	if err != nil {
		return nil, err
	}
	d.First, d.Previous = d.head.Count+1, last
	for _, f := range facts {
		e := entry{fact: f, sequence: d.head.Count + 1, version: version}
		at := len(d.Entries)
		d.Entries = e.appendBody(d.Entries)
		d.head = Head{e.sequence, chain(d.head.Hash, d.Entries[at:])}
		mac := seal(key, d.head.Hash)
		d.Entries = append(d.Entries, mac[:]...)
	}
	l.tip = d
	return d, nil
}

// Stand takes the entries of a draft that the store is said to have taken, and with
// them those of the drafts that it follows, as they must be there too. It returns
// the facts that are new, and whether the draft is in the log: it is not if the log
// has others at its place.
func (l *Log) Stand(d *Draft) (learned []Fact, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var due []*Draft
	for b := d; b != nil && b.end() > l.head.Count; b = b.before {
		due = append(due, b)
	}
	for _, b := range slices.Backward(due) {
		more, err := l.extend(b.First, b.Entries, false)
		learned = append(learned, more...)
		if err != nil {
			l.drop(d)
			return learned, false
		}
		b.before = nil // or drafts would be kept for ever, each by the next
	}
	d.before = nil
	if ok = l.has(d.Entries); !ok {
		l.drop(d)
	}
	return learned, ok
}

// Drop says that a draft is not stored, as far as is known, so that no other one is
// made behind it.
func (l *Log) Drop(d *Draft) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(d)
}

// drop is Drop. The caller must hold l.mu.
func (l *Log) drop(d *Draft) {
	for b := l.tip; b != nil; b = b.before {
		if b == d {
			l.tip = nil
			return
		}
	}
}

// has reports whether entries of a draft are in the log. The caller must hold l.mu.
func (l *Log) has(entries []byte) bool {
	for b := range slices.Chunk(entries, wire.FactSize) {
		e, err := parse(b)
		if err != nil || e.sequence > l.head.Count {
			return false
		}
		m, ok := l.table[nameOf(e.fact.ID)]
		if !ok || m.revision < e.fact.Revision || m.judge(e.fact.Revision, e.fact.Tag) == Rival {
			return false
		}
	}
	return true
}
