package core

import "sync"

// pendingMicros is how long the host has to store the writes of an answer.
const pendingMicros = 60_000_000

// pending are the requests whose writes are being stored. Until the host says
// that they are, nobody gets the reply, and the core goes on with the old state.
type pending struct {
	limit int

	mu   sync.Mutex
	last uint64
	open map[uint64]*request
}

func newPending(limit int) *pending {
	return &pending{limit: limit, open: make(map[uint64]*request)}
}

// add returns a handle for x, or false if too many are open.
func (p *pending) add(x *request) (uint64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.open) >= p.limit { // check: pending-limit
		return 0, false
	}
	p.last++
	p.open[p.last] = x
	return p.last, true
}

// size is how many are open.
func (p *pending) size() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return uint64(len(p.open))
}

// take removes and returns what add was given.
func (p *pending) take(handle uint64) (*request, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x, ok := p.open[handle]
	delete(p.open, handle)
	return x, ok
}

// expire removes what has waited too long and hands it to drop.
func (p *pending) expire(now int64, drop func(*request)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for handle, x := range p.open {
		if now-x.now > pendingMicros {
			delete(p.open, handle)
			drop(x)
		}
	}
}
