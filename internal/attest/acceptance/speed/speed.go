// Package speed measures how often a second a machine does what a key service
// does most. The same code runs inside a TEE and outside of it, so that the ratio
// shows what the TEE costs.
//
// Its keys are made for one measurement and protect nothing.
package speed

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// A Rate is how often a second an operation was done.
type Rate struct {
	Operation string `json:"operation"`
	Threads   int    `json:"threads"` // that did it at the same time
	PerSecond uint64 `json:"perSecond"`
}

// Names lists the operations in the order in which Measure does them.
func Names() []string {
	names := make([]string, 0, len(operations()))
	for _, o := range operations() {
		names = append(names, o.name)
	}
	return names
}

// Measure does each operation for the time each, once on one thread and once on
// as many as Go uses at a time, if that is more than one. Making the keys takes up
// to a second more. Errors: those of an operation, which mean a broken machine,
// and of ctx.
func Measure(ctx context.Context, each time.Duration) ([]Rate, error) {
	var rates []Rate
	for _, o := range operations() {
		work, err := o.prepare()
		if err != nil {
			return nil, fmt.Errorf("prepare %s: %w", o.name, err)
		}
		for _, threads := range threadCounts(runtime.GOMAXPROCS(0)) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			n, err := run(work, o.batch, threads, each)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", o.name, err)
			}
			rates = append(rates, Rate{Operation: o.name, Threads: threads, PerSecond: n})
		}
	}
	return rates, nil
}

func threadCounts(all int) []int {
	if all == 1 {
		return []int{1}
	}
	return []int{1, all}
}

// run returns how often a second threads goroutines did the work together; each
// does a batch at least. The clock is read once in a batch, as in a TEE that may
// mean to leave it.
func run(work worker, batch, threads int, each time.Duration) (uint64, error) {
	var wg sync.WaitGroup
	done, errs := make([]uint64, threads), make([]error, threads)
	start := time.Now()
	for i := range threads {
		wg.Go(func() {
			do := work()
			for first := true; first || time.Since(start) < each; first = false {
				for range batch {
					if err := do(); err != nil {
						errs[i] = err
						return
					}
				}
				done[i] += uint64(batch)
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	var total uint64
	for i := range threads {
		if errs[i] != nil {
			return 0, errs[i]
		}
		total += done[i]
	}
	return uint64(float64(total) / took.Seconds()), nil
}
