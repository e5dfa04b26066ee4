package storetest

import (
	"bytes"
	"math"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

func testEmpty(t *testing.T, s Store) {
	wantRow(t, get(t, s, key(1, 1))[0], store.Row{ID: key(1, 1)})
	if rows := get(t, s); len(rows) != 0 {
		t.Errorf("Get of nothing: got %d rows, want 0", len(rows))
	}
	if rows := list(t, s, wire.Query{Type: wire.Key, Tenant: uuid(1), Limit: 10}, wire.UUID{}); len(rows) != 0 {
		t.Errorf("List: got %d rows, want 0", len(rows))
	}
	if due, err := s.Sweeps(t.Context()); len(due) != 0 || err != nil {
		t.Errorf("Sweeps: got %v, %v, want none", due, err)
	}
	if n, err := s.PruneReplays(t.Context(), math.MaxInt64); n != 0 || err != nil {
		t.Errorf("PruneReplays: got %d, %v, want 0", n, err)
	}
	if ids, err := s.Due(t.Context(), math.MaxInt64, 10); len(ids) != 0 || err != nil {
		t.Errorf("Due: got %v, %v, want none", ids, err)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("Ping: got %v, want no error", err)
	}
	if err := s.Apply(t.Context(), store.Change{}); err != nil {
		t.Errorf("Apply of nothing: got %v, want no error", err)
	}
}

// testFields checks the limits of every field.
func testFields(t *testing.T, s Store) {
	zeros := make([]byte, 16)
	for _, tt := range []struct {
		name string
		w    wire.Write
	}{
		{"smallest", wire.Write{ID: key(1, 1), Revision: 1, Sealed: zeros}},
		{"primary", wire.Write{ID: key(1, 2), Revision: 2, Primary: math.MaxUint32, Sealed: sealed(key(1, 2), 2)}},
		{"hidden", wire.Write{ID: key(1, 3), Revision: 3, Hidden: true, Sealed: sealed(key(1, 3), 3)}},
		{"highest revision", wire.Write{ID: key(1, 4), Revision: store.MaxRevision, Sealed: sealed(key(1, 4), 4)}},
		{"highest version", wire.Write{ID: keyVersion(1, 5, math.MaxUint32), Revision: 1, Sealed: sealed(key(1, 5), 5)}},
		{"longest", wire.Write{ID: app(6), Revision: 1, Sealed: bytes.Repeat([]byte{0, 255, 39}, wire.MaxRecord)[:wire.MaxRecord]}},
		{"random id", wire.Write{ID: wire.RecordID{Type: wire.Key, Tenant: wire.NewUUID(), ID: wire.NewUUID()}, Revision: 1, Sealed: zeros}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			apply(t, s, change(tt.w))
			wantRow(t, get(t, s, tt.w.ID)[0], row(tt.w))
		})
	}
}

// testNames checks that every part of the name tells records apart, and the
// order of rows.
func testNames(t *testing.T, s Store) {
	base := keyVersion(1, 2, 3)
	ids := []wire.RecordID{
		base,
		{Type: wire.Key, Tenant: base.Tenant, ID: base.ID, Version: base.Version},
		{Type: base.Type, Tenant: uuid(9), ID: base.ID, Version: base.Version},
		{Type: base.Type, Tenant: base.Tenant, ID: uuid(9), Version: base.Version},
		{Type: base.Type, Tenant: base.Tenant, ID: base.ID, Version: 9},
	}
	for i, id := range ids {
		for _, later := range ids[i:] {
			wantRevision(t, s, later, 0)
		}
		apply(t, s, change(write(id, 0, uint64(i+1))))
	}
	missing := key(8, 8)
	asked := []wire.RecordID{ids[4], missing, ids[0], ids[2], ids[0], ids[3], missing, ids[1]}
	want := []uint64{5, 0, 1, 3, 1, 4, 0, 2}
	for i, got := range get(t, s, asked...) {
		if got.ID != asked[i] || got.Revision != want[i] {
			t.Errorf("row %d: got %s at revision %d, want %s at %d", i, got.ID, got.Revision, asked[i], want[i])
		}
	}
}

