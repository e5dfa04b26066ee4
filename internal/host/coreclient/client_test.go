package coreclient

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// far is the other end: cores in memory, by hand.
type far struct {
	mu       sync.Mutex
	info     wire.Info
	down     bool // nobody listens
	silent   bool // connections are accepted and never served
	conns    []net.Conn
	resolved []string
	answer   func(c *farConn, f wire.Frame) // nil: echo
}

// farConn is one connection as the core sees it.
type farConn struct {
	net.Conn
	far *far
	r   *bufio.Reader
	mu  sync.Mutex
}

var errDown = errors.New("connection refused")

// dial is what the client connects by.
func (f *far) dial(context.Context) (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, errDown
	}
	ours, theirs := net.Pipe()
	f.conns = append(f.conns, theirs)
	if !f.silent {
		c := &farConn{Conn: theirs, far: f, r: bufio.NewReader(theirs)}
		info := f.info
		go c.serve(info)
	}
	return ours, nil
}

// restart ends all connections, as if the process had ended, and gives those
// that follow another instance.
func (f *far) restart(instance byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.info.Instance[0] = instance
	for _, c := range f.conns {
		c.Close()
	}
	f.conns = nil
}

func (f *far) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (c *farConn) serve(info wire.Info) {
	for {
		f, err := wire.ReadFrame(c.r)
		if err != nil {
			c.Close()
			return
		}
		c.far.mu.Lock()
		answer := c.far.answer
		c.far.mu.Unlock()
		switch {
		case f.Op == wire.OpInfo:
			c.reply(f, info)
		case f.Op == wire.OpProgress:
			if p, err := wire.DecodeProgress(f.Payload); err == nil && p.Looked == 6 {
				c.reply(f, p)
			}
		case f.Op == wire.OpRewrap:
			if w, err := wire.DecodeRewrap(f.Payload); err == nil {
				c.reply(f, &wire.Answer{Kind: wire.Need, NeedVersion: w.Version})
			}
		case f.Op == wire.OpStats:
			c.reply(f, wire.Stats{Keys: 5})
		case answer != nil:
			answer(c, f)
		default:
			c.echo(f)
		}
	}
}

func (c *farConn) reply(f wire.Frame, m appender) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Write(wire.AppendFrame(nil, f.Op, f.Number, m.Append))
}

// echo answers calls with their body, or pending if the action is "Write".
func (c *farConn) echo(f wire.Frame) {
	a := &wire.Answer{Kind: wire.Final, Reply: []byte("done")}
	switch f.Op {
	case wire.OpCall:
		call, _ := wire.DecodeCall(f.Payload)
		a.Reply = bytes.Clone(call.Body)
		if call.Action == "Write" {
			a = &wire.Answer{Kind: wire.Pending, Handle: 1}
		}
	case wire.OpResolve:
		r, _ := wire.DecodeResolve(f.Payload)
		c.far.mu.Lock()
		c.far.resolved = append(c.far.resolved, fmt.Sprint(r.Handle, " ", r.Outcome))
		c.far.mu.Unlock()
	}
	c.reply(f, a)
}

// connected runs test with a client that is connected to f, under a fake clock.
func connected(t *testing.T, o Options, test func(*testing.T, *far, *Client)) {
	synctest.Test(t, func(t *testing.T) {
		f := &far{info: wire.Info{Instance: wire.UUID{1}, Version: "1"}}
		c, err := start(t.Context(), o, f.dial)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		test(t, f, c)
		c.Close()
		f.restart(0)
	})
}

// reconnect gives the client the time to make its connections again.
func reconnect() {
	time.Sleep(2 * lastWait)
	synctest.Wait()
}

func call(body string) *wire.Call { return &wire.Call{Action: "Encrypt", Body: []byte(body)} }

// ask makes a call and expects its echo.
func ask(t *testing.T, c *Client, body string) {
	t.Helper()
	a, err := c.Call(t.Context(), call(body))
	if err != nil || string(a.Reply) != body {
		t.Errorf("call %s: got %+v, %v", body, a, err)
	}
}

func TestOperations(t *testing.T) {
	connected(t, Options{}, func(t *testing.T, f *far, c *Client) {
		ask(t, c, "x")
		if i, err := c.Info(t.Context()); err != nil || i.Version != "1" {
			t.Errorf("info: got %+v, %v", i, err)
		}
		if a, err := c.Sweep(t.Context(), &wire.Sweep{}); err != nil || string(a.Reply) != "done" {
			t.Errorf("sweep: got %+v, %v", a, err)
		}
		if i, ok := c.Connected(); !ok || i.Version != "1" {
			t.Errorf("connected: got %+v, %t", i, ok)
		}
		if err := c.Hear(t.Context(), wire.Progress{Looked: 6}); err != nil {
			t.Errorf("Hear: got %v, want no error", err)
		}
		if a, err := c.Rewrap(t.Context(), &wire.Rewrap{Version: 8}); err != nil || a.NeedVersion != 8 {
			t.Errorf("Rewrap: got %+v, %v, want a need for version 8", a, err)
		}
		if s, err := c.Stats(t.Context()); err != nil || s.Keys != 5 {
			t.Errorf("stats: got %+v, %v", s, err)
		}
		if a, err := c.Checkpoint(t.Context()); err != nil || string(a.Reply) != "done" {
			t.Errorf("checkpoint: got %+v, %v", a, err)
		}
	})
}

