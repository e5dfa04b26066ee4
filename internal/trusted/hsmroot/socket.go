package hsmroot

import (
	"fmt"
	"net"
	"time"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire/hsm"
)

// Limits of a Socket.
const (
	begin  = 10 * time.Second // for a sidecar that is started beside this program
	answer = 30 * time.Second // for one request; HSMs in a network are slow
)

// A Socket is the Module behind an ehsm-hsm. Each request has a connection of its
// own: there are few, and a sidecar that was started again is no error.
type Socket struct{ network, address string }

// NewSocket returns the Module at a stream address, such as unix:/run/ehsm/hsm.sock.
// It connects to nothing yet. Errors: config.ErrAddress.
func NewSocket(address string) (*Socket, error) {
	network, address, err := config.ParseAddress(address)
	if err != nil {
		return nil, err
	}
	return &Socket{network, address}, nil
}

// Wrap implements Module.
func (s *Socket) Wrap(label string, context [hsm.ContextSize]byte, key secret.Bytes) (hsm.Wrapped, error) {
	if key.Len() != hsm.KeySize {
		return hsm.Wrapped{}, fmt.Errorf("%w: a key of %d bytes, want %d", ErrHSM, key.Len(), hsm.KeySize)
	}
	m := &hsm.Message{Kind: hsm.Wrap, Label: label, Context: context, Key: [hsm.KeySize]byte(key.Expose())}
	defer clear(m.Key[:])
	m, err := s.ask(m, hsm.WrapDone)
	if err != nil {
		return hsm.Wrapped{}, err
	}
	return m.Wrapped, nil
}

// Unwrap implements Module.
func (s *Socket) Unwrap(context [hsm.ContextSize]byte, w hsm.Wrapped) (secret.Bytes, error) {
	m, err := s.ask(&hsm.Message{Kind: hsm.Unwrap, Context: context, Wrapped: w}, hsm.UnwrapKey)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer clear(m.Key[:])
	return secret.Copy(m.Key[:]), nil
}

// ask sends a request and returns its answer, which must be of the kind want.
func (s *Socket) ask(m *hsm.Message, want hsm.Kind) (*hsm.Message, error) {
	conn, err := s.dial()
	if err != nil {
		return nil, fmt.Errorf("%w: connect to ehsm-hsm: %w", ErrHSM, err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(answer))
	if err := hsm.Write(conn, m); err != nil {
		return nil, fmt.Errorf("%w: ask ehsm-hsm: %w", ErrHSM, err)
	}
	got, err := hsm.Read(conn)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: answer of ehsm-hsm: %w", ErrHSM, err)
	case got.Kind == hsm.Refused:
		return nil, fmt.Errorf("%w; see the log of ehsm-hsm", ErrHSM)
	case got.Kind != want:
		return nil, fmt.Errorf("%w: ehsm-hsm answers with kind %d, want %d", ErrHSM, got.Kind, want)
	}
	return got, nil
}

// dial connects, and waits for a sidecar that is not there yet.
func (s *Socket) dial() (net.Conn, error) {
	limit := time.Now().Add(begin)
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		conn, err := net.DialTimeout(s.network, s.address, answer)
		if err == nil || time.Now().Add(wait).After(limit) {
			return conn, err
		}
		<-time.After(wait)
	}
}
