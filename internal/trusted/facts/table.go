package facts

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// A name stands for a record in the table. Records of one tenant whose names
// collide share their facts, and to find one of another tenant is infeasible.
type name [16]byte

func nameOf(id wire.RecordID) name {
	var b [1 + 16 + 16 + 4]byte
	b[0] = byte(id.Type)
	copy(b[1:], id.Tenant[:])
	copy(b[17:], id.ID[:])
	binary.BigEndian.PutUint32(b[33:], id.Version)
	sum := sha256.Sum256(b[:])
	return name(sum[:16])
}

// A mark is the newest fact about a record: 16 bytes, of about 80 that an entry of
// the table takes. Half of the tag is enough to tell states apart, of which the
// host can have no more made than cores answer requests.
type mark struct {
	revision uint64
	tag      [8]byte
}

// Standing is how a state of a record stands to what is known about it.
type Standing uint8

// The standings. The zero value is invalid.
const (
	_       Standing = iota
	Allowed          // nothing speaks against it
	Below            // it is older than the narrowed one
	Rival            // it is another state of the narrowed revision
)

func (m mark) judge(revision uint64, tag wire.Tag) Standing {
	switch {
	case revision < m.revision: // check: fact-below
		return Below
	case revision == m.revision && [8]byte(tag[:8]) != m.tag: // check: fact-rival
		return Rival
	}
	return Allowed
}
