package overview

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// The door is the socket at which a dkeyserver answers operators of its machine: a
// request, an answer, and so on. No security rests on the socket: what it gives is
// public within the domain, it takes only what operators have signed, and answers
// are signed with the domain's key. Layout: docs/formats.md#door-v1.

// A DoorKind says what is asked. Numbers are transmitted and never change.
type DoorKind uint8

// What can be asked.
const (
	_            DoorKind = iota
	AskStatus             // no body; the answer is a Status
	AskManifests          // body: version 8; the answer is a list of those above it, perhaps only the first of them
	Submit                // body: a manifest; the answer is a Submitted
)

// Kinds of answers: done, with the payload that the request asks for, or refused,
// with a text for people.
const (
	done    = 0x80
	refused = 0xff
)

const (
	doorV1    = 1
	doorLabel = "ehsm/door-answer/v1\x00"
	nonceSize = 32 // bytes
	// MaxRequest is the largest request, in bytes: a manifest and its head.
	MaxRequest = 1<<20 + 64
	// MaxAnswer is the largest answer, in bytes.
	MaxAnswer = 16 << 20
	// MaxPayload is the largest payload of an answer, in bytes.
	MaxPayload = MaxAnswer - 128
)

// Errors of the door, wrapped with what was found.
var (
	// ErrDoor says that a message at the door is malformed.
	ErrDoor = errors.New("message at the dkeyserver's door refused")
	// ErrUnsigned says that an answer has no signature, as the dkeyserver has no
	// DomainKey: it may be the host's invention.
	ErrUnsigned = errors.New("the answer is not signed")
	// ErrForged says that an answer is not the domain's, or not to this request.
	ErrForged = errors.New("the answer is not signed with the domain's key")
	// ErrRefused says that the dkeyserver did not do what was asked.
	ErrRefused = errors.New("the dkeyserver refuses")
)

// A DoorRequest is what an operator asks.
type DoorRequest struct {
	Kind  DoorKind
	Nonce [nonceSize]byte // random, new for each
	Body  []byte
}

// NewDoorRequest returns a request with a nonce of its own.
func NewDoorRequest(k DoorKind, body []byte) *DoorRequest {
	q := &DoorRequest{Kind: k, Body: body}
	rand.Read(q.Nonce[:]) // never fails
	return q
}

// Encode returns the request as it is sent, without its length.
func (q *DoorRequest) Encode() []byte {
	b := append([]byte{doorV1, byte(q.Kind)}, q.Nonce[:]...)
	return append(b, q.Body...)
}

// ParseDoorRequest reads what Encode wrote, and nothing else. The request shares
// memory with b. A kind that is not known is no error. Errors: ErrDoor.
func ParseDoorRequest(b []byte) (*DoorRequest, error) {
	r := pack.NewReader(b)
	if v := r.Uint8(); v != doorV1 {
		r.Fail("format %d is unknown", v)
	}
	q := &DoorRequest{Kind: DoorKind(r.Uint8())}
	r.Array(q.Nonce[:])
	q.Body = r.Rest()
	switch {
	case r.Err() != nil:
		return nil, fmt.Errorf("%w: %w", ErrDoor, r.Err())
	case q.Kind == 0 || q.Kind >= done: // check: door-request-kind
		return nil, fmt.Errorf("%w: kind %d", ErrDoor, q.Kind)
	}
	return q, nil
}

// A DoorAnswer is what the dkeyserver says.
type DoorAnswer struct {
	Refused bool
	Payload []byte // of a refusal: a text for people
	// Signature is the domain key's, 64 bytes over SignedText; nil where the
	// dkeyserver does not have the key.
	Signature []byte
}

func (a *DoorAnswer) kind() byte {
	if a.Refused {
		return refused
	}
	return done
}

// SignedText is what the domain's key signs: the answer to this very request.
func (a *DoorAnswer) SignedText(q *DoorRequest) []byte {
	digest := sha256.Sum256(q.Encode())
	b := append([]byte(doorLabel), digest[:]...)
	return append(append(b, a.kind()), a.Payload...)
}

