package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

const (
	readFloor  = `SELECT floor FROM rotation`
	raiseFloor = `UPDATE rotation SET floor = $1 WHERE floor < $1`
	noteFloor  = `INSERT INTO floors (version, since) VALUES ($1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) ON CONFLICT DO NOTHING`
	floorSince = `SELECT coalesce(min(since), 0) FROM floors WHERE version > $1`
	listSlices = `SELECT slice, done, version, total, looked, refused, compromised, counted, keys, secrets, api_keys, tenants FROM rewraps ORDER BY slice`

	// Which transactions may not have ended, and which have.
	firstNew = `SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint`
	ended    = `SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= $1`

	scanSlice = `SELECT tenant, id, type, version, revision, used, hidden, sealed FROM records
		WHERE (tenant, id, type, version) > ($1, $2, $3, $4) AND tenant <= $5 ORDER BY tenant, id, type, version LIMIT $6`

	countSlice = `SELECT count(*) FROM records WHERE tenant BETWEEN $1 AND $2`

	rewrapRecords = `UPDATE records r SET sealed = anew.sealed
		FROM unnest($1::uuid[], $2::uuid[], $3::smallint[], $4::bigint[], $5::bigint[], $6::bytea[]) AS anew (tenant, id, type, version, revision, sealed)
		WHERE r.tenant = anew.tenant AND r.id = anew.id AND r.type = anew.type AND r.version = anew.version AND r.revision = anew.revision`

	reportSlice = `UPDATE rewraps SET done = greatest(done, $2), version = $3, total = $4, looked = $5, refused = $6 WHERE slice = $1`

	reportLeft = `UPDATE rewraps SET compromised = $2, counted = $3, keys = $4, secrets = $5, api_keys = $6, tenants = $7 WHERE slice = $1`
)

// endPoll is between two looks whether transactions have ended.
const endPoll = 10 * time.Millisecond

// Rotation returns under which versions of the DomainKey there are records.
func (s *Store) Rotation(ctx context.Context) (r store.Rotation, err error) {
	err = s.read(ctx, "read rotation", func(ctx context.Context, c *pgxpool.Conn) error {
		if err := c.QueryRow(ctx, readFloor).Scan(&r.Floor); err != nil {
			return err
		}
		return rows(ctx, c, func(row pgx.Rows) error {
			var n int
			var at store.Slice
			if err := row.Scan(&n, &at.Done, &at.Version, &at.Total, &at.Looked, &at.Refused,
				&at.Left.Compromised, &at.Left.Counted, &at.Left.Keys, &at.Left.Secrets, &at.Left.APIKeys, &at.Left.Tenants); err != nil {
				return err
			}
			if n >= 0 && n < store.Slices {
				r.Slices[n] = at
			}
			return nil
		}, listSlices)
	})
	return r, err
}

// RaiseFloor has the store take no record under a version of the DomainKey below
// version, from now on and for good. A lower one than before changes nothing. When
// it returns there is no change under way that may still store such a record: each
// change has a number before it reads the floor, so those that have read an
// earlier one are in progress when this one is stored, and are waited for.
func (s *Store) RaiseFloor(ctx context.Context, version uint32) error {
	if _, err := s.write(ctx, "raise floor", raiseFloor, int64(version)); err != nil {
		return err
	}
	var first int64
	err := s.read(ctx, "look for changes under way", func(ctx context.Context, c *pgxpool.Conn) error {
		return c.QueryRow(ctx, firstNew).Scan(&first)
	})
	for over := false; err == nil && !over; {
		err = s.read(ctx, "wait for changes under way", func(ctx context.Context, c *pgxpool.Conn) error {
			return c.QueryRow(ctx, ended, first).Scan(&over)
		})
		if err == nil && !over {
			select {
			case <-ctx.Done():
				err = ctx.Err()
			case <-time.After(endPoll):
			}
		}
	}
	if err != nil {
		return err
	}
	_, err = s.write(ctx, "note the date of a floor", noteFloor, int64(version))
	return err
}

// FloorSince returns when the store began to take no record under a version or an
// earlier one, in Unix milliseconds; 0: it takes them still.
func (s *Store) FloorSince(ctx context.Context, version uint32) (since int64, err error) {
	err = s.read(ctx, "read the date of a floor", func(ctx context.Context, c *pgxpool.Conn) error {
		return c.QueryRow(ctx, floorSince, int64(version)).Scan(&since)
	})
	return since, err
}

