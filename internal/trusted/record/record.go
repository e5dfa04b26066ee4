// Package record seals the records that the host keeps in its database: a
// plaintext header and attributes, which the host may read, and material, which
// it may not. All of it is authenticated under the DomainKey.
//
// The header is the additional data, so the host cannot forge, relabel, mix or
// cut a record. It can still serve an older one whole; see
// docs/threat-model.md#rollback. Layout: docs/formats.md#sealed-record-v1.
package record

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

const (
	formatV1      = 1
	saltSize      = 32
	tagSize       = 16
	maxAttributes = 48 << 10 // bytes
	wrapLabel     = "ehsm/record/v1\x00"
)

// ErrOpen is returned for a record that is not genuine, or not the one asked
// for. The host sees one error for all causes.
var ErrOpen = errors.New("sealed record does not open")

// Header names one state of a record.
type Header struct {
	ID       wire.RecordID
	Revision uint64 // 1 for a new record, one more with each change
}

// seal encrypts material with AES-256-GCM under a key derived from the
// DomainKey and a fresh salt, with header and attributes as additional data.
func seal(keys *domainkey.Keyring, h Header, attributes []byte, material secret.Bytes) ([]byte, error) {
	if len(attributes) > maxAttributes {
		return nil, fmt.Errorf("seal %s: %d bytes of attributes, limit %d", h.ID, len(attributes), maxAttributes)
	}
	var salt [saltSize]byte
	rand.Read(salt[:]) // never fails
	version := keys.Current()
	aead, nonce, err := wrapping(keys, version, salt[:])
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", h.ID, err)
	}
	out := appendHeader(nil, keys, h, version, salt[:])
	out = pack.AppendBytes(out, attributes)
	out = aead.Seal(out, nonce, material.Expose(), out)
	if len(out) > wire.MaxRecord {
		return nil, fmt.Errorf("seal %s: %d bytes, limit %d", h.ID, len(out), wire.MaxRecord)
	}
	return out, nil
}

// appendHeader appends everything before the attributes.
func appendHeader(dst []byte, keys *domainkey.Keyring, h Header, dkVersion uint32, salt []byte) []byte {
	domain := keys.Domain()
	dst = append(dst, formatV1, byte(h.ID.Type))
	dst = append(dst, domain[:]...)
	dst = append(dst, h.ID.Tenant[:]...)
	dst = append(dst, h.ID.ID[:]...)
	dst = binary.BigEndian.AppendUint32(dst, h.ID.Version)
	dst = binary.BigEndian.AppendUint64(dst, h.Revision)
	dst = binary.BigEndian.AppendUint32(dst, dkVersion)
	return append(dst, salt...)
}

// open checks that sealed is the record that h names, in this domain, and
// returns its attributes and material.
func open(keys *domainkey.Keyring, h Header, sealed []byte) ([]byte, secret.Bytes, error) {
	got, domain, dkVersion, salt, attributes, box, err := split(sealed)
	if err != nil {
		return nil, secret.Bytes{}, fmt.Errorf("%w: %w", ErrOpen, err)
	}
	if domain != keys.Domain() { // check+: record-domain: the wrapping key depends on the domain
		return nil, secret.Bytes{}, fmt.Errorf("%w: it belongs to another domain", ErrOpen)
	}
	if got != h { // check: record-label
		return nil, secret.Bytes{}, fmt.Errorf("%w: it is %s revision %d, want %s revision %d", ErrOpen, got.ID, got.Revision, h.ID, h.Revision)
	}
	aead, nonce, err := wrapping(keys, dkVersion, salt)
	if err != nil {
		return nil, secret.Bytes{}, fmt.Errorf("%w: %w", ErrOpen, err)
	}
	material, err := aead.Open(nil, nonce, box, sealed[:len(sealed)-len(box)])
	if err != nil { // check: record-genuine
		return nil, secret.Bytes{}, ErrOpen
	}
	return attributes, secret.New(material), nil
}

// split parses the layout. It checks no authenticity.
func split(sealed []byte) (h Header, domain [32]byte, dkVersion uint32, salt, attributes, box []byte, err error) {
	r := pack.NewReader(sealed)
	if v := r.Uint8(); r.Err() == nil && v != formatV1 {
		r.Fail("record format %d is unknown", v)
	}
	h.ID.Type = wire.RecordType(r.Uint8())
	r.Array(domain[:])
	r.Array(h.ID.Tenant[:])
	r.Array(h.ID.ID[:])
	h.ID.Version = r.Uint32()
	h.Revision = r.Uint64()
	dkVersion = r.Uint32()
	salt = r.Fixed(saltSize)
	attributes = r.Bytes(maxAttributes)
	if r.Err() == nil && r.Len() < tagSize {
		r.Fail("got %d bytes of sealed material, want at least %d", r.Len(), tagSize)
	}
	if err := r.Err(); err != nil {
		return h, domain, 0, nil, nil, nil, err
	}
	return h, domain, dkVersion, salt, attributes, r.Rest(), nil
}

// wrapping derives the AEAD of one record. Key and nonce are fresh with the
// salt, so they encrypt one message only.
func wrapping(keys *domainkey.Keyring, dkVersion uint32, salt []byte) (cipher.AEAD, []byte, error) {
	purpose, err := keys.RecordWrapping(dkVersion)
	if err != nil {
		return nil, nil, err
	}
	const keySize, nonceSize = 32, 12
	var aead cipher.AEAD
	nonce := make([]byte, nonceSize)
	secret.Do(func() {
		prk := extract(purpose, salt)
		defer clear(prk)
		var okm []byte
		if okm, err = hkdf.Expand(sha256.New, prk, wrapLabel, keySize+nonceSize); err != nil {
			return
		}
		defer clear(okm[:keySize])
		copy(nonce, okm[keySize:])
		var block cipher.Block
		if block, err = aes.NewCipher(okm[:keySize]); err == nil {
			aead, err = cipher.NewGCM(block)
		}
	})
	return aead, nonce, err
}

// extract is hkdf.Extract, RFC 5869 section 2.2, for a key that lives long: that
// one leaves a copy of the key behind each time.
func extract(key secret.Bytes, salt []byte) []byte {
	m := hmac.New(sha256.New, salt)
	m.Write(key.Expose())
	prk := m.Sum(nil)
	// The hash has kept the key in its buffer of one block; fill it again.
	m.Write(make([]byte, 2*sha256.BlockSize-1-key.Len()))
	return prk
}
