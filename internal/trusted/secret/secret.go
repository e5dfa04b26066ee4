// Package secret holds plaintext key material in a type that cannot print.
//
// It trusts its callers to pass ownership of the slices they hand over, and it
// hides their bytes from every formatter and encoder: a stray log call or a
// JSON field shows the word "secret". It does not hide them from the garbage
// collector, which may have copied them; see docs/limitations.md.
package secret

import (
	"crypto/subtle"
	"errors"
	"fmt"
)

// ErrMarshal is returned by every attempt to encode a Bytes.
var ErrMarshal = errors.New("secret: key material must not be marshaled")

// Bytes is plaintext key material. It formats as "secret" under every verb and
// refuses to be marshaled. The zero value holds no bytes.
type Bytes struct {
	// A func, because fmt skips Format on unexported fields and would print a
	// slice, or a pointer to one, through reflection.
	get func() []byte
}

// New takes ownership of b; the caller must not keep or reuse it.
func New(b []byte) Bytes { return Bytes{func() []byte { return b }} }

// Copy is New of a copy, for a caller that does not own b.
func Copy(b []byte) Bytes { return New(append([]byte(nil), b...)) }

// Expose returns the bytes themselves, not a copy. The name is for grep: every
// place where key material becomes an ordinary slice calls it.
func (s Bytes) Expose() []byte {
	if s.get == nil {
		return nil
	}
	return s.get()
}

// Len is the number of bytes.
func (s Bytes) Len() int { return len(s.Expose()) }

// Equal compares in time that depends on the lengths only.
func (s Bytes) Equal(t Bytes) bool {
	return subtle.ConstantTimeCompare(s.Expose(), t.Expose()) == 1
}

// Zero overwrites the key material. The Go runtime may have made copies that it
// does not reach; see docs/limitations.md.
func (s Bytes) Zero() { clear(s.Expose()) }

// Format implements fmt.Formatter.
func (s Bytes) Format(f fmt.State, _ rune) { fmt.Fprint(f, "secret") }

// MarshalText implements encoding.TextMarshaler, so that JSON, XML and YAML
// encoders fail instead of printing.
func (s Bytes) MarshalText() ([]byte, error) { return nil, ErrMarshal }

// MarshalBinary implements encoding.BinaryMarshaler, so that gob fails.
func (s Bytes) MarshalBinary() ([]byte, error) { return nil, ErrMarshal }
