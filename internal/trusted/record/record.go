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
	formatV1      = 1 // a state as it was made
	formatV2      = 2 // a state that was wrapped anew
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
	out := appendHeader(nil, keys, formatV1, h, version, salt[:])
	return wrap(keys, version, salt[:], pack.AppendBytes(out, attributes), material, h)
}

// wrap appends the encrypted material to the rest of a record.
func wrap(keys *domainkey.Keyring, version uint32, salt, out []byte, material secret.Bytes, h Header) ([]byte, error) {
	aead, nonce, err := wrapping(keys, version, salt)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", h.ID, err)
	}
	out = aead.Seal(out, nonce, material.Expose(), out)
	if len(out) > wire.MaxRecord {
		return nil, fmt.Errorf("seal %s: %d bytes, limit %d", h.ID, len(out), wire.MaxRecord)
	}
	return out, nil
}

// appendHeader appends what comes first in a record of any format, up to the salt.
func appendHeader(dst []byte, keys *domainkey.Keyring, format byte, h Header, dkVersion uint32, salt []byte) []byte {
	domain := keys.Domain()
	dst = append(dst, format, byte(h.ID.Type))
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
	p, err := split(sealed)
	if err != nil {
		return nil, secret.Bytes{}, fmt.Errorf("%w: %w", ErrOpen, err)
	}
	material, err := p.open(keys, h, sealed)
	if err != nil {
		return nil, secret.Bytes{}, err
	}
	return p.attributes, material, nil
}

// parts are what the layout of a record has. Nothing in them is authentic before
// open has succeeded.
type parts struct {
	Header
	format     byte
	domain     [32]byte
	version    uint32   // of the DomainKey
	salt       []byte   // fresh for each wrapping
	tag        wire.Tag // of the state
	made       uint32   // DomainKey version that wrapped the state first
	attributes []byte
	box        []byte // encrypted material with the authentication tag
}

func (p *parts) open(keys *domainkey.Keyring, h Header, sealed []byte) (secret.Bytes, error) {
	if p.domain != keys.Domain() { // check+: record-domain: the wrapping key depends on the domain
		return secret.Bytes{}, fmt.Errorf("%w: it belongs to another domain", ErrOpen)
	}
	if p.Header != h { // check: record-label
		return secret.Bytes{}, fmt.Errorf("%w: it is %s revision %d, want %s revision %d", ErrOpen, p.ID, p.Revision, h.ID, h.Revision)
	}
	aead, nonce, err := wrapping(keys, p.version, p.salt)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%w: %w", ErrOpen, err)
	}
	material, err := aead.Open(nil, nonce, p.box, sealed[:len(sealed)-len(p.box)])
	if err != nil { // check: record-genuine
		return secret.Bytes{}, ErrOpen
	}
	return secret.New(material), nil
}

// split parses the layout. It checks no authenticity.
func split(sealed []byte) (*parts, error) {
	r := pack.NewReader(sealed)
	p := &parts{format: r.Uint8()}
	if r.Err() == nil && p.format != formatV1 && p.format != formatV2 {
		r.Fail("record format %d is unknown", p.format)
	}
	p.ID.Type = wire.RecordType(r.Uint8())
	r.Array(p.domain[:])
	r.Array(p.ID.Tenant[:])
	r.Array(p.ID.ID[:])
	p.ID.Version = r.Uint32()
	p.Revision = r.Uint64()
	p.version = r.Uint32()
	p.salt = r.Fixed(saltSize)
	p.tag, p.made = wire.SealedTag(sealed), p.version
	if p.format == formatV2 {
		r.Array(p.tag[:])
		p.made = r.Uint32()
	}
	p.attributes = r.Bytes(maxAttributes)
	if r.Err() == nil && r.Len() < tagSize {
		r.Fail("got %d bytes of sealed material, want at least %d", r.Len(), tagSize)
	}
	if err := r.Err(); err != nil {
		return nil, err
	}
	p.box = r.Rest()
	return p, nil
}

// wrapping derives the AEAD of one record. Key and nonce are fresh with the
// salt, so they encrypt one message only.
func wrapping(keys *domainkey.Keyring, dkVersion uint32, salt []byte) (cipher.AEAD, []byte, error) {
	keys.Hold()
	defer keys.Release()
	purpose, err := keys.Key(domainkey.RecordWrapping, dkVersion)
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
