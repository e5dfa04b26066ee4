// Package remote is the simulated platform for a program that runs by itself:
// the daemon, ehsm-simtee, has the machine, measures the program and answers for
// it. This package asks, over a unix socket.
//
// It trusts the daemon as other programs trust the processor. It hides the seal
// keys that come over the socket, which is all that a simulation can do.
package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim/protocol"
)

// patience is how long an answer may take; the longest is to measure a program.
const patience = 30 * time.Second

const keySize = 32 // bytes of a seal key

// ErrOwner is returned for a daemon of another user.
var ErrOwner = errors.New("the daemon of the simulated platform belongs to another user")

// Machine is a simulated machine that runs this program. It survives a restart
// of the daemon, if that takes the program for the same.
type Machine struct {
	socket string
	loaded protocol.Loaded

	mu   sync.Mutex // one request at a time
	conn *net.UnixConn
}

var (
	_ tee.Platform      = (*Machine)(nil)
	_ tee.Attester      = (*Machine)(nil)
	_ tee.LocalReporter = (*Machine)(nil)
)

// Dial has the daemon at a unix socket measure this program, which was built as
// a product and version. Errors: tee.ErrNoPlatform where nobody listens,
// tee.ErrIdentity, ErrOwner, protocol.ErrRefused.
func Dial(ctx context.Context, socket string, product, svn uint16) (*Machine, error) {
	m := &Machine{socket: socket}
	var err error
	if m.conn, m.loaded, err = load(ctx, socket, product, svn); err != nil {
		return nil, err
	}
	if err := m.loaded.Identity.Check(product, svn); err != nil {
		return nil, errors.Join(err, m.conn.Close())
	}
	return m, nil
}

// load connects and has the program measured.
func load(ctx context.Context, socket string, product, svn uint16) (_ *net.UnixConn, l protocol.Loaded, err error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, l, fmt.Errorf("%w: ask the simulated platform (does ehsm-simtee serve?): %w", tee.ErrNoPlatform, err)
	}
	conn := c.(*net.UnixConn)
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	if err := ownDaemon(conn, os.Geteuid()); err != nil {
		return nil, l, err
	}
	nonce, err := exchange(ctx, conn, protocol.Request{Op: protocol.OpHello, Product: product, SVN: svn})
	if err != nil {
		return nil, l, err
	}
	if len(nonce) != len(protocol.Request{}.Nonce) {
		return nil, l, fmt.Errorf("%w: nonce of %d bytes", protocol.ErrFrame, len(nonce))
	}
	// The daemon sees from the kernel who sends this, after it has measured.
	b, err := exchange(ctx, conn, protocol.Request{Op: protocol.OpProve, Nonce: [32]byte(nonce)})
	if err != nil {
		return nil, l, err
	}
	l, err = protocol.DecodeLoaded(b)
	return conn, l, err
}

// ownDaemon refuses a listener that is not of uid, who would learn what is sealed.
func ownDaemon(conn *net.UnixConn, uid int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var cred *syscall.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		cred, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil || failed != nil {
		return errors.Join(err, failed)
	}
	if int(cred.Uid) != uid {
		return fmt.Errorf("%w: %d, this is %d", ErrOwner, cred.Uid, uid)
	}
	return nil
}

// exchange sends a request and reads the reply. After an error that is no refusal
// the connection is of no use: the reply may still come.
func exchange(ctx context.Context, conn *net.UnixConn, r protocol.Request) ([]byte, error) {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	sent := protocol.WriteFrame(conn, r.Append(nil))
	b, err := protocol.ReadFrame(conn, protocol.MaxReply) // it may say why it took no request
	if err != nil {
		return nil, fmt.Errorf("ask the simulated platform: %w", errors.Join(sent, err))
	}
	return protocol.DecodeReply(b)
}

