package session

import (
	"container/list"
	"context"
	"fmt"
	"sync"
)

// Limits of a Limit whose fields are zero.
const (
	DefaultHandshakes = 1024     // open ones
	DefaultWorkers    = 4        // that compute at a time
	DefaultMemory     = 64 << 20 // bytes of messages being received
)

// A Limit bounds what handshakes of strangers cost. One that is there may take
// long: where there are too many, the oldest makes room for the newest, so that
// peers that connect and stop keep nobody out. Verification and the making of
// evidence wait for one of few workers. The zero value has the defaults; it must
// not be copied.
type Limit struct {
	Handshakes int // open at a time
	Workers    int // that verify or make evidence at a time
	Memory     int // bytes of messages being received, of all handshakes

	mu      sync.Mutex
	open    list.List // of context.CancelCauseFunc, oldest first
	memory  int       // bytes reserved
	workers chan struct{}
}

func or(v, otherwise int) int {
	if v == 0 {
		return otherwise
	}
	return v
}

// A ticket is a handshake's share of a Limit, which may be nil.
type ticket struct {
	l      *Limit
	at     *list.Element
	memory int
}

// enter admits a handshake. cancel must end it soon.
func (l *Limit) enter(cancel context.CancelCauseFunc) *ticket {
	if l == nil {
		return &ticket{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.workers == nil {
		l.workers = make(chan struct{}, or(l.Workers, DefaultWorkers))
	}
	if l.open.Len() >= or(l.Handshakes, DefaultHandshakes) { // check: crowd
		l.open.Remove(l.open.Front()).(context.CancelCauseFunc)(ErrCrowded)
	}
	return &ticket{l: l, at: l.open.PushBack(cancel)}
}

// leave ends the handshake's share. It may be called more than once.
func (t *ticket) leave() {
	if t.l == nil {
		return
	}
	t.l.mu.Lock()
	defer t.l.mu.Unlock()
	t.l.open.Remove(t.at) // does nothing if it made room
	t.l.memory -= t.memory
	t.memory = 0
}

// reserve takes memory for a message until the handshake leaves.
func (t *ticket) reserve(n int) error {
	if t.l == nil {
		return nil
	}
	t.l.mu.Lock()
	defer t.l.mu.Unlock()
	most := or(t.l.Memory, DefaultMemory)
	if t.l.memory+n > most { // check: memory-of-all
		return fmt.Errorf("%w: messages of more than %d bytes", ErrCrowded, most)
	}
	t.l.memory += n
	t.memory += n
	return nil
}

// work runs f when a worker is free.
func (t *ticket) work(ctx context.Context, f func() error) error {
	if t.l == nil {
		return f()
	}
	select {
	case t.l.workers <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-t.l.workers }()
	return f()
}
