package relay

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// madeUnder is a record that is wrapped under version 3 and was made under another.
func madeUnder(made uint32) []byte {
	b := under(3, 1)
	binary.BigEndian.PutUint32(b[130:], made)
	return b
}

// appMade is an app record with the API key that was made with it, at a date.
func appMade(made uint32, created int64) []byte {
	attributes := make([]byte, 1+1+1+8+8+4+8+16)
	attributes[0], attributes[1] = 1, 2
	binary.BigEndian.PutUint64(attributes[3:], uint64(created))
	b := append(madeUnder(made)[:134], 0, 0, 0, byte(len(attributes)))
	b = append(append(b, attributes...), make([]byte, 48)...)
	b[1] = byte(wire.App)
	return b
}

// exposing has version 2 leaked, and 3 in force. The store's floor has been 3 since
// the date 1000.
func exposing(t *testing.T, rows []store.Row, f func(*turned)) {
	rotating(t, 0, func(g *turned) {
		g.core.version, g.core.leaked = 3, 2
		g.store.at.Floor, g.store.since = 3, 1000
		for _, row := range rows {
			row.Revision = 1
			g.store.rows[row.ID] = row
		}
	}, f)
}

func keyRows(tenant, key byte, hidden bool, made ...uint32) []store.Row {
	id := wire.RecordID{Type: wire.Key, Tenant: wire.UUID{tenant}, ID: wire.UUID{key}}
	rows := []store.Row{{ID: id, Primary: uint32(len(made)), Hidden: hidden, Sealed: madeUnder(1)}}
	for i, m := range made {
		id.Type, id.Version = wire.KeyVersion, uint32(i+1)
		rows = append(rows, store.Row{ID: id, Sealed: madeUnder(m)})
	}
	return rows
}

func valueRows(tenant, secret byte, made ...uint32) (rows []store.Row) {
	for i, m := range made {
		id := wire.RecordID{Type: wire.SecretVersion, Tenant: wire.UUID{tenant}, ID: wire.UUID{secret}, Version: uint32(i + 1)}
		rows = append(rows, store.Row{ID: id, Sealed: madeUnder(m)})
	}
	return rows
}

func appRow(tenant byte, made uint32, created int64) []store.Row {
	u := wire.UUID{tenant}
	return []store.Row{{ID: wire.RecordID{Type: wire.App, Tenant: u, ID: u}, Sealed: appMade(made, created)}}
}

func TestExposed(t *testing.T) {
	for _, tt := range []struct {
		name string
		rows []store.Row
		want store.Left
	}{
		{"nothing", nil, store.Left{}},
		{"a key", keyRows(1, 1, false, 2), store.Left{Keys: 1, Tenants: 1}},
		{"a key of before the leaked version", keyRows(1, 1, false, 1), store.Left{Keys: 1, Tenants: 1}},
		{"a key that was made after", keyRows(1, 1, false, 3), store.Left{}},
		{"a key with a new version", keyRows(1, 1, false, 1, 2, 3), store.Left{}},
		{"a key that is deleted, or of secrets", keyRows(1, 1, true, 1), store.Left{}},
		{"a version without a key", keyRows(1, 1, false, 1)[1:], store.Left{}},
		{"a version of another key", append(keyRows(1, 1, false, 3), keyRows(1, 2, false, 1)[1:]...), store.Left{}},
		{"a key without material", keyRows(1, 1, false), store.Left{}},
		{"a secret", valueRows(1, 9, 1, 2), store.Left{Secrets: 1, Tenants: 1}},
		{"a secret with a new value", valueRows(1, 9, 1, 2, 3), store.Left{}},
		{"two secrets", slices.Concat(valueRows(1, 8, 1), valueRows(1, 9, 3, 2)), store.Left{Secrets: 2, Tenants: 1}},
		{"secrets of two tenants with one id", slices.Concat(valueRows(1, 8, 1), valueRows(2, 8, 3)), store.Left{Secrets: 1, Tenants: 1}},
		{"an API key", appRow(1, 1, 999), store.Left{APIKeys: 1, Tenants: 1}},
		{"an API key whose app has changed since", appRow(1, 3, 1000), store.Left{APIKeys: 1, Tenants: 1}},
		{"an API key that was made after", appRow(1, 3, 1001), store.Left{}},
		{"an API key by a clock that is ahead", appRow(1, 2, 5000), store.Left{APIKeys: 1, Tenants: 1}},
		{"tenants in several slices", slices.Concat(appRow(1, 1, 1), keyRows(1, 2, false, 1), keyRows(0x31, 1, false, 1), valueRows(0xf1, 1, 1)),
			store.Left{Keys: 2, Secrets: 1, APIKeys: 1, Tenants: 3}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			exposing(t, tt.rows, func(g *turned) {
				time.Sleep(10 * time.Second)
				got := g.Stats().Rotation.Left()
				if got.Counted == 0 || got.Compromised != 2 {
					t.Errorf("got %+v, want numbers for version 2", got)
				}
				got.Counted, got.Compromised = 0, 0
				if got != tt.want {
					t.Errorf("got %+v, want %+v", got, tt.want)
				}
				l := tt.want
				g.look(func() {
					p := g.core.heard[len(g.core.heard)-1]
					if p.Compromised != 2 || p.Keys != uint64(l.Keys) || p.Secrets != uint64(l.Secrets) || p.APIKeys != uint64(l.APIKeys) || p.Tenants != uint64(l.Tenants) {
						t.Errorf("core heard %+v, want %+v", p, l)
					}
				})
			})
		})
	}
}

