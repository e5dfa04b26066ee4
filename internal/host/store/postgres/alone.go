package postgres

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
)

// Alone runs work if no node of this database runs work of that name now, and
// reports whether it did. The lock is one connection's, and ends with it: work
// whose node has lost the database may then run twice, so it must bear that.
//
// Names share 64-bit numbers: two that meet keep each other waiting.
func (s *Store) Alone(ctx context.Context, name string, work func(context.Context) error) (ran bool, err error) {
	conn, err := s.acquire(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Release()
	h := fnv.New64a()
	h.Write([]byte("ehsm " + name))
	number := int64(h.Sum64())
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", number).Scan(&ran); err != nil {
		return false, fmt.Errorf("lock %q: %w", name, err)
	}
	if !ran {
		return false, nil
	}
	err = work(ctx)
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.timeout)
	defer cancel()
	if _, e := conn.Exec(within, "SELECT pg_advisory_unlock($1)", number); e != nil {
		conn.Conn().Close(within) // the server then gives it up
		err = errors.Join(err, fmt.Errorf("unlock %q: %w", name, e))
	}
	return true, err
}
