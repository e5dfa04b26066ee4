package relay

import "time"

// Stats describes a relay for metrics. Counters start at zero with New.
type Stats struct {
	Inside     int           // requests being served
	Limit      int           // at most
	Remembered uint64        // requests whose rows were all remembered
	Read       uint64        // times that rows were read from the store for a request
	Rows       int           // remembered
	Lag        time.Duration // since the changes of other nodes were last known; 0 without a feed
	Stale      bool          // that is over the grace
}

// Stats returns the state at this moment.
func (r *Relay) Stats() Stats {
	return Stats{
		Inside: int(r.inside.Load()), Limit: r.opts.Concurrent,
		Remembered: r.remembered.Load(), Read: r.reads.Load(), Rows: r.rows.size(),
		Lag: r.follower.lag(), Stale: !r.follower.current(),
	}
}
