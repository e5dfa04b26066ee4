package trail

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// A file in use may be longer than what is in it: its writer fills space with zeros
// ahead, so that making entries durable need not change the length. After a
// crash the zeros stay, and of the last write any sector may be missing, in any
// order. None of its entries was on disk before a reply, so no reply misses one.
//
// Taking such a place for the end of the file gives nobody more than he has:
// who can write zeros into a file can cut it there as well. What comes after
// the place is not read; if other files go on, there is a gap.

// MaxWrite is how much a writer of spool files leaves without a sync, in bytes.
// Holes further from the end of what is written are no accident.
const MaxWrite = 256 << 10

// sector is the unit, in bytes, that a disk writes as a whole.
const sector = 512

var errUnfinished = fmt.Errorf("%w: part of it is zeros", ErrTorn)

// sectorEnd returns the first end of a sector at or after an offset.
func sectorEnd(offset int64) int64 { return (offset + sector - 1) / sector * sector }

// unused reports where the unused space begins, unless it is all that is left.
func (s *scanner) unused(offset int64) {
	last, err := s.lastByte(offset)
	switch {
	case err != nil:
		s.find(offset, Unreadable, err.Error())
	case last < offset && s.in == nil:
		s.find(offset, Torn, "the file is nothing but zeros")
	case last < offset:
		return
	case last-offset <= MaxWrite && s.zeros(offset, sectorEnd(offset+lengthSize)):
		s.find(offset, Torn, "part of the last write is zeros")
	default:
		s.find(offset, Corrupt, fmt.Sprintf("zeros, and more behind them at byte %d%s", last, restLost))
	}
}

// unfinished reports whether a sector of a frame is missing. A frame that
// follows from the one before has all of its sectors, whatever it ends with.
func (s *scanner) unfinished(frame []byte, f *Frame, offset int64) bool {
	size := int64(len(frame))
	for at := sectorEnd(offset + 1); at < offset+size; at += sector {
		in := frame[at-offset : min(at-offset+sector, size)]
		if !allZero(in) || !s.zeros(at+int64(len(in)), at+sector) {
			continue
		}
		last, err := s.lastByte(offset)
		return err == nil && last-offset <= MaxWrite && Chain(s.chain, f.Entry) != f.Chain
	}
	return false
}

func allZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// zeros reports whether the file has nothing but zeros between two offsets, as
// far as it goes.
func (s *scanner) zeros(from, to int64) bool {
	b := make([]byte, max(0, min(to, s.file.Size)-from))
	_, err := s.file.Data.ReadAt(b, from)
	return (err == nil || err == io.EOF) && allZero(b)
}

// lastByte returns the offset of the last byte that is not zero, or one below
// from if there is none from there on.
func (s *scanner) lastByte(from int64) (int64, error) {
	b := make([]byte, readAhead)
	for end := s.file.Size; end > from; {
		at := max(from, end-readAhead)
		if n, err := s.file.Data.ReadAt(b[:end-at], at); err != nil && (!errors.Is(err, io.EOF) || int64(n) < end-at) {
			return 0, fmt.Errorf("read byte %d on: %w", at, err)
		}
		if n := len(bytes.TrimRight(b[:end-at], "\x00")); n > 0 {
			return at + int64(n) - 1, nil
		}
		end = at
	}
	return from - 1, nil
}
