package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

const factsQuery = `SELECT entry FROM facts WHERE seq > ? ORDER BY seq LIMIT ?`

// Facts returns entries of the log of negative facts, wire.FactSize bytes each: at
// most limit, from the first with a number above after on. Fewer are the last.
func (s *Store) Facts(ctx context.Context, after uint64, limit int) ([]byte, error) {
	if s.isClosing() {
		return nil, store.ErrClosed
	}
	entries, err := s.reader.log(ctx, after, limit)
	if err != nil {
		return nil, s.readError("read the log of negative facts", err)
	}
	return entries, nil
}

func (r *reader) log(ctx context.Context, after uint64, limit int) ([]byte, error) {
	rows, err := r.facts.QueryContext(ctx, int64(after), limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	entries := []byte{}
	var e sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&e); err != nil {
			return nil, err
		}
		entries = append(entries, e...)
	}
	return entries, rows.Err()
}

// checkFacts refuses entries that do not follow the last one.
func (w *writer) checkFacts(f *wire.NewFacts) (refusal, err error) {
	if f == nil {
		return nil, nil
	}
	last, _, err := w.lastFact.number()
	if err != nil {
		return nil, fmt.Errorf("look for the end of the log: %w", err)
	}
	if uint64(last) != f.First-1 {
		return fmt.Errorf("%w: entry %d of the log of negative facts does not follow %d", store.ErrConflict, f.First, last), nil
	}
	if last == 0 {
		return nil, nil
	}
	_, found, err := w.factBefore.number(last, f.Previous[:])
	if err != nil {
		return nil, fmt.Errorf("look at the end of the log: %w", err)
	}
	if !found {
		return fmt.Errorf("%w: entry %d of the log of negative facts follows another one", store.ErrConflict, f.First), nil
	}
	return nil, nil
}

func (w *writer) addFacts(f *wire.NewFacts) error {
	if f == nil {
		return nil
	}
	seq := int64(f.First)
	for e := range slices.Chunk(f.Entries, wire.FactSize) {
		if _, err := w.addFact.exec(seq, e); err != nil {
			return fmt.Errorf("write entry %d of the log: %w", seq, err)
		}
		seq++
	}
	return nil
}
