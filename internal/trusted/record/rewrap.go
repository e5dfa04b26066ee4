package record

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// ErrNotDue is returned for a record that is wrapped under the current version of
// the DomainKey already, or under a later one.
var ErrNotDue = errors.New("sealed record is not due to be wrapped anew")

// Rewrap returns the record that h names under the current version of the
// DomainKey. Nothing else about it changes: attributes, material, revision and tag
// of the state are the same, so that a state which a newer one has replaced stays
// as old as it was, however often it is wrapped.
//
// It is a function: the same state under the same version gives the same bytes
// everywhere, whatever wrapped it before. Layout: docs/formats.md#sealed-record-v2.
// Errors: ErrOpen, ErrNotDue.
func Rewrap(keys *domainkey.Keyring, h Header, sealed []byte) ([]byte, error) {
	p, err := split(sealed)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOpen, err)
	}
	material, err := p.open(keys, h, sealed)
	if err != nil {
		return nil, err
	}
	defer material.Zero()
	version := keys.Current()
	if p.version >= version { // check: rewrap-due
		return nil, fmt.Errorf("%w: version %d, current is %d", ErrNotDue, p.version, version)
	}
	salt, err := p.rewrapSalt(keys, version, material)
	if err != nil {
		return nil, err
	}
	out := appendHeader(nil, keys, formatV2, h, version, salt)
	return wrap(keys, version, salt, p.appendState(out), material, h)
}

// appendState appends what follows the salt in format 2, up to the material.
func (p *parts) appendState(dst []byte) []byte {
	dst = append(dst, p.tag[:]...)
	dst = binary.BigEndian.AppendUint32(dst, p.made)
	return pack.AppendBytes(dst, p.attributes)
}

// rewrapSalt is a keyed hash of all that the salt's key will encrypt and
// authenticate: two different texts never meet one key and nonce, and the host
// learns from an equal salt only what equal bytes show.
func (p *parts) rewrapSalt(keys *domainkey.Keyring, version uint32, material secret.Bytes) (salt []byte, err error) {
	keys.Hold()
	defer keys.Release()
	key, err := keys.Key(domainkey.RewrapSalt, version)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", p.ID, err)
	}
	secret.Do(func() {
		m := hmac.New(sha256.New, key.Expose())
		m.Write(p.appendState(appendHeader(nil, keys, formatV2, p.Header, version, nil)))
		m.Write(material.Expose())
		salt = m.Sum(nil)
	})
	return salt, nil
}
