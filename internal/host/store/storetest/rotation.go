package storetest

import (
	"encoding/binary"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// under returns the bytes of a record that is wrapped under a version of the
// DomainKey, as the host sees it. Layout: docs/formats.md#sealed-record-v2.
func under(version uint32, id wire.RecordID, revision uint64) []byte {
	b := make([]byte, 200)
	b[0] = 2
	binary.BigEndian.PutUint32(b[78:], version)
	copy(b[114:], id.ID[:])
	b[114] = byte(revision) // the tag names the state, whatever wraps it
	copy(b[160:], sealed(id, revision))
	return b
}

func writeUnder(version uint32, id wire.RecordID, expected, revision uint64) wire.Write {
	w := write(id, expected, revision)
	w.Sealed = under(version, id, revision)
	return w
}

func rewrapped(version uint32, id wire.RecordID, revision uint64) wire.Write {
	return wire.Write{ID: id, Expected: revision, Revision: revision, Rewrapped: true, Sealed: under(version, id, revision)}
}

func rotation(t *testing.T, s Store) store.Rotation {
	t.Helper()
	r, err := s.Rotation(t.Context())
	if err != nil {
		t.Fatalf("Rotation: got %v, want no error", err)
	}
	return r
}

func raise(t *testing.T, s Store, version uint32) {
	t.Helper()
	if err := s.RaiseFloor(t.Context(), version); err != nil {
		t.Fatalf("RaiseFloor: got %v, want no error", err)
	}
}

func testRotation(t *testing.T, s Store) {
	if r := rotation(t, s); r != (store.Rotation{}) || r.Done() != 0 {
		t.Errorf("Rotation of an empty store: got %+v", r)
	}
	for n := range store.Slices {
		if err := s.Report(t.Context(), n, store.Slice{Done: 2, Version: 2, Total: 10, Looked: 9, Refused: int64(n)}); err != nil {
			t.Fatalf("Report: got %v, want no error", err)
		}
		if got, want := rotation(t, s).Slices[n], (store.Slice{Done: 2, Version: 2, Total: 10, Looked: 9, Refused: int64(n)}); got != want {
			t.Errorf("slice %d: got %+v, want %+v", n, got, want)
		}
		if r := rotation(t, s); (r.Done() == 2) != (n == store.Slices-1) {
			t.Errorf("Done after %d slices: got %d", n+1, r.Done())
		}
	}
	if err := s.Report(t.Context(), 3, store.Slice{Done: 1, Version: 3}); err != nil {
		t.Fatalf("Report: got %v, want no error", err)
	}
	if got, want := rotation(t, s).Slices[3], (store.Slice{Done: 2, Version: 3}); got != want {
		t.Errorf("slice at its next work: got %+v, want %+v", got, want)
	}
}

func testLeft(t *testing.T, s Store) {
	want := store.Left{Compromised: 3, Counted: 1 << 41, Keys: 5, Secrets: 6, APIKeys: 7, Tenants: 8}
	for n := range store.Slices {
		if left := rotation(t, s).Left(); left != (store.Left{}) || left.Any() {
			t.Errorf("left after %d slices: got %+v, want none", n, left)
		}
		if err := s.ReportLeft(t.Context(), n, want); err != nil {
			t.Fatalf("ReportLeft: got %v, want no error", err)
		}
	}
	if err := s.Report(t.Context(), 3, store.Slice{Version: 4, Total: 2}); err != nil {
		t.Fatalf("Report: got %v, want no error", err)
	}
	r := rotation(t, s)
	if got, want := r.Slices[3], (store.Slice{Version: 4, Total: 2, Left: want}); got != want {
		t.Errorf("slice: got %+v, want %+v", got, want)
	}
	if got, want := r.Left(), (store.Left{Compromised: 3, Counted: 1 << 41, Keys: 80, Secrets: 96, APIKeys: 112, Tenants: 128}); got != want || !got.Any() {
		t.Errorf("left: got %+v, want %+v", got, want)
	}
	since := func(version uint32) int64 {
		t.Helper()
		ms, err := s.FloorSince(t.Context(), version)
		if err != nil {
			t.Fatalf("FloorSince: got %v, want no error", err)
		}
		return ms
	}
	if got := since(1); got != 0 {
		t.Errorf("date of a floor that was never raised: got %d", got)
	}
	raise(t, s, 2)
	second := since(1)
	raise(t, s, 4)
	raise(t, s, 2) // a lower one does nothing
	if now := time.Now().UnixMilli(); second < now-600_000 || second > now+600_000 {
		t.Errorf("date of the floor: got %d, now is %d", second, now)
	}
	if got := since(1); got != second {
		t.Errorf("date of version 1 after another floor: got %d, want %d", got, second)
	}
	if two, three := since(2), since(3); two < second || three != two {
		t.Errorf("dates of versions 2 and 3: got %d and %d, want one, not before %d", two, three, second)
	}
	if got := since(4); got != 0 {
		t.Errorf("date of the current version: got %d", got)
	}
}

func testFloor(t *testing.T, s Store) {
	id := key(1, 1)
	apply(t, s, change(writeUnder(1, id, 0, 1)))
	raise(t, s, 2)
	raise(t, s, 1) // a lower one does nothing
	if got := rotation(t, s).Floor; got != 2 {
		t.Errorf("floor: got %d, want 2", got)
	}
	refuse(t, s, change(writeUnder(1, id, 1, 2)), store.ErrFloor)
	refuse(t, s, change(writeUnder(1, key(1, 2), 0, 1)), store.ErrFloor)
	refuse(t, s, change(writeUnder(2, key(1, 2), 0, 1), writeUnder(1, id, 1, 2)), store.ErrFloor)
	refuse(t, s, change(write(key(1, 3), 0, 1)), store.ErrFloor) // under no version at all
	c := change(writeUnder(1, id, 1, 2))
	c.Replay = replay(1, 7, 1<<40)
	refuse(t, s, c, store.ErrFloor)
	wantRevision(t, s, id, 1)
	wantRevision(t, s, key(1, 2), 0)
	c.Writes[0] = writeUnder(3, id, 1, 2) // the replay entry was not kept
	apply(t, s, c)
	apply(t, s, change(remove(id)))
	if r, ok := s.(Reopener); ok {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		again := r.Reopen(t)
		refuse(t, again, change(writeUnder(1, key(1, 9), 0, 1)), store.ErrFloor)
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// testFloorAndChanges raises the floor among changes: when that has returned, no
// more records under the old version appear.
func testFloorAndChanges(t *testing.T, s Store) {
	var wg sync.WaitGroup
	raised := make(chan struct{})
	const writers, each = 8, 40
	for n := range writers {
		wg.Go(func() {
			for i := range each {
				if n == 0 && i == each/2 {
					raise(t, s, 2)
					close(raised)
				}
				err := s.Apply(t.Context(), change(writeUnder(1, key(n+1, i+1), 0, 1)))
				if err != nil && !errors.Is(err, store.ErrFloor) {
					t.Errorf("Apply: got %v", err)
				}
			}
		})
	}
	<-raised
	count := func() (n int64) {
		all, err := s.Count(t.Context(), 0)
		if err != nil {
			t.Errorf("Count: got %v, want no error", err)
		}
		return all
	}
	before := count()
	wg.Wait()
	if after := count(); after != before || before == 0 || before == writers*each {
		t.Errorf("records under the old version: got %d when the floor was raised, %d later, of %d", before, after, writers*each)
	}
}

func testScan(t *testing.T, s Store) {
	far := wire.RecordID{Type: wire.Key, Tenant: wire.UUID{0xf0}, ID: wire.UUID{1}}
	hidden := writeUnder(1, key(1, 2), 0, 1)
	hidden.Hidden, hidden.Primary = true, 2
	writes := []wire.Write{writeUnder(1, app(1), 0, 1), hidden, writeUnder(1, keyVersion(1, 2, 1), 0, 1), writeUnder(1, keyVersion(1, 2, 2), 0, 1), writeUnder(1, key(2, 1), 0, 1)}
	apply(t, s, change(append(writes, writeUnder(1, far, 0, 1))...))
	for _, limit := range []int{1, 2, 5, 100} {
		var got []store.Row
		for after := (wire.RecordID{}); ; after = got[len(got)-1].ID {
			page, err := s.Scan(t.Context(), 0, after, limit)
			if err != nil {
				t.Fatalf("Scan: got %v, want no error", err)
			}
			if got = append(got, page...); len(page) < limit {
				break
			}
		}
		if len(got) != len(writes) {
			t.Fatalf("Scan in pages of %d: got %d records, want %d", limit, len(got), len(writes))
		}
		for i, w := range writes {
			wantRow(t, got[i], row(w))
		}
	}
	for slice, want := range map[int]int64{0: 5, 1: 0, 15: 1} {
		if n, err := s.Count(t.Context(), slice); err != nil || n != want {
			t.Errorf("Count of slice %d: got %d, %v, want %d", slice, n, err, want)
		}
	}
	if page, err := s.Scan(t.Context(), 15, wire.RecordID{}, 5); err != nil || len(page) != 1 || page[0].ID != far {
		t.Errorf("Scan of slice 15: got %v, %v, want %s", page, err, far)
	}
}

func testRewrap(t *testing.T, s Store) {
	same, changed, gone := key(1, 1), key(1, 2), key(1, 3)
	w := writeUnder(1, same, 0, 1)
	w.Primary = 4
	apply(t, s, change(w, writeUnder(1, changed, 0, 1), writeUnder(1, gone, 0, 1)))
	raise(t, s, 2)
	apply(t, s, change(writeUnder(2, changed, 1, 2), remove(gone)))
	for range 2 { // the second time changes nothing
		n, err := s.Rewrap(t.Context(), []wire.Write{rewrapped(2, same, 1), rewrapped(2, changed, 1), rewrapped(2, gone, 1)})
		if err != nil || n != 1 {
			t.Fatalf("Rewrap: got %d, %v, want 1", n, err)
		}
	}
	w.Sealed = under(2, same, 1)
	rows := get(t, s, same, changed, gone)
	wantRow(t, rows[0], row(w))
	wantRow(t, rows[1], row(writeUnder(2, changed, 1, 2)))
	if rows[0].Tag != wire.SealedTag(under(1, same, 1)) {
		t.Error("tag of a record that is wrapped anew: got another one")
	}
	if rows[2].Revision != 0 {
		t.Errorf("removed record: got revision %d, want none", rows[2].Revision)
	}
	apply(t, s, change(writeUnder(2, same, 1, 2)))
}

func testRewrapRefused(t *testing.T, s Store) {
	id := key(1, 1)
	apply(t, s, change(writeUnder(1, id, 0, 1)))
	good := rewrapped(2, id, 1)
	for _, tt := range []struct {
		name string
		edit func(*wire.Write)
	}{
		{"not wrapped anew", func(w *wire.Write) { w.Rewrapped = false }},
		{"new record", func(w *wire.Write) { w.Expected, w.Revision = 0, 0 }},
		{"other revision", func(w *wire.Write) { w.Revision = 2 }},
		{"hides", func(w *wire.Write) { w.Hidden = true }},
		{"primary", func(w *wire.Write) { w.Primary = 1 }},
		{"sweep", func(w *wire.Write) { w.Sweep = true }},
		{"due", func(w *wire.Write) { w.Due = 1 }},
		{"removes", func(w *wire.Write) { w.Remove = true }},
		{"unknown type", func(w *wire.Write) { w.ID.Type = 99 }},
		{"no bytes", func(w *wire.Write) { w.Sealed = nil }},
		{"too long", func(w *wire.Write) { w.Sealed = make([]byte, wire.MaxRecord+1) }},
	} {
		w := good
		tt.edit(&w)
		if n, err := s.Rewrap(t.Context(), []wire.Write{w}); !errors.Is(err, store.ErrInvalid) || n != 0 {
			t.Errorf("%s: got %d, %v, want %v", tt.name, n, err, store.ErrInvalid)
		}
	}
	if _, err := s.Rewrap(t.Context(), make([]wire.Write, wire.RewrapStep+1)); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("too many: got %v, want %v", err, store.ErrInvalid)
	}
	refuse(t, s, change(good), store.ErrInvalid) // it is no change
	raise(t, s, 3)
	if n, err := s.Rewrap(t.Context(), []wire.Write{good}); !errors.Is(err, store.ErrFloor) || n != 0 {
		t.Errorf("below the floor: got %d, %v, want %v", n, err, store.ErrFloor)
	}
	if got := get(t, s, id)[0]; string(got.Sealed) != string(under(1, id, 1)) {
		t.Error("refused record was stored")
	}
}
