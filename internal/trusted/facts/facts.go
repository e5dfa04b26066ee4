// Package facts is the log of negative facts: that a record is at least at a
// revision, as its owner has disabled, deleted or otherwise narrowed something in
// that one. A host that puts an older row back, or starts a core that has seen
// nothing, meets the fact.
//
// Entries are chained by hashes and carry a MAC under a key of the domain, so only
// cores make them. The host stores them and can withhold the newest, or all; that
// is what the head (how many entries, and the hash of the last) is for, which
// attested programs tell each other (Anchor). Nothing here is secret; what is
// protected is that a verified entry is not forgotten.
//
// Layouts: docs/formats.md#negative-facts-v1. What it gives: docs/threat-model.md#rollback.
package facts

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// Errors of this package, wrapped with what was found.
var (
	// ErrEntry says that an entry is malformed, does not follow, or is not genuine.
	ErrEntry = errors.New("entry of the log of negative facts refused")
	// ErrBehind says that the log has not been shown as far as it is known to go.
	ErrBehind = errors.New("the log of negative facts is not complete")
	// ErrFork says that there are two logs: somebody shows different ones to
	// different programs, or has put an older database back.
	ErrFork = errors.New("the log of negative facts is forked")
	// ErrPast says that a head is too far back to be compared with what is
	// remembered. A log that is read anew can be.
	ErrPast = errors.New("the head is older than what is remembered of the log of negative facts")
	// ErrFull says that the table has no room for a further record.
	ErrFull = errors.New("the table of negative facts is full")
)

// Keys has the keys that entries are made with: a domainkey.Keyring.
type Keys interface {
	// Key returns the 32-byte key of a purpose and DomainKey version; wraps
	// domainkey.ErrNoVersion if it is not held.
	Key(p domainkey.Purpose, version uint32) (secret.Bytes, error)
	// Current is the version for new entries.
	Current() uint32
	// Hold and Release stand around the use of keys.
	Hold()
	Release()
}

// A Fact says that a record is at least at a revision, and which state that
// revision is.
type Fact struct {
	ID       wire.RecordID
	Revision uint64
	Tag      wire.Tag
}

// A Head is how far a log goes. The zero Head is that of an empty log.
type Head struct {
	Count uint64   // entries
	Hash  [32]byte // of the last
}

func (h Head) append(dst []byte) []byte {
	return append(binary.BigEndian.AppendUint64(dst, h.Count), h.Hash[:]...)
}

func readHead(r *pack.Reader) (h Head) {
	h.Count = r.Uint64()
	r.Array(h.Hash[:])
	if r.Err() == nil && h.Count == 0 && h.Hash != [32]byte{} {
		r.Fail("hash of an empty log")
	}
	return h
}

// String is the count and the first bytes of the hash, for people.
func (h Head) String() string { return fmt.Sprintf("%d %x", h.Count, h.Hash[:6]) }

const (
	formatV1   = 1
	entryLabel = "ehsm/negative-fact/v1\x00"
	macSize    = 16
	bodySize   = wire.FactSize - macSize
)

// An entry is one of the log, decoded.
type entry struct {
	fact     Fact
	sequence uint64
	version  uint32 // of the DomainKey
	body     []byte // what is hashed
	mac      []byte
}

// parse reads the encoding of one entry, which it shares memory with.
func parse(b []byte) (e entry, err error) {
	r := pack.NewReader(b)
	if v := r.Uint8(); v != formatV1 {
		r.Fail("format %d is unknown", v)
	}
	e.sequence = r.Uint64()
	e.fact.ID.Type = wire.RecordType(r.Uint8())
	r.Array(e.fact.ID.Tenant[:])
	r.Array(e.fact.ID.ID[:])
	e.fact.ID.Version = r.Uint32()
	e.fact.Revision = r.Uint64()
	r.Array(e.fact.Tag[:])
	e.version = r.Uint32()
	e.mac = r.Fixed(macSize)
	if r.Err() == nil && (e.sequence == 0 || e.fact.Revision == 0 || e.version == 0) {
		r.Fail("number 0")
	}
	if err := r.Close(); err != nil {
		return entry{}, fmt.Errorf("%w: %w", ErrEntry, err)
	}
	e.body = b[:bodySize]
	return e, nil
}

// appendBody encodes an entry without its MAC.
func (e *entry) appendBody(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(append(dst, formatV1), e.sequence)
	dst = append(dst, byte(e.fact.ID.Type))
	dst = append(append(dst, e.fact.ID.Tenant[:]...), e.fact.ID.ID[:]...)
	dst = binary.BigEndian.AppendUint32(dst, e.fact.ID.Version)
	dst = binary.BigEndian.AppendUint64(dst, e.fact.Revision)
	dst = append(dst, e.fact.Tag[:]...)
	return binary.BigEndian.AppendUint32(dst, e.version)
}

// chain is the hash of an entry with this body after one with that hash.
func chain(previous [32]byte, body []byte) [32]byte {
	var b [len(entryLabel) + 32 + bodySize]byte
	copy(b[copy(b[copy(b[:], entryLabel):], previous[:])+len(entryLabel):], body)
	return sha256.Sum256(b[:])
}

// seal is the MAC of an entry with that hash.
func seal(key secret.Bytes, hash [32]byte) (mac [macSize]byte) {
	m := hmac.New(sha256.New, key.Expose())
	m.Write(hash[:])
	var sum [sha256.Size]byte
	copy(mac[:], m.Sum(sum[:0]))
	return mac
}
