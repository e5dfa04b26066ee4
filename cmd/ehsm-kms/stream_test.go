package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"sync"
	"syscall"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/host/coreclient"
	"github.com/ehsm-kms/ehsm/internal/trusted/serve"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// echoCore is a core that answers with what it was asked. It stands at the far
// end of the stream of this program, or is called in-process.
type echoCore struct {
	info wire.Info
	gate chan struct{} // sweeps wait for it, if it is not nil
}

var errFail = errors.New("not today")

func (c *echoCore) Info(context.Context) (wire.Info, error) { return c.info, nil }

func (c *echoCore) Facts(context.Context, *wire.Facts) (wire.FactsState, error) {
	return wire.FactsState{}, nil
}

func (c *echoCore) Call(_ context.Context, call *wire.Call) (*wire.Answer, error) {
	a := &wire.Answer{
		Kind: wire.Final, Code: 200, Reply: bytes.Clone(call.Body), Sign: call.Action + call.RequestID,
		Audit: wire.Audit{First: 1, Count: 1, Frames: make([]byte, 150)},
	}
	switch call.Action {
	case "Fail":
		return nil, errFail
	case "Write":
		a.Kind, a.Handle = wire.Pending, 41
		for _, f := range call.Records {
			a.Writes = append(a.Writes, wire.Write{ID: f.ID, Expected: f.Revision, Revision: f.Revision + 1, Sealed: f.Sealed})
		}
		a.Replay = &wire.Replay{Tenant: wire.UUID{1}, Tag: wire.Tag{2}, Until: 3}
	case "Need":
		a.Kind, a.NeedList = wire.Need, &wire.Query{Type: wire.Key, Tenant: wire.UUID{1}, Limit: 9}
		for _, f := range call.Records {
			a.NeedRecords = append(a.NeedRecords, f.ID)
		}
	case "GetVersion":
		a.Audit = wire.Audit{} // a real sink would refuse the bytes above
		a.Reply = []byte(`{"code":200,"message":"success!","result":{"version":"echo","git_sha":""}}`)
	}
	return a, nil
}

func (c *echoCore) Resolve(_ context.Context, r wire.Resolve) (*wire.Answer, error) {
	return &wire.Answer{Kind: wire.Final, Code: int(r.Outcome), Reply: []byte("resolved")}, nil
}

func (c *echoCore) Sweep(_ context.Context, s *wire.Sweep) (*wire.Answer, error) {
	if c.gate != nil {
		<-c.gate
	}
	return &wire.Answer{Kind: wire.Final, Reply: fmt.Append(nil, s.RequestID, len(s.Keys))}, nil
}

func (c *echoCore) Checkpoint(context.Context) (*wire.Answer, error) {
	return &wire.Answer{Kind: wire.Final, Audit: wire.Audit{First: 5, Count: 1, Frames: []byte("signed")}}, nil
}

// listen serves a core at an address until the returned function is called. It
// returns the address to dial.
func listen(tb testing.TB, addr string, core wire.Core) (string, func()) {
	tb.Helper()
	ln, err := serve.Listen(addr)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- serve.Serve(ctx, ln, core, serve.Options{}) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("serve %s: %v", addr, err)
		}
	})
	tb.Cleanup(stop)
	if ln.Addr().Network() == "tcp" {
		addr = "tcp:" + ln.Addr().String()
	}
	return addr, stop
}

// connections are the ways to reach a core.
var connections = map[string]func(testing.TB, wire.Core) wire.Core{
	"in-process": func(_ testing.TB, core wire.Core) wire.Core { return core },
	"unix":       func(tb testing.TB, core wire.Core) wire.Core { return connect(tb, "unix:"+socket(tb), core) },
	"tcp":        func(tb testing.TB, core wire.Core) wire.Core { return connect(tb, "tcp:127.0.0.1:0", core) },
}

func socket(tb testing.TB) string { return filepath.Join(tb.TempDir(), "core.sock") }