// ask is exchange for one caller at a time. A connection that has broken is made
// again once: every request may be repeated.
func (m *Machine) ask(ctx context.Context, r protocol.Request) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil { // after the wait for others
		return nil, err
	}
	b, err := exchange(ctx, m.conn, r)
	if err == nil || isRefusal(err) {
		return b, err
	}
	m.conn.Close() // or the next request could read the reply to this one
	conn, loaded, err := load(ctx, m.socket, m.loaded.Identity.Product, m.loaded.Identity.SVN)
	if err != nil {
		return nil, err
	}
	if loaded.Identity != m.loaded.Identity {
		conn.Close()
		return nil, fmt.Errorf("%w: the daemon was restarted, and measures something else", tee.ErrIdentity)
	}
	m.conn = conn
	if b, err = exchange(ctx, conn, r); err != nil && !isRefusal(err) {
		conn.Close()
	}
	return b, err
}

func isRefusal(err error) bool {
	_, ok := errors.AsType[protocol.Refusal](err)
	return ok
}

// Close ends the connection to the daemon.
func (m *Machine) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.conn.Close()
}

// Name implements tee.Platform.
func (m *Machine) Name() string { return "sim" }

// Simulated implements tee.Platform.
func (m *Machine) Simulated() bool { return true }

// Encloses implements tee.Enclosing: what protects nothing has nothing outside.
func (m *Machine) Encloses() bool { return true }

// Identity implements tee.Platform.
func (m *Machine) Identity() tee.Identity { return m.loaded.Identity }

// DevelopmentSigner reports that nobody signed the program, so that the signer
// in its identity is the machine's own, who vouches for anything.
func (m *Machine) DevelopmentSigner() bool { return m.loaded.Development }

// Environment returns the measured configuration: variables that the program
// takes from here and never from the host. The caller must not change it.
func (m *Machine) Environment() map[string]string { return m.loaded.Environment }

// SealKey implements tee.Platform.
func (m *Machine) SealKey(q tee.KeyRequest) (secret.Bytes, error) {
	if len(q.Info) > tee.MaxKeyInfo {
		return secret.Bytes{}, fmt.Errorf("%w: %d bytes of key information", tee.ErrKeyRequest, len(q.Info))
	}
	key, err := m.ask(context.Background(), protocol.Request{Op: protocol.OpSealKey, Key: q})
	if err != nil {
		return secret.Bytes{}, err
	}
	if len(key) != keySize {
		return secret.Bytes{}, fmt.Errorf("%w: the daemon gave %d bytes, want %d", tee.ErrKeyRequest, len(key), keySize)
	}
	return secret.New(key), nil
}

// Evidence implements tee.Attester: an SGX quote of version 3.
func (m *Machine) Evidence(ctx context.Context, reportData [64]byte) (attest.Evidence, error) {
	b, err := m.ask(ctx, protocol.Request{Op: protocol.OpEvidence, Data: reportData})
	if err != nil {
		return attest.Evidence{}, err
	}
	return attest.DecodeEvidence(b)
}

// Target implements tee.LocalReporter: a TARGETINFO of 512 bytes.
func (m *Machine) Target() ([]byte, error) {
	return m.ask(context.Background(), protocol.Request{Op: protocol.OpTarget})
}

// Report implements tee.LocalReporter: a REPORT of 432 bytes. Errors:
// tee.ErrEvidence where target is none.
func (m *Machine) Report(target []byte, reportData [64]byte) ([]byte, error) {
	if len(target) > protocol.MaxTarget {
		return nil, fmt.Errorf("%w: target of %d bytes", tee.ErrEvidence, len(target))
	}
	return m.ask(context.Background(), protocol.Request{Op: protocol.OpReport, Body: target, Data: reportData})
}

// VerifyReport implements tee.LocalReporter.
func (m *Machine) VerifyReport(report []byte) (tee.Identity, [64]byte, error) {
	if len(report) > protocol.MaxReport {
		return tee.Identity{}, [64]byte{}, fmt.Errorf("%w: report of %d bytes", tee.ErrEvidence, len(report))
	}
	b, err := m.ask(context.Background(), protocol.Request{Op: protocol.OpVerify, Body: report})
	if err != nil {
		return tee.Identity{}, [64]byte{}, err
	}
	return protocol.DecodeVerified(b)
}
