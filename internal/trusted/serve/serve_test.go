package serve

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// fakeCore answers with what it was asked.
type fakeCore struct {
	gate chan struct{} // calls of action "Wait" and sweeps wait for it
	size int           // of the replies to action "Big"
}

func (c *fakeCore) reply(format string, args ...any) *wire.Answer {
	return &wire.Answer{Kind: wire.Final, Code: 200, Reply: fmt.Appendf(nil, format, args...)}
}

func (c *fakeCore) Info(context.Context) (wire.Info, error) { return wire.Info{Version: "7"}, nil }

func (c *fakeCore) Call(ctx context.Context, call *wire.Call) (*wire.Answer, error) {
	switch call.Action {
	case "Wait":
		<-c.gate
	case "Big":
		return &wire.Answer{Kind: wire.Final, Reply: make([]byte, c.size)}, nil
	case "Panic":
		panic("the key is 42")
	case "Crash":
		var none []byte
		_ = none[len(call.Body)]
	case "Fail":
		return nil, errors.New("not today")
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return c.reply("%s %s", call.Action, call.Body), nil
}

func (c *fakeCore) Resolve(_ context.Context, r wire.Resolve) (*wire.Answer, error) {
	return c.reply("resolve %d %d", r.Handle, r.Outcome), nil
}

func (c *fakeCore) Sweep(_ context.Context, s *wire.Sweep) (*wire.Answer, error) {
	<-c.gate
	return c.reply("sweep %d", len(s.Keys)), nil
}

func (c *fakeCore) Rewrap(_ context.Context, w *wire.Rewrap) (*wire.Answer, error) {
	<-c.gate
	return c.reply("rewrap %d", len(w.Records)), nil
}

func (c *fakeCore) Hear(_ context.Context, p wire.Progress) error {
	if p.Floor == 13 {
		return errors.New("not 13")
	}
	return nil
}

func (c *fakeCore) Checkpoint(context.Context) (*wire.Answer, error) {
	return c.reply("checkpoint"), nil
}

func (c *fakeCore) Stats(context.Context) (wire.Stats, error) {
	return wire.Stats{Answered: 77}, nil
}

// pipes is a listener whose connections are in memory, so that they work in a
// bubble of package synctest.
type pipes struct {
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once
	writes atomic.Int64 // by the server
}

func newPipes() *pipes { return &pipes{accept: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accept:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "memory"} }

// countingConn counts the writes of the server.
type countingConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c countingConn) Write(b []byte) (int, error) { c.writes.Add(1); return c.Conn.Write(b) }

func (p *pipes) dial() *peer {
	ours, theirs := net.Pipe()
	p.accept <- countingConn{theirs, &p.writes}
	return &peer{Conn: ours, r: bufio.NewReader(ours)}
}

// peer is the manager's end, by hand.
type peer struct {
	net.Conn
	r *bufio.Reader
	n uint64
}

func (p *peer) frame(op wire.Op, m appender) []byte {
	p.n++
	return wire.AppendFrame(nil, op, p.n, func(dst []byte) []byte {
		if m == nil {
			return dst
		}
		return m.Append(dst)
	})
}

func (p *peer) send(op wire.Op, m appender) uint64 {
	p.Write(p.frame(op, m))
	return p.n
}

// receive reads a frame and describes it.
func (p *peer) receive() string {
	f, err := wire.ReadFrame(p.r)
	if err != nil {
		return err.Error()
	}
	switch f.Op {
	case wire.OpRefused:
		return fmt.Sprintf("%d refused: %s", f.Number, f.Payload)
	case wire.OpInfo:
		i, err := wire.DecodeInfo(f.Payload)
		return fmt.Sprintf("%d info %s %v", f.Number, i.Version, err)
	}
	if f.Op == wire.OpProgress {
		p, err := wire.DecodeProgress(f.Payload)
		return fmt.Sprintf("%d progress %d %v", f.Number, p.Floor, err)
	}
	if f.Op == wire.OpStats {
		s, err := wire.DecodeStats(f.Payload)
		return fmt.Sprintf("%d stats %d %v", f.Number, s.Answered, err)
	}
	a, err := wire.DecodeAnswer(f.Payload)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d op %d: %s", f.Number, f.Op, a.Reply)
}

func call(action, body string) *wire.Call { return &wire.Call{Action: action, Body: []byte(body)} }

