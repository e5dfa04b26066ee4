package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// A fate is what became of the writes of a pending answer.
type fate struct {
	outcome wire.Outcome
	err     error // of the store, for the log; nil for a plain conflict or replay
	unknown bool  // outcome is Failed because nobody can tell
}

// settle stores what a pending answer asks for and tells the core. It returns
// the core's answer to that, or nil where the reply must not be released; an
// error beside an answer is for the log only. If last is set there will be no
// repetition, so the core hears of a conflict as Failed.
//
// inTurn, if not nil, waits until the writes may be stored; if it then reports
// that they cannot be any more, that is a conflict. placed, if not nil, is called when
// the store tries them before all that it is given later, if that can be said.
//
// The audit entries are written at the same time as the records: both must be
// durable before the reply, and neither needs to wait for the other's disk. Nor
// do they wait for a turn, as entries of other requests wait for them.
func (r *Relay) settle(ctx context.Context, a *wire.Answer, last bool, inTurn func(context.Context, []wire.Write) bool, placed func()) (*wire.Answer, wire.Outcome, error) {
	within, cancel := context.WithTimeout(ctx, r.opts.StoreTimeout)
	defer cancel()
	recorded := make(chan error, 1)
	go func() { recorded <- r.record(within, &a.Audit) }()
	f := fate{outcome: wire.Conflict}
	if inTurn == nil || inTurn(within, a.Writes) {
		f = r.apply(within, a, placed)
	}
	auditErr := <-recorded
	if f.outcome == wire.Conflict && (last || auditErr != nil) {
		f = fate{outcome: wire.Failed, err: store.ErrConflict}
	}

	// The core must hear the outcome, however long the store has taken.
	within, cancelResolve := context.WithTimeout(context.WithoutCancel(ctx), r.opts.StoreTimeout)
	defer cancelResolve()
	end, err := r.core.Resolve(within, wire.Resolve{Handle: a.Handle, Outcome: f.outcome})
	if err != nil {
		err = fmt.Errorf("tell core that writes are %s: %w", outcomeName(f.outcome), err)
		return nil, f.outcome, errors.Join(err, f.err, auditErr)
	}
	auditErr = errors.Join(auditErr, r.record(within, &end.Audit))
	if auditErr != nil || f.unknown {
		return nil, f.outcome, errors.Join(f.err, auditErr)
	}
	return end, f.outcome, f.err
}

// apply stores the writes and the replay entry of an answer, and finds out what
// became of them. ctx must have a deadline.
func (r *Relay) apply(ctx context.Context, a *wire.Answer, placed func()) (f fate) {
	if slices.ContainsFunc(a.Writes, func(w wire.Write) bool { return w.Sweep }) {
		defer r.sweepIsDue()
	}
	since := r.rows.epoch.Load()
	end, _ := ctx.Deadline()
	within, cancel := context.WithDeadline(ctx, end.Add(-time.Until(end)/lookShare))
	defer cancel()
	c := store.Change{Writes: a.Writes, Replay: a.Replay, Facts: a.Facts}
	c.Placed = placed
	err := r.store.Apply(within, c)
	c.Placed = nil // once is enough
	if errors.Is(err, store.ErrFloor) {
		r.learnFloor(within) // where that fails, the next try is below it again
	}
	outcome, err := outcomeOf(err)
	if err != nil {
		err = fmt.Errorf("store %d records: %w", len(a.Writes), err)
		var lost error
		if outcome, lost = r.settled(ctx, c, errors.Is(err, store.ErrUnstored)); lost != nil {
			return fate{wire.Failed, errors.Join(err, fmt.Errorf("find out whether they are stored: %w", lost)), true}
		}
	}
	switch outcome {
	case wire.Stored:
		r.written(a.Writes, since)
	case wire.Conflict:
		err = nil // it is tried again
	}
	return fate{outcome: outcome, err: err}
}

// outcomeOf is what an error of a store says about a change; an error beside it:
// nothing.
func outcomeOf(err error) (wire.Outcome, error) {
	switch {
	case err == nil:
		return wire.Stored, nil
	case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrFloor):
		return wire.Conflict, nil // the core is asked anew
	case errors.Is(err, store.ErrReplayed):
		return wire.Replayed, nil
	}
	return wire.Failed, err
}

// settled tells what has become of a change after an error. It tries until ctx
// ends, or once if it is known that nothing is stored yet.
func (r *Relay) settled(ctx context.Context, c store.Change, known bool) (o wire.Outcome, err error) {
	settler, able := r.store.(Settler)
	for wait := 10 * time.Millisecond; ; wait *= 2 {
		if able {
			o, err = outcomeOf(settler.Settle(ctx, c))
		} else {
			o, err = r.look(ctx, c.Writes)
		}
		if known = known && errors.Is(err, store.ErrUnstored); err == nil || known {
			return o, nil
		}
		select {
		case <-ctx.Done():
			return o, err
		case <-time.After(wait):
		}
	}
}

// look tells whether writes are in the store. They are there together or not at
// all, so one that is found stands for all.
func (r *Relay) look(ctx context.Context, writes []wire.Write) (wire.Outcome, error) {
	ids := make([]wire.RecordID, len(writes))
	for i := range writes {
		ids[i] = writes[i].ID
	}
	rows, err := r.read(ctx, ids)
	if err != nil {
		return wire.Failed, err
	}
	for i, row := range rows {
		if writes[i].Remove {
			continue // it says nothing: there may have been no such record
		}
		if row.Revision == writes[i].Revision && row.Tag == writes[i].Tag() {
			return wire.Stored, nil
		}
	}
	return wire.Failed, nil
}

// written puts writes that were stored since an epoch into the row cache. The
// bytes are copied, as those of an answer may be part of a larger buffer.
func (r *Relay) written(writes []wire.Write, since uint64) {
	for i := range writes {
		w := &writes[i]
		if w.Remove {
			continue // the cache may keep it: nothing names it any more
		}
		r.rows.put(store.Row{
			ID: w.ID, Revision: w.Revision, Tag: w.Tag(), Primary: w.Primary, Hidden: w.Hidden,
			Sealed: bytes.Clone(w.Sealed),
		}, since)
	}
}

// outcomeName is the outcome in words, for errors.
func outcomeName(o wire.Outcome) string {
	switch o {
	case wire.Stored:
		return "stored"
	case wire.Conflict:
		return "in conflict"
	case wire.Replayed:
		return "replayed"
	}
	return "not stored"
}
