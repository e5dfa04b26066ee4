// Package pack reads and writes the fixed binary encodings of this project:
// big-endian integers and length-prefixed bytes, one encoding per value.
//
// A Reader keeps its first error and returns zero values after it, so a decoder
// reads all its fields in order and looks at Close once.
package pack

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrMalformed is wrapped by every decoding error of this package.
var ErrMalformed = errors.New("malformed encoding")

// Reader decodes one buffer. It does not copy: slices it returns are part of
// the buffer it was given.
type Reader struct {
	rest []byte
	err  error
}

// NewReader reads b from its start.
func NewReader(b []byte) *Reader { return &Reader{rest: b} }

// Fixed returns the next n bytes.
func (r *Reader) Fixed(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n < 0 || n > len(r.rest) {
		r.Fail("got %d bytes, want %d", len(r.rest), n)
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

// Array fills dst with the next len(dst) bytes.
func (r *Reader) Array(dst []byte) { copy(dst, r.Fixed(len(dst))) }

// Uint8 reads one byte.
func (r *Reader) Uint8() uint8 {
	b := r.Fixed(1)
	if b == nil {
		return 0
	}
	return b[0]
}

// Bool reads one byte that must be 0 or 1.
func (r *Reader) Bool() bool {
	b := r.Uint8()
	if b > 1 {
		r.Fail("boolean is %d", b)
	}
	return b == 1
}

// Uint16 reads two bytes, big endian.
func (r *Reader) Uint16() uint16 {
	b := r.Fixed(2)
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}

// Uint32 reads four bytes, big endian.
func (r *Reader) Uint32() uint32 {
	b := r.Fixed(4)
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

// Uint64 reads eight bytes, big endian.
func (r *Reader) Uint64() uint64 {
	b := r.Fixed(8)
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// Int64 reads eight bytes, big endian, two's complement.
func (r *Reader) Int64() int64 { return int64(r.Uint64()) }

// Bytes reads a four-byte length of at most limit and that many bytes.
func (r *Reader) Bytes(limit int) []byte {
	n := r.Uint32()
	if int64(n) > int64(limit) {
		r.Fail("length %d is over the limit %d", n, limit)
		return nil
	}
	return r.Fixed(int(n))
}

// String is Bytes as a string, with a two-byte length.
func (r *Reader) String(limit int) string {
	n := int(r.Uint16())
	if n > limit {
		r.Fail("length %d is over the limit %d", n, limit)
		return ""
	}
	return string(r.Fixed(n))
}

// Count reads a four-byte number of items of at most limit. Each item takes at
// least minSize bytes, so a count that cannot be true is refused before the
// caller allocates for it.
func (r *Reader) Count(limit, minSize int) int {
	n := int64(r.Uint32())
	if n > int64(limit) || n*int64(minSize) > int64(len(r.rest)) {
		r.Fail("count %d is over the limit %d or the %d bytes left", n, limit, len(r.rest))
		return 0
	}
	return int(n)
}

// Rest returns what has not been read and ends the reading.
func (r *Reader) Rest() []byte {
	b := r.rest
	r.rest = nil
	return b
}

// Len is the number of bytes left.
func (r *Reader) Len() int { return len(r.rest) }

// Fail records an error, if it is the first.
func (r *Reader) Fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
		r.rest = nil
	}
}

// Err returns the first error so far.
func (r *Reader) Err() error { return r.err }

// Close returns the first error, or one for bytes that were left over.
func (r *Reader) Close() error {
	if r.err == nil && len(r.rest) != 0 {
		r.Fail("%d trailing bytes", len(r.rest))
	}
	return r.err
}

// AppendBytes appends a four-byte length and b.
func AppendBytes(dst, b []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(b)))
	return append(dst, b...)
}

// AppendString appends a two-byte length and s, which is cut at 65535 bytes.
func AppendString(dst []byte, s string) []byte {
	s = s[:min(len(s), 0xffff)]
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(s)))
	return append(dst, s...)
}

// AppendBool appends 1 or 0.
func AppendBool(dst []byte, b bool) []byte {
	if b {
		return append(dst, 1)
	}
	return append(dst, 0)
}
