package sqlite

import (
	"context"
	"fmt"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

const (
	rotationQuery = `SELECT floor FROM rotation`
	slicesQuery   = `SELECT slice, done, version, total, looked, refused, compromised, counted, keys, secrets, api_keys, tenants FROM rewraps ORDER BY slice`
	sinceQuery    = `SELECT coalesce(min(since), 0) FROM floors WHERE version > ?`

	scanQuery = `SELECT tenant, id, type, version, revision, "primary", hidden, sealed FROM records INDEXED BY names
		WHERE (tenant, id, type, version) > (?, ?, ?, ?) AND tenant <= ? ORDER BY tenant, id, type, version LIMIT ?`

	countQuery = `SELECT count(*) FROM records INDEXED BY names WHERE tenant BETWEEN ? AND ?`

	reportQuery = `UPDATE rewraps SET done = max(done, ?2), version = ?3, total = ?4, looked = ?5, refused = ?6 WHERE slice = ?1`

	leftQuery = `UPDATE rewraps SET compromised = ?2, counted = ?3, keys = ?4, secrets = ?5, api_keys = ?6, tenants = ?7 WHERE slice = ?1`
)

// Rotation returns under which versions of the DomainKey there are records.
func (s *Store) Rotation(ctx context.Context) (r store.Rotation, err error) {
	if s.isClosing() {
		return r, store.ErrClosed
	}
	if err = s.reader.rotation(ctx, &r); err != nil {
		return r, s.readError("read rotation", err)
	}
	return r, nil
}

func (r *reader) rotation(ctx context.Context, to *store.Rotation) error {
	if err := r.floor.QueryRowContext(ctx).Scan(&to.Floor); err != nil {
		return err
	}
	rows, err := r.slices.QueryContext(ctx)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var n int
		var s store.Slice
		if err := rows.Scan(&n, &s.Done, &s.Version, &s.Total, &s.Looked, &s.Refused,
			&s.Left.Compromised, &s.Left.Counted, &s.Left.Keys, &s.Left.Secrets, &s.Left.APIKeys, &s.Left.Tenants); err != nil {
			return err
		}
		if n >= 0 && n < store.Slices {
			to.Slices[n] = s
		}
	}
	return rows.Err()
}

// RaiseFloor has the store take no record under a version of the DomainKey below
// version, from now on and for good. A lower one than before changes nothing. When
// it returns there is no change under way that may still store such a record.
func (s *Store) RaiseFloor(ctx context.Context, version uint32) error {
	return s.do(ctx, 0, func(w *writer) (refusal, err error) {
		if version < w.floor {
			return nil, nil
		}
		// A transaction that is undone leaves the writer with a floor that is too high;
		// so the same one is written again.
		if _, err := w.setFloor.exec(int64(version)); err != nil {
			return nil, fmt.Errorf("raise floor to version %d: %w", version, err)
		}
		w.floor = version
		if _, err := w.addFloor.exec(int64(version), time.Now().UnixMilli()); err != nil {
			return nil, fmt.Errorf("note the date of version %d: %w", version, err)
		}
		return nil, nil
	})
}

// FloorSince returns when the store began to take no record under a version or an
// earlier one, in Unix milliseconds; 0: it takes them still.
func (s *Store) FloorSince(ctx context.Context, version uint32) (since int64, err error) {
	if s.isClosing() {
		return 0, store.ErrClosed
	}
	if err = s.reader.since.QueryRowContext(ctx, int64(version)).Scan(&since); err != nil {
		return 0, s.readError("read the date of a floor", err)
	}
	return since, nil
}

// Scan returns at most limit records of a slice, hidden ones too, ordered by
// tenant, ID, type and version, from the first above after; the zero RecordID: from
// the start.
func (s *Store) Scan(ctx context.Context, slice int, after wire.RecordID, limit int) ([]store.Row, error) {
	if s.isClosing() {
		return nil, store.ErrClosed
	}
	page, err := s.reader.scanSlice(ctx, slice, after, limit)
	if err != nil {
		return nil, s.readError(fmt.Sprintf("read slice %d", slice), err)
	}
	return page, nil
}

func (r *reader) scanSlice(ctx context.Context, slice int, after wire.RecordID, limit int) (page []store.Row, err error) {
	first, last := store.SliceOf(slice)
	if after == (wire.RecordID{}) {
		after.Tenant = first
	}
	rows, err := r.scan.QueryContext(ctx, after.Tenant[:], after.ID[:], after.Type, after.Version, last[:], limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var row store.Row
		var tenant, id []byte
		if err := rows.Scan(&tenant, &id, &row.ID.Type, &row.ID.Version, &row.Revision, &row.Primary, &row.Hidden, &row.Sealed); err != nil {
			return nil, err
		}
		copy(row.ID.Tenant[:], tenant)
		copy(row.ID.ID[:], id)
		row.Tag = wire.SealedTag(row.Sealed)
		page = append(page, row)
	}
	return page, rows.Err()
}

// Count returns how many records a slice has.
func (s *Store) Count(ctx context.Context, slice int) (n int64, err error) {
	if s.isClosing() {
		return 0, store.ErrClosed
	}
	first, last := store.SliceOf(slice)
	if err = s.reader.count.QueryRowContext(ctx, first[:], last[:]).Scan(&n); err != nil {
		return 0, s.readError(fmt.Sprintf("count records of slice %d", slice), err)
	}
	return n, nil
}

// Rewrap puts records that are wrapped anew in the place of those of the same
// revision, and returns how many. One that has been replaced or removed since is
// left out: what is there now is no older. Nothing is stored with store.ErrFloor,
// store.ErrInvalid (see store.CheckRewraps) and the errors of Apply.
func (s *Store) Rewrap(ctx context.Context, writes []wire.Write) (done int, err error) {
	if err := store.CheckRewraps(writes); err != nil {
		return 0, err
	}
	size := 0
	for i := range writes {
		size += len(writes[i].Sealed)
	}
	err = s.do(ctx, size, func(w *writer) (refusal, err error) {
		done, refusal, err = w.rewrapAll(writes)
		return refusal, err
	})
	if err != nil {
		return 0, err
	}
	return done, nil
}

func (w *writer) rewrapAll(writes []wire.Write) (done int, refusal, err error) {
	for i := range writes {
		if refusal := store.CheckFloor(&writes[i], w.floor); refusal != nil {
			return 0, refusal, nil
		}
	}
	for i := range writes {
		wr := &writes[i]
		n, err := w.rewrap.exec(wr.ID.Tenant[:], wr.ID.ID[:], int64(wr.ID.Type), int64(wr.ID.Version), int64(wr.Revision), wr.Sealed)
		if err != nil {
			return done, nil, fmt.Errorf("wrap %s anew: %w", wr.ID, err)
		}
		done += int(n)
	}
	return done, nil, nil
}

// Report notes how far a slice is. Its Done never goes back.
func (s *Store) Report(ctx context.Context, slice int, r store.Slice) error {
	return s.do(ctx, 0, func(w *writer) (refusal, err error) {
		_, err = w.reportSlice.exec(int64(slice), int64(r.Done), int64(r.Version), r.Total, r.Looked, r.Refused)
		return nil, err
	})
}

// ReportLeft notes what is left of a slice that is to be replaced.
func (s *Store) ReportLeft(ctx context.Context, slice int, l store.Left) error {
	return s.do(ctx, 0, func(w *writer) (refusal, err error) {
		_, err = w.reportLeft.exec(int64(slice), int64(l.Compromised), l.Counted, l.Keys, l.Secrets, l.APIKeys, l.Tenants)
		return nil, err
	})
}
