// Package serve is the core's end of the stream to the manager: it reads
// frames, has the core execute them and writes the answers.
//
// It trusts the core and nothing that arrives: the peer is whoever reaches the
// socket. No security rests on who that is. A peer can make the core work and
// can break its own connection; the bounds here keep it from more. It hides
// nothing, as the core's answers are meant for the host, but what a panic says
// is not logged, because it might quote key material.
package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/fair"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// Options bound what peers may take. The zero value is usable.
type Options struct {
	// Connections is how many may be open; further ones are closed. Default 32.
	Connections int
	// Workers is how many expensive things are executed at a time for one tenant; for
	// several tenants it is one more, so that none waits for all that another has.
	// Default: as many as there are processors.
	Workers int
	// Waiting is how many frames may wait for that, and half as many of one tenant;
	// further ones are refused. Default 1024.
	Waiting int
	// FrameTimeout is how long a frame may take from its first byte to its
	// last. Default 10 s.
	FrameTimeout time.Duration
	// WriteTimeout is how long a peer may leave answers unread. Default 10 s.
	WriteTimeout time.Duration
	// Expensive tells which actions go to a worker instead of being executed
	// between two reads of the stream. Sweeps and calls with a listing always
	// do. Default: none.
	Expensive func(action string) bool
	// Slow tells which actions wait for something else than a processor. Each is
	// executed by itself, so that no worker is kept. Default: none.
	Slow func(action string) bool
	// SlowCalls is how many of those may be under way; further ones are refused.
	// Default 256.
	SlowCalls int
	// Log takes what goes wrong. Default: nothing is logged.
	Log *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Connections <= 0 {
		o.Connections = 32
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Waiting <= 0 {
		o.Waiting = 1024
	}
	if o.FrameTimeout <= 0 {
		o.FrameTimeout = 10 * time.Second
	}
	if o.WriteTimeout <= 0 {
		o.WriteTimeout = 10 * time.Second
	}
	if o.Expensive == nil {
		o.Expensive = func(string) bool { return false }
	}
	if o.Slow == nil {
		o.Slow = func(string) bool { return false }
	}
	if o.SlowCalls <= 0 {
		o.SlowCalls = 256
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Listen listens on an address as config.ParseAddress takes it. A unix socket
// is made for its owner only; one that a process has left behind is replaced.
func Listen(addr string) (net.Listener, error) {
	network, address, err := config.ParseAddress(addr)
	if err != nil {
		return nil, err
	}
	if network == "unix" {
		if err := removeStale(address); err != nil {
			return nil, err
		}
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	if network == "unix" {
		if err := os.Chmod(address, 0o600); err != nil {
			ln.Close()
			return nil, fmt.Errorf("listen on %s: %w", addr, err)
		}
	}
	return ln, nil
}

// removeStale removes a socket on which nobody listens any more.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return nil // nothing there, or net.Listen says what is in the way
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("listen on unix:%s: another process listens there", path)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove socket left behind: %w", err)
	}
	return nil
}

// server is what the connections of one listener share.
type server struct {
	core   wire.Core
	opts   Options
	turns  *fair.Turns[wire.UUID, job] // of what is expensive, by tenants
	breath fair.Breather
	slow   chan struct{} // one entry for each slow call under way
	panics atomic.Uint64

	mu    sync.Mutex
	conns map[*conn]bool
}

// Serve has core execute what arrives on ln until ctx ends. Then it closes ln,
// reads no more frames, and returns when those it has read are answered. It
// returns nil after such an end, and else the error that ended it.
func Serve(ctx context.Context, ln net.Listener, core wire.Core, opts Options) error {
	opts = opts.withDefaults()
	s := &server{
		core: core, opts: opts, slow: make(chan struct{}, opts.SlowCalls), conns: map[*conn]bool{},
		turns: fair.NewTurns[wire.UUID, job](fair.Limits{
			Places: opts.Workers + 1, Each: opts.Workers, Waiting: opts.Waiting, Queue: max(opts.Waiting/2, 1),
		}),
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ln.Close(); s.stopReading() })
	defer stop()

	// What has been read is executed and answered, also after the end.
	var readers sync.WaitGroup
	err := s.accept(ctx, ln, &readers)
	cancel()
	readers.Wait()
	return err
}

// accept starts a reader for each connection, until ctx ends.
func (s *server) accept(ctx context.Context, ln net.Listener, readers *sync.WaitGroup) error {
	for {
		nc, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				nc.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on %s: %w", ln.Addr(), err)
		case err != nil:
			// Out of file descriptors, as a rule: better later than never.
			s.opts.Log.ErrorContext(ctx, "connection not accepted", "err", err)
			wait(ctx, 100*time.Millisecond)
			continue
		}
		c := newConn(nc, s.opts)
		if !s.add(ctx, c) {
			s.opts.Log.WarnContext(ctx, "connection refused", "limit", s.opts.Connections)
			nc.Close()
			continue
		}
		readers.Go(func() {
			err := s.serve(ctx, c)
			c.jobs.Wait()
			err = cmp.Or(c.out.close(), err) // a broken outbox is why reading ended
			s.remove(c)
			if err != nil {
				s.opts.Log.WarnContext(ctx, "connection broken", "err", err)
			}
		})
	}
}

// wait returns after d, or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// add takes a connection in if there is room.
func (s *server) add(ctx context.Context, c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil || len(s.conns) >= s.opts.Connections {
		return false
	}
	s.conns[c] = true // if ctx ends from here on, stopReading finds it
	return true
}

func (s *server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// stopReading wakes all readers, which then see that ctx has ended.
func (s *server) stopReading() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.nc.SetReadDeadline(time.Unix(1, 0))
	}
}
