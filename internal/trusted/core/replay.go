package core

import (
	"sync"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

const (
	bucketMillis = 4_000  // timestamps of one bucket of replay entries
	minSpan      = 30_000 // milliseconds before now that stay acceptable, whatever the load
)

// admission is the verdict of the replay cache.
type admission uint8

const (
	admitted admission = iota
	replayed           // this very request was admitted before
	tooOld             // its timestamp is below the tenant's floor
	overflow           // no room, and the floor cannot be raised further
)

// replays remembers the requests that were admitted, by tenant and MAC, until
// their timestamps leave the request window. It is bounded per tenant and in
// total. A live entry is never dropped while its request would still be
// accepted: where room is short, the tenant's timestamp floor is raised first
// and the entries below it go.
type replays struct {
	perTenant int
	total     int
	window    int64 // milliseconds; guarded by mu

	mu      sync.Mutex
	floor   int64 // Unix milliseconds; older requests may have been forgotten under a smaller window
	latest  int64 // Unix milliseconds; entries were dropped as of this time
	count   int
	tenants map[wire.UUID]*tenantReplays
}

// tenantReplays are the entries of one tenant, in buckets by timestamp.
type tenantReplays struct {
	floor   int64 // Unix milliseconds; older requests are refused
	oldest  int64 // no bucket has a lower number
	count   int
	buckets map[int64]*tagSet
}

func newReplays(perTenant, total int, window int64) *replays {
	return &replays{perTenant: perTenant, total: total, window: window, tenants: make(map[wire.UUID]*tenantReplays)}
}

// resize changes the window, in milliseconds. What has left the one before is
// forgotten, so a larger one does not let it in again.
func (r *replays) resize(window, now int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now = r.advance(now)
	if window > r.window {
		r.floor = max(r.floor, now-r.window)
	}
	r.window = window
}

// admit checks and records a request in one step. Times are Unix milliseconds.
func (r *replays) admit(tenant wire.UUID, tag wire.Tag, timestamp, now int64) admission {
	r.mu.Lock()
	defer r.mu.Unlock()
	now = r.advance(now)
	// The caller has checked the window, but at a time that may have passed
	// since: the host can let a call sleep until the entry is gone.
	if timestamp <= now-r.window { // check: horizon
		return tooOld
	}
	if timestamp <= r.floor { // check: window-grew
		return tooOld
	}
	t := r.tenants[tenant]
	if t == nil {
		t = &tenantReplays{buckets: make(map[int64]*tagSet), oldest: timestamp / bucketMillis}
		r.tenants[tenant] = t
	}
	r.drop(t, now-r.window)
	number := timestamp / bucketMillis
	if b := t.buckets[number]; b != nil && b.has(tag) { // check: replay
		return replayed
	}
	if timestamp < t.floor { // check: floor
		return tooOld
	}
	if !r.room(t, now) { // check: replay-bound
		return overflow
	}
	b := t.buckets[number]
	if b == nil {
		b = &tagSet{}
		t.buckets[number] = b
		t.oldest = min(t.oldest, number)
	}
	b.add(tag)
	t.count++
	r.count++
	return admitted
}

// forget takes an admission back, for a request that was not executed.
func (r *replays) forget(tenant wire.UUID, tag wire.Tag, timestamp int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tenants[tenant]
	if t == nil {
		return
	}
	if b := t.buckets[timestamp/bucketMillis]; b != nil && b.remove(tag) {
		t.count--
		r.count--
	}
}

// expire drops the entries of all tenants whose timestamps have left the window.
func (r *replays) expire(now int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now = r.advance(now)
	for id, t := range r.tenants {
		r.drop(t, now-r.window)
		if t.count == 0 && t.floor <= now-r.window {
			delete(r.tenants, id)
		}
	}
}

// advance moves the time, which callers read before they took the lock, and
// returns the latest one. The caller must hold r.mu.
func (r *replays) advance(now int64) int64 {
	r.latest = max(r.latest, now)
	return r.latest
}

// drop removes the buckets that lie wholly before a time.
func (r *replays) drop(t *tenantReplays, before int64) {
	end := before / bucketMillis // the first bucket that stays
	if t.oldest >= end {
		return
	}
	if int64(len(t.buckets)) < end-t.oldest {
		for number := range t.buckets {
			if number < end {
				r.dropBucket(t, number)
			}
		}
	} else {
		for number := t.oldest; number < end; number++ {
			r.dropBucket(t, number)
		}
	}
	t.oldest = end
}

func (r *replays) dropBucket(t *tenantReplays, number int64) {
	if b := t.buckets[number]; b != nil {
		t.count -= b.count
		r.count -= b.count
		delete(t.buckets, number)
	}
}

// size is how many requests are remembered.
func (r *replays) size() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return uint64(r.count)
}

// room makes room for one more entry of t. A tenant over its bound, or over its
// fair share of a full cache, pays with its own floor. One below its share may
// go over the total by a quarter, until those above theirs have paid.
func (r *replays) room(t *tenantReplays, now int64) bool {
	for t.count >= r.perTenant || r.count >= r.total && t.count >= r.total/len(r.tenants) {
		if !r.raise(t, now) {
			return false
		}
	}
	if r.count < r.total+r.total/4 {
		return true
	}
	for _, other := range r.tenants {
		for other.count > r.total/len(r.tenants) && r.count >= r.total {
			if !r.raise(other, now) {
				break
			}
		}
	}
	return r.count < r.total+r.total/4
}

// raise moves the floor of t past its oldest bucket with entries, and drops it.
// It reports false if the floor would come closer to now than minSpan.
func (r *replays) raise(t *tenantReplays, now int64) bool {
	limit := (now - minSpan) / bucketMillis // the first bucket that must stay
	for number := t.oldest; number < limit; number++ {
		t.oldest = number + 1
		if t.buckets[number] != nil {
			t.floor = max(t.floor, (number+1)*bucketMillis)
			r.dropBucket(t, number)
			return true
		}
	}
	return false
}
