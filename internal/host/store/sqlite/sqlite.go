// Package sqlite is the record store of a single node, in one SQLite file.
//
// One goroutine writes. It puts the changes that are waiting into one
// transaction, so that many callers share one sync of the disk; a few other
// connections read beside it. The database is in WAL mode and is synced before
// a change is acknowledged.
//
// Files: the database at the path given to Open, beside it -wal and -shm while
// it is open, and .lock. All of them belong to the host and are trusted with
// availability only.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	modernc "modernc.org/sqlite"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/host/store/migrations"
)

// Errors of Open.
var (
	// ErrLocked says that another process, or another Store, has the file open.
	ErrLocked = errors.New("database is in use")
	// ErrForeign says that the file is no database of this program.
	ErrForeign = errors.New("not a record store")
)

// Options tunes a Store. The zero value is usable.
type Options struct {
	Readers  int   // connections that read; default 4
	Queue    int   // changes that may wait for the writer before Apply blocks; default 1024
	Cache    int   // bytes of pages the writer keeps in memory, default 32 MiB; each reader keeps an eighth
	MaxBytes int64 // the database file grows no further, and changes that need it to fail; 0: no limit
}

func (o Options) withDefaults() Options {
	if o.Readers <= 0 {
		o.Readers = 4
	}
	if o.Queue <= 0 {
		o.Queue = 1024
	}
	if o.Cache <= 0 {
		o.Cache = 32 << 20
	}
	return o
}

// A Store keeps records in one SQLite file. Its methods are safe for concurrent
// use.
type Store struct {
	path   string
	lock   *os.File
	reader *reader
	queue  chan *job
	counts counts

	closing chan struct{} // closed by Close
	stopped chan struct{} // closed by the writer when it has finished
	shut    func() error
}

// Open opens the store at path, creating the file with mode 0600 if it is
// missing, and migrates its schema. Ctx bounds opening only.
//
// It returns an error that wraps ErrLocked if the file is open elsewhere,
// ErrForeign if it is not a record store, and migrations.ErrNewer if a newer
// version has written it.
func Open(ctx context.Context, path string, opts Options) (*Store, error) {
	s, err := open(ctx, path, opts.withDefaults())
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, explain(err))
	}
	return s, nil
}

func open(ctx context.Context, path string, opts Options) (_ *Store, err error) {
	s := &Store{
		queue:   make(chan *job, opts.Queue),
		closing: make(chan struct{}),
		stopped: make(chan struct{}),
	}
	if s.path, err = resolve(path); err != nil {
		return nil, err
	}
	if s.lock, err = lock(s.path); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.lock.Close()
		}
	}()
	// Not before the lock: closing a file drops all locks that SQLite has on it
	// in this process, which may be those of another Store.
	if err := create(s.path); err != nil {
		return nil, err
	}
	if err := with(ctx, claimDSN(s.path), claim); err != nil {
		return nil, err
	}
	if err := with(ctx, writeDSN(s.path, opts), migrations.SQLite); err != nil {
		return nil, err
	}
	w, err := newWriter(ctx, writeDSN(s.path, opts))
	if err != nil {
		return nil, err
	}
	if s.reader, err = newReader(ctx, readDSN(s.path, opts), opts.Readers); err != nil {
		w.conn.close()
		return nil, err
	}
	s.shut = sync.OnceValue(func() error { return s.close(w) })
	go s.write(w)
	return s, nil
}

// resolve returns the absolute path of a file that may be missing, without links,
// so that every name of a file leads to the same lock.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(path)
	if !errors.Is(err, os.ErrNotExist) {
		return real, err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	return filepath.Join(dir, filepath.Base(path)), err
}

// create makes sure that there is a file at path that can be written, with mode
// 0600 if it is new. A new file's name is synced, else a power cut could take the
// file together with acknowledged changes.
func create(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		if f, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
			return err
		}
		return f.Close()
	}
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// applicationID marks the file as ours in the header of the database: "ehsm".
const applicationID = 0x6568736d

// claim checks that the file is ours, or empty and becomes ours, and changes no
// other. Its connection must not set the journal mode, which is written to the
// file.
func claim(ctx context.Context, db *sql.DB) error {
	var id, parts int
	err := db.QueryRowContext(ctx, `SELECT application_id, (SELECT count(*) FROM sqlite_schema) FROM pragma_application_id`).Scan(&id, &parts)
	switch {
	case err != nil:
		return err
	case id == applicationID:
		return nil
	case id != 0 || parts != 0:
		return fmt.Errorf("%w: the file is the database of another program (application id %#x, %d tables and indexes)", ErrForeign, id, parts)
	}
	_, err = db.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", applicationID))
	return err
}

// with opens the database for the time of do.
func with(ctx context.Context, dsn string, do func(context.Context, *sql.DB) error) (err error) {
	db, err := openDB(dsn, 1)
	if err != nil {
		return err
	}
	defer func() {
		if e := db.Close(); err == nil {
			err = e
		}
	}()
	return do(ctx, db)
}

func openDB(dsn string, conns int) (*sql.DB, error) {
	c, err := modernc.NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// Ping reports whether the store is open and its file can be read.
func (s *Store) Ping(ctx context.Context) error {
	if s.isClosing() {
		return store.ErrClosed
	}
	if err := s.reader.ping(ctx); err != nil {
		return s.readError("ping", err)
	}
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

// Close ends the store: changes the writer has taken are finished, those that
// still wait get store.ErrClosed, as does everything that comes later. It
// returns when the file is closed; calling it again returns the same error.
func (s *Store) Close() error { return s.shut() }

func (s *Store) close(w *writer) error {
	close(s.closing)
	<-s.stopped
	// The writer's connection goes last; it then moves the log into the
	// database and removes it.
	err := errors.Join(s.reader.close(), w.conn.close(), s.lock.Close())
	if err != nil {
		return fmt.Errorf("close store %s: %w", s.path, err)
	}
	return nil
}
