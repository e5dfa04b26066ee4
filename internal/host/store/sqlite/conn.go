package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"

	modernc "modernc.org/sqlite"
)

// A conn is the writer's connection. It uses the driver without database/sql,
// whose bookkeeping costs about as much per statement as a small insert. It
// must be used by one goroutine at a time. Its statements take no context: a
// change that was taken is finished.
type conn struct {
	dc    driver.Conn
	stmts []driver.Stmt
	args  []driver.NamedValue // of the statement in progress
}

func connect(ctx context.Context, dsn string) (*conn, error) {
	c, err := modernc.NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	dc, err := c.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &conn{dc: dc}, nil
}

// close closes the statements first: SQLite leaves a connection open, and its
// log unmerged, as long as one is left.
func (c *conn) close() error {
	var errs []error
	for _, s := range c.stmts {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, c.dc.Close())...)
}

// driverStmt is what this package needs of the driver's statements.
type driverStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

// A stmt is a prepared statement of a conn.
type stmt struct {
	c *conn
	s driverStmt
}

func (c *conn) prepare(ctx context.Context, query string) (stmt, error) {
	p, ok := c.dc.(driver.ConnPrepareContext)
	if !ok {
		return stmt{}, fmt.Errorf("driver connection %T cannot prepare", c.dc)
	}
	s, err := p.PrepareContext(ctx, query)
	if err != nil {
		return stmt{}, fmt.Errorf("prepare %q: %w", query, err)
	}
	c.stmts = append(c.stmts, s)
	ds, ok := s.(driverStmt)
	if !ok {
		return stmt{}, fmt.Errorf("driver statement %T cannot execute", s)
	}
	return stmt{c, ds}, nil
}

func (s stmt) bind(vals []driver.Value) []driver.NamedValue {
	args := s.c.args[:0]
	for i, v := range vals {
		args = append(args, driver.NamedValue{Ordinal: i + 1, Value: v})
	}
	s.c.args = args
	return args
}

// exec runs the statement and returns how many rows it changed. Values are
// int64 or []byte; they are copied.
func (s stmt) exec(vals ...driver.Value) (int64, error) {
	r, err := s.s.ExecContext(context.Background(), s.bind(vals))
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// number runs a query whose first column is an integer and returns that of the
// first row, or false if there is no row.
func (s stmt) number(vals ...driver.Value) (n int64, found bool, err error) {
	rows, err := s.s.QueryContext(context.Background(), s.bind(vals))
	if err != nil {
		return 0, false, err
	}
	defer func() {
		if e := rows.Close(); err == nil {
			err = e
		}
	}()
	row := make([]driver.Value, len(rows.Columns()))
	err = rows.Next(row)
	if errors.Is(err, io.EOF) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	n, ok := row[0].(int64)
	if !ok {
		return 0, false, fmt.Errorf("got a column of type %T, want an integer", row[0])
	}
	return n, true, nil
}
