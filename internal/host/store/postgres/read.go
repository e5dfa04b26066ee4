package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

const (
	// One statement, so that a key and its version come from one state.
	getRecords = `SELECT asked.place, r.revision, r.used, r.hidden, r.sealed
		FROM unnest($1::uuid[], $2::uuid[], $3::smallint[], $4::bigint[]) WITH ORDINALITY AS asked (tenant, id, type, version, place)
		JOIN records r ON r.tenant = asked.tenant AND r.id = asked.id AND r.type = asked.type AND r.version = asked.version`

	listRecords = `SELECT id, version, revision, used, hidden, sealed FROM records
		WHERE tenant = $1 AND type = $2 AND id > $3 AND NOT hidden ORDER BY id LIMIT $4`

	// The partial index counts only for a condition that stands in the query.
	listNamed = `SELECT id, version, revision, used, hidden, sealed FROM records
		WHERE tenant = $1 AND type = $2 AND id > $3 AND NOT hidden AND type IN (1, 2, 5) ORDER BY id LIMIT $4`

	// Every tenant has one app, of its own ID. The names of tenants are found one by
	// one, each by a look into the index, as they have many records.
	listApps = `WITH RECURSIVE tenants (id) AS (
		(SELECT tenant FROM records WHERE tenant > $1::uuid ORDER BY tenant LIMIT 1)
		UNION ALL
		SELECT next.tenant FROM tenants, LATERAL (SELECT tenant FROM records WHERE tenant > tenants.id ORDER BY tenant LIMIT 1) next)
		SELECT r.id, r.version, r.revision, r.used, r.hidden, r.sealed FROM tenants, LATERAL (
			SELECT id, version, revision, used, hidden, sealed FROM records
			WHERE tenant = tenants.id AND id = tenants.id AND type = 1 AND version = 0 LIMIT 1) r
		WHERE NOT r.hidden LIMIT $2`

	listVersions = `SELECT id, version, revision, used, hidden, sealed FROM records
		WHERE tenant = $1 AND type = $2 AND id = $3 AND version > $4 ORDER BY version LIMIT $5`

	listDue = `SELECT tenant, id, type, version FROM records WHERE due <> 0 AND due <= $1 ORDER BY due LIMIT $2`
)

// Get returns the records of ids, in that order and all of one moment. A record
// the store does not have is a Row with its ID and Revision 0.
func (s *Store) Get(ctx context.Context, ids []wire.RecordID) ([]store.Row, error) {
	if len(ids) == 0 {
		return nil, s.check(ctx)
	}
	tenants, names := make([][16]byte, len(ids)), make([][16]byte, len(ids))
	types, versions := make([]int16, len(ids)), make([]int64, len(ids))
	got := make([]store.Row, len(ids))
	for i, id := range ids {
		got[i].ID = id
		tenants[i], names[i], types[i], versions[i] = id.Tenant, id.ID, int16(id.Type), int64(id.Version)
	}
	err := s.read(ctx, "get records", func(ctx context.Context, c *pgxpool.Conn) error {
		return rows(ctx, c, func(r pgx.Rows) error {
			var place, revision, used int64
			var row store.Row
			if err := r.Scan(&place, &revision, &used, &row.Hidden, &row.Sealed); err != nil {
				return err
			}
			row.ID, row.Revision, row.Primary, row.Tag = ids[place-1], uint64(revision), uint32(used), wire.SealedTag(row.Sealed)
			got[place-1] = row
			return nil
		}, getRecords, tenants, names, types, versions)
	})
	if err != nil {
		return nil, err
	}
	return got, nil
}

// check reports whether a call that needs no connection may go on.
func (s *Store) check(ctx context.Context) error {
	if s.isClosing() {
		return store.ErrClosed
	}
	return ctx.Err()
}

// List returns the records that q asks for and that are not hidden, ordered by
// ID, from the first ID above after (the zero UUID: from the start) and at most
// q.Limit of them. Fewer than q.Limit are the last. Versions are listed by their
// common q.ID, ordered by number, from the first above q.After; after does not
// matter then. Apps are listed from the first ID above q.ID, whatever after is. A
// query that mixes these is store.ErrInvalid, as is one for an unknown type.
func (s *Store) List(ctx context.Context, q wire.Query, after wire.UUID) (page []store.Row, err error) {
	if err := store.CheckQuery(q); err != nil {
		return nil, err
	}
	tenant := [16]byte(q.Tenant)
	sql, args := listRecords, []any{tenant, int16(q.Type), [16]byte(after), q.Limit}
	switch q.Type {
	case wire.App:
		sql, args = listApps, []any{[16]byte(q.ID), q.Limit}
	case wire.Key, wire.Secret:
		sql = listNamed
	case wire.KeyVersion, wire.SecretVersion:
		sql, args = listVersions, []any{tenant, int16(q.Type), [16]byte(q.ID), int64(q.After), q.Limit}
	}
	doing := fmt.Sprintf("list %s records of tenant %s", q.Type, q.Tenant)
	err = s.read(ctx, doing, func(ctx context.Context, c *pgxpool.Conn) error {
		return rows(ctx, c, func(r pgx.Rows) error {
			row := store.Row{ID: wire.RecordID{Type: q.Type, Tenant: q.Tenant}}
			var version, revision, used int64
			if err := r.Scan((*[16]byte)(&row.ID.ID), &version, &revision, &used, &row.Hidden, &row.Sealed); err != nil {
				return err
			}
			if q.Type == wire.App {
				row.ID.Tenant = row.ID.ID
			}
			row.ID.Version, row.Revision, row.Primary = uint32(version), uint64(revision), uint32(used)
			row.Tag = wire.SealedTag(row.Sealed)
			page = append(page, row)
			return nil
		}, sql, args...)
	})
	return page, err
}

// Sweeps returns what a write with Sweep has made due and EndSweep has not ended,
// in the order of the tenants' IDs.
func (s *Store) Sweeps(ctx context.Context) (due []store.Sweep, err error) {
	err = s.read(ctx, "list sweeps", func(ctx context.Context, c *pgxpool.Conn) error {
		return rows(ctx, c, func(r pgx.Rows) error {
			var sweep store.Sweep
			var revision int64
			err := r.Scan((*[16]byte)(&sweep.Tenant), &revision)
			sweep.Revision = uint64(revision)
			due = append(due, sweep)
			return err
		}, "SELECT tenant, revision FROM sweeps ORDER BY tenant")
	})
	return due, err
}

// Due returns at most limit secrets whose Due is not 0 and at most now, Unix
// milliseconds, those first that have been due for longest.
func (s *Store) Due(ctx context.Context, now int64, limit int) (ids []wire.RecordID, err error) {
	err = s.read(ctx, "list what is due", func(ctx context.Context, c *pgxpool.Conn) error {
		return rows(ctx, c, func(r pgx.Rows) error {
			var id wire.RecordID
			var kind int16
			var version int64
			if err := r.Scan((*[16]byte)(&id.Tenant), (*[16]byte)(&id.ID), &kind, &version); err != nil {
				return err
			}
			id.Type, id.Version = wire.RecordType(kind), uint32(version)
			ids = append(ids, id)
			return nil
		}, listDue, now, max(limit, 0))
	})
	return ids, err
}
