package core

import (
	"math"
	"sync"

	"github.com/ehsm-kms/ehsm/internal/trusted/facts"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// seen remembers the newest state of every record that this core has worked
// with, so that the host cannot present an older one again.
//
// A record at revision 1 has no older state, so it needs no entry: only changed
// records take room. When the table is full the entry that was made first is
// forgotten, and from then on an older state of that record would be accepted;
// docs/threat-model.md#rollback names this limit.
//
// The log of negative facts, which other cores have written too, is asked first.
type seen struct {
	facts  *facts.Log
	caches []dropper // all that go by it

	mu     sync.Mutex
	limit  int
	states map[wire.RecordID]state
	order  []wire.RecordID // ring of the keys of states
	next   int
}

// A dropper is a cache, of whatever.
type dropper interface {
	drop(id wire.RecordID, revision uint64, tag wire.Tag)
}

type state struct {
	revision uint64
	tag      wire.Tag
}

// buried is the revision of a record whose owner was told that it is gone.
const buried = math.MaxUint64

// standing is how a state of a record stands to the newest one that was seen.
type standing uint8

const (
	_          standing = iota
	newest              // it is that one, or a newer one
	superseded          // it is older
	rival               // it is another state of the same revision
)

func newSeen(limit int, log *facts.Log) *seen {
	return &seen{facts: log, limit: limit, states: make(map[wire.RecordID]state)}
}

// accept judges a genuine state and, if it is the newest, takes note of it. Both
// are one step, so that of two rivals never more than one is the newest.
func (s *seen) accept(id wire.RecordID, revision uint64, tag wire.Tag) standing {
	if st := s.refuted(id, revision, tag); st != newest { // check: fact-accept
		return st
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	have, ok := s.states[id]
	if st := have.judge(ok, revision, tag); st != newest {
		return st
	}
	if revision > max(have.revision, 1) {
		s.set(id, state{revision, tag}, ok)
	}
	return newest
}

// judge is accept without taking note.
func (s *seen) judge(id wire.RecordID, revision uint64, tag wire.Tag) standing {
	if st := s.refuted(id, revision, tag); st != newest { // check: fact-judge
		return st
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	have, ok := s.states[id]
	return have.judge(ok, revision, tag)
}

// refuted says how a state stands to the facts; newest if nothing speaks against it.
func (s *seen) refuted(id wire.RecordID, revision uint64, tag wire.Tag) standing {
	switch s.facts.Judge(id, revision, tag) {
	case facts.Below:
		return superseded
	case facts.Rival:
		return rival
	}
	return newest
}

// judge says how a state stands to the newest one that was seen, if any was.
func (have state) judge(ok bool, revision uint64, tag wire.Tag) standing {
	switch {
	case ok && revision < have.revision:
		return superseded
	case ok && revision == have.revision && tag != have.tag:
		return rival
	}
	return newest
}

// exists reports whether the record must exist, because changes of it were seen.
func (s *seen) exists(id wire.RecordID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	have, ok := s.states[id]
	return ok && have.revision != buried
}

// bury makes every state of a record an old one. The host says that there is
// none, and the owner was told so.
func (s *seen) bury(id wire.RecordID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.states[id]
	s.set(id, state{revision: buried}, ok)
}

// size is how many records are remembered.
func (s *seen) size() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return uint64(len(s.states))
}

// set notes a state, in place of the oldest entry if there is no room. The
// caller must hold s.mu.
func (s *seen) set(id wire.RecordID, now state, known bool) {
	s.states[id] = now
	if known {
		return
	}
	if len(s.order) < s.limit {
		s.order = append(s.order, id)
		return
	}
	delete(s.states, s.order[s.next])
	s.order[s.next] = id
	s.next = (s.next + 1) % len(s.order)
}
