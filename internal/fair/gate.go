// Package fair shares places among tenants, so that one who asks for many at once
// makes the others wait for one of theirs, and not for all of them.
//
// It is about time only. Whose a request is may be a guess or a lie: a tenant may get
// another's turn by it, and nothing else.
package fair

import "sync"

// Limits are the bounds of a Gate. All must be above 0.
type Limits struct {
	Places  int // taken at a time
	Each    int // of these, by one user
	Waiting int // users' requests that wait for one
	Queue   int // of these, of one user
}

// A Gate has a number of places. Users are told apart by a key, the tenant as a rule.
// Where places are wanted by several users who have fewer than they may, each gets one
// in turn; the requests of one user are served in the order they came.
//
// It is safe for concurrent use. Where a place is free, to take and to leave it costs
// two short critical sections and nothing else.
type Gate[K comparable] struct {
	limits Limits

	mu      sync.Mutex
	taken   int
	waiting int
	users   map[K]*user[K] // with places or with requests that wait
	turns   []*user[K]     // with requests that wait and fewer places than they may have, the next one first
	spare   *user[K]       // the last one that left
	stats   Stats
}

// A user has places, or waits for some.
type user[K comparable] struct {
	key     K
	taken   int
	queue   []chan struct{} // closed when there is a place
	inTurns bool
}

// Stats describes a Gate for metrics. Counters start at zero.
type Stats struct {
	Taken   int    // places
	Waiting int    // requests that wait
	Waited  uint64 // requests that had to wait
	Refused uint64 // requests that found no room to wait
}

// New returns a gate with all places free.
func New[K comparable](l Limits) *Gate[K] {
	return &Gate[K]{limits: l, users: map[K]*user[K]{}}
}

// Enter takes a place, and waits for one if need be. It reports false, at once, if as
// many requests wait as may. Each place must be given back by Leave.
func (g *Gate[K]) Enter(key K) bool {
	ready, ok := g.Ask(key)
	if ready != nil {
		<-ready
	}
	return ok
}

// Ask is Enter without the waiting: where there is no place yet, ready is closed when
// there is one, which is then taken. It reports false if there will be none.
func (g *Gate[K]) Ask(key K) (ready <-chan struct{}, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	u := g.user(key)
	if g.taken < g.limits.Places && u.taken < g.limits.Each {
		g.taken++
		u.taken++
		return nil, true
	}
	if g.waiting >= g.limits.Waiting || len(u.queue) >= g.limits.Queue {
		g.stats.Refused++
		g.forget(u)
		return nil, false
	}
	place := make(chan struct{})
	u.queue = append(u.queue, place)
	g.waiting++
	g.stats.Waited++
	g.queueUp(u)
	return place, true
}

// Leave gives a place back that Enter has taken for key.
func (g *Gate[K]) Leave(key K) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.taken--
	u := g.users[key]
	u.taken--
	g.queueUp(u)
	g.next()
	g.forget(u)
}

// next gives free places to those whose turn it is. The caller must hold g.mu.
func (g *Gate[K]) next() {
	for g.taken < g.limits.Places && len(g.turns) > 0 {
		u := g.turns[0]
		g.turns[0] = nil
		g.turns, u.inTurns = g.turns[1:], false
		close(u.queue[0])
		u.queue[0] = nil
		u.queue = u.queue[1:]
		g.taken++
		g.waiting--
		u.taken++
		g.queueUp(u)
	}
}

// queueUp puts a user behind all others whose turn will come, if it waits and may have
// another place. The caller must hold g.mu.
func (g *Gate[K]) queueUp(u *user[K]) {
	if !u.inTurns && len(u.queue) > 0 && u.taken < g.limits.Each {
		g.turns, u.inTurns = append(g.turns, u), true
	}
}

// user finds or makes a user. The caller must hold g.mu.
func (g *Gate[K]) user(key K) *user[K] {
	u := g.users[key]
	if u == nil {
		if u = g.spare; u == nil {
			u = &user[K]{}
		}
		g.spare = nil
		u.key = key
		g.users[key] = u
	}
	return u
}

// forget drops a user who has no place and wants none. The caller must hold g.mu.
func (g *Gate[K]) forget(u *user[K]) {
	if u.taken == 0 && len(u.queue) == 0 {
		delete(g.users, u.key)
		g.spare = u
	}
}

// Stats returns the state at this moment.
func (g *Gate[K]) Stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.stats
	s.Taken, s.Waiting = g.taken, g.waiting
	return s
}
