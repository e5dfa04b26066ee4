package core

import (
	"fmt"
	"sync"

	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/trail"
)

const (
	// limitPeriod is for how long the trail has one entry for all requests of an app
	// that are over its limit, in microseconds: a flood must not become one of the
	// trail.
	limitPeriod = 10_000_000
	// maxLimitEntries is how many such entries follow one another.
	maxLimitEntries = 64
	// limitCandidates is how many apps are looked at to find one to forget.
	limitCandidates = 8
)

// limiter gives each app its share of requests. It remembers a bounded number of
// apps; where there are more, the one of a few whose bucket is the fullest is
// forgotten and starts anew, so that it may go over its limit, and nobody else
// suffers.
type limiter struct {
	most int // apps

	mu     sync.Mutex
	apps   map[wire.UUID]*bucket
	untold []wire.UUID // apps with refusals that no entry tells of
}

// A bucket holds the requests that an app may still make.
type bucket struct {
	full    int64 // Unix nanoseconds, when it is full again
	refused int   // requests since the entry of the trail
	told    int64 // Unix microseconds of that entry, 0: none
}

func newLimiter(most int) *limiter { return &limiter{most: most, apps: make(map[wire.UUID]*bucket)} }

// take takes a request out of an app's bucket, which holds burst of them and gets
// rate more each second. It reports false if there is none. now is in Unix
// microseconds.
func (l *limiter) take(app wire.UUID, now int64, rate, burst int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.apps[app]
	if b == nil {
		l.makeRoom()
		b = &bucket{}
		l.apps[app] = b
	}
	full := max(b.full, now*1000) + spacing(rate)
	if full-now*1000 > int64(burst)*spacing(rate) { // check: request-limit
		return false
	}
	b.full = full
	return true
}

// giveBack undoes take, for a request that is to be repeated.
func (l *limiter) giveBack(app wire.UUID, rate int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b := l.apps[app]; b != nil {
		b.full -= spacing(rate)
	}
}

// spacing is the time that one request takes up at a rate, in nanoseconds.
func spacing(rate int) int64 { return 1_000_000_000 / int64(rate) }

// makeRoom forgets an app if there are too many. The caller must hold l.mu.
func (l *limiter) makeRoom() {
	if len(l.apps) < l.most {
		return
	}
	var fullest wire.UUID
	var least int64
	n := 0
	for app, b := range l.apps { // begins anywhere
		if n == 0 || b.full < least {
			fullest, least = app, b.full
		}
		if n++; n == limitCandidates {
			break
		}
	}
	delete(l.apps, fullest)
}

// tell counts a refused request and reports whether the trail gets an entry of its
// own for it.
func (l *limiter) tell(app wire.UUID, now int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.apps[app]
	if b == nil || b.refused == 0 && (b.told == 0 || now-b.told >= limitPeriod) {
		if b != nil {
			b.told = now
		}
		return true
	}
	if b.refused == 0 {
		l.untold = append(l.untold, app)
	}
	b.refused++
	return false
}

// entries are those that tell of the refused requests that had none, of apps whose
// period is over.
func (l *limiter) entries(now int64) (list []*trail.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := l.untold[:0]
	for _, app := range l.untold {
		b := l.apps[app]
		switch {
		case b == nil || b.refused == 0: // it was forgotten
		case now-b.told < limitPeriod || len(list) == maxLimitEntries:
			left = append(left, app)
		default:
			list = append(list, &trail.Entry{
				Kind: trail.Request, Time: now, Tenant: app, Action: "Limit", Code: codeTooMany,
				Reason: fmt.Sprintf("%s, %d more", errLimit().reason, b.refused),
			})
			b.refused, b.told = 0, now
		}
	}
	l.untold = left
	return list
}

// spend counts an authentic request that is no replay against the limit of its app.
func (x *request) spend() error {
	l := &x.core.terms.Load().settings.Limits
	if l.RequestsPerSecond == 0 {
		return nil
	}
	if !x.core.limiter.take(x.tenant, x.now, l.RequestsPerSecond, l.Burst) {
		x.takeBack() // it can be sent again
		return errLimit()
	}
	x.spent = l.RequestsPerSecond
	return nil
}
