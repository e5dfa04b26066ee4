package postgres

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/host/store/migrations"
	"github.com/ehsm-kms/ehsm/internal/host/store/postgres/pgtest"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// TestStartTogether opens an empty database from many nodes at once.
func TestStartTogether(t *testing.T) {
	url := pgtest.Database(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s, err := Open(t.Context(), Target{URL: url}, Options{Connections: 2})
			if err != nil {
				t.Errorf("Open: %v", err)
				return
			}
			if err := s.Ping(t.Context()); err != nil {
				t.Errorf("Ping: %v", err)
			}
			s.Close()
		})
	}
	wg.Wait()
}

// TestMigrationCutOff has a node die while it migrates: the next one starts as
// if it had not been there.
func TestMigrationCutOff(t *testing.T) {
	url := pgtest.Database(t)
	holder := mustOpen(t, pgtest.Database(t), Options{})
	conn, err := holder.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	// The lock of somebody who migrates and hangs.
	if _, err := conn.Exec(t.Context(), "SELECT pg_advisory_lock($1)", int64(0x6568736d69677261)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, Target{URL: url}, Options{}); err == nil || !strings.Contains(err.Error(), "wait for other nodes to migrate the schema") {
		t.Errorf("while it hangs: got %v", err)
	}
	_, err = Open(t.Context(), Target{URL: url}, Options{Timeout: 300 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "wait for other nodes to migrate the schema") || !Unreachable(err) {
		t.Errorf("while it hangs, for the store's time: got %v, want one that may go away", err)
	}
	var pid int
	if err := conn.QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
		t.Fatal(err)
	}
	if _, err := holder.pool.Exec(t.Context(), "SELECT pg_terminate_backend($1)", pid); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, url, Options{})
}

func TestNewer(t *testing.T) {
	url := pgtest.Database(t)
	s := mustOpen(t, url, Options{})
	if _, err := s.pool.Exec(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (90000, true)"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Target{URL: url}, Options{}); !errors.Is(err, migrations.ErrNewer) {
		t.Errorf("got %v, want ErrNewer", err)
	}
}

// TestDeadlock has changes take the same rows in opposite orders, which
// PostgreSQL ends by giving one up.
func TestDeadlock(t *testing.T) {
	s := mustOpen(t, pgtest.Database(t), Options{Timeout: time.Minute})
	set(t, s, keyID(1), 0, 1)
	set(t, s, keyID(2), 0, 1)
	change := func(ids ...wire.RecordID) error {
		rows, err := s.Get(t.Context(), ids)
		if err != nil {
			return err
		}
		var c store.Change
		for i, id := range ids {
			c.Writes = append(c.Writes, wire.Write{ID: id, Expected: rows[i].Revision, Revision: rows[i].Revision + 1, Sealed: make([]byte, 16)})
		}
		return s.Apply(t.Context(), c)
	}
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for range 5 {
				ids := []wire.RecordID{keyID(1), keyID(2)}
				if n%2 == 0 {
					ids[0], ids[1] = ids[1], ids[0]
				}
				if err := change(ids...); err != nil && !errors.Is(err, store.ErrConflict) {
					t.Errorf("got %v, want nil or a conflict", err)
				}
			}
		})
	}
	wg.Wait()
	rows, err := s.Get(t.Context(), []wire.RecordID{keyID(1), keyID(2)})
	if err != nil || rows[0].Revision != rows[1].Revision || rows[0].Revision != s.Stats().Stored-1 {
		t.Errorf("got revisions %d and %d after %d changes, %v", rows[0].Revision, rows[1].Revision, s.Stats().Stored, err)
	}
}

// TestKilled kills the server under load and starts it again: what was
// acknowledged is there, and the store goes on by itself.
func TestKilled(t *testing.T) {
	server := pgtest.New(t)
	s := mustOpen(t, server.URL("postgres"), Options{Timeout: 5 * time.Second})
	var mu sync.Mutex
	acknowledged := map[wire.RecordID]bool{}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	failed := make(chan struct{}, 1)
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				id := wire.RecordID{Type: wire.Key, Tenant: wire.UUID{1}, ID: wire.NewUUID()}
				err := s.Apply(t.Context(), store.Change{Writes: []wire.Write{{ID: id, Revision: 1, Sealed: make([]byte, 300)}}})
				if err != nil {
					select {
					case failed <- struct{}{}:
					default:
					}
					time.Sleep(5 * time.Millisecond) // the server is away
					continue
				}
				mu.Lock()
				acknowledged[id] = true
				mu.Unlock()
			}
		})
	}
	for round := range 3 {
		for mu.Lock(); len(acknowledged) < 50*(round+1); mu.Lock() {
			mu.Unlock()
			time.Sleep(time.Millisecond)
		}
		mu.Unlock()
		server.Kill()
		<-failed
		if err := s.Ping(t.Context()); err == nil {
			t.Error("Ping of a dead server: got no error")
		}
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
	ids := make([]wire.RecordID, 0, len(acknowledged))
	for id := range acknowledged {
		ids = append(ids, id)
	}
	rows, err := s.Get(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if r.Revision != 1 {
			t.Errorf("%s was acknowledged and is lost", r.ID)
		}
	}
	t.Logf("%d acknowledged changes in 3 crashes", len(ids))
}

// TestUnstored: where no commit was asked for, it is certain that nothing is stored.
func TestUnstored(t *testing.T) {
	url := pgtest.Database(t)
	s, other := mustOpen(t, url, Options{Connections: 2, Timeout: 300 * time.Millisecond}), mustOpen(t, url, Options{})
	refuse := func(name string) {
		t.Helper()
		if err := s.Apply(t.Context(), creation(1, 7)); !errors.Is(err, store.ErrUnstored) {
			t.Errorf("%s: got %v, want ErrUnstored", name, err)
		}
	}
	for _, sql := range []string{"ALTER TABLE records ADD CHECK (revision > 1)", "ALTER TABLE records DROP CONSTRAINT records_revision_check"} {
		if _, err := s.pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(sql, "ADD") {
			refuse("the server refuses a row, as it does when its disk is full")
		}
	}
	tx, err := other.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "LOCK TABLE records"); err != nil {
		t.Fatal(err)
	}
	refuse("a row is locked for too long")
	tx.Rollback(t.Context())
	for range 2 {
		conn, err := s.pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
	}
	refuse("no connection is free")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Apply(ended, creation(1, 7)); !errors.Is(err, store.ErrUnstored) || !errors.Is(err, context.Canceled) {
		t.Errorf("ended: got %v", err)
	}
}
