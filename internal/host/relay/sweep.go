package relay

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// A sweepQueue holds the tenants whose keys have to be brought in line with
// their app record.
type sweepQueue struct {
	wake chan struct{} // has room for one signal: something is due

	// Changes that announce a sweep hold storing for reading, so that the mark
	// of a finished sweep is never taken off after a newer one has set it.
	storing sync.RWMutex

	mu  sync.Mutex
	due map[wire.UUID]bool
}

func newSweepQueue() *sweepQueue {
	return &sweepQueue{wake: make(chan struct{}, 1), due: map[wire.UUID]bool{}}
}

// begin announces that a change is about to be stored that makes a sweep due.
// The returned function says whether it was.
func (q *sweepQueue) begin(tenant wire.UUID) (end func(stored bool)) {
	q.storing.RLock()
	return func(stored bool) {
		if stored {
			q.add(tenant)
		}
		q.storing.RUnlock()
	}
}

// add makes a sweep due.
func (q *sweepQueue) add(tenants ...wire.UUID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, t := range tenants {
		q.due[t] = true
	}
	if len(q.due) > 0 {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
}

// take returns all that is due and leaves the queue empty.
func (q *sweepQueue) take() map[wire.UUID]bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	due := q.due
	q.due = map[wire.UUID]bool{}
	return due
}

// has tells whether a sweep has become due again.
func (q *sweepQueue) has(tenant wire.UUID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.due[tenant]
}

// Waits of the background work after an error.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// runSweeps carries out sweeps, one at a time, until ctx ends. What an earlier
// process has left undone comes first.
func (r *Relay) runSweeps(ctx context.Context, st Sweeps) {
	retry, listed := firstRetry, false
	var failed []wire.UUID
	for {
		if !listed {
			left, err := st.Sweeps(ctx)
			if listed = err == nil; listed {
				r.sweeps.add(left...)
			} else if ctx.Err() == nil {
				r.opts.Log.ErrorContext(ctx, "unfinished sweeps not listed", "err", err)
			}
		}
		var again <-chan time.Time
		if !listed || len(failed) > 0 {
			again = time.After(retry)
			retry = min(2*retry, lastRetry)
		} else {
			retry = firstRetry
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
			r.sweeps.add(failed...)
			failed = nil
		case <-r.sweeps.wake:
		}
		failed = append(failed, r.sweepDue(ctx, st)...)
	}
}

// sweepDue carries out the sweeps that are due and returns the tenants of those
// that failed.
func (r *Relay) sweepDue(ctx context.Context, st Sweeps) (failed []wire.UUID) {
	for tenant := range r.sweeps.take() {
		err := r.sweep(ctx, st, tenant)
		if err == nil {
			continue
		}
		failed = append(failed, tenant)
		if ctx.Err() == nil {
			r.opts.Log.ErrorContext(ctx, "sweep stopped", "tenant", tenant, "err", err)
		}
	}
	return failed
}

// sweep brings all keys of a tenant in line with its app record.
func (r *Relay) sweep(ctx context.Context, st Sweeps, tenant wire.UUID) error {
	began, changed := time.Now(), 0
	q := wire.Query{Type: wire.Key, Tenant: tenant, Limit: wire.SweepStep}
	for after := (wire.UUID{}); ; {
		n, last, err := r.sweepPage(ctx, q, after)
		if err != nil {
			return err
		}
		changed += n
		if last == (wire.UUID{}) {
			break
		}
		after = last
		r.opts.Log.DebugContext(ctx, "sweep goes on", "tenant", tenant, "changed", changed)
	}
	r.sweeps.storing.Lock()
	defer r.sweeps.storing.Unlock()
	if r.sweeps.has(tenant) {
		return nil // a newer change wants another pass, which will end it
	}
	if err := st.EndSweep(ctx, tenant); err != nil {
		return fmt.Errorf("end sweep of tenant %s: %w", tenant, err)
	}
	r.opts.Log.InfoContext(ctx, "sweep done", "tenant", tenant, "changed", changed, "took", time.Since(began))
	return nil
}

// sweepPage brings one page of keys in line. It returns how many it changed and
// the last id of the page, which is zero if there was none.
func (r *Relay) sweepPage(ctx context.Context, q wire.Query, after wire.UUID) (changed int, last wire.UUID, err error) {
	for attempt := 1; ; attempt++ {
		app, err := r.read(ctx, []wire.RecordID{{Type: wire.App, Tenant: q.Tenant, ID: q.Tenant}})
		if err != nil {
			return 0, last, err
		}
		rows, err := r.store.List(ctx, q, after)
		if err != nil {
			return 0, last, fmt.Errorf("list keys of tenant %s: %w", q.Tenant, err)
		}
		if len(rows) == 0 {
			return 0, wire.UUID{}, nil
		}
		last = rows[len(rows)-1].ID.ID
		s := &wire.Sweep{RequestID: "sweep", App: sealedRef(&app[0]), Keys: sealedRefs(rows)}
		changed, again, err := r.sweepStep(ctx, s, attempt == maxAttempts)
		if err != nil || !again {
			return changed, last, err
		}
		pause(attempt)
	}
}

// sweepStep asks the core for one step and stores it. It reports again if the
// step met other changes and has to be repeated.
func (r *Relay) sweepStep(ctx context.Context, s *wire.Sweep, last bool) (changed int, again bool, err error) {
	// Once the core has been asked, the step is finished even if ctx ends.
	ctx = context.WithoutCancel(ctx)
	a, err := r.core.Sweep(ctx, s)
	if err != nil {
		return 0, false, fmt.Errorf("ask core for a step: %w", err)
	}
	switch a.Kind {
	case wire.Final:
		err := r.record(ctx, &a.Audit)
		if a.Code >= 400 {
			err = errors.Join(fmt.Errorf("core refuses a step with code %d", a.Code), err)
		}
		return 0, false, err
	case wire.Pending:
		_, outcome, err := r.settle(ctx, a, last)
		switch {
		case outcome == wire.Stored:
			return len(a.Writes), false, err
		case outcome == wire.Conflict && err == nil:
			return 0, true, nil
		}
		return 0, false, fmt.Errorf("step is %s: %w", outcomeName(outcome), err)
	}
	return 0, false, fmt.Errorf("%w: kind %d to a sweep", errAnswer, a.Kind)
}
