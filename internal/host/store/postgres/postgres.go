// Package postgres is the record store of any number of nodes, in one database
// of PostgreSQL 13 or later.
//
// A change is one transaction at the level READ COMMITTED: each of its writes
// says which revision it replaces, and locks that row. What has changed is noted
// in a table that the other nodes follow; see Changes.
//
// The database belongs to the host and is trusted with availability only.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/host/store/migrations"
)

// Options tunes a Store. The zero value is usable.
type Options struct {
	// Connections is the most that the pool opens to the database; default 16, at least 2.
	// A Feed uses two more, and each work that runs Alone one.
	Connections int
	// Timeout is how long one statement or change may take once it has a
	// connection; default 10 s.
	Timeout time.Duration
}

func (o Options) withDefaults() Options {
	if o.Connections <= 0 {
		o.Connections = 16
	}
	o.Connections = max(o.Connections, 2) // opening takes two
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	return o
}

// A Store keeps records in PostgreSQL. Its methods are safe for concurrent use.
type Store struct {
	pool    *pgxpool.Pool
	timeout time.Duration
	counts  counts
	bell    *bell

	closing chan struct{} // closed by Close
	shut    func()
}

// Open opens the database that target names and migrates its schema. Ctx bounds
// opening only.
//
// It returns an error that wraps ErrTarget if the connection would not be safe or
// goes to a pooler, and migrations.ErrNewer if a newer version has migrated the database. Errors
// do not show passwords.
func Open(ctx context.Context, target Target, opts Options) (*Store, error) {
	opts = opts.withDefaults()
	config, err := target.config()
	if err != nil {
		return nil, err
	}
	config.MaxConns = int32(opts.Connections)
	config.MaxConnIdleTime = 5 * time.Minute
	config.MaxConnLifetime = time.Hour
	config.HealthCheckPeriod = 15 * time.Second
	session(config.ConnConfig, opts.Timeout)
	s := &Store{timeout: opts.Timeout, closing: make(chan struct{})}
	if s.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, fmt.Errorf("open database %s: %w", target, err)
	}
	// With connections of its own: it needs two.
	if err := migrate(ctx, migrating(*config.ConnConfig, opts.Timeout)); err != nil {
		s.pool.Close()
		return nil, fmt.Errorf("open database %s: %w", target, err)
	}
	s.bell = newBell(s.ring)
	s.shut = sync.OnceFunc(func() {
		close(s.closing)
		s.bell.close()
		s.pool.Close() // waits for what has a connection
	})
	return s, nil
}

func migrate(ctx context.Context, config pgx.ConnConfig) error {
	db := stdlib.OpenDB(config)
	defer db.Close()
	return migrations.Postgres(ctx, db)
}

// errReads says that a server that took changes takes none any more.
var errReads = errors.New("the server takes no changes")

// Ping reports whether the database can be reached and takes changes.
func (s *Store) Ping(ctx context.Context) error {
	return s.read(ctx, "ping", func(ctx context.Context, c *pgxpool.Conn) error {
		var reads bool
		if err := c.QueryRow(ctx, "SELECT current_setting('transaction_read_only')::bool").Scan(&reads); err != nil {
			return err
		}
		if reads {
			return errReads
		}
		return nil
	})
}

// Close ends the store: changes that have a connection are finished, those that
// wait for one get store.ErrClosed, as does everything that comes later.
func (s *Store) Close() error {
	s.shut()
	return nil
}

func (s *Store) isClosing() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

// acquire waits for a connection. Its errors are ctx's own, store.ErrClosed, or
// those of the network.
func (s *Store) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.isClosing() {
		return nil, store.ErrClosed
	}
	within, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	c, err := s.pool.Acquire(within)
	switch {
	case err == nil:
		return c, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case s.isClosing():
		return nil, store.ErrClosed
	case within.Err() != nil:
		return nil, fmt.Errorf("no connection to the database within %v: %w", s.timeout, err)
	}
	return nil, err
}

// read runs a query that changes nothing.
func (s *Store) read(ctx context.Context, doing string, query func(context.Context, *pgxpool.Conn) error) error {
	c, err := s.acquire(ctx)
	if err == nil {
		within, cancel := context.WithTimeout(ctx, s.timeout)
		err = query(within, c)
		cancel()
		c.Release()
	}
	switch {
	case err == nil, errors.Is(err, store.ErrClosed):
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", doing, ctx.Err())
	}
	s.counts.failed.Add(1)
	return fmt.Errorf("%s: %w", doing, err)
}

// A querier is a connection, of the pool or not.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// rows runs a query and hands each row to scan.
func rows(ctx context.Context, c querier, scan func(pgx.Rows) error, sql string, args ...any) error {
	r, err := c.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer r.Close()
	for r.Next() {
		if err := scan(r); err != nil {
			return err
		}
	}
	return r.Err()
}
