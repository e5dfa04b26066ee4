package provision

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// A Readiness is how far a dkeycache is. Numbers are transmitted and never change.
type Readiness uint8

const (
	_          Readiness = iota
	Alone                // waits for a dkeyserver that knows the domain
	Introduced           // knows the domain, waits for the DomainKey
	Ready                // has the DomainKey
)

// String says it to people.
func (r Readiness) String() string {
	switch r {
	case Alone:
		return "waits for a dkeyserver"
	case Introduced:
		return "waits for the DomainKey"
	case Ready:
		return "ready"
	}
	return fmt.Sprintf("readiness %d", uint8(r))
}

// A State is what a dkeycache says of itself to whoever reaches its socket, which
// are programs of its machine. It is no secret, and proves nothing.
type State struct {
	Readiness Readiness
	Manifest  uint64 // version; 0: the domain is not known yet
	DomainKey uint32 // newest version; 0: none
	// Lease is for how long it still has the DomainKey; whole seconds.
	Lease time.Duration
}

// maxState is the longest answer to askState, in bytes.
const maxState = 64

// state is what a program has.
func state(d *Domain, h *Holder) State {
	if d == nil {
		return State{Readiness: Alone}
	}
	r := report(d, h)
	s := State{Readiness: Introduced, Manifest: r.Manifest, DomainKey: r.Keys, Lease: r.Lease}
	if r.Keys > 0 {
		s.Readiness = Ready
	}
	return s
}

// encode writes the answer to askState, with its length.
// Layout: docs/provisioning.md#is-it-ready.
func (s State) encode() []byte {
	b := []byte{0, 0, 0, 0, formatV1, byte(s.Readiness)}
	b = binary.BigEndian.AppendUint64(b, s.Manifest)
	b = binary.BigEndian.AppendUint32(b, s.DomainKey)
	b = binary.BigEndian.AppendUint32(b, uint32(s.Lease/time.Second))
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// decodeState reads what encode wrote, without the length. Errors: ErrMessage.
func decodeState(b []byte) (State, error) {
	r := pack.NewReader(b)
	if v := r.Uint8(); v != formatV1 {
		r.Fail("format %d is unknown", v)
	}
	s := State{Readiness: Readiness(r.Uint8()), Manifest: r.Uint64(), DomainKey: r.Uint32(), Lease: time.Duration(r.Uint32()) * time.Second}
	if s.Readiness < Alone || s.Readiness > Ready || (s.Readiness == Ready) != (s.DomainKey > 0) || (s.Readiness == Alone) != (s.Manifest == 0) {
		r.Fail("%v with manifest %d and DomainKey %d", s.Readiness, s.Manifest, s.DomainKey)
	}
	if err := r.Close(); err != nil {
		return State{}, fmt.Errorf("state: %w: %w", ErrMessage, err)
	}
	return s, nil
}

// AskState asks the dkeycache at the other end of conn how far it is, and closes
// conn. Errors: ErrMessage, and those of the stream.
func AskState(ctx context.Context, conn net.Conn) (State, error) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := conn.Write([]byte{askState}); err != nil {
		return State{}, fmt.Errorf("ask for the state: %w", err)
	}
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return State{}, fmt.Errorf("read the state: %w", err)
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxState {
		return State{}, fmt.Errorf("%w: state of %d bytes, limit %d", ErrMessage, n, maxState)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(conn, b); err != nil {
		return State{}, fmt.Errorf("read the state: %w", err)
	}
	return decodeState(b)
}
