package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/host/store/postgres"
	"github.com/ehsm-kms/ehsm/internal/host/store/postgres/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// A page is what a program has printed so far.
type page struct {
	mu   sync.Mutex
	text strings.Builder
}

func (p *page) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *page) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

func settingsFor(database string) config.KMS {
	return config.KMS{Database: database, DatabaseConnections: 4, StoreTimeout: 5 * time.Second}
}

func TestOpenStore(t *testing.T) {
	for name, tt := range map[string]struct {
		database string
		feed     bool
	}{
		"SQLite":     {filepath.Join(t.TempDir(), "store.db"), false},
		"PostgreSQL": {pgtest.Database(t), true},
	} {
		db, feed, err := openStore(t.Context(), settingsFor(tt.database), new(page))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := db.Ping(t.Context()); err != nil || (feed != nil) != tt.feed {
			t.Errorf("%s: got %v, with a feed: %t", name, err, feed != nil)
		}
		db.Close()
	}
}

func TestOpenStoreRefuses(t *testing.T) {
	for name, database := range map[string]string{
		"no TLS":         "postgres://ehsm:geheim@db.example.org/ehsm?sslmode=disable",
		"other database": strings.Replace(pgtest.Database(t), "/postgres?", "/none?", 1),
		"other user":     strings.Replace(pgtest.Database(t), "ehsm@", "nobody@", 1),
	} {
		var out page
		_, _, err := openStore(t.Context(), settingsFor(database), &out)
		if err == nil || out.String() != "" || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: got %v after %q, want an error at once", name, err, out.String())
		}
	}
}

// TestOpenStoreWaits starts before its database.
func TestOpenStoreWaits(t *testing.T) {
	server := pgtest.New(t)
	url := server.URL("postgres")
	server.Kill()
	var out page
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, _, err := openStore(ctx, settingsFor(url), &out); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want it to wait", err)
	}
	if !strings.Contains(out.String(), "ehsm-kms: waits for the database: ") || !strings.Contains(out.String(), server.Addr()) {
		t.Errorf("got %q, want what it waits for", out.String())
	}
	opened := make(chan error, 1)
	go func() {
		db, _, err := openStore(t.Context(), settingsFor(url), &out)
		if err == nil {
			err = db.Close()
		}
		opened <- err
	}()
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Errorf("when the database is there: %v", err)
	}
	if postgres.Unreachable(errors.New("other")) {
		t.Error("any error counts as unreachable")
	}
}
