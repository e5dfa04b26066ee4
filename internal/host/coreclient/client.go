// Package coreclient is the manager's end of the stream to a core in a process
// of its own. Calls are pipelined on a few connections, which are made again
// when they break.
package coreclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// Errors of a Client. They are wrapped.
var (
	// ErrUnreachable says that there is no connection, or that it was lost
	// before the answer came: the core may have executed the call or not.
	ErrUnreachable = errors.New("core is unreachable")
	// ErrRefused says that the core did not execute the message.
	ErrRefused = errors.New("core refused the message")
	// ErrRestarted says that the core instance which gave an answer has gone
	// before the answer was resolved, and the answer with it.
	ErrRestarted = errors.New("core has been restarted")
)

// Options adjust a Client. The zero value is usable.
type Options struct {
	// Connections to the core. The core executes cheap calls of one connection
	// one after the other, and all that come together cost one system call, so a
	// further connection is used only while the ones before it are crowded.
	// Default 2.
	Connections int
	// CallTimeout is how long a call may stay without an answer before its
	// connection counts as dead, in whole seconds. Default 60 s.
	CallTimeout time.Duration
	// Log takes connects and disconnects. Default: nothing is logged.
	Log *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Connections <= 0 {
		o.Connections = 2
	}
	if o.CallTimeout <= 0 {
		o.CallTimeout = time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// A Client is a wire.Core at the other end of a stream. It is safe for
// concurrent use.
//
// A call whose context ends returns at once, but the core executes it all the
// same, and its answer is lost together with the audit entries in it. Callers
// that must not lose them pass a context that does not end; a core that does
// not answer ends the call after CallTimeout.
type Client struct {
	dial    func(context.Context) (net.Conn, error)
	opts    Options
	stop    context.CancelFunc
	keepers sync.WaitGroup
	slots   []atomic.Pointer[session] // nil: not connected
	seconds atomic.Int64              // since the start, roughly
	waiters sync.Pool                 // of *waiter

	mu       sync.Mutex
	instance wire.UUID // of the newest connection
	changed  func(wire.Info)
	pending  map[uint64]pending
	handles  uint64
}

// pending names an answer at the core. Handles are unique in one instance only,
// so callers are given others, unique in the client.
type pending struct {
	instance wire.UUID
	handle   uint64
}

// Dial connects to the core at an address as config.ParseAddress takes it. It
// tries once; from then on lost connections are made again until Close.
func Dial(ctx context.Context, addr string, opts Options) (*Client, error) {
	network, address, err := config.ParseAddress(addr)
	if err != nil {
		return nil, err
	}
	return start(ctx, opts, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	})
}

// start connects by dial.
func start(ctx context.Context, opts Options, dial func(context.Context) (net.Conn, error)) (*Client, error) {
	opts = opts.withDefaults()
	c := &Client{
		dial: dial, opts: opts,
		slots: make([]atomic.Pointer[session], opts.Connections), pending: map[uint64]pending{},
	}
	first, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	ctx, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	c.slots[0].Store(first)
	c.keepers.Go(func() { c.keep(ctx, 0, first) })
	for i := 1; i < len(c.slots); i++ {
		c.keepers.Go(func() { c.keep(ctx, i, nil) })
	}
	c.keepers.Go(func() { c.watch(ctx) })
	return c, nil
}

// Close ends all connections. Open calls fail with ErrUnreachable.
func (c *Client) Close() error {
	c.stop()
	c.keepers.Wait()
	return nil
}

// OnRestart has f called whenever another core instance has taken over, before
// the first call reaches it. f must not call the client.
func (c *Client) OnRestart(f func(wire.Info)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changed = f
}

// Limits of the waits between attempts to connect.
const (
	firstWait = 10 * time.Millisecond
	lastWait  = time.Second
)

// keep holds a connection in slot i until ctx ends. It begins with s, if there
// is one.
func (c *Client) keep(ctx context.Context, i int, s *session) {
	wait := firstWait
	for {
		var err error
		if s == nil {
			s, err = c.connect(ctx)
		}
		if s != nil {
			c.slots[i].Store(s)
			wait = firstWait
			err = s.run(ctx)
			c.slots[i].Store(nil)
			s = nil
		}
		if ctx.Err() != nil {
			return
		}
		c.opts.Log.WarnContext(ctx, "no connection to the core", "connection", i, "err", err)
		// Not all at once, after the core has been away.
		pause(ctx, wait/2+rand.N(wait))
		wait = min(2*wait, lastWait)
	}
}

// pause returns after d, or when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// watch counts the seconds, and breaks connections whose answers do not come.
// One clock for all calls is cheaper than a timer for each.
func (c *Client) watch(ctx context.Context) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		oldest := c.seconds.Add(1) - int64(c.opts.CallTimeout/time.Second) - 1
		for i := range c.slots {
			if s := c.slots[i].Load(); s != nil && s.hasOlder(oldest) {
				s.fail(fmt.Errorf("no answer within %s", c.opts.CallTimeout))
			}
		}
	}
}

// adopt takes note of the instance at the other end of a new connection.
func (c *Client) adopt(info wire.Info) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if info.Instance == c.instance {
		return
	}
	known := c.instance != wire.UUID{}
	c.instance = info.Instance
	c.opts.Log.Info("connected to core", "instance", info.Instance, "platform", info.Platform, "version", info.Version)
	if known && c.changed != nil {
		c.changed(info)
	}
}

// Connected describes the core at the other end of a connection; false: there is
// none now.
func (c *Client) Connected() (wire.Info, bool) {
	if s := c.pick(nil); s != nil {
		return s.info, true
	}
	return wire.Info{}, false
}

// crowd is how many calls may be open on a connection before others go to the
// next one.
const crowd = 16

// pick returns a connection that works, and nil if there is none. If instance
// is not nil, it must be one to that instance. It is the first that is not
// crowded, or the one with the fewest calls.
func (c *Client) pick(instance *wire.UUID) (best *session) {
	fewest := int64(math.MaxInt64)
	for i := range c.slots {
		s := c.slots[i].Load()
		if s == nil || s.dead.Load() || instance != nil && s.info.Instance != *instance {
			continue
		}
		n := s.calls.Load()
		if n < crowd {
			return s
		}
		if n < fewest {
			best, fewest = s, n
		}
	}
	return best
}