// TestOutOfOrder keeps all calls of a connection back and answers them in
// reverse.
func TestOutOfOrder(t *testing.T) {
	connected(t, Options{Connections: 1}, func(t *testing.T, f *far, c *Client) {
		const n = 64
		var held []wire.Frame
		f.set(func() {
			f.answer = func(c *farConn, frame wire.Frame) {
				if held = append(held, frame); len(held) == n {
					for _, frame := range slices.Backward(held) {
						c.echo(frame)
					}
				}
			}
		})
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() { ask(t, c, fmt.Sprint("call ", i)) })
		}
		wg.Wait()
	})
}

// TestConnectionsFillUp has no call answered: the second connection is used once
// the first is crowded, and then the one with fewer calls.
func TestConnectionsFillUp(t *testing.T) {
	for name, row := range map[string]struct{ calls, first, second int }{
		"few":   {crowd, crowd, 0},
		"more":  {crowd + 1, crowd, 1},
		"equal": {2 * crowd, crowd, crowd},
		"many":  {4 * crowd, 2 * crowd, 2 * crowd},
	} {
		connected(t, Options{Connections: 2}, func(t *testing.T, f *far, c *Client) {
			got := map[net.Conn]int{}
			var mu sync.Mutex
			f.set(func() {
				f.answer = func(c *farConn, _ wire.Frame) { mu.Lock(); got[c.Conn]++; mu.Unlock() }
			})
			var wg sync.WaitGroup
			for range row.calls {
				wg.Go(func() { c.Call(t.Context(), call("x")) })
				synctest.Wait()
			}
			if first, second := got[f.conns[0]], got[f.conns[1]]; first != row.first || second != row.second {
				t.Errorf("%s: got %d and %d calls, want %d and %d", name, first, second, row.first, row.second)
			}
			c.Close()
			wg.Wait()
		})
	}
}

func TestLostConnection(t *testing.T) {
	connected(t, Options{}, func(t *testing.T, f *far, c *Client) {
		c.OnRestart(func(wire.Info) { t.Error("the same instance counts as a new one") })
		f.set(func() { f.answer = func(*farConn, wire.Frame) {} })
		lost := make(chan error)
		for range 4 {
			go func() { _, err := c.Call(t.Context(), call("x")); lost <- err }()
		}
		synctest.Wait()
		f.set(func() { f.down, f.answer = true, nil })
		f.restart(1)
		for range 4 {
			if err := <-lost; !errors.Is(err, ErrUnreachable) {
				t.Errorf("a call in flight: got %v", err)
			}
		}
		synctest.Wait()
		if _, err := c.Call(t.Context(), call("x")); !errors.Is(err, ErrUnreachable) {
			t.Errorf("a call without connection: got %v", err)
		}
		if _, err := c.Info(t.Context()); !errors.Is(err, ErrUnreachable) {
			t.Errorf("info without connection: got %v", err)
		}
		time.Sleep(time.Hour)
		f.set(func() { f.down = false })
		reconnect()
		ask(t, c, "y")
	})
}

func TestOneOfTwoConnectionsLost(t *testing.T) {
	connected(t, Options{}, func(t *testing.T, f *far, c *Client) {
		f.set(func() { f.conns[0].Close(); f.down = true })
		synctest.Wait()
		for range 10 {
			ask(t, c, "x")
		}
		f.set(func() { f.down = false })
	})
}

