package wire

import (
	"context"
	"encoding/binary"

	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// Sizes of the log of negative facts.
const (
	// FactSize is the length of one entry, in bytes. Layout: docs/formats.md#negative-facts-v1.
	FactSize = 90
	// MaxFacts is the most entries of one message.
	MaxFacts = 8192
	// MaxNewFacts is the most entries that one answer adds.
	MaxNewFacts = 16
)

// A Witness is a Core that is shown the log of negative facts. It serves requests
// only when it has been shown all that it knows to exist; to others it answers Need
// with NeedFacts.
type Witness interface {
	// Facts shows entries to the core, perhaps none, and returns how far it has come.
	// Entries that do not follow or are not genuine are not taken; Trouble says so.
	Facts(context.Context, *Facts) (FactsState, error)
}

// Facts is a part of the log, in the order of the sequence numbers.
type Facts struct {
	First   uint64 // sequence number of the first entry
	Entries []byte // FactSize bytes each
	End     bool   // the store has no more
}

// FactsState is how far a core has come in the log. Nothing in it is secret.
type FactsState struct {
	Count   uint64 // entries that it has verified
	Known   uint64 // that it knows to exist: from other programs of the domain
	Records uint64 // that the entries are about
	Limit   uint64 // of Records
	Waiting bool   // more entries are needed before it serves
	Trouble string // why it does not serve, "" if it does
}

// NewFacts are the entries that an answer adds to the log, in the same transaction
// as its writes. The store refuses them if it has others at their place.
type NewFacts struct {
	First uint64
	// Previous are the last 16 bytes, the MAC, of the entry before First, zeros if there
	// is none. The store must have that entry: what follows another one is of no use to
	// anybody, and would make the log end there.
	Previous [16]byte
	Entries  []byte
}

// FactMAC returns the last 16 bytes of an entry.
func FactMAC(entry []byte) (mac [16]byte) {
	copy(mac[:], entry[len(entry)-len(mac):])
	return mac
}

// Append appends the encoding of f.
func (f *Facts) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(append(dst, formatV1), f.First)
	dst = pack.AppendBytes(dst, f.Entries)
	return pack.AppendBool(dst, f.End)
}

// DecodeFacts reads what Append wrote. The facts share memory with b.
func DecodeFacts(b []byte) (*Facts, error) {
	r := start(b)
	f := &Facts{First: r.Uint64(), Entries: readEntries(r, MaxFacts), End: r.Bool()}
	return f, finish(r, "facts")
}

func readEntries(r *pack.Reader, limit int) []byte {
	b := r.Bytes(limit * FactSize)
	if len(b)%FactSize != 0 {
		r.Fail("entries of %d bytes", len(b))
	}
	if len(b) == 0 {
		return nil
	}
	return b
}

// Append appends the encoding of s.
func (s FactsState) Append(dst []byte) []byte {
	dst = append(dst, formatV1)
	for _, n := range []uint64{s.Count, s.Known, s.Records, s.Limit} {
		dst = binary.BigEndian.AppendUint64(dst, n)
	}
	return pack.AppendString(pack.AppendBool(dst, s.Waiting), s.Trouble[:min(len(s.Trouble), maxTrouble)])
}

const maxTrouble = 512 // bytes

// DecodeFactsState reads what Append wrote.
func DecodeFactsState(b []byte) (FactsState, error) {
	r := start(b)
	s := FactsState{Count: r.Uint64(), Known: r.Uint64(), Records: r.Uint64(), Limit: r.Uint64(), Waiting: r.Bool(), Trouble: r.String(maxTrouble)}
	return s, finish(r, "state of the facts")
}

func appendNewFacts(dst []byte, f *NewFacts) []byte {
	if f == nil {
		return pack.AppendBool(dst, false)
	}
	dst = binary.BigEndian.AppendUint64(pack.AppendBool(dst, true), f.First)
	dst = append(dst, f.Previous[:]...)
	return pack.AppendBytes(dst, f.Entries)
}

func readNewFacts(r *pack.Reader) *NewFacts {
	if !r.Bool() {
		return nil
	}
	f := &NewFacts{First: r.Uint64()}
	r.Array(f.Previous[:])
	f.Entries = readEntries(r, MaxNewFacts)
	if r.Err() == nil && (f.First == 0 || f.Entries == nil) {
		r.Fail("new facts without entries")
	}
	return f
}
