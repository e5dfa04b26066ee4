// Package sgx is what the drivers of SGX run-times share: the identity in a
// report, and the way from the 16-byte keys of EGETKEY to a seal key.
//
// It trusts the processor's keys, and hides them from everything but the key it
// derives.
package sgx

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

// KeySize is the size of a key that EGETKEY gives, in bytes.
const KeySize = 16

// Identity returns what a report says of its enclave.
func Identity(r quote.Report) tee.Identity {
	return tee.Identity{
		Measurement: r.MREnclave, Signer: r.MRSigner,
		Product: r.ISVProdID, SVN: r.ISVSVN, Debug: r.Attributes.Debug(),
	}
}

// SealKey derives the 32-byte key of request q for a product from keys of
// EGETKEY, which it zeroes. One such key has 128 bits, so a driver that can get
// two passes both. A key of another size or of zeros only is refused: run-times
// return such outside an enclave. Errors: tee.ErrKeyRequest.
// Layout: docs/formats.md#domainkey-bundle-v1.
func SealKey(label string, q tee.KeyRequest, product uint16, keys ...[]byte) (secret.Bytes, error) {
	joined := bytes.Join(keys, nil)
	defer clear(joined)
	defer func() {
		for _, k := range keys {
			clear(k)
		}
	}()
	for _, k := range keys {
		if len(k) != KeySize {
			return secret.Bytes{}, fmt.Errorf("%w: the run-time returned %d bytes, want %d", tee.ErrKeyRequest, len(k), KeySize)
		}
		if secret.Copy(k).Equal(secret.New(make([]byte, KeySize))) {
			return secret.Bytes{}, fmt.Errorf("%w: the run-time returned a zero key", tee.ErrKeyRequest)
		}
	}
	info := append([]byte(label), byte(q.Policy))
	info = binary.BigEndian.AppendUint16(info, product)
	info = binary.BigEndian.AppendUint16(info, q.SVN)
	info = append(info, q.Info...)
	key, err := hkdf.Key(sha256.New, joined, q.KeyID[:], string(info), 32)
	return secret.New(key), err
}
