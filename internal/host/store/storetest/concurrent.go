package storetest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// testCompareAndSwap increments one record from many goroutines: as many
// successes as revisions.
func testCompareAndSwap(t *testing.T, s Store) {
	const callers, tries = 8, 40
	id := key(1, 1)
	apply(t, s, change(write(id, 0, 1)))
	var stored, conflicts atomic.Uint64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range tries {
				rows, err := s.Get(t.Context(), []wire.RecordID{id})
				if err != nil {
					t.Errorf("Get: got %v, want no error", err)
					return
				}
				at := rows[0].Revision
				switch err := s.Apply(t.Context(), change(write(id, at, at+1))); {
				case err == nil:
					stored.Add(1)
				case errors.Is(err, store.ErrConflict):
					conflicts.Add(1)
				default:
					t.Errorf("Apply: got %v, want nil or %v", err, store.ErrConflict)
				}
			}
		})
	}
	wg.Wait()
	if got := stored.Load() + conflicts.Load(); got != callers*tries {
		t.Errorf("got %d outcomes, want %d", got, callers*tries)
	}
	if stored.Load() < tries {
		t.Errorf("got %d successes, want at least %d: somebody always wins", stored.Load(), tries)
	}
	wantRow(t, get(t, s, id)[0], row(write(id, stored.Load(), stored.Load()+1)))
}

func testOneReplayWins(t *testing.T, s Store) {
	const callers, rounds = 8, 10
	for round := range rounds {
		var stored atomic.Int32
		var wg sync.WaitGroup
		for n := range callers {
			wg.Go(func() {
				c := store.Change{Writes: []wire.Write{write(key(round, n+1), 0, 1)}, Replay: replay(round, 1, 1)}
				switch err := s.Apply(t.Context(), c); {
				case err == nil:
					stored.Add(1)
				case !errors.Is(err, store.ErrReplayed):
					t.Errorf("Apply: got %v, want nil or %v", err, store.ErrReplayed)
				}
			})
		}
		wg.Wait()
		rows := list(t, s, wire.Query{Type: wire.Key, Tenant: uuid(round), Limit: callers}, wire.UUID{})
		if stored.Load() != 1 || len(rows) != 1 {
			t.Errorf("round %d: got %d successes and %d records, want one", round, stored.Load(), len(rows))
		}
	}
}

// testRefusalsSpareOthers mixes changes that must be refused with changes that
// must be stored.
func testRefusalsSpareOthers(t *testing.T, s Store) {
	const callers, each = 12, 15
	apply(t, s, store.Change{Writes: []wire.Write{write(key(1, 1), 0, 5)}, Replay: replay(1, 1, 1)})
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				mine := write(key(2, 1+c*each+i), 0, 1)
				cc, want := change(mine), error(nil)
				switch c % 3 {
				case 1:
					cc.Writes = append(cc.Writes, write(key(1, 1), 4, 5))
					want = store.ErrConflict
				case 2:
					cc.Replay = replay(1, 1, 1)
					want = store.ErrReplayed
				}
				if err := s.Apply(t.Context(), cc); !errors.Is(err, want) {
					t.Errorf("caller %d: Apply: got %v, want %v", c, err, want)
				}
			}
		})
	}
	wg.Wait()
	for c := range callers {
		for i := range each {
			want := uint64(0)
			if c%3 == 0 {
				want = 1
			}
			wantRevision(t, s, key(2, 1+c*each+i), want)
		}
	}
}

// testOneMoment reads two records that are always written together.
func testOneMoment(t *testing.T, s Store) {
	a, b := key(1, 1), key(1, 2)
	apply(t, s, change(write(a, 0, 1), write(b, 0, 1)))
	const last = 60
	done := make(chan struct{})
	go func() {
		defer close(done)
		for r := uint64(1); r < last; r++ {
			if err := s.Apply(t.Context(), change(write(a, r, r+1), write(b, r, r+1))); err != nil {
				t.Errorf("Apply: got %v, want no error", err)
				return
			}
		}
	}()
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		if rows := get(t, s, a, b); rows[0].Revision != rows[1].Revision {
			t.Errorf("Get: got revisions %d and %d, want the same", rows[0].Revision, rows[1].Revision)
		}
	}
}

func testEndedContext(t *testing.T, s Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	apply(t, s, change(write(app(1), 0, 1)))
	for name, call := range calls(s) {
		if err := call(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got error %v, want %v", name, err, context.Canceled)
		}
	}
	wantRevision(t, s, key(1, 1), 0)
}

