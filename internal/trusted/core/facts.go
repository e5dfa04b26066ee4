package core

import (
	"context"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/trusted/facts"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// Log is what the core was shown of the log of negative facts. It serves requests
// when that is complete as far as programs of the domain have told.
func (c *Core) Log() *facts.Log { return c.facts }

// Facts implements wire.Witness.
func (c *Core) Facts(_ context.Context, f *wire.Facts) (wire.FactsState, error) {
	if len(f.Entries) > wire.MaxFacts*wire.FactSize {
		return wire.FactsState{}, fmt.Errorf("facts of %d bytes: %w", len(f.Entries), ErrLimit)
	}
	learned, err := c.facts.Extend(f.First, f.Entries, f.End)
	c.learn(learned)
	if err == nil {
		err = c.facts.Ready()
	}
	s := wire.FactsState{
		Count: c.facts.Head().Count, Known: c.facts.Target(), Records: uint64(c.facts.Size()), Limit: uint64(c.facts.Limit()),
		Waiting: c.facts.Waiting(),
	}
	if err != nil {
		s.Trouble = err.Error()
	}
	return s, nil
}

// learn drops opened states that facts speak against. The table has the facts by
// now, so that none of them comes back.
func (c *Core) learn(learned []facts.Fact) {
	for _, f := range learned {
		for _, cache := range c.seen.caches {
			cache.drop(f.ID, f.Revision, f.Tag)
		}
		if f.ID.Type == wire.Key {
			c.dropVersions(f.ID)
		}
	}
}

// dropVersions forgets the opened versions of a key. It may have been destroyed: no
// core shall go on holding its material. Other versions are opened again when they
// are used.
func (c *Core) dropVersions(key wire.RecordID) {
	if c.versions.size() == 0 {
		return
	}
	for n := range uint32(record.MaxVersions) {
		c.versions.forget(wire.RecordID{Type: wire.KeyVersion, Tenant: key.Tenant, ID: key.ID, Version: n + 1})
	}
}

// narrowing notes that the last of the writes narrows what its record allows: it
// disables, deletes, revokes. No core accepts an older state of the record once the
// fact is known. err is that of making the write.
func (x *request) narrowing(err error) error {
	if err == nil {
		w := &x.writes[len(x.writes)-1]
		x.narrowed = append(x.narrowed, facts.Fact{ID: w.ID, Revision: w.Revision, Tag: w.Tag()})
	}
	return err
}

// draft makes the entries of what the request narrows, for the store to take
// together with its writes.
func (x *request) draft() error {
	if len(x.narrowed) == 0 {
		return nil
	}
	var err error
	if x.facts, err = x.core.facts.Draft(x.narrowed); err != nil {
		return errInternal("no room for a negative fact")
	}
	return nil
}

// stand takes the entries that the store is said to have taken. It reports false if
// the log has others at their place: then it has not.
func (x *request) stand() bool {
	if x.facts == nil {
		return true
	}
	learned, ok := x.core.facts.Stand(x.facts)
	x.core.learn(learned)
	return ok
}

// unfounded says that the entries of the request are not stored, as far as the host
// says.
func (x *request) unfounded() {
	if x.facts != nil {
		x.core.facts.Drop(x.facts)
	}
}

// maxAgain is how often a call is repeated for records that facts speak against.
// They may have been read just before the change that the fact is about.
const maxAgain = 3

// refuted says whether the call is to be repeated for a record that facts speak
// against, nil if it is not.
func (x *request) refuted(id wire.RecordID) error {
	if x.core.facts.Known(id) && x.call.Again < maxAgain {
		return x.need(id)
	}
	return nil
}
