// Package hsm is the sidecar of a hardware security module: it answers requests of
// dkeyservers to wrap and to unwrap keys, in a process of its own, as PKCS#11
// libraries are C and belong in no enclave. It is the host's, and sees no key but
// one half of seal keys; see docs/hsm.md.
//
// What talks to an HSM needs cgo and is built with the tag pkcs11.
package hsm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/wire/hsm"
)

// ErrTimeout is returned where the HSM does not answer in time.
var ErrTimeout = errors.New("the HSM has not answered in time")

// A Wrapper is an HSM. It is called by one goroutine at a time.
type Wrapper interface {
	// Wrap wraps key with the key label; empty: the one for new bundles.
	Wrap(label string, context [hsm.ContextSize]byte, key []byte) (hsm.Wrapped, error)
	// Unwrap returns what was wrapped, 32 bytes.
	Unwrap(context [hsm.ContextSize]byte, w hsm.Wrapped) ([]byte, error)
}

// A Server answers requests, one after the other.
type Server struct {
	HSM Wrapper
	Log *slog.Logger
	// Timeout is for one request, with the time that it waits for others.
	Timeout time.Duration
	// Connections is how many may be open; further ones are closed.
	Connections int

	turn chan struct{} // who has it may use the HSM
}

// Listen listens on a stream address. A unix socket opens only to the user of the
// process; one that is left of an earlier process is removed. Errors:
// config.ErrAddress, those of the system.
func Listen(address string) (net.Listener, error) {
	network, path, err := config.ParseAddress(address)
	if err != nil {
		return nil, err
	}
	if network != "unix" {
		return net.Listen(network, path)
	}
	if conn, err := net.DialTimeout(network, path, time.Second); err == nil {
		conn.Close()
		return nil, fmt.Errorf("listen on %s: somebody does already", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == os.ModeSocket {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	ln, err := net.Listen(network, path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

// Serve answers who connects to ln until ctx ends; then it closes ln and all
// connections, and returns nil.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	s.turn = make(chan struct{}, 1)
	room := make(chan struct{}, max(1, s.Connections))
	var open sync.WaitGroup
	defer open.Wait()
	defer cancel()
	for {
		conn, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("accept: %w", err)
		}
		select {
		case room <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		open.Go(func() {
			defer func() { <-room }()
			s.answerAll(ctx, conn)
		})
	}
}

// answerAll is the life of a connection. What is no request ends it.
func (s *Server) answerAll(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	for {
		conn.SetDeadline(time.Now().Add(2 * s.Timeout))
		m, err := hsm.Read(conn)
		if err != nil {
			if errors.Is(err, hsm.ErrMessage) {
				s.Log.Warn("request refused", "why", err.Error())
			}
			return
		}
		if m.Kind != hsm.Wrap && m.Kind != hsm.Unwrap {
			s.Log.Warn("request refused", "why", "it is an answer", "kind", m.Kind)
			return
		}
		if hsm.Write(conn, s.answer(ctx, m)) != nil {
			return
		}
	}
}

// answer executes a request. Whatever goes wrong is one answer; the log has the rest.
func (s *Server) answer(ctx context.Context, m *hsm.Message) *hsm.Message {
	name := map[hsm.Kind]string{hsm.Wrap: "wrap", hsm.Unwrap: "unwrap"}[m.Kind]
	a, err := s.use(ctx, m)
	if err != nil {
		s.Log.Error("the HSM refuses", "request", name, "key", m.Label+m.Wrapped.Label, "why", err.Error())
		return &hsm.Message{Kind: hsm.Refused}
	}
	s.Log.Info("the HSM answers", "request", name, "key", a.Wrapped.Label+m.Wrapped.Label)
	return a
}

// use waits for the turn and has the HSM do what is asked. A call that does not come
// back keeps the turn, as the library could stand no other one beside it.
func (s *Server) use(ctx context.Context, m *hsm.Message) (*hsm.Message, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.Timeout, ErrTimeout)
	defer cancel()
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for earlier requests: %w", context.Cause(ctx))
	}
	type result struct {
		m   *hsm.Message
		err error
	}
	done := make(chan result, 1)
	go func() {
		defer func() { <-s.turn }()
		a, err := s.ask(m)
		done <- result{a, err}
	}()
	select {
	case r := <-done:
		return r.m, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (s *Server) ask(m *hsm.Message) (*hsm.Message, error) {
	defer clear(m.Key[:])
	if m.Kind == hsm.Wrap {
		w, err := s.HSM.Wrap(m.Label, m.Context, m.Key[:])
		return &hsm.Message{Kind: hsm.WrapDone, Wrapped: w}, err
	}
	key, err := s.HSM.Unwrap(m.Context, m.Wrapped)
	if err == nil && len(key) != hsm.KeySize {
		err = fmt.Errorf("it unwraps %d bytes, want %d", len(key), hsm.KeySize)
	}
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return &hsm.Message{Kind: hsm.UnwrapKey, Key: [hsm.KeySize]byte(key)}, nil
}
