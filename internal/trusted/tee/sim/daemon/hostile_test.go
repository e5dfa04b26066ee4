package daemon

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim/protocol"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim/remote"
)

// A process cannot get the identity of an executable that it does not run, nor
// lend its own to another.
func TestOnlyTheMeasuredProcessIsServed(t *testing.T) {
	s := start(t)
	path := another(t)
	for _, row := range []struct {
		name, program string
		args          []string
		want          error
	}{
		{"executes another file before the proof", "become", []string{s.socket, path}, ErrChanged},
		{"executes another file after the proof", "become late", []string{s.socket, path}, ErrChanged},
		{"another process speaks", "lend", []string{s.socket}, ErrSender},
		{"another process proves", "lend for proof", []string{s.socket}, ErrSender},
	} {
		if got := run(t, os.Args[0], row.program, row.args...); !strings.Contains(got, row.want.Error()) {
			t.Errorf("%s: got %s, want %v", row.name, got, row.want)
		}
	}
}

// Anybody can make a pid namespace, and is root in it: the kernel then believes
// him which of its processes sends. So the executable of one could be measured
// while another proves.
func TestAnotherPIDNamespace(t *testing.T) {
	s := start(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], s.socket)
	cmd.Env = append(os.Environ(), role+"=forge the proof")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	out, err := cmd.Output()
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL) {
		t.Logf("no namespace can be made here, so that nobody can forge a sender: %v", err)
		return
	}
	if err != nil || !strings.Contains(string(out), ErrChanged.Error()) {
		t.Errorf("got %s, %v, want %v", out, err, ErrChanged)
	}
}

func TestOtherUsersAreRefused(t *testing.T) {
	s := start(t)
	s.stop()
	s.start(t, os.Geteuid()+1) // who connects is then another user
	if _, err := remote.Dial(t.Context(), s.socket, 1, 2); !errors.Is(err, protocol.ErrRefused) || !strings.Contains(err.Error(), ErrOwner.Error()) {
		t.Errorf("got %v, want %v", err, ErrOwner)
	}
}

