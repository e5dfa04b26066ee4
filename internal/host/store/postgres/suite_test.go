package postgres

import (
	"os"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/store/postgres/pgtest"
	"github.com/ehsm-kms/ehsm/internal/host/store/storetest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// reopenable is a Store that the suite can open again.
type reopenable struct {
	*Store
	url string
}

func (r reopenable) Reopen(t *testing.T) storetest.Store {
	return reopenable{mustOpen(t, r.url, Options{}), r.url}
}

func TestSuite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Store {
		url := pgtest.Database(t)
		return reopenable{mustOpen(t, url, Options{}), url}
	})
}

// Two connections make callers wait for it.
func TestSuiteNarrow(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Store {
		url := pgtest.Database(t)
		return reopenable{mustOpen(t, url, Options{Connections: 2, Timeout: time.Minute}), url}
	})
}

// mustOpen opens a store that the test closes at its end.
func mustOpen(t *testing.T, url string, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), Target{URL: url}, o)
	if err != nil {
		t.Fatalf("Open: got %v, want no error", err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
