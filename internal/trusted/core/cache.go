package core

import (
	"sync"
	"sync/atomic"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// cache holds opened records, the newest seen state of each, up to a number of
// entries. Which one goes when it is full is decided by second chance: an entry
// that was used since the hand last passed stays.
type cache[V any] struct {
	limit int

	mu      sync.RWMutex
	entries map[wire.RecordID]*cached[V]
	ring    []*cached[V]
	hand    int
}

type cached[V any] struct {
	id       wire.RecordID
	revision uint64
	tag      wire.Tag
	value    V
	used     atomic.Bool
	slot     int // index in the ring; guarded by the cache's lock
}

func newCache[V any](limit int) *cache[V] {
	return &cache[V]{limit: limit, entries: make(map[wire.RecordID]*cached[V])}
}

// get returns the newest state that is cached, or nil.
func (c *cache[V]) get(id wire.RecordID) *cached[V] {
	c.mu.RLock()
	e := c.entries[id]
	c.mu.RUnlock()
	if e != nil && !e.used.Load() {
		e.used.Store(true)
	}
	return e
}

// put caches a state unless a newer one is there.
func (c *cache[V]) put(id wire.RecordID, revision uint64, tag wire.Tag, v V) {
	e := &cached[V]{id: id, revision: revision, tag: tag, value: v}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.entries[id]; old != nil {
		if old.revision <= revision {
			e.slot = old.slot
			c.ring[e.slot], c.entries[id] = e, e
		}
		return
	}
	e.slot = len(c.ring)
	if e.slot < c.limit {
		c.ring = append(c.ring, e)
	} else {
		e.slot = c.evict()
		c.ring[e.slot] = e
	}
	c.entries[id] = e
}

// evict frees a slot of the full ring. The caller must hold c.mu.
func (c *cache[V]) evict() int {
	for c.ring[c.hand].used.Swap(false) {
		c.hand = (c.hand + 1) % len(c.ring)
	}
	slot := c.hand
	delete(c.entries, c.ring[slot].id)
	c.hand = (slot + 1) % len(c.ring)
	return slot
}
