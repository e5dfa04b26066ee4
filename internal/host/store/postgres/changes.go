package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

const (
	channel = "ehsm_changes" // of NOTIFY

	// keepChanges is for how long the database remembers changes at least, by its
	// clock.
	keepChanges = 10 * time.Minute

	// A change is visible when its transaction commits, and transactions commit in
	// any order. What is new since an earlier snapshot was in progress then, or
	// began later.
	listChanges = `SELECT pg_snapshot_xmax(now.snapshot)::text, ARRAY(SELECT pg_snapshot_xip(now.snapshot))::text[], now.lost,
			current_setting('transaction_read_only')::bool, c.tenant, c.id, c.type, c.version
		FROM (SELECT pg_current_snapshot() AS snapshot,
			COALESCE((SELECT least FROM horizons ORDER BY least LIMIT 1) >= $1::text::xid8, false) AS lost) AS now
		LEFT JOIN changes c ON c.xid >= $1::text::xid8 OR c.xid = ANY ($2::text[]::xid8[])`

	// Dropped is what was visible in the oldest snapshot of the table, when that is
	// old enough. Who has looked since then has seen all of it.
	insertHorizon  = `INSERT INTO horizons (least, snapshot) SELECT pg_snapshot_xmax(s), s FROM pg_current_snapshot() s ON CONFLICT DO NOTHING`
	deleteHorizons = `DELETE FROM horizons WHERE least < (SELECT least FROM horizons WHERE at < now() - $1::interval ORDER BY least DESC LIMIT 1)`
	deleteChanges  = `DELETE FROM changes WHERE ctid = ANY (ARRAY(
		SELECT c.ctid FROM (SELECT * FROM horizons ORDER BY least LIMIT 1) AS oldest
		JOIN changes c ON c.xid < oldest.least AND pg_visible_in_snapshot(c.xid, oldest.snapshot)
		WHERE oldest.at < now() - $1::interval LIMIT ` + pruneStepText + `))`

	// Of another server, whose dump was restored here: transactions still to begin.
	deleteForeignHorizons = `DELETE FROM horizons WHERE least > pg_snapshot_xmax(pg_current_snapshot())`
	deleteForeignChanges  = `DELETE FROM changes WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())`
)

// A cursor is a snapshot of the database.
type cursor struct {
	least string   // the first transaction that had not begun
	open  []string // the transactions before it that were in progress
}

// never is a transaction that does not begin.
const never = "18446744073709551615"

// A Feed tells what others have changed. It has two connections of its own, so
// that requests that wait for one do not keep it waiting.
type Feed struct {
	store  *Store
	config *pgx.ConnConfig
	asks   *pgx.Conn // used by Next; nil until connected
	hears  *pgx.Conn // used by Wait; nil until connected
	from   *cursor   // nil: nothing is known
}

// Feed returns a feed that has read nothing. Each has one caller of Next and one
// of Wait; Close ends it.
func (s *Store) Feed() *Feed { return &Feed{store: s, config: s.pool.Config().ConnConfig} }

// Close closes the connections. No other call may be under way.
func (f *Feed) Close() {
	f.asks, f.hears = hangUp(f.asks), hangUp(f.hears)
}

// hangUp closes a connection that may be in the middle of a message.
func hangUp(c *pgx.Conn) *pgx.Conn {
	if c != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		c.Close(ctx)
	}
	return nil
}

// Next returns the records that have been changed since the call of Next before,
// not those that were created or removed. All is true if it cannot tell: then any
// record may have changed. It is true at the first call, after an error, and where
// notes have been dropped that it had not read.
//
// What was committed when Next was called is in its answer.
func (f *Feed) Next(ctx context.Context) (ids []wire.RecordID, all bool, err error) {
	from := f.from
	f.from = nil // until it has worked
	if f.asks == nil {
		// Another connection may be one to another server, with other transactions.
		from = nil
		if f.asks, err = pgx.ConnectConfig(ctx, f.config); err != nil {
			return nil, false, fmt.Errorf("read changes: %w", err)
		}
	}
	if all = from == nil; all {
		from = &cursor{least: never}
	}
	next := &cursor{}
	ids, lost, err := f.since(ctx, from, next)
	if err != nil {
		f.asks = hangUp(f.asks)
		return nil, false, fmt.Errorf("read changes: %w", err)
	}
	f.from = next
	return ids, all || lost, nil
}

