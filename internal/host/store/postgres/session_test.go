package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/host/store/postgres/pgtest"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// with returns a URL with one more setting.
func with(t *testing.T, target, name, value string) string {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = q.Encode()
	return u.String()
}

func TestSession(t *testing.T) {
	target := pgtest.Database(t)
	for _, tt := range []struct{ url, name, want string }{
		{target, "statement_timeout", "8s"},
		{target, "idle_in_transaction_session_timeout", "4s"},
		{target, "tcp_keepalives_idle", "10"},
		{target, "tcp_keepalives_interval", "5"},
		{target, "tcp_keepalives_count", "3"},
		{target, "tcp_user_timeout", "8000"},
		{target, "application_name", "ehsm-kms"},
		{with(t, target, "statement_timeout", "3000"), "statement_timeout", "3s"},
		{with(t, target, "application_name", "mine"), "application_name", "mine"},
	} {
		s := mustOpen(t, tt.url, Options{Timeout: 8 * time.Second})
		var got string
		if err := s.pool.QueryRow(t.Context(), "SHOW "+tt.name).Scan(&got); err != nil || got != tt.want {
			t.Errorf("%s: got %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
}

// TestVolatile: a server that answers a COMMIT before it has written it down is not
// used.
func TestVolatile(t *testing.T) {
	target := pgtest.Database(t)
	for value, durable := range map[string]bool{"off": false, "local": true, "on": true, "remote_apply": true} {
		s, err := Open(t.Context(), Target{URL: with(t, target, "synchronous_commit", value)}, Options{})
		if durable != (err == nil) || err != nil && (!errors.Is(err, ErrTarget) || Unreachable(err)) {
			t.Errorf("%s: got %v", value, err)
		}
		if err == nil {
			s.Close()
		}
	}
}

// TestHungNode has a node stop between the writes of a change and its commit: what
// it holds is free again before others have given up.
func TestHungNode(t *testing.T) {
	target := pgtest.Database(t)
	hung, s := mustOpen(t, target, Options{Timeout: time.Second}), mustOpen(t, target, Options{})
	set(t, s, keyID(1), 0, 1)
	tx, err := hung.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	if _, err := tx.Exec(t.Context(), "UPDATE records SET revision = 2"); err != nil {
		t.Fatal(err)
	}
	set(t, s, keyID(1), 1, 2)
	if err := tx.Commit(t.Context()); err == nil {
		t.Error("the node that hung has stored something")
	}
}

// proxy passes connections on to a server. What the server says goes through edit.
func proxy(t *testing.T, server string, edit func([]byte) []byte) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close()
				conn, err := net.Dial("tcp", server)
				if err != nil {
					return
				}
				defer conn.Close()
				go func() { io.Copy(conn, client); conn.Close() }()
				buffer := make([]byte, 1<<16)
				for {
					n, err := conn.Read(buffer)
					if err != nil {
						return
					}
					if _, err := client.Write(edit(buffer[:n])); err != nil {
						return
					}
				}
			}()
		}
	}()
	return ln.Addr().String()
}

// TestPooler: what names processes of its own is no PostgreSQL.
func TestPooler(t *testing.T) {
	u, err := url.Parse(pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	server := u.Host
	for name, tt := range map[string]struct {
		edit func([]byte) []byte
		want error
	}{
		"a forwarder": {func(b []byte) []byte { return b }, nil},
		"a pooler": {func(b []byte) []byte {
			if i := bytes.Index(b, []byte("K\x00\x00\x00\x0c")); i >= 0 { // BackendKeyData
				b[i+8] ^= 1
			}
			return b
		}, ErrPooler},
	} {
		u.Host = proxy(t, server, tt.edit)
		s, err := Open(t.Context(), Target{URL: u.String()}, Options{})
		if !errors.Is(err, tt.want) || err != nil && (Unreachable(err) || !errors.Is(err, ErrTarget)) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
		if err == nil {
			s.Close()
		}
	}
}

// TestSilentHost has a host that accepts connections and says nothing, as one does
// that hangs: the next one has its turn.
func TestSilentHost(t *testing.T) {
	u, err := url.Parse(with(t, pgtest.Database(t), "connect_timeout", "1"))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	u.Host = ln.Addr().String() + "," + u.Host
	began := time.Now()
	mustOpen(t, u.String(), Options{})
	t.Logf("open after %v", time.Since(began))
	config, err := Target{URL: "postgres://ehsm@db1,db2/d"}.config()
	if err != nil || config.ConnConfig.ConnectTimeout != 2*time.Second {
		t.Errorf("got %v, %v by default, want 2s", config.ConnConfig.ConnectTimeout, err)
	}
}

// TestDemoted: a server that takes no more changes, without a restart, is left by
// all that is connected to it.
func TestDemoted(t *testing.T) {
	first, second := pgtest.New(t), pgtest.New(t)
	mustOpen(t, second.URL("postgres"), Options{}).Close()
	s := mustOpen(t, fmt.Sprintf("postgres://ehsm@%s,%s/postgres", first.Addr(), second.Addr()), Options{})
	f := s.Feed()
	defer f.Close()
	next(t, f)
	set(t, s, keyID(1), 0, 1)
	admin := mustOpen(t, first.URL("postgres"), Options{})
	for _, sql := range []string{"ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"} {
		if _, err := admin.pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for !demoted(t, first) { // who starts so has been started after all others were told
	}
	if err := s.Ping(t.Context()); err == nil {
		t.Error("Ping of a server that takes no changes: got no error")
	}
	if _, _, err := f.Next(t.Context()); err == nil {
		t.Error("a feed of a server that takes no changes: got no error")
	}
	if _, all, err := f.Next(t.Context()); err != nil || !all {
		t.Errorf("then: got %t, %v, want all of the other one", all, err)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("Ping: got %v", err)
	}
	c := store.Change{Writes: []wire.Write{{ID: keyID(2), Revision: 1, Sealed: make([]byte, 16)}}}
	if err := s.Settle(t.Context(), c); err != nil {
		t.Errorf("a change: got %v", err)
	}
	rows, err := mustOpen(t, second.URL("postgres"), Options{}).Get(t.Context(), []wire.RecordID{keyID(2)})
	if err != nil || rows[0].Revision != 1 {
		t.Errorf("it is not on the server that takes changes: %v, %v", rows, err)
	}
}

// demoted reports whether a server's new sessions take no changes.
func demoted(t *testing.T, server *pgtest.Server) bool {
	t.Helper()
	c, err := pgx.Connect(t.Context(), server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	var reads bool
	if err := c.QueryRow(t.Context(), "SELECT current_setting('default_transaction_read_only')::bool").Scan(&reads); err != nil {
		t.Fatal(err)
	}
	return reads
}
