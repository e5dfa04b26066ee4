// Package auditsink keeps the audit entries that cores hand out: it puts them
// in order and writes them to spool files, many at a time.
//
// The files are plain copies of the core's frames and hold nothing secret. The
// host can drop or change them; package trail says how that is found. What this
// package owes is that no entry is lost by accident: an entry that has been
// taken is on disk soon or, if asked for, before Put returns, and when it
// cannot be written, every Put fails from then on, so that the service stops
// rather than works unseen.
package auditsink

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/trail"
)

const (
	flushDelay = 20 * time.Millisecond // from an entry's arrival to its write; it may also wait for one fsync under way
	gapWait    = time.Second           // for a missing entry, before those after it are written
	maxEarly   = 1024                  // Puts held back for a missing entry

	defaultBuffered = 8 << 20
	defaultFile     = 64 << 20
)

// ErrSpool is wrapped by the errors of Put once the sink cannot write. The sink
// does not recover from it: after a failed fsync it is unknown what is on disk.
var ErrSpool = errors.New("audit spool does not work")

// Options are the settings of a sink; the zero value is fit for use.
type Options struct {
	// MaxBuffered is how many bytes of entries may wait in memory. Put blocks
	// beyond it. Zero means 8 MiB.
	MaxBuffered int
	// MaxFile is the size in bytes at which a new file is begun. Zero means 64 MiB.
	MaxFile int64
}

// Stats is what a sink has done since it was opened.
type Stats struct {
	Entries  uint64        // taken
	Bytes    uint64        // on disk
	Flushes  uint64        // writes that reached the disk, each with one fsync or more
	Files    uint64        // created
	Gaps     uint64        // times that entries were written although one before them was missing
	Late     uint64        // Puts with entries that came after their place had been given up
	Buffered int           // bytes waiting in memory
	Lag      time.Duration // age of the oldest entry that waits in memory
	Failed   bool          // the sink cannot write
}

// A Sink writes audit entries to spool files. Its methods are safe for
// concurrent use.
type Sink struct {
	max  int
	wake chan struct{} // rouses the writer; holds one token
	done chan struct{} // closed when the writer has ended

	mu       sync.Mutex
	instance wire.UUID            // of the entry taken last
	next     uint64               // its sequence number that comes next in buf
	others   map[wire.UUID]uint64 // next of instances before it
	buf      []byte               // frames in the order in which they will be written
	spare    []byte               // becomes buf at the next flush
	early    []*held              // ascending; a missing entry comes before the first
	held     int                  // bytes in early
	writing  int                  // bytes the writer has in hand
	since    time.Time            // buf and early were empty before
	urgent   bool                 // a flush is wanted at once
	filling  *batch               // the Puts that buf is flushed for
	flushing *batch               // those of the flush under way, nil between two
	gather   gather
	closing  bool
	err      error
	stats    Stats
}

// A held Put waits for an entry before it.
type held struct {
	first  uint64
	count  int
	frames []byte
	at     time.Time   // of arrival
	in     chan *batch // gets the batch that it comes to be in; nil unless durable
}

// Open returns a sink that writes to files in dir, which is created with mode
// 0700 if it does not exist. It fails if it cannot create files there. The
// files are named INSTANCE-SEQUENCE.trail by their first entry and have mode
// 0600. A file that has been closed may be moved away; the one in use may not.
func Open(dir string, opts Options) (*Sink, error) {
	d, err := openDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open audit spool: %w", err)
	}
	return open(d, opts), nil
}

func open(d folder, opts Options) *Sink {
	if opts.MaxBuffered <= 0 {
		opts.MaxBuffered = defaultBuffered
	}
	if opts.MaxFile <= 0 {
		opts.MaxFile = defaultFile
	}
	s := &Sink{
		max:  opts.MaxBuffered,
		wake: make(chan struct{}, 1), done: make(chan struct{}), filling: newBatch(),
		others: map[wire.UUID]uint64{},
	}
	go s.run(&spool{dir: d, limit: opts.MaxFile})
	return s
}

