package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// sent describes the references of a call: name, revision, whether with bytes.
func sent(c wire.Call) string {
	var parts []string
	for _, f := range c.Records {
		parts = append(parts, fmt.Sprintf("%s:%d:%v", f.ID.Type, f.Revision, f.Sealed != nil))
	}
	if c.Fresh {
		parts = append(parts, "fresh")
	}
	return strings.Join(parts, " ")
}

func (g *rig) want(t *testing.T, action string, n int, want string) {
	t.Helper()
	r, err := g.do(action, n)
	if err != nil || string(r.Body) != want {
		t.Errorf("%s: got %q, %v, want %q", action, r.Body, err, want)
	}
}

func TestBytesTravelOnce(t *testing.T) {
	g := newRig(t, Options{})
	for _, row := range []struct {
		name  string
		prep  func()
		do    string
		calls []string
	}{
		{"first use", func() {}, "Read", []string{"app:1:true key:1:true key version:1:true fresh"}},
		{"second use", func() {}, "Read", []string{"app:1:false key:1:false key version:1:false"}},
		{"core has dropped the key", func() { delete(g.core.held, keyRecord) }, "Read", []string{
			"app:1:false key:1:false key version:1:false", "app:1:true key:1:true key version:1:true fresh"}},
		{"after that", func() {}, "Read", []string{"app:1:false key:1:false key version:1:false"}},
		{"new core", func() { clear(g.core.held); g.ForgetCore() }, "Read", []string{
			"app:1:true key:1:true key version:1:true fresh"}},
		{"new core is refused first", func() { clear(g.core.held); g.ForgetCore() }, "Refuse", []string{
			"app:1:true key:1:true key version:1:true fresh"}},
		{"a refusal has opened nothing", func() {}, "Read", []string{"app:1:true key:1:true key version:1:true"}},
		{"a write", func() {}, "Add", []string{"app:1:false key:1:false key version:1:false"}},
		{"after a write", func() {}, "Read", []string{"app:1:false key:1:false key version:2:true"}},
		{"at last", func() {}, "Read", []string{"app:1:false key:1:false key version:2:false"}},
	} {
		row.prep()
		g.core.calls = nil
		if _, err := g.do(row.do, 1); err != nil {
			t.Errorf("%s: %v", row.name, err)
		}
		var got []string
		for _, c := range g.core.calls {
			got = append(got, sent(c))
		}
		if !slices.Equal(got, row.calls) {
			t.Errorf("%s: got calls %q, want %q", row.name, got, row.calls)
		}
	}
	reads := g.store.reads
	g.want(t, "Read", 1, "0")
	if g.store.reads != reads {
		t.Errorf("a request on known records reads the store %d times", g.store.reads-reads)
	}
}

func TestReplyPassesThrough(t *testing.T) {
	g := newRig(t, Options{})
	for name, row := range map[string]struct {
		req  Request
		call string // action the core sees
		sent string
	}{
		"no JSON":         {Request{Action: "Refuse", Body: []byte("{")}, "Refuse", ""},
		"no body":         {Request{Action: "Refuse", Get: true}, "Refuse", ""},
		"appid is no id":  {Request{Action: "Refuse", Body: []byte(`{"appid":"constructor"}`)}, "Refuse", ""},
		"unknown tenant":  {Request{Action: "Refuse", Body: fmt.Appendf(nil, `{"appid":"%s"}`, keyID)}, "Refuse", "app:0:false fresh"},
		"no payload":      {Request{Action: "Refuse", Body: fmt.Appendf(nil, `{"appid":"%s"}`, tenant)}, "Refuse", "app:1:true fresh"},
		"endless name":    {Request{Action: strings.Repeat("x", 1000)}, strings.Repeat("x", wire.MaxName), ""},
		"keyid is no id":  {Request{Action: "Refuse", Body: fmt.Appendf(nil, `{"appid":"%s","payload":{"keyid":"../x"}}`, tenant)}, "Refuse", "app:1:true"},
		"unknown key too": {Request{Action: "Refuse", Body: fmt.Appendf(nil, `{"appid":"%s","payload":{"keyid":"%s"}}`, tenant, tenant)}, "Refuse", "app:1:true key:0:false fresh"},
	} {
		g.ForgetCore()
		if name == "keyid is no id" {
			g.rows.put(g.store.row(appRecord), g.rows.epoch.Load())
		}
		g.core.before = func(c *wire.Call) error {
			if c.Action != row.call || sent(*c) != row.sent || !bytes.Equal(c.Body, row.req.Body) || c.Get != row.req.Get {
				t.Errorf("%s: core sees %s with %q, want %s with %q", name, c.Action, sent(*c), row.call, row.sent)
			}
			c.Action = "Refuse"
			return nil
		}
		r, err := g.Do(context.Background(), row.req)
		if err != nil || r.Code != 400 || string(r.Body) != "refused" || r.Sign != "signed" || r.Release != 7 {
			t.Errorf("%s: got %+v, %v", name, r, err)
		}
	}
}

