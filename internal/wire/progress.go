package wire

import (
	"context"
	"encoding/binary"
)

// A Listener is a Core that passes on to operators what its manager says of the
// store. It is the host's word, and the core does nothing by it.
type Listener interface {
	Hear(context.Context, Progress) error
}

// Progress is how far the records of a store follow the DomainKey.
type Progress struct {
	Floor   uint32 // least version that the store takes records under; 0: any
	Done    uint32 // no record needs an older version, but for refused ones
	Total   uint64 // records in the store, when the last or present wrapping anew began
	Looked  uint64 // at so many of them
	Refused uint64 // of these, those that the core did not wrap anew
	// The rest is about what was made under the version Compromised of the DomainKey
	// or an earlier one and is still in use. 0: nothing was counted.
	Compromised uint32
	Keys        uint64 // whose newest version was made then
	Secrets     uint64 // whose newest value was stored then
	APIKeys     uint64
	Tenants     uint64 // that have any of these
}

// Append appends the encoding of p.
func (p Progress) Append(dst []byte) []byte {
	dst = append(dst, formatV1)
	dst = binary.BigEndian.AppendUint32(dst, p.Floor)
	dst = binary.BigEndian.AppendUint32(dst, p.Done)
	for _, n := range []uint64{p.Total, p.Looked, p.Refused} {
		dst = binary.BigEndian.AppendUint64(dst, n)
	}
	dst = binary.BigEndian.AppendUint32(dst, p.Compromised)
	for _, n := range []uint64{p.Keys, p.Secrets, p.APIKeys, p.Tenants} {
		dst = binary.BigEndian.AppendUint64(dst, n)
	}
	return dst
}

// DecodeProgress reads what Append wrote.
func DecodeProgress(b []byte) (Progress, error) {
	r := start(b)
	p := Progress{Floor: r.Uint32(), Done: r.Uint32(), Total: r.Uint64(), Looked: r.Uint64(), Refused: r.Uint64(),
		Compromised: r.Uint32(), Keys: r.Uint64(), Secrets: r.Uint64(), APIKeys: r.Uint64(), Tenants: r.Uint64()}
	return p, finish(r, "progress")
}
