package sqlite

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/host/store/storetest"
)

// reopenable is a Store that the suite can open again.
type reopenable struct{ *Store }

func (r reopenable) Reopen(t *testing.T) storetest.Store {
	return reopenable{mustOpen(t, r.path, Options{})}
}

func TestSuite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Store {
		return reopenable{mustOpen(t, filepath.Join(t.TempDir(), "store.db"), Options{})}
	})
}

// One waiting place and one reading connection make callers wait everywhere.
func TestSuiteNarrow(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Store {
		return reopenable{mustOpen(t, filepath.Join(t.TempDir(), "store.db"), Options{Queue: 1, Readers: 1, Cache: 1})}
	})
}

// mustOpen opens a store that the test closes at its end.
func mustOpen(t *testing.T, path string, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), path, o)
	if err != nil {
		t.Fatalf("Open: got %v, want no error", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: got %v, want no error", err)
		}
	})
	return s
}

func contextEnded(t *testing.T) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx, cancel
}
