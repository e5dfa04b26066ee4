package rest

import (
	"slices"
	"sync"
	"time"
)

const (
	tick    = time.Millisecond
	maxHold = 2 * tick // the longest that a reply is held, whatever the core says
)

// A holder keeps replies back until their release time, to the millisecond.
// All waiters share one wake-up per millisecond and there is none while nobody
// waits: a timer per request would cost more than the request.
//
// The zero value is not usable; see newHolder.
type holder struct {
	now func() time.Time

	mu      sync.Mutex
	running bool
	batches []*batch // few: those of this and the next milliseconds
}

// A batch is everybody who waits for the same millisecond.
type batch struct {
	at     int64     // Unix milliseconds
	latest time.Time // end of the hold even if the clock has been set back
	done   chan struct{}
}

// newHolder returns a holder that reads the time from now.
func newHolder(now func() time.Time) *holder { return &holder{now: now} }

// wait returns at release, in Unix microseconds, or up to a millisecond after
// it, but never later than maxHold from now. To wait a millisecond is always
// enough: whoever asks again after it has a new timestamp.
func (h *holder) wait(release int64) {
	now := h.now()
	micros := now.UnixMicro()
	if release <= micros {
		return
	}
	release = min(release, micros+tick.Microseconds())
	<-h.join((release+999)/1000, now).done
}

// join finds or opens the batch of a millisecond.
func (h *holder) join(at int64, now time.Time) *batch {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.batches {
		if b.at == at {
			return b
		}
	}
	b := &batch{at: at, latest: now.Add(maxHold), done: make(chan struct{})}
	h.batches = append(h.batches, b)
	if !h.running {
		h.running = true
		go h.run()
	}
	return b
}

// run wakes at every boundary of a millisecond until nobody waits.
func (h *holder) run() {
	for {
		now := h.now().Round(0) // without the monotonic clock: boundaries are the wall clock's
		time.Sleep(now.Truncate(tick).Add(tick).Sub(now))
		if !h.release(h.now()) {
			return
		}
	}
}

// release ends the batches whose time has come and tells whether any is left.
func (h *holder) release(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.batches = slices.DeleteFunc(h.batches, func(b *batch) bool {
		if b.at > now.UnixMilli() && now.Before(b.latest) {
			return false
		}
		close(b.done)
		return true
	})
	h.running = len(h.batches) > 0
	return h.running
}
