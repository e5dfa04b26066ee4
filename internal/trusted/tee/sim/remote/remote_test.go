package remote

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim/protocol"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// A fake daemon accepts connections and answers each request with answer, which
// is told the number of the connection. An honest one is in package daemon.
func fake(t *testing.T, answer func(connection int, r protocol.Request) ([]byte, error)) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sim-*") // short: paths of sockets are limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ln, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for connection := 0; ; connection++ {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go serve(conn, connection, answer)
		}
	}()
	return ln.Addr().String()
}

func serve(conn net.Conn, connection int, answer func(int, protocol.Request) ([]byte, error)) {
	defer conn.Close()
	for {
		b, err := protocol.ReadFrame(conn, protocol.MaxRequest)
		if err != nil {
			return
		}
		r, err := protocol.DecodeRequest(b)
		if err != nil {
			return
		}
		body, err := answer(connection, r)
		if protocol.WriteFrame(conn, protocol.AppendReply(nil, body, err)) != nil {
			return
		}
	}
}

var own = protocol.Loaded{Identity: tee.Identity{Measurement: [32]byte{1}, Product: 1, SVN: 2}}

// introduce answers the first two requests with what l says.
func introduce(l protocol.Loaded, r protocol.Request) ([]byte, bool) {
	switch r.Op {
	case protocol.OpHello:
		return make([]byte, 32), true
	case protocol.OpProve:
		return l.Append(nil), true
	}
	return nil, false
}

func TestDialRefuses(t *testing.T) {
	other := own
	other.Identity.Product = 9
	older := own
	older.Identity.SVN = 1
	for name, row := range map[string]struct {
		answer func(int, protocol.Request) ([]byte, error)
		want   error
	}{
		"another product": {func(_ int, r protocol.Request) ([]byte, error) { b, _ := introduce(other, r); return b, nil }, tee.ErrIdentity},
		"another version": {func(_ int, r protocol.Request) ([]byte, error) { b, _ := introduce(older, r); return b, nil }, tee.ErrIdentity},
		"a short nonce":   {func(int, protocol.Request) ([]byte, error) { return make([]byte, 31), nil }, protocol.ErrFrame},
		"no identity":     {func(int, protocol.Request) ([]byte, error) { return make([]byte, 32), nil }, pack.ErrMalformed},
		"a refusal":       {func(int, protocol.Request) ([]byte, error) { return nil, errors.New("no") }, protocol.ErrRefused},
		"its identity":    {func(int, protocol.Request) ([]byte, error) { return nil, tee.ErrIdentity }, tee.ErrIdentity},
	} {
		if m, err := Dial(t.Context(), fake(t, row.answer), 1, 2); !errors.Is(err, row.want) || m != nil {
			t.Errorf("%s: got %v, want %v", name, err, row.want)
		}
	}
}

func TestDaemonOfAnotherUser(t *testing.T) {
	conn, err := net.Dial("unix", fake(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	u := conn.(*net.UnixConn)
	if err := ownDaemon(u, os.Geteuid()); err != nil {
		t.Error(err)
	}
	if err := ownDaemon(u, os.Geteuid()+1); !errors.Is(err, ErrOwner) {
		t.Errorf("got %v, want ErrOwner", err)
	}
}

// TestLateReplies: the reply to a request that was given up is nobody's.
func TestLateReplies(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	release := make(chan struct{})
	m, err := Dial(t.Context(), fake(t, func(connection int, r protocol.Request) ([]byte, error) {
		if b, ok := introduce(own, r); ok {
			return b, nil
		}
		if connection > 0 {
			return []byte("fresh"), nil
		}
		cancel() // the caller gives up while the request is being answered
		<-release
		return []byte("late"), nil
	}), 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := m.Evidence(ctx, [64]byte{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want Canceled", err)
	}
	close(release)
	for range 3 {
		if got, err := m.Target(); err != nil || string(got) != "fresh" {
			t.Errorf("got %q, %v, want the reply to this request", got, err)
		}
	}
}

func TestRepliesRefused(t *testing.T) {
	m, err := Dial(t.Context(), fake(t, func(_ int, r protocol.Request) ([]byte, error) {
		if b, ok := introduce(own, r); ok {
			return b, nil
		}
		return []byte("short"), nil
	}), 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if k, err := m.SealKey(tee.KeyRequest{}); !errors.Is(err, tee.ErrKeyRequest) || k.Len() != 0 {
		t.Errorf("a key of 5 bytes: got %v, want ErrKeyRequest", err)
	}
	if _, err := m.Evidence(t.Context(), [64]byte{}); !errors.Is(err, pack.ErrMalformed) {
		t.Errorf("evidence: got %v, want ErrMalformed", err)
	}
	if _, _, err := m.VerifyReport(nil); !errors.Is(err, pack.ErrMalformed) {
		t.Errorf("a verified report: got %v, want ErrMalformed", err)
	}
	// These are too long to be sent.
	if _, err := m.SealKey(tee.KeyRequest{Info: make([]byte, tee.MaxKeyInfo+1)}); !errors.Is(err, tee.ErrKeyRequest) {
		t.Errorf("long key information: got %v, want ErrKeyRequest", err)
	}
	if _, err := m.Report(make([]byte, protocol.MaxTarget+1), [64]byte{}); !errors.Is(err, tee.ErrEvidence) {
		t.Errorf("a long target: got %v, want ErrEvidence", err)
	}
	if _, _, err := m.VerifyReport(make([]byte, protocol.MaxReport+1)); !errors.Is(err, tee.ErrEvidence) {
		t.Errorf("a long report: got %v, want ErrEvidence", err)
	}
}
