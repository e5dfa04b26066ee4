// Package migrations holds the schema of the record store, one set of numbered
// SQL files for each dialect, and brings a database up to it. Migrations go
// forward only: a released file is never changed, and a database written by a
// newer program is refused.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
)

// ErrNewer says that a newer version of the program has migrated the database.
var ErrNewer = errors.New("database was migrated by a newer version of this program")

//go:embed sqlite/*.sql
var sqlite embed.FS

// SQLite brings the SQLite database db up to the newest schema, each migration
// in a transaction of its own. It does nothing to a database that is up to date
// and returns ErrNewer, before any change, for one that is ahead.
func SQLite(ctx context.Context, db *sql.DB) error {
	files, err := fs.Sub(sqlite, "sqlite")
	if err != nil {
		return fmt.Errorf("read embedded migrations: %w", err)
	}
	return up(ctx, goose.DialectSQLite3, db, files)
}

func up(ctx context.Context, d goose.Dialect, db *sql.DB, files fs.FS) error {
	// Nothing another package may have registered belongs to this schema.
	p, err := goose.NewProvider(d, db, files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	have, want, err := p.GetVersions(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("read schema version: %w", err)
	case have > want:
		return fmt.Errorf("%w: schema version %d, this program knows up to %d", ErrNewer, have, want)
	case have == want:
		return nil
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate schema from version %d to %d: %w", have, want, err)
	}
	return nil
}
