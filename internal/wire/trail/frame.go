package trail

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	lengthSize = 4  // bytes before the entry of a frame
	chainSize  = 32 // bytes after it
)

// MaxFrame is the size of the longest frame, in bytes.
const MaxFrame = lengthSize + MaxEntry + chainSize

// How a spool file can end other than between two frames.
var (
	// ErrTorn says that the input ends inside a frame, as after a crash.
	ErrTorn = errors.New("torn frame")
	// ErrUnused says that zeros begin where a frame should: space for entries
	// that have not been written, in a file that is in use or was at a crash.
	ErrUnused = errors.New("unused space")
	// ErrCorrupt says that a frame has a length that no entry has. Where the
	// next frame begins is then unknown.
	ErrCorrupt = errors.New("corrupt frame")
)

// A Frame is an encoded entry as it lies in a spool file.
type Frame struct {
	Entry []byte   // shares memory with the buffer it was read into
	Chain [32]byte // chain value of the entry, as stored
}

// Size is the number of bytes the frame takes in a file.
func (f Frame) Size() int { return lengthSize + len(f.Entry) + chainSize }

// AppendFrame appends the frame of an encoded entry with its chain value.
func AppendFrame(dst, entry []byte, chain [32]byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(entry)))
	dst = append(dst, entry...)
	return append(dst, chain[:]...)
}

// ReadFrame reads one frame into buf, which must have MaxFrame bytes. It
// returns io.EOF if r ends before the frame, an error wrapping ErrTorn if r
// ends inside it, ErrUnused for a length of zero, ErrCorrupt for another one out
// of bounds, and r's own error otherwise. It does not parse the entry.
func ReadFrame(r io.Reader, buf []byte) (Frame, error) {
	if n, err := io.ReadFull(r, buf[:lengthSize]); err != nil {
		return Frame{}, torn(err, n, lengthSize)
	}
	size, err := frameSize(buf)
	if err != nil {
		return Frame{}, err
	}
	if n, err := io.ReadFull(r, buf[lengthSize:size]); err != nil {
		return Frame{}, torn(err, lengthSize+n, size)
	}
	f, _, err := CutFrame(buf[:size])
	return f, err
}

// torn turns the end of the input after n of size bytes into the error it is.
func torn(err error, n, size int) error {
	switch {
	case n > 0 && (err == io.EOF || err == io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: got %d bytes, want %d", ErrTorn, n, size)
	case err == io.EOF:
		return err
	}
	return fmt.Errorf("read frame: %w", err)
}

// CutFrame returns the first frame of b and what follows it. Both share memory
// with b. Its errors are those of ReadFrame.
func CutFrame(b []byte) (f Frame, rest []byte, err error) {
	if len(b) == 0 {
		return f, nil, io.EOF
	}
	if len(b) < lengthSize {
		return f, nil, torn(io.EOF, len(b), lengthSize)
	}
	size, err := frameSize(b)
	if err != nil {
		return f, nil, err
	}
	if len(b) < size {
		return f, nil, torn(io.EOF, len(b), size)
	}
	end := size - chainSize
	f.Entry = b[lengthSize:end:end]
	copy(f.Chain[:], b[end:size])
	return f, b[size:], nil
}

// frameSize reads the length of a frame, which b begins with.
func frameSize(b []byte) (int, error) {
	n := binary.BigEndian.Uint32(b)
	if n == 0 {
		return 0, ErrUnused
	}
	if n < minEntry || n > MaxEntry {
		return 0, fmt.Errorf("%w: entry of %d bytes, want %d to %d", ErrCorrupt, n, minEntry, MaxEntry)
	}
	return lengthSize + int(n) + chainSize, nil
}
