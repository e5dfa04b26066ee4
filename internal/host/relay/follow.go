package relay

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// A Feed tells which records other nodes have changed in a store.
type Feed interface {
	// Next returns the records changed since the call before; all says that it
	// may be any. What was stored when Next was called is in its answer.
	Next(ctx context.Context) (changed []wire.RecordID, all bool, err error)
	// Wait returns when it may be worth while to call Next. It may be called
	// beside Next.
	Wait(ctx context.Context) error
}

const (
	maxPoll = 500 * time.Millisecond // between two questions to the feed
	minPoll = 10 * time.Millisecond  // also if the feed says that there is something

	// connectTime is how long a question may take once remembered rows do not count
	// in any case: a connection is several questions, perhaps to several hosts.
	connectTime = 10 * time.Second
)

// A follower knows until when the row cache counts.
type follower struct {
	feed  Feed
	grace time.Duration
	began time.Time
	until atomic.Int64 // since began, in nanoseconds
	// The same by the wall clock. A machine that was suspended, with its programs and
	// their monotonic clock, finds that gone on.
	wall      func() time.Time
	untilWall atomic.Int64 // Unix nanoseconds

	failing atomic.Bool // the last question had no answer
}

// lag is the time since the changes of other nodes were last known.
func (f *follower) lag() time.Duration {
	if f.feed == nil {
		return 0
	}
	known := time.Duration(f.until.Load()) - f.grace
	return time.Since(f.began) - max(known, 0)
}

func newFollower(feed Feed, grace time.Duration) *follower {
	return &follower{feed: feed, grace: grace, began: time.Now(), wall: time.Now}
}

// current reports whether remembered rows may be used. If not, requests read the
// store, and fail if that cannot be reached.
func (f *follower) current() bool {
	return f.feed == nil || int64(time.Since(f.began)) < f.until.Load() && f.wall().UnixNano() < f.untilWall.Load()
}

// follow asks the feed until ctx ends.
func (r *Relay) follow(ctx context.Context) {
	f := r.follower
	if f.feed == nil {
		return
	}
	woken := make(chan struct{}, 1)
	var wg sync.WaitGroup
	wg.Go(func() { r.listen(ctx, woken) })
	defer wg.Wait()
	period := min(maxPoll, f.grace/2)
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-woken:
			t.Stop()
		}
		asked, limit := time.Now(), f.grace
		if !f.current() {
			limit = max(limit, connectTime)
		}
		err := r.poll(ctx, limit)
		failing := f.failing.Swap(err != nil)
		switch {
		case err != nil && !failing && ctx.Err() == nil:
			r.opts.Log.WarnContext(ctx, "changes of other nodes not read; remembered rows do not count until they are", "err", err)
		case err == nil && failing:
			r.opts.Log.InfoContext(ctx, "changes of other nodes are read again")
		}
		// From when it was asked: a slow answer must not leave a time that no answer
		// covers.
		t.Reset(max(period-time.Since(asked), 0))
		if !sleep(ctx, minPoll) {
			return
		}
	}
}

// poll asks once what others have changed.
func (r *Relay) poll(ctx context.Context, limit time.Duration) error {
	f := r.follower
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	asked, wall := time.Now(), f.wall()
	ids, all, err := f.feed.Next(ctx)
	if err != nil {
		return err
	}
	switch {
	case all:
		r.rows.clear()
	case len(ids) > 0:
		r.rows.forget(ids)
	}
	f.until.Store(int64(asked.Add(f.grace).Sub(f.began)))
	f.untilWall.Store(wall.Add(f.grace).UnixNano())
	return nil
}

// listen wakes follow when the feed says so.
func (r *Relay) listen(ctx context.Context, woken chan<- struct{}) {
	for ctx.Err() == nil {
		if err := r.follower.feed.Wait(ctx); err != nil {
			if !sleep(ctx, time.Second) {
				return
			}
			continue
		}
		select {
		case woken <- struct{}{}:
		default:
		}
	}
}

// sleep waits; it reports false if ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
