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
		busy, closing, due := s.due()
		switch {
		case busy && closing:
			return true
		case closing:
			return false
		case !busy:
			<-s.wake
			continue
		}
		wait := time.Until(due)
		if wait <= 0 {
			return true
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
			return true
		case <-s.wake:
		}
	}
}

// due returns when to flush, if there is anything to.
func (s *Sink) due() (busy, closing bool, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at = s.since.Add(flushDelay)
	switch {
	case s.urgent:
		at = time.Time{}
	case s.filling.puts > 0 && s.gather.until.Before(at):
		at = s.gather.until
	}
	return len(s.buf) > 0 || len(s.early) > 0, s.closing, at
}

// flush writes what has gathered and wakes who waits for it.
func (s *Sink) flush(p *spool) {
	out := s.swap()
	begin := time.Now()
	err := p.write(out)
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing = 0
	if cap(out) <= keepBuffer {
		s.spare = out
	}
	b := s.flushing
	s.flushing = nil
	if err != nil {
		s.fail(err)
	} else if len(out) > 0 {
		s.gather.flushed(now, now.Sub(begin), b.puts, s.filling.puts)
		s.stats.Flushes++
		s.stats.Bytes += uint64(len(out))
		s.stats.Files = p.files
	}
	b.end(s.err)
}

// swap takes the buffer, and with it what was held for too long.
func (s *Sink) swap() (out []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.closing {
		s.release(len(s.early))
	}
	s.expire(now)
	out, s.buf, s.spare = s.buf, s.spare[:0], nil
	s.flushing, s.filling = s.filling, newBatch()
	s.writing, s.urgent, s.since = len(out), false, now
	return out
}

// fail ends all work: what is in memory is lost, and every Put is told. The
// caller must hold s.mu.
func (s *Sink) fail(err error) {
	if s.err == nil {
		s.err = fmt.Errorf("%w: %w", ErrSpool, err)
	}
	for _, h := range s.early {
		if h.in != nil {
			h.in <- s.filling
		}
	}
	s.buf, s.early, s.held = nil, nil, 0
	s.filling.end(s.err)
	s.filling = newBatch()
}
