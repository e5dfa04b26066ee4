package relay

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// logStore is a store with a log of negative facts.
type logStore struct {
	*memStore
	logged  sync.Mutex
	log     []byte
	read    int    // calls of Facts
	fail    error  // of Facts
	refused int    // changes at a place that is taken
	meet    func() // called before a change with facts
	place   func() // called when a change with facts has been given its place
}

func (s *logStore) Facts(_ context.Context, after uint64, limit int) ([]byte, error) {
	s.logged.Lock()
	defer s.logged.Unlock()
	s.read++
	if s.fail != nil {
		return nil, s.fail
	}
	at := min(int(after)*wire.FactSize, len(s.log))
	return bytes.Clone(s.log[at:min(at+limit*wire.FactSize, len(s.log))]), nil
}

func (s *logStore) Apply(ctx context.Context, c store.Change) error {
	if c.Facts == nil {
		return s.memStore.Apply(ctx, c)
	}
	if s.meet != nil {
		s.meet()
	}
	if s.place != nil {
		c.Placed()
		s.place()
	}
	s.logged.Lock()
	defer s.logged.Unlock()
	if int(c.Facts.First-1)*wire.FactSize != len(s.log) {
		s.refused++
		return store.ErrConflict
	}
	err := s.memStore.Apply(ctx, c)
	if err == nil {
		s.log = append(s.log, c.Facts.Entries...)
	}
	return err
}

// add adds entries, as another node does.
func (s *logStore) add(n int) {
	s.logged.Lock()
	defer s.logged.Unlock()
	s.log = append(s.log, make([]byte, n*wire.FactSize)...)
}

// logCore is a core that wants to be shown the log.
type logCore struct {
	*fakeCore
	counting sync.Mutex
	count    uint64 // shown
	known    uint64 // to exist
	shown    bool   // to the end
	pages    int
	places   map[uint64]uint64 // of pending facts, by handle
	called   func()            // called for a change with facts
}

func (c *logCore) Facts(_ context.Context, f *wire.Facts) (wire.FactsState, error) {
	c.counting.Lock()
	defer c.counting.Unlock()
	n := uint64(len(f.Entries) / wire.FactSize)
	if n > 0 && f.First+n-1 > c.count {
		if f.First > c.count+1 {
			return wire.FactsState{}, errors.New("a gap")
		}
		c.count = f.First + n - 1
		c.pages++
	}
	c.shown = c.shown || f.End
	s := wire.FactsState{Count: c.count, Known: max(c.known, c.count)}
	if !c.shown || c.known > c.count {
		s.Waiting, s.Trouble = true, "the log is not complete"
	}
	return s, nil
}

func (c *logCore) Call(ctx context.Context, call *wire.Call) (*wire.Answer, error) {
	c.counting.Lock()
	behind, count := !c.shown || c.known > c.count, c.count
	c.counting.Unlock()
	if behind {
		return &wire.Answer{Kind: wire.Need, NeedFacts: true}, nil
	}
	if call.Action != "DeleteKey" {
		return c.fakeCore.Call(ctx, call)
	}
	if c.called != nil {
		c.called()
	}
	change := *call
	change.Action = "Add"
	a, err := c.fakeCore.Call(ctx, &change)
	if err == nil && a.Kind == wire.Pending {
		a.Facts = &wire.NewFacts{First: count + 1, Entries: make([]byte, wire.FactSize)}
		c.counting.Lock()
		c.places[a.Handle] = count + 1
		c.counting.Unlock()
	}
	return a, err
}

func (c *logCore) Resolve(ctx context.Context, r wire.Resolve) (*wire.Answer, error) {
	c.counting.Lock()
	if place := c.places[r.Handle]; r.Outcome == wire.Stored && place > c.count {
		c.count = place
	}
	c.counting.Unlock()
	return c.fakeCore.Resolve(ctx, r)
}

type logRig struct {
	*rig
	core  *logCore
	store *logStore
}

func newLogRig(t *testing.T) *logRig {
	g := newRig(t, Options{})
	r := &logRig{g, &logCore{fakeCore: g.core, places: map[uint64]uint64{}}, &logStore{memStore: g.store}}
	g.Relay = New(r.core, r.store, g.sink, Options{})
	return r
}

// A core that wants more of the log is shown it, in pages, and then asked again.
func TestLogIsShown(t *testing.T) {
	g := newLogRig(t)
	g.store.add(wire.MaxFacts + 5)
	g.want(t, "Read", 1, "0")
	if g.core.count != wire.MaxFacts+5 || g.core.pages != 2 {
		t.Errorf("got %d entries in %d pages", g.core.count, g.core.pages)
	}
	if calls := g.core.calls; len(calls) != 1 || calls[0].Again != 1 {
		t.Errorf("calls: %+v", calls)
	}
	g.store.add(3)
	g.core.known = wire.MaxFacts + 8 // as other programs of the domain say
	g.want(t, "Read", 2, "0")
	read := g.store.read
	g.want(t, "Read", 3, "0")
	if g.store.read != read {
		t.Error("a core that has the log is shown it again")
	}
}

