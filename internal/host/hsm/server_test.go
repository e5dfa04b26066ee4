package hsm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire/hsm"
)

// mirror wraps by turning the bytes over, and fails with fail.
type mirror struct {
	fail  error
	short bool
	enter func() // called at the start of each request
}

func (h *mirror) Wrap(label string, _ [32]byte, key []byte) (hsm.Wrapped, error) {
	if h.enter != nil {
		h.enter()
	}
	if label == "" {
		label = "first"
	}
	return hsm.Wrapped{Label: label, Mechanism: hsm.GCM, Blob: flip(key)}, h.fail
}

func (h *mirror) Unwrap(_ [32]byte, w hsm.Wrapped) ([]byte, error) {
	if h.enter != nil {
		h.enter()
	}
	if h.short {
		return w.Blob[:31], h.fail
	}
	return flip(w.Blob), h.fail
}

func flip(b []byte) []byte {
	c := bytes.Clone(b)
	for i := range c {
		c[i] ^= 0xff
	}
	return c
}

// journal is a log that is read while it is written.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// start serves h until the test ends.
func start(t *testing.T, h Wrapper, edit func(*Server)) (path string, log *journal) {
	t.Helper()
	dir, err := os.MkdirTemp("", "hsm-*") // short: paths of sockets are limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path, log = filepath.Join(dir, "s"), new(journal)
	ln, err := Listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{HSM: h, Log: slog.New(slog.NewTextHandler(log, nil)), Timeout: 10 * time.Second, Connections: 4}
	if edit != nil {
		edit(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return path, log
}

func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

func ask(t *testing.T, conn net.Conn, m *hsm.Message) *hsm.Message {
	t.Helper()
	if err := hsm.Write(conn, m); err != nil {
		t.Fatal(err)
	}
	a, err := hsm.Read(conn)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestServer(t *testing.T) {
	path, log := start(t, &mirror{}, nil)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: got %v, %v, want mode 600", info.Mode(), err)
	}
	conn, key := dial(t, path), [32]byte{1, 2, 3}
	for _, label := range []string{"", "second"} { // on one connection
		a := ask(t, conn, &hsm.Message{Kind: hsm.Wrap, Label: label, Key: key})
		if a.Kind != hsm.WrapDone || label != "" && a.Wrapped.Label != label {
			t.Fatalf("wrap: got %+v", a)
		}
		if a = ask(t, conn, &hsm.Message{Kind: hsm.Unwrap, Wrapped: a.Wrapped}); a.Kind != hsm.UnwrapKey || a.Key != key {
			t.Errorf("unwrap: got %+v", a)
		}
	}
	if strings.Contains(log.String(), "010203") || !strings.Contains(log.String(), "request=unwrap key=second") {
		t.Errorf("the log is %s", log)
	}
}

// TestNoReasons has an HSM that fails: the log says why, the answer does not.
func TestNoReasons(t *testing.T) {
	for name, h := range map[string]*mirror{
		"PIN is wrong, slot 7": {fail: errors.New("PIN is wrong, slot 7")},
		"31 bytes":             {short: true},
	} {
		path, log := start(t, h, nil)
		m := &hsm.Message{Kind: hsm.Unwrap, Wrapped: hsm.Wrapped{Label: "k", Mechanism: hsm.GCM, Blob: make([]byte, 32)}}
		if a := ask(t, dial(t, path), m); a.Kind != hsm.Refused || len(a.Append(nil)) != 2 {
			t.Errorf("%s: got %+v", name, a)
		}
		if !strings.Contains(log.String(), name) {
			t.Errorf("the log is %s, want %q in it", log, name)
		}
	}
}

// TestStrangeRequests ends connections whose peer does not speak the protocol.
func TestStrangeRequests(t *testing.T) {
	path, log := start(t, &mirror{}, nil)
	answer := new(bytes.Buffer)
	if err := hsm.Write(answer, &hsm.Message{Kind: hsm.UnwrapKey}); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"an answer":      answer.Bytes(),
		"a long message": {0, 1, 0, 0},
		"another format": {0, 0, 0, 2, 2, 1},
		"HTTP":           []byte("GET / HTTP/1.1\r\n\r\n"),
	} {
		conn := dial(t, path)
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(conn); len(got) > 0 {
			t.Errorf("%s: got %x, %v, want the end", name, got, err)
		}
	}
	if strings.Count(log.String(), "request refused") != 4 {
		t.Errorf("the log is %s", log)
	}
}

// TestOneAtATime has many ask at once.
func TestOneAtATime(t *testing.T) {
	var inside, most atomic.Int32
	h := &mirror{enter: func() {
		most.Store(max(most.Load(), inside.Add(1)))
		inside.Add(-1)
	}}
	path, _ := start(t, h, func(s *Server) { s.Connections = 8 })
	var all sync.WaitGroup
	for range 8 {
		conn := dial(t, path)
		all.Go(func() {
			for range 50 {
				if hsm.Write(conn, &hsm.Message{Kind: hsm.Wrap}) != nil {
					t.Error("write failed")
				}
				if a, err := hsm.Read(conn); err != nil || a.Kind != hsm.WrapDone {
					t.Errorf("got %+v, %v", a, err)
				}
			}
		})
	}
	all.Wait()
	if most.Load() != 1 {
		t.Errorf("%d requests at a time", most.Load())
	}
}

// TestHangingHSM has a library that does not come back: who asks is refused in time,
// nothing else enters the library, and it is used again once it does come back.
func TestHangingHSM(t *testing.T) {
	entered, hang := make(chan struct{}, 8), make(chan struct{})
	h := &mirror{enter: func() { entered <- struct{}{}; <-hang }}
	path, log := start(t, h, func(s *Server) { s.Timeout = 100 * time.Millisecond })
	for range 2 {
		if a := ask(t, dial(t, path), &hsm.Message{Kind: hsm.Wrap}); a.Kind != hsm.Refused {
			t.Errorf("got %+v", a)
		}
	}
	if len(entered) != 1 {
		t.Errorf("%d requests are in the library", len(entered))
	}
	if !strings.Contains(log.String(), ErrTimeout.Error()) || !strings.Contains(log.String(), "wait for earlier requests") {
		t.Errorf("the log is %s", log)
	}
	close(hang)
	for limit := time.Now().Add(10 * time.Second); ; { // it comes back beside this
		if a := ask(t, dial(t, path), &hsm.Message{Kind: hsm.Wrap}); a.Kind == hsm.WrapDone {
			return
		}
		if time.Now().After(limit) {
			t.Fatal("refused for good")
		}
	}
}

func TestTooManyConnections(t *testing.T) {
	path, _ := start(t, &mirror{}, func(s *Server) { s.Connections = 1 })
	first := dial(t, path)
	ask(t, first, &hsm.Message{Kind: hsm.Wrap})
	if b, err := io.ReadAll(dial(t, path)); len(b) > 0 || err != nil && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") {
		t.Errorf("a second connection: got %x, %v, want its end", b, err)
	}
	ask(t, first, &hsm.Message{Kind: hsm.Wrap})
}

func TestListen(t *testing.T) {
	path, _ := start(t, &mirror{}, nil)
	if ln, err := Listen("unix:" + path); err == nil {
		ln.Close()
		t.Error("two listen on one socket")
	}
	left := filepath.Join(filepath.Dir(path), "left")
	ln, err := net.Listen("unix", left)
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
	if ln, err = Listen("unix:" + left); err != nil {
		t.Fatalf("a socket that was left: %v", err)
	}
	ln.Close()
	file := filepath.Join(filepath.Dir(path), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"unix:" + file, "unix:s", "tcp:0.0.0.0:0", "s"} {
		if ln, err := Listen(address); err == nil {
			ln.Close()
			t.Errorf("listens on %s", address)
		}
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("a file was removed: %v", err)
	}
}
