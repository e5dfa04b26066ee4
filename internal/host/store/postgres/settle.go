package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// touchRecord changes nothing, but its commit waits for all that a commit has to
// wait for: it is later in the log than what it has found.
const touchRecord = `UPDATE records SET revision = revision
	WHERE tenant = $1 AND id = $2 AND type = $3 AND version = $4 AND revision = $5 AND sealed = $6`

// Settle gives a change an outcome of which Apply could not tell it. It returns
// nil if c is stored, as durably as any other change, store.ErrConflict or
// store.ErrReplayed if nothing of it is nor ever will be; after any other error
// nothing is known and Settle may be called again.
//
// To look into the table is not enough. The transaction may be about to commit:
// the server has the word, the connection is gone. And one that waited for a
// synchronous standby when the connection went is visible, but may be lost yet.
// So the change is tried once more: its replay entry and the rows that it replaces
// are those of the first try, and what the server still does about that has an
// end before the second one goes on.
func (s *Store) Settle(ctx context.Context, c store.Change) error {
	s.counts.settled.Add(1)
	err := s.change(ctx, &c)
	switch {
	case errors.Is(err, store.ErrReplayed):
	case errors.Is(err, store.ErrConflict) && c.Replay == nil:
	default:
		return s.count(err) // a conflict of a change whose replay entry was not there is one with others
	}
	stored, lost := s.holds(ctx, &c)
	switch {
	case lost != nil:
		return fmt.Errorf("settle change: %w", lost)
	case stored:
		err = nil
	}
	return s.count(err)
}

// holds reports whether c is stored. They are there together or not at all, so
// one write that is found stands for all.
func (s *Store) holds(ctx context.Context, c *store.Change) (bool, error) {
	var ids []wire.RecordID
	var wrote []*wire.Write
	for i := range c.Writes {
		w := &c.Writes[i]
		if w.Remove {
			continue // it says nothing: there may have been no such record
		}
		n, err := s.confirm(ctx, w, w.Sealed)
		if err != nil || n == 1 {
			return n == 1, err
		}
		ids, wrote = append(ids, w.ID), append(wrote, w)
	}
	if len(ids) == 0 {
		return false, errors.New("nothing stored tells this change from another one of the same request")
	}
	rows, err := s.Get(ctx, ids)
	if err != nil {
		return false, err
	}
	for i := range rows {
		w := wrote[i]
		switch {
		case rows[i].Revision > w.Revision:
			return false, fmt.Errorf("%s was replaced since, perhaps after this change", ids[i])
		case rows[i].Revision == w.Revision && rows[i].Tag == w.Tag(): // wrapped anew since
			n, err := s.confirm(ctx, w, rows[i].Sealed)
			if err == nil && n == 0 {
				err = fmt.Errorf("%s is being replaced", ids[i])
			}
			return n == 1, err
		}
	}
	return false, nil
}

// confirm touches the record that w has written, if it is still there, and
// returns how many that is.
func (s *Store) confirm(ctx context.Context, w *wire.Write, sealed []byte) (int64, error) {
	return s.write(ctx, "confirm change", touchRecord, [16]byte(w.ID.Tenant), [16]byte(w.ID.ID), int16(w.ID.Type),
		int64(w.ID.Version), int64(w.Revision), sealed)
}
