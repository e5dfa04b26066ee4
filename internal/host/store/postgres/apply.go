package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

const (
	insertRecord = `INSERT INTO records (tenant, id, type, version, revision, used, hidden, due, sealed)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING`

	updateRecord = `UPDATE records SET revision = $5, used = $6, hidden = $7, due = $8, sealed = $9
		WHERE tenant = $1 AND id = $2 AND type = $3 AND version = $4 AND revision = $10`

	removeRecord = `DELETE FROM records WHERE tenant = $1 AND id = $2 AND type = $3 AND version = $4`
	removeAll    = `DELETE FROM records WHERE tenant = $1 AND id = $2 AND type = $3`

	insertReplay = `INSERT INTO replays (tenant, tag, until) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`
	insertSweep  = `INSERT INTO sweeps (tenant, revision) VALUES ($1, $2)
		ON CONFLICT (tenant) DO UPDATE SET revision = excluded.revision`
	// Only behind the entry that it was made to follow, whose MAC is $3.
	insertFact = `INSERT INTO facts (seq, entry) SELECT $1, $2
		WHERE $1 = 1::bigint OR EXISTS (SELECT FROM facts WHERE seq = $1 - 1 AND substring(entry FROM ` + factMAC + `) = $3::bytea) ON CONFLICT DO NOTHING`
	insertChange = `INSERT INTO changes (tenant, id, type, version) VALUES ($1, $2, $3, $4)`
)

// Bounds on repeating a change that PostgreSQL gave up for others.
const (
	maxTries = 10
	firstTry = 2 * time.Millisecond // the longest pause after the first try; it doubles
)

// Apply stores c as a whole or not at all; it is durable when Apply returns nil.
// A write with Expected 0 creates its record, any other replaces the record of
// that revision. A removal deletes what there is, if anything.
//
// Nothing is stored if it returns store.ErrConflict (another revision is there),
// store.ErrReplayed (the replay entry is there), store.ErrFloor (see RaiseFloor),
// store.ErrInvalid (see store.Change.Check), or store.ErrUnstored (the database failed before the commit;
// with store.ErrClosed the store has been closed). The end of ctx counts only until
// the change has a connection: after that the outcome is awaited, until the deadline
// of ctx or the store's. After any other error the outcome is unknown, as the
// database may have stored what it could not acknowledge.
//
// c is not changed and not kept. See Settle for unknown outcomes.
func (s *Store) Apply(ctx context.Context, c store.Change) error {
	return s.count(s.change(ctx, &c))
}

// change is Apply without the counting.
func (s *Store) change(ctx context.Context, c *store.Change) error {
	if err := c.Check(); err != nil {
		return err
	}
	conn, err := s.acquire(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", store.ErrUnstored, err)
	}
	defer conn.Release()
	within, cancel := s.finish(ctx)
	defer cancel()
	if err = s.repeat(within, func() error { return apply(within, conn, c) }); err == nil && len(c.Writes) > 0 {
		s.bell.ring()
	}
	return err
}

// count counts a change by its error, which it returns.
func (s *Store) count(err error) error {
	switch {
	case err == nil:
		s.counts.stored.Add(1)
	case errors.Is(err, store.ErrConflict):
		s.counts.conflicts.Add(1)
	case errors.Is(err, store.ErrReplayed):
		s.counts.replayed.Add(1)
	case errors.Is(err, store.ErrFloor), errors.Is(err, store.ErrInvalid), errors.Is(err, store.ErrClosed):
	default:
		s.failed(err)
		err = fmt.Errorf("apply change: %w", err)
	}
	return err
}

// failed notes an error of the database. A server that only reads now is left: all
// connections go to it.
func (s *Store) failed(err error) {
	s.counts.failed.Add(1)
	if takesNoChanges(err) {
		s.pool.Reset()
	}
}

// finish returns the context of a change that has begun: it has the deadline of
// ctx, and the store's, and no other end.
func (s *Store) finish(ctx context.Context) (context.Context, context.CancelFunc) {
	end := time.Now().Add(s.timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(end) {
		end = d
	}
	return context.WithDeadline(context.WithoutCancel(ctx), end)
}

// repeat tries again what PostgreSQL gave up in favour of another transaction:
// nothing of it is stored then.
func (s *Store) repeat(ctx context.Context, try func() error) error {
	for n, pause := 1, firstTry; ; n, pause = n+1, 2*pause {
		err := try()
		if err == nil || n == maxTries || !givenUp(err) {
			return err
		}
		s.counts.repeated.Add(1)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(rand.N(pause)):
		}
	}
}

// givenUp reports serialization failures and deadlocks.
func givenUp(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && (e.Code == "40001" || e.Code == "40P01")
}

