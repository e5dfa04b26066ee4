package relay

import (
	"encoding/binary"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

func row(id wire.RecordID, revision, value uint64) store.Row {
	sealed := seal(id, revision, value)
	return store.Row{ID: id, Revision: revision, Tag: wire.SealedTag(sealed), Primary: 1, Sealed: sealed}
}

func TestCacheKeepsTheNewest(t *testing.T) {
	c := newRowCache(64)
	c.put(row(keyRecord, 5, 50), c.epoch.Load())
	for name, r := range map[string]store.Row{
		"a slow read of an older row": row(keyRecord, 4, 40),
		"the same again":              row(keyRecord, 5, 50),
		"a missing row":               {ID: keyRecord},
	} {
		c.put(r, c.epoch.Load())
		if f, primary, ok := c.ref(keyRecord); !ok || f.Revision != 5 || primary != 1 || f.Tag != row(keyRecord, 5, 50).Tag {
			t.Errorf("after %s: got %+v, %v", name, f, ok)
		}
	}
	c.put(row(keyRecord, 6, 60), c.epoch.Load())
	if f, _, _ := c.ref(keyRecord); f.Revision != 6 {
		t.Errorf("after a newer row: got revision %d", f.Revision)
	}
	if _, _, ok := c.ref(appRecord); ok {
		t.Error("a record that was never put is found")
	}
}

// A row that is known to be outdated is not kept in favour of one that others may
// have replaced meanwhile.
func TestCacheDropsTheOutdated(t *testing.T) {
	c := newRowCache(64)
	c.put(row(keyRecord, 5, 50), c.epoch.Load())
	began := c.epoch.Load()
	c.forget([]wire.RecordID{appRecord})
	c.put(row(keyRecord, 6, 60), began) // stored here, while others stored something
	if f, _, ok := c.ref(keyRecord); ok {
		t.Errorf("got revision %d, want none", f.Revision)
	}
	c.put(row(keyRecord, 6, 60), c.epoch.Load())
	c.forget([]wire.RecordID{appRecord})
	c.put(row(keyRecord, 5, 50), began)
	if f, _, ok := c.ref(keyRecord); !ok || f.Revision != 6 {
		t.Errorf("after a slow read: got revision %d, %t, want 6", f.Revision, ok)
	}
}

func TestCacheKnowsWhatTheCoreHas(t *testing.T) {
	c := newRowCache(64)
	old := row(keyRecord, 5, 50)
	c.put(old, c.epoch.Load())
	c.opened([]wire.Ref{{ID: keyRecord, Revision: 4, Tag: old.Tag, Sealed: old.Sealed}}) // older
	c.opened([]wire.Ref{{ID: keyRecord, Revision: 5, Sealed: old.Sealed}})               // other tag
	c.opened([]wire.Ref{{ID: keyRecord, Revision: 5, Tag: old.Tag}})                     // sent without bytes
	if f, _, _ := c.ref(keyRecord); f.Sealed == nil {
		t.Error("the bytes are dropped though the core lacks them")
	}
	c.opened([]wire.Ref{{ID: keyRecord, Revision: 5, Tag: old.Tag, Sealed: old.Sealed}})
	if f, _, ok := c.ref(keyRecord); !ok || f.Sealed != nil {
		t.Errorf("got %+v, %v, want no bytes", f, ok)
	}
	if refs := c.refs([]store.Row{old}, false, c.epoch.Load()); refs[0].Sealed != nil {
		t.Error("a row read anew travels though the core has it")
	}
	if refs := c.refs([]store.Row{old}, true, c.epoch.Load()); refs[0].Sealed == nil {
		t.Error("a row does not travel though the core asked for it")
	}
	if refs := c.refs([]store.Row{row(keyRecord, 5, 51)}, false, c.epoch.Load()); refs[0].Sealed == nil {
		t.Error("a row with another tag does not travel")
	}
	if refs := c.refs([]store.Row{row(keyRecord, 6, 60)}, false, c.epoch.Load()); refs[0].Sealed == nil {
		t.Error("a newer row does not travel")
	}
	c.clear()
	if _, _, ok := c.ref(keyRecord); ok {
		t.Error("a row is found after clear")
	}
}

func TestCacheIsBounded(t *testing.T) {
	const size = 320
	c := newRowCache(size)
	c.put(row(appRecord, 1, 0), c.epoch.Load())
	for i := range uint32(20 * size) {
		id := keyRecord
		binary.BigEndian.PutUint32(id.ID[12:], i)
		c.put(row(id, 1, 0), c.epoch.Load())
		if _, _, ok := c.ref(appRecord); !ok {
			t.Fatalf("a row in constant use is dropped after %d others", i)
		}
	}
	if n := c.size(); n > size || n < size/2 {
		t.Errorf("got %d rows, want at most %d", n, size)
	}
}

func TestCacheForgets(t *testing.T) {
	c := newRowCache(64)
	before := c.epoch.Load()
	c.put(row(keyRecord, 5, 50), before)
	c.put(row(appRecord, 5, 50), before)
	c.forget([]wire.RecordID{keyRecord})
	if _, _, ok := c.ref(keyRecord); ok {
		t.Error("a record that others have changed is found")
	}
	if _, _, ok := c.ref(appRecord); !ok {
		t.Error("another record is forgotten as well")
	}
	c.put(row(keyRecord, 5, 50), before)
	if _, _, ok := c.ref(keyRecord); ok {
		t.Error("a read that began before is taken")
	}
	c.put(row(keyRecord, 6, 60), c.epoch.Load())
	if f, _, ok := c.ref(keyRecord); !ok || f.Revision != 6 {
		t.Errorf("a read that began after: got %+v, %t", f, ok)
	}
	before = c.epoch.Load()
	c.clear()
	c.put(row(keyRecord, 6, 60), before)
	if _, _, ok := c.ref(keyRecord); ok {
		t.Error("a read that began before clear is taken")
	}
}
