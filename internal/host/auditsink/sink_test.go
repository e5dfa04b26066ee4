package auditsink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/trail"
)

func TestFileHoldsTheFrames(t *testing.T) {
	d, as := newMemFolder(), entries(testID, 3)
	s := open(d, Options{})
	put(t, s, as...)
	put(t, s, wire.Audit{}) // no entries
	closeSink(t, s)
	want := map[string][]byte{"aa010000-0000-0000-0000-000000000000-00000000000000000001.trail": frames(as...)}
	if got := d.durable(); len(got) != 1 || !bytes.Equal(got[d.names()[0]], want[d.names()[0]]) {
		t.Errorf("got files %x, want %x", got, want)
	}
	if !d.files[d.names()[0]].closed {
		t.Error("the file was not closed")
	}
	if r := verify(d.durable()); !r.Intact() || r.Instances[0].Unsigned != 0 {
		t.Errorf("Verify: got %+v", r)
	}
	if got := s.Stats(); got.Entries != 3 || got.Bytes != uint64(len(frames(as...))) || got.Files != 1 || got.Gaps != 0 || got.Buffered != 0 || got.Failed {
		t.Errorf("got %+v", got)
	}
}

func TestNotDurableIsWrittenWithin50ms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, as := newMemFolder(), entries(testID, 4)
		s := open(d, Options{})
		put(t, s, as[0])
		pass(5 * time.Millisecond)
		put(t, s, as[1], as[2])
		if got := d.all(); len(got) != 0 {
			t.Errorf("after 5 ms %d bytes are on disk, want none: the flush serves many", len(got))
		}
		pass(45 * time.Millisecond)
		if got := d.all(); !bytes.Equal(got, frames(as[:3]...)) {
			t.Errorf("after 50 ms got %d bytes, want %d", len(got), len(frames(as[:3]...)))
		}
		if d.syncs != 1 {
			t.Errorf("got %d fsyncs, want 1", d.syncs)
		}
		pass(time.Hour)
		put(t, s, as[3])
		pass(50 * time.Millisecond)
		if got := d.all(); !bytes.Equal(got, frames(as...)) {
			t.Error("an entry after an idle hour is not written within 50 ms")
		}
		closeSink(t, s)
	})
}

func TestDurableIsWrittenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, as := newMemFolder(), entries(testID, 3)
		s := open(d, Options{})
		start := time.Now()
		put(t, s, as[0], durably(as[1]))
		if got := d.all(); !bytes.Equal(got, frames(as[:2]...)) || time.Since(start) != 0 {
			t.Errorf("got %d bytes after %v", len(got), time.Since(start))
		}
		put(t, s, durably(as[2]))
		if got := d.all(); !bytes.Equal(got, frames(as...)) || d.syncs != 2 {
			t.Errorf("got %d bytes, %d fsyncs", len(got), d.syncs)
		}
		closeSink(t, s)
	})
}

// While one fsync is under way, all others gather for the next.
func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, as := newMemFolder(), entries(testID, 101)
		d.block = make(chan struct{})
		s := open(d, Options{})
		var wg sync.WaitGroup
		wg.Go(func() { put(t, s, durably(as[0])) })
		synctest.Wait()
		for _, a := range as[1:] {
			wg.Go(func() { put(t, s, durably(a)) })
		}
		synctest.Wait()
		if got := s.Stats(); got.Flushes != 0 || got.Entries != 101 {
			t.Errorf("before the first fsync ends: got %+v", got)
		}
		close(d.block)
		wg.Wait()
		if d.syncs != 2 {
			t.Errorf("101 durable Puts took %d fsyncs, want 2", d.syncs)
		}
		closeSink(t, s)
		if r := verify(d.durable()); !r.Intact() {
			t.Errorf("Verify: got %+v", r)
		}
	})
}

