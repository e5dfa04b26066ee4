package config

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// headroom is how far the heap may grow beyond its live data, in bytes. More
	// of it saves little time.
	headroom = 48 << 20
	// leastGrowth, in per cent of the live data, bounds the time that collecting
	// takes where they are large.
	leastGrowth = 30

	livePeriod = time.Second // between two looks at the live data
)

// TuneCollector lets the heap of a server grow by growth per cent of its live
// data before it is collected, but at most by some tens of MiB, until ctx ends.
// It does nothing if the operator has set GOGC. Live data are mostly small and
// requests short, so memory is cheaper than time as long as there is little of
// it.
func TuneCollector(ctx context.Context, getenv func(string) string, growth int) {
	if getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(growth)
	go func() {
		tick := time.NewTicker(livePeriod)
		defer tick.Stop()
		set := growth
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			metrics.Read(live)
			// Small steps are not worth stopping the program for.
			if p := percent(live[0].Value.Uint64(), growth); p < set*9/10 || p > set*11/10 {
				debug.SetGCPercent(p)
				set = p
			}
		}
	}()
}

// percent is the growth that suits an amount of live data.
func percent(live uint64, growth int) int {
	if live*uint64(growth)/100 <= headroom {
		return growth
	}
	return max(leastGrowth, int(headroom*100/live))
}
