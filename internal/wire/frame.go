package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Op is the operation of a frame. A reply frame has the operation and the
// number of the frame it answers.
type Op uint8

const (
	_ Op = iota
	OpInfo
	OpCall
	OpResolve
	OpSweep
	OpCheckpoint
	OpStats
	OpRewrap
	OpFacts
	OpProgress
	OpRefused // reply only: the payload is text, the message could not be executed
	OpTLS     // see Voucher
)

const frameHeader = 4 + 1 + 8 // length of what follows, operation, number

// ErrFrame is wrapped by the errors for frames that break the rules.
var ErrFrame = errors.New("bad frame")

// A Frame is one message on a stream. Layout: four bytes length of the rest,
// one byte operation, eight bytes number, payload; big endian.
type Frame struct {
	Op      Op
	Number  uint64 // chosen by the caller, unique among its open calls
	Payload []byte
}

// AppendFrame appends a frame whose payload is written by body.
func AppendFrame(dst []byte, op Op, number uint64, body func([]byte) []byte) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0, byte(op))
	dst = binary.BigEndian.AppendUint64(dst, number)
	if body != nil {
		dst = body(dst)
	}
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	return dst
}

// ReadFrame reads one frame. Its payload is freshly allocated, in pieces as the
// bytes arrive, so that a length alone costs the reader no memory. An error
// other than io.EOF between frames leaves the stream unusable.
func ReadFrame(r *bufio.Reader) (Frame, error) {
	var h [frameHeader]byte
	if _, err := io.ReadFull(r, h[:1]); err != nil {
		return Frame{}, err // io.EOF: the peer ended between two frames
	}
	if _, err := io.ReadFull(r, h[1:]); err != nil {
		return Frame{}, fmt.Errorf("%w: ends inside the header", ErrFrame)
	}
	n := int64(binary.BigEndian.Uint32(h[:4])) - (frameHeader - 4)
	if n < 0 || n > MaxFrame {
		return Frame{}, fmt.Errorf("%w: payload of %d bytes, limit %d", ErrFrame, n, MaxFrame)
	}
	f := Frame{Op: Op(h[4]), Number: binary.BigEndian.Uint64(h[5:])}
	if f.Op == 0 || f.Op > OpTLS {
		return Frame{}, fmt.Errorf("%w: operation %d is unknown", ErrFrame, f.Op)
	}
	var err error
	f.Payload, err = readPieces(r, int(n))
	return f, err
}

const piece = 64 << 10 // bytes allocated ahead of what has arrived

func readPieces(r io.Reader, n int) ([]byte, error) {
	b := make([]byte, 0, min(n, piece))
	for len(b) < n {
		at := len(b)
		b = slices.Grow(b, min(n-at, max(piece, at)))[:min(n, at+max(piece, at))]
		if _, err := io.ReadFull(r, b[at:]); err != nil {
			return nil, fmt.Errorf("%w: ends after %d of %d bytes", ErrFrame, at, n)
		}
	}
	return b, nil
}