func TestRestart(t *testing.T) {
	connected(t, Options{}, func(t *testing.T, f *far, c *Client) {
		var seen []byte
		c.OnRestart(func(i wire.Info) { seen = append(seen, i.Instance[0]) })
		pend := func() uint64 {
			a, err := c.Call(t.Context(), &wire.Call{Action: "Write"})
			if err != nil || a.Kind != wire.Pending {
				t.Fatalf("got %+v, %v", a, err)
			}
			return a.Handle
		}
		resolve := func(handle uint64, want error) {
			t.Helper()
			if _, err := c.Resolve(t.Context(), wire.Resolve{Handle: handle, Outcome: wire.Stored}); !errors.Is(err, want) || want == nil && err != nil {
				t.Errorf("resolve %d: got %v, want %v", handle, err, want)
			}
		}
		first, second := pend(), pend()
		if first == second {
			t.Errorf("two answers have the handle %d", first)
		}
		resolve(second, nil)
		resolve(second, ErrRefused) // a second time
		resolve(99, ErrRefused)
		f.set(func() { f.down = true })
		f.restart(2)
		synctest.Wait()
		third := first
		resolve(third, ErrUnreachable)
		f.set(func() { f.down = false })
		reconnect()
		if !slices.Equal(seen, []byte{2}) {
			t.Errorf("told of instances %v, want 2 once", seen)
		}
		stale := pend()
		f.restart(3)
		reconnect()
		// The new instance has an answer of its own under the same number.
		fresh := pend()
		resolve(stale, ErrRestarted)
		resolve(fresh, nil)
		if want := []string{"1 1", "1 1"}; !slices.Equal(f.resolved, want) {
			t.Errorf("cores are told %q, want %q", f.resolved, want)
		}
	})
}

func TestRefused(t *testing.T) {
	connected(t, Options{}, func(t *testing.T, f *far, c *Client) {
		f.set(func() {
			f.answer = func(c *farConn, frame wire.Frame) {
				c.Write(wire.AppendFrame(nil, wire.OpRefused, frame.Number, func(b []byte) []byte { return append(b, "no such thing"...) }))
			}
		})
		if _, err := c.Call(t.Context(), call("x")); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "no such thing") {
			t.Errorf("got %v", err)
		}
		f.set(func() { f.answer = nil })
		ask(t, c, "y")
	})
}

func TestNonsenseFromTheCore(t *testing.T) {
	for name, row := range map[string]struct {
		send  func(c *farConn, f wire.Frame)
		want  error // nil: any
		stays bool  // the connection
	}{
		"no frame":        {func(c *farConn, _ wire.Frame) { c.Write(bytes.Repeat([]byte{0}, 20)) }, ErrUnreachable, false},
		"too large":       {func(c *farConn, _ wire.Frame) { c.Write(bytes.Repeat([]byte{0xff}, 20)) }, ErrUnreachable, false},
		"half a frame":    {func(c *farConn, _ wire.Frame) { c.Write([]byte{0, 0, 1, 0, 2}); c.Close() }, ErrUnreachable, false},
		"other number":    {func(c *farConn, f wire.Frame) { f.Number += 77; c.echo(f) }, ErrUnreachable, false},
		"number 0":        {func(c *farConn, f wire.Frame) { f.Number = 0; c.echo(f) }, ErrUnreachable, false},
		"other operation": {func(c *farConn, f wire.Frame) { f.Op = wire.OpSweep; c.echo(f) }, wire.ErrFrame, true},
		"no answer in it": {func(c *farConn, f wire.Frame) { c.reply(f, wire.Info{}) }, nil, true},
	} {
		connected(t, Options{Connections: 1}, func(t *testing.T, f *far, c *Client) {
			f.set(func() { f.answer = row.send })
			if _, err := c.Call(t.Context(), call("x")); err == nil || row.want != nil && !errors.Is(err, row.want) {
				t.Errorf("%s: got %v, want %v", name, err, row.want)
			}
			f.set(func() { f.answer = nil })
			if !row.stays {
				reconnect()
			}
			ask(t, c, "y")
			synctest.Wait()
			if n := len(f.conns); row.stays != (n == 1) {
				t.Errorf("%s: there were %d connections", name, n)
			}
		})
	}
}

func TestAnswerTwice(t *testing.T) {
	connected(t, Options{Connections: 1}, func(t *testing.T, f *far, c *Client) {
		f.set(func() { f.answer = func(c *farConn, frame wire.Frame) { c.echo(frame); c.echo(frame) } })
		ask(t, c, "x")
		f.set(func() { f.answer = nil })
		reconnect()
		ask(t, c, "y")
	})
}

func TestCallerGivesUp(t *testing.T) {
	for action, want := range map[string][]string{"Encrypt": nil, "Write": {"1 4"}} {
		connected(t, Options{Connections: 1}, func(t *testing.T, f *far, c *Client) {
			gate := make(chan struct{})
			f.set(func() { f.answer = func(c *farConn, frame wire.Frame) { <-gate; c.echo(frame) } })
			ctx, cancel := context.WithCancel(t.Context())
			go func() { synctest.Wait(); cancel() }()
			if _, err := c.Call(ctx, &wire.Call{Action: action}); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: got %v", action, err)
			}
			close(gate)
			ask(t, c, "next")
			synctest.Wait()
			if !slices.Equal(f.resolved, want) {
				t.Errorf("%s: the core is told %q about the answer nobody waits for, want %q", action, f.resolved, want)
			}
		})
	}
}