// What the store does not have, nobody can show: there is no service, and a text
// that says why.
func TestLogIsMissing(t *testing.T) {
	g := newLogRig(t)
	g.store.add(1)
	g.core.known = 2
	for _, action := range []string{"Read", "DeleteKey", "ListKey"} {
		r, err := g.do(action, 1)
		if !errors.Is(err, errFacts) || r.Code != 500 {
			t.Errorf("%s: got %d, %v, want errFacts", action, r.Code, err)
		}
	}
	if err := g.ShowFacts(t.Context()); !errors.Is(err, errFacts) || !strings.Contains(err.Error(), "the log is not complete") {
		t.Errorf("ShowFacts: got %v", err)
	}
	if err := g.FactsReady(t.Context()); !errors.Is(err, errFacts) {
		t.Errorf("FactsReady: got %v, want errFacts", err)
	}
	g.store.add(1)
	g.want(t, "Read", 2, "0")
	g.store.fail = errDisk
	if err := g.FactsReady(t.Context()); err != nil {
		t.Errorf("FactsReady of a core that serves, without the store: got %v", err)
	}
	g.core.known = 3
	if err := g.FactsReady(t.Context()); !errors.Is(err, errDisk) {
		t.Errorf("FactsReady of a core that wants more: got %v", err)
	}
	if _, err := g.do("Read", 3); !errors.Is(err, errDisk) {
		t.Errorf("store fails: got %v", err)
	}
	if r, err := newRigOf(t, g).do("Read", 4); !errors.Is(err, errNoLog) || r.Code != 500 {
		t.Errorf("a store without a log: got %d, %v", r.Code, err)
	}
}

// newRigOf is a relay with the core of g and a store that keeps no log.
func newRigOf(t *testing.T, g *logRig) *rig {
	r := newRig(t, Options{})
	r.Relay = New(g.core, r.store, r.sink, Options{})
	return r
}

// Changes of one process that add to the log take turns.
func TestLogTurns(t *testing.T) {
	g := newLogRig(t)
	g.want(t, "Read", 0, "0")
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if r, err := g.do("DeleteKey", i+1); err != nil || r.Code != 200 {
				t.Errorf("DeleteKey: got %s, %v", r.Body, err)
			}
		})
	}
	wg.Wait()
	if g.store.refused != 0 || len(g.store.log) != 20*wire.FactSize {
		t.Errorf("%d met others, the log has %d bytes", g.store.refused, len(g.store.log))
	}
	if len(g.turns.open) != 0 {
		t.Errorf("%d turns are open", len(g.turns.open))
	}
}

// Where the store gives places, the next change is made while the one before is being
// stored. One that is refused takes its turn again.
func TestLogTurnIsPassed(t *testing.T) {
	g := newLogRig(t)
	g.want(t, "Read", 0, "0")
	second := make(chan struct{})
	var calls, places atomic.Int32
	g.core.called = func() {
		if calls.Add(1) == 2 {
			close(second)
		}
	}
	g.store.place = func() {
		if places.Add(1) == 1 {
			<-second // who had the turn to the end would wait for ever
		}
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if r, err := g.do("DeleteKey", i+1); err != nil || r.Code != 200 {
				t.Errorf("DeleteKey: got %s, %v", r.Body, err)
			}
		})
	}
	wg.Wait()
	if len(g.store.log) != 8*wire.FactSize {
		t.Errorf("the log has %d bytes", len(g.store.log))
	}
	if len(g.turns.open) != 0 {
		t.Errorf("%d turns are open", len(g.turns.open))
	}
}

// Who meets an entry of another node at its place shows it to the core and tries
// again.
func TestLogOfOthers(t *testing.T) {
	g := newLogRig(t)
	g.want(t, "Read", 0, "0")
	others := 3
	g.store.meet = func() {
		if others--; others >= 0 {
			g.store.add(1)
		}
	}
	g.want(t, "DeleteKey", 1, "1")
	if g.store.refused != 3 || len(g.store.log) != 4*wire.FactSize || g.core.count != 4 {
		t.Errorf("met %d, the log has %d bytes, the core %d entries", g.store.refused, len(g.store.log), g.core.count)
	}
	others = 1 << 20
	if r, err := g.do("DeleteKey", 2); r.Code != 400 || !errors.Is(err, store.ErrConflict) {
		t.Errorf("always: got %s, %v", r.Body, err)
	}
}

// Many who need the log have it shown once.
func TestLogIsShownOnce(t *testing.T) {
	g := newLogRig(t)
	g.store.add(5)
	g.chronicle.turn <- struct{}{} // it is being shown
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() { g.want(t, "Read", i, "0") })
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.ShowFacts(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("while it is being shown: got %v", err)
	}
	<-g.chronicle.turn
	wg.Wait()
	if g.store.read > 10 || g.core.pages != 1 {
		t.Errorf("read %d times, shown %d times", g.store.read, g.core.pages)
	}
}

func TestNarrows(t *testing.T) {
	for action, want := range map[string]bool{
		"DisableKey": true, "DeleteKey": true, "DeleteAllKey": true, "DeleteALLKey": true, "DeleteSecret": true,
		"RevokeCredential": true, "DisableApp": true, "DeleteApp": true, "RevokeToken": true, "RemoveAdministrator": true, "RotateAPIKey": true,
		"EnableKey": false, "CreateKey": false, "RestoreSecret": false, "Encrypt": false, "deletekey": false, "": false,
	} {
		if got := narrows(action); got != want {
			t.Errorf("%s: got %v, want %v", action, got, want)
		}
	}
}