// apply is one try. The statements travel together, and what they did is looked
// at before the commit.
func apply(ctx context.Context, conn *pgxpool.Conn, c *store.Change) (err error) {
	b := &pgx.Batch{}
	b.Queue("BEGIN")
	if r := c.Replay; r != nil {
		b.Queue(insertReplay, [16]byte(r.Tenant), [16]byte(r.Tag), r.Until)
	}
	for i := range c.Writes {
		queue(b, &c.Writes[i])
	}
	if f := c.Facts; f != nil { // last: others wait for the place in the log until the commit
		seq, previous := int64(f.First), f.Previous[:]
		for e := range slices.Chunk(f.Entries, wire.FactSize) {
			b.Queue(insertFact, seq, e, previous)
			seq, previous = seq+1, e[len(e)-len(f.Previous):]
		}
	}
	// After a statement that has given the transaction a number, see RaiseFloor.
	b.Queue(readFloor)
	if err = outcome(conn.SendBatch(ctx, b), c); err != nil {
		if _, e := conn.Exec(ctx, "ROLLBACK"); e != nil {
			conn.Conn().Close(ctx) // the server then does it
		}
		if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrReplayed) || errors.Is(err, store.ErrFloor) {
			return err
		}
		return fmt.Errorf("%w: %w", store.ErrUnstored, err)
	}
	tag, err := conn.Exec(ctx, "COMMIT")
	if err == nil && tag.String() != "COMMIT" {
		return fmt.Errorf("%w: transaction ended with %s", store.ErrUnstored, tag)
	}
	return err
}

func queue(b *pgx.Batch, w *wire.Write) {
	tenant, id := [16]byte(w.ID.Tenant), [16]byte(w.ID.ID)
	kind, version := int16(w.ID.Type), int64(w.ID.Version)
	switch {
	case store.RemovesAll(*w):
		b.Queue(removeAll, tenant, id, kind)
		return // nothing names what is removed any more, so nobody need know
	case w.Remove:
		b.Queue(removeRecord, tenant, id, kind, version)
		return
	case w.Expected == 0:
		b.Queue(insertRecord, tenant, id, kind, version, int64(w.Revision), int64(w.Primary), w.Hidden, w.Due, w.Sealed)
	default:
		b.Queue(updateRecord, tenant, id, kind, version, int64(w.Revision), int64(w.Primary), w.Hidden, w.Due, w.Sealed, int64(w.Expected))
		b.Queue(insertChange, tenant, id, kind, version)
	}
	if w.Sweep {
		b.Queue(insertSweep, tenant, int64(w.Revision))
	}
}

// outcome reads what the statements of apply did.
func outcome(results pgx.BatchResults, c *store.Change) (err error) {
	defer func() { err = errors.Join(err, results.Close()) }()
	next := func() (int64, error) {
		tag, err := results.Exec()
		return tag.RowsAffected(), err
	}
	if _, err := next(); err != nil {
		return err
	}
	if c.Replay != nil {
		n, err := next()
		if err != nil {
			return err
		}
		if n == 0 {
			return store.ErrReplayed
		}
	}
	for i := range c.Writes {
		w := &c.Writes[i]
		n, err := next()
		if err != nil {
			return err
		}
		if n != 1 && !w.Remove {
			return fmt.Errorf("%w: %s has not revision %d", store.ErrConflict, w.ID, w.Expected)
		}
		if !w.Remove && w.Expected != 0 {
			if _, err := next(); err != nil {
				return err
			}
		}
		if w.Sweep {
			if _, err := next(); err != nil {
				return err
			}
		}
	}
	if err := added(next, c.Facts); err != nil {
		return err
	}
	var floor int64
	if err := results.QueryRow().Scan(&floor); err != nil {
		return fmt.Errorf("read floor: %w", err)
	}
	for i := range c.Writes {
		if err := store.CheckFloor(&c.Writes[i], uint32(floor)); err != nil {
			return err
		}
	}
	return nil
}

// write runs one statement that changes rows which no request waits for.
func (s *Store) write(ctx context.Context, doing, sql string, args ...any) (int64, error) {
	conn, err := s.acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Release()
	within, cancel := s.finish(ctx)
	defer cancel()
	var n int64
	err = s.repeat(within, func() error {
		tag, err := conn.Exec(within, sql, args...)
		n = tag.RowsAffected()
		return err
	})
	if err != nil {
		s.failed(err)
		return n, fmt.Errorf("%s: %w", doing, err)
	}
	return n, nil
}

// EndSweep forgets a sweep that Sweeps has returned, unless a write has made
// another one due since. It is no error if none is due.
func (s *Store) EndSweep(ctx context.Context, sweep store.Sweep) error {
	_, err := s.write(ctx, "end sweep", "DELETE FROM sweeps WHERE tenant = $1 AND revision = $2", [16]byte(sweep.Tenant), int64(sweep.Revision))
	return err
}

// How many rows are dropped at once. The number stands in the statements, so that
// they are planned for it.
const (
	pruneStep     = 1000
	pruneStepText = "1000"
)

// By the clock of the server as well: one node whose clock is fast must not make
// all others forget what they have executed.
const pruneReplays = `DELETE FROM replays WHERE ctid = ANY (ARRAY(
	SELECT ctid FROM replays WHERE until < least($1, (extract(epoch FROM now()) * 1000)::bigint) ORDER BY until LIMIT ` + pruneStepText + ` FOR UPDATE SKIP LOCKED))`

// PruneReplays drops the replay entries whose Until is below before, Unix
// milliseconds, and below the server's time, in steps of which each is a transaction. It returns how many it
// has dropped, also beside an error. It also drops notes of changes that every
// node has read, or must not rely on any more.
func (s *Store) PruneReplays(ctx context.Context, before int64) (int, error) {
	for total := 0; ; {
		n, err := s.write(ctx, "prune replay entries", pruneReplays, before)
		total += int(n)
		if err == nil && n < pruneStep {
			err = s.pruneChanges(ctx)
			return total, err
		}
		if err != nil {
			return total, err
		}
	}
}
