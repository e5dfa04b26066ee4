package relay

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

func replacing(ids ...byte) (writes []wire.Write) {
	for _, id := range ids {
		writes = append(writes, wire.Write{ID: wire.RecordID{Type: wire.Key, ID: wire.UUID{id}}, Expected: 1, Revision: 2})
	}
	return writes
}

// Those at one record go in the order in which they came, and only the first of
// them is told that nobody was before it.
func TestTurnsAtOneRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Relay{}
		var mu sync.Mutex
		var order []int
		var firsts []bool
		var wg sync.WaitGroup
		for n := range 20 {
			wg.Go(func() {
				x := exchange{relay: r}
				first := x.inTurn(t.Context(), replacing(7))
				if !x.inTurn(t.Context(), replacing(8)) {
					t.Error("who has a turn was told to have been overtaken")
				}
				mu.Lock()
				order, firsts = append(order, n), append(firsts, first)
				mu.Unlock()
				<-time.After(time.Millisecond)
				x.leave()
			})
			synctest.Wait()
		}
		start := time.Now()
		wg.Wait()
		if took := time.Since(start); took != 20*time.Millisecond {
			t.Errorf("20 turns of 1 ms took %v", took)
		}
		if !slices.IsSorted(order) || len(order) != 20 || !firsts[0] || slices.Contains(firsts[1:], true) {
			t.Errorf("got order %v, first %v", order, firsts)
		}
		if len(r.turns.open) != 0 {
			t.Errorf("%d turns are left", len(r.turns.open))
		}
	})
}

func TestTurnsAreApart(t *testing.T) {
	r := &Relay{}
	var open []*exchange
	for name, writes := range map[string][]wire.Write{
		"a record":          replacing(1),
		"another":           replacing(2, 1),
		"a new record":      {{ID: wire.RecordID{ID: wire.UUID{1}}, Revision: 1}},
		"another new one":   {{ID: wire.RecordID{ID: wire.UUID{1}}, Revision: 1}},
		"nothing":           nil,
		"a new one, a last": append([]wire.Write{{ID: wire.RecordID{ID: wire.UUID{1}}, Revision: 1}}, replacing(3)...),
	} {
		x := &exchange{relay: r}
		if !x.inTurn(t.Context(), writes) {
			t.Errorf("%s: it was told to have been overtaken", name)
		}
		open = append(open, x)
	}
	for _, x := range open {
		x.leave()
	}
	if len(r.turns.open) != 0 {
		t.Errorf("%d turns are left", len(r.turns.open))
	}
}

// Who cannot wait any longer does not have the turn, and leaves none behind.
func TestTurnContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Relay{}
		holder, late := exchange{relay: r}, exchange{relay: r}
		holder.inTurn(t.Context(), replacing(1))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if late.inTurn(ctx, replacing(1)) || late.turn != nil {
			t.Error("a turn was given twice")
		}
		late.leave()
		holder.leave()
		if again := (&exchange{relay: r}); !again.inTurn(t.Context(), replacing(1)) {
			t.Error("a turn that was given back was not free")
		} else {
			again.leave()
		}
		if len(r.turns.open) != 0 {
			t.Errorf("%d turns are left", len(r.turns.open))
		}
	})
}