// Entries come in any order, from many goroutines, some durable, and lie in the
// file in theirs.
func TestOrder(t *testing.T) {
	d, as := newMemFolder(), entries(testID, 2000)
	s := open(d, Options{})
	r := rand.New(rand.NewPCG(1, 2))
	for chunk := range slices.Chunk(as, 64) { // requests in flight together
		chunk = slices.Clone(chunk)
		r.Shuffle(len(chunk), func(i, j int) { chunk[i], chunk[j] = chunk[j], chunk[i] })
		var wg sync.WaitGroup
		for i, a := range chunk {
			a.Durable = i%8 == 0
			wg.Go(func() { put(t, s, a) })
		}
		wg.Wait()
	}
	closeSink(t, s)
	if got := d.all(); !bytes.Equal(got, frames(as...)) {
		t.Error("the file does not hold the entries in order")
	}
	if rep := verify(d.durable()); !rep.Intact() || s.Stats().Gaps != 0 {
		t.Errorf("Verify: got %+v", rep)
	}
}

func TestGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, as := newMemFolder(), entries(testID, 6)
		s := open(d, Options{})
		put(t, s, as[0], as[2], as[4]) // 2 and 4 are missing
		pass(900 * time.Millisecond)
		if got := d.all(); !bytes.Equal(got, frames(as[0])) {
			t.Errorf("after 900 ms got %d bytes, want entry 1 alone", len(got))
		}
		pass(150 * time.Millisecond)
		if got := d.all(); !bytes.Equal(got, frames(as[0], as[2], as[4])) {
			t.Errorf("after 1.05 s got %d bytes, want entries 1, 3 and 5", len(got))
		}
		rep := verify(d.durable())
		if g := rep.Instances[0].Gaps; len(g) != 2 || g[0].First != 2 || g[1].First != 4 {
			t.Errorf("got gaps %v, want 2 and 4", g)
		}
		put(t, s, durably(as[1])) // late: written where it comes
		put(t, s, durably(as[5]))
		if got := d.all(); !bytes.Equal(got, frames(as[0], as[2], as[4], as[1], as[5])) {
			t.Error("a late entry is not written behind the others")
		}
		if got := s.Stats(); got.Gaps != 2 || got.Late != 1 {
			t.Errorf("got %+v, want 2 gaps, 1 late", got)
		}
		closeSink(t, s)
	})
}

func TestGapCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, as := newMemFolder(), entries(testID, 4)
		s := open(d, Options{})
		put(t, s, as[0])
		var wg sync.WaitGroup
		wg.Go(func() { put(t, s, durably(as[2])) })
		wg.Go(func() { put(t, s, durably(as[3])) })
		pass(500 * time.Millisecond)
		start := time.Now()
		put(t, s, as[1])
		wg.Wait()
		if got := d.all(); !bytes.Equal(got, frames(as...)) || time.Since(start) != 0 {
			t.Errorf("got %d bytes, %v after the gap was closed", len(got), time.Since(start))
		}
		if got := s.Stats(); got.Gaps != 0 || got.Late != 0 {
			t.Errorf("got %+v", got)
		}
		closeSink(t, s)
	})
}

func TestDurableBehindGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, as := newMemFolder(), entries(testID, 4)
		s := open(d, Options{})
		start := time.Now()
		put(t, s, durably(as[3]))
		if took := time.Since(start); took < gapWait || took > gapWait+50*time.Millisecond {
			t.Errorf("a durable Put behind a gap took %v, want 1 s", took)
		}
		if got := d.all(); !bytes.Equal(got, frames(as[3])) {
			t.Errorf("got %d bytes", len(got))
		}
		closeSink(t, s)
	})
}

func TestTooManyHeldBack(t *testing.T) {
	as := entries(testID, maxEarly+3)
	for name, row := range map[string]struct {
		opts Options
		puts []wire.Audit
	}{
		"puts":  {Options{}, as[1 : maxEarly+2]},
		"bytes": {Options{MaxBuffered: 20 * len(as[1].Frames)}, as[1:12]},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := newMemFolder()
			s := open(d, row.opts)
			put(t, s, row.puts[1:]...)
			if got := s.Stats(); got.Gaps != 0 {
				t.Errorf("%s: the gap was given up at once: %+v", name, got)
			}
			put(t, s, row.puts[0])
			pass(50 * time.Millisecond)
			if got := d.all(); !bytes.Equal(got, frames(row.puts...)) || s.Stats().Gaps != 1 {
				t.Errorf("%s: got %d bytes and %+v, want all written on", name, len(got), s.Stats())
			}
			closeSink(t, s)
		})
	}
}

func TestBufferIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, as := newMemFolder(), entries(testID, 12)
		d.block = make(chan struct{})
		s := open(d, Options{MaxBuffered: len(frames(as[:10]...))})
		put(t, s, as[:10]...)
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Put(ctx, as[10]); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrSpool) || time.Since(start) != time.Second {
			t.Errorf("Put into a full buffer: got %v after %v, want the deadline", err, time.Since(start))
		}
		if got := s.Stats(); got.Entries != 10 || got.Buffered != len(frames(as[:10]...)) {
			t.Errorf("got %+v", got)
		}
		var wg sync.WaitGroup
		wg.Go(func() { put(t, s, as[10], as[11]) })
		synctest.Wait()
		close(d.block)
		wg.Wait()
		closeSink(t, s)
		if r := verify(d.durable()); !r.Intact() {
			t.Errorf("Verify: got %+v", r)
		}
	})
}

// A Put whose context ends has still handed over its entries.
func TestContextEndsDuringSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, as := newMemFolder(), entries(testID, 2)
		d.block = make(chan struct{})
		s := open(d, Options{})
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("client has gone")
		result := make(chan error)
		go func() { result <- s.Put(ctx, durably(as[0])) }()
		synctest.Wait()
		cancel(gone)
		if err := <-result; !errors.Is(err, gone) {
			t.Errorf("Put: got %v, want %v", err, gone)
		}
		put(t, s, as[1])
		close(d.block)
		closeSink(t, s)
		if got := d.all(); !bytes.Equal(got, frames(as...)) {
			t.Error("the entries were not written")
		}
	})
}

func TestFailures(t *testing.T) {
	full := errors.New("no space left on device")
	for name, which := range map[string]func(*memFolder) *error{
		"create": func(d *memFolder) *error { return &d.create },
		"write":  func(d *memFolder) *error { return &d.write },
		"sync":   func(d *memFolder) *error { return &d.sync },
	} {
		for _, durable := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				d, as := newMemFolder(), entries(testID, 40)
				s := open(d, Options{})
				d.fail(which(d), full)
				a := as[0]
				a.Durable = durable
				err := s.Put(t.Context(), a)
				if durable && (!errors.Is(err, ErrSpool) || !errors.Is(err, full)) || !durable && err != nil {
					t.Errorf("%s: the first Put, durable %v: got %v", name, durable, err)
				}
				pass(50 * time.Millisecond)
				d.fail(which(d), nil) // too late: what is on disk is unknown
				for i, a := range as[1:] {
					a.Durable = i%2 == 0
					if err := s.Put(t.Context(), a); !errors.Is(err, ErrSpool) || !errors.Is(err, full) {
						t.Errorf("%s: a later Put: got %v, want ErrSpool", name, err)
					}
				}
				if got := s.Stats(); !got.Failed || got.Buffered != 0 || got.Bytes != 0 {
					t.Errorf("%s: got %+v", name, got)
				}
				if err := s.Close(); !errors.Is(err, ErrSpool) || !errors.Is(err, full) {
					t.Errorf("%s: Close: got %v", name, err)
				}
			})
		}
	}
}

// Puts that wait when the disk fails are told, wherever they wait.
func TestFailureReachesWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, as := newMemFolder(), entries(testID, 12)
		d.block = make(chan struct{})
		s := open(d, Options{MaxBuffered: len(frames(as[:8]...))})
		results := make(chan error, 12)
		send := func(a wire.Audit) { results <- s.Put(t.Context(), a) }
		go send(durably(as[0])) // waits for the fsync
		synctest.Wait()
		go send(durably(as[1])) // waits for the next
		go send(durably(as[3])) // waits for entry 3
		synctest.Wait()
		put(t, s, as[5], as[6], as[7], as[8])
		go send(as[9]) // fits
		go send(as[10])
		synctest.Wait()
		d.fail(&d.sync, errors.New("i/o error"))
		close(d.block)
		failed := 0
		for range 5 {
			if err := <-results; errors.Is(err, ErrSpool) {
				failed++
			} else if err != nil {
				t.Errorf("Put: got %v, want ErrSpool", err)
			}
		}
		if failed < 4 {
			t.Errorf("%d of the waiting Puts were told, want at least 4", failed)
		}
		if err := s.Close(); !errors.Is(err, ErrSpool) {
			t.Errorf("Close: got %v, want ErrSpool", err)
		}
	})
}

