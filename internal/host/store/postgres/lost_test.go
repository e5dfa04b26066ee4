package postgres

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/host/store/postgres/pgtest"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// What a lossy network does to the next COMMIT. In each case the client loses its
// connection.
const (
	passes  int32 = iota
	drops         // it never arrives
	answers       // it arrives, its answer does not
	delays        // it arrives later, when the client has lost its connection already
)

// A lossy network passes everything on but a COMMIT.
type lossy struct {
	server string
	next   atomic.Int32
}

// lossyURL puts a lossy network before the database of a URL.
func lossyURL(t *testing.T, target string) (string, *lossy) {
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	l := &lossy{server: u.Host}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go l.serve(c)
		}
	}()
	u.Host = ln.Addr().String()
	return u.String(), l
}

func (l *lossy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", l.server)
	if err != nil {
		return
	}
	defer server.Close()
	go func() { io.Copy(client, server); client.Close() }()
	buffer := make([]byte, 1<<16)
	for {
		n, err := client.Read(buffer)
		if err != nil {
			return
		}
		if bytes.Contains(buffer[:n], []byte("COMMIT\x00")) {
			switch l.next.Swap(passes) {
			case drops:
				return
			case answers:
				client.Close()
				server.Write(buffer[:n])
				io.Copy(io.Discard, server)
				return
			case delays:
				client.Close()
				time.Sleep(300 * time.Millisecond)
				server.Write(buffer[:n])
				io.Copy(io.Discard, server)
				return
			}
		}
		if _, err := server.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// creation is a change that makes a record, with a replay entry.
func creation(n, content byte) store.Change {
	return store.Change{
		Writes: []wire.Write{{ID: keyID(n), Revision: 1, Sealed: bytes.Repeat([]byte{content}, 300)}},
		Replay: &wire.Replay{Tenant: wire.UUID{1}, Tag: wire.Tag{n}, Until: 1},
	}
}

// TestSettle loses the connection around a commit, and asks what became of it.
func TestSettle(t *testing.T) {
	target := pgtest.Database(t)
	other := mustOpen(t, target, Options{})
	through, network := lossyURL(t, target)
	s := mustOpen(t, through, Options{})
	unknown := errors.New("unknown")
	n := byte(0)
	for name, tt := range map[string]struct {
		loss      int32
		meanwhile func(store.Change) store.Change // by another node
		want      error
		revision  uint64
		ours      bool
	}{
		"the commit is lost":                   {drops, nil, nil, 1, true},
		"its answer is lost":                   {answers, nil, nil, 1, true},
		"it comes late":                        {delays, nil, nil, 1, true},
		"lost, and the same request elsewhere": {drops, func(c store.Change) store.Change { return creation(c.Replay.Tag[0], 9) }, store.ErrReplayed, 1, false},
		"lost, and the record is there": {drops, func(c store.Change) store.Change {
			return store.Change{Writes: []wire.Write{{ID: c.Writes[0].ID, Revision: 1, Sealed: make([]byte, 16)}}}
		}, store.ErrConflict, 1, false},
		"answer lost, then replaced": {answers, func(c store.Change) store.Change {
			return store.Change{Writes: []wire.Write{{ID: c.Writes[0].ID, Expected: 1, Revision: 2, Sealed: make([]byte, 16)}}}
		}, unknown, 2, false},
	} {
		n++
		c := creation(n, 7)
		network.next.Store(tt.loss)
		if err := s.Apply(t.Context(), c); err == nil || errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrReplayed) || errors.Is(err, store.ErrUnstored) {
			t.Fatalf("%s: Apply: got %v, want an unknown outcome", name, err)
		}
		if tt.meanwhile != nil {
			for { // once what was lost has ended
				err := other.Apply(t.Context(), tt.meanwhile(c))
				if err == nil {
					break
				}
				if t.Context().Err() != nil || !errors.Is(err, store.ErrConflict) {
					t.Fatal(err)
				}
			}
		}
		err := s.Settle(t.Context(), c)
		certain := err == nil || errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrReplayed)
		if tt.want == unknown && certain || tt.want != unknown && !errors.Is(err, tt.want) {
			t.Errorf("%s: Settle: got %v, want %v", name, err, tt.want)
		}
		row, err := other.Get(t.Context(), []wire.RecordID{c.Writes[0].ID})
		if err != nil || row[0].Revision != tt.revision || bytes.Equal(row[0].Sealed, c.Writes[0].Sealed) != tt.ours {
			t.Errorf("%s: got revision %d, %v", name, row[0].Revision, err)
		}
	}
}

// TestSettleOfNothing: of a change that leaves only a replay entry nobody can tell
// whose entry it is.
func TestSettleOfNothing(t *testing.T) {
	through, network := lossyURL(t, pgtest.Database(t))
	s := mustOpen(t, through, Options{})
	c := creation(1, 7)
	c.Writes = nil
	network.next.Store(answers)
	if err := s.Apply(t.Context(), c); err == nil {
		t.Fatal("Apply: got no error")
	}
	err := s.Settle(t.Context(), c)
	if err == nil || errors.Is(err, store.ErrReplayed) || errors.Is(err, store.ErrUnstored) {
		t.Errorf("Settle: got %v, want an unknown outcome", err)
	}
}

// TestSettleUnreplicated: where commits wait for a standby, a change that has
// reached only one server is not stored, although everybody there sees it.
func TestSettleUnreplicated(t *testing.T) {
	server := pgtest.New(t)
	s := mustOpen(t, server.URL("postgres"), Options{Timeout: 500 * time.Millisecond})
	standbys := func(names string) {
		t.Helper()
		for _, sql := range []string{"ALTER SYSTEM SET synchronous_standby_names = '" + names + "'", "SELECT pg_reload_conf()"} {
			if _, err := s.pool.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
		for got := "?"; got != names; { // each process reads it in its own time
			if err := s.pool.QueryRow(t.Context(), "SHOW synchronous_standby_names").Scan(&got); err != nil {
				t.Fatal(err)
			}
		}
	}
	standbys("absent")
	// The server's checkpointer, which has commits wait, reads the setting in its
	// own time too and does not tell when.
	var c store.Change
	deadline := time.Now().Add(20 * time.Second)
	for n := byte(1); ; n++ {
		c = creation(n, n)
		if err := s.Apply(t.Context(), c); err != nil {
			break
		}
		if time.Now().After(deadline) || n == 255 {
			t.Fatal("Apply: got no error without the standby")
		}
		time.Sleep(10 * time.Millisecond)
	}
	for visible := false; !visible; {
		rows, err := s.Get(t.Context(), []wire.RecordID{c.Writes[0].ID})
		if err != nil {
			t.Fatal(err)
		}
		visible = rows[0].Revision == 1
	}
	err := s.Settle(t.Context(), c)
	if err == nil || errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrReplayed) {
		t.Errorf("Settle without the standby: got %v, want an unknown outcome", err)
	}
	standbys("")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := s.Settle(ctx, c); err != nil {
		t.Errorf("Settle without any: got %v", err)
	}
}
