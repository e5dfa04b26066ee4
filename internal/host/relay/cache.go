package relay

import (
	"sync"
	"sync/atomic"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

const shards = 16 // locks of the row cache; a power of two

// A rowCache remembers rows of the store, so that a request on known records
// does not touch the database, and whether the core holds each of them opened,
// so that their bytes need not travel either. It never remembers that a record
// is missing: somebody else may create it.
//
// It is safe for concurrent use.
type rowCache struct {
	shards [shards]cacheShard
	// epoch counts the times that others were found to have changed records. A
	// read that began in an earlier epoch may be older than what was found.
	epoch atomic.Uint64
}

// A cacheShard keeps its rows in two generations. When the young one is full it
// becomes the old one and what was old is dropped, except for what was used
// meanwhile: about what an LRU list does, without the list.
type cacheShard struct {
	mu         sync.Mutex
	limit      int // rows of one generation
	young, old map[wire.RecordID]cached
}

// cached is a row of which the bytes are dropped once the core has them.
type cached struct {
	store.Row
	has bool // the core has opened this revision
}

// newRowCache returns a cache of at most size rows, but at least two a shard.
func newRowCache(size int) *rowCache {
	c := &rowCache{}
	for i := range c.shards {
		c.shards[i].limit = max(1, size/shards/2)
		c.shards[i].young = map[wire.RecordID]cached{}
	}
	return c
}

func (c *rowCache) shard(id wire.RecordID) *cacheShard { return &c.shards[id.ID[15]%shards] }

// ref returns the newest known state of a record, with its bytes if the core
// may lack them. A false result is no statement about the store.
func (c *rowCache) ref(id wire.RecordID) (f wire.Ref, primary uint32, ok bool) {
	s := c.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	row, ok := s.get(id)
	return wire.Ref{ID: id, Revision: row.Revision, Tag: row.Tag, Sealed: row.Sealed}, row.Primary, ok
}

// put takes a row that was read or written since an epoch, unless it has that
// revision or a later one: a slow read must not overwrite a newer write. One that
// others may have replaced it does not take, nor keep the older one. The
// cache keeps row.Sealed, which must not change. It reports whether the core is
// known to hold exactly this state.
func (c *rowCache) put(row store.Row, since uint64) (has bool) {
	if row.Revision == 0 {
		return false
	}
	s := c.shard(row.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.get(row.ID)
	if ok && known.Revision >= row.Revision {
		return known.has && known.Revision == row.Revision && known.Tag == row.Tag
	}
	delete(s.young, row.ID)
	delete(s.old, row.ID)
	if c.epoch.Load() == since {
		s.set(row.ID, cached{Row: row})
	}
	return false
}

// refs puts rows that were read since an epoch and names them, with their bytes
// if all is set or the core may lack them.
func (c *rowCache) refs(rows []store.Row, all bool, since uint64) []wire.Ref {
	refs := sealedRefs(rows)
	for i := range rows {
		if has := c.put(rows[i], since); has && !all {
			refs[i].Sealed = nil
		}
	}
	return refs
}

// opened notes that the core has opened the states in refs, and drops their
// bytes: should the core lack them again, it asks and they are read anew.
func (c *rowCache) opened(refs []wire.Ref) {
	for i := range refs {
		if f := &refs[i]; f.Sealed != nil {
			s := c.shard(f.ID)
			s.mu.Lock()
			if row, ok := s.get(f.ID); ok && row.Revision == f.Revision && row.Tag == f.Tag {
				row.has, row.Sealed = true, nil
				s.set(f.ID, row)
			}
			s.mu.Unlock()
		}
	}
}

// forget drops records that others have changed. What was read before it and
// comes later is not taken.
func (c *rowCache) forget(ids []wire.RecordID) {
	c.epoch.Add(1)
	for _, id := range ids {
		s := c.shard(id)
		s.mu.Lock()
		delete(s.young, id)
		delete(s.old, id)
		s.mu.Unlock()
	}
}

// clear forgets everything.
func (c *rowCache) clear() {
	c.epoch.Add(1)
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.young, s.old = map[wire.RecordID]cached{}, nil
		s.mu.Unlock()
	}
}

// size is how many rows are remembered.
func (c *rowCache) size() (n int) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		n += len(s.young) + len(s.old)
		s.mu.Unlock()
	}
	return n
}

// get finds a row and keeps it young. The caller must hold s.mu.
func (s *cacheShard) get(id wire.RecordID) (cached, bool) {
	if row, ok := s.young[id]; ok {
		return row, true
	}
	row, ok := s.old[id]
	if ok {
		delete(s.old, id)
		s.set(id, row)
	}
	return row, ok
}

// set puts a row among the young ones. The caller must hold s.mu.
func (s *cacheShard) set(id wire.RecordID, row cached) {
	if _, ok := s.young[id]; !ok && len(s.young) >= s.limit {
		s.young, s.old = make(map[wire.RecordID]cached, s.limit), s.young
	}
	s.young[id] = row
}