// calls returns every call that a context or Close can end. Apply creates key(1, 1).
func calls(s Store) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Get": func(ctx context.Context) error {
			_, err := s.Get(ctx, []wire.RecordID{app(1)})
			return err
		},
		"List": func(ctx context.Context) error {
			_, err := s.List(ctx, wire.Query{Type: wire.Key, Tenant: uuid(1), Limit: 1}, wire.UUID{})
			return err
		},
		"Apply": func(ctx context.Context) error { return s.Apply(ctx, change(write(key(1, 1), 0, 1))) },
		"Sweeps": func(ctx context.Context) error {
			_, err := s.Sweeps(ctx)
			return err
		},
		"EndSweep": func(ctx context.Context) error { return s.EndSweep(ctx, store.Sweep{Tenant: uuid(1), Revision: 1}) },
		"PruneReplays": func(ctx context.Context) error {
			_, err := s.PruneReplays(ctx, 1)
			return err
		},
		"Due": func(ctx context.Context) error {
			_, err := s.Due(ctx, 1, 1)
			return err
		},
		"Ping": s.Ping,
	}
}

// testContextEnds ends contexts while changes are under way: an error means
// certainly not stored, and nil means stored.
func testContextEnds(t *testing.T, s Store) {
	const callers, each = 8, 25
	rng := rand.New(rand.NewPCG(1, 2))
	var want [callers][each]uint64
	var wg sync.WaitGroup
	for c := range callers {
		spin := rng.IntN(300)
		wg.Go(func() {
			for i := range each {
				ctx, cancel := context.WithCancel(t.Context())
				go func() {
					for range spin * i { // a while, without a clock
						if ctx.Err() != nil {
							return
						}
					}
					cancel()
				}()
				err := s.Apply(ctx, change(write(key(c, i), 0, 1)))
				cancel()
				if err == nil {
					want[c][i] = 1
				} else if !errors.Is(err, context.Canceled) {
					t.Errorf("Apply: got %v, want nil or %v", err, context.Canceled)
				}
			}
		})
	}
	wg.Wait()
	for c := range callers {
		for i := range each {
			wantRevision(t, s, key(c, i), want[c][i])
		}
	}
}

func testClosed(t *testing.T, s Store) {
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("Close: got %v, want no error", err)
		}
	}
	for name, call := range calls(s) {
		if err := call(t.Context()); !errors.Is(err, store.ErrClosed) {
			t.Errorf("%s: got error %v, want %v", name, err, store.ErrClosed)
		}
	}
}

// testCloseUnderLoad closes while changes are under way and looks for exactly
// the acknowledged ones.
func testCloseUnderLoad(t *testing.T, s Store) {
	const callers, closeAfter = 8, 60
	var acked [callers]int // each caller's keys are numbered from 1
	var total atomic.Int32
	closed := make(chan error, 1)
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for {
				err := s.Apply(t.Context(), change(write(key(c, acked[c]+1), 0, 1)))
				if errors.Is(err, store.ErrClosed) {
					return
				}
				if err != nil {
					t.Errorf("Apply: got %v, want nil or %v", err, store.ErrClosed)
					return
				}
				acked[c]++
				if total.Add(1) == closeAfter {
					go func() { closed <- s.Close() }()
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	if err := <-closed; err != nil {
		t.Errorf("Close: got %v, want no error", err)
	}
	s = reopen(t, s)
	for c := range callers {
		if rows := list(t, s, wire.Query{Type: wire.Key, Tenant: uuid(c), Limit: wire.MaxList}, wire.UUID{}); len(rows) != acked[c] {
			t.Errorf("caller %d: got %d records, want the %d acknowledged", c, len(rows), acked[c])
		}
	}
}

func reopen(t *testing.T, s Store) Store {
	t.Helper()
	r, ok := s.(Reopener)
	if !ok {
		t.Skipf("%T cannot be opened again", s)
	}
	return r.Reopen(t)
}

func testReopen(t *testing.T, s Store) {
	w := write(key(1, 1), 0, 1)
	w.Primary = 3
	a := write(app(1), 0, 1)
	a.Sweep = true
	apply(t, s, store.Change{Writes: []wire.Write{w, a}, Replay: replay(1, 1, 50)})
	apply(t, s, change(write(key(1, 2), 0, 1)))
	if err := s.Close(); err != nil {
		t.Fatalf("Close: got %v, want no error", err)
	}
	s = reopen(t, s)
	wantRow(t, get(t, s, w.ID)[0], row(w))
	refuse(t, s, store.Change{Replay: replay(1, 1, 50)}, store.ErrReplayed)
	refuse(t, s, change(write(key(1, 2), 0, 2)), store.ErrConflict)
	apply(t, s, change(write(key(1, 2), 1, 2)))
	if due, err := s.Sweeps(t.Context()); len(due) != 1 || err != nil || due[0].Tenant != uuid(1) {
		t.Errorf("Sweeps: got %v, %v, want tenant 1", due, err)
	}
	if n, err := s.PruneReplays(t.Context(), 51); n != 1 || err != nil {
		t.Errorf("PruneReplays: got %d, %v, want 1", n, err)
	}
}
