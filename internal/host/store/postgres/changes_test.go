package postgres

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/host/store/postgres/pgtest"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

func keyID(n byte) wire.RecordID {
	return wire.RecordID{Type: wire.Key, Tenant: wire.UUID{1}, ID: wire.UUID{n}}
}

func set(t *testing.T, s *Store, id wire.RecordID, expected, revision uint64) {
	t.Helper()
	w := wire.Write{ID: id, Expected: expected, Revision: revision, Sealed: make([]byte, 16)}
	if err := s.Apply(t.Context(), store.Change{Writes: []wire.Write{w}}); err != nil {
		t.Fatal(err)
	}
}

// next returns what a feed tells, without repetitions.
func next(t *testing.T, f *Feed) (ids []wire.RecordID, all bool) {
	t.Helper()
	ids, all, err := f.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return ids, all
}

func TestFeed(t *testing.T) {
	url := pgtest.Database(t)
	a, b := mustOpen(t, url, Options{}), mustOpen(t, url, Options{})
	set(t, a, keyID(1), 0, 1)
	f := b.Feed()
	defer f.Close()
	if ids, all := next(t, f); !all || len(ids) != 0 {
		t.Errorf("first: got %v, %t, want all", ids, all)
	}
	set(t, a, keyID(2), 0, 1)
	set(t, b, keyID(1), 1, 2)
	if ids, all := next(t, f); all || !slices.Contains(ids, keyID(1)) || slices.Contains(ids, keyID(2)) {
		t.Errorf("got %v, %t, want the changed key and not the new one", ids, all)
	}
	set(t, a, keyID(2), 1, 9)
	if ids, all := next(t, f); all || !slices.Contains(ids, keyID(2)) {
		t.Errorf("got %v, %t, want key 2", ids, all)
	}
	f.from.at = f.from.at.Add(-keepChanges)
	if _, all := next(t, f); !all {
		t.Error("after a long time: want all")
	}
	if _, all := next(t, f); all {
		t.Error("then: got all")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := f.Next(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("ended: got %v", err)
	}
	if _, all := next(t, f); !all {
		t.Error("after an error: want all")
	}
}

// TestFeedMissesNothing is the trap of every table of changes: a transaction that
// has begun before another may commit after it.
func TestFeedMissesNothing(t *testing.T) {
	s := mustOpen(t, pgtest.Database(t), Options{})
	set(t, s, keyID(1), 0, 1)
	set(t, s, keyID(2), 0, 1)
	f := s.Feed()
	defer f.Close()
	next(t, f)
	conn, err := s.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), insertChange, [16]byte(keyID(1).Tenant), [16]byte(keyID(1).ID), int16(wire.Key), int64(0)); err != nil {
		t.Fatal(err)
	}
	set(t, s, keyID(2), 1, 2) // begins later, commits first
	for range 3 {
		if ids, all := next(t, f); all || slices.Contains(ids, keyID(1)) || !slices.Contains(ids, keyID(2)) {
			t.Errorf("before the commit: got %v, %t", ids, all)
		}
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ids, _ := next(t, f); !slices.Contains(ids, keyID(1)) {
		t.Errorf("after the commit: got %v, want key 1", ids)
	}
	if ids, _ := next(t, f); len(ids) != 0 {
		t.Errorf("then: got %v, want nothing", ids)
	}
}

// TestFeedUnderLoad compares what a feed has told with what was changed.
func TestFeedUnderLoad(t *testing.T) {
	s := mustOpen(t, pgtest.Database(t), Options{})
	f := s.Feed()
	defer f.Close()
	next(t, f)
	const callers, each = 8, 25
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for n := range each {
				id := keyID(byte(c*each + n))
				set(t, s, id, 0, 1)
				set(t, s, id, 1, 2)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	told := map[wire.RecordID]bool{}
	for working := true; working; {
		select {
		case <-done:
			working = false
		default:
		}
		ids, all := next(t, f)
		if all {
			t.Fatal("got all, want names")
		}
		for _, id := range ids {
			told[id] = true
		}
	}
	if len(told) != callers*each {
		t.Errorf("told of %d records, want %d", len(told), callers*each)
	}
}

func TestWait(t *testing.T) {
	url := pgtest.Database(t)
	a, b := mustOpen(t, url, Options{}), mustOpen(t, url, Options{})
	set(t, a, keyID(1), 0, 1)
	f := b.Feed()
	defer f.Close()
	woken := make(chan error, 1)
	go func() { woken <- f.Wait(t.Context()) }()
	for n := uint64(1); ; n++ { // until it listens
		set(t, a, keyID(1), n, n+1)
		select {
		case err := <-woken:
			if err != nil {
				t.Errorf("Wait: %v", err)
			}
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestPruneChanges(t *testing.T) {
	s := mustOpen(t, pgtest.Database(t), Options{})
	set(t, s, keyID(1), 0, 1)
	count := func() (n int) {
		if err := s.pool.QueryRow(t.Context(), "SELECT count(*) FROM changes").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if _, err := s.pool.Exec(t.Context(), `INSERT INTO changes (at, tenant, id, type, version)
		SELECT now() - interval '11 minutes', tenant, id, type, version FROM records, generate_series(1, 2500)`); err != nil {
		t.Fatal(err)
	}
	set(t, s, keyID(1), 1, 2)
	if before := count(); before != 2501 {
		t.Errorf("before: got %d, want 2501", before)
	}
	if _, err := s.PruneReplays(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if after := count(); after != 1 {
		t.Errorf("after: got %d, want the new one", after)
	}
}
