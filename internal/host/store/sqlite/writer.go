package sqlite

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// Bounds of one transaction: beyond them the first callers would wait for the
// last one's work rather than for the disk.
const (
	maxBatchJobs  = 256
	maxBatchBytes = 4 << 20 // of sealed records
)

// States of a job.
const (
	waiting = iota // in the queue; its caller may still give up
	taken          // the writer has it; its caller waits for the outcome
	givenUp        // its caller has left
)

// A job is one piece of the writer's work.
type job struct {
	state atomic.Uint32
	run   func(*writer) (refusal, err error)
	size  int // bytes it writes, about
	err   error
	done  chan struct{} // closed when err is set
}

// do hands run to the writer and waits for its outcome. It runs inside a
// transaction that it shares with other jobs, after those that were handed over before. A refusal concerns this job alone,
// and run must not have changed anything then; an error undoes the transaction.
func (s *Store) do(ctx context.Context, size int, run func(*writer) (refusal, err error)) error {
	return s.hand(ctx, size, nil, run)
}

// hand is do. It calls placed, unless that is nil, when the job has its place.
func (s *Store) hand(ctx context.Context, size int, placed func(), run func(*writer) (refusal, err error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.isClosing() {
		return store.ErrClosed
	}
	j := &job{run: run, size: size, done: make(chan struct{})}
	select {
	case s.queue <- j:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closing:
		return store.ErrClosed
	}
	if placed != nil {
		placed()
	}
	select {
	case <-j.done:
		return j.err
	case <-ctx.Done():
		if j.state.CompareAndSwap(waiting, givenUp) {
			return ctx.Err()
		}
	case <-s.stopped:
		if j.state.CompareAndSwap(waiting, givenUp) {
			return store.ErrClosed
		}
	}
	<-j.done
	return j.err
}

// write is the writer's goroutine.
func (s *Store) write(w *writer) {
	defer close(s.stopped)
	for {
		select {
		case <-s.closing:
			return
		case j := <-s.queue:
			if j.state.CompareAndSwap(waiting, taken) {
				s.batch(w, j)
			}
		}
	}
}

// batch runs first and the jobs that wait behind it in one transaction, and
// answers them when it is durable.
func (s *Store) batch(w *writer, first *job) {
	jobs := append(w.jobs[:0], first)
	defer func() {
		clear(jobs)
		w.jobs = jobs[:0]
	}()
	_, err := w.begin.exec()
	for size := 0; err == nil; {
		j := jobs[len(jobs)-1]
		size += j.size
		if j.err, err = j.run(w); err != nil || len(jobs) == maxBatchJobs || size >= maxBatchBytes {
			break
		}
		if j = s.next(); j == nil {
			break
		}
		jobs = append(jobs, j)
	}
	if err == nil {
		err = w.end()
	} else {
		w.undo()
	}
	if err != nil {
		err = fmt.Errorf("store in %s: %w", s.path, explain(err))
	}
	s.counts.batch(jobs, err)
	for _, j := range jobs {
		if err != nil {
			// A refusal may rest on a job that has just been undone.
			j.err = err
		}
		close(j.done)
	}
}

// next takes a waiting job, or returns nil if there is none.
func (s *Store) next() *job {
	for {
		select {
		case j := <-s.queue:
			if j.state.CompareAndSwap(waiting, taken) {
				return j
			}
		default:
			return nil
		}
	}
}

// A writer is the connection that writes, with its statements.
type writer struct {
	conn *conn
	jobs []*job                   // of the batch in progress
	seen map[wire.RecordID]uint64 // revisions within the change in progress

	floor uint32 // of the store's rotation

	begin, commit, rollback, truncate  stmt
	revision, insert, update           stmt
	remove, removeAll                  stmt
	replayed, addReplay, expireReplays stmt
	addSweep, endSweep                 stmt
	lastFact, factBefore, addFact      stmt
	getFloor, setFloor, addFloor       stmt
	rewrap, reportSlice, reportLeft    stmt
}

const expireQuery = `DELETE FROM replays WHERE (tenant, tag) IN
	(SELECT tenant, tag FROM replays WHERE until < ? ORDER BY until LIMIT ?)`

func newWriter(ctx context.Context, dsn string) (*writer, error) {
	c, err := connect(ctx, dsn)
	if err != nil {
		return nil, err
	}
	// INDEXED BY where the type is a parameter: SQLite would otherwise look at
	// its value to see whether the partial index fits, and for that compile
	// the statement anew at every call.
	w := &writer{conn: c, seen: make(map[wire.RecordID]uint64)}
	for _, q := range []struct {
		stmt  *stmt
		query string
	}{
		{&w.begin, `BEGIN IMMEDIATE`},
		{&w.commit, `COMMIT`},
		{&w.rollback, `ROLLBACK`},
		{&w.truncate, `PRAGMA wal_checkpoint(TRUNCATE)`},
		{&w.revision, `SELECT revision FROM records INDEXED BY names WHERE tenant = ? AND id = ? AND type = ? AND version = ?`},
		{&w.insert, `INSERT INTO records (tenant, id, type, version, revision, "primary", hidden, due, sealed)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`},
		{&w.update, `UPDATE records INDEXED BY names SET revision = ?5, "primary" = ?6, hidden = ?7, due = ?8, sealed = ?9
			WHERE tenant = ?1 AND id = ?2 AND type = ?3 AND version = ?4`},
		{&w.remove, `DELETE FROM records INDEXED BY names WHERE tenant = ? AND id = ? AND type = ? AND version = ?`},
		{&w.removeAll, `DELETE FROM records INDEXED BY names WHERE tenant = ? AND id = ? AND type = ?`},
		{&w.replayed, `SELECT 1 FROM replays WHERE tenant = ? AND tag = ?`},
		{&w.addReplay, `INSERT INTO replays (tenant, tag, until) VALUES (?, ?, ?)`},
		{&w.expireReplays, expireQuery},
		{&w.addSweep, `INSERT INTO sweeps (tenant, revision) VALUES (?, ?) ON CONFLICT DO UPDATE SET revision = excluded.revision`},
		{&w.lastFact, `SELECT coalesce(max(seq), 0) FROM facts`},
		{&w.factBefore, `SELECT 1 FROM facts WHERE seq = ? AND substr(entry, 75) = ?`}, // its MAC
		{&w.addFact, `INSERT INTO facts (seq, entry) VALUES (?, ?)`},
		{&w.endSweep, `DELETE FROM sweeps WHERE tenant = ? AND revision = ?`},
		{&w.getFloor, `SELECT floor FROM rotation`},
		{&w.setFloor, `UPDATE rotation SET floor = ?`},
		{&w.addFloor, `INSERT INTO floors (version, since) VALUES (?, ?) ON CONFLICT DO NOTHING`},
		{&w.rewrap, `UPDATE records INDEXED BY names SET sealed = ?6
			WHERE tenant = ?1 AND id = ?2 AND type = ?3 AND version = ?4 AND revision = ?5`},
		{&w.reportSlice, reportQuery},
		{&w.reportLeft, leftQuery},
	} {
		if *q.stmt, err = c.prepare(ctx, q.query); err != nil {
			c.close()
			return nil, err
		}
	}
	floor, _, err := w.getFloor.number()
	if err != nil {
		c.close()
		return nil, fmt.Errorf("read floor: %w", err)
	}
	w.floor = uint32(floor)
	return w, nil
}

// end commits the transaction. When that fails, nothing of it remains: a commit
// record may have reached the log before the sync failed, and would come back to
// life if the process ended now and the log were read again, so the log is
// emptied as well.
func (w *writer) end() error {
	_, err := w.commit.exec()
	if err == nil {
		return nil
	}
	w.undo()
	busy, _, e := w.truncate.number()
	if e == nil && busy != 0 {
		e = errors.New("it is being read")
	}
	if e != nil {
		return fmt.Errorf("%w (and the log could not be emptied: %w)", err, e)
	}
	return err
}

// undo rolls the transaction back. Its error is dropped: SQLite rolls back by
// itself after some errors, and then ROLLBACK is the one that fails.
func (w *writer) undo() { w.rollback.exec() }
