package sqlite

import (
	"errors"
	"os"
	"sync/atomic"

	"github.com/ehsm-kms/ehsm/internal/host/store"
)

// counts are written by the writer alone and read by Stats.
type counts struct {
	stored, conflicts, replays, failed, batches atomic.Uint64
}

func (c *counts) batch(jobs []*job, err error) {
	c.batches.Add(1)
	if err != nil {
		c.failed.Add(uint64(len(jobs)))
		return
	}
	for _, j := range jobs {
		switch {
		case j.err == nil:
			c.stored.Add(1)
		case errors.Is(j.err, store.ErrReplayed):
			c.replays.Add(1)
		default:
			c.conflicts.Add(1)
		}
	}
}

// Stats returns the counters and sizes of this moment.
func (s *Store) Stats() store.Stats {
	return store.Stats{
		Waiting:   len(s.queue),
		Stored:    s.counts.stored.Load(),
		Conflicts: s.counts.conflicts.Load(),
		Replayed:  s.counts.replays.Load(),
		Failed:    s.counts.failed.Load(),
		Batches:   s.counts.batches.Load(),
		FileBytes: size(s.path),
		LogBytes:  size(s.path + "-wal"),
	}
}

func size(path string) int64 {
	fi, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return fi.Size()
}
