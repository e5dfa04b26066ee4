package store

import (
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// ErrFloor says that a write is wrapped under a version of the DomainKey that the
// store takes no records under any more. Nothing of the change is stored.
var ErrFloor = errors.New("wrapped under a version of the DomainKey below the store's floor")

// Slices is how many parts a store has whose records are wrapped anew one part at
// a time: the tenants whose ids begin with one hexadecimal digit.
const Slices = 16

// SliceOf returns the first and the last tenant id that a slice may have.
func SliceOf(n int) (first, last wire.UUID) {
	for i := range last {
		last[i] = 0xff
	}
	first[0], last[0] = byte(n)<<4, byte(n)<<4|0xf
	return first, last
}

// A Rotation says under which versions of the DomainKey a store has records.
type Rotation struct {
	// Floor is the least version under which it takes a record; 0: any.
	Floor  uint32
	Slices [Slices]Slice
}

// A Slice says how far the records of a slice are wrapped anew. Its numbers are of
// the last or present work.
type Slice struct {
	Done    uint32 // no record needs an older version of the DomainKey, but for the refused ones
	Version uint32 // that records are or were wrapped under; 0: there was no work yet
	Total   int64  // records, when the work began
	Looked  int64  // at so many
	Refused int64  // of them, those that the core did not wrap anew: deleted ones, say

	Left Left // noted on its own
}

// Left counts what was made under a version of the DomainKey that has leaked, or an
// earlier one, and is still in use: it is to be replaced by its owners.
type Left struct {
	Compromised uint32 // the version; 0: nothing was counted yet
	Counted     int64  // when, Unix milliseconds
	Keys        int64  // whose newest version was made then
	Secrets     int64  // whose newest value was stored then
	APIKeys     int64
	Tenants     int64 // that have any of these
}

// Left is the sum of the slices, and the time of the first count. Until all of them
// are counted for a version it is zero.
func (r Rotation) Left() (sum Left) {
	sum = Left{Compromised: r.Slices[0].Left.Compromised, Counted: r.Slices[0].Left.Counted}
	for _, s := range r.Slices {
		l := s.Left
		if l.Compromised != sum.Compromised || l.Compromised == 0 {
			return Left{}
		}
		sum.Counted = min(sum.Counted, l.Counted)
		sum.Keys, sum.Secrets, sum.APIKeys, sum.Tenants = sum.Keys+l.Keys, sum.Secrets+l.Secrets, sum.APIKeys+l.APIKeys, sum.Tenants+l.Tenants
	}
	return sum
}

// Any reports whether something is left to be replaced.
func (l Left) Any() bool { return l.Keys+l.Secrets+l.APIKeys > 0 }

// Done is the version of which no older one is needed, but for refused records.
func (r Rotation) Done() uint32 {
	least := r.Slices[0].Done
	for _, s := range r.Slices {
		least = min(least, s.Done)
	}
	return least
}

// Total, Looked and Refused are the sums of the slices.
func (r Rotation) Total() int64 { return r.sum(func(s Slice) int64 { return s.Total }) }

// Looked is described at Total.
func (r Rotation) Looked() int64 { return r.sum(func(s Slice) int64 { return s.Looked }) }

// Refused is described at Total.
func (r Rotation) Refused() int64 { return r.sum(func(s Slice) int64 { return s.Refused }) }

func (r Rotation) sum(of func(Slice) int64) (n int64) {
	for _, s := range r.Slices {
		n += of(s)
	}
	return n
}

// CheckFloor reports whether the store may take w while the floor is at a version.
// The error wraps ErrFloor.
func CheckFloor(w *wire.Write, floor uint32) error {
	if w.Remove || floor == 0 {
		return nil
	}
	if under, _ := wire.SealedVersions(w.Sealed); under < floor {
		return fmt.Errorf("%w: %s is under version %d, the floor is %d", ErrFloor, w.ID, under, floor)
	}
	return nil
}

// CheckRewraps reports whether writes are records that are wrapped anew, and
// nothing else. The error wraps ErrInvalid.
func CheckRewraps(writes []wire.Write) error {
	if len(writes) > wire.RewrapStep {
		return fmt.Errorf("%w: %d records wrapped anew, limit %d", ErrInvalid, len(writes), wire.RewrapStep)
	}
	for _, w := range writes {
		switch {
		case !known(w.ID.Type) || w.Expected == 0 || w.Expected > MaxRevision:
			return fmt.Errorf("%w: %s wrapped anew at revision %d", ErrInvalid, w.ID, w.Expected)
		case !w.Rewrapped || w.Revision != w.Expected || w.Hidden || w.Primary != 0 || w.Sweep || w.Due != 0 || w.Remove:
			return fmt.Errorf("%w: %s is not just wrapped anew", ErrInvalid, w.ID)
		case len(w.Sealed) < len(wire.Tag{}) || len(w.Sealed) > wire.MaxRecord:
			return fmt.Errorf("%w: %s wrapped anew in %d bytes", ErrInvalid, w.ID, len(w.Sealed))
		}
	}
	return nil
}