func rawConn(t *testing.T, s *service) *net.UnixConn {
	t.Helper()
	conn, err := connect(s.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// introduced is a connection of a measured process.
func introduced(t *testing.T, s *service) *net.UnixConn {
	t.Helper()
	conn := rawConn(t, s)
	nonce, err := say(conn, hello())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := say(conn, proof(nonce)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// refusal reads the last reply of a connection, which ends then.
func refusal(t *testing.T, conn net.Conn) error {
	t.Helper()
	b, err := protocol.ReadFrame(conn, protocol.MaxReply)
	if err != nil {
		return err
	}
	_, err = protocol.DecodeReply(b)
	if err == nil {
		return errors.New("served")
	}
	if b, end := protocol.ReadFrame(conn, protocol.MaxReply); end == nil {
		t.Errorf("after a refusal: got %x", b)
	}
	return err
}

func TestOrderOfRequests(t *testing.T) {
	s := start(t)
	for name, first := range map[string]protocol.Request{
		"a key first":    {Op: protocol.OpSealKey},
		"evidence first": {Op: protocol.OpEvidence},
		"proof first":    {Op: protocol.OpProve},
	} {
		conn := rawConn(t, s)
		if err := protocol.WriteFrame(conn, first.Append(nil)); err != nil {
			t.Fatal(err)
		}
		if err := refusal(t, conn); !errors.Is(err, protocol.ErrRefused) || !strings.Contains(err.Error(), "out of order") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	conn := rawConn(t, s)
	if _, err := say(conn, hello()); err != nil {
		t.Fatal(err)
	}
	if _, err := say(conn, protocol.Request{Op: protocol.OpTarget}); err == nil {
		t.Error("a request before the proof is served")
	}
	conn = rawConn(t, s)
	if _, err := say(conn, hello()); err != nil {
		t.Fatal(err)
	}
	if _, err := say(conn, proof(make([]byte, 32))); err == nil || !strings.Contains(err.Error(), ErrSender.Error()) {
		t.Errorf("a guessed nonce: got %v, want %v", err, ErrSender)
	}
	conn = introduced(t, s)
	for _, r := range []protocol.Request{hello(), proof(make([]byte, 32))} {
		if _, err := say(conn, r); !errors.Is(err, protocol.ErrRefused) {
			t.Errorf("introduced again: got %v, want ErrRefused", err)
		}
	}
	if _, err := say(conn, protocol.Request{Op: protocol.OpTarget}); err != nil {
		t.Errorf("a request after refused ones: %v", err)
	}
}

func TestHostileBytes(t *testing.T) {
	s := start(t)
	for name, text := range map[string]string{
		"empty frame":   "\x00\x00\x00\x00",
		"4 GiB":         "\xff\xff\xff\xff",
		"too long":      "\x00\x00\x08\x01",
		"unknown":       "\x00\x00\x00\x01\x09",
		"trailing byte": "\x00\x00\x00\x02\x05\x00",
	} {
		for _, conn := range []*net.UnixConn{rawConn(t, s), introduced(t, s)} {
			if _, err := conn.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
			if err := refusal(t, conn); !errors.Is(err, protocol.ErrRefused) {
				t.Errorf("%s: got %v, want ErrRefused", name, err)
			}
		}
	}
	conn := introduced(t, s)
	if _, err := conn.Write([]byte("\x00\x00")); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := refusal(t, conn); !errors.Is(err, protocol.ErrRefused) {
		t.Errorf("half a length: got %v, want ErrRefused", err)
	}
	conn = introduced(t, s)
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := refusal(t, conn); err != io.EOF {
		t.Errorf("an orderly end: got %v, want EOF", err)
	}
}

func TestFileDescriptorsAreRefused(t *testing.T) {
	s := start(t)
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	conn := rawConn(t, s)
	b := hello().Append([]byte{0, 0, 0, 6})
	if _, _, err := conn.WriteMsgUnix(b, unix.UnixRights(int(f.Fd())), nil); err != nil {
		t.Fatal(err)
	}
	if err := refusal(t, conn); err == nil || !strings.Contains(err.Error(), ErrSender.Error()) {
		t.Errorf("got %v, want %v", err, ErrSender)
	}
}

func TestTooManyConnections(t *testing.T) {
	s := start(t)
	for range most { // they hold their places before they say anything
		rawConn(t, s)
	}
	conn := rawConn(t, s)
	if _, err := say(conn, hello()); err == nil {
		t.Errorf("%d connections are served", most+1)
	}
	if !strings.Contains(s.log.String(), "too many") {
		t.Errorf("the log has %s", s.log)
	}
}

// The pid of a process that has ended may be another's by now: here it is ours,
// which executes what was measured.
func TestEndedProcess(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), role+"=sleep")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{pid: os.Getpid(), fd: fd, exe: exe}
	defer p.close()
	if err := p.check(); err != nil {
		t.Errorf("a process that lives: %v", err)
	}
	if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	if err := p.check(); !errors.Is(err, ErrChanged) {
		t.Errorf("a process that has ended: got %v, want ErrChanged", err)
	}
}

// An undumpable process hides its executable, which is no reason to refuse it
// once it is known.
func TestSameExecutable(t *testing.T) {
	own, err := os.Stat(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.Stat(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	hidden := fmt.Errorf("stat: %w", fs.ErrPermission)
	for _, row := range []struct {
		name    string
		known   bool
		running fs.FileInfo
		err     error
		want    error
	}{
		{"the same", false, own, nil, nil},
		{"the same, known", true, own, nil, nil},
		{"another", false, other, nil, ErrChanged},
		{"another, known", true, other, nil, ErrChanged},
		{"hidden", false, nil, hidden, ErrChanged},
		{"hidden, known", true, nil, hidden, nil},
		{"gone, known", true, nil, fs.ErrNotExist, ErrChanged},
	} {
		if err := (&peer{known: row.known}).same(own, row.running, row.err); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
	}
	// Root sees even those, so only other users test more than the above by it.
	if got := run(t, os.Args[0], "hidden", start(t).socket); got != "served" {
		t.Errorf("an undumpable process: got %s", got)
	}
}
