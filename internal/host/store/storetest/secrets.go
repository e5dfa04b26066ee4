package storetest

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// testVersions lists the versions of one record by their numbers.
func testVersions(t *testing.T, s Store) {
	var c store.Change
	for _, id := range []wire.RecordID{
		secretVersion(1, 1, 3), secretVersion(1, 1, 1), secretVersion(1, 1, 11), secretVersion(1, 1, 2),
		secretVersion(1, 1, math.MaxUint32), secretVersion(1, 2, 5), secretVersion(2, 1, 6), keyVersion(1, 1, 7),
		secret(1, 1), key(1, 1),
	} {
		c.Writes = append(c.Writes, write(id, 0, 1))
	}
	apply(t, s, c)
	for _, tt := range []struct {
		name       string
		typ        wire.RecordType
		id         int
		after      uint32
		limit      int
		want       []uint32
		afterOther wire.UUID
	}{
		{"all", wire.SecretVersion, 1, 0, 99, []uint32{1, 2, 3, 11, math.MaxUint32}, wire.UUID{}},
		{"limit", wire.SecretVersion, 1, 0, 2, []uint32{1, 2}, wire.UUID{}},
		{"after one", wire.SecretVersion, 1, 2, 2, []uint32{3, 11}, wire.UUID{}},
		{"after none", wire.SecretVersion, 1, 4, 9, []uint32{11, math.MaxUint32}, wire.UUID{}},
		{"after the last", wire.SecretVersion, 1, math.MaxUint32, 9, nil, wire.UUID{}},
		{"another id", wire.SecretVersion, 2, 0, 9, []uint32{5}, wire.UUID{}},
		{"an unknown id", wire.SecretVersion, 3, 0, 9, nil, wire.UUID{}},
		{"of a key", wire.KeyVersion, 1, 0, 9, []uint32{7}, wire.UUID{}},
		{"an id to start from does not matter", wire.SecretVersion, 1, 3, 1, []uint32{11}, uuid(9)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := wire.Query{Type: tt.typ, Tenant: uuid(1), ID: uuid(tt.id), After: tt.after, Limit: tt.limit}
			rows := list(t, s, q, tt.afterOther)
			if len(rows) != len(tt.want) {
				t.Fatalf("List: got %d rows, want %d", len(rows), len(tt.want))
			}
			for i, n := range tt.want {
				id := wire.RecordID{Type: tt.typ, Tenant: uuid(1), ID: uuid(tt.id), Version: n}
				wantRow(t, rows[i], row(write(id, 0, 1)))
			}
		})
	}
	// Secrets are listed as keys are.
	hide := write(secret(1, 3), 0, 1)
	hide.Hidden = true
	apply(t, s, change(write(secret(1, 2), 0, 1), hide, write(secret(1, 4), 0, 1)))
	for _, tt := range []struct {
		limit int
		after int
		want  []int
	}{{9, 0, []int{1, 2, 4}}, {2, 0, []int{1, 2}}, {2, 2, []int{4}}} {
		var got []int
		for _, r := range list(t, s, wire.Query{Type: wire.Secret, Tenant: uuid(1), Limit: tt.limit}, uuid(tt.after)) {
			got = append(got, int(r.ID.ID[15]))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("secrets after %d, at most %d: got %v, want %v", tt.after, tt.limit, got, tt.want)
		}
	}
}

// testRemove removes single records.
func testRemove(t *testing.T, s Store) {
	a, b := secretVersion(1, 1, 1), secretVersion(1, 1, 2)
	apply(t, s, change(write(a, 0, 1), write(b, 0, 5), write(key(1, 1), 0, 7), write(secretVersion(2, 1, 1), 0, 1)))
	apply(t, s, change(remove(a)))
	wantRow(t, get(t, s, a)[0], store.Row{ID: a})
	wantRevision(t, s, b, 5)
	apply(t, s, change(remove(a), remove(secretVersion(9, 9, 9)))) // there is none
	apply(t, s, change(write(a, 0, 3)))                            // it can be made again
	apply(t, s, change(remove(key(1, 1)), remove(b)))
	for id, want := range map[wire.RecordID]uint64{a: 3, b: 0, key(1, 1): 0, secretVersion(2, 1, 1): 1} {
		wantRevision(t, s, id, want)
	}
	if rows := list(t, s, wire.Query{Type: wire.Key, Tenant: uuid(1), Limit: 9}, wire.UUID{}); len(rows) != 0 {
		t.Errorf("a removed key is listed")
	}
	refuse(t, s, change(write(b, 5, 6)), store.ErrConflict)
}

