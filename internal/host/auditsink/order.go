package auditsink

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

const maxOthers = 16 // instances whose place is remembered

// turn changes to the entries of another instance: the core was started anew.
// A few late entries of the old one may follow and turn back. The caller must
// hold s.mu.
func (s *Sink) turn(instance wire.UUID) {
	s.release(len(s.early))
	if len(s.others) == maxOthers {
		clear(s.others)
	}
	s.others[s.instance] = s.next
	s.instance, s.next = instance, max(1, s.others[instance])
}

// hold keeps entries back, because one before them is missing. When too many
// are held, the missing one is given up. The caller must hold s.mu.
func (s *Sink) hold(a *wire.Audit) *held {
	h := &held{first: a.First, count: a.Count, frames: bytes.Clone(a.Frames), at: time.Now()}
	if a.Durable {
		h.in = make(chan *batch, 1)
	}
	i, _ := slices.BinarySearchFunc(s.early, h, func(a, b *held) int { return cmp.Compare(a.first, b.first) })
	s.early = slices.Insert(s.early, i, h)
	s.held += len(h.frames)
	if len(s.early) > maxEarly || s.held > s.max/2 {
		s.release(1)
	}
	return h
}

// release moves the first n held Puts into buf, and after them those that
// follow without a gap. The caller must hold s.mu.
func (s *Sink) release(n int) {
	done := 0
	for _, h := range s.early {
		if done >= n && h.first > s.next {
			break
		}
		if h.first > s.next {
			s.stats.Gaps++
		}
		s.add(h.first, h.count, h.frames)
		s.held -= len(h.frames)
		if h.in != nil {
			h.in <- s.join()
		}
		done++
	}
	s.early = slices.Delete(s.early, 0, done)
}

// expire releases what has been held for too long, and what comes before it.
// The caller must hold s.mu.
func (s *Sink) expire(now time.Time) {
	for i, h := range slices.Backward(s.early) {
		if now.Sub(h.at) >= gapWait {
			s.release(i + 1)
			return
		}
	}
}