func testUpdate(t *testing.T, s Store) {
	a := wire.Write{ID: key(1, 1), Revision: 1, Primary: 1, Sealed: sealed(key(1, 1), 1)}
	b := wire.Write{ID: a.ID, Expected: 1, Revision: 2, Primary: 7, Hidden: true, Sealed: bytes.Repeat([]byte{9}, 5000)}
	c := wire.Write{ID: a.ID, Expected: 2, Revision: 9, Sealed: sealed(a.ID, 9)}
	other := write(key(1, 2), 0, 1)
	apply(t, s, change(other))
	for _, w := range []wire.Write{a, b, c} {
		apply(t, s, change(w))
		wantRow(t, get(t, s, w.ID)[0], row(w))
	}
	wantRow(t, get(t, s, other.ID)[0], row(other))
}

func testConflicts(t *testing.T, s Store) {
	there := write(key(1, 1), 0, 5)
	apply(t, s, change(there))
	for _, tt := range []struct {
		name string
		w    wire.Write
	}{
		{"create what is there", write(there.ID, 0, 6)},
		{"create it at the same revision", write(there.ID, 0, 5)},
		{"update an older revision", write(there.ID, 4, 6)},
		{"update a newer revision", write(there.ID, 6, 7)},
		{"update what is missing", write(key(1, 2), 1, 2)},
		{"update it in another tenant", write(key(2, 1), 5, 6)},
		{"update it as another type", write(keyVersion(1, 1, 0), 5, 6)},
		{"update another version", write(wire.RecordID{Type: wire.Key, Tenant: uuid(1), ID: uuid(1), Version: 1}, 5, 6)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			refuse(t, s, change(tt.w), store.ErrConflict)
			wantRow(t, get(t, s, there.ID)[0], row(there))
			if tt.w.ID != there.ID {
				wantRevision(t, s, tt.w.ID, 0)
			}
		})
	}
}

func testInvalid(t *testing.T, s Store) {
	id := key(1, 1)
	for _, tt := range []struct {
		name string
		w    wire.Write
	}{
		{"no type", write(wire.RecordID{Tenant: uuid(1), ID: uuid(1)}, 0, 1)},
		{"revision zero", write(id, 0, 0)},
		{"revision does not grow", write(id, 3, 3)},
		{"revision over the limit", write(id, 0, store.MaxRevision+1)},
		{"no bytes", wire.Write{ID: id, Revision: 1}},
		{"too many bytes", wire.Write{ID: id, Revision: 1, Sealed: make([]byte, wire.MaxRecord+1)}},
		{"due app", wire.Write{ID: app(1), Revision: 1, Due: 1, Sealed: sealed(app(1), 1)}},
		{"removal with a revision", wire.Write{ID: id, Revision: 1, Remove: true}},
		{"removal of what is written", remove(key(1, 2))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			refuse(t, s, change(write(key(1, 2), 0, 1), tt.w), store.ErrInvalid)
			wantRevision(t, s, key(1, 2), 0)
		})
	}
}

// testChain checks writes of one record within one change.
func testChain(t *testing.T, s Store) {
	id := key(1, 1)
	apply(t, s, change(write(id, 0, 1), write(key(1, 2), 0, 1), write(id, 1, 2), write(id, 2, 4)))
	wantRow(t, get(t, s, id)[0], row(write(id, 2, 4)))
	for _, tt := range []struct {
		name   string
		writes []wire.Write
	}{
		{"both from the stored revision", []wire.Write{write(id, 4, 5), write(id, 4, 6)}},
		{"both create", []wire.Write{write(key(1, 3), 0, 1), write(key(1, 3), 0, 2)}},
		{"second before first", []wire.Write{write(id, 5, 6), write(id, 4, 5)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			refuse(t, s, change(tt.writes...), store.ErrConflict)
			wantRevision(t, s, id, 4)
			wantRevision(t, s, key(1, 3), 0)
		})
	}
}

