package bench

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// quietConns is how many connections a quiet tenant spreads its requests over, so
// that one that is late does not delay the next.
const quietConns = 8

// A quiet tenant sends requests at times that do not depend on their answers.
type quiet struct {
	side *side
	rate int // requests a second
}

// round sends requests for a time and measures each from when it was to be sent, if
// the answer before it was still awaited then, else from when it was sent: a timer of
// the client that wakes late does not count.
func (q *quiet) round(ctx context.Context, d time.Duration) (total sample, err error) {
	before, err := q.side.readClocks()
	if err != nil {
		return total, err
	}
	begin := time.Now()
	samples := make([]sample, len(q.side.workers))
	var wg sync.WaitGroup
	for i, w := range q.side.workers {
		step := time.Second / time.Duration(q.rate)
		wg.Go(func() {
			samples[i] = w.open(ctx, begin.Add(time.Duration(i)*step), time.Duration(len(samples))*step, begin.Add(d))
		})
	}
	wg.Wait()
	total.elapsed = time.Since(begin)
	after, err := q.side.readClocks()
	if err != nil {
		return total, err
	}
	total.cpu = after.server - before.server
	for i := range samples {
		total.add(&samples[i])
	}
	if total.errors > 0 {
		return total, fmt.Errorf("%w: the quiet tenant: %w", ErrFailed, total.firstErr)
	}
	return total, ctx.Err()
}

// open sends a request at each step from begin to end.
func (w *worker) open(ctx context.Context, begin time.Time, step time.Duration, end time.Time) (s sample) {
	for due := begin; due.Before(end) && !w.broken; due = due.Add(step) {
		from := due
		if wait := time.Until(due); wait > 0 {
			if sleep(ctx, wait) != nil {
				return s
			}
			from = time.Now()
		}
		if _, err := w.once(); err != nil {
			w.broken = true
			s.fail(err)
			continue
		}
		s.requests++
		s.latency.add(time.Since(from))
	}
	return s
}
