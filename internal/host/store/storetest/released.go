package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// CheckReleased looks for the rows that every dump of a released schema holds.
func CheckReleased(t *testing.T, s Store) {
	t.Helper()
	tenant := wire.UUID{0x11, 0x11, 0x11, 0x11, 15: 1}
	key, hidden := wire.UUID{0x22, 15: 1}, wire.UUID{0x22, 15: 2}
	secret, incarnation := wire.UUID{0x44, 15: 1}, wire.UUID{0x55, 15: 1}
	fill := func(c byte) []byte { return bytes.Repeat([]byte{c}, 20) }
	want := []store.Row{
		{ID: wire.RecordID{Type: wire.App, Tenant: tenant, ID: tenant}, Revision: 3, Sealed: fill(0xa1)},
		{ID: wire.RecordID{Type: wire.Key, Tenant: tenant, ID: key}, Revision: 7, Primary: 2, Sealed: fill(0xa2)},
		{ID: wire.RecordID{Type: wire.KeyVersion, Tenant: tenant, ID: key, Version: 1}, Revision: 1, Sealed: fill(0xa3)},
		{ID: wire.RecordID{Type: wire.KeyVersion, Tenant: tenant, ID: key, Version: 2}, Revision: 1, Sealed: fill(0xa4)},
		{ID: wire.RecordID{Type: wire.Key, Tenant: tenant, ID: hidden}, Revision: 2, Primary: 1, Hidden: true, Sealed: fill(0xa5)},
		{ID: wire.RecordID{Type: wire.Secret, Tenant: tenant, ID: secret}, Revision: 4, Sealed: fill(0xa6)},
		{ID: wire.RecordID{Type: wire.SecretVersion, Tenant: tenant, ID: incarnation, Version: 1}, Revision: 1, Sealed: fill(0xa7)},
	}
	var ids []wire.RecordID
	for i := range want {
		want[i].Tag = wire.SealedTag(want[i].Sealed)
		ids = append(ids, want[i].ID)
	}
	got, err := s.Get(t.Context(), ids)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("Get: got %v, %v, want %v", got, err, want)
	}
	got, err = s.List(t.Context(), wire.Query{Type: wire.Key, Tenant: tenant, Limit: 9}, wire.UUID{})
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want[1:2]) {
		t.Errorf("List: got %v, %v, want %v", got, err, want[1:2])
	}
	if due, err := s.Due(t.Context(), 1700000000000, 9); err != nil || !slices.Equal(due, ids[5:6]) {
		t.Errorf("Due: got %v, %v, want %v", due, err, ids[5:6])
	}
	replay := &wire.Replay{Tenant: tenant, Tag: wire.Tag{0x33, 15: 1}, Until: 1700000000000}
	if err := s.Apply(t.Context(), store.Change{Replay: replay}); !errors.Is(err, store.ErrReplayed) {
		t.Errorf("Apply: got %v, want %v", err, store.ErrReplayed)
	}
	if due, err := s.Sweeps(t.Context()); len(due) != 1 || due[0].Tenant != tenant || err != nil {
		t.Errorf("Sweeps: got %v, %v, want %v", due, err, tenant)
	}
	if n, err := s.PruneReplays(t.Context(), 1700000000001); n != 1 || err != nil {
		t.Errorf("PruneReplays: got %d, %v, want 1", n, err)
	}
}
