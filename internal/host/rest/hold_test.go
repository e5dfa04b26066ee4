package rest

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestHold(t *testing.T) {
	const µs = time.Microsecond
	for name, row := range map[string]struct {
		into    time.Duration // how far the millisecond has gone when the reply is ready
		release time.Duration // from then; 0 stands for no release time
		want    time.Duration
	}{
		"no release time":          {300 * µs, 0, 0},
		"already over":             {300 * µs, -1 * µs, 0},
		"long over":                {300 * µs, -time.Hour, 0},
		"end of this millisecond":  {300 * µs, 700 * µs, 700 * µs},
		"within this millisecond":  {300 * µs, 200 * µs, 700 * µs},
		"within the next one":      {300 * µs, 900 * µs, 1700 * µs},
		"client's clock is ahead":  {300 * µs, 9 * time.Minute, 1700 * µs},
		"ahead, at the boundary":   {0, 9 * time.Minute, 1000 * µs},
		"ahead, after a boundary":  {1 * µs, 9 * time.Minute, 1999 * µs},
		"ahead, before a boundary": {999 * µs, 9 * time.Minute, 1001 * µs},
		"a century ahead":          {500 * µs, 100 * 365 * 24 * time.Hour, 1500 * µs},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHolder(time.Now)
				time.Sleep(row.into)
				release := int64(0)
				if row.release != 0 {
					release = time.Now().Add(row.release).UnixMicro()
				}
				start := time.Now()
				h.wait(release)
				if got := time.Since(start); got != row.want || got > maxHold {
					t.Errorf("held for %s, want %s", got, row.want)
				}
			})
		})
	}
}

// TestHoldSharesWakeUps lets many requests arrive at all times: none may be
// released early or held too long, and the clock is read a few times per
// millisecond, not per request.
func TestHoldSharesWakeUps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		h := newHolder(func() time.Time { reads.Add(1); return time.Now() })
		var wg sync.WaitGroup
		const n = 2000
		for i := range n {
			wg.Go(func() {
				start := time.Now()
				release := start.Truncate(time.Millisecond).Add(time.Millisecond)
				h.wait(release.UnixMicro())
				if now := time.Now(); now.Before(release) || now.Sub(start) > maxHold {
					t.Errorf("request %d: released %s after its time, held for %s", i, now.Sub(release), now.Sub(start))
				}
			})
			time.Sleep(10 * time.Microsecond)
		}
		wg.Wait()
		ticks := reads.Load() - n // everybody reads it once on arrival
		if ticks > 2*n/100+2 {
			t.Errorf("%d readings of the clock in %d ms", ticks, n/100)
		}
	})
}

func TestHoldSleepsWhenNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		h := newHolder(func() time.Time { reads.Add(1); return time.Now() })
		for range 3 {
			h.wait(time.Now().Add(time.Millisecond).UnixMicro())
			synctest.Wait()
			before := reads.Load()
			time.Sleep(time.Hour)
			if reads.Load() != before {
				t.Errorf("the clock is read %d times in an hour without requests", reads.Load()-before)
			}
		}
	})
}

// TestHoldWhenClockIsSetBack has a batch whose millisecond is an hour away, as
// if the wall clock had been set back while somebody waited.
func TestHoldWhenClockIsSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHolder(time.Now)
		start := time.Now()
		b := h.join(start.Add(time.Hour).UnixMilli(), start)
		h.wait(start.Add(time.Millisecond).UnixMicro())
		if got := time.Since(start); got != time.Millisecond {
			t.Errorf("who comes later is held for %s, want 1ms", got)
		}
		<-b.done
		if got := time.Since(start); got != maxHold {
			t.Errorf("held for %s, want %s", got, maxHold)
		}
	})
}
