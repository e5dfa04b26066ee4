package auditsink

import (
	"context"
	"time"
)

// A batch are the durable Puts that one flush lets go.
type batch struct {
	puts int
	done chan struct{} // closed when it is on disk, or cannot be
	err  error         // to be read when done is closed
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

func (b *batch) end(err error) {
	b.err = err
	close(b.done)
}

// onDisk waits until a batch, or the one that h comes to be in, is on disk.
func onDisk(ctx context.Context, b *batch, h *held) error {
	if h != nil {
		select {
		case b = <-h.in:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	select {
	case <-b.done:
		return b.err
	default:
	}
	select {
	case <-b.done:
		return b.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// join adds a durable Put to the next flush, which is due when all that may come
// together have come. The caller must hold s.mu.
func (s *Sink) join() *batch {
	s.filling.puts++
	switch n := s.filling.puts; {
	case n >= s.gather.expect:
		s.hurry()
	case n == 1:
		s.rouse() // it may have to wait for less long than it does
	}
	return s.filling
}

const maxGather = time.Millisecond // longest wait of a durable Put for others

// A gather says for how many durable Puts a flush waits. Clients that wait for
// their replies send their next requests soon after; one flush for all of them
// costs as much as one for each. A lone client is never held up.
type gather struct {
	expect int       // as many have been under way together
	until  time.Time // no flush waits longer
}

// flushed takes note of a flush that has ended: what it took, how many it was
// for and how many wait already. With a disk that syncs in 0.13 ms and both
// processors busy, 4 times that is what 16 clients need to come back: 2 times
// gives flushes of 10, 4 times of 15, and replies are sooner as well.
func (g *gather) flushed(now time.Time, took time.Duration, puts, waiting int) {
	g.expect = max(puts+waiting, g.expect-(g.expect+3)/4)
	g.until = now.Add(min(4*took, maxGather))
}