// bubble runs f beside a server in memory with a fake clock.
func bubble(t *testing.T, core *fakeCore, o Options, f func(*pipes)) {
	synctest.Test(t, func(t *testing.T) {
		if core.gate == nil {
			core.gate = make(chan struct{}) // of this bubble
		}
		ln := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- Serve(ctx, ln, core, o) }()
		f(ln)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestOperations(t *testing.T) {
	gate := make(chan struct{})
	close(gate)
	bubble(t, &fakeCore{gate: gate}, Options{}, func(ln *pipes) {
		p := ln.dial()
		defer p.Close()
		for _, row := range []struct {
			name string
			op   wire.Op
			m    appender
			want string
		}{
			{"info", wire.OpInfo, nil, "1 info 7 <nil>"},
			{"call", wire.OpCall, call("Encrypt", "x"), "2 op 2: Encrypt x"},
			{"resolve", wire.OpResolve, wire.Resolve{Handle: 5, Outcome: wire.Replayed}, "3 op 3: resolve 5 3"},
			{"sweep", wire.OpSweep, &wire.Sweep{Keys: make([]wire.Ref, 2)}, "4 op 4: sweep 2"},
			{"checkpoint", wire.OpCheckpoint, nil, "5 op 5: checkpoint"},
			{"listing", wire.OpCall, &wire.Call{Action: "ListKey", Listed: true}, "6 op 2: ListKey "},
			{"refused by the core", wire.OpCall, call("Fail", ""), "7 refused: not today"},
			{"call with rubbish", wire.OpCall, refusal("rubbish"), "8 refused: decode call: malformed encoding: message format 114 is unknown"},
			{"empty call", wire.OpCall, nil, "9 refused: decode call: malformed encoding: got 0 bytes, want 1"},
			{"empty resolve", wire.OpResolve, nil, "10 refused: decode resolve: malformed encoding: got 0 bytes, want 1"},
			{"empty sweep", wire.OpSweep, nil, "11 refused: decode sweep: malformed encoding: got 0 bytes, want 1"},
			{"info with payload", wire.OpInfo, refusal("x"), "12 refused: operation 1 has a payload of 1 bytes"},
			{"checkpoint with payload", wire.OpCheckpoint, refusal("xx"), "13 refused: operation 5 has a payload of 2 bytes"},
			{"no request", wire.OpRefused, nil, "14 refused: operation 10 is no request"},
			{"and it still works", wire.OpInfo, nil, "15 info 7 <nil>"},
			{"stats", wire.OpStats, nil, "16 stats 77 <nil>"},
			{"stats with payload", wire.OpStats, refusal("x"), "17 refused: operation 6 has a payload of 1 bytes"},
			{"progress", wire.OpProgress, wire.Progress{Floor: 2}, "18 progress 2 <nil>"},
			{"progress that fails", wire.OpProgress, wire.Progress{Floor: 13}, "19 refused: not 13"},
			{"empty progress", wire.OpProgress, nil, "20 refused: decode progress: malformed encoding: got 0 bytes, want 1"},
			{"rewrap", wire.OpRewrap, &wire.Rewrap{Records: make([]wire.Ref, 3)}, "21 op 7: rewrap 3"},
			{"TLS key", wire.OpTLS, wire.TLSKey{7}, "22 refused: operation 11 has a payload of 33 bytes"}, // of a core that does not vouch
			{"empty rewrap", wire.OpRewrap, nil, "23 refused: decode rewrap: malformed encoding: got 0 bytes, want 1"},
		} {
			p.send(row.op, row.m)
			want(t, row.name, p.receive(), row.want)
		}
	})
}

func TestOutOfOrder(t *testing.T) {
	for name, row := range map[string]struct {
		op wire.Op
		m  appender
	}{
		"expensive action": {wire.OpCall, call("Wait", "")},
		"slow action":      {wire.OpCall, call("Wait", "")},
		"sweep":            {wire.OpSweep, &wire.Sweep{}},
		"rewrap":           {wire.OpRewrap, &wire.Rewrap{}},
		"listing":          {wire.OpCall, &wire.Call{Action: "Wait", Listed: true}},
	} {
		core := &fakeCore{}
		expensive := func(action string) bool { return name == "expensive action" && action == "Wait" }
		slow := func(action string) bool { return name == "slow action" && action == "Wait" }
		bubble(t, core, Options{Expensive: expensive, Workers: 1, Waiting: 1, Slow: slow, SlowCalls: 2}, func(ln *pipes) {
			p := ln.dial()
			defer p.Close()
			p.send(row.op, row.m)
			synctest.Wait() // a worker has it
			p.send(row.op, row.m)
			p.send(row.op, row.m)
			want(t, name, p.receive(), "3 refused: too many calls are waiting")
			p.send(wire.OpInfo, nil)
			want(t, name, p.receive(), "4 info 7 <nil>")
			close(core.gate)
			got := []string{p.receive(), p.receive()}
			slices.Sort(got) // slow calls end in any order
			for i := range got {
				if !strings.HasPrefix(got[i], fmt.Sprintf("%d op %d", i+1, row.op)) {
					t.Errorf("%s: got %q", name, got[i])
				}
			}
		})
	}
}

// TestTurns has one tenant take all that it may, and another get in beside it. Each
// wait in a queue of their own.
func TestTurns(t *testing.T) {
	core := &fakeCore{}
	of := func(tenant byte, action string) *wire.Call {
		return &wire.Call{Action: action, Records: []wire.Ref{{ID: wire.RecordID{Type: wire.App, Tenant: wire.UUID{tenant}}}}}
	}
	bubble(t, core, Options{Expensive: func(string) bool { return true }, Workers: 2, Waiting: 4}, func(ln *pipes) {
		p := ln.dial()
		defer p.Close()
		for range 5 { // two are executed, two wait
			p.send(wire.OpCall, of(1, "Wait"))
		}
		want(t, "the noisy tenant's fifth call", p.receive(), "5 refused: too many calls are waiting")
		p.send(wire.OpCall, of(2, "Echo"))
		if got := p.receive(); !strings.HasPrefix(got, "6 op 2") {
			t.Errorf("the quiet tenant's call: got %q", got)
		}
		close(core.gate)
		for range 4 {
			if got := p.receive(); strings.Contains(got, "refused") {
				t.Errorf("a call of the noisy tenant: got %q", got)
			}
		}
	})
}

// TestSlowKeepsNoWorker has as many slow calls as may be, more than there are
// workers, and an expensive one.
func TestSlowKeepsNoWorker(t *testing.T) {
	core := &fakeCore{}
	is := func(name string) func(string) bool { return func(action string) bool { return action == name } }
	bubble(t, core, Options{Expensive: is("Echo"), Slow: is("Wait"), Workers: 1, Waiting: 1, SlowCalls: 3}, func(ln *pipes) {
		p := ln.dial()
		defer p.Close()
		for range 3 {
			p.send(wire.OpCall, call("Wait", ""))
		}
		synctest.Wait()
		p.send(wire.OpCall, call("Echo", "a"))
		if got := p.receive(); !strings.HasPrefix(got, "4 op 2") {
			t.Errorf("got %q, want the answer to the expensive call", got)
		}
		close(core.gate)
		for range 3 {
			if got := p.receive(); strings.Contains(got, "refused") {
				t.Errorf("slow call: got %q", got)
			}
		}
		synctest.Wait()
		p.send(wire.OpCall, call("Wait", "")) // its place is free again
		if got := p.receive(); strings.Contains(got, "refused") {
			t.Errorf("slow call after others: got %q", got)
		}
	})
}

func TestBadFrameClosesOnlyItsConnection(t *testing.T) {
	bubble(t, &fakeCore{}, Options{}, func(ln *pipes) {
		good := ln.dial()
		defer good.Close()
		for name, b := range map[string]string{
			"operation 0":       "\x00\x00\x00\x09\x00\x00\x00\x00\x00\x00\x00\x00\x00",
			"unknown operation": "\x00\x00\x00\x09\x63\x00\x00\x00\x00\x00\x00\x00\x00",
			"length below head": "\x00\x00\x00\x08\x01\x00\x00\x00\x00\x00\x00\x00\x00",
			"that and no more":  "\x00\x00\x00\x08\x01\x00\x00\x00\x00\x00\x00\x00",
			"length 0":          "\x00\x00\x00\x00",
			"over the limit":    "\xff\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00",
			"other protocol":    "GET / HTTP/1.1\r\n\r\n",
		} {
			p := ln.dial()
			go io.WriteString(p, b)
			want(t, name, p.receive(), "EOF")
			good.send(wire.OpInfo, nil)
			if got := good.receive(); !strings.Contains(got, "info") {
				t.Errorf("after %s another connection gets %q", name, got)
			}
		}
	})
}

// TestHalfFrame has peers stop in the middle of a frame: they are cut off in
// time, and answers to what came before do not wait for the rest.
func TestHalfFrame(t *testing.T) {
	bubble(t, &fakeCore{}, Options{FrameTimeout: 3 * time.Second}, func(ln *pipes) {
		model := &peer{}
		whole := model.frame(wire.OpInfo, nil)
		next := model.frame(wire.OpCall, call("Encrypt", "text"))
		for n := 1; n < len(next); n++ {
			p := ln.dial()
			start := time.Now()
			p.Write(append(bytes.Clone(whole), next[:n]...))
			want(t, "what came before", p.receive(), "1 info 7 <nil>")
			if d := time.Since(start); d != 0 {
				t.Errorf("an answer waits %s for half a frame of %d bytes", d, n)
			}
			want(t, "after half a frame", p.receive(), "EOF")
			if d := time.Since(start); d != 3*time.Second {
				t.Errorf("half a frame of %d bytes holds a connection for %s", n, d)
			}
		}
	})
}

func TestSlowFrameAndIdleConnection(t *testing.T) {
	bubble(t, &fakeCore{}, Options{FrameTimeout: 3 * time.Second}, func(ln *pipes) {
		p := ln.dial()
		defer p.Close()
		for range 3 {
			b := p.frame(wire.OpInfo, nil)
			p.Write(b[:5])
			time.Sleep(2 * time.Second)
			p.Write(b[5:])
			if got := p.receive(); !strings.Contains(got, "info 7") {
				t.Errorf("slow frame: got %q", got)
			}
			time.Sleep(24 * time.Hour) // nothing to do is no fault
		}
	})
}

// TestDrippingFrame sends a byte now and then: the limit is for the frame, not
// for each read.
func TestDrippingFrame(t *testing.T) {
	bubble(t, &fakeCore{}, Options{FrameTimeout: 3 * time.Second}, func(ln *pipes) {
		p := ln.dial()
		start := time.Now()
		var dripping sync.WaitGroup
		defer dripping.Wait()
		dripping.Go(func() {
			for _, b := range p.frame(wire.OpCall, call("Encrypt", "text")) {
				if _, err := p.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		})
		want(t, "dripping frame", p.receive(), "EOF")
		if d := time.Since(start); d != 3*time.Second {
			t.Errorf("a dripping frame holds a connection for %s", d)
		}
	})
}

func TestPeerThatDoesNotRead(t *testing.T) {
	var log bytes.Buffer
	o := Options{WriteTimeout: 2 * time.Second, Log: slog.New(slog.NewTextHandler(&log, nil))}
	bubble(t, &fakeCore{size: 1 << 20}, o, func(ln *pipes) {
		p := ln.dial()
		start := time.Now()
		for i := 0; ; i++ {
			if _, err := p.Write(p.frame(wire.OpCall, call("Big", ""))); err != nil {
				break
			}
			if i > 100 {
				t.Error("a peer may leave 100 MiB of answers unread")
				break
			}
		}
		if d := time.Since(start); d != 2*time.Second {
			t.Errorf("it is cut off after %s", d)
		}
	})
	if !strings.Contains(log.String(), "write answers") {
		t.Errorf("got log %q", &log)
	}
}

func TestAnswerOverTheLimit(t *testing.T) {
	bubble(t, &fakeCore{size: wire.MaxFrame}, Options{}, func(ln *pipes) {
		p := ln.dial()
		defer p.Close()
		p.send(wire.OpCall, call("Big", ""))
		want(t, "too big an answer", p.receive(), "1 refused: answer is over the limit of a frame")
	})
}

func TestWritesAreCoalesced(t *testing.T) {
	bubble(t, &fakeCore{}, Options{}, func(ln *pipes) {
		p := ln.dial()
		defer p.Close()
		var all []byte
		for range 200 {
			all = append(all, p.frame(wire.OpCall, call("Encrypt", "x"))...)
		}
		go p.Write(all)
		for i := range 200 {
			want(t, "call", p.receive(), fmt.Sprintf("%d op 2: Encrypt x", i+1))
		}
		if n := ln.writes.Load(); n > 4 {
			t.Errorf("200 answers took %d writes", n)
		}
	})
}

func TestPanic(t *testing.T) {
	var log bytes.Buffer
	o := Options{Log: slog.New(slog.NewTextHandler(&log, nil)), Expensive: func(a string) bool { return a == "Crash" }}
	bubble(t, &fakeCore{}, o, func(ln *pipes) {
		p := ln.dial()
		defer p.Close()
		for i := range 3 {
			p.send(wire.OpCall, call("Panic", ""))
			want(t, "inline", p.receive(), fmt.Sprintf("%d refused: internal error of the core", 2*i+1))
			p.send(wire.OpCall, call("Crash", ""))
			want(t, "at a worker", p.receive(), fmt.Sprintf("%d refused: internal error of the core", 2*i+2))
		}
		p.send(wire.OpInfo, nil)
		want(t, "after panics", p.receive(), "7 info 7 <nil>")
	})
	if text := log.String(); strings.Contains(text, "42") || !strings.Contains(text, "panics=6") || !strings.Contains(text, "fakeCore") {
		t.Errorf("got log %s", text)
	}
}

func TestTooManyConnections(t *testing.T) {
	bubble(t, &fakeCore{}, Options{Connections: 2}, func(ln *pipes) {
		a, b, c := ln.dial(), ln.dial(), ln.dial()
		defer b.Close()
		want(t, "third connection", c.receive(), "EOF")
		b.send(wire.OpInfo, nil)
		want(t, "second connection", b.receive(), "1 info 7 <nil>")
		a.Close()
		synctest.Wait()
		d := ln.dial()
		defer d.Close()
		d.send(wire.OpInfo, nil)
		want(t, "after one has left", d.receive(), "1 info 7 <nil>")
	})
}

func TestEndAnswersWhatWasRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core := &fakeCore{gate: make(chan struct{})}
		ln := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- Serve(ctx, ln, core, Options{Expensive: func(string) bool { return true }}) }()
		idle, half, busy := ln.dial(), ln.dial(), ln.dial()
		half.Write([]byte{0, 0})
		busy.send(wire.OpCall, call("Wait", "x"))
		synctest.Wait()
		start := time.Now()
		cancel()
		want(t, "idle connection", idle.receive(), "EOF")
		want(t, "half a frame", half.receive(), "EOF")
		synctest.Wait()
		select {
		case err := <-done:
			t.Errorf("Serve returns %v before the last answer", err)
		default:
		}
		close(core.gate)
		want(t, "call in progress", busy.receive(), "1 op 2: Wait x")
		want(t, "the end", busy.receive(), "EOF")
		if err := <-done; err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("the end takes %s", d)
		}
	})
}

