package coreclient

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

const (
	handshakeTimeout = 5 * time.Second
	writeTimeout     = 10 * time.Second // a core that does not read is dead
	readBuffer       = 64 << 10         // bytes
	maxUnsent        = 8 << 20          // bytes of calls that may wait to be sent
	keptBuffer       = 256 << 10        // bytes; larger buffers go to the garbage collector
)

// An appender is a message that can be encoded.
type appender interface{ Append(dst []byte) []byte }

// A session is one connection to one core instance.
type session struct {
	client *Client
	nc     net.Conn
	r      *bufio.Reader
	info   wire.Info
	dead   atomic.Bool  // err is set
	calls  atomic.Int64 // that somebody waits for

	mu      sync.Mutex
	changed sync.Cond // something to send, or room for more, or err
	unsent  []byte
	open    map[uint64]*waiter
	last    uint64 // number of the newest frame
	err     error  // why the session has ended
}

// A waiter waits for the answer to one frame.
type waiter struct {
	answer chan wire.Frame // has room for one; closed if none will come
	second int64           // when it was sent
}

// waiter takes a waiter out of the pool.
func (c *Client) waiter() *waiter {
	w, ok := c.waiters.Get().(*waiter)
	if !ok {
		w = &waiter{answer: make(chan wire.Frame, 1)}
	}
	w.second = c.seconds.Load()
	return w
}

// connect makes a connection and asks who is there.
func (c *Client) connect(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	nc, err := c.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	s := &session{client: c, nc: nc, r: bufio.NewReaderSize(nc, readBuffer), open: map[uint64]*waiter{}}
	s.changed.L = &s.mu
	if s.info, err = s.greet(ctx); err != nil {
		nc.Close()
		return nil, fmt.Errorf("%w: greet it: %w", ErrUnreachable, err)
	}
	c.adopt(s.info)
	return s, nil
}

// greet has the core describe itself.
func (s *session) greet(ctx context.Context) (info wire.Info, err error) {
	deadline, _ := ctx.Deadline()
	s.nc.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { s.nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err = s.nc.Write(wire.AppendFrame(nil, wire.OpInfo, 0, nil)); err != nil {
		return info, err
	}
	f, err := wire.ReadFrame(s.r)
	if err != nil {
		return info, err
	}
	if f.Op != wire.OpInfo || f.Number != 0 {
		return info, fmt.Errorf("%w: operation %d in answer to the greeting", wire.ErrFrame, f.Op)
	}
	if info, err = wire.DecodeInfo(f.Payload); err != nil {
		return info, err
	}
	return info, s.nc.SetDeadline(time.Time{})
}

// run sends and receives until the connection breaks or ctx ends, and says why
// it has ended.
func (s *session) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.fail(net.ErrClosed) })
	defer stop()
	var writer sync.WaitGroup
	writer.Go(s.write)
	s.fail(s.read())
	writer.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// fail ends the session: the connection is closed and all open calls fail.
func (s *session) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.err = fmt.Errorf("%w: %w", ErrUnreachable, err)
	s.dead.Store(true)
	s.nc.Close()
	for _, w := range s.open {
		if w != nil {
			close(w.answer)
		}
	}
	s.open, s.unsent = nil, nil
	s.changed.Broadcast()
}

// write sends what calls have put into unsent: while one write is under way,
// the calls of many goroutines gather for the next.
func (s *session) write() {
	var spare []byte
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for len(s.unsent) == 0 && s.err == nil {
			s.changed.Wait()
		}
		if s.err != nil {
			return
		}
		// Whoever is about to call shall come along.
		s.mu.Unlock()
		runtime.Gosched()
		s.mu.Lock()
		out := s.unsent
		s.unsent = spare[:0]
		full := len(out) > maxUnsent
		s.mu.Unlock()
		s.nc.SetWriteDeadline(time.Now().Add(writeTimeout))
		_, err := s.nc.Write(out)
		if err != nil {
			s.fail(fmt.Errorf("send: %w", err))
		}
		if spare = out; cap(out) > keptBuffer {
			spare = nil
		}
		s.mu.Lock()
		if full {
			s.changed.Broadcast()
		}
	}
}

// read hands out answers until the connection breaks.
func (s *session) read() error {
	for {
		f, err := wire.ReadFrame(s.r)
		if errors.Is(err, io.EOF) {
			return errors.New("core has closed the connection")
		}
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		s.mu.Lock()
		w, ok := s.open[f.Number]
		delete(s.open, f.Number)
		s.mu.Unlock()
		switch {
		case !ok:
			return fmt.Errorf("%w: answer to %d, which is not open", wire.ErrFrame, f.Number)
		case w != nil:
			w.answer <- f
		default:
			s.drop(f)
		}
	}
}

// drop takes the answer to a call that nobody waits for any more. If the core
// is waiting for its writes to be stored, it is told that they are not.
func (s *session) drop(f wire.Frame) {
	if f.Op != wire.OpCall && f.Op != wire.OpSweep {
		return
	}
	if a, err := wire.DecodeAnswer(f.Payload); err == nil && a.Kind == wire.Pending {
		s.send(wire.OpResolve, wire.Resolve{Handle: a.Handle, Outcome: wire.Failed}, nil)
	}
}

// send puts a frame into the queue. w gets the answer; nil drops it.
func (s *session) send(op wire.Op, m appender, w *waiter) (number uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.unsent) > maxUnsent && s.err == nil && w != nil {
		s.changed.Wait()
	}
	if s.err != nil {
		return 0, s.err
	}
	at := len(s.unsent)
	s.last++
	s.unsent = wire.AppendFrame(s.unsent, op, s.last, m.Append)
	if n := len(s.unsent) - at; n > wire.MaxFrame {
		s.unsent = s.unsent[:at]
		return 0, fmt.Errorf("message of %d bytes, limit %d", n, wire.MaxFrame)
	}
	s.open[s.last] = w
	if at == 0 {
		s.changed.Broadcast()
	}
	return s.last, nil
}

// hasOlder tells whether a call was sent before a second and is still open.
func (s *session) hasOlder(second int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.open {
		if w != nil && w.second < second {
			return true
		}
	}
	return false
}

// roundTrip sends a frame and waits for its answer.
func (s *session) roundTrip(ctx context.Context, op wire.Op, m appender) (wire.Frame, error) {
	s.calls.Add(1)
	defer s.calls.Add(-1)
	w := s.client.waiter()
	number, err := s.send(op, m, w)
	if err != nil {
		return wire.Frame{}, err
	}
	var f wire.Frame
	ok := false
	select {
	case f, ok = <-w.answer:
	case <-ctx.Done():
		s.abandon(number)
		return wire.Frame{}, ctx.Err()
	}
	if !ok {
		return wire.Frame{}, s.err
	}
	s.client.waiters.Put(w) // not in the other cases: something may still come
	return check(f, op)
}

// abandon leaves an open call to itself.
func (s *session) abandon(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.open[number]; ok {
		s.open[number] = nil
	}
}

// check looks whether a frame answers an operation.
func check(f wire.Frame, op wire.Op) (wire.Frame, error) {
	switch f.Op {
	case op:
		return f, nil
	case wire.OpRefused:
		return f, fmt.Errorf("%w: %s", ErrRefused, slices.Clip(f.Payload[:min(len(f.Payload), 512)]))
	}
	return f, fmt.Errorf("%w: operation %d in answer to %d", wire.ErrFrame, f.Op, op)
}
