package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ErrPooler says that what answers is not PostgreSQL itself. A pooler may give one
// session to several clients: locks and notifications get lost then, and it may go
// to another server without a word.
var ErrPooler = errors.New("a pooler answers, or another database: name the PostgreSQL server itself")

// keepAlive finds a peer that is not there any more within 25 s.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}

// session prepares what holds for every connection: what a node that hangs, or is
// gone without a word, keeps others waiting for has an end at the server. What the
// URL says of these settings wins.
func session(c *pgx.ConnConfig, timeout time.Duration) {
	params := map[string]string{
		"statement_timeout": milliseconds(timeout),
		// Between the writes of a change and its commit a node has nothing to do. What
		// it has locked others wait for.
		"idle_in_transaction_session_timeout": milliseconds(timeout / 2),
		"tcp_keepalives_idle":                 seconds(keepAlive.Idle),
		"tcp_keepalives_interval":             seconds(keepAlive.Interval),
		"tcp_keepalives_count":                strconv.Itoa(keepAlive.Count),
		"tcp_user_timeout":                    milliseconds(timeout),
		// Every statement has its index. A plan made while a table is small reads all of
		// it, and is kept until the table, by then large, is analyzed.
		"enable_seqscan": "off",
		"jit":            "off", // it takes longer than any of them
	}
	maps.Copy(params, c.RuntimeParams)
	c.RuntimeParams = params
	dialer := &net.Dialer{KeepAliveConfig: keepAlive}
	c.DialFunc = dialer.DialContext // its end is the one of connect_timeout
	c.AfterConnect = direct
}

// migrating prepares the connections that bring the schema up to date, which may
// take a while: but not to wait for a lock, as somebody who holds one may hang.
func migrating(c pgx.ConnConfig, timeout time.Duration) pgx.ConnConfig {
	c.RuntimeParams = maps.Clone(c.RuntimeParams)
	c.RuntimeParams["statement_timeout"] = "0"
	c.RuntimeParams["idle_in_transaction_session_timeout"] = "0"
	if c.RuntimeParams["lock_timeout"] == "" {
		c.RuntimeParams["lock_timeout"] = milliseconds(timeout)
	}
	return c
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(max(d.Milliseconds(), 1), 10) }

func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }

// direct refuses a connection to a pooler, which names processes of its own, and to
// a server that acknowledges what it has not written down.
func direct(ctx context.Context, c *pgconn.PgConn) error {
	results, err := c.Exec(ctx, "SELECT pg_backend_pid(), current_setting('synchronous_commit')").ReadAll()
	if err != nil {
		return err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 2 {
		return fmt.Errorf("%w: %w", ErrTarget, ErrPooler)
	}
	switch row := results[0].Rows[0]; {
	case string(row[0]) != strconv.FormatUint(uint64(c.PID()), 10):
		return fmt.Errorf("%w: %w", ErrTarget, ErrPooler)
	case string(row[1]) == "off":
		return fmt.Errorf("%w: synchronous_commit is off, so a crash of the server loses acknowledged changes", ErrTarget)
	}
	return nil
}

// takesNoChanges reports that a server has become one that only reads, such as one
// that another has taken over from.
func takesNoChanges(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == "25006" // read_only_sql_transaction
}
