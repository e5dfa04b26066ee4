package core

import (
	"sync"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// How long a count of an app's records is good for, in microseconds, as other nodes
// make some too; and how long one that leaves no room, as some may be deleted.
const (
	countMicros = 60_000_000
	fullMicros  = 5_000_000
)

// quota knows how many keys and secrets apps have, of a bounded number of apps. The
// host counts them, for what a record too many would cost is the host's. An app can
// get past its limit by the requests that are under way at once, and by what other
// nodes make in the time that a count is good for.
type quota struct {
	most int

	mu     sync.Mutex
	counts map[wire.RecordID]*count // by type and tenant
}

type count struct {
	n  int
	at int64 // Unix microseconds, when the host counted
}

func newQuota(most int) *quota { return &quota{most: most, counts: make(map[wire.RecordID]*count)} }

// get returns a count and whether it is known and good at a time.
func (q *quota) get(of wire.RecordID, limit int, now int64) (n int, good bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.counts[of]
	if c == nil {
		return 0, false
	}
	if c.n < limit {
		return c.n, now-c.at < countMicros
	}
	return c.n, now-c.at < fullMicros
}

// set takes a count of the host's. Where there are too many, another one goes.
func (q *quota) set(of wire.RecordID, n int, now int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.counts[of] == nil && len(q.counts) >= q.most {
		for other := range q.counts { // begins anywhere
			delete(q.counts, other)
			break
		}
	}
	q.counts[of] = &count{n, now}
}

// add counts one more.
func (q *quota) add(of wire.RecordID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if c := q.counts[of]; c != nil {
		c.n++
	}
}

// reserve refuses to make one more record of a type where the app has as many as
// the limit, 0 for none, and otherwise counts it when it is stored. It may need a
// listing.
func (x *request) reserve(t wire.RecordType, limit int, full *refusal) error {
	if limit == 0 {
		return nil
	}
	of := wire.RecordID{Type: t, Tenant: x.tenant}
	n, good := x.core.quota.get(of, limit, x.now)
	if !good {
		if !x.call.Listed {
			return &needError{list: &wire.Query{Type: t, Tenant: x.tenant, Limit: limit}}
		}
		n = len(x.call.Listing)
		x.core.quota.set(of, n, x.now)
	}
	if n >= limit { // check: quota
		return full
	}
	x.onStored = append(x.onStored, func() { x.core.quota.add(of) })
	return nil
}

func (x *request) reserveKey() error {
	return x.reserve(wire.Key, x.core.terms.Load().settings.Limits.Keys, errFullKeys())
}

func (x *request) reserveSecret() error {
	return x.reserve(wire.Secret, x.core.terms.Load().settings.Limits.Secrets, errFullSecrets())
}
