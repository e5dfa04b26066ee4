package relay

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// Periods of the background work.
const (
	checkpointPeriod = time.Second // the longest run of entries without a signature
	prunePeriod      = time.Minute
	purgePeriod      = time.Minute
	checkpointTime   = 5 * time.Second // the longest that one may take
)

// Run does the work that no request waits for, until ctx ends: it has the audit
// chain signed, drops replay entries that have ended, carries bulk changes over
// to single keys, has done what is due to secrets and keys, has records follow
// the DomainKey's versions, and follows what other nodes change. It signs the chain once more before it returns.
func (r *Relay) Run(ctx context.Context, st Sweeps) {
	var wg sync.WaitGroup
	wg.Go(func() { r.runSweeps(ctx, st) })
	wg.Go(func() { r.follow(ctx) })
	wg.Go(func() { r.runFacts(ctx) })
	if rotator, ok := st.(Rotator); ok {
		wg.Go(func() { r.runRotation(ctx, rotator) })
	}
	wg.Go(func() {
		r.every(ctx, 0, purgePeriod, "secrets not purged", func(ctx context.Context) error {
			_, err := alone(ctx, st, "purge", func(ctx context.Context) error { return r.purgeDue(ctx, st) })
			return err
		})
	})
	wg.Go(func() {
		r.every(ctx, prunePeriod, prunePeriod, "replay entries not pruned", func(ctx context.Context) error {
			_, err := alone(ctx, st, "prune", func(ctx context.Context) error {
				_, err := st.PruneReplays(ctx, time.Now().UnixMilli())
				return err
			})
			return err
		})
	})
	signed := uint64(0)
	checkpoint := func(ctx context.Context) error { return r.checkpoint(ctx, &signed) }
	r.every(ctx, checkpointPeriod, checkpointPeriod, "audit chain not signed", checkpoint)
	wg.Wait()
	if err := checkpoint(ctx); err != nil {
		r.opts.Log.ErrorContext(ctx, "audit chain not signed at the end", "err", err)
	}
}

// every calls f after a first wait, and then once a period until ctx ends. Of
// errors in a row, the first is logged and the end.
func (r *Relay) every(ctx context.Context, first, period time.Duration, trouble string, f func(context.Context) error) {
	t := time.NewTimer(first)
	defer t.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			t.Reset(period)
		}
		err := f(ctx)
		switch {
		case err != nil && !failing && ctx.Err() == nil:
			r.opts.Log.ErrorContext(ctx, trouble, "err", err)
		case err == nil && failing:
			r.opts.Log.InfoContext(ctx, "recovered", "from", trouble)
		}
		failing = err != nil
	}
}

// checkpoint has the core sign the audit chain if it has grown since *signed.
func (r *Relay) checkpoint(ctx context.Context, signed *uint64) error {
	entries := r.entries.Load()
	if entries == *signed {
		return nil
	}
	// A checkpoint that nobody waits for any more would leave a gap.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkpointTime)
	defer cancel()
	a, err := r.core.Checkpoint(ctx)
	if err != nil {
		return fmt.Errorf("ask core for a checkpoint: %w", err)
	}
	if a.Kind != wire.Final {
		return fmt.Errorf("%w: kind %d to a checkpoint", errAnswer, a.Kind)
	}
	if a.Audit.Count > 0 {
		// Not by record: a checkpoint alone makes no further one due.
		if err := r.sink.Put(ctx, a.Audit); err != nil {
			return fmt.Errorf("record checkpoint: %w", err)
		}
	}
	*signed = entries
	return nil
}
