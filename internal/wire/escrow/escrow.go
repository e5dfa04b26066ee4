// Package escrow reads and writes the files by which custodians recover the
// DomainKey of a domain: sealed shares of the recovery key, the escrow, which is
// the DomainKey encrypted to that key, backups, which hold both, and what passes
// between a TEE that restores and the custodians.
//
// All of them are public: what is secret in them is encrypted. The package holds no
// secret; Seal and Open pass one through for their callers.
//
// Layouts: docs/formats.md#recovery-share-v1 and the following.
package escrow

import (
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// Errors of this package, wrapped with what was found.
var (
	// ErrFile says that a file is not what it should be, or damaged.
	ErrFile = errors.New("invalid file of a recovery")
	// ErrSignature says that an escrow was not signed by the domain's key.
	ErrSignature = errors.New("escrow is not signed by a TEE of the domain")
	// ErrDomain says that a file is of another domain.
	ErrDomain = errors.New("of another domain")
	// ErrRecoveryKey says that something belongs to another recovery key than that
	// of the manifest in force: custodians have changed.
	ErrRecoveryKey = errors.New("for another recovery key than the manifest's")
	// ErrNoRecovery says that the domain has no recovery key.
	ErrNoRecovery = errors.New("the domain has no recovery key")
	// ErrSimulation says that a domain that once excluded simulated platforms allows
	// them now: its DomainKey is not restored.
	ErrSimulation = errors.New("the manifest in force allows simulated platforms, and an earlier one did not")
	// ErrOpen is returned for what does not decrypt, for every cause.
	ErrOpen = errors.New("it does not open with this key, or was changed")
)

const (
	// MaxFile is the most bytes of any file of this package.
	MaxFile = 64 << 20

	// ShareSize is the size of a share in bytes: two scalars.
	ShareSize = 2 * ScalarSize
	// ScalarSize is the size of a scalar, and of an element, of ristretto255 in bytes.
	ScalarSize = 32

	// File is the name of the escrow in a domain directory.
	File = "escrow.sealed"

	escrowMagic = "ehsm/escrow/v1\n"
	escrowLabel = "ehsm/escrow/v1\x00"

	encapsulated = 1120 // bytes of MLKEM768-X25519
	tagSize      = 16
	overhead     = encapsulated + tagSize
	sealedShare  = overhead + ShareSize
	maxBundle    = 4 << 20 // bytes of the DomainKey in all versions
	maxVersions  = 1 << 16
	maxYear      = 9999
)

// Seal encrypts plaintext to a public key for HPKE with MLKEM768-X25519, RFC 9180
// base mode with HKDF-SHA-256 and AES-256-GCM. It opens only with the same info.
func Seal(publicKey, info, plaintext []byte) ([]byte, error) {
	key, err := hpke.MLKEM768X25519().NewPublicKey(publicKey)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	return hpke.Seal(key, hpke.HKDFSHA256(), hpke.AES256GCM(), info, plaintext)
}

// Open decrypts what Seal has encrypted. Errors: ErrOpen.
func Open(key hpke.PrivateKey, info, sealed []byte) ([]byte, error) {
	plaintext, err := hpke.Open(key, hpke.HKDFSHA256(), hpke.AES256GCM(), info, sealed)
	if err != nil {
		return nil, ErrOpen
	}
	return plaintext, nil
}

// KeyID names a recovery key: the SHA-256 of its public half.
func KeyID(r *manifest.Recovery) [32]byte { return sha256.Sum256(r.PublicKey) }

// An Escrow is the DomainKey in all versions, encrypted to the recovery key, as a
// TEE of the domain has written it.
type Escrow struct {
	Domain   genesis.ID
	Manifest uint64    // version of the manifest that was in force
	Date     time.Time // when it was written, in UTC and whole seconds
	Key      [32]byte  // KeyID of the recovery key
	Versions []uint32  // of the DomainKey that are in it, ascending
	// Sealed is what domainkey.Keyring.Export returns, encrypted.
	Sealed []byte
	// Signature is the domain key's, 64 bytes.
	Signature []byte
}

// Info is what the encryption binds: everything that the escrow says of itself.
func (e *Escrow) Info() []byte { return e.head([]byte(escrowLabel)) }

func (e *Escrow) head(dst []byte) []byte {
	dst = append(dst, e.Domain[:]...)
	dst = binary.BigEndian.AppendUint64(dst, e.Manifest)
	dst = binary.BigEndian.AppendUint64(dst, uint64(e.Date.Unix()))
	dst = append(dst, e.Key[:]...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(e.Versions)))
	for _, v := range e.Versions {
		dst = binary.BigEndian.AppendUint32(dst, v)
	}
	return dst
}

