package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

const (
	getQuery = `SELECT revision, "primary", hidden, sealed FROM records INDEXED BY names
		WHERE tenant = ? AND id = ? AND type = ? AND version = ?`

	listQuery = `SELECT id, version, revision, "primary", hidden, sealed FROM records INDEXED BY names
		WHERE tenant = ? AND id > ? AND type = ? AND hidden = 0 ORDER BY id LIMIT ?`

	// SQLite uses a partial index only if its condition stands in the query.
	// The type is the number of wire.Key, which is persisted and never changes.
	listKeysQuery = `SELECT id, version, revision, "primary", hidden, sealed FROM records
		WHERE tenant = ? AND id > ? AND type = 2 AND hidden = 0 ORDER BY id LIMIT ?`

	listSecretsQuery = `SELECT id, version, revision, "primary", hidden, sealed FROM records
		WHERE tenant = ? AND id > ? AND type = 5 AND hidden = 0 ORDER BY id LIMIT ?` // as above, wire.Secret

	// Every tenant has one app, of its own ID. The names of tenants are found one by
	// one, each by a look into the index, as they have many records.
	listAppsQuery = `WITH RECURSIVE tenants (id) AS (
		SELECT (SELECT tenant FROM records INDEXED BY names WHERE tenant > ?1 ORDER BY tenant LIMIT 1)
		UNION ALL
		SELECT (SELECT tenant FROM records INDEXED BY names WHERE tenant > tenants.id ORDER BY tenant LIMIT 1) FROM tenants WHERE tenants.id IS NOT NULL)
		SELECT r.id, r.version, r.revision, r."primary", r.hidden, r.sealed FROM tenants CROSS JOIN records r INDEXED BY names
		ON r.tenant = tenants.id AND r.id = tenants.id AND r.type = 1 AND r.version = 0
		WHERE tenants.id IS NOT NULL AND r.hidden = 0 LIMIT ?2`

	listVersionsQuery = `SELECT id, version, revision, "primary", hidden, sealed FROM records INDEXED BY names
		WHERE tenant = ? AND id = ? AND type = ? AND version > ? ORDER BY version LIMIT ?`

	dueQuery = `SELECT type, tenant, id, version FROM records INDEXED BY purges
		WHERE due != 0 AND due <= ? ORDER BY due LIMIT ?`

	sweepsQuery = `SELECT tenant, revision FROM sweeps ORDER BY tenant`
)

// A reader is the connections that read, with their statements.
type reader struct {
	db                                          *sql.DB
	get, list, listKeys, secrets, versions, one *sql.Stmt
	apps                                        *sql.Stmt
	sweeps, due, facts                          *sql.Stmt
	floor, since, slices, scan, count           *sql.Stmt
}

func newReader(ctx context.Context, dsn string, conns int) (*reader, error) {
	db, err := openDB(dsn, conns)
	if err != nil {
		return nil, err
	}
	r := &reader{db: db}
	for _, q := range []struct {
		stmt  **sql.Stmt
		query string
	}{
		{&r.get, getQuery},
		{&r.list, listQuery},
		{&r.apps, listAppsQuery},
		{&r.listKeys, listKeysQuery},
		{&r.secrets, listSecretsQuery},
		{&r.versions, listVersionsQuery},
		{&r.sweeps, sweepsQuery},
		{&r.due, dueQuery},
		{&r.facts, factsQuery},
		{&r.floor, rotationQuery},
		{&r.slices, slicesQuery},
		{&r.since, sinceQuery},
		{&r.scan, scanQuery},
		{&r.count, countQuery},
		{&r.one, `SELECT 1 FROM records LIMIT 1`},
	} {
		if *q.stmt, err = db.PrepareContext(ctx, q.query); err != nil {
			db.Close()
			return nil, fmt.Errorf("prepare %q: %w", q.query, err)
		}
	}
	return r, nil
}

func (r *reader) ping(ctx context.Context) error {
	var n int
	err := r.one.QueryRowContext(ctx).Scan(&n)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	return err
}

// close waits for the queries in progress.
func (r *reader) close() error { return r.db.Close() }

// Get returns the records of ids, in that order and all of one moment. A record
// the store does not have is a Row with its ID and Revision 0.
func (s *Store) Get(ctx context.Context, ids []wire.RecordID) ([]store.Row, error) {
	if s.isClosing() {
		return nil, store.ErrClosed
	}
	rows, err := s.reader.all(ctx, ids)
	if err != nil {
		return nil, s.readError("get records", err)
	}
	return rows, nil
}

func (r *reader) all(ctx context.Context, ids []wire.RecordID) ([]store.Row, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	// A transaction, so that a key and its version come from one state.
	tx, err := r.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer tx.Rollback() // it has nothing to lose
	get := tx.StmtContext(ctx, r.get)
	rows := make([]store.Row, len(ids))
	for i, id := range ids {
		row := store.Row{ID: id}
		err := get.QueryRowContext(ctx, id.Tenant[:], id.ID[:], id.Type, id.Version).
			Scan(&row.Revision, &row.Primary, &row.Hidden, &row.Sealed)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, fmt.Errorf("read %s: %w", id, err)
		}
		row.Tag = wire.SealedTag(row.Sealed)
		rows[i] = row
	}
	return rows, nil
}

