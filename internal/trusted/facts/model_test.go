package facts

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/wire"
	"pgregory.net/rapid"
)

// A world is a host with cores, two nodes with a dkeycache each, and two
// dkeyservers, of which the second asks the first. The host shows any genuine part
// of any log to any core and restarts what it likes, except both dkeyservers.
type world struct {
	t       *rapid.T
	stores  [2][]byte // honest: one; a host that forks has two
	cores   [4]*member
	caches  [2]*anchored
	servers [2]*anchored

	anchored map[uint64]Fact // facts that a dkeyserver's head has covered, by record
}

type member struct {
	*Log
	told Statement // by its dkeycache
	open []*Draft  // of which it does not know what became
}

type anchored struct {
	*Anchor
	told Statement // by whom it asks
}

func (w *world) start(i int) {
	m := &member{Log: NewLog(&fakeKeys{1, 1}, 1000)}
	m.told = w.caches[i/2].Say(Statement{})
	m.Hear(m.told)
	w.cores[i] = m
}

// beat is a heartbeat of a core with its dkeycache.
func (w *world) beat(i int) {
	c, cache := w.cores[i], w.caches[i/2]
	s, _ := c.Say()
	cache.Hear(s, false)
	c.told = cache.Say(s)
	c.Hear(c.told)
}

// meet is a heartbeat between anchors.
func (w *world) meet(client, server *anchored) {
	s := client.Say(client.told)
	server.Hear(s, slices.Contains(w.servers[:], client))
	client.told = server.Say(s)
	client.Hear(client.told, true)
	w.cover()
}

// cover takes note of what the dkeyservers have.
func (w *world) cover() {
	for _, s := range w.servers {
		h := s.Head()
		for _, entries := range w.stores {
			if int(h.Count)*wire.FactSize > len(entries) || h.Count == 0 {
				continue
			}
			l := NewLog(&fakeKeys{1, 1}, 1000)
			learned, _ := l.Extend(1, entries[:h.Count*wire.FactSize], true)
			if l.Head() != h {
				continue
			}
			for _, f := range learned {
				id := uint64(f.ID.ID[7])
				if f.Revision > w.anchored[id].Revision {
					w.anchored[id] = f
				}
			}
		}
	}
}

// show has the host show a core what is in a store, or the beginning of it.
func (w *world) show(i, store int) {
	c := w.cores[i]
	entries := w.stores[store]
	n := rapid.IntRange(0, len(entries)/wire.FactSize).Draw(w.t, "shown")
	if rapid.Bool().Draw(w.t, "all") {
		n = len(entries) / wire.FactSize
	}
	c.Extend(1, entries[:n*wire.FactSize], true)
}

// narrow is a request that narrows a record. It is in the store before the core
// hears so; the host may tell the core nothing.
func (w *world) narrow(i, store int) {
	c := w.cores[i]
	if c.Ready() != nil {
		return
	}
	record := uint64(rapid.IntRange(1, 3).Draw(w.t, "record"))
	f := fact(record, uint64(rapid.IntRange(2, 40).Draw(w.t, "revision")))
	d, err := c.Draft([]Fact{f})
	if err != nil {
		w.t.Fatal(err)
	}
	all := w.stores[store]
	if n := len(all); int(d.First-1)*wire.FactSize != n || n > 0 && [macSize]byte(all[n-macSize:]) != d.Previous {
		c.Drop(d) // the store has another entry at its place
		return
	}
	w.stores[store] = append(all, d.Entries...)
	c.open = append(c.open, d)
}

// resolve has the host say of a change that it is stored, which is true, in any order.
func (w *world) resolve(i int, forks bool) {
	c := w.cores[i]
	if len(c.open) == 0 {
		return
	}
	n := rapid.IntRange(0, len(c.open)-1).Draw(w.t, "open")
	if _, ok := c.Stand(c.open[n]); !ok && !forks {
		w.t.Fatalf("core %d does not take its own entry %d: %v", i, c.open[n].First, c.Ready())
	}
	c.open = slices.Delete(c.open, n, n+1)
}

// lose has the host say of a change that it is not stored, which is not true.
func (w *world) lose(i int) {
	c := w.cores[i]
	if len(c.open) == 0 {
		return
	}
	n := rapid.IntRange(0, len(c.open)-1).Draw(w.t, "open")
	c.Drop(c.open[n])
	c.open = slices.Delete(c.open, n, n+1)
}