func connect(tb testing.TB, addr string, core wire.Core) *coreclient.Client {
	tb.Helper()
	addr, _ = listen(tb, addr, core)
	c, err := coreclient.Dial(context.Background(), addr, coreclient.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c
}

// TestStream has one suite for every way to reach a core: a caller must not
// notice which one it is.
func TestStream(t *testing.T) {
	for name, reach := range connections {
		t.Run(name, func(t *testing.T) {
			info := wire.Info{Version: "1", Platform: "sim", Instance: wire.NewUUID(), AuditKey: [32]byte{1}, Simulated: true}
			core := &echoCore{info: info}
			c := reach(t, core)
			t.Run("messages", func(t *testing.T) { testMessages(t, core, c) })
			t.Run("failure", func(t *testing.T) { testFailure(t, c) })
			t.Run("large", func(t *testing.T) { testLarge(t, core, c) })
			t.Run("concurrent", func(t *testing.T) { testConcurrent(t, c) })
		})
		t.Run(name+"/out of order", func(t *testing.T) {
			core := &echoCore{gate: make(chan struct{})}
			testOutOfOrder(t, core, reach(t, core))
		})
	}
}

// testMessages compares answers with those of the core itself.
func testMessages(t *testing.T, core, c wire.Core) {
	ctx := context.Background()
	refs := []wire.Ref{
		{ID: wire.RecordID{Type: wire.App, Tenant: wire.UUID{1}, ID: wire.UUID{1}}, Revision: 7, Tag: wire.Tag{9}},
		{ID: wire.RecordID{Type: wire.KeyVersion, Tenant: wire.UUID{1}, ID: wire.UUID{2}, Version: 3}, Revision: 1, Sealed: []byte("sealed")},
	}
	for name, ask := range map[string]func(wire.Core) (any, error){
		"info":       func(c wire.Core) (any, error) { return c.Info(ctx) },
		"checkpoint": func(c wire.Core) (any, error) { return c.Checkpoint(ctx) },
		"sweep": func(c wire.Core) (any, error) {
			return c.Sweep(ctx, &wire.Sweep{RequestID: "s", App: refs[0], Keys: refs})
		},
		"final": func(c wire.Core) (any, error) {
			return c.Call(ctx, &wire.Call{RequestID: "r", Action: "Encrypt", Body: []byte(`{"a":1}`), Records: refs})
		},
		"no body": func(c wire.Core) (any, error) { return c.Call(ctx, &wire.Call{Action: "ListKey", Get: true}) },
		"listing": func(c wire.Core) (any, error) {
			return c.Call(ctx, &wire.Call{Action: "ListKey", Body: []byte("x"), Listing: refs, Listed: true, Fresh: true})
		},
		"need": func(c wire.Core) (any, error) {
			return c.Call(ctx, &wire.Call{Action: "Need", Body: []byte("x"), Records: refs})
		},
		"pending": func(c wire.Core) (any, error) {
			a, err := c.Call(ctx, &wire.Call{Action: "Write", Body: []byte("x"), Records: refs[1:]})
			if err != nil {
				return nil, err
			}
			end, err := c.Resolve(ctx, wire.Resolve{Handle: a.Handle, Outcome: wire.Conflict})
			a.Handle = 0 // a handle means something only where it came from
			return []any{a, end}, err
		},
	} {
		got, err := ask(c)
		want, _ := ask(core)
		if a, ok := want.(*wire.Answer); ok && len(a.Reply) == 0 {
			a.Reply = nil // the encoding does not tell no bytes from none
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, want)
		}
	}
}

func testFailure(t *testing.T, c wire.Core) {
	a, err := c.Call(context.Background(), &wire.Call{Action: "Fail"})
	if err == nil || a != nil {
		t.Errorf("got %+v, %v", a, err)
	}
}

func testLarge(t *testing.T, core, c wire.Core) {
	list := make([]wire.Ref, 5000)
	for i := range list {
		list[i] = wire.Ref{ID: wire.RecordID{Type: wire.Key, ID: wire.UUID{byte(i), byte(i >> 8)}}, Revision: 1, Sealed: make([]byte, 300)}
	}
	call := &wire.Call{Action: "ListKey", Body: bytes.Repeat([]byte("b"), 1<<20), Listing: list, Listed: true}
	got, err := c.Call(context.Background(), call)
	if err != nil || !bytes.Equal(got.Reply, call.Body) {
		t.Errorf("got %v", err)
	}
}

