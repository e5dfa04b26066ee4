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
	seen  *seen

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

// newCache returns an empty cache. All caches are made before seen is in use.
func newCache[V any](limit int, seen *seen) *cache[V] {
	c := &cache[V]{limit: limit, seen: seen, entries: make(map[wire.RecordID]*cached[V])}
	seen.caches = append(seen.caches, c)
	return c
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

// newer returns the cached state if it is newer than a revision, or else nil.
func (c *cache[V]) newer(id wire.RecordID, revision uint64) *cached[V] {
	if e := c.get(id); e != nil && e.revision > revision {
		return e
	}
	return nil
}

// put caches a state and takes note of it as seen. It reports false for one that
// is older than, or rivals, a state that is cached or was seen. All of it happens
// under the lock: a state that was superseded while it was being opened must not
// get in behind the newer one.
func (c *cache[V]) put(id wire.RecordID, revision uint64, tag wire.Tag, v V) bool {
	e := &cached[V]{id: id, revision: revision, tag: tag, value: v}
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.entries[id]
	if old != nil && (revision < old.revision || revision == old.revision && tag != old.tag) { // check: put-cached
		return false
	}
	if c.seen.accept(id, revision, tag) != newest { // check: put-seen
		return false
	}
	switch {
	case old != nil:
		e.slot = old.slot
		c.ring[e.slot] = e
	case len(c.ring) < c.limit:
		e.slot = len(c.ring)
		c.ring = append(c.ring, e)
	default:
		e.slot = c.evict()
		c.ring[e.slot] = e
	}
	c.entries[id] = e
	return true
}

// drop forgets a state that is older than a revision, or another one of it.
func (c *cache[V]) drop(id wire.RecordID, revision uint64, tag wire.Tag) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[id]; e != nil && (e.revision < revision || e.revision == revision && e.tag != tag) { // check: drop-refuted
		delete(c.entries, id) // its place in the ring is free when the hand comes by
	}
}

// forget takes a state out, which is read again when it is used.
func (c *cache[V]) forget(id wire.RecordID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[id]; e != nil {
		delete(c.entries, id)
		c.ring[e.slot].used.Store(false)
	}
}

// size is how many states are cached.
func (c *cache[V]) size() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return uint64(len(c.entries))
}

// evict frees a slot of the full ring. The caller must hold c.mu.
func (c *cache[V]) evict() int {
	for c.ring[c.hand].used.Swap(false) {
		c.hand = (c.hand + 1) % len(c.ring)
	}
	slot := c.hand
	if e := c.ring[slot]; c.entries[e.id] == e { // it was not dropped
		delete(c.entries, e.id)
	}
	c.hand = (slot + 1) % len(c.ring)
	return slot
}
