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

//go:embed postgres/*.sql
var postgres embed.FS

// migrating is the advisory lock of PostgreSQL that is held while a schema is
// brought up to date: "ehsmigra" in ASCII.
const migrating = 0x6568736d69677261

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

// Postgres does the same for the PostgreSQL database db. Of several nodes that
// start at once one migrates while the others wait. A node that dies half-way
// leaves no lock, and of the migration it was in, nothing.
func Postgres(ctx context.Context, db *sql.DB) (err error) {
	files, err := fs.Sub(postgres, "postgres")
	if err != nil {
		return fmt.Errorf("read embedded migrations: %w", err)
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	// The lock is the session's, and ends with it.
	if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", int64(migrating)); err != nil {
		return fmt.Errorf("wait for other nodes to migrate the schema: %w", err)
	}
	defer func() {
		_, e := conn.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", int64(migrating))
		err = errors.Join(err, e)
	}()
	return up(ctx, goose.DialectPostgres, db, files)
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