// TestExposedLater replaces what is exposed: it is counted again after an hour, and
// at once where somebody asks for the list.
func TestExposedLater(t *testing.T) {
	exposing(t, slices.Concat(appRow(1, 1, 1), keyRows(1, 2, false, 1), keyRows(0x31, 1, false, 2)), func(g *turned) {
		time.Sleep(time.Minute)
		key := wire.RecordID{Type: wire.KeyVersion, Tenant: wire.UUID{1}, ID: wire.UUID{2}, Version: 1}
		g.look(func() { delete(g.store.rows, key) })
		time.Sleep(30 * time.Minute)
		if n := g.Stats().Rotation.Left().Keys; n != 2 {
			t.Errorf("keys after half an hour: got %d, want the 2 of before", n)
		}
		time.Sleep(31 * time.Minute)
		if n := g.Stats().Rotation.Left().Keys; n != 1 {
			t.Errorf("keys after an hour: got %d, want 1", n)
		}
		var got []Exposed
		list := func(e Exposed) error { got = append(got, e); return nil }
		if err := g.Exposed(context.Background(), list); err != nil {
			t.Fatal(err)
		}
		want := []Exposed{{"API key", wire.UUID{1}, wire.UUID{}, 1}, {"key", wire.UUID{0x31}, wire.UUID{1}, 2}}
		if !slices.Equal(got, want) {
			t.Errorf("list: got %v, want %v", got, want)
		}
		g.look(func() { clear(g.store.rows) })
		got = nil
		if err := g.Exposed(context.Background(), list); err != nil || len(got) != 0 || g.Stats().Rotation.Left().Any() {
			t.Errorf("at the end: got %v, %v, %+v, want nothing", got, err, g.Stats().Rotation.Left())
		}
	})
}

func TestExposedRefused(t *testing.T) {
	exposing(t, keyRows(1, 2, false, 1), func(g *turned) {
		time.Sleep(time.Minute)
		if err := g.Exposed(context.Background(), func(Exposed) error { return errDisk }); !errors.Is(err, errDisk) {
			t.Errorf("who asks has gone: got %v, want %v", err, errDisk)
		}
		g.look(func() { g.core.leaked = 0 })
		if err := g.Exposed(context.Background(), func(Exposed) error { return nil }); !errors.Is(err, ErrNoLeak) {
			t.Errorf("no leak: got %v, want %v", err, ErrNoLeak)
		}
	})
}

// TestRotationOvertaken has another version come while the one before is not done: no
// record counts as refused, and all end under the later one.
func TestRotationOvertaken(t *testing.T) {
	rotating(t, 20000, func(g *turned) { g.core.overtake = 3 }, func(g *turned) {
		time.Sleep(2 * time.Minute)
		at := g.Stats().Rotation
		if g.old(3) != 0 || at.Done() != 3 || at.Refused() != 0 || at.Total() != 20000 {
			t.Errorf("got %d old records, done %d, %d refused of %d", g.old(3), at.Done(), at.Refused(), at.Total())
		}
		g.look(func() {
			if !slices.Contains(g.store.raised, 2) || !slices.Contains(g.store.raised, 3) {
				t.Errorf("floors: got %v, want 2 and 3", g.store.raised)
			}
			for _, p := range g.core.heard {
				if p.Floor > 0 && p.Done < p.Floor && p.Total != 0 && p.Total != 20000 {
					t.Errorf("core heard of %d records in all, want 20000 from the beginning", p.Total)
				}
			}
		})
	})
}