func TestCoreThatDoesNotAnswer(t *testing.T) {
	connected(t, Options{Connections: 1, CallTimeout: 30 * time.Second}, func(t *testing.T, f *far, c *Client) {
		f.set(func() { f.answer = func(*farConn, wire.Frame) {} })
		began := time.Now()
		_, err := c.Call(t.Context(), call("x"))
		if d := time.Since(began); !errors.Is(err, ErrUnreachable) || d < 30*time.Second || d > 33*time.Second {
			t.Errorf("got %v after %s", err, d)
		}
		f.set(func() { f.answer = nil })
		reconnect()
		ask(t, c, "y")
		time.Sleep(time.Hour) // an idle connection is a good one
		ask(t, c, "z")
		synctest.Wait()
		if n := len(f.conns); n != 2 {
			t.Errorf("there were %d connections, want 2", n)
		}
	})
}

func TestCoreThatDoesNotRead(t *testing.T) {
	connected(t, Options{Connections: 1}, func(t *testing.T, f *far, c *Client) {
		block := make(chan struct{})
		f.set(func() { f.answer = func(*farConn, wire.Frame) { <-block } })
		began := time.Now()
		var wg sync.WaitGroup
		for range 20 { // more than the queue takes
			wg.Go(func() {
				if _, err := c.Call(t.Context(), call(strings.Repeat("x", 1<<20))); !errors.Is(err, ErrUnreachable) {
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		if d := time.Since(began); d > 2*writeTimeout {
			t.Errorf("callers wait for %s", d)
		}
		close(block)
	})
}

func TestMessageOverTheLimit(t *testing.T) {
	connected(t, Options{Connections: 1}, func(t *testing.T, f *far, c *Client) {
		if _, err := c.Call(t.Context(), call(strings.Repeat("x", wire.MaxFrame))); err == nil || errors.Is(err, ErrUnreachable) {
			t.Errorf("got %v", err)
		}
		ask(t, c, "x")
	})
}

func TestClose(t *testing.T) {
	connected(t, Options{}, func(t *testing.T, f *far, c *Client) {
		f.set(func() { f.answer = func(*farConn, wire.Frame) {} })
		lost := make(chan error)
		go func() { _, err := c.Call(t.Context(), call("x")); lost <- err }()
		synctest.Wait()
		c.Close()
		if err := <-lost; !errors.Is(err, ErrUnreachable) {
			t.Errorf("got %v", err)
		}
		if _, err := c.Call(t.Context(), call("x")); !errors.Is(err, ErrUnreachable) {
			t.Errorf("after Close: got %v", err)
		}
	})
}

func TestDialFails(t *testing.T) {
	for name, row := range map[string]struct {
		far  *far
		want error
		took time.Duration
	}{
		"nobody listens":       {&far{down: true}, errDown, 0},
		"nobody answers":       {&far{silent: true}, ErrUnreachable, handshakeTimeout},
		"context has an end":   {&far{silent: true}, ErrUnreachable, time.Second},
		"another protocol":     {&far{silent: true}, wire.ErrFrame, 0},
		"it hangs up":          {&far{silent: true}, ErrUnreachable, 0},
		"greeting of nonsense": {&far{silent: true}, ErrUnreachable, 0},
		"answer to what else":  {&far{silent: true}, wire.ErrFrame, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			began := time.Now()
			dial := func(ctx context.Context) (net.Conn, error) {
				nc, err := row.far.dial(ctx)
				if err != nil {
					return nil, err
				}
				theirs := row.far.conns[0]
				go func() {
					f, _ := wire.ReadFrame(bufio.NewReader(theirs))
					c := &farConn{Conn: theirs}
					switch name {
					case "context has an end":
						time.Sleep(time.Second)
						cancel()
					case "another protocol":
						theirs.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
					case "it hangs up":
						theirs.Close()
					case "greeting of nonsense":
						c.reply(f, call("x"))
					case "answer to what else":
						f.Op = wire.OpCheckpoint
						c.reply(f, empty{})
					}
				}()
				return nc, nil
			}
			c, err := start(ctx, Options{}, dial)
			if err == nil {
				c.Close()
			}
			if d := time.Since(began); !errors.Is(err, row.want) || !errors.Is(err, ErrUnreachable) || d != row.took {
				t.Errorf("%s: got %v after %s, want %v after %s", name, err, d, row.want, row.took)
			}
		})
	}
	for _, addr := range []string{"", "tcp:10.0.0.1:1", "unix:relative"} {
		if _, err := Dial(t.Context(), addr, Options{}); err == nil || errors.Is(err, ErrUnreachable) {
			t.Errorf("address %q: got %v", addr, err)
		}
	}
	if _, err := Dial(t.Context(), "unix:"+t.TempDir()+"/none.sock", Options{}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("no socket: got %v", err)
	}
}
