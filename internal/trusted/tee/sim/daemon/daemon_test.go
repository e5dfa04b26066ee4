package daemon

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim/protocol"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim/remote"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/teetest"
)

// most is how many connections the daemons of tests serve; TestParallelProcesses
// needs two for each.
const most = 16

// role makes a process of this test binary one of the programs in program_test.go.
const role = "SIM_TEST_ROLE"

func TestMain(m *testing.M) {
	if name := os.Getenv(role); name != "" {
		os.Exit(program(name, os.Args[1:]))
	}
	os.Exit(m.Run())
}

// A service is a daemon in this process.
type service struct {
	socket string
	dir    string // of the machine
	log    *buffer
	stop   func()
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// directory is short and its user's only: paths of sockets are limited.
func directory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sim-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func start(t testing.TB) *service {
	dir := directory(t)
	s := &service{socket: filepath.Join(dir, "s"), dir: filepath.Join(dir, "sim"), log: new(buffer)}
	s.start(t, os.Geteuid())
	return s
}

// start serves the processes of a user until stop is called.
func (s *service) start(t testing.TB, uid int) {
	t.Helper()
	p, err := sim.OpenProcessor(s.dir, sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := Listen(s.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- (&server{p, slog.New(slog.NewTextHandler(s.log, nil)), uid, most}).serve(ctx, ln) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(s.stop)
}

func (s *service) dial(t *testing.T) *remote.Machine {
	t.Helper()
	m, err := remote.Dial(t.Context(), s.socket, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// run runs a program of program_test.go in a process and returns what it prints.
func run(t testing.TB, exe, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), role+"="+name)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("program %s: %v: %s", name, err, &stderr)
	}
	return string(out)
}

// another makes another executable that behaves as this one.
func another(t testing.TB) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(directory(t), "another")
	if err := os.WriteFile(path, append(b, rand.Text()...), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSuite(t *testing.T) {
	s := start(t)
	teetest.Run(t, func() (tee.Platform, error) {
		m, err := remote.Dial(t.Context(), s.socket, 1, 2)
		if err == nil {
			t.Cleanup(func() { m.Close() })
		}
		return m, err
	})
}

// The daemon and the library are one machine to one program: what one has sealed
// the other opens.
func TestSameMachineAsTheLibrary(t *testing.T) {
	s := start(t)
	m := s.dial(t)
	library, err := sim.Open(s.dir, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	if m.Identity() != library.Identity() || m.Name() != library.Name() || !m.Simulated() || !m.DevelopmentSigner() || !library.DevelopmentSigner() {
		t.Errorf("got %+v, the library has %+v", m.Identity(), library.Identity())
	}
	for _, policy := range []tee.Policy{tee.BindSigner, tee.BindMeasured} {
		q, key, err := tee.NewSealKey(m, policy)
		if err != nil {
			t.Fatal(err)
		}
		if k, err := library.SealKey(q); err != nil || !k.Equal(key) {
			t.Errorf("policy %d: the library has another key, %v", policy, err)
		}
	}
	target, err := library.Target()
	if err != nil {
		t.Fatal(err)
	}
	report, err := m.Report(target, [64]byte{5})
	if err != nil {
		t.Fatal(err)
	}
	if id, data, err := library.VerifyReport(report); err != nil || id != m.Identity() || data != [64]byte{5} {
		t.Errorf("VerifyReport: got %+v, %x, %v", id, data, err)
	}
	if !strings.Contains(s.log.String(), "program measured") || !strings.Contains(s.log.String(), "development=true") {
		t.Errorf("the log has %s", s.log)
	}
}

// A process gets the identity of what it executes, whatever it was built as.
func TestAnotherExecutableIsAnotherIdentity(t *testing.T) {
	s := start(t)
	path := another(t)
	own := s.dial(t)
	want, err := sim.MeasureFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := run(t, path, "measurement", s.socket); got != fmt.Sprintf("%x", want.Measurement) {
		t.Errorf("got %s, want %x", got, want.Measurement)
	}
	if want.Measurement == own.Identity().Measurement {
		t.Error("two executables have one measurement")
	}
	const bound = "2" // tee.BindMeasured
	first, second := run(t, path, "sealkey", s.socket, bound), run(t, os.Args[0], "sealkey", s.socket, bound)
	if first == second || len(first) != 64 || len(second) != 64 {
		t.Errorf("two executables have the measured keys %s and %s", first, second)
	}
}

func TestSignedProgram(t *testing.T) {
	s := start(t)
	path, key := another(t), filepath.Join(directory(t), "key")
	if err := sim.NewSigner(key); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+sim.EnvironmentSuffix, []byte("EHSM_X=measured\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	signature, err := sim.SignFile(path, key, 1, 2, true)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("signer %x, product 1, version 2, debug true, development false, EHSM_X=measured", sim.SignerID(signature.Signer))
	if got := run(t, path, "identity", s.socket); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, row := range []struct {
		name   string
		change func() error
		want   error
	}{
		{"product it was not built as", func() error { _, err := sim.SignFile(path, key, 2, 2, false); return err }, tee.ErrIdentity},
		{"higher version", func() error { _, err := sim.SignFile(path, key, 1, 3, false); return err }, tee.ErrIdentity},
		{"changed configuration", func() error { return os.WriteFile(path+sim.EnvironmentSuffix, nil, 0o600) }, sim.ErrSignature},
		{"malformed configuration", func() error { return os.WriteFile(path+sim.EnvironmentSuffix, []byte("x"), 0o600) }, sim.ErrEnvironment},
		{"malformed signature", func() error {
			return errors.Join(os.Remove(path+sim.EnvironmentSuffix), os.WriteFile(path+sim.SignatureSuffix, []byte("x"), 0o600))
		}, sim.ErrSignature},
	} {
		if err := row.change(); err != nil {
			t.Fatal(err)
		}
		if got := run(t, path, "identity", s.socket); !strings.Contains(got, row.want.Error()) {
			t.Errorf("%s: got %s, want %v", row.name, got, row.want)
		}
	}
}

// Eight processes at once, with one machine.
func TestParallelProcesses(t *testing.T) {
	s := start(t)
	out := make([]string, 8)
	var wg sync.WaitGroup
	for i := range out {
		wg.Go(func() { out[i] = run(t, os.Args[0], "everything", s.socket) })
	}
	wg.Wait()
	for i, text := range out {
		if text != out[0] || len(text) != 64 {
			t.Errorf("process %d has the key %s, process 0 %s", i, text, out[0])
		}
	}
}

// Two processes prove to each other that they run on one machine.
func TestReportsBetweenProcesses(t *testing.T) {
	s := start(t)
	m := s.dial(t)
	target, err := m.Target()
	if err != nil {
		t.Fatal(err)
	}
	path := another(t)
	text := run(t, path, "report", s.socket, hex.EncodeToString(target))
	report, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(text)
	}
	want, err := sim.MeasureFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if id, data, err := m.VerifyReport(report); err != nil || id.Measurement != want.Measurement || data != [64]byte{6} {
		t.Errorf("got %+v, %x, %v", id, data, err)
	}
	other := start(t).dial(t)
	if _, _, err := other.VerifyReport(report); !errors.Is(err, tee.ErrEvidence) {
		t.Errorf("another machine: got %v, want ErrEvidence", err)
	}
}

func TestRestart(t *testing.T) {
	s := start(t)
	m := s.dial(t)
	q, key, err := tee.NewSealKey(m, tee.BindSigner)
	if err != nil {
		t.Fatal(err)
	}
	s.stop()
	if _, err := m.SealKey(q); !errors.Is(err, tee.ErrNoPlatform) {
		t.Errorf("no daemon: got %v, want ErrNoPlatform", err)
	}
	s.start(t, os.Geteuid())
	if again, err := m.SealKey(q); err != nil || !again.Equal(key) {
		t.Errorf("a daemon again: got another key, or %v", err)
	}
	s.stop()
	s.dir += "-other"
	s.start(t, os.Geteuid())
	if _, err := m.SealKey(q); !errors.Is(err, tee.ErrIdentity) {
		t.Errorf("a daemon of another machine: got %v, want ErrIdentity", err)
	}
}

func TestCallersMayGiveUp(t *testing.T) {
	s := start(t)
	m := s.dial(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Evidence(ctx, [64]byte{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want Canceled", err)
	}
	if _, err := m.Evidence(t.Context(), [64]byte{}); err != nil {
		t.Errorf("the next one: %v", err)
	}
	silent, err := net.Listen("unix", filepath.Join(directory(t), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := remote.Dial(ctx, silent.Addr().String(), 1, 2); err == nil {
		t.Error("a daemon that says nothing measures")
	}
	if _, err := remote.Dial(t.Context(), filepath.Join(directory(t), "nobody"), 1, 2); !errors.Is(err, tee.ErrNoPlatform) {
		t.Errorf("no socket: got %v, want ErrNoPlatform", err)
	}
}

func TestListen(t *testing.T) {
	for _, mode := range []os.FileMode{0o777, 0o770, 0o702, os.ModeSticky | 0o777} {
		dir := directory(t)
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Listen(filepath.Join(dir, "s")); !errors.Is(err, ErrDirectory) {
			t.Errorf("directory of mode %v: got %v, want ErrDirectory", mode, err)
		}
	}
	if os.Geteuid() == 0 { // only root can give a directory away
		dir := directory(t)
		if err := os.Chown(dir, 65534, -1); err != nil {
			t.Fatal(err)
		}
		if _, err := Listen(filepath.Join(dir, "s")); !errors.Is(err, ErrDirectory) {
			t.Errorf("directory of another user: got %v, want ErrDirectory", err)
		}
	}
	s := start(t)
	if _, err := Listen(s.socket); err == nil {
		t.Error("two daemons on one socket")
	}
	if info, err := os.Stat(s.socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket has mode %v, %v", info.Mode(), err)
	}
	left := filepath.Join(directory(t), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: left, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	again, err := Listen(left)
	if err != nil {
		t.Fatalf("a socket left behind: %v", err)
	}
	again.Close()
	if _, err := Listen(filepath.Join(directory(t), "not", "there")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: got %v, want ErrNotExist", err)
	}
}

func FuzzRequests(f *testing.F) {
	m, err := sim.Open(filepath.Join(directory(f), "sim"), 1, 2)
	if err != nil {
		f.Fatal(err)
	}
	target, err := m.Target()
	if err != nil {
		f.Fatal(err)
	}
	for _, r := range []protocol.Request{
		{Op: protocol.OpHello}, {Op: protocol.OpSealKey, Key: tee.KeyRequest{Policy: tee.BindSigner}},
		{Op: protocol.OpEvidence}, {Op: protocol.OpTarget}, {Op: protocol.OpReport, Body: target}, {Op: protocol.OpVerify, Body: make([]byte, 432)},
	} {
		var b bytes.Buffer
		if err := protocol.WriteFrame(&b, r.Append(nil)); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		from := bytes.NewReader(b)
		for {
			r, err := next(from)
			if err != nil {
				return
			}
			body, err := answer(t.Context(), m, r)
			if r.Op == protocol.OpVerify && err == nil {
				t.Errorf("a report out of nothing is verified: %x", r.Body)
			}
			encoded := protocol.AppendReply(nil, body, err)
			if _, err := protocol.DecodeReply(encoded); len(encoded) > protocol.MaxReply || (err != nil && errors.Is(err, io.EOF)) {
				t.Errorf("a reply of %d bytes, %v", len(encoded), err)
			}
		}
	})
}
