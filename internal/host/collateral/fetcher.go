package collateral

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// ErrBusy says that too many new kinds of platforms were asked for of late, or
// that the source wants to be left alone.
var ErrBusy = errors.New("collateral cannot be fetched at the moment")

// Options adjust a Fetcher.
type Options struct {
	// Dir is the cache directory; made if it is not there. "": memory only.
	Dir string
	// Refresh is how often collateral in use is fetched again. Default 24 h.
	Refresh time.Duration
	// Log takes what fails, and until when that does not matter. Default: nothing
	// is logged.
	Log *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Limits of what strangers can make a Fetcher do: quotes may name any FMSPC.
const (
	maxHeld      = MaxPlatforms     // kinds of platforms in memory, and on disk
	maxFailures  = 1024             // queries whose failure is remembered
	maxFetches   = 4                // at a time
	budgetBurst  = 16               // kinds of platforms that may be asked for at once
	budgetEvery  = 10 * time.Second // one more each
	unknownFor   = 10 * time.Minute // before an unknown FMSPC is asked for again
	failureFor   = 30 * time.Second // before another failure is tried again
	fetchTimeout = time.Minute
)

// When collateral is refreshed.
const (
	defaultRefresh = 24 * time.Hour
	firstRetry     = time.Minute // after a failed refresh, doubled each time
	lastRetry      = time.Hour
	expiredRetry   = 10 * time.Minute // if the source serves what has expired
	idleRefreshes  = 7                // without a use, until it is no longer refreshed
)

// A Fetcher keeps the collateral of the platforms that were asked for, in memory
// and on disk, and refreshes it. It is safe for concurrent use.
type Fetcher struct {
	source  Source
	disk    *disk // nil: memory only
	refresh time.Duration
	log     *slog.Logger
	now     func() time.Time

	ctx     context.Context // of all fetches; ends with Close
	cancel  context.CancelFunc
	fetches sync.WaitGroup
	room    chan struct{} // one for each fetch under way
	wake    chan struct{} // tells Run that something has come due

	mu       sync.Mutex
	slots    map[Query]*slot
	pinned   map[Query]bool
	failures map[Query]failure
	calls    map[Query]*call
	budget   bucket
	quiet    time.Time // the source is left alone until then
	warned   time.Time // that the budget is used up
}

// A holding is collateral and what it says. It is never changed.
type holding struct {
	collateral verify.Collateral
	contents   verify.Contents
	encoded    []byte
	fetched    time.Time
}

// A slot is a holding in use.
type slot struct {
	*holding
	used   time.Time
	due    time.Time // to be refreshed
	failed int       // refreshes since the last success
}

// A failure is why a query without a holding failed, and for how long it is not
// tried again.
type failure struct {
	err   error
	until time.Time
}

// A call is a fetch that everybody who asks for the same waits for.
type call struct {
	done    chan struct{}
	holding *holding // nil if err is not
	err     error
}

// New returns a Fetcher that asks source. Close ends it; Run refreshes.
func New(source Source, o Options) (*Fetcher, error) {
	f := &Fetcher{
		source: source, refresh: o.Refresh, log: o.Log, now: o.Now,
		room: make(chan struct{}, maxFetches), wake: make(chan struct{}, 1),
		slots: map[Query]*slot{}, pinned: map[Query]bool{}, failures: map[Query]failure{}, calls: map[Query]*call{},
	}
	if f.refresh <= 0 {
		f.refresh = defaultRefresh
	}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	if f.now == nil {
		f.now = time.Now
	}
	if o.Dir != "" {
		var err error
		if f.disk, err = openDisk(o.Dir, maxHeld); err != nil {
			return nil, err
		}
	}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f, nil
}

// Close ends the fetches under way and waits for them.
func (f *Fetcher) Close() error {
	f.mu.Lock()
	f.cancel() // under the lock, so that no fetch starts after it
	f.mu.Unlock()
	f.fetches.Wait()
	return nil
}

// Pin keeps q from being forgotten, and from being refused for what others ask.
func (f *Fetcher) Pin(q Query) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pinned[q] = true
}

// Collateral returns the newest collateral known for q, from memory, from disk,
// or from the source. It may have expired if the source has no newer one: verify
// decides. Its slices must not be written to. Errors wrap ErrQuery,
// ErrUnknownPlatform, ErrAnswer, ErrBusy, or are those of the source or of ctx.
func (f *Fetcher) Collateral(ctx context.Context, q Query) (verify.Collateral, error) {
	h, err := f.hold(ctx, q)
	if err != nil {
		return verify.Collateral{}, err
	}
	return h.collateral, nil
}

// Encoded is Collateral in the encoding of verify.Collateral.Append, which the
// caller must not write to.
func (f *Fetcher) Encoded(ctx context.Context, fmspc [6]byte, ca string) ([]byte, error) {
	h, err := f.hold(ctx, Query{FMSPC: fmspc, CA: ca})
	if err != nil {
		return nil, err
	}
	return h.encoded, nil
}

