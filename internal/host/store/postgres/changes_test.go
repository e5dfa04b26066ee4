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
	if ids, all := next(t, f); all || len(ids) != 0 {
		t.Errorf("then: got %v, %t", ids, all)
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
	if ids, all := next(t, f); all || !slices.Equal(ids, []wire.RecordID{keyID(2)}) {
		t.Errorf("before the commit: got %v, %t", ids, all)
	}
	// However long it takes, others are told of once: transactions of other databases
	// count here too.
	if ids, all := next(t, f); all || len(ids) != 0 {
		t.Errorf("still before the commit: got %v, %t", ids, all)
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

// age makes what is in the database older.
func age(t *testing.T, s *Store, by time.Duration) {
	t.Helper()
	if _, err := s.pool.Exec(t.Context(), "UPDATE horizons SET at = at - $1::interval", by); err != nil {
		t.Fatal(err)
	}
}

func prune(t *testing.T, s *Store) {
	t.Helper()
	if _, err := s.PruneReplays(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
}

func notes(t *testing.T, s *Store) (n int) {
	t.Helper()
	if err := s.pool.QueryRow(t.Context(), "SELECT count(*) FROM changes").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestPruneChanges(t *testing.T) {
	s := mustOpen(t, pgtest.Database(t), Options{})
	set(t, s, keyID(1), 0, 1)
	if _, err := s.pool.Exec(t.Context(), "INSERT INTO changes (tenant, id, type, version) SELECT tenant, id, type, version FROM records, generate_series(1, 2500)"); err != nil {
		t.Fatal(err)
	}
	prune(t, s)
	age(t, s, keepChanges-time.Minute)
	set(t, s, keyID(1), 1, 2)
	prune(t, s)
	if n := notes(t, s); n != 2501 {
		t.Errorf("before their time: got %d notes, want 2501", n)
	}
	age(t, s, time.Minute)
	prune(t, s)
	if n := notes(t, s); n != 1 {
		t.Errorf("after it: got %d, want the new one", n)
	}
	age(t, s, keepChanges)
	prune(t, s)
	prune(t, s)
	if n := notes(t, s); n != 0 {
		t.Errorf("at last: got %d, want none", n)
	}
	var kept int
	if err := s.pool.QueryRow(t.Context(), "SELECT count(*) FROM horizons").Scan(&kept); err != nil || kept > 3 {
		t.Errorf("got %d snapshots, %v", kept, err)
	}
}

// TestFeedHorizon: whoever has missed notes that were dropped is told so, and
// nobody else is, however wrong the clocks are.
func TestFeedHorizon(t *testing.T) {
	s := mustOpen(t, pgtest.Database(t), Options{})
	set(t, s, keyID(1), 0, 1)
	set(t, s, keyID(2), 0, 1)
	late, early := s.Feed(), s.Feed()
	defer late.Close()
	defer early.Close()
	next(t, early)
	set(t, s, keyID(1), 1, 2)
	next(t, late)
	// A transaction that goes on while notes are dropped loses none of its own.
	tx, err := s.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	if _, err := tx.Exec(t.Context(), insertChange, [16]byte(keyID(3).Tenant), [16]byte(keyID(3).ID), int16(wire.Key), int64(0)); err != nil {
		t.Fatal(err)
	}
	set(t, s, keyID(2), 1, 2)
	if ids, all := next(t, late); all || !slices.Equal(ids, []wire.RecordID{keyID(2)}) {
		t.Errorf("before: got %v, %t", ids, all)
	}
	prune(t, s)
	if ids, all := next(t, late); all || len(ids) != 0 {
		t.Errorf("a snapshot was noted: got %v, %t", ids, all)
	}
	age(t, s, time.Hour) // the server's clock leaps
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	set(t, s, keyID(1), 2, 3)
	prune(t, s)
	if n := notes(t, s); n != 2 {
		t.Errorf("got %d notes, want the two that came after the snapshot", n)
	}
	ids, all := next(t, late)
	if all || len(ids) != 2 || !slices.Contains(ids, keyID(1)) || !slices.Contains(ids, keyID(3)) {
		t.Errorf("who was there: got %v, %t, want keys 1 and 3", ids, all)
	}
	if _, all := next(t, early); !all {
		t.Error("who was not there since: got names, want all")
	}
	if ids, all := next(t, early); all || len(ids) != 0 {
		t.Errorf("then: got %v, %t", ids, all)
	}
}

// TestRestored restores a dump of a server that was ahead: its transactions are
// not those of this one.
func TestRestored(t *testing.T) {
	s := mustOpen(t, pgtest.Database(t), Options{})
	set(t, s, keyID(1), 0, 1)
	for _, sql := range []string{
		"INSERT INTO changes SELECT '900000000000', tenant, id, type, version FROM records",
		"INSERT INTO horizons VALUES ('900000000000', '899999999999:900000000000:899999999999', now() - interval '1 hour')",
		"DELETE FROM horizons WHERE least <> '900000000000'",
	} {
		if _, err := s.pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	f := s.Feed()
	defer f.Close()
	next(t, f)
	set(t, s, keyID(1), 1, 2)
	prune(t, s)
	if ids, _ := next(t, f); !slices.Contains(ids, keyID(1)) {
		t.Errorf("got %v, want key 1", ids)
	}
	next(t, f)
	if ids, all := next(t, f); all || len(ids) != 0 {
		t.Errorf("then: got %v, %t, want nothing", ids, all)
	}
	age(t, s, keepChanges)
	prune(t, s)
	prune(t, s)
	if n := notes(t, s); n != 0 {
		t.Errorf("at last: got %d notes", n)
	}
}

// TestPruneByTwoClocks: a node whose clock is fast does not drop replay entries that
// the others still need.
func TestPruneByTwoClocks(t *testing.T) {
	s := mustOpen(t, pgtest.Database(t), Options{})
	now := time.Now()
	for n, until := range []time.Time{now.Add(10 * time.Minute), now.Add(-10 * time.Minute)} {
		c := store.Change{Replay: &wire.Replay{Tag: wire.Tag{byte(n)}, Until: until.UnixMilli()}}
		if err := s.Apply(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		name  string
		clock time.Time
		want  int
	}{{"slow", now.Add(-time.Hour), 0}, {"fast", now.Add(time.Hour), 1}} {
		if n, err := s.PruneReplays(t.Context(), row.clock.UnixMilli()); n != row.want || err != nil {
			t.Errorf("a clock that is %s: dropped %d, %v, want %d", row.name, n, err, row.want)
		}
	}
}
