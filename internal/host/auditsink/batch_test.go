package auditsink

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const syncTime = 300 * time.Microsecond

// Clients that send their next request when they have the reply to the last come
// to share one flush, however they began.
func TestClientsShareFlushes(t *testing.T) {
	for name, think := range map[string]func(client int) time.Duration{
		"at once":         func(int) time.Duration { return 0 },
		"all after 50 us": func(int) time.Duration { return 50 * time.Microsecond },
		"one by one":      func(n int) time.Duration { return time.Duration(n) * 10 * time.Microsecond },
	} {
		synctest.Test(t, func(t *testing.T) {
			const clients, rounds = 16, 50
			d, as := newMemFolder(), entries(testID, clients*rounds)
			d.takes = syncTime
			s := open(d, Options{})
			var next atomic.Int64
			var wg sync.WaitGroup
			for n := range clients {
				wg.Go(func() {
					for range rounds {
						pass(time.Microsecond + think(n))
						put(t, s, durably(as[next.Add(1)-1]))
					}
				})
			}
			wg.Wait()
			closeSink(t, s)
			if d.syncs > rounds+rounds/5 {
				t.Errorf("%s: %d Puts of %d clients took %d syncs, want about %d", name, len(as), clients, d.syncs, rounds)
			}
			if !bytes.Equal(d.all(), frames(as...)) {
				t.Errorf("%s: the file does not hold the entries", name)
			}
		})
	}
}

// A lone client waits for nobody.
func TestLoneClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, as := newMemFolder(), entries(testID, 20)
		d.takes = syncTime
		s := open(d, Options{})
		start := time.Now()
		for _, a := range as {
			put(t, s, durably(a))
		}
		if took := time.Since(start); took != 20*syncTime {
			t.Errorf("20 Puts took %v, want %v", took, 20*syncTime)
		}
		closeSink(t, s)
	})
}

// Those whose companions have left wait for them once or twice, and not for long.
func TestClientsLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, as := newMemFolder(), entries(testID, 41)
		d.takes = syncTime
		s := open(d, Options{})
		var wg sync.WaitGroup
		for _, a := range as[:16] {
			wg.Go(func() { put(t, s, durably(a)) })
		}
		wg.Wait()
		waited := 0
		for _, a := range as[16:40] {
			start := time.Now()
			put(t, s, durably(a))
			switch took := time.Since(start); {
			case took > syncTime+maxGather:
				t.Errorf("a Put took %v, want at most %v", took, syncTime+maxGather)
			case took > syncTime:
				waited++
			}
		}
		if waited > 8 {
			t.Errorf("%d Puts waited for clients that have left", waited)
		}
		pass(time.Second)
		start := time.Now()
		put(t, s, durably(as[40]))
		if took := time.Since(start); took != syncTime {
			t.Errorf("a Put after a pause took %v, want %v", took, syncTime)
		}
		closeSink(t, s)
	})
}

// Puts whose flush fails, and those that wait for the next, are told; so are
// those that wait for an entry before theirs.
func TestBatchFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, as := newMemFolder(), entries(testID, 8)
		d.takes = syncTime
		d.sync = errors.New("i/o error")
		s := open(d, Options{})
		var failed atomic.Int64
		var wg sync.WaitGroup
		for _, i := range []int{0, 1, 2, 5, 7} {
			wg.Go(func() {
				if err := s.Put(t.Context(), durably(as[i])); errors.Is(err, ErrSpool) && errors.Is(err, d.sync) {
					failed.Add(1)
				} else {
					t.Errorf("Put of entry %d: got %v, want ErrSpool", i+1, err)
				}
			})
		}
		wg.Wait()
		if failed.Load() != 5 {
			t.Errorf("%d Puts were told, want 5", failed.Load())
		}
		if err := s.Close(); !errors.Is(err, ErrSpool) {
			t.Errorf("Close: got %v, want ErrSpool", err)
		}
	})
}

// The context of a Put that waits for an entry before its own ends.
func TestContextEndsBehindGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, as := newMemFolder(), entries(testID, 3)
		s := open(d, Options{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := s.Put(ctx, durably(as[1])); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrSpool) {
			t.Errorf("Put: got %v, want the deadline", err)
		}
		put(t, s, durably(as[0]), durably(as[2]))
		closeSink(t, s)
		if !bytes.Equal(d.all(), frames(as...)) {
			t.Error("the file does not hold the entries")
		}
	})
}
