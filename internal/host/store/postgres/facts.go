package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// factMAC is where the MAC of an entry begins, counted from 1.
const factMAC = "75"

const listFacts = `SELECT entry FROM facts WHERE seq > $1 ORDER BY seq LIMIT $2`

// Facts returns entries of the log of negative facts, wire.FactSize bytes each: at
// most limit, from the first with a number above after on. Fewer are the last.
func (s *Store) Facts(ctx context.Context, after uint64, limit int) (entries []byte, err error) {
	err = s.read(ctx, "read the log of negative facts", func(ctx context.Context, c *pgxpool.Conn) error {
		entries = make([]byte, 0, min(limit, 16)*wire.FactSize)
		return rows(ctx, c, func(r pgx.Rows) error {
			var e []byte
			if err := r.Scan(&e); err != nil {
				return err
			}
			entries = append(entries, e...)
			return nil
		}, listFacts, int64(after), limit)
	})
	return entries, err
}

// added reads what became of entries of the log.
func added(next func() (int64, error), f *wire.NewFacts) error {
	if f == nil {
		return nil
	}
	for range len(f.Entries) / wire.FactSize {
		n, err := next()
		if err != nil {
			return err
		}
		if n != 1 {
			return fmt.Errorf("%w: entry %d of the log of negative facts does not follow the last one", store.ErrConflict, f.First)
		}
	}
	return nil
}