// since reads the changes after a snapshot, and whether some are lost, and fills
// in the snapshot in which it has seen them.
func (f *Feed) since(ctx context.Context, from, next *cursor) (ids []wire.RecordID, lost bool, err error) {
	var reads bool
	err = rows(ctx, f.asks, func(r pgx.Rows) error {
		var tenant, id *[16]byte
		var kind *int16
		var version *int64
		if err := r.Scan(&next.least, &next.open, &lost, &reads, &tenant, &id, &kind, &version); err != nil {
			return err
		}
		if tenant != nil {
			ids = append(ids, wire.RecordID{Type: wire.RecordType(*kind), Tenant: *tenant, ID: *id, Version: uint32(*version)})
		}
		return nil
	}, listChanges, from.least, from.open)
	switch {
	case err == nil && reads:
		f.store.pool.Reset() // another server takes the changes now
		return nil, false, errReads
	case err == nil && next.least == "":
		err = errors.New("the database gave no snapshot")
	}
	return ids, lost, err
}

// Wait returns when another node may have changed something; after an error
// nothing is known. It only makes Next come sooner: a change may come without a
// word.
func (f *Feed) Wait(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			f.hears = hangUp(f.hears)
			err = fmt.Errorf("listen for changes: %w", err)
		}
	}()
	if f.hears == nil {
		if f.hears, err = pgx.ConnectConfig(ctx, f.config); err != nil {
			return err
		}
		if _, err = f.hears.Exec(ctx, "LISTEN "+channel); err != nil {
			return err
		}
	}
	_, err = f.hears.WaitForNotification(ctx)
	return err
}

// pruneChanges drops notes of changes that are older than keepChanges.
func (s *Store) pruneChanges(ctx context.Context) error {
	// Committed one by one: a feed that finds a note dropped finds the horizon moved.
	for _, step := range []struct {
		doing, sql string
		args       []any
	}{
		{"note a snapshot", insertHorizon, nil},
		{"drop foreign snapshots", deleteForeignHorizons, nil},
		{"drop foreign changes", deleteForeignChanges, nil},
		{"move the horizon", deleteHorizons, []any{keepChanges}},
	} {
		if _, err := s.write(ctx, step.doing, step.sql, step.args...); err != nil {
			return err
		}
	}
	for {
		n, err := s.write(ctx, "prune changes", deleteChanges, keepChanges)
		if err != nil || n < pruneStep {
			return err
		}
	}
}

// ring tells the other nodes that something has changed. A notification within
// every change would serialize the commits of the whole database.
func (s *Store) ring(ctx context.Context) {
	_, _ = s.write(ctx, "notify", "SELECT pg_notify($1, '')", channel) // they will ask in any case
}

// bellPause is the shortest time between two notifications of a node.
const bellPause = 20 * time.Millisecond

// A bell rings once for all who pulled it in the meantime.
type bell struct {
	pulled chan struct{}
	stop   context.CancelFunc
	done   sync.WaitGroup
}

func newBell(sound func(context.Context)) *bell {
	ctx, stop := context.WithCancel(context.Background())
	b := &bell{pulled: make(chan struct{}, 1), stop: stop}
	b.done.Go(func() {
		pause := time.NewTimer(0)
		defer pause.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-b.pulled:
			}
			select {
			case <-ctx.Done():
				return
			case <-pause.C:
			}
			sound(ctx)
			pause.Reset(bellPause)
		}
	})
	return b
}

func (b *bell) ring() {
	select {
	case b.pulled <- struct{}{}:
	default: // it will ring
	}
}

func (b *bell) close() {
	b.stop()
	b.done.Wait()
}
