package sqlite

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// bubble runs f with a store whose writer is held by a job: release lets it go on
// and checks the outcome of that job. In the
// bubble, synctest.Wait returns when every caller stands in the queue.
func bubble(t *testing.T, o Options, f func(t *testing.T, s *Store, release func(want error))) {
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(t.Context(), filepath.Join(t.TempDir(), "store.db"), o)
		if err != nil {
			t.Fatal(err)
		}
		hold := make(chan struct{})
		held := apply(t.Context(), s, func(*writer) (refusal, err error) {
			<-hold
			return nil, nil
		})
		synctest.Wait()
		f(t, s, func(want error) {
			close(hold)
			wantErr(t, "job that held the writer", held, want)
		})
		if err := s.Close(); err != nil {
			t.Errorf("Close: got %v, want no error", err)
		}
	})
}

// apply runs a job in the background.
func apply(ctx context.Context, s *Store, run func(*writer) (refusal, err error)) <-chan error {
	done := make(chan error, 1)
	go func() { done <- s.do(ctx, 0, run) }()
	return done
}

// put stores a record in the background.
func put(ctx context.Context, s *Store, id wire.RecordID, expected, revision uint64) <-chan error {
	c := store.Change{Writes: []wire.Write{{ID: id, Expected: expected, Revision: revision, Sealed: make([]byte, 16)}}}
	done := make(chan error, 1)
	go func() { done <- s.Apply(ctx, c) }()
	return done
}

func id(n byte) wire.RecordID {
	return wire.RecordID{Type: wire.Key, Tenant: wire.UUID{1}, ID: wire.UUID{n}}
}

func wantErr(t *testing.T, what string, done <-chan error, want error) {
	t.Helper()
	if err := <-done; !errors.Is(err, want) {
		t.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

func wantStored(t *testing.T, s *Store, id wire.RecordID, want uint64) {
	t.Helper()
	rows, err := s.Get(t.Context(), []wire.RecordID{id})
	if err != nil || rows[0].Revision != want {
		t.Errorf("revision of %s: got %v, %v, want %d", id, rows, err, want)
	}
}

// TestOneBatch puts changes that meet each other into one transaction.
func TestOneBatch(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *Store, release func(want error)) {
		var done []<-chan error
		wait := func(c <-chan error) { // callers queue in this order
			done = append(done, c)
			synctest.Wait()
		}
		ctx := t.Context()
		wait(put(ctx, s, id(1), 0, 1))
		wait(put(ctx, s, id(1), 0, 1)) // the same record: the first wins
		wait(put(ctx, s, id(1), 1, 2)) // builds on the first
		wait(put(ctx, s, id(2), 5, 6)) // must not fail anyone else
		wait(put(ctx, s, id(3), 0, 1))
		if got := s.Stats().Waiting; got != len(done) {
			t.Errorf("Stats: got %d waiting, want %d", got, len(done))
		}
		release(nil)
		for i, want := range []error{nil, store.ErrConflict, nil, store.ErrConflict, nil} {
			wantErr(t, []string{"create", "second create", "update", "update of nothing", "other create"}[i], done[i], want)
		}
		wantStored(t, s, id(1), 2)
		wantStored(t, s, id(2), 0)
		wantStored(t, s, id(3), 1)
		want := store.Stats{Stored: 4, Conflicts: 2, Batches: 1}
		got := s.Stats()
		got.FileBytes, got.LogBytes = 0, 0
		if got != want {
			t.Errorf("Stats: got %+v, want %+v", got, want)
		}
	})
}

// TestBatchFails fails a transaction under changes that had succeeded or been
// refused because of one that had.
func TestBatchFails(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *Store, release func(want error)) {
		ctx, broken := t.Context(), errors.New("disk on fire")
		stored := put(ctx, s, id(1), 0, 1)
		synctest.Wait()
		refused := put(ctx, s, id(1), 0, 1)
		synctest.Wait()
		failed := apply(ctx, s, func(*writer) (refusal, err error) { return nil, broken })
		synctest.Wait()
		next := put(ctx, s, id(2), 0, 1)
		synctest.Wait()
		release(broken) // the job that holds the writer is in the same transaction
		wantErr(t, "change before the failure", stored, broken)
		wantErr(t, "change refused before the failure", refused, broken)
		wantErr(t, "the failure", failed, broken)
		wantErr(t, "change after the failure", next, nil)
		wantStored(t, s, id(1), 0)
		wantStored(t, s, id(2), 1)
		wantErr(t, "second try", put(ctx, s, id(1), 0, 1), nil)
		if st := s.Stats(); st.Failed != 4 || st.Conflicts != 0 {
			t.Errorf("Stats: got %+v, want 4 failed and no conflicts", st)
		}
	})
}

