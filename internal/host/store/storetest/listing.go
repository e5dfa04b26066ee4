package storetest

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

func testListing(t *testing.T, s Store) {
	// Written out of order, among other tenants, other types and hidden ones.
	hide := write(key(1, 35), 0, 1)
	hide.Hidden = true
	apply(t, s, change(
		write(key(1, 30), 0, 1), write(keyVersion(1, 30, 1), 0, 1), write(keyVersion(1, 30, 2), 0, 1),
		write(key(2, 15), 0, 1), write(key(0, 15), 0, 1), hide, write(app(1), 0, 1),
		write(key(1, 10), 0, 1), write(key(1, 40), 0, 1), write(keyVersion(1, 25, 1), 0, 1), write(key(1, 20), 0, 1),
	))
	for _, tt := range []struct {
		name  string
		q     wire.Query
		after wire.UUID
		want  []int
	}{
		{"all", wire.Query{Type: wire.Key, Limit: wire.MaxList}, wire.UUID{}, []int{10, 20, 30, 40}},
		{"limit met exactly", wire.Query{Type: wire.Key, Limit: 4}, wire.UUID{}, []int{10, 20, 30, 40}},
		{"limit", wire.Query{Type: wire.Key, Limit: 2}, wire.UUID{}, []int{10, 20}},
		{"no limit left", wire.Query{Type: wire.Key}, wire.UUID{}, nil},
		{"next page", wire.Query{Type: wire.Key, Limit: 2}, uuid(20), []int{30, 40}},
		{"after what is not there", wire.Query{Type: wire.Key, Limit: 2}, uuid(11), []int{20, 30}},
		{"across a hidden one", wire.Query{Type: wire.Key, Limit: 2}, uuid(30), []int{40}},
		{"after the last", wire.Query{Type: wire.Key, Limit: 2}, uuid(40), nil},
		{"after every id", wire.Query{Type: wire.Key, Limit: 2}, wire.UUID{255}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.q.Tenant = uuid(1)
			rows := list(t, s, tt.q, tt.after)
			if len(rows) != len(tt.want) {
				t.Fatalf("List: got %d rows, want %d", len(rows), len(tt.want))
			}
			for i, n := range tt.want {
				id := wire.RecordID{Type: tt.q.Type, Tenant: uuid(1), ID: uuid(n)}
				wantRow(t, rows[i], row(write(id, 0, 1)))
			}
		})
	}
}

// testListingApps lists the apps of tenants that have other records too.
func testListingApps(t *testing.T, s Store) {
	hidden := write(app(7), 0, 1)
	hidden.Hidden = true
	apply(t, s, change(
		write(app(3), 0, 1), write(key(3, 1), 0, 1), write(key(3, 9), 0, 1), write(app(5), 0, 1), hidden, write(key(8, 8), 0, 1), write(app(9), 0, 1)))
	for _, tt := range []struct {
		name  string
		above int
		limit int
		want  []int
	}{
		{"all", 0, 9, []int{3, 5, 9}}, {"limit", 0, 2, []int{3, 5}}, {"next page", 5, 2, []int{9}},
		{"above what is not there", 4, 1, []int{5}}, {"after the last", 9, 9, nil}, {"no limit left", 0, 0, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := wire.Query{Type: wire.App, Limit: tt.limit}
			if tt.above > 0 {
				q.ID = uuid(tt.above)
			}
			rows := list(t, s, q, wire.UUID{})
			if len(rows) != len(tt.want) {
				t.Fatalf("List: got %d rows, want %d", len(rows), len(tt.want))
			}
			for i, n := range tt.want {
				wantRow(t, rows[i], row(write(app(n), 0, 1)))
			}
		})
	}
}

func testListingRefused(t *testing.T, s Store) {
	apply(t, s, change(write(keyVersion(1, 1, 1), 0, 1)))
	for _, tt := range []struct {
		name string
		q    wire.Query
	}{
		{"key versions", wire.Query{Type: wire.KeyVersion, Tenant: uuid(1), Limit: 9}},
		{"secret versions", wire.Query{Type: wire.SecretVersion, Tenant: uuid(1), Limit: 9}},
		{"secrets of an id", wire.Query{Type: wire.Secret, Tenant: uuid(1), ID: uuid(1), Limit: 9}},
		{"keys after a version", wire.Query{Type: wire.Key, Tenant: uuid(1), After: 1, Limit: 9}},
		{"no type", wire.Query{Tenant: uuid(1), Limit: 9}},
		{"unknown type", wire.Query{Type: 99, Tenant: uuid(1), Limit: 9}},
		{"apps of a tenant", wire.Query{Type: wire.App, Tenant: uuid(1), Limit: 9}},
		{"apps after a version", wire.Query{Type: wire.App, After: 1, Limit: 9}},
		{"negative limit", wire.Query{Type: wire.Key, Tenant: uuid(1), Limit: -1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if rows, err := s.List(t.Context(), tt.q, wire.UUID{}); !errors.Is(err, store.ErrInvalid) || rows != nil {
				t.Errorf("List: got %d rows, error %v, want %v", len(rows), err, store.ErrInvalid)
			}
		})
	}
}

// testHidden checks that a record leaves listings and comes back.
func testHidden(t *testing.T, s Store) {
	q := wire.Query{Type: wire.Key, Tenant: uuid(1), Limit: 9}
	for revision := range uint64(4) {
		w := write(key(1, 1), revision, revision+1)
		w.Hidden = revision%2 == 0
		apply(t, s, change(w))
		wantRow(t, get(t, s, w.ID)[0], row(w))
		want := 1
		if w.Hidden {
			want = 0
		}
		if rows := list(t, s, q, wire.UUID{}); len(rows) != want {
			t.Errorf("revision %d: List: got %d rows, want %d", w.Revision, len(rows), want)
		}
	}
}

