package daemon

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
)

var (
	// ErrOwner is returned for a process of another user.
	ErrOwner = errors.New("the process belongs to another user")
	// ErrChanged is returned for a process that has ended, or runs another
	// executable than the one that was measured.
	ErrChanged = errors.New("the process is not the one that was measured")
	// ErrSender is returned for bytes that another process has sent.
	ErrSender = errors.New("bytes of another process")
)

// A peer is the process at the other end of a connection. The kernel says which
// it is; its own bytes are not asked.
type peer struct {
	pid   int
	fd    int      // pidfd: says whether the process lives, never of another with its pid
	exe   *os.File // once measured; open, so that nothing else gets its inode
	known bool     // it has proved that it speaks
}

// newPeer asks the kernel who connected, which must be a process of uid. Errors: ErrOwner, ErrChanged.
func newPeer(conn *net.UnixConn, uid int) (*peer, error) {
	cred, err := credentials(conn)
	if err != nil {
		return nil, fmt.Errorf("ask who connects: %w", err)
	}
	if int(cred.Uid) != uid {
		return nil, fmt.Errorf("%w: %d; only processes of user %d are served", ErrOwner, cred.Uid, uid)
	}
	if cred.Pid <= 0 { // of a process that this one cannot see
		return nil, fmt.Errorf("%w: it is in another pid namespace", ErrChanged)
	}
	fd, err := unix.PidfdOpen(int(cred.Pid), 0)
	if err != nil {
		return nil, fmt.Errorf("%w: process %d: %w", ErrChanged, cred.Pid, err)
	}
	return &peer{pid: int(cred.Pid), fd: fd}, nil
}

func credentials(conn *net.UnixConn) (cred *unix.Ucred, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cred, errors.Join(err, failed)
}

func (p *peer) exePath() string { return "/proc/" + strconv.Itoa(p.pid) + "/exe" }

// inNamespace refuses a process of another pid namespace than this one's. Anybody
// can make one inside this, is root there, and then the kernel takes his word for
// which of its processes sends. Errors: ErrChanged.
func (p *peer) inNamespace() error {
	own, err := os.Stat("/proc/self/ns/pid")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrChanged, err)
	}
	its, err := os.Stat("/proc/" + strconv.Itoa(p.pid) + "/ns/pid")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrChanged, err)
	}
	if !os.SameFile(own, its) {
		return fmt.Errorf("%w: it is in another pid namespace", ErrChanged)
	}
	return nil
}

// measure opens the executable once and measures it with the files beside it.
// What runs cannot be written to, and check says afterwards that it still runs.
// Errors: ErrChanged, those of sim.Measure.
func (p *peer) measure() (sim.Program, error) {
	if err := p.inNamespace(); err != nil {
		return sim.Program{}, err
	}
	exe, err := os.Open(p.exePath())
	if err != nil {
		return sim.Program{}, fmt.Errorf("%w: %w", ErrChanged, err)
	}
	p.exe = exe
	path, err := os.Readlink(p.exePath())
	if err != nil {
		return sim.Program{}, fmt.Errorf("%w: %w", ErrChanged, err)
	}
	return sim.Measure(exe, path)
}

// check refuses a process that has ended, or executes another file by now. Errors:
// ErrChanged.
func (p *peer) check() error {
	measured, err := p.exe.Stat()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrChanged, err)
	}
	running, err := os.Stat(p.exePath())
	if err := p.same(measured, running, err); err != nil {
		return err
	}
	// Last: while the process lives, its pid is of no other, so that what
	// was read above is about it.
	ended, err := unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, 0)
	if err != nil || ended != 0 {
		return fmt.Errorf("%w: process %d has ended", ErrChanged, p.pid)
	}
	return nil
}

// same compares what was measured with what is running now, or err. A program that
// has proved that it speaks may have made itself undumpable, against debuggers;
// Linux then shows its executable to nobody. It is trusted to pass its socket to
// no other program, as it could as well speak for that one.
func (p *peer) same(measured, running fs.FileInfo, err error) error {
	switch {
	case p.known && errors.Is(err, fs.ErrPermission):
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w", ErrChanged, err)
	case !os.SameFile(measured, running):
		return fmt.Errorf("%w: it executes another file", ErrChanged)
	}
	return nil
}

func (p *peer) close() error {
	err := unix.Close(p.fd)
	if p.exe != nil {
		err = errors.Join(err, p.exe.Close())
	}
	return err
}

// A reader reads what one process has sent. The kernel puts the sender's
// credentials beside all bytes of a socket with SO_PASSCRED, and never joins
// bytes of two senders.
type reader struct {
	conn *net.UnixConn
	peer *peer
}

// Read implements io.Reader. Errors: ErrSender.
func (r reader) Read(b []byte) (int, error) {
	control := make([]byte, unix.CmsgSpace(unix.SizeofUcred)) // no room for file descriptors
	n, size, flags, _, err := r.conn.ReadMsgUnix(b, control)
	if errors.Is(err, io.EOF) {
		return 0, io.EOF // alone, as callers expect it
	}
	if err != nil {
		return 0, err
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return 0, fmt.Errorf("%w: they come with file descriptors", ErrSender)
	}
	messages, err := unix.ParseSocketControlMessage(control[:size])
	if err != nil || len(messages) != 1 {
		return 0, fmt.Errorf("%w: %d control messages", ErrSender, len(messages))
	}
	cred, err := unix.ParseUnixCredentials(&messages[0])
	if err != nil || int(cred.Pid) != r.peer.pid {
		return 0, fmt.Errorf("%w: want process %d", ErrSender, r.peer.pid)
	}
	return n, nil
}

// passCredentials asks for the credentials of senders. Connections of a listener
// inherit it.
func passCredentials(ln *net.UnixListener) error {
	raw, err := ln.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	})
	return errors.Join(err, failed)
}
