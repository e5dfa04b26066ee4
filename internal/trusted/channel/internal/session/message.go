package session

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// protocolVersion is in the opening message and in REPORTDATA.
const protocolVersion = 1

// kind says what a message is. Numbers are transmitted and never change.
type kind uint8

const (
	_         kind = iota
	opening        // first of each side
	evidence       // of the handshake
	accepted       // last of the handshake
	refused        // ends a handshake or a channel
	data           // of the application
	challenge      // asks the peer of an open channel for new evidence
	proof          // the answer
	goodbye        // nothing follows
	kindsAfter
)

func (k kind) String() string {
	if k == 0 || k >= kindsAfter {
		return fmt.Sprintf("message of kind %d", uint8(k))
	}
	return [...]string{"", "opening", "evidence", "accepted", "refused", "data", "challenge", "proof", "goodbye"}[k]
}

// Sizes, in bytes.
const (
	headSize    = 1 + 8 + 4 // kind, manifest version, length
	nonceSize   = 32
	macSize     = 32
	hpkeKeySize = 1216 // MLKEM768-X25519 (X-Wing) public key
	maxRole     = 32
	MaxTarget   = 1024 // of a platform's local reports; TARGETINFO of SGX has 512
	maxEvidence = 2 + 4 + attest.MaxQuote
	maxOpening  = 2 + 1 + 2 + maxRole + 32 + nonceSize + 1 + 4 + MaxTarget
	maxProof    = 4 + maxEvidence + 4 + MaxCollateral
)

// limit is the greatest length of a message, without its head.
func (k kind) limit() int {
	switch k {
	case opening:
		return maxOpening
	case evidence:
		return hpkeKeySize + maxProof
	case accepted:
		return macSize
	case refused:
		return 1
	case data:
		return MaxMessage
	case challenge:
		return nonceSize
	case proof:
		return maxProof
	}
	return 0
}

// A frame is a message as it is transmitted.
type frame struct {
	kind     kind
	manifest uint64 // version that the sender has
	payload  []byte
}

// append appends the encoding of f.
func (f frame) append(dst []byte) []byte {
	dst = append(dst, byte(f.kind))
	dst = binary.BigEndian.AppendUint64(dst, f.manifest)
	return pack.AppendBytes(dst, f.payload)
}

// readFrame reads a message of one of the wanted kinds. What it allocates is
// asked of reserve first, with a length that the kind allows.
func readFrame(r io.Reader, reserve func(int) error, want ...kind) (frame, error) {
	var head [headSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, truncated(err)
	}
	f := frame{kind: kind(head[0]), manifest: binary.BigEndian.Uint64(head[1:])}
	length := binary.BigEndian.Uint32(head[9:])
	wanted := false
	for _, k := range want {
		wanted = wanted || k == f.kind
	}
	if !wanted { // check: kind-expected
		return frame{}, fmt.Errorf("%w: %v, want %v", ErrProtocol, f.kind, want)
	}
	if int64(length) > int64(f.kind.limit()) { // check: length-limit
		return frame{}, fmt.Errorf("%w: %v of %d bytes, want at most %d", ErrProtocol, f.kind, length, f.kind.limit())
	}
	if err := reserve(int(length)); err != nil { // check: memory-limit
		return frame{}, err
	}
	f.payload = make([]byte, length)
	if _, err := io.ReadFull(r, f.payload); err != nil {
		return frame{}, truncated(err)
	}
	return f, nil
}

// truncated is the error of a stream that has ended. It does not wrap io.EOF,
// which means that the peer has said goodbye. A deadline has not ended it.
func truncated(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%w: %v", ErrTruncated, err)
	}
	return fmt.Errorf("%w: %w", ErrTruncated, err)
}

// An openingMessage is who one claims to be.
type openingMessage struct {
	side   Side
	role   Role
	domain [32]byte
	nonce  [nonceSize]byte
	wants  bool // the peer shall send its collateral
	target []byte
}

func (m *openingMessage) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, protocolVersion)
	dst = append(dst, byte(m.side))
	dst = pack.AppendString(dst, string(m.role))
	dst = append(dst, m.domain[:]...)
	dst = append(dst, m.nonce[:]...)
	dst = pack.AppendBool(dst, m.wants)
	return pack.AppendBytes(dst, m.target)
}

// decodeOpening reads an opening message, with which it shares memory.
func decodeOpening(b []byte) (m openingMessage, err error) {
	r := pack.NewReader(b)
	if v := r.Uint16(); r.Err() == nil && v != protocolVersion { // check: version
		r.Fail("protocol version %d, want %d", v, protocolVersion)
	}
	m.side, m.role = Side(r.Uint8()), Role(r.String(maxRole))
	r.Array(m.domain[:])
	r.Array(m.nonce[:])
	m.wants, m.target = r.Bool(), r.Bytes(MaxTarget)
	return m, decoded(opening, r)
}

// A proofMessage is evidence with what others say of its platform.
type proofMessage struct {
	evidence   []byte
	collateral []byte
}

func (m *proofMessage) append(dst []byte) []byte {
	return pack.AppendBytes(pack.AppendBytes(dst, m.evidence), m.collateral)
}

// read leaves the rest of r to the caller.
func (m *proofMessage) read(r *pack.Reader) {
	m.evidence, m.collateral = r.Bytes(maxEvidence), r.Bytes(MaxCollateral)
}

func decodeProof(b []byte) (m proofMessage, err error) {
	r := pack.NewReader(b)
	m.read(r)
	return m, decoded(proof, r)
}

// An evidenceMessage is the proof of a handshake.
type evidenceMessage struct {
	hpkeKey [hpkeKeySize]byte
	proofMessage
}

func (m *evidenceMessage) append(dst []byte) []byte {
	return m.proofMessage.append(append(dst, m.hpkeKey[:]...))
}

func decodeEvidence(b []byte) (m evidenceMessage, err error) {
	r := pack.NewReader(b)
	r.Array(m.hpkeKey[:])
	m.read(r)
	return m, decoded(evidence, r)
}

// decodeFixed reads a message of exactly 32 bytes: a nonce or an acceptance.
func decodeFixed(k kind, b []byte) (v [32]byte, err error) {
	r := pack.NewReader(b)
	r.Array(v[:])
	return v, decoded(k, r)
}

func decoded(k kind, r *pack.Reader) error {
	if err := r.Close(); err != nil { // check: one-encoding
		return fmt.Errorf("%w: %v: %w", ErrProtocol, k, err)
	}
	return nil
}
