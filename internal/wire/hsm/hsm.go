// Package hsm is what a dkeyserver and ehsm-hsm, the sidecar of a hardware security
// module, say to each other: requests to wrap and to unwrap a key of 32 bytes, and
// their answers. Nothing of it is secret from the host, whose program the sidecar
// is: the key is one half of a seal key, and the TEE has the other.
//
// Layout: docs/formats.md#hsm-v1.
package hsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unicode"
	"unicode/utf8"

	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// Sizes, in bytes.
const (
	KeySize     = 32   // of what is wrapped
	ContextSize = 32   // of what a wrapped key is bound to
	MaxLabel    = 64   // of a key in the HSM
	MaxBlob     = 256  // of what the HSM makes of a key
	MaxMessage  = 1024 // without its length
)

// ErrMessage is returned for bytes that are no message, and for a message that does
// not belong where it is.
var ErrMessage = errors.New("malformed message of an HSM")

// Mechanism says how the HSM wraps. The zero value is none.
type Mechanism uint8

// The mechanisms.
const (
	_          Mechanism = iota
	GCM                  // CKM_AES_GCM: nonce of 12 bytes, ciphertext, tag of 16 bytes; binds the context
	KeyWrapPad           // CKM_AES_KEY_WRAP_PAD, RFC 5649; binds no context
)

// Names of the mechanisms, as settings have them.
const (
	NameGCM        = "gcm"
	NameKeyWrapPad = "key-wrap-pad"
)

// String is the name of the mechanism.
func (m Mechanism) String() string {
	switch m {
	case GCM:
		return NameGCM
	case KeyWrapPad:
		return NameKeyWrapPad
	}
	return fmt.Sprintf("mechanism %d", uint8(m))
}

// A Wrapped is a key that an HSM has wrapped.
type Wrapped struct {
	Label     string // of the key that wraps, in the HSM: as ValidLabel
	Mechanism Mechanism
	Blob      []byte // 1 to MaxBlob bytes
}

// Append appends the one encoding of w.
func (w Wrapped) Append(dst []byte) []byte {
	dst = pack.AppendString(dst, w.Label)
	dst = append(dst, byte(w.Mechanism))
	return pack.AppendBytes(dst, w.Blob)
}

// ReadWrapped reads what Append wrote. What is wrong is an error of r. The blob is
// part of r's buffer.
func ReadWrapped(r *pack.Reader) Wrapped {
	w := Wrapped{Label: r.String(MaxLabel), Mechanism: Mechanism(r.Uint8()), Blob: r.Bytes(MaxBlob)}
	switch {
	case r.Err() != nil:
	case !ValidLabel(w.Label):
		r.Fail("label %q", w.Label)
	case w.Mechanism != GCM && w.Mechanism != KeyWrapPad:
		r.Fail("%s is unknown", w.Mechanism)
	case len(w.Blob) == 0:
		r.Fail("nothing is wrapped")
	}
	return w
}

// ValidLabel reports whether a text is the label of a key: 1 to MaxLabel bytes of
// printable characters, neither the first nor the last of them a space.
func ValidLabel(s string) bool {
	if s == "" || len(s) > MaxLabel || !utf8.ValidString(s) || s[0] == ' ' || s[len(s)-1] == ' ' {
		return false
	}
	for _, c := range s {
		if c == utf8.RuneError || !unicode.IsPrint(c) {
			return false
		}
	}
	return true
}

// A Kind is what a message is.
type Kind uint8

// The kinds. Each request has one answer: its own or Refused, which has no reason:
// those are in the sidecar's log.
const (
	Wrap      Kind = 0x01 // request: Label, Context, Key
	Unwrap    Kind = 0x02 // request: Context, Wrapped
	WrapDone  Kind = 0x81 // answer: Wrapped
	UnwrapKey Kind = 0x82 // answer: Key
	Refused   Kind = 0xff // answer
)

// A Message is a request or an answer. Which fields count says Kind.
type Message struct {
	Kind    Kind
	Label   string // of the key that is to wrap; empty: the sidecar's first
	Context [ContextSize]byte
	Key     [KeySize]byte
	Wrapped Wrapped
}

const formatV1 = 1

// Append appends the one encoding of m, without a length.
func (m *Message) Append(dst []byte) []byte {
	dst = append(dst, formatV1, byte(m.Kind))
	switch m.Kind {
	case Wrap:
		dst = pack.AppendString(dst, m.Label)
		dst = append(append(dst, m.Context[:]...), m.Key[:]...)
	case Unwrap:
		dst = m.Wrapped.Append(append(dst, m.Context[:]...))
	case WrapDone:
		dst = m.Wrapped.Append(dst)
	case UnwrapKey:
		dst = append(dst, m.Key[:]...)
	}
	return dst
}

// Parse reads what Append wrote, and nothing else. The blob is part of b. Errors:
// ErrMessage.
func Parse(b []byte) (*Message, error) {
	r := pack.NewReader(b)
	if v := r.Uint8(); r.Err() == nil && v != formatV1 {
		r.Fail("format %d is unknown", v)
	}
	m := &Message{Kind: Kind(r.Uint8())}
	switch m.Kind {
	case Wrap:
		if m.Label = r.String(MaxLabel); r.Err() == nil && m.Label != "" && !ValidLabel(m.Label) {
			r.Fail("label %q", m.Label)
		}
		r.Array(m.Context[:])
		r.Array(m.Key[:])
	case Unwrap:
		r.Array(m.Context[:])
		m.Wrapped = ReadWrapped(r)
	case WrapDone:
		m.Wrapped = ReadWrapped(r)
	case UnwrapKey:
		r.Array(m.Key[:])
	case Refused:
	default:
		r.Fail("kind %d is unknown", m.Kind)
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	return m, nil
}

// Write writes a message with its length to w.
func Write(w io.Writer, m *Message) error {
	b := m.Append(make([]byte, 4, 256))
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	_, err := w.Write(b)
	clear(b)
	return err
}

// Read reads a message from r, which has at most MaxMessage bytes. Errors:
// ErrMessage, those of r.
func Read(r io.Reader) (*Message, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > MaxMessage {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrMessage, n, MaxMessage)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("%w: cut short: %w", ErrMessage, err)
	}
	return Parse(b)
}