// List returns the records that q asks for and that are not hidden, ordered by
// ID, from the first ID above after (the zero UUID: from the start) and at most
// q.Limit of them. Fewer than q.Limit are the last. Versions are listed by their
// common q.ID, ordered by number, from the first above q.After; after does not
// matter then. Apps are listed from the first ID above q.ID, whatever after is. A
// query that mixes these is store.ErrInvalid, as is one for an unknown type.
func (s *Store) List(ctx context.Context, q wire.Query, after wire.UUID) ([]store.Row, error) {
	if s.isClosing() {
		return nil, store.ErrClosed
	}
	if err := store.CheckQuery(q); err != nil {
		return nil, err
	}
	rows, err := s.reader.page(ctx, q, after)
	if err != nil {
		return nil, s.readError(fmt.Sprintf("list %s records of tenant %s", q.Type, q.Tenant), err)
	}
	return rows, nil
}

func (r *reader) query(ctx context.Context, q wire.Query, after wire.UUID) (*sql.Rows, error) {
	switch q.Type {
	case wire.App:
		return r.apps.QueryContext(ctx, q.ID[:], q.Limit)
	case wire.Key:
		return r.listKeys.QueryContext(ctx, q.Tenant[:], after[:], q.Limit)
	case wire.Secret:
		return r.secrets.QueryContext(ctx, q.Tenant[:], after[:], q.Limit)
	case wire.KeyVersion, wire.SecretVersion:
		return r.versions.QueryContext(ctx, q.Tenant[:], q.ID[:], q.Type, q.After, q.Limit)
	}
	return r.list.QueryContext(ctx, q.Tenant[:], after[:], q.Type, q.Limit)
}

func (r *reader) page(ctx context.Context, q wire.Query, after wire.UUID) (page []store.Row, err error) {
	rows, err := r.query(ctx, q, after)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var id sql.RawBytes
	for rows.Next() {
		row := store.Row{ID: wire.RecordID{Type: q.Type, Tenant: q.Tenant}}
		if err := rows.Scan(&id, &row.ID.Version, &row.Revision, &row.Primary, &row.Hidden, &row.Sealed); err != nil {
			return nil, err
		}
		if row.ID.ID, err = uuid(id); err != nil {
			return nil, err
		}
		if q.Type == wire.App {
			row.ID.Tenant = row.ID.ID
		}
		row.Tag = wire.SealedTag(row.Sealed)
		page = append(page, row)
	}
	return page, rows.Err()
}

// Sweeps returns what a write with Sweep has made due and EndSweep has not ended,
// in the order of the tenants' IDs.
func (s *Store) Sweeps(ctx context.Context) ([]store.Sweep, error) {
	if s.isClosing() {
		return nil, store.ErrClosed
	}
	due, err := s.reader.swept(ctx)
	if err != nil {
		return nil, s.readError("list sweeps", err)
	}
	return due, nil
}

func (r *reader) swept(ctx context.Context) (due []store.Sweep, err error) {
	rows, err := r.sweeps.QueryContext(ctx)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var b sql.RawBytes
	for rows.Next() {
		var sweep store.Sweep
		if err := rows.Scan(&b, &sweep.Revision); err != nil {
			return nil, err
		}
		if sweep.Tenant, err = uuid(b); err != nil {
			return nil, err
		}
		due = append(due, sweep)
	}
	return due, rows.Err()
}

// Due returns at most limit secrets whose Due is not 0 and at most now, Unix
// milliseconds, those first that have been due for longest.
func (s *Store) Due(ctx context.Context, now int64, limit int) ([]wire.RecordID, error) {
	if s.isClosing() {
		return nil, store.ErrClosed
	}
	ids, err := s.reader.purges(ctx, now, limit)
	if err != nil {
		return nil, s.readError("list what is due", err)
	}
	return ids, nil
}

func (r *reader) purges(ctx context.Context, now int64, limit int) (ids []wire.RecordID, err error) {
	rows, err := r.due.QueryContext(ctx, now, max(limit, 0))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var tenant, id sql.RawBytes
	for rows.Next() {
		var rec wire.RecordID
		if err = rows.Scan(&rec.Type, &tenant, &id, &rec.Version); err != nil {
			return nil, err
		}
		if rec.Tenant, err = uuid(tenant); err != nil {
			return nil, err
		}
		if rec.ID, err = uuid(id); err != nil {
			return nil, err
		}
		ids = append(ids, rec)
	}
	return ids, rows.Err()
}

func uuid(b []byte) (u wire.UUID, err error) {
	if len(b) != len(u) {
		return u, fmt.Errorf("got an identifier of %d bytes, want %d", len(b), len(u))
	}
	copy(u[:], b)
	return u, nil
}

// readError gives an error of a read its place. One that was caused by Close
// meanwhile is store.ErrClosed.
func (s *Store) readError(doing string, err error) error {
	if s.isClosing() && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return store.ErrClosed
	}
	return fmt.Errorf("%s in store %s: %w", doing, s.path, explain(err))
}
