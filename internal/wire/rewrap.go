package wire

import (
	"context"
	"encoding/binary"

	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// A Rewrapper is a Core that wraps records under the DomainKey's current version.
type Rewrapper interface {
	// Rewrap returns those of the records that are due, wrapped under the current
	// version: a pending answer with their Writes, each of them Rewrapped, in the order
	// of the records. Resolve ends it. The same states give the same bytes, on
	// every core, so that a step may be repeated, and done by two nodes at once.
	//
	// A record without a write is wrapped under the current version already (see
	// SealedVersions), or refused: it is no genuine record of the domain, the core has
	// seen a newer state, or its owner was told that it is gone. Nothing says which; a
	// refused record keeps none of the others. With refused ones the code is 500,
	// also that of the answer to Resolve. An answer without writes is final, and one
	// with NeedVersion, of kind Need, is as for a Call.
	Rewrap(context.Context, *Rewrap) (*Answer, error)
}

// A Rewrap names up to RewrapStep records, of any tenants and types, each once and
// with its bytes.
type Rewrap struct {
	RequestID string
	// Version of the DomainKey to wrap them under. It must be the one that the core
	// wraps new records under, see Info; a core that has not got so far gets there by
	// this, as by the Floor of a Call.
	Version uint32
	Records []Ref
}

// Append appends the encoding of w.
func (w *Rewrap) Append(dst []byte) []byte {
	dst = append(dst, formatV1)
	dst = pack.AppendString(dst, w.RequestID)
	dst = binary.BigEndian.AppendUint32(dst, w.Version)
	return appendRefs(dst, w.Records)
}

// DecodeRewrap reads what Append wrote. The message shares memory with b.
func DecodeRewrap(b []byte) (*Rewrap, error) {
	r := start(b)
	w := &Rewrap{RequestID: r.String(MaxName), Version: r.Uint32(), Records: readRefs(r, RewrapStep)}
	return w, finish(r, "rewrap")
}