func TestListing(t *testing.T) {
	g := newRig(t, Options{})
	g.want(t, "ListKey", 1, "1 true")
	if c := g.core.lastCall(); !c.Fresh || !c.Listed {
		t.Errorf("call with listing is fresh %v, listed %v", c.Fresh, c.Listed)
	}
}

func TestFailures(t *testing.T) {
	broken := errors.New("stream is cut")
	for name, row := range map[string]struct {
		action   string
		prep     func(*rig)
		code     int
		want     error // nil: any
		resolved []wire.Outcome
	}{
		"core unreachable":              {"Read", func(g *rig) { g.core.before = func(*wire.Call) error { return broken } }, 500, broken, nil},
		"core never satisfied":          {"Greedy", func(*rig) {}, 500, errNeeds, nil},
		"unknown kind":                  {"Odd", func(*rig) {}, 500, errAnswer, nil},
		"no reply":                      {"Silent", func(*rig) {}, 500, errAnswer, nil},
		"store unreadable":              {api.Encrypt, func(g *rig) { g.store.beforeGet = func([]wire.RecordID) error { return errDisk } }, 500, errDisk, nil},
		"store unreadable for a change": {api.CreateKey, func(g *rig) { g.store.beforeGet = func([]wire.RecordID) error { return errDisk } }, 400, errDisk, nil},
		"no audit":                      {"Read", func(g *rig) { g.sink.set(errDisk) }, 500, errDisk, nil},
		"no audit of a write":           {"Add", func(g *rig) { g.sink.set(errDisk) }, 500, errDisk, []wire.Outcome{wire.Stored}},
		"no audit of a conflict": {"Add", func(g *rig) {
			g.sink.set(errDisk)
			g.store.beforeApply = func(context.Context, store.Change) error { return store.ErrConflict }
		}, 500, errDisk, []wire.Outcome{wire.Failed}},
		"not stored": {"Add", func(g *rig) {
			g.store.beforeApply = func(context.Context, store.Change) error { return errDisk }
		}, 400, errDisk, []wire.Outcome{wire.Failed}},
		"always in conflict": {"Add", func(g *rig) {
			g.store.beforeApply = func(context.Context, store.Change) error { return store.ErrConflict }
		}, 400, store.ErrConflict, append(slices.Repeat([]wire.Outcome{wire.Conflict}, maxAttempts-1), wire.Failed)},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, Options{})
			row.prep(g)
			r, err := g.do(row.action, 1)
			if r.Code != row.code || err == nil || row.want != nil && !errors.Is(err, row.want) {
				t.Errorf("got code %d, error %v, want %d, %v", r.Code, err, row.code, row.want)
			}
			if row.action == api.CreateKey && string(r.Body) != databaseText {
				t.Errorf("got %s", r.Body)
			}
			if row.code == 500 && string(r.Body) != internalText {
				t.Errorf("got %s", r.Body)
			}
			if !slices.Equal(g.core.resolved, row.resolved) {
				t.Errorf("core is told %v, want %v", g.core.resolved, row.resolved)
			}
		})
	}
}

