package relay

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// A fakeFeed answers what the test puts in.
type fakeFeed struct {
	mu      sync.Mutex
	changed []wire.RecordID
	all     bool
	err     error
	asked   int
	word    chan struct{} // wakes Wait
}

func (f *fakeFeed) Next(ctx context.Context) ([]wire.RecordID, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	ids, all := f.changed, f.all || f.asked == 1
	if f.err == nil {
		f.changed, f.all = nil, false
	}
	return ids, all, f.err
}

// set changes what the next answers are.
func (f *fakeFeed) set(changed []wire.RecordID, all bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changed, f.all, f.err = changed, all, err
}

func (f *fakeFeed) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-f.word:
		return nil
	}
}

// TestFollow has another node change a key and looks when this one notices. Time
// is a fake.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := &fakeFeed{word: make(chan struct{})}
		g := newRig(t, Options{Feed: feed})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { g.follow(ctx); close(done) }()
		defer func() { cancel(); <-done }()
		synctest.Wait()

		reads := func() int {
			before := g.store.reads
			if _, err := g.do(api.Encrypt, 1); err != nil {
				t.Fatal(err)
			}
			return g.store.reads - before
		}
		reads()
		before := g.store.reads
		if _, err := g.do("Add", 2); err != nil || g.store.reads == before {
			t.Errorf("a change goes by what is remembered (%v)", err)
		}
		reads()
		for range 5 { // the feed is asked in between
			time.Sleep(400 * time.Millisecond)
			if n := reads(); n != 0 {
				t.Errorf("nothing changed: got %d reads of the store", n)
			}
		}
		feed.set([]wire.RecordID{keyRecord}, false, nil)
		time.Sleep(maxPoll + minPoll)
		if n := reads(); n == 0 {
			t.Error("changed elsewhere: the store is not read")
		}
		if n := reads(); n != 0 {
			t.Errorf("then: got %d reads", n)
		}
		feed.set(nil, true, nil)
		time.Sleep(minPoll)
		synctest.Wait()
		feed.word <- struct{}{}
		time.Sleep(2 * minPoll)
		if n := reads(); n == 0 {
			t.Error("anything may have changed, by word: the store is not read")
		}

		// Cut off from the feed, what is remembered counts for StaleGrace.
		feed.set(nil, false, errors.New("cut off"))
		time.Sleep(maxPoll + minPoll)
		feed.word <- struct{}{}
		time.Sleep(time.Second)
		for range 3 {
			if n := reads(); n == 0 {
				t.Error("cut off: remembered rows are used")
			}
		}
		feed.set(nil, false, nil)
		time.Sleep(maxPoll + minPoll)
		if n := reads(); n != 0 {
			t.Errorf("again in touch: got %d reads", n)
		}
	})
}

// TestStaleGrace finds the last moment at which a node that is cut off uses what
// it remembers.
func TestStaleGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := &fakeFeed{word: make(chan struct{})}
		g := newRig(t, Options{Feed: feed, StaleGrace: 3 * time.Second})
		if g.follower.current() {
			t.Error("before the first answer: remembered rows count")
		}
		if err := g.poll(t.Context(), time.Second); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3*time.Second - 1)
		if !g.follower.current() {
			t.Error("too early")
		}
		time.Sleep(time.Nanosecond)
		if g.follower.current() {
			t.Error("too late")
		}
	})
	if !newFollower(nil, time.Second).current() {
		t.Error("a store of one node needs no feed")
	}
}

// TestSuspended: after a machine has slept, what it remembers does not count,
// although its own time has stood still.
func TestSuspended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Options{Feed: &fakeFeed{word: make(chan struct{})}})
		slept := time.Duration(0)
		g.follower.wall = func() time.Time { return time.Now().Add(slept) }
		poll := func() {
			if err := g.poll(t.Context(), time.Second); err != nil {
				t.Fatal(err)
			}
		}
		poll()
		for name, row := range map[string]struct {
			sleeps time.Duration
			want   bool
		}{
			"awake":                          {0, true},
			"asleep within the grace":        {time.Second - 1, true},
			"asleep for the grace":           {time.Second, false},
			"asleep for hours":               {5 * time.Hour, false},
			"a wall clock that was set back": {-time.Hour, true},
		} {
			if slept = row.sleeps; g.follower.current() != row.want {
				t.Errorf("%s: remembered rows count: %t", name, !row.want)
			}
		}
		slept = -time.Hour
		poll()
		time.Sleep(time.Second)
		if g.follower.current() {
			t.Error("after the wall clock was set back: remembered rows count for ever")
		}
		slept = 5 * time.Hour
		poll()
		if !g.follower.current() {
			t.Error("after it was asked again: they do not count")
		}
	})
}

// A slowFeed takes a while to answer.
type slowFeed struct {
	*fakeFeed
	takes time.Duration
}

func (f slowFeed) Next(ctx context.Context) ([]wire.RecordID, bool, error) {
	if !sleep(ctx, f.takes) {
		return nil, false, ctx.Err()
	}
	return f.fakeFeed.Next(ctx)
}

// TestSlowFeed: answers that take less than half of the grace leave no time at
// which remembered rows do not count.
func TestSlowFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := slowFeed{&fakeFeed{word: make(chan struct{})}, 450 * time.Millisecond}
		g := newRig(t, Options{Feed: feed})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { g.follow(ctx); close(done) }()
		defer func() { cancel(); <-done }()
		time.Sleep(feed.takes + time.Millisecond)
		for i := range 1000 {
			if !g.follower.current() {
				t.Fatalf("after %d ms remembered rows do not count", i*10)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if lag := g.follower.lag(); lag > time.Second {
			t.Errorf("got a lag of %v", lag)
		}
	})
}
