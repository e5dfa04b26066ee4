package hsmroot

import (
	"errors"
	"net"
	"path/filepath"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire/hsm"
)

// sidecar answers each connection with answer, and returns the address.
func sidecar(t *testing.T, answer func(*hsm.Message, net.Conn)) *Socket {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			if m, err := hsm.Read(conn); err == nil {
				answer(m, conn)
			}
			conn.Close()
		}
	}()
	s, err := NewSocket("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// serving is a sidecar with the token k.
func serving(t *testing.T, k *token) *Socket {
	return sidecar(t, func(m *hsm.Message, conn net.Conn) {
		a := &hsm.Message{Kind: hsm.Refused}
		switch m.Kind {
		case hsm.Wrap:
			if w, err := k.Wrap(m.Label, m.Context, secret.Copy(m.Key[:])); err == nil {
				a = &hsm.Message{Kind: hsm.WrapDone, Wrapped: w}
			}
		case hsm.Unwrap:
			if key, err := k.Unwrap(m.Context, m.Wrapped); err == nil {
				a = &hsm.Message{Kind: hsm.UnwrapKey, Key: [32]byte(key.Expose())}
			}
		}
		hsm.Write(conn, a)
	})
}

func TestSocket(t *testing.T) {
	s := serving(t, newToken(t, "one", "two"))
	context, key := [32]byte{1}, secret.New([]byte("0123456789abcdef0123456789abcdef"))
	// As package domainkey calls it, and connections start goroutines.
	secret.Do(func() {
		w, err := s.Wrap("two", context, key)
		if err != nil || w.Label != "two" || w.Mechanism != hsm.GCM {
			t.Fatalf("Wrap: got %+v, %v", w, err)
		}
		if got, err := s.Unwrap(context, w); err != nil || !got.Equal(key) {
			t.Errorf("Unwrap: got %v", err)
		}
		context[0]++
		if got, err := s.Unwrap(context, w); !errors.Is(err, ErrHSM) || got.Len() != 0 {
			t.Errorf("Unwrap in another context: got %v, want ErrHSM", err)
		}
		if _, err := s.Wrap("three", context, key); !errors.Is(err, ErrHSM) {
			t.Errorf("Wrap with a key that is not there: got %v, want ErrHSM", err)
		}
		if _, err := s.Wrap("one", context, secret.New(make([]byte, 31))); !errors.Is(err, ErrHSM) {
			t.Errorf("Wrap of 31 bytes: got %v, want ErrHSM", err)
		}
	})
}

// TestBadSidecars has answers that are none.
func TestBadSidecars(t *testing.T) {
	says := func(m *hsm.Message) func(*hsm.Message, net.Conn) {
		return func(_ *hsm.Message, conn net.Conn) { hsm.Write(conn, m) }
	}
	w := hsm.Wrapped{Label: "k", Mechanism: hsm.GCM, Blob: []byte{1}}
	for name, s := range map[string]*Socket{
		"refused":         sidecar(t, says(&hsm.Message{Kind: hsm.Refused})),
		"a request":       sidecar(t, says(&hsm.Message{Kind: hsm.Wrap})),
		"closed":          sidecar(t, func(*hsm.Message, net.Conn) {}),
		"cut short":       sidecar(t, func(_ *hsm.Message, conn net.Conn) { conn.Write([]byte{0, 0, 0, 9, 1}) }),
		"too long":        sidecar(t, func(_ *hsm.Message, conn net.Conn) { conn.Write([]byte{0, 1, 0, 0}) }),
		"the other's":     sidecar(t, func(m *hsm.Message, conn net.Conn) { hsm.Write(conn, other(m.Kind, w)) }),
		"nothing of ours": sidecar(t, func(_ *hsm.Message, conn net.Conn) { conn.Write([]byte("HTTP/1.1 200 OK\r\n\r\n")) }),
	} {
		if got, err := s.Wrap("", [32]byte{}, secret.New(make([]byte, 32))); !errors.Is(err, ErrHSM) || got.Label != "" {
			t.Errorf("%s: Wrap: got %+v, %v, want ErrHSM", name, got, err)
		}
		if got, err := s.Unwrap([32]byte{}, w); !errors.Is(err, ErrHSM) || got.Len() != 0 {
			t.Errorf("%s: Unwrap: got %v, want ErrHSM", name, err)
		}
	}
	for _, address := range []string{"", "/run/hsm.sock", "unix:hsm.sock", "tcp:192.0.2.1:1", "tcp:localhost:1"} {
		if _, err := NewSocket(address); !errors.Is(err, config.ErrAddress) {
			t.Errorf("NewSocket(%q): got %v, want ErrAddress", address, err)
		}
	}
}

// other is the answer to the other request.
func other(k hsm.Kind, w hsm.Wrapped) *hsm.Message {
	if k == hsm.Wrap {
		return &hsm.Message{Kind: hsm.UnwrapKey}
	}
	return &hsm.Message{Kind: hsm.WrapDone, Wrapped: w}
}
