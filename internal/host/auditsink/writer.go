package auditsink

import (
	"fmt"
	"time"
)

const keepBuffer = 1 << 20 // bytes; a larger buffer is given back after use

// run is the writer: one flush at a time. While it waits for the disk, the
// entries of other requests gather for the next flush.
func (s *Sink) run(p *spool) {
	defer close(s.done)
	timer := time.NewTimer(flushDelay)
	defer timer.Stop()
	for s.pause(timer) {
		s.flush(p)
	}
	if err := p.close(); err != nil {
		s.mu.Lock()
		s.fail(err)
		s.mu.Unlock()
	}
}

// pause waits until it is time to flush. It reports false when the sink is to
// end and has nothing left.
func (s *Sink) pause(timer *time.Timer) bool {
	for {
		s.mu.Lock()
		busy := len(s.buf) > 0 || len(s.early) > 0
		urgent, closing, due := s.urgent, s.closing, s.since.Add(flushDelay)
		s.mu.Unlock()
		switch {
		case busy && (urgent || closing):
			return true
		case closing:
			return false
		case !busy:
			<-s.wake
			continue
		}
		timer.Reset(time.Until(due))
		select {
		case <-timer.C:
			return true
		case <-s.wake:
		}
	}
}

// flush writes what has gathered and wakes who waits for it.
func (s *Sink) flush(p *spool) {
	out, end := s.swap()
	err := p.write(out)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing = 0
	if cap(out) <= keepBuffer {
		s.spare = out
	}
	if err != nil {
		s.fail(err)
	} else if len(out) > 0 {
		s.synced = end
		s.stats.Flushes++
		s.stats.Bytes += uint64(len(out))
		s.stats.Files = p.files
	}
	s.announce()
}

// swap takes the buffer, and with it what was held for too long.
func (s *Sink) swap() (out []byte, end uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.closing {
		s.release(len(s.early))
	}
	s.expire(now)
	out, s.buf, s.spare = s.buf, s.spare[:0], nil
	s.writing, s.urgent, s.since = len(out), false, now
	return out, s.appended
}

// fail ends all work: what is in memory is lost, and every Put is told. The
// caller must hold s.mu.
func (s *Sink) fail(err error) {
	if s.err == nil {
		s.err = fmt.Errorf("%w: %w", ErrSpool, err)
	}
	s.buf, s.early, s.held = nil, nil, 0
	s.announce()
}

// announce wakes the Puts that wait. The caller must hold s.mu.
func (s *Sink) announce() {
	if s.waiting > 0 {
		close(s.flushed)
		s.flushed, s.waiting = make(chan struct{}), 0
	}
}
