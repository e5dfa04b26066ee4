package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// Waits of the background work.
const (
	firstRetry = 100 * time.Millisecond // after an error; it doubles
	lastRetry  = 30 * time.Second       // the longest; also between two looks for what other nodes have left undone
)

// runSweeps carries out sweeps, one at a time, until ctx ends: when a change of
// this node has made one due, and what earlier processes or other nodes have
// left.
func (r *Relay) runSweeps(ctx context.Context, st Sweeps) {
	retry := firstRetry
	for ctx.Err() == nil {
		more, err := r.sweepDue(ctx, st)
		switch {
		case err == nil && more:
			continue
		case err == nil:
			retry = lastRetry
		case ctx.Err() == nil:
			r.opts.Log.ErrorContext(ctx, "sweep stopped", "err", err)
		}
		t := time.NewTimer(retry)
		select {
		case <-ctx.Done():
		case <-t.C:
			retry = min(2*retry, lastRetry)
		case <-r.sweeps:
			retry = firstRetry
		}
		t.Stop()
	}
}

// sweepIsDue has runSweeps look at the store.
func (r *Relay) sweepIsDue() {
	select {
	case r.sweeps <- struct{}{}:
	default: // it will look
	}
}

// sweepDue carries out the sweeps that are due, and reports whether there were
// any, so that another look is worth while. Those that fail do not keep others.
func (r *Relay) sweepDue(ctx context.Context, st Sweeps) (more bool, err error) {
	due, err := st.Sweeps(ctx)
	if err != nil {
		return false, fmt.Errorf("list sweeps: %w", err)
	}
	for _, s := range due {
		ran, e := alone(ctx, st, "sweep "+s.Tenant.String(), func(ctx context.Context) error { return r.sweep(ctx, st, s) })
		if e != nil {
			err = errors.Join(err, fmt.Errorf("sweep of tenant %s: %w", s.Tenant, e))
		}
		more = more || ran
	}
	return more, err
}

// sweep brings all keys of a tenant in line with its app record, and its secrets.
func (r *Relay) sweep(ctx context.Context, st Sweeps, s store.Sweep) error {
	began, changed, tenant := time.Now(), 0, s.Tenant
	for _, q := range []wire.Query{
		{Type: wire.Key, Tenant: tenant, Limit: wire.SweepStep},
		{Type: wire.Secret, Tenant: tenant, Limit: wire.SweepSecrets},
	} {
		n, err := r.sweepType(ctx, q)
		if err != nil {
			return err
		}
		changed += n
	}
	if err := st.EndSweep(ctx, s); err != nil {
		return fmt.Errorf("end it: %w", err)
	}
	r.opts.Log.InfoContext(ctx, "sweep done", "tenant", tenant, "changed", changed, "took", time.Since(began))
	return nil
}

// sweepType brings a tenant's records of one type in line, and returns how many it
// changed.
func (r *Relay) sweepType(ctx context.Context, q wire.Query) (changed int, err error) {
	for after := (wire.UUID{}); ; {
		n, last, err := r.sweepPage(ctx, q, after)
		changed += n
		if err != nil || last == (wire.UUID{}) {
			return changed, err
		}
		after = last
		r.opts.Log.DebugContext(ctx, "sweep goes on", "tenant", q.Tenant, "type", q.Type, "changed", changed)
	}
}

// sweepPage brings one page of records in line. It returns how many it changed and
// the last id of the page, which is zero if there was none.
func (r *Relay) sweepPage(ctx context.Context, q wire.Query, after wire.UUID) (changed int, last wire.UUID, err error) {
	for attempt := 1; ; attempt++ {
		app, err := r.read(ctx, []wire.RecordID{{Type: wire.App, Tenant: q.Tenant, ID: q.Tenant}})
		if err != nil {
			return 0, last, err
		}
		if q.Type == wire.Secret && !app[0].Hidden {
			return 0, wire.UUID{}, nil // only those of an app that was deleted go
		}
		rows, err := r.store.List(ctx, q, after)
		if err != nil {
			return 0, last, fmt.Errorf("list %s records of tenant %s: %w", q.Type, q.Tenant, err)
		}
		if len(rows) == 0 {
			return 0, wire.UUID{}, nil
		}
		last = rows[len(rows)-1].ID.ID
		s := &wire.Sweep{RequestID: "sweep", App: sealedRef(&app[0]), Keys: sealedRefs(rows), Floor: r.rotation.floor.Load()}
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
		_, outcome, err := r.settle(ctx, a, last, nil, nil)
		switch {
		case outcome == wire.Stored:
			return len(a.Writes), false, err
		case outcome == wire.Conflict && err == nil && a.Facts != nil:
			return 0, true, r.ShowFacts(ctx)
		case outcome == wire.Conflict && err == nil:
			return 0, true, nil
		}
		return 0, false, fmt.Errorf("step is %s: %w", outcomeName(outcome), err)
	}
	if a.Kind == wire.Need && a.NeedFacts && !last {
		return 0, true, errors.Join(r.record(ctx, &a.Audit), r.ShowFacts(ctx))
	}
	if a.Kind == wire.Need && a.NeedVersion != 0 {
		if err := r.record(ctx, &a.Audit); err != nil {
			return 0, false, err
		}
		if last {
			return 0, false, errVersion
		}
		sleep(ctx, versionPoll)
		return 0, true, nil
	}
	return 0, false, fmt.Errorf("%w: kind %d to a sweep", errAnswer, a.Kind)
}
