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

	// keepChanges is for how long the database remembers changes. A node that
	// has not asked for longer than that must forget all it remembers.
	keepChanges = 10 * time.Minute

	// A change is visible when its transaction commits, and transactions commit
	// in any order. All that committed after an earlier snapshot were in
	// progress then, or later: their numbers are at or above the least that was
	// in progress. So a node reads from there on, and reads some changes twice.
	listChanges = `SELECT now.least::text, c.tenant, c.id, c.type, c.version
		FROM (SELECT pg_snapshot_xmin(pg_current_snapshot()) AS least) AS now
		LEFT JOIN changes c ON c.xid >= $1::text::xid8`

	deleteChanges = `DELETE FROM changes WHERE ctid IN (SELECT ctid FROM changes WHERE at < now() - $1::interval LIMIT $2)`
)

// A cursor is a place in the sequence of changes.
type cursor struct {
	least string    // the first transaction whose changes may be new
	at    time.Time // when it was taken
}

// A Feed tells what others have changed. It has two connections of its own, so
// that requests that wait for one do not keep it waiting.
type Feed struct {
	config *pgx.ConnConfig
	asks   *pgx.Conn // used by Next; nil until connected
	hears  *pgx.Conn // used by Wait; nil until connected
	from   *cursor   // nil: nothing is known
}

// Feed returns a feed that has read nothing. Each has one caller of Next and one
// of Wait; Close ends it.
func (s *Store) Feed() *Feed { return &Feed{config: s.pool.Config().ConnConfig} }

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
// some of them perhaps twice, and not those that were created or removed. All is
// true if it cannot tell: then any record may have changed. It is true at the
// first call, after an error, and after a long time without a call.
//
// What was committed when Next was called is in its answer.
func (f *Feed) Next(ctx context.Context) (ids []wire.RecordID, all bool, err error) {
	from := f.from
	f.from = nil // until it has worked
	if from != nil && time.Since(from.at) > keepChanges/2 {
		from = nil
	}
	after := "18446744073709551615" // no transaction has this number
	if from != nil {
		after = from.least
	}
	next := &cursor{at: time.Now()}
	if f.asks == nil {
		if f.asks, err = pgx.ConnectConfig(ctx, f.config); err != nil {
			return nil, false, fmt.Errorf("read changes: %w", err)
		}
	}
	if ids, err = f.since(ctx, after, next); err != nil {
		f.asks = hangUp(f.asks)
		return nil, false, fmt.Errorf("read changes: %w", err)
	}
	f.from = next
	return ids, from == nil, nil
}

// since reads the changes at and above a transaction, and fills in where to go
// on.
func (f *Feed) since(ctx context.Context, after string, next *cursor) (ids []wire.RecordID, err error) {
	err = rows(ctx, f.asks, func(r pgx.Rows) error {
		var tenant, id *[16]byte
		var kind *int16
		var version *int64
		if err := r.Scan(&next.least, &tenant, &id, &kind, &version); err != nil {
			return err
		}
		if tenant != nil {
			ids = append(ids, wire.RecordID{Type: wire.RecordType(*kind), Tenant: *tenant, ID: *id, Version: uint32(*version)})
		}
		return nil
	}, listChanges, after)
	if err == nil && next.least == "" {
		err = errors.New("the database gave no snapshot")
	}
	return ids, err
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

// pruneChanges drops the notes of changes that are older than keepChanges.
func (s *Store) pruneChanges(ctx context.Context) error {
	for {
		n, err := s.write(ctx, "prune changes", deleteChanges, keepChanges, pruneStep)
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