func TestCloseReportsTheFolder(t *testing.T) {
	d := newMemFolder()
	d.closing = errors.New("stale handle")
	if err := open(d, Options{}).Close(); !errors.Is(err, ErrSpool) || !errors.Is(err, d.closing) {
		t.Errorf("Close: got %v", err)
	}
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, as := newMemFolder(), entries(testID, 5)
		s := open(d, Options{})
		put(t, s, as[0], as[1], as[3]) // 4 is held back
		closeSink(t, s)
		closeSink(t, s)
		if got := d.all(); !bytes.Equal(got, frames(as[0], as[1], as[3])) {
			t.Errorf("Close left %d bytes on disk", len(got))
		}
		for _, a := range []wire.Audit{as[2], durably(as[4])} {
			if err := s.Put(t.Context(), a); !errors.Is(err, ErrSpool) {
				t.Errorf("Put after Close: got %v, want ErrSpool", err)
			}
		}
	})
}

func TestRotation(t *testing.T) {
	d, as := newMemFolder(), entries(testID, 100)
	size := int64(len(as[1].Frames))
	s := open(d, Options{MaxFile: 20 * size})
	put(t, s, as[:60]...) // one flush, several files
	for _, a := range as[60:] {
		put(t, s, durably(a))
	}
	closeSink(t, s)
	if got := s.Stats().Files; got < 5 || got != uint64(len(d.files)) {
		t.Errorf("got %d files, Stats says %d", len(d.files), got)
	}
	for name, b := range d.durable() {
		f, _, err := trail.CutFrame(b)
		_, first, _ := trail.Peek(f.Entry)
		if want := fmt.Sprintf("%s-%020d.trail", testID, first); err != nil || name != want || int64(len(b)) > 20*size {
			t.Errorf("file %s begins with entry %d and has %d bytes", name, first, len(b))
		}
	}
	if !bytes.Equal(d.all(), frames(as...)) {
		t.Error("the files do not follow each other in the order of their names")
	}
	if r := verify(d.durable()); !r.Intact() {
		t.Errorf("Verify: got %+v", r)
	}
}

// A reader takes holes for accidents only near the end.
func TestSyncAfterMaxWrite(t *testing.T) {
	d, as := newMemFolder(), entries(testID, 6000)
	s := open(d, Options{})
	for chunk := range slices.Chunk(as, 3000) {
		frames := frames(chunk...)
		put(t, s, wire.Audit{First: chunk[0].First, Count: len(chunk), Frames: frames, Durable: true})
		if len(frames) < trail.MaxWrite {
			t.Fatalf("a Put has %d bytes, want more than %d", len(frames), trail.MaxWrite)
		}
	}
	closeSink(t, s)
	if d.most > trail.MaxWrite || d.syncs < 4 {
		t.Errorf("%d bytes were written without a sync, want at most %d; %d syncs", d.most, trail.MaxWrite, d.syncs)
	}
	if !bytes.Equal(d.all(), frames(as...)) {
		t.Error("the file does not hold the entries")
	}
}

func TestFileTakesOneEntryAtLeast(t *testing.T) {
	d, as := newMemFolder(), entries(testID, 5)
	s := open(d, Options{MaxFile: 1, MaxBuffered: 1})
	put(t, s, as...)
	closeSink(t, s)
	if len(d.files) != 5 || !bytes.Equal(d.all(), frames(as...)) {
		t.Errorf("got %d files, want 5", len(d.files))
	}
}

func TestRotationFails(t *testing.T) {
	d, as := newMemFolder(), entries(testID, 3)
	s := open(d, Options{MaxFile: 1})
	put(t, s, durably(as[0]))
	d.fail(&d.sync, errors.New("i/o error"))
	if err := s.Put(t.Context(), durably(as[1])); !errors.Is(err, ErrSpool) || !errors.Is(err, d.sync) {
		t.Errorf("Put: got %v, want ErrSpool", err)
	}
	if err := s.Close(); !errors.Is(err, ErrSpool) {
		t.Errorf("Close: got %v", err)
	}
}

