package postgres

import (
	"bytes"
	"crypto/rand"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/host/store/postgres/pgtest"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// BenchmarkCreate stores what creating a key stores: two records of 300 bytes and a
// replay entry, durably, from 16 callers, each with a connection. The database is on
// the disk that TMPDIR names; a memory file system there makes the figure
// meaningless.
func BenchmarkCreate(b *testing.B) {
	s, err := Open(b.Context(), Target{URL: pgtest.Database(b)}, Options{Connections: 16})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	tenant, sealed := wire.NewUUID(), bytes.Repeat([]byte{7}, 300)
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := s.Apply(b.Context(), newKey(tenant, sealed)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "changes/s")
}

func newKey(tenant wire.UUID, sealed []byte) store.Change {
	key := wire.RecordID{Type: wire.Key, Tenant: tenant, ID: wire.NewUUID()}
	version := key
	version.Type, version.Version = wire.KeyVersion, 1
	r := &wire.Replay{Tenant: tenant, Until: time.Now().UnixMilli()}
	rand.Read(r.Tag[:])
	return store.Change{
		Writes: []wire.Write{
			{ID: key, Revision: 1, Primary: 1, Sealed: sealed},
			{ID: version, Revision: 1, Sealed: sealed},
		},
		Replay: r,
	}
}