// SignedText is what the domain key signs.
func (e *Escrow) SignedText() []byte {
	h := sha256.Sum256(pack.AppendBytes(e.head(nil), e.Sealed))
	return append([]byte(escrowLabel), h[:]...)
}

// Encode returns the one encoding of e.
func (e *Escrow) Encode() []byte {
	return append(pack.AppendBytes(e.head([]byte(escrowMagic)), e.Sealed), e.Signature...)
}

// ParseEscrow reads what Encode wrote, and nothing else. It verifies nothing. The
// result shares memory with b. Errors: ErrFile.
func ParseEscrow(b []byte) (*Escrow, error) {
	r, err := begin(b, escrowMagic, "escrow")
	if err != nil {
		return nil, err
	}
	e := new(Escrow)
	r.Array(e.Domain[:])
	e.Manifest = r.Uint64()
	e.Date = date(r)
	r.Array(e.Key[:])
	e.Versions = make([]uint32, r.Count(maxVersions, 4))
	for i := range e.Versions {
		if e.Versions[i] = r.Uint32(); e.Versions[i] == 0 || i > 0 && e.Versions[i] <= e.Versions[i-1] {
			r.Fail("versions are not ascending from 1")
		}
	}
	e.Sealed = r.Bytes(maxBundle + overhead)
	e.Signature = r.Fixed(ed25519.SignatureSize)
	if len(e.Versions) == 0 || len(e.Sealed) <= overhead {
		r.Fail("it is empty")
	}
	return e, end(r, "escrow")
}

// Verify checks that e was written by a TEE of the domain of s, for the recovery
// key of s. An older escrow passes: its date and versions say how old it is. Errors: ErrDomain, ErrSignature,
// ErrNoRecovery, ErrRecoveryKey.
func (e *Escrow) Verify(s *manifest.State) error {
	switch {
	case e.Domain != s.Domain: // check: escrow-domain
		return fmt.Errorf("escrow %w: it is %s, this is %s", ErrDomain, e.Domain, s.Domain)
	case !ed25519.Verify(s.DomainKey, e.SignedText(), e.Signature): // check: escrow-signed
		return ErrSignature
	case s.Recovery == nil:
		return ErrNoRecovery
	case e.Key != KeyID(s.Recovery): // check: escrow-recovery-key
		return fmt.Errorf("escrow %w", ErrRecoveryKey)
	}
	return nil
}

// date reads a time in Unix seconds that has a year of four digits.
func date(r *pack.Reader) time.Time {
	seconds := r.Int64()
	t := time.Unix(seconds, 0).UTC()
	if seconds < 0 || t.Year() > maxYear {
		r.Fail("date is out of range")
	}
	return t
}

// begin returns what reads a file after its first line.
func begin(b []byte, magic, what string) (*pack.Reader, error) {
	switch {
	case len(b) > MaxFile:
		return nil, fmt.Errorf("%w: %s of %d bytes, limit %d", ErrFile, what, len(b), MaxFile)
	case len(b) < len(magic) || string(b[:len(magic)]) != magic:
		return nil, fmt.Errorf("%w: it is no %s", ErrFile, what)
	}
	return pack.NewReader(b[len(magic):]), nil
}

func end(r *pack.Reader, what string) error {
	if err := r.Close(); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrFile, what, err)
	}
	return nil
}

// keySize is the size of a public key for HPKE in bytes.
const keySize = wire.HPKEKeySize
