package provision

import (
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

// TestNeeded has what decides which versions nodes hold.
func TestNeeded(t *testing.T) {
	now, lease := start, time.Hour
	core := func(newest, done uint32, refused uint64) member {
		return member{Member: overview.Member{Role: string(channel.Core), State: overview.Connected, DomainKey: newest, Rewrap: overview.Rewrap{Done: done, Refused: refused}}}
	}
	away := func(m member, since time.Duration) member {
		m.State, m.seen = overview.Left, now.Add(-since)
		return m
	}
	cache := func(newest uint32) member {
		return member{Member: overview.Member{Role: string(channel.DKeyCache), State: overview.Connected, DomainKey: newest}}
	}
	for _, row := range []struct {
		name string
		all  []member
		want uint32
	}{
		{"nobody", nil, 0},
		{"nobody with records", []member{cache(3)}, 0},
		{"records need no older one", []member{core(3, 3, 0), cache(3)}, 3},
		{"records of one node do", []member{core(3, 3, 0), core(3, 2, 0)}, 2},
		{"a core that does not say", []member{core(3, 3, 0), core(3, 0, 0)}, 0},
		{"records that were refused", []member{core(3, 3, 1), cache(3)}, 0},
		{"a core that has not got it", []member{core(3, 3, 0), core(1, 3, 0)}, 1},
		{"a dkeycache that has not got it", []member{core(3, 3, 0), cache(2)}, 2},
		{"it is cut off, on its lease", []member{core(3, 3, 0), away(cache(2), 59*time.Minute)}, 2},
		{"its lease has ended", []member{core(3, 3, 0), away(cache(2), 61*time.Minute)}, 3},
		{"one without any", []member{core(3, 3, 0), cache(0)}, 3},
	} {
		a := NewMembers(&Self{})
		for i := range row.all {
			a.known[overview.ID{byte(i + 1)}] = &row.all[i]
		}
		if got := a.needed(now, lease); got != row.want {
			t.Errorf("%s: got %d, want %d", row.name, got, row.want)
		}
	}
}

// TestHeed has a client drop what nobody has needed for 25 hours, and fetch it when
// somebody does again.
func TestHeed(t *testing.T) {
	a := newRealm(t)
	p := newProgram(t, 0, channel.DKeyCache, a.knowing(t), a.rooted(t))
	p.rotate(t)
	p.rotate(t)
	p.holder.Use(func(k *domainkey.Keyring) error { return k.Advance(3) })
	c := p.client(t)
	s := &manifest.Settings{DomainKey: manifest.DomainKey{Version: 3}}
	for _, row := range []struct {
		name    string
		told    uint32
		at      time.Duration
		held    []uint32
		lacking bool
	}{
		{"nothing known", 0, 0, []uint32{1, 2, 3}, false},
		{"the last", 3, time.Hour, []uint32{1, 2, 3}, false},
		{"24 hours later", 3, 25 * time.Hour, []uint32{1, 2, 3}, false},
		{"an older one again", 2, 26 * time.Hour, []uint32{1, 2, 3}, false},
		{"the last", 3, 27 * time.Hour, []uint32{1, 2, 3}, false},
		{"25 hours later", 3, 52 * time.Hour, []uint32{3}, false},
		{"nothing known any more", 0, 53 * time.Hour, []uint32{3}, false},
		{"a backup was put back", 2, 54 * time.Hour, []uint32{3}, true},
	} {
		c.heed(overview.Member{Rewrap: overview.Rewrap{Done: row.told}}, s, start.Add(row.at))
		p.holds(t, 3, row.held...)
		if c.retirement.lacking != row.lacking {
			t.Errorf("%s: lacking %v", row.name, c.retirement.lacking)
		}
		if told := c.Self.rewrap.Load(); told.Done != row.told {
			t.Errorf("%s: its cores hear of %d", row.name, told.Done)
		}
	}
	s.DomainKey.Forgotten = []uint32{2}
	c.heed(overview.Member{Rewrap: overview.Rewrap{Done: 2}}, s, start.Add(55*time.Hour))
	if c.retirement.lacking {
		t.Error("wants what is forgotten")
	}
}

// TestNeededAgain has a dkeycache and its core get a version back.
func TestNeededAgain(t *testing.T) {
	a := newRealm(t)
	root := newProgram(t, 0, channel.DKeyServer, a.knowing(t), a.rooted(t))
	root.rotate(t)
	cache := newProgram(t, 1, channel.DKeyCache, a.knowing(t), NewHolder(heap))
	cache.join(t, root.serve(t))
	core := newProgram(t, 1, channel.Core, a.knowing(t), NewHolder(heap))
	core.self.Rewrapped(overview.Rewrap{Done: 1})
	core.join(t, cache.serve(t))
	for _, p := range []*program{cache, core} {
		p.holds(t, 2, 1, 2)
		p.holder.Use(func(k *domainkey.Keyring) error {
			k.Retire(2)
			return nil
		})
	}
	cache.holds(t, 2, 1, 2)
	core.holds(t, 2, 1, 2)
}

func TestRetireKeeps(t *testing.T) {
	a := newRealm(t)
	p := newProgram(t, 0, channel.Core, a.knowing(t), a.rooted(t))
	p.rotate(t)
	p.holder.Use(func(k *domainkey.Keyring) error {
		if k.Retire(2) || !k.Holds(1) {
			t.Error("drops the version that records are wrapped under")
		}
		if err := k.Advance(2); err != nil || !k.Retire(9) || k.Holds(1) || !k.Holds(2) || k.Lacks(2, &a.last.Settings) || !k.Lacks(1, &a.last.Settings) {
			t.Errorf("after it is not: %v, holds 1 %v, 2 %v", err, k.Holds(1), k.Holds(2))
		}
		next, err := k.Next(secret.NewHeap())
		if err != nil || next.Holds(1) || !next.Extends(k) {
			t.Errorf("the next version: %v", err)
		}
		return nil
	})
}
