package relay

import (
	"context"
	"slices"
	"sync"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// turns has the changes of this process that replace the same record stored one
// after the other. Who finds others before him has been overtaken and asks the
// core anew, but nobody overtakes him then. The zero value is fit for use.
type turns struct {
	mu   sync.Mutex
	open map[wire.RecordID]*turn
}

// A turn is at one record.
type turn struct {
	id    wire.RecordID
	free  chan struct{} // holds one token while nobody has the turn
	users int           // that have it or wait for it
}

// of returns the turn at the first record that writes replace, nil if there is
// none. It must be left.
func (t *turns) of(writes []wire.Write) *turn {
	i := slices.IndexFunc(writes, func(w wire.Write) bool { return w.Expected != 0 })
	if i < 0 {
		return nil
	}
	return t.at(writes[i].ID)
}

// at returns the turn at a record. It must be left.
func (t *turns) at(id wire.RecordID) *turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.open[id]
	if n == nil {
		n = &turn{id: id, free: make(chan struct{}, 1)}
		n.free <- struct{}{}
		if t.open == nil {
			t.open = map[wire.RecordID]*turn{}
		}
		t.open[id] = n
	}
	n.users++
	return n
}

// take gets the turn, and says whether that was without waiting. It reports
// false twice if ctx ends before.
func (n *turn) take(ctx context.Context) (taken, first bool) {
	select {
	case <-n.free:
		return true, true
	default:
	}
	select {
	case <-n.free:
		return true, false
	case <-ctx.Done():
		return false, false
	}
}

// leave gives a turn back, if it was taken, and forgets it if nobody wants it.
func (t *turns) leave(n *turn, taken bool) {
	if taken {
		n.free <- struct{}{}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if n.users--; n.users == 0 {
		delete(t.open, n.id)
	}
}

// leaveTurn gives back the turn at the record, if the exchange has it.
func (x *exchange) leaveTurn() {
	if x.turn != nil {
		x.relay.turns.leave(x.turn, true)
		x.turn = nil
	}
}

// inTurn gets the exchange the turn at the record that it is to replace, and
// keeps it to the end. It reports false if others had it before, so that the
// writes cannot be stored any more.
func (x *exchange) inTurn(ctx context.Context, writes []wire.Write) bool {
	if x.turn != nil {
		return true
	}
	n := x.relay.turns.of(writes)
	if n == nil {
		return true
	}
	taken, first := n.take(ctx)
	if !taken {
		x.relay.turns.leave(n, false)
		return false
	}
	x.turn = n
	return first
}

// inTurnAtSecret gets an exchange that puts a value, and whose records others have
// replaced before the core could use them, the turn at its secret: nobody who waits for
// that overtakes it any more. It waits outside the store.
func (x *exchange) inTurnAtSecret(ctx context.Context) error {
	if x.turn != nil || x.call.Action != api.PutSecretValue || !x.names.hasSecret() {
		return nil
	}
	x.outOfStore()
	n := x.relay.turns.at(x.names.secretRecord())
	if taken, _ := n.take(ctx); !taken {
		x.relay.turns.leave(n, false)
		return ctx.Err()
	}
	x.turn = n
	return nil
}