func TestListenerFails(t *testing.T) {
	ln := newPipes()
	ln.Close()
	if err := Serve(t.Context(), ln, &fakeCore{}, Options{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestListen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "core.sock")
	ln, err := Listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket has mode %v, %v", info.Mode(), err)
	}
	if _, err := Listen("unix:" + path); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("second listener: got %v", err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
	if ln, err = Listen("unix:" + path); err != nil {
		t.Errorf("socket left behind: %v", err)
	} else {
		ln.Close()
	}
	plain := filepath.Join(dir, "file")
	os.WriteFile(plain, []byte("precious"), 0o600)
	for name, addr := range map[string]string{
		"all interfaces": "tcp:0.0.0.0:0", "a file is there": "unix:" + plain, "no directory": "unix:" + dir + "/x/core.sock",
		"no address": "", "taken port": "",
	} {
		if name == "taken port" {
			other, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			addr = "tcp:" + other.Addr().String()
		}
		if ln, err := Listen(addr); err == nil {
			ln.Close()
			t.Errorf("%s: no error", name)
		}
	}
	if b, err := os.ReadFile(plain); string(b) != "precious" {
		t.Errorf("the file in the way is gone: %v", err)
	}
	tcp, err := Listen("tcp:127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp.Close()
}

// FuzzStream has the server read anything: it must answer or close, and come to
// an end.
func FuzzStream(f *testing.F) {
	model := &peer{}
	var good []byte
	for _, m := range []struct {
		op wire.Op
		m  appender
	}{{wire.OpInfo, nil}, {wire.OpCall, call("Panic", "x")}, {wire.OpResolve, wire.Resolve{Handle: 1, Outcome: 1}}, {wire.OpCheckpoint, nil}} {
		good = append(good, model.frame(m.op, m.m)...)
	}
	f.Add(good)
	f.Add(append(bytes.Clone(good), 0xff, 0xff, 0xff, 0xff, 2))
	f.Fuzz(func(t *testing.T, b []byte) {
		gate := make(chan struct{})
		close(gate)
		ln := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- Serve(ctx, ln, &fakeCore{gate: gate}, Options{}) }()
		p := ln.dial()
		go func() { p.Write(b); p.Close() }()
		for {
			frame, err := wire.ReadFrame(p.r)
			if err != nil {
				break
			}
			if frame.Op == wire.OpCall {
				if _, err := wire.DecodeAnswer(frame.Payload); err != nil {
					t.Error(err)
				}
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
