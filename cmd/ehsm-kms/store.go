package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/host/relay"
	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/host/store/migrations"
	"github.com/ehsm-kms/ehsm/internal/host/store/postgres"
	"github.com/ehsm-kms/ehsm/internal/host/store/sqlite"
)

// A database is the store of this node.
type database interface {
	relay.Store
	relay.Sweeps
	Ping(context.Context) error
	Stats() store.Stats
	Close() error
}

// openStore opens the store that the settings name. With it comes the feed of
// what other nodes change, if there can be any. It waits for a PostgreSQL that
// cannot be reached yet, and says so.
func openStore(ctx context.Context, settings config.KMS, stderr io.Writer) (database, *postgres.Feed, error) {
	if !postgres.IsURL(settings.Database) {
		db, err := sqlite.Open(ctx, settings.Database, sqlite.Options{})
		return db, nil, err
	}
	target := postgres.Target{URL: settings.Database, PasswordFile: settings.DatabasePassword}
	options := postgres.Options{Connections: settings.DatabaseConnections, Timeout: settings.StoreTimeout}
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		db, err := postgres.Open(ctx, target, options)
		switch {
		case err == nil:
			return db, db.Feed(), nil
		case ctx.Err() != nil:
			return nil, nil, ctx.Err()
		case !postgres.Unreachable(err), errors.Is(err, migrations.ErrNewer):
			return nil, nil, err
		}
		fmt.Fprintf(stderr, "ehsm-kms: waits for the database: %v\n", err)
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}
