// Package daemon measures the processes that connect to a unix socket, and is
// their simulated machine: what the processor is on hardware. A process gets the
// identity of the executable that it runs and can claim no other.
//
// It trusts the kernel, and processes of its own user as far as that they do not
// trace each other or read the machine's files: a simulation cannot stop those.
//
// # Who is measured
//
// The process that connects, by SO_PEERCRED, held by a pidfd. Then a race has
// to be closed: a process could connect, keep the socket in a child, and execute
// a genuine program, which would be measured in its place. So the daemon measures
// first and then sends a nonce, which the measured process itself has to send
// back: the kernel tells the sender of all bytes (SCM_CREDENTIALS), and bytes of
// any other are refused. Who is root in the process's pid namespace can have the
// kernel name another sender; anybody can be that in one of his own, from which
// nobody is served. A genuine program does not answer on a socket that it did not
// open. After that, and at each request, the process must live and still execute
// the same file. What was sent before the measurement cannot hold the nonce.
package daemon

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/serve"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim/protocol"
)

const (
	maxConnections = 64
	introduction   = 10 * time.Second // for a process to be known, beside the measurement
	patience       = 10 * time.Second // for a reply to be taken
)

// ErrDirectory is returned for a socket in a directory that others can write to.
var ErrDirectory = errors.New("others could put a socket of theirs there")

// Listen makes the socket, mode 0600, in place of one left behind. Its directory
// must be writable for its user only. Errors: ErrDirectory.
func Listen(path string) (*net.UnixListener, error) {
	dir := filepath.Dir(path)
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	if (owner != os.Geteuid() && owner != 0) || info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("listen on %s: %w: make %s yours, mode 700", path, ErrDirectory, dir)
	}
	ln, err := serve.Listen("unix:" + path)
	if err != nil {
		return nil, err
	}
	u := ln.(*net.UnixListener)
	if err := passCredentials(u); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), ln.Close())
	}
	return u, nil
}

// server is what the connections share.
type server struct {
	processor *sim.Processor
	log       *slog.Logger
	uid       int // whose processes are served
	most      int // connections at a time
}

// Serve measures and answers who connects until ctx ends; then it closes ln and
// all connections and returns nil. It logs who is measured as what.
func Serve(ctx context.Context, ln *net.UnixListener, p *sim.Processor, log *slog.Logger) error {
	return (&server{p, log, os.Geteuid(), maxConnections}).serve(ctx, ln)
}

func (s *server) serve(ctx context.Context, ln *net.UnixListener) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	places := make(chan struct{}, s.most)
	for {
		conn, err := ln.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		select {
		case places <- struct{}{}:
		default:
			s.log.WarnContext(ctx, "connection refused: too many")
			conn.Close()
			continue
		}
		wg.Go(func() {
			defer func() { <-places }()
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			defer conn.Close()
			s.converse(ctx, conn)
		})
	}
}

// converse serves one connection. Who is refused is told why: it is his program.
func (s *server) converse(ctx context.Context, conn *net.UnixConn) {
	peer, err := newPeer(conn, s.uid)
	if err == nil {
		defer peer.close()
		err = s.serveProcess(ctx, conn, peer)
	}
	if err == nil || errors.Is(err, io.EOF) || ctx.Err() != nil {
		return
	}
	s.log.WarnContext(ctx, "connection ended", "err", err)
	reply(conn, nil, err) // it may have gone
}

// serveProcess measures the process and answers its requests until it ends.
func (s *server) serveProcess(ctx context.Context, conn *net.UnixConn, peer *peer) error {
	from := reader{conn, peer}
	m, err := introduce(conn, from, peer, s.processor)
	if err != nil {
		return fmt.Errorf("process %d: %w", peer.pid, err)
	}
	id := m.Identity()
	s.log.InfoContext(ctx, "program measured", "pid", peer.pid, "measurement", fmt.Sprintf("%x", id.Measurement),
		"signer", fmt.Sprintf("%x", id.Signer), "development", m.DevelopmentSigner(), "product", id.Product, "version", id.SVN, "debug", id.Debug)
	for {
		r, err := next(from)
		if err != nil {
			return err
		}
		if err := peer.check(); err != nil {
			return err
		}
		body, err := answer(ctx, m, r)
		if err := reply(conn, body, err); err != nil {
			return err
		}
	}
}

// introduce has the process say what it was built as, measures it, and has it
// prove that it is who speaks.
func introduce(conn *net.UnixConn, from io.Reader, peer *peer, p *sim.Processor) (*sim.Machine, error) {
	if err := conn.SetReadDeadline(time.Now().Add(introduction)); err != nil {
		return nil, err
	}
	hello, err := expect(from, protocol.OpHello)
	if err != nil {
		return nil, err
	}
	program, err := peer.measure()
	if err != nil {
		return nil, err
	}
	m, err := p.Load(program, hello.Product, hello.SVN)
	if err != nil {
		return nil, err
	}
	var nonce [32]byte
	rand.Read(nonce[:]) // never fails
	if err := reply(conn, nonce[:], nil); err != nil {
		return nil, err
	}
	if err := conn.SetReadDeadline(time.Now().Add(introduction)); err != nil {
		return nil, err
	}
	proof, err := expect(from, protocol.OpProve)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(proof.Nonce[:], nonce[:]) != 1 {
		return nil, fmt.Errorf("%w: the nonce is another", ErrSender)
	}
	if err := peer.check(); err != nil {
		return nil, err
	}
	peer.known = true
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	environment, err := sim.ParseEnvironment(program.Environment)
	if err != nil {
		return nil, err
	}
	loaded := protocol.Loaded{Identity: m.Identity(), Development: m.DevelopmentSigner(), Environment: environment}
	return m, reply(conn, loaded.Append(nil), nil)
}

// next reads a request.
func next(from io.Reader) (protocol.Request, error) {
	b, err := protocol.ReadFrame(from, protocol.MaxRequest)
	if err != nil {
		return protocol.Request{}, err
	}
	return protocol.DecodeRequest(b)
}

func expect(from io.Reader, op protocol.Op) (protocol.Request, error) {
	r, err := next(from)
	if err == nil && r.Op != op {
		err = fmt.Errorf("%w: request %d out of order", protocol.ErrFrame, r.Op)
	}
	return r, err
}

// answer executes a request for a measured program.
func answer(ctx context.Context, m *sim.Machine, r protocol.Request) ([]byte, error) {
	switch r.Op {
	case protocol.OpSealKey:
		key, err := m.SealKey(r.Key)
		return key.Expose(), err // the reply carries it to whom it is for
	case protocol.OpEvidence:
		e, err := m.Evidence(ctx, r.Data)
		return e.Append(nil), err
	case protocol.OpTarget:
		return m.Target()
	case protocol.OpReport:
		return m.Report(r.Body, r.Data)
	case protocol.OpVerify:
		id, data, err := m.VerifyReport(r.Body)
		return protocol.AppendVerified(nil, id, data), err
	}
	return nil, fmt.Errorf("%w: request %d out of order", protocol.ErrFrame, r.Op)
}

func reply(conn *net.UnixConn, body []byte, err error) error {
	if err := conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	return protocol.WriteFrame(conn, protocol.AppendReply(nil, body, err))
}