// Scan returns at most limit records of a slice, hidden ones too, ordered by
// tenant, ID, type and version, from the first above after; the zero RecordID: from
// the start.
func (s *Store) Scan(ctx context.Context, slice int, after wire.RecordID, limit int) (page []store.Row, err error) {
	first, last := store.SliceOf(slice)
	if after == (wire.RecordID{}) {
		after.Tenant = first
	}
	err = s.read(ctx, fmt.Sprintf("read slice %d", slice), func(ctx context.Context, c *pgxpool.Conn) error {
		return rows(ctx, c, func(r pgx.Rows) error {
			var row store.Row
			var kind int16
			var version, revision, used int64
			if err := r.Scan((*[16]byte)(&row.ID.Tenant), (*[16]byte)(&row.ID.ID), &kind, &version, &revision, &used, &row.Hidden, &row.Sealed); err != nil {
				return err
			}
			row.ID.Type, row.ID.Version, row.Revision, row.Primary = wire.RecordType(kind), uint32(version), uint64(revision), uint32(used)
			row.Tag = wire.SealedTag(row.Sealed)
			page = append(page, row)
			return nil
		}, scanSlice, [16]byte(after.Tenant), [16]byte(after.ID), int16(after.Type), int64(after.Version), [16]byte(last), max(limit, 0))
	})
	return page, err
}

// Count returns how many records a slice has.
func (s *Store) Count(ctx context.Context, slice int) (n int64, err error) {
	first, last := store.SliceOf(slice)
	err = s.read(ctx, fmt.Sprintf("count records of slice %d", slice), func(ctx context.Context, c *pgxpool.Conn) error {
		return c.QueryRow(ctx, countSlice, [16]byte(first), [16]byte(last)).Scan(&n)
	})
	return n, err
}

// Rewrap puts records that are wrapped anew in the place of those of the same
// revision, and returns how many. One that has been replaced or removed since is
// left out: what is there now is no older. Nothing is stored with store.ErrFloor
// and store.ErrInvalid (see store.CheckRewraps); after any other error all or
// nothing may be, and the same records may be wrapped again.
func (s *Store) Rewrap(ctx context.Context, writes []wire.Write) (done int, err error) {
	if err := store.CheckRewraps(writes); err != nil {
		return 0, err
	}
	conn, err := s.acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Release()
	within, cancel := s.finish(ctx)
	defer cancel()
	err = s.repeat(within, func() (err error) {
		done, err = rewrap(within, conn, writes)
		return err
	})
	switch {
	case errors.Is(err, store.ErrFloor):
	case err != nil:
		s.failed(err)
		err = fmt.Errorf("wrap %d records anew: %w", len(writes), err)
	}
	return done, err
}

// rewrap is one try.
func rewrap(ctx context.Context, conn *pgxpool.Conn, writes []wire.Write) (done int, err error) {
	tenants, ids := make([][16]byte, len(writes)), make([][16]byte, len(writes))
	types, versions, revisions := make([]int16, len(writes)), make([]int64, len(writes)), make([]int64, len(writes))
	sealed := make([][]byte, len(writes))
	for i := range writes {
		w := &writes[i]
		tenants[i], ids[i], types[i], versions[i] = w.ID.Tenant, w.ID.ID, int16(w.ID.Type), int64(w.ID.Version)
		revisions[i], sealed[i] = int64(w.Revision), w.Sealed
	}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, rewrapRecords, tenants, ids, types, versions, revisions, sealed)
		if err != nil {
			return err
		}
		done = int(tag.RowsAffected())
		var floor int64
		if err := tx.QueryRow(ctx, readFloor).Scan(&floor); err != nil {
			return err
		}
		for i := range writes {
			if err := store.CheckFloor(&writes[i], uint32(floor)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return done, nil
}

// Report notes how far a slice is. Its Done never goes back.
func (s *Store) Report(ctx context.Context, slice int, r store.Slice) error {
	_, err := s.write(ctx, "note how far a slice is", reportSlice, int16(slice), int64(r.Done), int64(r.Version), r.Total, r.Looked, r.Refused)
	return err
}

// ReportLeft notes what is left of a slice that is to be replaced.
func (s *Store) ReportLeft(ctx context.Context, slice int, l store.Left) error {
	_, err := s.write(ctx, "note what is to be replaced", reportLeft, int16(slice), int64(l.Compromised), l.Counted, l.Keys, l.Secrets, l.APIKeys, l.Tenants)
	return err
}
