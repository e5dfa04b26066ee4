package relay

import (
	"time"

	"github.com/ehsm-kms/ehsm/internal/fair"
	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// Stats describes a relay for metrics. Counters start at zero with New.
type Stats struct {
	Inside     int           // requests being served
	Limit      int           // at most
	Remembered uint64        // requests whose rows were all remembered
	Read       uint64        // times that rows were read from the store for a request
	Rows       int           // remembered
	Waiting    int           // requests that wait for the turn of their tenant at the core
	Waited     uint64        // requests that had to, each time they called the core
	Crowded    uint64        // requests answered with code 429 because too many of their tenant wait
	Lag        time.Duration // since the changes of other nodes were last known; 0 without a feed
	Stale      bool          // that is over the grace

	Rotation  store.Rotation // of the store, as last read
	DomainKey uint32         // version that the core wraps new records under, 0: not known yet
	Rewrapped uint64         // records that this process had wrapped anew

	Facts wire.FactsState // how far the core is in the log of negative facts, as last heard
}

// Stats returns the state at this moment.
func (r *Relay) Stats() Stats {
	s := Stats{
		Inside: int(r.inside.Load()), Limit: r.opts.Concurrent,
		Remembered: r.remembered.Load(), Read: r.reads.Load(), Rows: r.rows.size(),
		Lag: r.follower.lag(), Stale: !r.follower.current(),
		DomainKey: r.rotation.core.Load(), Rewrapped: r.rotation.rewrapped.Load(),
	}
	for _, lane := range []fair.Stats{r.lanes.cheap.Stats(), r.lanes.expensive.Stats()} {
		s.Waiting += lane.Waiting
		s.Waited += lane.Waited
		s.Crowded += lane.Refused
	}
	if at := r.rotation.last.Load(); at != nil {
		s.Rotation = *at
	}
	if at := r.chronicle.state.Load(); at != nil {
		s.Facts = *at
	}
	return s
}
