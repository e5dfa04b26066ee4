// Package domainkey holds the DomainKey of a domain in the clear, derives the
// keys for its purposes and keeps its sealed bundle.
//
// It trusts the platform's seal key and hides the DomainKey and the domain's
// private key from everything outside the TEE.
package domainkey

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
)

// KeySize is the size of a DomainKey version, in bytes.
const KeySize = 32

// ErrNoVersion is returned for a DomainKey version that this TEE does not hold.
var ErrNoVersion = errors.New("DomainKey version is not held here")

// A Purpose is the label of a derived key. The DomainKey itself is never used
// directly.
type Purpose string

// The purposes of derived keys.
const (
	RecordWrapping Purpose = "ehsm/record-wrapping/v1\x00" // wraps sealed records
	ImportToken    Purpose = "ehsm/import-token/v1\x00"    // authenticates import tokens
)

// Keyring is the DomainKey of one domain in all versions held, with the
// domain's signing key. All of them lie in the Home that it was opened with. It is
// immutable and safe for concurrent use.
type Keyring struct {
	domain   genesis.ID
	signing  secret.Bytes // Ed25519 seed
	versions []secret.Bytes
	derived  []secret.Bytes // record wrapping keys, one per version
	tokens   []secret.Bytes // import token keys, one per version
}

// generate makes version 1 and a signing key for a domain whose id is not known
// yet, as it depends on the public half.
func generate() (versions []secret.Bytes, signing secret.Bytes) {
	dk, seed := make([]byte, KeySize), make([]byte, ed25519.SeedSize)
	rand.Read(dk) // never fails
	rand.Read(seed)
	return []secret.Bytes{secret.New(dk)}, secret.New(seed)
}

// newKeyring derives the keys of all purposes, in home, where signing and
// versions lie already.
func newKeyring(home *secret.Home, domain genesis.ID, versions []secret.Bytes, signing secret.Bytes) (*Keyring, error) {
	k := &Keyring{domain: domain, signing: signing, versions: versions}
	var err error
	if k.derived, err = derive(home, RecordWrapping, domain, versions); err != nil {
		return nil, err
	}
	k.tokens, err = derive(home, ImportToken, domain, versions)
	return k, err
}

// derive returns the key of a purpose for each DomainKey version. It is HKDF-Expand
// of RFC 5869 section 2.3 for a key of one block, written out because hkdf.Expand
// leaves copies of the key behind.
func derive(home *secret.Home, p Purpose, domain genesis.ID, versions []secret.Bytes) ([]secret.Bytes, error) {
	keys := make([]secret.Bytes, 0, len(versions))
	for _, dk := range versions {
		key, err := home.Make(KeySize)
		if err != nil {
			return nil, fmt.Errorf("derive the key for %s: %w", strings.TrimSuffix(string(p), "\x00"), err)
		}
		m := hmac.New(sha256.New, dk.Expose())
		m.Write(append(append([]byte(p), domain[:]...), 1))
		m.Sum(key.Expose()[:0]) // in place
		keys = append(keys, key)
	}
	return keys, nil
}

// Domain returns the id of the domain.
func (k *Keyring) Domain() genesis.ID { return k.domain }

// Current returns the number of the version that new records are wrapped with.
func (k *Keyring) Current() uint32 { return uint32(len(k.versions)) }

// RecordWrapping returns the purpose key of a DomainKey version, 32 bytes.
// Errors: ErrNoVersion.
func (k *Keyring) RecordWrapping(version uint32) (secret.Bytes, error) {
	return ofVersion(k.derived, version)
}

// ImportToken returns the key of a DomainKey version that authenticates import
// tokens, 32 bytes. Errors: ErrNoVersion.
func (k *Keyring) ImportToken(version uint32) (secret.Bytes, error) {
	return ofVersion(k.tokens, version)
}

func ofVersion(keys []secret.Bytes, version uint32) (secret.Bytes, error) {
	if version == 0 || int64(version) > int64(len(keys)) {
		return secret.Bytes{}, fmt.Errorf("%w: version %d", ErrNoVersion, version)
	}
	return keys[version-1], nil
}

// Sign signs message with the domain's Ed25519 key. Every message starts with a
// label that no other use has.
func (k *Keyring) Sign(message []byte) []byte {
	signature := make([]byte, ed25519.SignatureSize)
	secret.Do(func() {
		key := ed25519.NewKeyFromSeed(k.signing.Expose())
		defer clear(key)
		copy(signature, ed25519.Sign(key, message))
	})
	return signature
}

// publicKey returns the public half of a signing seed.
func publicKey(seed secret.Bytes) ed25519.PublicKey {
	key := ed25519.NewKeyFromSeed(seed.Expose())
	defer clear(key)
	return key.Public().(ed25519.PublicKey) // a copy
}
