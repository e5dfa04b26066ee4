// Package fair shares places among tenants, so that one who asks for many at once
// makes the others wait for one of theirs, and not for all of them.
//
// It is about time only. Whose a request is may be a guess or a lie: a tenant may get
// another's turn by it, and nothing else.
package fair

import "sync"

// Limits are the bounds of Turns. All must be above 0.
type Limits struct {
	Places  int // taken at a time
	Each    int // of these, by one user
	Waiting int // users' jobs that wait for one
	Queue   int // of these, of one user
}

// Turns are the order in which users have jobs done at a number of places. Users are
// told apart by a key, the tenant as a rule. Where places are wanted by several users
// who have fewer than they may, each gets one in turn; the jobs of one user are done in
// the order they came.
//
// It is safe for concurrent use. Where a place is free, to take and to leave it costs
// two short critical sections and nothing else.
type Turns[K comparable, J any] struct {
	limits Limits

	mu    sync.Mutex
	users map[K]*user[K, J] // with places or with jobs that wait
	next  []*user[K, J]     // with jobs that wait and fewer places than they may have, in turn
	spare *user[K, J]       // the last one that left
	stats Stats
}

// A user has places, or waits for some.
type user[K comparable, J any] struct {
	key    K
	taken  int
	queue  []J
	isNext bool // in Turns.next
}

// Stats describes Turns for metrics. Counters start at zero.
type Stats struct {
	Taken   int    // places
	Waiting int    // jobs that wait
	Waited  uint64 // jobs that had to wait
	Refused uint64 // jobs that found no room to wait
}

// NewTurns returns turns with all places free.
func NewTurns[K comparable, J any](l Limits) *Turns[K, J] {
	return &Turns[K, J]{limits: l, users: map[K]*user[K, J]{}}
}

// Ask takes a place for a job of a user. It reports now if there is one, which must be
// given back by Leave. Otherwise the job is made and waits, and Leave returns it when
// its turn has come; if ok is false, as many wait as may, and there is none.
func (t *Turns[K, J]) Ask(key K, make func() J) (job J, now, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.user(key)
	if t.stats.Taken < t.limits.Places && u.taken < t.limits.Each {
		t.stats.Taken++
		u.taken++
		return job, true, true
	}
	if t.stats.Waiting >= t.limits.Waiting || len(u.queue) >= t.limits.Queue {
		t.stats.Refused++
		t.forget(u)
		return job, false, false
	}
	job = make()
	u.queue = append(u.queue, job)
	t.stats.Waiting++
	t.stats.Waited++
	t.queueUp(u)
	return job, false, true
}

// Leave gives a place of a user back. If it is the turn of another job, that has the
// place and is returned with its user; the caller has to see that it is done.
func (t *Turns[K, J]) Leave(key K) (next K, job J, more bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.users[key]
	u.taken--
	t.stats.Taken--
	t.queueUp(u)
	if len(t.next) > 0 {
		next, job = t.turn()
		more = true
	}
	t.forget(u)
	return next, job, more
}

// turn gives a free place to the job whose turn it is. The caller must hold t.mu and
// have found one.
func (t *Turns[K, J]) turn() (K, J) {
	u := t.next[0]
	t.next[0] = nil
	t.next, u.isNext = t.next[1:], false
	job := u.queue[0]
	clear(u.queue[:1])
	u.queue = u.queue[1:]
	t.stats.Taken++
	t.stats.Waiting--
	u.taken++
	t.queueUp(u)
	return u.key, job
}

// queueUp puts a user behind all others whose turn will come, if it waits and may have
// another place. The caller must hold t.mu.
func (t *Turns[K, J]) queueUp(u *user[K, J]) {
	if !u.isNext && len(u.queue) > 0 && u.taken < t.limits.Each {
		t.next, u.isNext = append(t.next, u), true
	}
}

// user finds or makes a user. The caller must hold t.mu.
func (t *Turns[K, J]) user(key K) *user[K, J] {
	u := t.users[key]
	if u == nil {
		if u = t.spare; u == nil {
			u = &user[K, J]{}
		}
		t.spare = nil
		u.key = key
		t.users[key] = u
	}
	return u
}

// forget drops a user who has no place and wants none. The caller must hold t.mu.
func (t *Turns[K, J]) forget(u *user[K, J]) {
	if u.taken == 0 && len(u.queue) == 0 {
		delete(t.users, u.key)
		t.spare = u
	}
}

// Stats returns the state at this moment.
func (t *Turns[K, J]) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stats
}
