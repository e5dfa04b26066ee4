package wire

import (
	"context"

	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// A Voucher is a Core that vouches for the TLS key of its manager.
type Voucher interface {
	// Vouch makes a statement about a TLS key. It fails unless the core was told
	// that the manager is in its TEE.
	Vouch(context.Context, TLSKey) (TLSStatement, error)
}

// A TLSKey names a TLS key by the SHA-256 of its SubjectPublicKeyInfo.
type TLSKey [32]byte

// Append appends the encoding of k.
func (k TLSKey) Append(dst []byte) []byte { return append(append(dst, formatV1), k[:]...) }

// DecodeTLSKey reads what Append writes.
func DecodeTLSKey(b []byte) (k TLSKey, err error) {
	r := start(b)
	r.Array(k[:])
	return k, finish(r, "TLS key")
}

const maxTLSStatement = 128 << 10 // bytes

// A TLSStatement is an encoded ratls.Statement.
type TLSStatement []byte

// Append appends the encoding of s.
func (s TLSStatement) Append(dst []byte) []byte {
	return pack.AppendBytes(append(dst, formatV1), s)
}

// DecodeTLSStatement reads what Append writes. It does not read the statement.
func DecodeTLSStatement(b []byte) (TLSStatement, error) {
	r := start(b)
	s := r.Bytes(maxTLSStatement)
	return s, finish(r, "TLS statement")
}
