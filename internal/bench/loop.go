package bench

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"
)

const (
	stopAfterErrors = 100              // of one connection; then it is of no use
	answerTimeout   = 10 * time.Second // for what is outstanding when a round ends
)

// limit ends a round: after a duration or, if count is not 0, after that many
// requests.
type limit struct {
	duration time.Duration
	count    int
}

// sample is what a round gave.
type sample struct {
	requests uint64
	elapsed  time.Duration
	cpu      time.Duration // of the server
	foreign  time.Duration // CPU time of neither the server nor this process
	latency  histogram
	errors   int
	firstErr error
}

// perRequest returns the CPU time of the server per request, in microseconds.
func (s *sample) perRequest() float64 {
	return micros(s.cpu) / float64(max(s.requests, 1))
}

// worker is one connection with its requests, in a closed loop: the next is sent
// when the one before is answered.
type worker struct {
	conn   *conn
	source source
	check  func(body []byte) error // nil: an HTTP status of 200 is enough
	broken bool                    // the connection; what comes next would be no answer
}

// once sends one request and returns its answer.
func (w *worker) once() ([]byte, error) {
	request := w.source.next(time.Now())
	if err := w.conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return nil, err
	}
	body, err := w.conn.roundTrip(request)
	if err == nil && w.check != nil {
		err = w.check(body)
	}
	return body, err
}

// run loops until the time end, or for count requests if that is not 0.
func (w *worker) run(end time.Time, count int) (s sample) {
	now := time.Now()
	for n := 0; now.Before(end) && (count == 0 || n < count) && !w.broken && s.errors < stopAfterErrors; n++ {
		request := w.source.next(now)
		sent := time.Now()
		body, err := w.conn.roundTrip(request)
		now = time.Now()
		w.broken = err != nil
		if err == nil && w.check != nil {
			err = w.check(body)
		}
		if err != nil {
			s.fail(err)
			continue
		}
		s.requests++
		s.latency.add(now.Sub(sent))
	}
	return s
}

func (s *sample) fail(err error) {
	s.errors++
	if s.firstErr == nil {
		s.firstErr = err
	}
}

// side is one of the two servers that a row compares, with its connections.
type side struct {
	workers []*worker
	pids    []int // of the server; none if its CPU time is not wanted
}

// round runs all workers until the limit, or until ctx ends.
func (d *side) round(ctx context.Context, l limit) (total sample, err error) {
	timeout := l.duration
	if l.count > 0 {
		timeout = maxDuration
	}
	before, err := d.readClocks()
	if err != nil {
		return total, err
	}
	begin := time.Now()
	samples := d.loop(ctx, begin.Add(timeout), l.count)
	total.elapsed = time.Since(begin)
	after, err := d.readClocks()
	if err != nil {
		return total, err
	}
	total.cpu = after.server - before.server
	total.foreign = max(after.busy-before.busy-(after.own-before.own)-total.cpu, 0)
	for i := range samples {
		total.add(&samples[i])
	}
	return total, ctx.Err()
}

// clocks are the CPU times that a round reads at its ends.
type clocks struct{ server, own, busy time.Duration }

func (d *side) readClocks() (c clocks, err error) {
	if c.server, err = cpuTime(d.pids); err != nil {
		return c, fmt.Errorf("read CPU time of the server: %w", err)
	}
	if c.own, err = cpuTime([]int{os.Getpid()}); err != nil {
		return c, fmt.Errorf("read CPU time of the load generator: %w", err)
	}
	if c.busy, err = busyTime(); err != nil {
		return c, fmt.Errorf("read CPU time of the machine: %w", err)
	}
	return c, nil
}

// add merges what one worker, or an earlier round, gave; times are not added.
func (s *sample) add(other *sample) {
	s.requests += other.requests
	s.latency.merge(&other.latency)
	s.errors += other.errors
	if s.firstErr == nil {
		s.firstErr = other.firstErr
	}
}

func (d *side) loop(ctx context.Context, end time.Time, count int) []sample {
	for _, w := range d.workers {
		w.conn.SetDeadline(end.Add(answerTimeout)) // if it fails, so does the first request
	}
	stop := context.AfterFunc(ctx, func() {
		for _, w := range d.workers {
			w.conn.SetDeadline(time.Now())
		}
	})
	defer stop()
	samples := make([]sample, len(d.workers))
	var wg sync.WaitGroup
	for i, w := range d.workers {
		share := count / len(d.workers)
		if i < count%len(d.workers) {
			share++
		}
		if count > 0 && share == 0 {
			continue
		}
		wg.Go(func() { samples[i] = w.run(end, share) })
	}
	wg.Wait()
	return samples
}

func (d *side) close() {
	for _, w := range d.workers {
		w.conn.Close()
	}
}
