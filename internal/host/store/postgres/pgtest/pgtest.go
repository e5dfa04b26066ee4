// Package pgtest runs PostgreSQL servers for tests.
package pgtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// SharedURL names the variable with the URL of a server that tests may make
// databases in. Without it each package that needs a server starts one.
const SharedURL = "EHSM_TEST_POSTGRES"

// A Server is a PostgreSQL server of the test's own, on a loopback port. It is
// durable: it syncs as in production.
type Server struct {
	bin, dir string
	port     int
	cred     *syscall.Credential // of the user that runs it, if that is not ours
	cmd      *exec.Cmd
	log      *os.File
	ended    chan struct{} // closed when the process has ended
}

// shared starts the server of a test binary.
var shared = sync.OnceValues(newServer)

// Main runs the tests of a package and then stops the server that Database has
// started. TestMain calls it.
func Main(m *testing.M) int {
	defer func() {
		if used.Load() {
			if s, err := shared(); err == nil {
				s.remove()
			}
		}
	}()
	return m.Run()
}

// admin returns the URL of a server that this test may make databases in.
func admin() (string, error) {
	if u := os.Getenv(SharedURL); u != "" {
		return u, nil
	}
	used.Store(true)
	s, err := shared()
	if err != nil {
		return "", err
	}
	return s.URL("postgres"), nil
}

// used says that shared was called.
var used atomic.Bool

// Database returns the URL of an empty schema, which serves as a database and is
// made sooner. It is dropped when the test ends.
func Database(t testing.TB) string {
	t.Helper()
	server, err := admin()
	if err != nil {
		t.Fatal(err)
	}
	name := "ehsm_" + strings.ToLower(rand.Text())
	if err := run(t.Context(), server, "CREATE SCHEMA "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := run(context.WithoutCancel(t.Context()), server, "DROP SCHEMA "+name+" CASCADE"); err != nil {
			t.Error(err)
		}
	})
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("search_path", name)
	u.RawQuery = q.Encode()
	return u.String()
}

func run(ctx context.Context, target, sql string) error {
	c, err := pgx.Connect(ctx, target)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, sql)
	return err
}

// New starts a server that only this test uses, so that it can be killed.
func New(t testing.TB) *Server {
	t.Helper()
	s, err := newServer()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.remove)
	return s
}

func newServer() (*Server, error) {
	dir, err := os.MkdirTemp("", "ehsm-postgres-")
	if err != nil {
		return nil, err
	}
	s, err := start(dir)
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return s, nil
}

func (s *Server) remove() {
	s.Kill()
	s.log.Close()
	os.RemoveAll(s.dir)
}

// URL names a database of the server.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("postgres://ehsm@127.0.0.1:%d/%s?sslmode=disable", s.port, database)
}

// Configure appends to the server's configuration, which counts from the next
// Start on, and puts files beside it that only the server may read.
func (s *Server) Configure(text string, files map[string][]byte) error {
	f, err := os.OpenFile(filepath.Join(s.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString("\n" + text + "\n"); err != nil {
		return err
	}
	for name, content := range files {
		path := filepath.Join(s.data(), name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return err
		}
		if s.cred == nil {
			continue
		}
		if err := os.Chown(path, int(s.cred.Uid), int(s.cred.Gid)); err != nil {
			return err
		}
	}
	return nil
}

// Addr is where the server listens.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// Kill ends the server as a crash does: SIGKILL. Its children notice and end by
// themselves.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

// Stop ends the server in order: open transactions are rolled back, connections
// are told.
func (s *Server) Stop() { s.end(syscall.SIGINT) }

func (s *Server) end(signal os.Signal) {
	if s.cmd != nil {
		s.cmd.Process.Signal(signal)
		<-s.ended
		s.cmd = nil
	}
}

// Start starts a server again that was killed or stopped, and returns when it serves.
func (s *Server) Start() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		if err := s.launch(); err != nil {
			return err
		}
		err := s.await(ctx)
		if err == nil {
			return nil
		}
		s.Kill()
		if ctx.Err() != nil {
			text, _ := os.ReadFile(s.log.Name())
			return fmt.Errorf("start PostgreSQL: %w: %s", err, text)
		}
	}
}

// launch starts the process.
func (s *Server) launch() error {
	cmd := exec.Command(filepath.Join(s.bin, "postgres"), "-D", s.data(), "-p", strconv.Itoa(s.port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=200")
	cmd.Stdout, cmd.Stderr = s.log, s.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred, Pdeathsig: syscall.SIGQUIT}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // the process dies with the thread that has made it
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	s.cmd, s.ended = cmd, ended
	return nil
}

// await returns when the server serves. An error means that it has ended, as it
// does while children of a killed one are still there.
func (s *Server) await(ctx context.Context) error {
	for {
		err := run(ctx, s.URL("postgres"), "SELECT 1")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-s.ended:
			time.Sleep(20 * time.Millisecond)
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func start(dir string) (*Server, error) {
	s := &Server{dir: dir}
	var err error
	if s.bin, err = find(); err != nil {
		return nil, err
	}
	if s.cred, err = account(dir); err != nil {
		return nil, err
	}
	if s.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		return nil, err
	}
	initdb := exec.Command(filepath.Join(s.bin, "initdb"), "-D", s.data(), "-U", "ehsm", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
	initdb.Dir = dir
	initdb.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred}
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	if s.port, err = freePort(); err != nil {
		return nil, err
	}
	return s, s.Start()
}

// find returns the directory of the newest PostgreSQL on this machine.
func find() (string, error) {
	dirs, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // Debian's place
	if err != nil {
		return "", err
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		dirs = append(dirs, path)
	}
	if len(dirs) == 0 {
		return "", errors.New("PostgreSQL is not installed: apt-get install postgresql")
	}
	return filepath.Dir(slices.Max(dirs)), nil
}

// account returns the user to run the server as, which must not be root, and
// makes dir his.
func account(dir string) (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return nil, err
		}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, os.Chown(dir, int(uid), int(gid))
}

func freePort() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port, nil
}
