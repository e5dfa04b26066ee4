package relay

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// A Chronicle is a store that keeps the log of negative facts. Change.Facts adds to it.
type Chronicle interface {
	// Facts returns at most limit entries, in order, from the first with a number
	// above after on. Fewer are the last.
	Facts(ctx context.Context, after uint64, limit int) ([]byte, error)
}

const (
	// factsPeriod is how often the core is shown what is new in the log. It asks for
	// more by itself where it needs it.
	factsPeriod = time.Second
	// manyFacts is how many entries make it worth a line in the log.
	manyFacts = 10000
)

// errFacts says that the core serves nothing, as far as the log of negative facts
// goes.
var errFacts = errors.New("the core does not serve")

// errNoLog says that there is no log that a core could be shown.
var errNoLog = errors.New("core and store have no log of negative facts")

// A chronicle is what a relay knows of the log.
type chronicle struct {
	begun atomic.Uint64 // times that the log was shown

	turn  chan struct{} // holds a token while it is being shown
	ended uint64        // the last time that has ended
	err   error         // of that
	state atomic.Pointer[wire.FactsState]
}

// ShowFacts shows the core what it has not seen yet of the log of negative facts.
// It returns why the core does not serve, nil if it does as far as the log goes.
func (r *Relay) ShowFacts(ctx context.Context) error {
	witness, able := r.core.(wire.Witness)
	log, kept := r.store.(Chronicle)
	if !able || !kept {
		return errNoLog
	}
	c := &r.chronicle
	asked := c.begun.Load()
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("wait until the core was shown the log of negative facts: %w", ctx.Err())
	}
	defer func() { <-c.turn }()
	if c.ended > asked { // it began after this was asked
		return c.err
	}
	n := c.begun.Add(1)
	c.err = r.show(ctx, witness, log)
	c.ended = n
	return c.err
}

// FactsReady returns why the core does not serve, as far as the log of negative facts
// goes. A core that does is believed without a look at the store, which has a check
// of its own and may be slow.
func (r *Relay) FactsReady(ctx context.Context) error {
	if witness, able := r.core.(wire.Witness); able {
		if s, err := witness.Facts(ctx, &wire.Facts{}); err == nil && s.Trouble == "" {
			return nil
		}
	}
	return r.ShowFacts(ctx)
}

func (r *Relay) show(ctx context.Context, witness wire.Witness, log Chronicle) error {
	began := time.Now()
	s, err := witness.Facts(ctx, &wire.Facts{})
	if err != nil {
		return fmt.Errorf("ask core how far it is in the log of negative facts: %w", err)
	}
	for first := s.Count; ; {
		r.chronicle.state.Store(&s)
		entries, err := log.Facts(ctx, s.Count, wire.MaxFacts)
		if err != nil {
			return err
		}
		part := &wire.Facts{First: s.Count + 1, Entries: entries, End: len(entries) < wire.MaxFacts*wire.FactSize}
		before := s.Count
		if s, err = witness.Facts(ctx, part); err != nil {
			return fmt.Errorf("show the log of negative facts to the core: %w", err)
		}
		r.chronicle.state.Store(&s)
		switch {
		case part.End && s.Trouble == "":
			if s.Count-first >= manyFacts {
				r.opts.Log.InfoContext(ctx, "the core has the log of negative facts", "entries", s.Count, "took", time.Since(began))
			}
			return nil
		case part.End || s.Count == before:
			return fmt.Errorf("%w: %s", errFacts, s.Trouble)
		}
		if s.Count/manyFacts != before/manyFacts {
			r.opts.Log.DebugContext(ctx, "the core reads the log of negative facts", "entries", s.Count, "known", s.Known)
		}
	}
}

// runFacts shows the core what is new in the log until ctx ends.
func (r *Relay) runFacts(ctx context.Context) {
	r.every(ctx, 0, factsPeriod, "log of negative facts", func(ctx context.Context) error {
		if err := r.ShowFacts(ctx); !errors.Is(err, errNoLog) {
			return err
		}
		return nil
	})
}

// narrows reports whether an action adds to the log when it succeeds. Those of one
// process take turns at the end of the log, so that they do not meet there; one that is
// missing here does meet others, and is tried again.
func narrows(action string) bool {
	switch action {
	case api.DisableKey, api.DeleteKey, api.DeleteAllKey, api.UpdateKey, api.DisableKeyVersion, api.ScheduleKeyVersionDeletion, api.ScheduleKeyDeletion,
		"DeleteALLKey", api.DeleteSecret, "RevokeCredential", "RotateAPIKey",
		api.DisableApp, api.DeleteApp, api.RevokeToken, api.RemoveAdministrator, api.RekeyApp:
		return true
	}
	return false
}

// inFactTurn gets the exchange the turn at the end of the log, if its action needs
// it and it has not got it. It holds that until the store has given its change a place,
// or to the end: so the next one's entries are made behind its own, and are stored
// behind them, both with one commit if the store does that.
func (x *exchange) inFactTurn(ctx context.Context) error {
	if x.narrows = x.named && narrows(x.call.Action); !x.narrows || x.factTurn != nil {
		return nil
	}
	x.leaveTurn() // whoever has both got this one first
	within, err := x.atStore(ctx)
	if err != nil {
		return err
	}
	n := x.relay.turns.at(wire.RecordID{}) // no record has this name
	if taken, _ := n.take(within); !taken {
		x.relay.turns.leave(n, false)
		return fmt.Errorf("wait for other changes: %w", within.Err())
	}
	x.factTurn = n
	return nil
}

// passFactTurn lets the next one to the end of the log.
func (x *exchange) passFactTurn() {
	if x.factTurn != nil {
		x.relay.turns.leave(x.factTurn, true)
		x.factTurn = nil
	}
}

// showFacts shows the core what it needs of the log to execute the exchange.
func (x *exchange) showFacts(ctx context.Context) error {
	within, err := x.atStore(ctx)
	if err != nil {
		return err
	}
	return x.relay.ShowFacts(within)
}
