package sqlite

import (
	"errors"
	"os"
	"sync/atomic"

	"github.com/ehsm-kms/ehsm/internal/host/store"
)

// Stats describes a Store for metrics. Counters start at zero with Open.
type Stats struct {
	Waiting   int    // jobs in the queue now: changes, ends of sweeps, steps of pruning
	Stored    uint64 // jobs that were done
	Conflicts uint64 // changes refused with store.ErrConflict
	Replays   uint64 // changes refused with store.ErrReplayed
	Failed    uint64 // jobs undone by an error of the disk or the file
	Batches   uint64 // transactions, each synced once
	FileBytes int64  // size of the database file; 0 if it cannot be told
	LogBytes  int64  // size of its write-ahead log, which is reused and does not shrink
}

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
func (s *Store) Stats() Stats {
	return Stats{
		Waiting:   len(s.queue),
		Stored:    s.counts.stored.Load(),
		Conflicts: s.counts.conflicts.Load(),
		Replays:   s.counts.replays.Load(),
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
