package collateral

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"time"
)

// Run refreshes collateral in use until ctx ends. While a refresh fails, what is
// held is served on; the log says until when it is in force.
func (f *Fetcher) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.ctx.Done():
			return
		case <-f.wake:
		case <-timer.C:
		}
		for q, ok := f.due(); ok && ctx.Err() == nil && f.ctx.Err() == nil; q, ok = f.due() {
			f.refreshNow(ctx, q)
		}
		timer.Reset(f.untilDue())
	}
}

// due returns a query whose collateral is to be refreshed. What nobody uses any
// more is forgotten instead; the disk still has it.
func (f *Fetcher) due() (q Query, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	for q, s := range f.slots {
		switch {
		case now.Before(s.due):
		case !f.pinned[q] && now.Sub(s.used) > idleRefreshes*f.refresh:
			delete(f.slots, q)
		default:
			return q, true
		}
	}
	return q, false
}

// untilDue returns how long nothing is to be refreshed.
func (f *Fetcher) untilDue() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	wait := f.refresh
	for _, s := range f.slots {
		wait = min(wait, s.due.Sub(now))
	}
	return max(wait, time.Second) // clocks may be set
}

func (f *Fetcher) refreshNow(ctx context.Context, q Query) {
	f.mu.Lock()
	c := f.join(q)
	f.mu.Unlock()
	select {
	case <-c.done:
	case <-ctx.Done():
	}
}

// dueAfter says when h is to be refreshed: after the interval, earlier if part of
// it expires before, and spread over a tenth of it, so that nodes which started
// together do not ask together.
func (f *Fetcher) dueAfter(h *holding, now time.Time) time.Time {
	if h.fetched.After(now) { // the clock has been set back, or the file's date is wrong
		return now
	}
	due := h.fetched.Add(f.refresh - rand.N(f.refresh/10+1))
	expires := h.contents.Expires()
	if !now.Before(expires) { // what the source served
		return now.Add(expiredRetry)
	}
	if expires.Before(due) {
		due = expires
	}
	return later(due, h.fetched.Add(firstRetry))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// postpone notes that a refresh failed, and goes on with what is held.
func (f *Fetcher) postpone(q Query, held *holding, err error) {
	f.mu.Lock()
	now := f.now()
	s := f.slots[q]
	if s == nil {
		s = &slot{used: now}
		f.slots[q] = s
		f.evict(q)
	}
	s.holding = held
	wait := min(firstRetry<<min(s.failed, 10), lastRetry)
	s.failed++
	s.due = later(now.Add(wait-rand.N(wait/10+1)), f.quiet)
	failed, due, expires := s.failed, s.due, held.contents.Expires()
	f.mu.Unlock()
	f.rouse()
	args := []any{"platform", Format(q), "err", err, "failures", failed, "again", due.UTC().Format(time.RFC3339), "lasts until", expires.UTC().Format(time.RFC3339)}
	if now.Before(expires) {
		f.log.Warn("collateral could not be refreshed; what is held goes on being served", args...)
		return
	}
	f.log.Error("collateral has expired and could not be refreshed", args...)
}

// fail remembers why there is nothing for q.
func (f *Fetcher) fail(q Query, err error) {
	if f.ctx.Err() != nil || errors.Is(err, ErrBusy) {
		return
	}
	f.log.Warn("collateral could not be fetched", "platform", Format(q), "err", err)
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	wait := failureFor
	if errors.Is(err, ErrUnknownPlatform) {
		wait = unknownFor
	}
	if len(f.failures) >= maxFailures {
		maps.DeleteFunc(f.failures, func(_ Query, e failure) bool { return !now.Before(e.until) })
	}
	if len(f.failures) >= maxFailures {
		return // the budget bounds what comes of it
	}
	f.failures[q] = failure{err, now.Add(wait)}
}

// permit says whether the source may be asked for q. What is held already, or is
// pinned, takes nothing of the budget.
func (f *Fetcher) permit(q Query, held bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	if now.Before(f.quiet) {
		return fmt.Errorf("%w: the source wants to be left alone until %s", ErrBusy, f.quiet.UTC().Format(time.RFC3339))
	}
	if held || f.pinned[q] || f.budget.take(now) {
		return nil
	}
	if now.Sub(f.warned) >= budgetEvery {
		f.warned = now
		f.log.Warn("quotes of too many kinds of platforms: collateral of further ones is not fetched", "platform", Format(q))
	}
	return fmt.Errorf("%w: too many kinds of platforms were asked for", ErrBusy)
}

// heed leaves the source alone if it says so.
func (f *Fetcher) heed(err error) {
	var status *StatusError
	if !errors.As(err, &status) || status.RetryAfter <= 0 || status.Code != http.StatusTooManyRequests && status.Code != http.StatusServiceUnavailable {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.quiet = later(f.quiet, f.now().Add(status.RetryAfter))
}

// evict forgets what was used least recently, down to the limit, but neither keep
// nor what is pinned. The caller must hold f.mu.
func (f *Fetcher) evict(keep Query) {
	for len(f.slots) > maxHeld {
		var oldest Query
		found := false
		for q, s := range f.slots {
			if q != keep && !f.pinned[q] && (!found || s.used.Before(f.slots[oldest].used)) {
				oldest, found = q, true
			}
		}
		if !found {
			return
		}
		delete(f.slots, oldest)
	}
}

// A bucket holds the permissions to ask for kinds of platforms that are new. The
// zero value is full.
type bucket struct {
	taken float64
	at    time.Time
}

func (b *bucket) take(now time.Time) bool {
	if passed := now.Sub(b.at); passed > 0 {
		b.taken = max(0, b.taken-passed.Seconds()/budgetEvery.Seconds())
		b.at = now
	}
	if b.taken+1 > budgetBurst {
		return false
	}
	b.taken++
	return true
}
