package core

import (
	"encoding/binary"
	"math/bits"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// tagSet is a set of MAC tags, 16 bytes each, by open addressing with linear
// probing. Tags are uniformly distributed, so a tag is its own hash. The zero
// tag marks a free slot; a MAC of that value does not occur.
type tagSet struct {
	slots []wire.Tag
	count int
}

// home is the slot where the search for a tag starts.
func (s *tagSet) home(t wire.Tag) int {
	hi, _ := bits.Mul64(binary.LittleEndian.Uint64(t[:8]), uint64(len(s.slots)))
	return int(hi)
}

// find returns the slot of t, or the free slot where it would go.
func (s *tagSet) find(t wire.Tag) int {
	i := s.home(t)
	for s.slots[i] != t && s.slots[i] != (wire.Tag{}) {
		if i++; i == len(s.slots) {
			i = 0
		}
	}
	return i
}

func (s *tagSet) has(t wire.Tag) bool {
	return len(s.slots) > 0 && s.slots[s.find(t)] == t
}

// add adds a tag that is not in the set.
func (s *tagSet) add(t wire.Tag) {
	const first, loadNum, loadDen = 4, 13, 16
	if (s.count+1)*loadDen > len(s.slots)*loadNum { // so one slot stays free
		old := s.slots
		s.slots = make([]wire.Tag, max(first, len(old)+len(old)/2))
		for _, o := range old {
			if o != (wire.Tag{}) {
				s.slots[s.find(o)] = o
			}
		}
	}
	s.slots[s.find(t)] = t
	s.count++
}

// remove takes a tag out and reports whether it was there. The tags behind it
// move up, so that no search ends early.
func (s *tagSet) remove(t wire.Tag) bool {
	if !s.has(t) {
		return false
	}
	n := len(s.slots)
	hole := s.find(t)
	for i := (hole + 1) % n; s.slots[i] != (wire.Tag{}); i = (i + 1) % n {
		// A tag may fill the hole if its search passes there: if the hole is
		// not before its home on the way round.
		if fromHome := (i - s.home(s.slots[i]) + n) % n; fromHome >= (i-hole+n)%n {
			s.slots[hole] = s.slots[i]
			hole = i
		}
	}
	s.slots[hole] = wire.Tag{}
	s.count--
	return true
}
