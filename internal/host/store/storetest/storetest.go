// Package storetest is the test suite of record stores: what every store must do
// whatever its database. A store's own tests call Run.
package storetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// A Store is what the suite tests.
type Store interface {
	Records
	Upkeep
	Rotations
	Ping(context.Context) error
	Close() error
}

// Records is the part of a store that serves requests.
type Records interface {
	Get(ctx context.Context, ids []wire.RecordID) ([]store.Row, error)
	List(ctx context.Context, q wire.Query, after wire.UUID) ([]store.Row, error)
	Apply(ctx context.Context, c store.Change) error
}

// Upkeep is the part of a store that serves background work.
type Upkeep interface {
	Sweeps(context.Context) ([]store.Sweep, error)
	EndSweep(ctx context.Context, sweep store.Sweep) error
	PruneReplays(ctx context.Context, before int64) (int, error)
	Due(ctx context.Context, now int64, limit int) ([]wire.RecordID, error)
}

// Rotations is the part of a store that has records wrapped under another version
// of the DomainKey.
type Rotations interface {
	Rotation(context.Context) (store.Rotation, error)
	RaiseFloor(ctx context.Context, version uint32) error
	Scan(ctx context.Context, slice int, after wire.RecordID, limit int) ([]store.Row, error)
	Count(ctx context.Context, slice int) (int64, error)
	Rewrap(ctx context.Context, writes []wire.Write) (int, error)
	Report(ctx context.Context, slice int, s store.Slice) error
	ReportLeft(ctx context.Context, slice int, l store.Left) error
	FloorSince(ctx context.Context, version uint32) (int64, error)
}

// A Reopener is a Store that can be opened again. The suite skips the tests of
// durability for a store that is none.
type Reopener interface {
	// Reopen opens the same database again after Close.
	Reopen(t *testing.T) Store
}

// Run tests the stores that open returns. Each must be empty and the only one on
// its database; open registers what has to be cleaned up.
func Run(t *testing.T, open func(t *testing.T) Store) {
	for _, tt := range []struct {
		name string
		test func(*testing.T, Store)
	}{
		{"empty", testEmpty},
		{"fields", testFields},
		{"names", testNames},
		{"update", testUpdate},
		{"conflicts", testConflicts},
		{"invalid", testInvalid},
		{"chain", testChain},
		{"all or nothing", testAllOrNothing},
		{"replays", testReplays},
		{"ownership", testOwnership},
		{"listing", testListing},
		{"listing of apps", testListingApps},
		{"listing refused", testListingRefused},
		{"hidden", testHidden},
		{"large tenant", testLargeTenant},
		{"sweeps", testSweeps},
		{"prune", testPrune},
		{"versions", testVersions},
		{"remove", testRemove},
		{"remove all", testRemoveAll},
		{"remove with others", testRemoveWithOthers},
		{"due", testDue},
		{"compare and swap", testCompareAndSwap},
		{"one replay wins", testOneReplayWins},
		{"refusals spare others", testRefusalsSpareOthers},
		{"one moment", testOneMoment},
		{"ended context", testEndedContext},
		{"context ends", testContextEnds},
		{"closed", testClosed},
		{"close under load", testCloseUnderLoad},
		{"reopen", testReopen},
		{"facts", testFacts},
		{"facts conflict", testFactsConflict},
		{"facts race", testFactsRace},
		{"rotation", testRotation},
		{"left to be replaced", testLeft},
		{"floor", testFloor},
		{"floor and changes", testFloorAndChanges},
		{"scan", testScan},
		{"rewrap", testRewrap},
		{"rewrap refused", testRewrapRefused},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, open(t)) })
	}
}

// uuid returns a UUID that sorts by its number.
func uuid(n int) (u wire.UUID) {
	binary.BigEndian.PutUint64(u[8:], uint64(n))
	return u
}

func key(tenant, n int) wire.RecordID {
	return wire.RecordID{Type: wire.Key, Tenant: uuid(tenant), ID: uuid(n)}
}

