package dev

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/host/relay"
	"github.com/ehsm-kms/ehsm/internal/host/store/sqlite"
	"github.com/ehsm-kms/ehsm/internal/trusted/facts"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// openNodes are nodes with a core each and one database.
func openNodes(t testing.TB, n int) []*rig {
	t.Helper()
	dir := t.TempDir()
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "test.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	st := &watchedStore{Store: db}
	rigs := make([]*rig, n)
	for i := range rigs {
		rigs[i] = openRig(t, dir, i == 0, st)
		rigs[i].shift.Store(0)
		rigs[i].store = st
	}
	result := rigs[0].send(relay.Request{ID: "r", Action: "Enroll", Get: true})
	for _, r := range rigs {
		r.tenant, r.key = result["appid"].(string), result["apikey"].(string)
	}
	return rigs
}

func (r *rig) createKey() string {
	r.t.Helper()
	return r.do("CreateKey", "keyspec", "EH_AES_GCM_256", "origin", "EH_INTERNAL_KEY", "keyusage", "EH_KEYUSAGE_ENCRYPT_DECRYPT")["keyid"].(string)
}

// TestFactsOfTwoNodes has many clients of two nodes disable and delete keys at the
// same time: all succeed, and the log has an entry of each.
func TestFactsOfTwoNodes(t *testing.T) {
	const clients, each = 8, 6
	rigs := openNodes(t, 2)
	rigs[1].nonce.Store(1 << 40)
	var wg sync.WaitGroup
	for i := range clients {
		r := rigs[i%2]
		wg.Go(func() {
			for range each {
				key := r.createKey()
				r.do("DisableKey", "keyid", key)
				r.do("DeleteKey", "keyid", key)
			}
		})
	}
	wg.Wait()
	log, err := rigs[0].store.Facts(t.Context(), 0, 10000)
	if err != nil || len(log) != 2*clients*each*wire.FactSize {
		t.Errorf("the log has %d bytes, %v, want %d entries", len(log), err, 2*clients*each)
	}
	for _, r := range rigs {
		if err := r.relay.ShowFacts(t.Context()); err != nil || r.core.Log().Head().Count != 2*clients*each || r.core.Log().Size() != clients*each {
			t.Errorf("core: %v, %s", err, r.core.Log().Head())
		}
	}
}

// TestHeadIsKept starts a service on a database of before.
func TestHeadIsKept(t *testing.T) {
	o := Options{Dir: t.TempDir(), Listen: "127.0.0.1:0", PlainHTTP: true}
	start := func() *Server {
		t.Helper()
		s, err := Start(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if err := start().Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(o.Dir, DomainDir, facts.HeadFile)
	if _, err := os.Stat(path); err == nil {
		t.Error("a head of nothing is kept")
	}
	if err := facts.WriteHead(filepath.Join(o.Dir, DomainDir), facts.Head{Count: 3, Hash: [32]byte{1}}); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), o); err == nil || !strings.Contains(err.Error(), "0 entries were shown, there are 3; is the database from a backup?") {
		t.Errorf("the log is gone: got %v", err)
	}
	if err := os.WriteFile(path, []byte(`{"entries":3,"hash":"01"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), o); !errors.Is(err, facts.ErrHead) {
		t.Errorf("a damaged head: got %v, want ErrHead", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := start().Close(); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkDelete deletes keys from several clients of one node: each adds to the log
// of negative facts.
func BenchmarkDelete(b *testing.B) {
	for _, clients := range []int{1, 16, 64} {
		b.Run(strconv.Itoa(clients), func(b *testing.B) {
			r := openNodes(b, 1)[0]
			keys := make(chan string, b.N)
			for range b.N {
				keys <- r.createKey()
			}
			close(keys)
			b.ResetTimer()
			var wg sync.WaitGroup
			for range clients {
				wg.Go(func() {
					for key := range keys {
						r.do("DeleteKey", "keyid", key)
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deletions/s")
		})
	}
}
