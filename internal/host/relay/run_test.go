package relay

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// addKeys stores n more keys with value 0, which is what a sweep looks for.
func (g *rig) addKeys(n int) {
	for i := range uint32(n) {
		id := keyRecord
		id.ID = wire.UUID{0: byte(i * 31)}
		binary.BigEndian.PutUint32(id.ID[12:], i+1)
		g.store.put(id, 0, 1)
	}
}

// visible counts the keys of the tenant that are not hidden.
func (g *rig) visible() int {
	rows, _ := g.store.List(context.Background(), wire.Query{Type: wire.Key, Tenant: tenant, Limit: 1 << 20}, wire.UUID{})
	return len(rows)
}

// running calls f in a bubble while Run is at work.
func running(t *testing.T, opts Options, f func(*rig)) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, opts)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { g.Run(ctx, g.store); close(done) }()
		f(g)
		cancel()
		<-done
	})
}

func TestSweep(t *testing.T) {
	running(t, Options{}, func(g *rig) {
		g.addKeys(1203)
		g.want(t, "DeleteAllKey", 1, "1")
		synctest.Wait()
		if n := g.visible(); n != 0 {
			t.Errorf("%d keys are left", n)
		}
		if len(g.store.sweeps) != 0 {
			t.Error("the sweep is not ended")
		}
		if g.core.sweeps != 3 {
			t.Errorf("1204 keys took %d steps, want 3", g.core.sweeps)
		}
	})
}

func TestSweepOfEarlierProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Options{})
		g.store.sweeps[tenant] = 1
		ctx, cancel := context.WithCancel(t.Context())
		go g.Run(ctx, g.store)
		synctest.Wait()
		if g.visible() != 0 || len(g.store.sweeps) != 0 {
			t.Errorf("%d keys are left", g.visible())
		}
		cancel()
		synctest.Wait()
	})
}

// The secrets of an app that was deleted go with its keys, in steps; those of another
// are not looked at.
func TestSweepOfDeletedApp(t *testing.T) {
	for deleted, steps := range map[bool]int{false: 1, true: 4} {
		synctest.Test(t, func(t *testing.T) {
			g := newRig(t, Options{})
			app := wire.RecordID{Type: wire.App, Tenant: tenant, ID: tenant}
			row := g.store.rows[app]
			row.Hidden = deleted
			g.store.rows[app] = row
			for i := range 2*wire.SweepSecrets + 1 {
				id := wire.RecordID{Type: wire.Secret, Tenant: tenant}
				binary.BigEndian.PutUint32(id.ID[:], uint32(i+1))
				g.store.put(id, 0, 1)
			}
			g.store.sweeps[tenant] = 1
			ctx, cancel := context.WithCancel(t.Context())
			go g.Run(ctx, g.store)
			synctest.Wait()
			left, err := g.store.List(ctx, wire.Query{Type: wire.Secret, Tenant: tenant, Limit: 1 << 20}, wire.UUID{})
			if err != nil || deleted != (len(left) == 0) || len(g.store.sweeps) != 0 || g.core.sweeps != steps {
				t.Errorf("deleted %v: %d secrets are left, %d sweeps, %d steps, %v", deleted, len(left), len(g.store.sweeps), g.core.sweeps, err)
			}
			cancel()
			synctest.Wait()
		})
	}
}

func TestSweepMeetsOtherChanges(t *testing.T) {
	running(t, Options{}, func(g *rig) {
		g.addKeys(700)
		steps := 0
		g.store.beforeApply = func(_ context.Context, c store.Change) error {
			if len(c.Writes) > 1 && steps < 3 { // a step of a sweep
				steps++
				g.store.put(c.Writes[7].ID, 0, 1)
			}
			return nil
		}
		g.want(t, "DeleteAllKey", 1, "1")
		time.Sleep(time.Second)
		synctest.Wait()
		if n := g.visible(); n != 0 || steps != 3 {
			t.Errorf("%d keys are left after %d steps that met changes", n, steps)
		}
	})
}

