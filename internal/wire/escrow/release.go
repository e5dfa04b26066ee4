package escrow

import (
	"crypto/hpke"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// digestLabel starts what the digest of a share hashes.
const digestLabel = "ehsm/recovery-share-digest/v1\x00"

// ErrDigest says that an opened share is not the one that a TEE has made.
var ErrDigest = errors.New("the share is not one of the domain's recovery key")

// Digest is what a manifest has of an opened share.
func Digest(index uint8, value []byte) [sha256.Size]byte {
	return sha256.Sum256(append(append([]byte(digestLabel), index), value...))
}

// CheckDigest compares an opened share with the manifest, in constant time. Errors:
// ErrDigest.
func CheckDigest(index uint8, value []byte, r *manifest.Recovery) error {
	at := (int(index) - 1) * sha256.Size
	if index == 0 || len(value) != ShareSize || len(r.Digests) < at+sha256.Size {
		return ErrDigest
	}
	if d := Digest(index, value); subtle.ConstantTimeCompare(d[:], r.Digests[at:at+sha256.Size]) != 1 { // check: share-digest
		return ErrDigest
	}
	return nil
}

// OpenShare decrypts a share with its custodian's key. The caller clears what it
// gets, ShareSize bytes, and calls CheckDigest. Errors: ErrOpen.
func OpenShare(key hpke.PrivateKey, s *Share) ([]byte, error) {
	value, err := Open(key, s.Info(), s.Sealed)
	if err != nil {
		return nil, fmt.Errorf("share of %s: %w", s.Custodian, err)
	}
	return value, nil
}

// Release encrypts an opened share to the session key of a request, and to nobody
// else. Whoever calls it has judged the request: see package restoration.
func Release(s *Share, value []byte, r *Request) (*Answer, error) {
	a := &Answer{Domain: s.Domain, Session: SessionID(r.Session[:]), Index: s.Index, Custodian: s.Custodian}
	var err error
	if a.Sealed, err = Seal(r.Session[:], a.Info(), value); err != nil {
		return nil, fmt.Errorf("session key of the request: %w", err)
	}
	return a, nil
}
