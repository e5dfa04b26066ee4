package wire

import (
	"context"
	"encoding/binary"
)

// A Meter is a Core that tells what it holds and what it has refused.
type Meter interface {
	// Stats counts since the start of the core. Nothing in it is about one
	// tenant or key.
	Stats(context.Context) (Stats, error)
}

// Stats describes a running core for metrics.
type Stats struct {
	Answered        uint64 // requests, refused ones included
	Replayed        uint64 // refused because they had been used here before
	Unauthenticated uint64 // refused because the signature was wrong
	Internal        uint64 // answered with code 500
	Limited         uint64 // refused because the app had made too many, or had too many keys or secrets

	Replays  uint64 // requests remembered
	Seen     uint64 // changed records whose newest revision is remembered
	Apps     uint64 // opened records in memory, of each kind
	Keys     uint64
	Versions uint64
	Secrets  uint64
	Values   uint64
	Pending  uint64 // answers whose writes are being stored

	HeapBytes uint64 // memory in use
}

// fields lists all, in the order of the encoding.
func (s *Stats) fields() []*uint64 {
	return []*uint64{
		&s.Answered, &s.Replayed, &s.Unauthenticated, &s.Internal,
		&s.Replays, &s.Seen, &s.Apps, &s.Keys, &s.Versions, &s.Secrets, &s.Values, &s.Pending, &s.HeapBytes,
		&s.Limited,
	}
}

// Append appends the encoding of s.
func (s Stats) Append(dst []byte) []byte {
	dst = append(dst, formatV1)
	for _, f := range s.fields() {
		dst = binary.BigEndian.AppendUint64(dst, *f)
	}
	return dst
}

// DecodeStats reads what Append wrote.
func DecodeStats(b []byte) (Stats, error) {
	r := start(b)
	var s Stats
	for _, f := range s.fields() {
		*f = r.Uint64()
	}
	return s, finish(r, "stats")
}
