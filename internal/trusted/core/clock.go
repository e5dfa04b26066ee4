package core

import (
	"sync/atomic"
	"time"
)

// clock is the TEE's time: the host's clock, but never before the floor it was
// given nor before a time it has shown. A host can stop or slow it, and can move
// it forward for good; it cannot move it back.
type clock struct {
	host func() time.Time
	last atomic.Int64 // Unix microseconds
}

func newClock(host func() time.Time, floor time.Time) *clock {
	c := &clock{host: host}
	c.last.Store(floor.UnixMicro())
	return c
}

// raise takes note of a time that has passed.
func (c *clock) raise(floor time.Time) {
	for {
		last := c.last.Load()
		if floor.UnixMicro() <= last || c.last.CompareAndSwap(last, floor.UnixMicro()) {
			return
		}
	}
}

// micros returns the time in Unix microseconds.
func (c *clock) micros() int64 {
	now := c.host().UnixMicro()
	for {
		last := c.last.Load()
		if now <= last { // check: clock
			return last
		}
		if c.last.CompareAndSwap(last, now) {
			return now
		}
	}
}