func TestReplayed(t *testing.T) {
	g := newRig(t, Options{})
	g.want(t, "Add", 1, "1")
	g.want(t, "Add", 1, "replayed")
	g.want(t, "Add", 2, "2")
	if g.sink.durable != 3 {
		t.Errorf("%d durable audit entries, want 3", g.sink.durable)
	}
}

func TestUnknownOutcome(t *testing.T) {
	for name, row := range map[string]struct {
		before, after, lost error
		code                int
		told                wire.Outcome
	}{
		"it was stored":     {nil, errDisk, nil, 200, wire.Stored},
		"it was not stored": {errDisk, nil, nil, 400, wire.Failed},
	} {
		g := newRig(t, Options{})
		g.store.beforeApply = func(context.Context, store.Change) error { return row.before }
		g.store.afterApply = func() error { return row.after }
		r, err := g.do("Add", 1)
		if r.Code != row.code || !errors.Is(err, errDisk) || !slices.Equal(g.core.resolved, []wire.Outcome{row.told}) {
			t.Errorf("%s: got %d, %v, core is told %v", name, r.Code, err, g.core.resolved)
		}
	}
}

// A settlingStore loses the answer to the first change, and can tell later.
type settlingStore struct {
	*memStore
	settle []error // what Settle returns, in turn; nil: what Apply does then
}

func (s *settlingStore) Settle(ctx context.Context, c store.Change) error {
	err := s.settle[0]
	s.settle = s.settle[1:]
	if err != nil {
		return err
	}
	return s.memStore.Apply(ctx, c)
}