// hold returns the holding for q.
func (f *Fetcher) hold(ctx context.Context, q Query) (*holding, error) {
	if err := checkQuery(q); err != nil {
		return nil, err
	}
	held, c, err := f.look(q)
	if c == nil {
		return held, err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return c.holding, c.err
}

// look returns the holding for q if it serves, else the call to wait for.
func (f *Fetcher) look(q Query) (*holding, *call, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	s := f.slots[q]
	if s != nil {
		s.used = now
		if now.Before(s.contents.Expires()) || now.Before(s.due) {
			return s.holding, nil, nil
		}
	} else if e, ok := f.failures[q]; ok && now.Before(e.until) {
		return nil, nil, e.err
	}
	return nil, f.join(q), nil
}

// join returns the call for q, after starting it if there is none. The caller
// must hold f.mu.
func (f *Fetcher) join(q Query) *call {
	c := f.calls[q]
	if c != nil {
		return c
	}
	c = &call{done: make(chan struct{})}
	if f.ctx.Err() != nil {
		c.err = fmt.Errorf("%w: the service ends", ErrBusy)
		close(c.done)
		return c
	}
	f.calls[q] = c
	f.fetches.Go(func() {
		c.holding, c.err = f.obtain(q)
		f.mu.Lock()
		delete(f.calls, q)
		f.mu.Unlock()
		close(c.done)
	})
	return c
}

// obtain takes what the disk has, if it serves, or asks the source.
func (f *Fetcher) obtain(q Query) (*holding, error) {
	held := f.held(q)
	if held == nil {
		if held = f.load(q); held != nil && f.now().Before(held.contents.Expires()) {
			f.install(q, held)
			return held, nil
		}
	}
	fresh, err := f.fetch(q, held)
	switch {
	case err == nil:
		f.install(q, fresh)
		f.keep(q, fresh)
		return fresh, nil
	case held != nil:
		f.postpone(q, held, err)
		return held, nil
	}
	f.fail(q, err)
	return nil, err
}

func (f *Fetcher) held(q Query) *holding {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.slots[q]; s != nil {
		return s.holding
	}
	return nil
}

// load reads the disk. What is damaged there is as good as absent.
func (f *Fetcher) load(q Query) *holding {
	if f.disk == nil {
		return nil
	}
	c, fetched, err := f.disk.load(q)
	if err == nil {
		var h *holding
		if h, err = f.examine(q, c, fetched); err == nil {
			return h
		}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		f.log.Warn("collateral in the cache cannot be used and will be fetched again", "platform", Format(q), "err", err)
	}
	return nil
}

// examine reads what collateral says.
func (f *Fetcher) examine(q Query, c verify.Collateral, fetched time.Time) (*holding, error) {
	contents, err := contentsFor(&c, q)
	if err == nil {
		err = notAhead(&contents, f.now())
	}
	if err != nil {
		return nil, err
	}
	return &holding{c, contents, c.Append(nil), fetched}, nil
}

// fetch asks the source, and joins what it serves with what is held.
func (f *Fetcher) fetch(q Query, held *holding) (*holding, error) {
	if err := f.permit(q, held != nil); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(f.ctx, fetchTimeout)
	defer cancel()
	select {
	case f.room <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrBusy, ctx.Err())
	}
	c, err := f.source.Fetch(ctx, q)
	<-f.room
	if err != nil {
		f.heed(err)
		return nil, err
	}
	now := f.now()
	fresh, err := f.examine(q, c, now)
	if err != nil || held == nil {
		return fresh, err
	}
	joined, kept := newest(held, fresh, now)
	if len(kept) == 0 {
		return fresh, nil
	}
	f.log.Warn("the collateral source has served older parts than before, which were not taken", "platform", Format(q), "parts", kept)
	return f.examine(q, joined, now)
}

// install makes h what is served for q.
func (f *Fetcher) install(q Query, h *holding) {
	f.mu.Lock()
	now := f.now()
	used := now
	if s := f.slots[q]; s != nil {
		used = s.used // a refresh is no use
	}
	f.slots[q] = &slot{holding: h, used: used, due: f.dueAfter(h, now)}
	delete(f.failures, q)
	f.evict(q)
	f.mu.Unlock()
	f.rouse()
}

// keep writes to disk what was fetched.
func (f *Fetcher) keep(q Query, h *holding) {
	expires := h.contents.Expires()
	f.log.Info("collateral fetched", "platform", Format(q), "evaluation", h.contents.TCBInfo.Evaluation, "lasts until", expires.UTC().Format(time.RFC3339))
	if !f.now().Before(expires) {
		f.log.Error("the collateral source serves what has expired", "platform", Format(q))
	}
	if f.disk == nil {
		return
	}
	if err := f.disk.save(q, h.collateral, h.fetched); err != nil {
		f.log.Error("collateral cannot be cached", "platform", Format(q), "err", err)
	}
}

// rouse lets Run look at what is due.
func (f *Fetcher) rouse() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}
