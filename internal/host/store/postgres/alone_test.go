package postgres

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/store/postgres/pgtest"
)

func TestAlone(t *testing.T) {
	url := pgtest.Database(t)
	a, b := mustOpen(t, url, Options{}), mustOpen(t, url, Options{})
	failed := errors.New("failed")
	nothing := func(context.Context) error { return nil }
	ran, err := a.Alone(t.Context(), "work", func(ctx context.Context) error {
		for _, s := range []*Store{a, b} {
			if ran, err := s.Alone(ctx, "work", nothing); ran || err != nil {
				t.Errorf("the same work at the same time: got %t, %v", ran, err)
			}
		}
		if ran, err := b.Alone(ctx, "other work", nothing); !ran || err != nil {
			t.Errorf("other work: got %t, %v", ran, err)
		}
		return failed
	})
	if !ran || !errors.Is(err, failed) {
		t.Errorf("got %t, %v", ran, err)
	}
	if ran, err := b.Alone(t.Context(), "work", nothing); !ran || err != nil {
		t.Errorf("afterwards: got %t, %v", ran, err)
	}
	// A node that loses its connection loses the lock.
	a.Alone(t.Context(), "work", func(ctx context.Context) error {
		if _, err := b.pool.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_locks
			WHERE locktype = 'advisory' AND pid <> pg_backend_pid()`); err != nil {
			t.Fatal(err)
		}
		for { // the server takes a moment
			if ran, err := b.Alone(ctx, "work", nothing); err != nil {
				t.Fatalf("after the other was cut off: %v", err)
			} else if ran {
				return nil
			}
		}
	})
}

// TestAloneLeavesTheConnections: works that are alone, more than there are
// connections for requests, find one for what they do.
func TestAloneLeavesTheConnections(t *testing.T) {
	s := mustOpen(t, pgtest.Database(t), Options{Connections: 2, Timeout: 5 * time.Second})
	var inside, wg sync.WaitGroup
	inside.Add(3)
	for _, name := range []string{"sweep", "purge", "prune"} {
		wg.Go(func() {
			ran, err := s.Alone(t.Context(), name, func(ctx context.Context) error {
				inside.Done()
				inside.Wait()
				return s.Ping(ctx)
			})
			if !ran || err != nil {
				t.Errorf("%s: got %t, %v", name, ran, err)
			}
		})
	}
	wg.Wait()
}
