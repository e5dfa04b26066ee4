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
	"sync"
	"sync/atomic"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
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
	RewrapSalt     Purpose = "ehsm/rewrap-salt/v1\x00"     // makes the salts of records that are wrapped anew
	NegativeFacts  Purpose = "ehsm/negative-facts/v1\x00"  // authenticates entries of the log of negative facts
	LoginToken     Purpose = "ehsm/login-token/v1\x00"     // authenticates the credentials of workloads that have logged in
	RekeyApproval  Purpose = "ehsm/rekey-approval/v1\x00"  // makes what custodians approve another owner of an app with
)

// Keyring is the DomainKey of one domain in the versions held, with the domain's
// signing key. All of them lie in the Home that it was opened with. Versions come
// and go while others use it: it is safe for concurrent use.
type Keyring struct {
	domain  genesis.ID
	signing secret.Bytes  // Ed25519 seed
	root    manifest.Root // what the domain has it kept under
	home    *secret.Home

	current atomic.Uint32
	set     atomic.Pointer[keySet]

	change sync.Mutex   // one change of set at a time
	inUse  sync.RWMutex // for reading while keys are in use, for writing while some are zeroed
}

// keySet are the keys of all versions, that of version n at n-1. A version that is
// not held is empty; the last one is held.
type keySet struct {
	versions []secret.Bytes
	derived  map[Purpose][]secret.Bytes
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
	k := &Keyring{domain: domain, signing: signing, home: home}
	set, err := newKeySet(home, domain, versions)
	if err != nil {
		return nil, err
	}
	k.set.Store(set)
	k.current.Store(k.Newest())
	return k, nil
}

func newKeySet(home *secret.Home, domain genesis.ID, versions []secret.Bytes) (*keySet, error) {
	s := &keySet{versions: versions, derived: map[Purpose][]secret.Bytes{}}
	var err error
	for _, p := range []Purpose{RecordWrapping, ImportToken, RewrapSalt, NegativeFacts, LoginToken, RekeyApproval} {
		if s.derived[p], err = derive(home, p, domain, versions); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// derive returns the key of a purpose for each DomainKey version. It is HKDF-Expand
// of RFC 5869 section 2.3 for a key of one block, written out because hkdf.Expand
// leaves copies of the key behind.
func derive(home *secret.Home, p Purpose, domain genesis.ID, versions []secret.Bytes) ([]secret.Bytes, error) {
	keys := make([]secret.Bytes, len(versions))
	for i, dk := range versions {
		if dk.Len() == 0 {
			continue
		}
		key, err := home.Make(KeySize)
		if err != nil {
			return nil, fmt.Errorf("derive the key for %s: %w", strings.TrimSuffix(string(p), "\x00"), err)
		}
		m := hmac.New(sha256.New, dk.Expose())
		m.Write(append(append([]byte(p), domain[:]...), 1))
		m.Sum(key.Expose()[:0]) // in place
		keys[i] = key
	}
	return keys, nil
}

// Domain returns the id of the domain.
func (k *Keyring) Domain() genesis.ID { return k.domain }

// Newest returns the number of the newest version held.
func (k *Keyring) Newest() uint32 { return uint32(len(k.set.Load().versions)) }

// Current returns the number of the version that new records are wrapped with: the
// newest that was held when the keyring was opened, and what Advance made of it.
func (k *Keyring) Current() uint32 { return k.current.Load() }

// Hold keeps keys that Key returns from being zeroed until Release, which must
// follow soon: forgetting a version waits for it. It does not nest.
func (k *Keyring) Hold() { k.inUse.RLock() }

// Release ends Hold.
func (k *Keyring) Release() { k.inUse.RUnlock() }

// Key returns the key of a purpose of a DomainKey version, 32 bytes. It may be used
// between Hold and Release. Errors: ErrNoVersion.
func (k *Keyring) Key(p Purpose, version uint32) (secret.Bytes, error) {
	keys := k.set.Load().derived[p]
	if version == 0 || int64(version) > int64(len(keys)) || keys[version-1].Len() == 0 {
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
