// Package store is the vocabulary of the manager's record store: what every
// implementation takes, returns and refuses. The store is outside the trust
// boundary. It keeps sealed records by their name and revision and cannot open
// them; nothing here is secret.
//
// Implementations: packages sqlite and postgres. Their common tests: package storetest. The
// interfaces are declared by the packages that use a store.
package store

import (
	"errors"
	"fmt"
	"math"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// Errors a caller branches on. After each of them nothing of the change is
// stored.
var (
	// ErrConflict says that the store did not hold the revision a write
	// expected.
	ErrConflict = errors.New("another revision is stored")
	// ErrReplayed says that the store already had the replay entry. It wins
	// over ErrConflict: a request sent twice usually meets both.
	ErrReplayed = errors.New("replay entry is already stored")
	// ErrClosed says that the store was closed before it took the call.
	ErrClosed = errors.New("store is closed")
	// ErrUnstored says that the database or the network has failed, and that for
	// certain nothing is stored. A store need not be able to tell.
	ErrUnstored = errors.New("nothing was stored")
	// ErrInvalid says that a change or a query breaks the rules of this
	// package, such as a revision that does not grow. It is a bug of the
	// caller.
	ErrInvalid = errors.New("invalid")
)

// A Row is one stored record.
type Row struct {
	ID       wire.RecordID
	Revision uint64   // 0: the store has no such record, the rest is empty
	Tag      wire.Tag // the last 16 bytes of Sealed
	Primary  uint32   // of a key: the version to send along with it
	Hidden   bool     // left out of listings
	Sealed   []byte   // owned by the receiver
}

// A Change is stored as a whole or not at all.
type Change struct {
	Writes []wire.Write // in order; a later one may build on an earlier one
	Replay *wire.Replay // nil if there is no entry to store
	// Facts are entries of the log of negative facts, nil if there are none. They are
	// stored behind the last one, which must be the one before First, or the change
	// is a conflict.
	Facts *wire.NewFacts
	// Placed, unless nil, is called once Apply has given the change a place before all
	// that it is given from then on, so that another change may count on this one being
	// tried first. A store that gives no places does not call it.
	Placed func()
}

// A Sweep is due to the keys of a tenant since a revision of its app record.
type Sweep struct {
	Tenant   wire.UUID
	Revision uint64
}

// CheckQuery reports whether q can be answered: a type that is listed, by tenant,
// for versions by their common ID, or for apps above an ID, and a limit that is not
// negative. The error wraps ErrInvalid.
func CheckQuery(q wire.Query) error {
	versions := q.Type == wire.KeyVersion || q.Type == wire.SecretVersion
	switch {
	case !known(q.Type):
		return fmt.Errorf("%w: listing of %s", ErrInvalid, q.Type)
	case q.Limit < 0:
		return fmt.Errorf("%w: listing with limit %d", ErrInvalid, q.Limit)
	case versions && q.ID == (wire.UUID{}):
		return fmt.Errorf("%w: listing of %s without an id", ErrInvalid, q.Type)
	case q.Type == wire.App && (q.Tenant != (wire.UUID{}) || q.After != 0):
		return fmt.Errorf("%w: listing of apps of a tenant", ErrInvalid)
	case !versions && q.Type != wire.App && (q.ID != (wire.UUID{}) || q.After != 0):
		return fmt.Errorf("%w: listing of %s as if it had versions", ErrInvalid, q.Type)
	}
	return nil
}

// MaxRevision is the highest revision a store keeps: databases count in signed
// 64-bit integers.
const MaxRevision = math.MaxInt64

// Check reports whether every write of c can be stored at all: a known record
// type, a revision above the expected one and at most MaxRevision, a sealed
// record of 16 to wire.MaxRecord bytes, and at most wire.MaxWrites writes; facts are
// whole entries from number 1 on. A removal has nothing but a name, which no other write of the change may have.
// The error wraps ErrInvalid. A change without writes and replay entry is valid.
func (c Change) Check() error {
	if len(c.Writes) > wire.MaxWrites {
		return fmt.Errorf("%w: change of %d writes, limit %d", ErrInvalid, len(c.Writes), wire.MaxWrites)
	}
	for i, w := range c.Writes {
		err := check(w)
		if w.Remove {
			err = c.checkRemoval(i)
		}
		if err != nil {
			return fmt.Errorf("%w: write of %s: %w", ErrInvalid, w.ID, err)
		}
	}
	return c.checkFacts()
}

func (c Change) checkFacts() error {
	f := c.Facts
	if f == nil {
		return nil
	}
	n := len(f.Entries) / wire.FactSize
	switch {
	case n == 0 || len(f.Entries)%wire.FactSize != 0:
		return fmt.Errorf("%w: facts of %d bytes, want entries of %d", ErrInvalid, len(f.Entries), wire.FactSize)
	case f.First == 0 || f.First > MaxRevision-uint64(n):
		return fmt.Errorf("%w: facts from number %d", ErrInvalid, f.First)
	}
	return nil
}

// RemovesAll reports whether w removes all versions of a key or secret.
func RemovesAll(w wire.Write) bool {
	return w.Remove && (w.ID.Type == wire.SecretVersion || w.ID.Type == wire.KeyVersion) && w.ID.Version == 0
}

func (c Change) checkRemoval(at int) error {
	w := c.Writes[at]
	switch {
	case !known(w.ID.Type):
		return errors.New("record type is unknown")
	case w.Expected != 0 || w.Revision != 0 || w.Hidden || w.Primary != 0 || w.Sweep || w.Due != 0 || w.Rewrapped || w.Sealed != nil:
		return errors.New("a removal has more than a name")
	}
	for i, other := range c.Writes {
		if RemovesAll(w) {
			other.ID.Version = 0
		}
		if i != at && other.ID == w.ID {
			return errors.New("the change removes it and has another write of it")
		}
	}
	return nil
}

func known(t wire.RecordType) bool {
	return t >= wire.App && t <= wire.Policy || t == wire.TenantSettings
}

func check(w wire.Write) error {
	switch {
	case !known(w.ID.Type):
		return errors.New("record type is unknown")
	case w.Rewrapped:
		return errors.New("it is wrapped anew, which is no change")
	case w.Revision <= w.Expected:
		return fmt.Errorf("revision %d is not above the expected %d", w.Revision, w.Expected)
	case w.Revision > MaxRevision:
		return fmt.Errorf("revision %d is above %d", w.Revision, uint64(MaxRevision))
	case len(w.Sealed) < len(wire.Tag{}) || len(w.Sealed) > wire.MaxRecord:
		return fmt.Errorf("got %d sealed bytes, want %d to %d", len(w.Sealed), len(wire.Tag{}), wire.MaxRecord)
	case w.Sweep && w.ID.Type != wire.App:
		return errors.New("a sweep is due only to an app")
	case w.Due != 0 && w.ID.Type != wire.Secret && w.ID.Type != wire.Key:
		return errors.New("something is due only to a key or a secret")
	case w.Due < 0:
		return fmt.Errorf("due at %d, before 1970", w.Due)
	}
	return nil
}
