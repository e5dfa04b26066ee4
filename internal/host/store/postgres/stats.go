package postgres

import "sync/atomic"

type counts struct{ stored, conflicts, replayed, failed, repeated atomic.Uint64 }

// Stats are counts since Open, and the state of the pool.
type Stats struct {
	Stored    uint64 // changes
	Conflicts uint64 // changes refused with store.ErrConflict
	Replayed  uint64 // changes refused with store.ErrReplayed
	Failed    uint64 // calls that ended in an error of the database or the network
	Repeated  uint64 // times that PostgreSQL gave a change up for another one

	Connections int // open
	Busy        int // in use
}

// Stats returns the counts at this moment.
func (s *Store) Stats() Stats {
	p := s.pool.Stat()
	return Stats{
		Stored: s.counts.stored.Load(), Conflicts: s.counts.conflicts.Load(), Replayed: s.counts.replayed.Load(),
		Failed: s.counts.failed.Load(), Repeated: s.counts.repeated.Load(),
		Connections: int(p.TotalConns()), Busy: int(p.AcquiredConns()),
	}
}