// TestGiveUp ends contexts in every place a change can be in.
func TestGiveUp(t *testing.T) {
	bubble(t, Options{Queue: 1}, func(t *testing.T, s *Store, release func(want error)) {
		queued, cancelQueued := context.WithCancel(t.Context())
		outside, cancelOutside := context.WithCancel(t.Context())
		inQueue := put(queued, s, id(1), 0, 1)
		synctest.Wait()
		waits := put(outside, s, id(2), 0, 1) // the queue is full
		patient := put(t.Context(), s, id(3), 0, 1)
		synctest.Wait()
		cancelOutside()
		wantErr(t, "change outside a full queue", waits, context.Canceled)
		cancelQueued()
		wantErr(t, "change in the queue", inQueue, context.Canceled)
		release(nil)
		wantErr(t, "patient change", patient, nil)
		wantStored(t, s, id(1), 0)
		wantStored(t, s, id(2), 0)
		wantStored(t, s, id(3), 1)
	})
}

// TestTaken ends the context of a change the writer has taken: the outcome is
// awaited.
func TestTaken(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *Store, release func(want error)) {
		ctx, cancel := context.WithCancel(t.Context())
		c := newKey(wire.UUID{1}, make([]byte, 16))
		hold := make(chan struct{})
		taken := apply(ctx, s, func(w *writer) (refusal, err error) {
			<-hold
			return w.apply(&c)
		})
		released := make(chan struct{})
		go func() {
			release(nil)
			close(released)
		}()
		synctest.Wait()
		cancel()
		synctest.Wait()
		select {
		case err := <-taken:
			t.Errorf("Apply: got %v before the outcome was known", err)
		default:
		}
		close(hold)
		wantErr(t, "change whose context ended", taken, nil)
		<-released
		wantStored(t, s, c.Writes[0].ID, 1)
	})
}

// TestCloseWhileWaiting closes the store under a taken change, one in the queue
// and one outside it.
func TestCloseWhileWaiting(t *testing.T) {
	bubble(t, Options{Queue: 1}, func(t *testing.T, s *Store, release func(want error)) {
		ctx := t.Context()
		inQueue := put(ctx, s, id(1), 0, 1)
		synctest.Wait()
		outside := put(ctx, s, id(2), 0, 1)
		synctest.Wait()
		closed := make(chan error, 1)
		go func() { closed <- s.Close() }()
		synctest.Wait()
		wantErr(t, "change outside a full queue", outside, store.ErrClosed)
		select {
		case err := <-closed:
			t.Errorf("Close: got %v while a change was under way", err)
		default:
		}
		release(nil) // it was taken before, so it ends well
		wantErr(t, "Close", closed, nil)
		// The writer may have put the waiting change into the same transaction.
		if err := <-inQueue; err != nil && !errors.Is(err, store.ErrClosed) {
			t.Errorf("change in the queue: got %v, want nil or %v", err, store.ErrClosed)
		}
	})
}

// TestBatchBounds checks that a transaction ends at its limits.
func TestBatchBounds(t *testing.T) {
	for _, tt := range []struct {
		name  string
		jobs  int
		size  int
		batch uint64
	}{
		{"few", 10, 100, 1},
		{"many", maxBatchJobs, 100, 2}, // one with the job that holds the writer is one too many
		{"large", 9, maxBatchBytes / 4, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, Options{}, func(t *testing.T, s *Store, release func(want error)) {
				done := make(chan error)
				for range tt.jobs {
					go func() {
						done <- s.do(t.Context(), tt.size, func(*writer) (refusal, err error) { return nil, nil })
					}()
				}
				synctest.Wait()
				release(nil)
				for range tt.jobs {
					wantErr(t, "job", done, nil)
				}
				if got := s.Stats().Batches; got != tt.batch {
					t.Errorf("Stats: got %d batches, want %d", got, tt.batch)
				}
			})
		})
	}
}

// TestPragmas looks at what the durability of the writer's connection rests on.
func TestPragmas(t *testing.T) {
	s := mustOpen(t, filepath.Join(t.TempDir(), "store.db"), Options{MaxBytes: 1 << 20})
	for name, want := range map[string]int64{
		"synchronous": 2, "page_size": pageSize, "busy_timeout": 5000, "wal_autocheckpoint": checkpointPages,
		"trusted_schema": 0, "application_id": applicationID, "max_page_count": 256, "cache_size": -32 << 10,
	} {
		var got int64
		err := s.do(t.Context(), 0, func(w *writer) (refusal, err error) {
			q, err := w.conn.prepare(t.Context(), "PRAGMA "+name)
			if err != nil {
				return nil, err
			}
			got, _, err = q.number()
			return nil, err
		})
		if err != nil || got != want {
			t.Errorf("%s: got %d, %v, want %d", name, got, err, want)
		}
	}
	var mode string
	if err := s.reader.db.QueryRow("PRAGMA journal_mode").Scan(&mode); err != nil || mode != "wal" {
		t.Errorf("journal_mode: got %q, %v, want wal", mode, err)
	}
	if _, err := s.reader.db.Exec("DELETE FROM records"); err == nil || !strings.Contains(err.Error(), "readonly") {
		t.Errorf("write through a reading connection: got error %v, want readonly", err)
	}
}