// testLargeTenant pages through the keys of a tenant with 5,000 of them.
func testLargeTenant(t *testing.T, s Store) {
	const keys, page = 5000, wire.SweepStep
	var want []wire.UUID
	for n := 1; n <= keys; {
		var c store.Change
		for ; len(c.Writes) < 500 && n <= keys; n++ {
			w := write(key(1, n), 0, 1)
			if w.Hidden = n%10 == 0; !w.Hidden {
				want = append(want, w.ID.ID)
			}
			c.Writes = append(c.Writes, w, write(keyVersion(1, n, 1), 0, 1))
		}
		apply(t, s, c)
	}
	var got []wire.UUID
	for after := (wire.UUID{}); ; {
		rows := list(t, s, wire.Query{Type: wire.Key, Tenant: uuid(1), Limit: page}, after)
		for _, r := range rows {
			got = append(got, r.ID.ID)
		}
		if len(rows) < page {
			break
		}
		after = got[len(got)-1]
	}
	if !slices.Equal(got, want) {
		t.Errorf("pages: got %d keys, want the %d that are not hidden, in order", len(got), len(want))
	}
	if rows := list(t, s, wire.Query{Type: wire.Key, Tenant: uuid(1), Limit: wire.MaxList}, wire.UUID{}); len(rows) != len(want) {
		t.Errorf("one page: got %d keys, want %d", len(rows), len(want))
	}
}

func testSweeps(t *testing.T, s Store) {
	ctx := t.Context()
	sweep := func(tenant int, revision uint64) store.Sweep {
		return store.Sweep{Tenant: uuid(tenant), Revision: revision}
	}
	want := func(due ...store.Sweep) {
		t.Helper()
		if got, err := s.Sweeps(ctx); !slices.Equal(got, due) || err != nil {
			t.Errorf("Sweeps: got %v, %v, want %v", got, err, due)
		}
	}
	end := func(tenant int, revision uint64) {
		t.Helper()
		if err := s.EndSweep(ctx, sweep(tenant, revision)); err != nil {
			t.Errorf("EndSweep: got %v, want no error", err)
		}
	}
	asks := func(tenant int, expected uint64) wire.Write {
		w := write(app(tenant), expected, expected+1)
		w.Sweep = true
		return w
	}
	apply(t, s, change(write(app(1), 0, 1), asks(3, 0)))
	want(sweep(3, 1))
	apply(t, s, change(asks(2, 0)))
	want(sweep(2, 1), sweep(3, 1))
	apply(t, s, change(asks(3, 1))) // due already
	want(sweep(2, 1), sweep(3, 2))
	apply(t, s, change(write(app(2), 1, 2))) // an ordinary write ends nothing
	want(sweep(2, 1), sweep(3, 2))
	end(3, 1) // somebody has carried out the earlier one
	want(sweep(2, 1), sweep(3, 2))
	end(2, 1)
	want(sweep(3, 2))
	end(2, 1)
	end(7, 1)
	want(sweep(3, 2))
	apply(t, s, change(asks(2, 2))) // due again
	want(sweep(2, 3), sweep(3, 2))
	end(2, 1)
	want(sweep(2, 3), sweep(3, 2))
	end(3, 2)
	end(2, 3)
	want()
	refuse(t, s, change(asks(2, 2)), store.ErrConflict)
	want()
}

func testPrune(t *testing.T, s Store) {
	const past = 1e12 // a store may keep what is yet to end by its own clock
	ctx := t.Context()
	prune := func(before int64, want int) {
		t.Helper()
		if n, err := s.PruneReplays(ctx, before); n != want || err != nil {
			t.Errorf("PruneReplays(%d): got %d, %v, want %d", before, n, err, want)
		}
	}
	for i, until := range []int64{100, 101, 102, past, 0, -5} {
		apply(t, s, store.Change{Replay: replay(i%2, byte(i), until)})
	}
	prune(math.MinInt64, 0)
	prune(101, 3) // the entry that ends at 101 stays
	apply(t, s, store.Change{Replay: replay(0, 0, 100)})
	refuse(t, s, store.Change{Replay: replay(1, 1, 101)}, store.ErrReplayed)
	prune(102, 2)
	apply(t, s, store.Change{Replay: replay(1, 1, 101)})
	refuse(t, s, store.Change{Replay: replay(0, 2, 102)}, store.ErrReplayed)
	refuse(t, s, store.Change{Replay: replay(1, 3, past)}, store.ErrReplayed)
	prune(math.MaxInt64, 3)
	prune(math.MaxInt64, 0)

	// More than one step of any store.
	const many = 2500
	addReplays(t, s, many)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if n, err := s.PruneReplays(ended, math.MaxInt64); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("PruneReplays with ended context: got %d, %v, want 0, %v", n, err, context.Canceled)
	}
	prune(math.MaxInt64, many)
}

// addReplays stores n entries of one tenant, several at a time so that stores
// with group commit are quick.
func addReplays(t *testing.T, s Store, n int) {
	t.Helper()
	const callers = 50
	errs := make(chan error, callers)
	for c := range callers {
		go func() {
			var err error
			for i := c; i < n && err == nil; i += callers {
				err = s.Apply(t.Context(), store.Change{Replay: &wire.Replay{Tenant: uuid(9), Tag: wire.Tag(uuid(i)), Until: int64(i)}})
			}
			errs <- err
		}()
	}
	for range callers {
		if err := <-errs; err != nil {
			t.Fatalf("Apply: got %v, want no error", err)
		}
	}
}