// check is what all of this is for: whatever the host does, a core that has heard of
// the dkeyservers, however indirectly, and serves, accepts nothing that a
// dkeyserver's head has covered.
func (w *world) check() {
	for i := range w.cores {
		w.start(i)
		w.show(i, rapid.IntRange(0, 1).Draw(w.t, "store"))
		c := w.cores[i]
		if c.Ready() != nil {
			continue
		}
		for _, f := range w.anchored {
			if f.Revision > 1 && c.Judge(f.ID, f.Revision-1, wire.Tag{}) != Below {
				w.t.Fatalf("core %d serves at %s and accepts what is below %v", i, c.Head(), f)
			}
		}
	}
}

func newWorld(t *rapid.T) *world {
	w := &world{t: t, anchored: map[uint64]Fact{}}
	for i := range w.servers {
		w.servers[i] = &anchored{Anchor: NewAnchor(Head{})}
		w.caches[i] = &anchored{Anchor: NewAnchor(Head{})}
	}
	for i := range w.cores {
		w.start(i)
	}
	return w
}

func play(forks bool) func(*rapid.T) {
	return func(t *rapid.T) {
		w := newWorld(t)
		store := func() int {
			if !forks {
				return 0
			}
			return rapid.IntRange(0, 1).Draw(t, "store")
		}
		core := func() int { return rapid.IntRange(0, 3).Draw(t, "core") }
		node := func() int { return rapid.IntRange(0, 1).Draw(t, "node") }
		t.Repeat(map[string]func(*rapid.T){
			"show":         func(*rapid.T) { w.show(core(), store()) },
			"narrow":       func(*rapid.T) { w.narrow(core(), store()) },
			"narrow more":  func(*rapid.T) { w.narrow(core(), store()) },
			"resolve":      func(*rapid.T) { w.resolve(core(), forks) },
			"lose":         func(*rapid.T) { w.lose(core()) },
			"beat":         func(*rapid.T) { w.beat(core()) },
			"restart core": func(*rapid.T) { w.start(core()) },
			"restart cache": func(*rapid.T) {
				n := node()
				w.caches[n] = &anchored{Anchor: NewAnchor(Head{})}
				w.meet(w.caches[n], w.servers[node()]) // it has no keys before
			},
			"restart server": func(*rapid.T) {
				n := node()
				w.servers[n] = &anchored{Anchor: NewAnchor(w.servers[n].Head())} // of its file
			},
			"cache asks":       func(*rapid.T) { n := node(); w.meet(w.caches[n], w.servers[n]) },
			"cache fails over": func(*rapid.T) { n := node(); w.meet(w.caches[n], w.servers[1-n]) },
			"worker asks":      func(*rapid.T) { w.meet(w.servers[1], w.servers[0]) },
			"fork": func(*rapid.T) {
				if forks && len(w.stores[1]) < len(w.stores[0]) {
					n := rapid.IntRange(0, len(w.stores[0])/wire.FactSize).Draw(t, "fork at")
					w.stores[1] = bytes.Clone(w.stores[0][:n*wire.FactSize])
				}
			},
		})
		// All programs talk for a while: then what the dkeyservers have reaches all.
		for range 6 {
			for i := range w.cores {
				if !forks {
					w.cores[i].Extend(1, w.stores[0], true)
				}
				w.beat(i)
			}
			w.meet(w.caches[0], w.servers[0])
			w.meet(w.caches[1], w.servers[1])
			w.meet(w.servers[1], w.servers[0])
		}
		if !forks {
			w.complete()
		}
		w.check()
	}
}

// complete is that honest hosts lose nothing: all serve, and all heads meet.
func (w *world) complete() {
	for i, c := range w.cores {
		if err := c.Ready(); err != nil {
			w.t.Fatalf("core %d does not serve: %v", i, err)
		}
	}
	want := w.cores[0].Head()
	for i := range w.servers {
		if w.servers[i].Head() != want || w.caches[i].Head() != want {
			w.t.Fatalf("heads %s and %s, want %s", w.servers[i].Head(), w.caches[i].Head(), want)
		}
		if err := errors.Join(w.servers[i].Fork(), w.caches[i].Fork()); err != nil {
			w.t.Fatal(err)
		}
	}
}

func TestModelHonest(t *testing.T) {
	for range rounds {
		rapid.Check(t, play(false))
	}
}

func TestModelForks(t *testing.T) {
	for range rounds {
		rapid.Check(t, play(true))
	}
}
