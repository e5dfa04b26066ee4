package dev

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/relay"
	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/host/store/postgres"
	"github.com/ehsm-kms/ehsm/internal/host/store/postgres/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// A countedStore counts the removals of secrets' versions in a shared store.
type countedStore struct {
	*postgres.Store
	removals *atomic.Int64
	all      func() // called at the last one
	want     int64
}

func (s *countedStore) Apply(ctx context.Context, c store.Change) error {
	err := s.Store.Apply(ctx, c)
	for _, w := range c.Writes {
		if err == nil && w.Remove && s.removals.Add(1) == s.want {
			s.all()
		}
	}
	return err
}

// TestPurgeByOneNode has three nodes find the same secrets due at the same time:
// each is purged once.
func TestPurgeByOneNode(t *testing.T) {
	const nodes, secrets = 3, 40
	dir, url := t.TempDir(), pgtest.Database(t)
	var removals atomic.Int64
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var rigs [nodes]*rig
	var stores [nodes]*countedStore
	for i := range rigs {
		db, err := postgres.Open(t.Context(), postgres.Target{URL: url}, postgres.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		stores[i] = &countedStore{Store: db, removals: &removals, all: cancel, want: secrets}
		rigs[i] = openRig(t, dir, i == 0, stores[i])
	}
	r := rigs[0]
	result := r.send(relay.Request{ID: "r", Action: "Enroll", Get: true})
	r.tenant, r.key = result["appid"].(string), result["apikey"].(string)
	for i := range secrets {
		name := fmt.Sprint("s", i)
		r.do("CreateSecret", "secretName", name, "secretData", "v1")
		r.do("DeleteSecret", "secretName", name, "recoveryPeriod", 1)
	}
	var wg sync.WaitGroup
	for i, r := range rigs {
		r.shift.Store(0)
		wg.Go(func() { r.relay.Run(ctx, stores[i]) })
	}
	wg.Wait()
	if n := removals.Load(); n != secrets {
		t.Errorf("%d purges of %d secrets", n, secrets)
	}
	due, err := stores[0].Due(t.Context(), time.Now().UnixMilli(), secrets)
	if err != nil || len(due) != 0 {
		t.Errorf("%d secrets are still due, %v", len(due), err)
	}
	if s := stores[0].Stats(); s.Conflicts != 0 {
		t.Errorf("%d purges met others", s.Conflicts)
	}
}