func app(tenant int) wire.RecordID {
	return wire.RecordID{Type: wire.App, Tenant: uuid(tenant), ID: uuid(tenant)}
}

func keyVersion(tenant, n int, version uint32) wire.RecordID {
	return wire.RecordID{Type: wire.KeyVersion, Tenant: uuid(tenant), ID: uuid(n), Version: version}
}

func secret(tenant, n int) wire.RecordID {
	return wire.RecordID{Type: wire.Secret, Tenant: uuid(tenant), ID: uuid(n)}
}

func secretVersion(tenant, n int, version uint32) wire.RecordID {
	return wire.RecordID{Type: wire.SecretVersion, Tenant: uuid(tenant), ID: uuid(n), Version: version}
}

// sealed returns bytes that differ for every record and revision, also in the
// last 16 of them.
func sealed(id wire.RecordID, revision uint64) []byte {
	b := append([]byte{1, byte(id.Type), 0}, id.String()...)
	b = append(append(b, id.Tenant[:]...), id.ID[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(id.Version))
	return binary.BigEndian.AppendUint64(b, revision)
}

func write(id wire.RecordID, expected, revision uint64) wire.Write {
	return wire.Write{ID: id, Expected: expected, Revision: revision, Sealed: sealed(id, revision)}
}

func remove(id wire.RecordID) wire.Write { return wire.Write{ID: id, Remove: true} }

func change(w ...wire.Write) store.Change { return store.Change{Writes: w} }

func replay(tenant int, tag byte, until int64) *wire.Replay {
	return &wire.Replay{Tenant: uuid(tenant), Tag: wire.Tag{tag}, Until: until}
}

// row is what write must read as.
func row(w wire.Write) store.Row {
	return store.Row{ID: w.ID, Revision: w.Revision, Tag: w.Tag(), Primary: w.Primary, Hidden: w.Hidden, Sealed: w.Sealed}
}

func apply(t *testing.T, s Store, c store.Change) {
	t.Helper()
	if err := s.Apply(t.Context(), c); err != nil {
		t.Fatalf("Apply: got %v, want no error", err)
	}
}

// refuse applies c and checks the error.
func refuse(t *testing.T, s Store, c store.Change, want error) {
	t.Helper()
	if err := s.Apply(t.Context(), c); !errors.Is(err, want) {
		t.Errorf("Apply: got error %v, want %v", err, want)
	}
}

func get(t *testing.T, s Store, ids ...wire.RecordID) []store.Row {
	t.Helper()
	rows, err := s.Get(t.Context(), ids)
	if err != nil {
		t.Fatalf("Get: got %v, want no error", err)
	}
	if len(rows) != len(ids) {
		t.Fatalf("Get: got %d rows, want %d", len(rows), len(ids))
	}
	return rows
}

// revision returns the revision of a record, 0 if there is none.
func revision(t *testing.T, s Store, id wire.RecordID) uint64 {
	t.Helper()
	return get(t, s, id)[0].Revision
}

func wantRevision(t *testing.T, s Store, id wire.RecordID, want uint64) {
	t.Helper()
	if got := revision(t, s, id); got != want {
		t.Errorf("revision of %s: got %d, want %d", id, got, want)
	}
}

func list(t *testing.T, s Store, q wire.Query, after wire.UUID) []store.Row {
	t.Helper()
	rows, err := s.List(t.Context(), q, after)
	if err != nil {
		t.Fatalf("List: got %v, want no error", err)
	}
	return rows
}

func wantRow(t *testing.T, got, want store.Row) {
	t.Helper()
	if got.ID != want.ID || got.Revision != want.Revision || got.Tag != want.Tag || got.Primary != want.Primary || got.Hidden != want.Hidden {
		g, w := got, want
		g.Sealed, w.Sealed = nil, nil
		t.Errorf("row: got %+v, want %+v", g, w)
	}
	if !bytes.Equal(got.Sealed, want.Sealed) {
		t.Errorf("sealed bytes of %s: got %d other bytes, want %d", want.ID, len(got.Sealed), len(want.Sealed))
	}
}