// TestSettle has a store tell late what became of a change.
func TestSettle(t *testing.T) {
	unstored := fmt.Errorf("%w: %w", store.ErrUnstored, errDisk)
	for name, row := range map[string]struct {
		apply  error
		settle []error
		code   int
		told   []wire.Outcome
		takes  bool // all the time that there is
	}{
		"it is stored now":            {errDisk, []error{nil}, 200, []wire.Outcome{wire.Stored}, false},
		"it is, after some trouble":   {errDisk, []error{errDisk, unstored, nil}, 200, []wire.Outcome{wire.Stored}, false},
		"another node had it":         {errDisk, []error{store.ErrReplayed}, 400, []wire.Outcome{wire.Replayed}, false},
		"another change was there":    {errDisk, []error{store.ErrConflict}, 200, []wire.Outcome{wire.Conflict, wire.Stored}, false},
		"nobody can tell for so long": {errDisk, slices.Repeat([]error{errDisk}, 100), 500, []wire.Outcome{wire.Failed}, true},
		"nor if it cannot be stored":  {errDisk, slices.Repeat([]error{unstored}, 100), 500, []wire.Outcome{wire.Failed}, true},
		"not stored, and never":       {unstored, []error{unstored}, 400, []wire.Outcome{wire.Failed}, false},
		"not stored at first":         {unstored, []error{nil}, 200, []wire.Outcome{wire.Stored}, false},
		"not stored, then unknown":    {unstored, slices.Concat([]error{errDisk}, slices.Repeat([]error{unstored}, 100)), 500, []wire.Outcome{wire.Failed}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const limit = 5 * time.Second
				g := newRig(t, Options{StoreTimeout: limit})
				g.sink.lossy = true
				g.Relay.store = &settlingStore{g.store, row.settle}
				lost := row.apply
				g.store.beforeApply = func(context.Context, store.Change) (err error) { err, lost = lost, nil; return err }
				began := time.Now()
				r, err := g.do("Add", 1)
				if r.Code != row.code || !slices.Equal(g.core.resolved, row.told) {
					t.Errorf("got code %d, %v, core is told %v, want %d, %v", r.Code, err, g.core.resolved, row.code, row.told)
				}
				if took := time.Since(began); took > limit || row.takes != (took > limit/2) {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

func TestConflictIsTriedAgain(t *testing.T) {
	g := newRig(t, Options{})
	g.want(t, "Add", 1, "1")
	g.store.put(versionRecord, 40, 0) // another node has been here
	g.want(t, "Add", 2, "41")
	if want := []wire.Outcome{wire.Stored, wire.Conflict, wire.Stored}; !slices.Equal(g.core.resolved, want) {
		t.Errorf("core is told %v, want %v", g.core.resolved, want)
	}
	if c := g.core.lastCall(); sent(c) != "app:1:true key:1:true key version:3:true fresh" {
		t.Errorf("last call has %s", sent(c))
	}
}

// TestConcurrentChanges has many clients change one record: each success must
// be in the store, and nothing else.
func TestConcurrentChanges(t *testing.T) {
	g := newRig(t, Options{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	values := map[string]int{}
	for n := range 24 {
		wg.Go(func() {
			r, _ := g.do("Add", n)
			mu.Lock()
			defer mu.Unlock()
			if r.Code == 200 {
				values[string(r.Body)]++
			}
		})
	}
	wg.Wait()
	row := g.store.row(versionRecord)
	if int(row.Revision) != len(values)+1 || len(values) == 0 {
		t.Errorf("%d different values of successes, stored revision %d", len(values), row.Revision)
	}
	for v, n := range values {
		if n != 1 {
			t.Errorf("value %s was given to %d clients", v, n)
		}
	}
}

func TestClientGoesAway(t *testing.T) {
	g := newRig(t, Options{})
	ctx, cancel := context.WithCancel(context.Background())
	g.store.beforeApply = func(context.Context, store.Change) error { cancel(); return nil }
	r, err := g.Do(ctx, Request{ID: "r", Action: "Add", Body: body(1)})
	if err != nil || string(r.Body) != "1" || g.store.row(versionRecord).Revision != 2 {
		t.Errorf("got %q, %v: a change in progress must be finished", r.Body, err)
	}
	calls := len(g.core.calls)
	if r, err = g.Do(ctx, Request{ID: "r", Action: "Add", Body: body(2)}); !errors.Is(err, context.Canceled) || r.Code != 500 {
		t.Errorf("got %d, %v", r.Code, err)
	}
	if len(g.core.calls) != calls {
		t.Error("the core is asked for a client that has gone")
	}
}

func TestTooManyRequests(t *testing.T) {
	g := newRig(t, Options{Concurrent: 2})
	entered, leave := make(chan struct{}), make(chan struct{})
	g.core.before = func(*wire.Call) error { entered <- struct{}{}; <-leave; return nil }
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { g.do("Read", 1) })
		<-entered
	}
	r, err := g.do("Read", 1)
	if err != nil || r.Code != 429 || string(r.Body) != `{"code":429,"message":"Too many requests.","result":{}}` {
		t.Errorf("got %+v, %v", r, err)
	}
	close(leave)
	wg.Wait()
	go func() { <-entered }()
	g.want(t, "Read", 1, "0")
}

func BenchmarkDoCached(b *testing.B) {
	g := newRig(b, Options{})
	g.sink.set(nil)
	final := &wire.Answer{Kind: wire.Final, Code: 200, Reply: []byte("{}")}
	g.Relay.core = answerCore{g.core, final}
	text := body(1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.Do(context.Background(), Request{ID: "r", Action: "Encrypt", Body: text}); err != nil {
			b.Fatal(err)
		}
	}
}

// answerCore gives one answer to every call.
type answerCore struct {
	*fakeCore
	answer *wire.Answer
}

func (c answerCore) Call(context.Context, *wire.Call) (*wire.Answer, error) { return c.answer, nil }