// Put takes the entries of a, in any order relative to other Puts. It copies
// what it needs. If a.Durable is set, it returns when they are on disk,
// otherwise when they are in memory, from where they are on disk within 50 ms
// on a disk that syncs within 25. Entries behind a missing one wait for it for
// up to a second.
//
// Put blocks while too much waits in memory, until ctx ends. When ctx ends
// during the wait for the disk, the entries have been taken all the same. The
// error then wraps the context's, and ErrSpool when the sink cannot write or
// is closed.
func (s *Sink) Put(ctx context.Context, a wire.Audit) error {
	if a.Count == 0 && len(a.Frames) == 0 {
		return nil
	}
	instance, err := check(&a)
	if err != nil {
		return fmt.Errorf("put audit entry %d: %w", a.First, err)
	}
	b, h, err := s.accept(ctx, instance, &a)
	if err == nil && a.Durable {
		err = onDisk(ctx, b, h)
	}
	if err != nil {
		return fmt.Errorf("put audit entry %d: %w", a.First, err)
	}
	return nil
}

// accept takes the entries. If they are durable it returns the batch that they
// are in, or what will get it.
func (s *Sink) accept(ctx context.Context, instance wire.UUID, a *wire.Audit) (*batch, *held, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.room(ctx, len(a.Frames)); err != nil {
		return nil, nil, err
	}
	h := s.take(instance, a)
	if h != nil || !a.Durable {
		return nil, h, nil
	}
	return s.join(), nil, nil
}

// check refuses frames that are not what a says, which would make a file that
// nobody can read on.
func check(a *wire.Audit) (instance wire.UUID, err error) {
	rest := a.Frames
	for i := range a.Count {
		f, after, err := trail.CutFrame(rest)
		if err != nil {
			return instance, fmt.Errorf("frame %d of %d: %w", i+1, a.Count, err)
		}
		id, n, ok := trail.Peek(f.Entry)
		if i == 0 {
			instance = id
		}
		if !ok || n == 0 || n != a.First+uint64(i) || id != instance {
			return instance, fmt.Errorf("frame %d of %d has entry %d of %s", i+1, a.Count, n, id)
		}
		rest = after
	}
	if len(rest) != 0 || a.Count <= 0 {
		return instance, fmt.Errorf("%d bytes follow %d frames", len(rest), a.Count)
	}
	return instance, nil
}

// room waits until n bytes may be added. The caller must hold s.mu.
func (s *Sink) room(ctx context.Context, n int) error {
	for {
		switch used := s.buffered(); {
		case s.err != nil:
			return s.err
		case s.closing:
			return fmt.Errorf("%w: closed", ErrSpool)
		case used == 0 || used+n <= s.max:
			return nil
		}
		if err := s.wait(ctx); err != nil {
			return err
		}
	}
}

func (s *Sink) buffered() int { return len(s.buf) + s.held + s.writing }

// take puts the entries where they belong. It returns nil if that is in buf.
// The caller must hold s.mu.
func (s *Sink) take(instance wire.UUID, a *wire.Audit) *held {
	if len(s.buf) == 0 && len(s.early) == 0 {
		s.since = time.Now()
		s.rouse()
	}
	if instance != s.instance {
		s.turn(instance)
	}
	s.stats.Entries += uint64(a.Count)
	if a.First > s.next {
		return s.hold(a)
	}
	if a.First < s.next {
		s.stats.Late++
	}
	s.add(a.First, a.Count, a.Frames)
	s.release(0)
	return nil
}

func (s *Sink) add(first uint64, count int, frames []byte) {
	s.buf = append(s.buf, frames...)
	s.next = max(s.next, first+uint64(count))
}

// wait waits for the next end of a flush. The caller must hold s.mu, which is
// released meanwhile.
func (s *Sink) wait(ctx context.Context) error {
	b := s.flushing
	if b == nil {
		b = s.filling
		s.hurry()
	}
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-b.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// hurry makes the writer flush now. The caller must hold s.mu.
func (s *Sink) hurry() {
	if !s.urgent {
		s.urgent = true
		s.rouse()
	}
}

func (s *Sink) rouse() {
	select {
	case s.wake <- struct{}{}:
	default: // there is a token already
	}
}

// Stats returns a snapshot.
func (s *Sink) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Buffered, st.Failed = s.buffered(), s.err != nil
	if st.Buffered > 0 {
		st.Lag = time.Since(s.since)
	}
	return st
}

// Close writes what has been taken, and ends the sink. It returns the error for
// which the sink failed, if it did.
func (s *Sink) Close() error {
	s.mu.Lock()
	s.closing = true
	s.rouse()
	s.mu.Unlock()
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
