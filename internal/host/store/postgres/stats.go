package postgres

import (
	"sync/atomic"

	"github.com/ehsm-kms/ehsm/internal/host/store"
)

type counts struct{ stored, conflicts, replayed, failed, repeated, settled atomic.Uint64 }

// Stats returns the counters and the state of the pool at this moment.
func (s *Store) Stats() store.Stats {
	p := s.pool.Stat()
	return store.Stats{
		Stored: s.counts.stored.Load(), Conflicts: s.counts.conflicts.Load(), Replayed: s.counts.replayed.Load(),
		Failed: s.counts.failed.Load(), Repeated: s.counts.repeated.Load(), Settled: s.counts.settled.Load(),
		Connections: int(p.TotalConns()), Busy: int(p.AcquiredConns()),
	}
}
