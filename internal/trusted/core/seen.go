package core

import (
	"sync"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// seen remembers the newest state of every record that this core has worked
// with, so that the host cannot present an older one again.
//
// A record at revision 1 has no older state, so it needs no entry: only changed
// records take room. When the table is full the entry that was made first is
// forgotten, and from then on an older state of that record would be accepted;
// docs/threat-model.md#rollback names this limit.
type seen struct {
	mu     sync.Mutex
	limit  int
	states map[wire.RecordID]state
	order  []wire.RecordID // ring of the keys of states
	next   int
}

type state struct {
	revision uint64
	tag      wire.Tag
}

func newSeen(limit int) *seen {
	return &seen{limit: limit, states: make(map[wire.RecordID]state)}
}

// stale reports whether the state is older than, or rivals, one that was seen.
func (s *seen) stale(id wire.RecordID, revision uint64, tag wire.Tag) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	have, ok := s.states[id]
	if !ok {
		return false
	}
	return revision < have.revision || revision == have.revision && tag != have.tag
}

// note records a genuine state.
func (s *seen) note(id wire.RecordID, revision uint64, tag wire.Tag) {
	if revision < 2 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	have, ok := s.states[id]
	if ok && have.revision >= revision {
		return
	}
	s.states[id] = state{revision, tag}
	if ok {
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
