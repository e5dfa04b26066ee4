package core

import (
	"context"
	"runtime/metrics"
	"sync/atomic"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// counts are what Stats tells of requests.
type counts struct{ answered, replayed, unauthenticated, limited, internal atomic.Uint64 }

// note counts an outcome.
func (c *counts) note(code int, reason string) {
	c.answered.Add(1)
	switch {
	case reason == errReplay().reason:
		c.replayed.Add(1)
	case reason == errSign().reason:
		c.unauthenticated.Add(1)
	case reason == errLimit().reason || reason == errFullKeys().reason || reason == errFullSecrets().reason:
		c.limited.Add(1)
	case code == codeInternal:
		c.internal.Add(1)
	}
}

// Stats implements wire.Meter.
func (c *Core) Stats(context.Context) (wire.Stats, error) {
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(heap)
	return wire.Stats{
		Answered: c.counts.answered.Load(), Replayed: c.counts.replayed.Load(),
		Unauthenticated: c.counts.unauthenticated.Load(), Internal: c.counts.internal.Load(), Limited: c.counts.limited.Load(),
		Replays: c.replays.size(), Seen: c.seen.size(), Pending: c.pending.size(),
		Apps: c.apps.size(), Keys: c.cmks.size(), Versions: c.versions.size(), Secrets: c.secrets.size(), Values: c.values.size(),
		HeapBytes: heap[0].Value.Uint64(),
	}, nil
}
