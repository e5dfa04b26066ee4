package relay

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// A hungStore answers to nothing while hung is set.
type hungStore struct {
	Store
	hung bool
	asks chan struct{} // not nil: is told of calls
}

func (s *hungStore) wait(ctx context.Context) error {
	if !s.hung {
		return nil
	}
	if s.asks != nil {
		s.asks <- struct{}{}
	}
	<-ctx.Done()
	return ctx.Err()
}

func (s *hungStore) Get(ctx context.Context, ids []wire.RecordID) ([]store.Row, error) {
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	return s.Store.Get(ctx, ids)
}

func (s *hungStore) List(ctx context.Context, q wire.Query, after wire.UUID) ([]store.Row, error) {
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	return s.Store.List(ctx, q, after)
}

func (s *hungStore) Apply(ctx context.Context, c store.Change) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	return s.Store.Apply(ctx, c)
}

// TestStoreHangs: a request waits for the store no longer than it may, wherever
// the store hangs. Time is a fake.
func TestStoreHangs(t *testing.T) {
	const limit = 5 * time.Second
	for name, row := range map[string]struct {
		action  string
		known   bool // the rows are remembered
		failing bool // so is the feed
		code    int
		took    time.Duration
	}{
		"a use that reads":               {api.Encrypt, false, false, 500, limit},
		"a use that is remembered":       {api.Encrypt, true, false, 200, 0},
		"a change that reads":            {api.CreateKey, false, false, 400, limit},
		"a change that is stored":        {"Add", true, false, 500, limit},
		"a listing":                      {api.ListKey, true, false, 500, limit},
		"a use, the feed fails too":      {api.Encrypt, false, true, 500, cutOff},
		"a change, the feed fails too":   {api.CreateKey, false, true, 400, cutOff},
		"remembered, the feed fails too": {api.Encrypt, true, true, 200, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t, Options{StoreTimeout: limit})
				g.sink.lossy = true
				hung := &hungStore{Store: g.store}
				g.Relay.store = hung
				if row.known {
					g.do("Read", 1)
				}
				g.follower.failing.Store(row.failing)
				hung.hung = true
				began := time.Now()
				r, err := g.do(row.action, 2)
				if took := time.Since(began); r.Code != row.code || took > row.took || took < row.took*9/10 {
					t.Errorf("got code %d after %v, want %d after %v; %v", r.Code, took, row.code, row.took, err)
				}
			})
		})
	}
}

// TestStoreFull: requests that wait for the store leave room for those that do not
// need it, and further ones are refused at once.
func TestStoreFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Options{Concurrent: 6})
		g.do("Read", 1)
		hung := &hungStore{Store: g.store, hung: true, asks: make(chan struct{})}
		g.Relay.store = hung
		g.rows.forget([]wire.RecordID{keyRecord})
		var wg sync.WaitGroup
		defer wg.Wait()
		for range 3 {
			wg.Go(func() { g.do("Read", 2) })
			<-hung.asks
		}
		for name, action := range map[string]string{"a read": "Read", "a listing": api.ListKey} {
			if r, err := g.do(action, 3); r.Code != 429 || err != nil {
				t.Errorf("%s: got code %d, %v, want 429", name, r.Code, err)
			}
		}
		if r, err := g.Do(t.Context(), Request{ID: "r", Action: "Refuse"}); r.Code != 400 || err != nil {
			t.Errorf("one that needs no rows: got code %d, %v", r.Code, err)
		}
	})
}

// TestStoreFullForChange: a change is taken back if there is no room for it when
// the core has agreed.
func TestStoreFullForChange(t *testing.T) {
	g := newRig(t, Options{Concurrent: 2})
	g.do("Read", 1)
	g.Relay.atStore.Add(1)
	if r, err := g.do("Add", 2); r.Code != 429 || err != nil {
		t.Errorf("got code %d, %v, want 429", r.Code, err)
	}
	if len(g.core.resolved) != 1 || g.core.resolved[0] != wire.Failed {
		t.Errorf("the core is told %v", g.core.resolved)
	}
	g.Relay.atStore.Add(-1)
	g.want(t, "Read", 3, "0")
	if n := g.Relay.atStore.Load(); n != 0 {
		t.Errorf("%d requests are at the store", n)
	}
}

// TestListingOrder: the app record of a listing is read after it.
func TestListingOrder(t *testing.T) {
	g := newRig(t, Options{})
	g.do("Read", 1)
	lists := 0
	g.store.beforeGet = func([]wire.RecordID) error {
		if lists == 0 {
			lists = g.store.reads
		}
		return nil
	}
	before := g.store.reads
	if r, err := g.do(api.ListKey, 2); r.Code != 200 || err != nil {
		t.Fatalf("got %d, %v", r.Code, err)
	}
	if lists != before+1 {
		t.Errorf("records were read after %d other reads, want the listing before", lists-before)
	}
}

// TestMayLag: an action that nobody has thought of reads the store.
func TestMayLag(t *testing.T) {
	for _, action := range []string{api.CreateKey, api.EnableKey, api.DisableKey, api.DeleteKey, api.DeleteAllKey,
		api.GetParametersForImport, api.ImportKeyMaterial, api.CreateSecret, api.UpdateSecretDesc, api.PutSecretValue,
		api.DeleteSecret, api.RestoreSecret, api.UploadQuotePolicy, "DeleteALLKey", "", "Unheard"} {
		if mayLag(action) {
			t.Errorf("%q goes by what is remembered", action)
		}
	}
}