// The core is started anew; a late entry of the old one comes after the first
// of the new one, and does not hold that up.
func TestInstances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, a, b := newMemFolder(), entries(testID, 4), entries(otherID, 4)
		s := open(d, Options{})
		put(t, s, a[0], a[1], a[3]) // 3 is on its way
		put(t, s, b[0], b[1], a[2])
		start := time.Now()
		put(t, s, b[2], durably(b[3]))
		if time.Since(start) != 0 {
			t.Errorf("the new instance was held up for %v", time.Since(start))
		}
		closeSink(t, s)
		r := verify(d.durable())
		if len(r.Instances) != 2 {
			t.Fatalf("got %+v, want two instances", r)
		}
		for _, in := range r.Instances {
			if in.Entries != 4 || len(in.Gaps) != 0 || in.Signed != 4 || in.ID == otherID && !in.Intact() {
				t.Errorf("got %+v", in)
			}
		}
	})
}

func TestManyInstances(t *testing.T) {
	d := newMemFolder()
	s := open(d, Options{})
	for i := range 3 * maxOthers {
		put(t, s, entries(wire.UUID{byte(i)}, 2)...)
	}
	closeSink(t, s)
	if r := verify(d.durable()); !r.Intact() || len(r.Instances) != 3*maxOthers || len(s.others) > maxOthers {
		t.Errorf("got %d instances intact %v, %d remembered", len(r.Instances), r.Intact(), len(s.others))
	}
}

func TestPutRefuses(t *testing.T) {
	as, other := entries(testID, 5), entries(otherID, 5)
	torn := frames(as[1])
	for name, a := range map[string]wire.Audit{
		"count without frames":  {First: 1, Count: 1},
		"frames without count":  {First: 1, Frames: as[0].Frames},
		"negative count":        {First: 1, Count: -1, Frames: as[0].Frames},
		"more frames":           {First: 1, Count: 1, Frames: frames(as[0], as[1])},
		"fewer frames":          {First: 1, Count: 3, Frames: frames(as[0], as[1])},
		"another first":         {First: 2, Count: 1, Frames: as[0].Frames},
		"not consecutive":       {First: 1, Count: 2, Frames: frames(as[0], as[2])},
		"two instances":         {First: 1, Count: 2, Frames: frames(as[0], other[1])},
		"torn frame":            {First: 2, Count: 1, Frames: torn[:len(torn)-1]},
		"no frame":              {First: 2, Count: 1, Frames: make([]byte, 200)},
		"unknown format":        {First: 2, Count: 1, Frames: trail.AppendFrame(nil, make([]byte, 50), [32]byte{})},
		"sequence number zero":  {First: 0, Count: 1, Frames: trail.AppendFrame(nil, (&trail.Entry{Kind: trail.Checkpoint}).Append(nil), [32]byte{})},
		"bytes behind a frame":  {First: 2, Count: 1, Frames: append(frames(as[1]), 0)},
		"a durable one is none": {First: 9, Count: 1, Durable: true, Frames: as[1].Frames},
	} {
		d := newMemFolder()
		s := open(d, Options{})
		if err := s.Put(t.Context(), a); err == nil || errors.Is(err, ErrSpool) {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
		put(t, s, as...) // the sink goes on
		closeSink(t, s)
		if r := verify(d.durable()); !r.Intact() {
			t.Errorf("%s: Verify: got %+v", name, r)
		}
	}
}

func TestPutAllocations(t *testing.T) {
	s := open(discard{}, Options{})
	as := entries(testID, 2000)
	i := 0
	n := testing.AllocsPerRun(1900, func() {
		if err := s.Put(t.Context(), as[i]); err != nil {
			t.Error(err)
		}
		i++
	})
	if n > 1 {
		t.Errorf("a Put that is not durable costs %v allocations, want at most 1", n)
	}
	closeSink(t, s)
}

// discard is a folder whose files keep nothing.
type discard struct{}

func (discard) Create(string) (file, error) { return discard{}, nil }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Sync() error                 { return nil }
func (discard) Close() error                { return nil }
