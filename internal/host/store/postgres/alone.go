package postgres

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"

	"github.com/jackc/pgx/v5"

	"github.com/ehsm-kms/ehsm/internal/host/store"
)

// Alone runs work if no node of this database runs work of that name now, and
// reports whether it did. The lock is one connection's, and ends with it: work
// whose node has lost the database may then run twice, so it must bear that.
//
// The connection is none of the pool's: works that hold all of those would wait for
// one more for ever.
//
// Names share 64-bit numbers: two that meet keep each other waiting.
func (s *Store) Alone(ctx context.Context, name string, work func(context.Context) error) (ran bool, err error) {
	if s.isClosing() {
		return false, store.ErrClosed
	}
	h := fnv.New64a()
	h.Write([]byte("ehsm " + name))
	number := int64(h.Sum64())
	within, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(within, s.pool.Config().ConnConfig)
	if err != nil {
		return false, fmt.Errorf("lock %q: %w", name, err)
	}
	defer hangUp(conn)
	if err := conn.QueryRow(within, "SELECT pg_try_advisory_lock($1)", number).Scan(&ran); err != nil {
		return false, fmt.Errorf("lock %q: %w", name, err)
	}
	if !ran {
		return false, nil
	}
	return true, errors.Join(work(ctx), s.unlock(ctx, conn, name, number))
}

// unlock gives a lock back before its connection is closed, which the server may
// notice later.
func (s *Store) unlock(ctx context.Context, conn *pgx.Conn, name string, number int64) error {
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.timeout)
	defer cancel()
	held := false
	err := conn.QueryRow(within, "SELECT pg_advisory_unlock($1)", number).Scan(&held)
	if err == nil && !held {
		err = errors.New("it was lost before")
	}
	if err != nil {
		return fmt.Errorf("unlock %q: %w", name, err)
	}
	return nil
}
