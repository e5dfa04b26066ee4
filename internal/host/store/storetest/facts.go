package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// A Facts is a store with the log of negative facts.
type Facts interface {
	Facts(ctx context.Context, after uint64, limit int) ([]byte, error)
}

// fact is the entry of a number.
func fact(n byte) []byte { return bytes.Repeat([]byte{n}, wire.FactSize) }

// withFacts is a change of one record that adds entries from a number on, behind
// the entry fact makes of the number before.
func withFacts(w wire.Write, first uint64, entries ...[]byte) store.Change {
	c := change(w)
	c.Facts = &wire.NewFacts{First: first, Entries: bytes.Join(entries, nil)}
	if first > 1 {
		c.Facts.Previous = wire.FactMAC(fact(byte(first - 1)))
	}
	return c
}

// behind has a change say that its entries follow another one.
func behind(c store.Change, previous []byte) store.Change {
	c.Facts.Previous = wire.FactMAC(previous)
	return c
}

func wantFacts(t *testing.T, s Store, after uint64, limit int, want ...[]byte) {
	t.Helper()
	got, err := s.(Facts).Facts(t.Context(), after, limit)
	if err != nil || !bytes.Equal(got, bytes.Join(want, nil)) {
		t.Errorf("Facts(%d, %d): got %d bytes, %v, want %d", after, limit, len(got), err, len(want)*wire.FactSize)
	}
}

func testFacts(t *testing.T, s Store) {
	wantFacts(t, s, 0, 10)
	apply(t, s, withFacts(write(key(1, 1), 0, 1), 1, fact(1)))
	apply(t, s, withFacts(write(key(1, 1), 1, 2), 2, fact(2), fact(3)))
	apply(t, s, change(write(key(1, 1), 2, 3)))
	apply(t, s, withFacts(write(key(1, 2), 0, 1), 4, fact(4)))
	wantFacts(t, s, 0, 10, fact(1), fact(2), fact(3), fact(4))
	wantFacts(t, s, 0, 2, fact(1), fact(2))
	wantFacts(t, s, 2, 10, fact(3), fact(4))
	wantFacts(t, s, 4, 10)
	wantFacts(t, s, 9, 10)
}

// testFactsConflict: entries are stored behind the last one or nowhere, and with
// their change or not at all.
func testFactsConflict(t *testing.T, s Store) {
	apply(t, s, withFacts(write(key(1, 1), 0, 1), 1, fact(1), fact(2)))
	for _, tt := range []struct {
		name string
		c    store.Change
		want error
	}{
		{"at the place of another", withFacts(write(key(1, 2), 0, 1), 2, fact(9)), store.ErrConflict},
		{"at the first place", withFacts(write(key(1, 2), 0, 1), 1, fact(9)), store.ErrConflict},
		{"partly at the place of others", withFacts(write(key(1, 2), 0, 1), 2, fact(9), fact(10)), store.ErrConflict},
		{"the same ones again", withFacts(write(key(1, 2), 0, 1), 1, fact(1), fact(2)), store.ErrConflict},
		{"behind another entry", behind(withFacts(write(key(1, 2), 0, 1), 3, fact(9)), fact(7)), store.ErrConflict},
		{"behind an entry of before", behind(withFacts(write(key(1, 2), 0, 1), 3, fact(9)), fact(1)), store.ErrConflict},
		{"with a gap", withFacts(write(key(1, 2), 0, 1), 4, fact(9)), store.ErrConflict},
		{"with a record of another revision", withFacts(write(key(1, 1), 7, 8), 3, fact(9)), store.ErrConflict},
		{"number 0", withFacts(write(key(1, 2), 0, 1), 0, fact(9)), store.ErrInvalid},
		{"no entries", withFacts(write(key(1, 2), 0, 1), 3), store.ErrInvalid},
		{"half an entry", withFacts(write(key(1, 2), 0, 1), 3, fact(9)[1:]), store.ErrInvalid},
		{"numbers beyond all", withFacts(write(key(1, 2), 0, 1), store.MaxRevision, fact(9)), store.ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			refuse(t, s, tt.c, tt.want)
			wantRevision(t, s, key(1, 2), 0)
			wantRevision(t, s, key(1, 1), 1)
			wantFacts(t, s, 0, 10, fact(1), fact(2))
		})
	}
	replay := withFacts(write(key(1, 2), 0, 1), 3, fact(3))
	replay.Replay = &wire.Replay{Tenant: uuid(1), Tag: wire.Tag{1}, Until: 5}
	apply(t, s, replay)
	again := withFacts(write(key(1, 3), 0, 1), 4, fact(4))
	again.Replay = replay.Replay
	refuse(t, s, again, store.ErrReplayed)
	wantFacts(t, s, 0, 10, fact(1), fact(2), fact(3))
}

// testFactsRace has many write at the end of the log: each place is taken once, by a
// change that is stored.
func testFactsRace(t *testing.T, s Store) {
	const writers, each = 4, 8
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := map[string]bool{}
	for w := range writers {
		wg.Go(func() {
			for i := 0; i < each; {
				log, err := s.(Facts).Facts(t.Context(), 0, 1000)
				if err != nil {
					t.Error(err)
					return
				}
				n := w*each + i
				c := withFacts(write(key(1, n+1), 0, 1), uint64(len(log)/wire.FactSize+1), fact(byte(n+1)))
				if len(log) > 0 {
					c = behind(c, log)
				}
				err = s.Apply(t.Context(), c)
				switch {
				case err == nil:
					mu.Lock()
					won[fmt.Sprint(n+1)] = true
					mu.Unlock()
					i++
				case !errors.Is(err, store.ErrConflict):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	log, err := s.(Facts).Facts(t.Context(), 0, 1000)
	if err != nil || len(log) != writers*each*wire.FactSize || len(won) != writers*each {
		t.Fatalf("got %d bytes of %d changes, %v", len(log), len(won), err)
	}
	for i := range writers * each {
		n := log[i*wire.FactSize]
		if !won[fmt.Sprint(n)] || get(t, s, key(1, int(n)))[0].Revision != 1 {
			t.Errorf("entry %d is of a change that is not stored", n)
		}
		delete(won, fmt.Sprint(n))
	}
}