// testRemoveAll removes more versions than a change has writes, and nothing of
// their neighbours.
func testRemoveAll(t *testing.T, s Store) {
	const versions = 1300
	for n := uint32(1); n <= versions; {
		var c store.Change
		for ; len(c.Writes) < wire.MaxWrites && n <= versions; n++ {
			c.Writes = append(c.Writes, write(secretVersion(1, 2, n), 0, 1))
		}
		apply(t, s, c)
	}
	neighbours := []wire.RecordID{
		secretVersion(1, 1, 1), secretVersion(1, 3, 1), secretVersion(2, 2, 1), secret(1, 2), key(1, 2), keyVersion(1, 2, 1),
	}
	for _, id := range neighbours {
		apply(t, s, change(write(id, 0, 1)))
	}
	apply(t, s, change(write(secret(1, 2), 1, 2), remove(secretVersion(1, 2, 0))))
	if rows := list(t, s, wire.Query{Type: wire.SecretVersion, Tenant: uuid(1), ID: uuid(2), Limit: wire.MaxList}, wire.UUID{}); len(rows) != 0 {
		t.Errorf("got %d versions, want none", len(rows))
	}
	wantRevision(t, s, secretVersion(1, 2, versions), 0)
	for _, id := range neighbours {
		if revision(t, s, id) == 0 {
			t.Errorf("%s of tenant %s is gone", id, id.Tenant)
		}
	}
	apply(t, s, change(remove(secretVersion(1, 2, 0)))) // there is none
	apply(t, s, change(write(secretVersion(1, 2, 1), 0, 1)))
	wantRevision(t, s, secretVersion(1, 2, 1), 1)
	apply(t, s, change(remove(wire.RecordID{Type: wire.KeyVersion, Tenant: uuid(1), ID: uuid(2)})))
	wantRevision(t, s, keyVersion(1, 2, 1), 0)
	// The number 0 means all versions of keys and secrets only.
	apply(t, s, change(remove(wire.RecordID{Type: wire.Key, Tenant: uuid(1), ID: uuid(3)})))
	wantRevision(t, s, key(1, 2), 1)
}

// testRemoveWithOthers checks that a removal is part of its change.
func testRemoveWithOthers(t *testing.T, s Store) {
	apply(t, s, change(write(secret(1, 1), 0, 1), write(secretVersion(1, 1, 1), 0, 1)))
	refuse(t, s, change(remove(secretVersion(1, 1, 0)), write(secret(1, 1), 7, 8)), store.ErrConflict)
	wantRevision(t, s, secretVersion(1, 1, 1), 1)
	used := replay(1, 1, 100)
	apply(t, s, store.Change{Replay: used})
	refuse(t, s, store.Change{Writes: []wire.Write{remove(secretVersion(1, 1, 0))}, Replay: used}, store.ErrReplayed)
	wantRevision(t, s, secretVersion(1, 1, 1), 1)
	apply(t, s, change(remove(secretVersion(1, 1, 0)), write(secret(1, 1), 1, 2), write(secretVersion(1, 2, 1), 0, 1)))
	wantRevision(t, s, secretVersion(1, 1, 1), 0)
	wantRevision(t, s, secretVersion(1, 2, 1), 1)
	wantRevision(t, s, secret(1, 1), 2)
}

// testDue offers secrets when they are due, of all tenants, soonest first.
func testDue(t *testing.T, s Store) {
	put := func(tenant, n int, expected uint64, due int64, hidden bool) {
		t.Helper()
		w := write(secret(tenant, n), expected, expected+1)
		w.Due, w.Hidden = due, hidden
		apply(t, s, change(w))
		wantRow(t, get(t, s, w.ID)[0], row(w))
	}
	want := func(now int64, limit int, ids ...wire.RecordID) {
		t.Helper()
		got, err := s.Due(context.Background(), now, limit)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(ids) {
			t.Errorf("Due(%d, %d): got %v, %v, want %v", now, limit, got, err, ids)
		}
	}
	put(1, 1, 0, 0, false)
	put(1, 2, 0, 300, false)
	put(2, 1, 0, 100, false)
	put(1, 3, 0, 200, true)
	put(1, 4, 0, math.MaxInt64, false)
	want(99, 9)
	want(0, 9)
	want(-1, 9)
	want(100, 9, secret(2, 1))
	want(300, 9, secret(2, 1), secret(1, 3), secret(1, 2))
	want(300, 2, secret(2, 1), secret(1, 3))
	want(300, 0)
	want(300, -1)
	want(math.MaxInt64, 9, secret(2, 1), secret(1, 3), secret(1, 2), secret(1, 4))
	put(2, 1, 1, 0, false)   // taken back
	put(1, 2, 1, 150, false) // sooner
	put(1, 1, 1, 250, false) // new
	want(300, 9, secret(1, 2), secret(1, 3), secret(1, 1))
	apply(t, s, change(remove(secret(1, 3))))
	want(300, 9, secret(1, 2), secret(1, 1))
}