func testAllOrNothing(t *testing.T, s Store) {
	apply(t, s, change(write(key(1, 1), 0, 1), write(key(1, 2), 0, 1)))
	a := write(app(1), 0, 1)
	a.Sweep = true
	bad := store.Change{
		Writes: []wire.Write{a, write(key(1, 1), 1, 2), write(key(1, 3), 0, 1), write(key(1, 2), 7, 8)},
		Replay: replay(1, 1, 100),
	}
	refuse(t, s, bad, store.ErrConflict)
	wantRevision(t, s, app(1), 0)
	wantRevision(t, s, key(1, 1), 1)
	wantRevision(t, s, key(1, 2), 1)
	wantRevision(t, s, key(1, 3), 0)
	if due, err := s.Sweeps(t.Context()); len(due) != 0 || err != nil {
		t.Errorf("Sweeps: got %v, %v, want none", due, err)
	}
	// The replay entry was not stored either.
	good := bad
	good.Writes = append([]wire.Write{}, bad.Writes...)
	good.Writes[3] = write(key(1, 2), 1, 8)
	apply(t, s, good)
	wantRevision(t, s, key(1, 1), 2)
	wantRevision(t, s, key(1, 2), 8)
	wantRevision(t, s, key(1, 3), 1)
}

func testReplays(t *testing.T, s Store) {
	first := store.Change{Writes: []wire.Write{write(key(1, 1), 0, 1)}, Replay: replay(1, 1, 100)}
	apply(t, s, first)
	apply(t, s, store.Change{Replay: replay(1, 2, 100)})
	for _, tt := range []struct {
		name string
		c    store.Change
	}{
		{"the same change", first},
		{"another change", store.Change{Writes: []wire.Write{write(key(1, 2), 0, 1)}, Replay: replay(1, 1, 100)}},
		{"another end", store.Change{Writes: []wire.Write{write(key(1, 2), 0, 1)}, Replay: replay(1, 1, 900)}},
		{"no writes", store.Change{Replay: replay(1, 1, 100)}},
		{"entry stored without writes", store.Change{Writes: []wire.Write{write(key(1, 2), 0, 1)}, Replay: replay(1, 2, 100)}},
		{"conflict as well", store.Change{Writes: []wire.Write{write(key(1, 2), 5, 6)}, Replay: replay(1, 1, 100)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			refuse(t, s, tt.c, store.ErrReplayed)
			wantRevision(t, s, key(1, 1), 1)
			wantRevision(t, s, key(1, 2), 0)
		})
	}
	// Another tenant's request may have the same tag.
	apply(t, s, store.Change{Writes: []wire.Write{write(key(2, 2), 0, 1)}, Replay: replay(2, 1, 100)})
	// An entry over its time counts until it is pruned.
	apply(t, s, store.Change{Replay: replay(3, 1, -1)})
	refuse(t, s, store.Change{Replay: replay(3, 1, -1)}, store.ErrReplayed)
}

func testOwnership(t *testing.T, s Store) {
	w := write(key(1, 1), 0, 1)
	want := row(w)
	want.Sealed = bytes.Clone(w.Sealed)
	apply(t, s, change(w))
	clear(w.Sealed)
	got := get(t, s, w.ID)[0]
	wantRow(t, got, want)
	clear(got.Sealed)
	wantRow(t, get(t, s, w.ID)[0], want)
	rows := list(t, s, wire.Query{Type: wire.Key, Tenant: uuid(1), Limit: 1}, wire.UUID{})
	clear(rows[0].Sealed)
	wantRow(t, get(t, s, w.ID)[0], want)
}