// Verify checks that the answer is to the request, and of the domain with a public
// key. Errors: ErrUnsigned, ErrForged.
func (a *DoorAnswer) Verify(q *DoorRequest, domainKey ed25519.PublicKey) error {
	switch {
	case len(a.Signature) == 0: // check: door-unsigned
		return ErrUnsigned
	case len(domainKey) != ed25519.PublicKeySize || !ed25519.Verify(domainKey, a.SignedText(q), a.Signature): // check: door-forged
		return ErrForged
	}
	return nil
}

// Encode returns the answer as it is sent, without its length.
func (a *DoorAnswer) Encode() []byte {
	b := pack.AppendBytes([]byte{doorV1, a.kind()}, a.Payload)
	return pack.AppendBytes(b, a.Signature)
}

// ParseDoorAnswer reads what Encode wrote, and nothing else. The answer shares
// memory with b. Errors: ErrDoor.
func ParseDoorAnswer(b []byte) (*DoorAnswer, error) {
	r := pack.NewReader(b)
	if v := r.Uint8(); v != doorV1 {
		r.Fail("format %d is unknown", v)
	}
	kind := r.Uint8()
	a := &DoorAnswer{Refused: kind == refused, Payload: r.Bytes(MaxPayload)}
	if kind != done && kind != refused { // check: door-answer-kind
		r.Fail("kind %d is unknown", kind)
	}
	a.Signature = r.Bytes(ed25519.SignatureSize)
	if n := len(a.Signature); n != 0 && n != ed25519.SignatureSize { // check: door-signature-size
		r.Fail("signature of %d bytes", n)
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDoor, err)
	}
	return a, nil
}

// WriteFrame sends one message: its length in four bytes, and the message.
func WriteFrame(w io.Writer, message []byte) error {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(message)), uint32(len(message)))
	_, err := w.Write(append(b, message...))
	return err
}

// ReadFrame receives one message of at most limit bytes. io.EOF is the end between
// two messages. Errors: ErrDoor, and those of the stream.
func ReadFrame(r io.Reader, limit int) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(size[:]))
	if n > int64(limit) { // check: door-frame-size
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrDoor, n, limit)
	}
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r, n); err != nil { // grows with what arrives
		return nil, fmt.Errorf("%w: it ends early: %w", ErrDoor, err)
	}
	return b.Bytes(), nil
}

// A Submitted is the answer to a manifest.
type Submitted struct {
	Version uint64        `json:"version"` // in force now
	Hash    manifest.Hash `json:"hash"`
	New     bool          `json:"new"` // false: it was in force already
	// Unwritten says why the manifest is in the memory of the dkeyserver only.
	Unwritten string `json:"unwritten,omitempty"`
}

// Encode returns the one encoding of s.
func (s *Submitted) Encode() ([]byte, error) { return encode(s) }

// ParseSubmitted reads what Encode wrote, and nothing else. Errors: ErrStatus.
func ParseSubmitted(b []byte) (*Submitted, error) {
	s := new(Submitted)
	if err := parse(b, s); err != nil {
		return nil, err
	}
	if !Printable(s.Unwritten, maxReason) { // check: submitted-text
		return nil, fmt.Errorf("%w: text %.80q", ErrStatus, s.Unwritten)
	}
	return s, nil
}

// Cut is a reason that people read, as long and as printable as a status has it.
func Cut(reason string) string { return Clean(reason, maxReason) }

// AppendManifests encodes the answer to AskManifests: number 4, each with its length
// 4. Where there are too many, those at the end are left out.
func AppendManifests(dst []byte, files [][]byte) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	n := 0
	for _, f := range files {
		if len(dst)-at+4+len(f) > MaxPayload {
			break
		}
		dst = pack.AppendBytes(dst, f)
		n++
	}
	binary.BigEndian.PutUint32(dst[at:], uint32(n))
	return dst
}

// ParseManifests reads what AppendManifests wrote. Nothing is verified. The files
// share memory with b. Errors: ErrDoor.
func ParseManifests(b []byte) ([][]byte, error) {
	r := pack.NewReader(b)
	files := make([][]byte, r.Count(MaxMembers, 4))
	for i := range files {
		files[i] = r.Bytes(MaxRequest)
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("manifests: %w: %w", ErrDoor, err)
	}
	return files, nil
}
