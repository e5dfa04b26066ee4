package relay

import (
	"context"

	"github.com/ehsm-kms/ehsm/internal/fair"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// lanes are the ways to the core. On each, tenants take turns where more requests want
// to be there than may: what one tenant waits for is not another's queue. Who waits for
// the store, or for the platform, is on none.
type lanes struct {
	cheap     *fair.Gate[wire.UUID]
	expensive *fair.Gate[wire.UUID] // private-key operations, new keys, listings
	inside    bool                  // the core computes in this process
	breath    *fair.Breather
}

// cheapCalls is how many cheap calls go together for each expensive one.
const cheapCalls = 4

// newLanes returns the lanes. One tenant may keep all processors busy, but never has
// all places: one without a processor lets another tenant in at once, and the kernel
// shares the processors then.
func newLanes(o Options) lanes {
	gate := func(each int) *fair.Gate[wire.UUID] {
		return fair.New[wire.UUID](fair.Limits{
			Places: each + (each+3)/4, Each: each, Waiting: o.Concurrent, Queue: max(o.Concurrent/2, 1),
		})
	}
	n := o.Processors * o.Ahead
	return lanes{cheap: gate(cheapCalls * n), expensive: gate(n), inside: o.Ahead == 1, breath: new(fair.Breather)}
}

// ask calls the core when it is the tenant's turn. It is errBusy if half of the requests
// that may be inside wait for that already, all of this tenant. A tenant is who a request
// says: if that is wrong, it has got in the way of whom it names, and the core refuses it.
func (x *exchange) ask(ctx context.Context) (*wire.Answer, error) {
	if wire.Slow(x.call.Action) {
		return x.relay.core.Call(ctx, &x.call)
	}
	lanes := &x.relay.lanes
	lane := lanes.cheap
	if x.call.Listed || wire.Expensive(x.call.Action) {
		lane = lanes.expensive
	}
	turn, ok := lane.Ask(x.names.tenant)
	if !ok {
		return nil, errBusy
	}
	defer lane.Leave(x.names.tenant)
	if turn != nil {
		x.outOfStore() // or one tenant's queue would take the places of all there
		<-turn
	}
	a, err := x.relay.core.Call(ctx, &x.call)
	if lane == lanes.expensive && lanes.inside && lane.Stats().Waiting > 0 {
		lanes.breath.Breathe()
	}
	return a, err
}