func TestSweepIsRetried(t *testing.T) {
	var log bytes.Buffer
	running(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, func(g *rig) {
		var broken atomic.Bool
		broken.Store(true)
		g.store.beforeApply = func(_ context.Context, c store.Change) error {
			if broken.Load() && c.Replay == nil {
				return errDisk
			}
			return nil
		}
		g.want(t, "DeleteAllKey", 1, "1")
		time.Sleep(time.Minute)
		synctest.Wait()
		if g.visible() != 1 || len(g.store.sweeps) != 1 {
			t.Errorf("%d keys, %d sweeps, want 1 and 1", g.visible(), len(g.store.sweeps))
		}
		if n := strings.Count(log.String(), "sweep stopped"); n < 5 || n > 15 {
			t.Errorf("got %d attempts in a minute, want them to back off", n)
		}
		broken.Store(false)
		time.Sleep(lastRetry)
		synctest.Wait()
		if g.visible() != 0 || len(g.store.sweeps) != 0 {
			t.Errorf("%d keys, %d sweeps after the trouble has ended", g.visible(), len(g.store.sweeps))
		}
	})
}

// TestSweepAnnouncedAgain makes a second sweep due at the worst moment: the
// first one is about to take off the mark that both need.
func TestSweepAnnouncedAgain(t *testing.T) {
	running(t, Options{}, func(g *rig) {
		ends := 0
		second := make(chan struct{})
		g.store.beforeEnd = func() error {
			if ends++; ends == 1 {
				g.addKeys(3)
				g.want(t, "DeleteAllKey", 2, "2")
				close(second)
			}
			return nil
		}
		g.want(t, "DeleteAllKey", 1, "1")
		<-second
		synctest.Wait()
		if g.visible() != 0 || len(g.store.sweeps) != 0 || ends != 2 {
			t.Errorf("%d keys, %d sweeps, %d ends", g.visible(), len(g.store.sweeps), ends)
		}
	})
}

func TestCheckpoints(t *testing.T) {
	running(t, Options{}, func(g *rig) {
		checks := func(want int, when string) {
			t.Helper()
			synctest.Wait()
			g.core.mu.Lock()
			defer g.core.mu.Unlock()
			if g.core.checks != want {
				t.Errorf("%s: got %d checkpoints, want %d", when, g.core.checks, want)
			}
		}
		time.Sleep(10 * time.Second)
		checks(0, "nothing done")
		for n := range 5 {
			g.want(t, "Read", n, "0")
		}
		time.Sleep(checkpointPeriod)
		checks(1, "after five requests")
		time.Sleep(10 * time.Second)
		checks(1, "nothing done since")
		g.sink.set(errDisk)
		g.do("Read", 1)
		time.Sleep(2 * checkpointPeriod)
		checks(3, "sink is broken")
		g.sink.set(nil)
		time.Sleep(2 * checkpointPeriod)
		checks(4, "sink is back")
		g.want(t, "Read", 7, "0")
	})
}

func TestLastCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		go g.Run(ctx, g.store)
		g.want(t, "Read", 1, "0")
		cancel()
		synctest.Wait()
		if g.core.checks != 1 {
			t.Errorf("got %d checkpoints at the end, want 1", g.core.checks)
		}
	})
}

func TestReplaysArePruned(t *testing.T) {
	running(t, Options{}, func(g *rig) {
		time.Sleep(5*prunePeriod + time.Second)
		synctest.Wait()
		if len(g.store.pruned) != 5 {
			t.Fatalf("pruned %d times in five minutes", len(g.store.pruned))
		}
		if ago := time.Since(time.UnixMilli(g.store.pruned[4])); ago != time.Second {
			t.Errorf("pruned up to %s ago, want 1s", ago)
		}
	})
}

func TestTroubleIsLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	running(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, func(g *rig) {
		g.do("Read", 1)
		g.sink.set(errDisk)
		time.Sleep(30 * time.Second)
		g.sink.set(nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := strings.Count(log.String(), "audit chain not signed"); got != 2 { // the error and the recovery
			t.Errorf("got %d lines:\n%s", got, &log)
		}
		if !strings.Contains(log.String(), fmt.Sprint(errDisk)) {
			t.Errorf("the cause is missing:\n%s", &log)
		}
	})
}