// testConcurrent has many callers at once; each must get its own answer.
func testConcurrent(t *testing.T, c wire.Core) {
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for j := range 20 {
				body := bytes.Repeat([]byte{byte(i)}, 1+i*j)
				a, err := c.Call(context.Background(), &wire.Call{RequestID: fmt.Sprint(i, j), Action: "Encrypt", Body: body})
				if err != nil || !bytes.Equal(a.Reply, body) || a.Sign != "Encrypt"+fmt.Sprint(i, j) {
					t.Errorf("caller %d gets %.40s, %v", i, a.Reply, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// testOutOfOrder lets cheap calls pass a sweep that takes long.
func testOutOfOrder(t *testing.T, core *echoCore, c wire.Core) {
	swept := make(chan error)
	go func() { _, err := c.Sweep(context.Background(), &wire.Sweep{}); swept <- err }()
	for range 20 {
		if _, err := c.Call(context.Background(), &wire.Call{Action: "Encrypt"}); err != nil {
			t.Error(err)
		}
	}
	select {
	case err := <-swept:
		t.Errorf("the sweep is over, %v", err)
	default:
	}
	close(core.gate)
	if err := <-swept; err != nil {
		t.Error(err)
	}
}

// TestCoreIsReplaced stops a core and starts another one at the same place.
func TestCoreIsReplaced(t *testing.T) {
	addr, stop := listen(t, "unix:"+socket(t), &echoCore{info: wire.Info{Instance: wire.UUID{1}}})
	c, err := coreclient.Dial(t.Context(), addr, coreclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	changed := make(chan wire.Info, 1)
	c.OnRestart(func(i wire.Info) { changed <- i })
	old, err := c.Call(t.Context(), &wire.Call{Action: "Write"})
	if err != nil {
		t.Fatal(err)
	}
	stop()
	listen(t, addr, &echoCore{info: wire.Info{Instance: wire.UUID{2}}})
	if i := <-changed; i.Instance != (wire.UUID{2}) {
		t.Errorf("told of instance %s", i.Instance)
	}
	for { // until the connection is in use
		i, err := c.Info(t.Context())
		if err == nil {
			if i.Instance != (wire.UUID{2}) {
				t.Errorf("got instance %s", i.Instance)
			}
			break
		}
		if !errors.Is(err, coreclient.ErrUnreachable) {
			t.Fatal(err)
		}
	}
	if _, err := c.Resolve(t.Context(), wire.Resolve{Handle: old.Handle, Outcome: wire.Stored}); !errors.Is(err, coreclient.ErrRestarted) {
		t.Errorf("an answer of the old core is resolved: %v", err)
	}
}

// BenchmarkStream measures the CPU time of a call, both ends together.
func BenchmarkStream(b *testing.B) {
	for _, row := range []struct {
		name           string
		addr           string
		callers, conns int
	}{
		{"unix-64-callers", "unix:" + socket(b), 64, 2},
		{"unix-64-callers-1-connection", "unix:" + socket(b), 64, 1},
		{"unix-16-callers", "unix:" + socket(b), 16, 2},
		{"unix-1-caller", "unix:" + socket(b), 1, 2},
		{"tcp-64-callers", "tcp:127.0.0.1:0", 64, 2},
	} {
		b.Run(row.name, func(b *testing.B) {
			addr, _ := listen(b, row.addr, &echoCore{})
			c, err := coreclient.Dial(context.Background(), addr, coreclient.Options{Connections: row.conns})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			call := &wire.Call{RequestID: "abcdefgh-1", Action: "Encrypt", Body: make([]byte, 300), Records: make([]wire.Ref, 3)}
			b.ReportAllocs()
			left := make(chan struct{}, row.callers)
			start := cpu()
			for i := range row.callers {
				n := (b.N + i) / row.callers
				go func() {
					for range n {
						if _, err := c.Call(context.Background(), call); err != nil {
							b.Error(err)
							break
						}
					}
					left <- struct{}{}
				}()
			}
			for range row.callers {
				<-left
			}
			b.ReportMetric(float64(cpu()-start)/float64(b.N)/1000, "cpu-µs/op")
		})
	}
}

// cpu is the CPU time of this process in nanoseconds.
func cpu() int64 {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}
