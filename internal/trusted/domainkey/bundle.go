package domainkey

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

const (
	bundleV1    = 1
	bundleLabel = "ehsm/domainkey-bundle/v1\x00"
	maxVersions = 1 << 16
	maxBundle   = 4 << 20 // bytes
)

// ErrSeal is returned for a bundle that this code on this machine cannot open,
// or that does not belong to the domain.
var ErrSeal = errors.New("DomainKey bundle does not open")

// seal encrypts the bundle under a fresh seal key of the platform that any
// version of the signer's code can derive. Layout: docs/formats.md#domainkey-bundle-v1.
func seal(p tee.Platform, domain genesis.ID, versions []secret.Bytes, signing secret.Bytes) ([]byte, error) {
	q, key, err := tee.NewSealKey(p, tee.BindSigner)
	if err != nil {
		return nil, cannotSeal(err)
	}
	aead, err := sealer(p, key)
	if err != nil {
		return nil, err
	}
	if len(q.Info) > tee.MaxKeyInfo {
		return nil, fmt.Errorf("%w: platform %s has %d bytes of key information, limit %d", tee.ErrKeyRequest, p.Name(), len(q.Info), tee.MaxKeyInfo)
	}
	plain := appendKeys(nil, signing, versions)
	defer clear(plain)

	out := []byte{bundleV1, byte(q.Policy)}
	out = binary.BigEndian.AppendUint16(out, q.SVN)
	out = append(out, q.KeyID[:]...)
	out = pack.AppendBytes(out, q.Info)
	out = append(out, domain[:]...)
	// The key is fresh with its random KeyID, so the nonce may be constant.
	return aead.Seal(out, make([]byte, aead.NonceSize()), plain, append([]byte(bundleLabel), out...)), nil
}

// appendKeys encodes signing key and versions. A version that is not held is
// written as zeros, which no DomainKey is.
func appendKeys(dst []byte, signing secret.Bytes, versions []secret.Bytes) []byte {
	dst = slices.Grow(dst, ed25519.SeedSize+4+KeySize*len(versions)) // or pieces of it would stay behind
	dst = append(dst, signing.Expose()...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(versions)))
	for _, dk := range versions {
		if dk.Len() == 0 {
			dst = append(dst, make([]byte, KeySize)...)
			continue
		}
		dst = append(dst, dk.Expose()...)
	}
	return dst
}

// unseal opens what seal made, into home. The signing key must be public's.
func unseal(home *secret.Home, p tee.Platform, public ed25519.PublicKey, domain genesis.ID, bundle []byte) (*Keyring, error) {
	if len(bundle) > maxBundle {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrSeal, len(bundle), maxBundle)
	}
	r := pack.NewReader(bundle)
	version := r.Uint8()
	q := tee.KeyRequest{Policy: tee.Policy(r.Uint8()), SVN: r.Uint16()}
	r.Array(q.KeyID[:])
	q.Info = r.Bytes(tee.MaxKeyInfo)
	var sealedFor genesis.ID
	r.Array(sealedFor[:])
	headLen := len(bundle) - r.Len()
	sealed := r.Rest()
	switch {
	case r.Err() != nil:
		return nil, fmt.Errorf("%w: %w", ErrSeal, r.Err())
	case version != bundleV1:
		return nil, fmt.Errorf("%w: format %d is unknown", ErrSeal, version)
	case sealedFor != domain:
		return nil, fmt.Errorf("%w: it is sealed for domain %s, this is %s", ErrSeal, sealedFor, domain)
	}
	key, err := p.SealKey(q)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSeal, cannotSeal(err))
	}
	aead, err := sealer(p, key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSeal, err)
	}
	plain, err := aead.Open(nil, make([]byte, aead.NonceSize()), sealed, append([]byte(bundleLabel), bundle[:headLen]...))
	if err != nil {
		return nil, fmt.Errorf("%w: it was sealed on another machine, for other code, or was changed", ErrSeal)
	}
	return parseBundle(home, public, domain, plain)
}

func parseBundle(home *secret.Home, public ed25519.PublicKey, domain genesis.ID, plain []byte) (*Keyring, error) {
	defer clear(plain)
	r := pack.NewReader(plain)
	seed := r.Fixed(ed25519.SeedSize)
	material := make([][]byte, r.Count(maxVersions, KeySize))
	for i := range material {
		material[i] = r.Fixed(KeySize)
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSeal, err)
	}
	signing, err := home.Move(seed)
	if err != nil {
		return nil, err
	}
	versions := make([]secret.Bytes, len(material))
	for i, b := range material {
		if secret.New(b).Equal(secret.New(make([]byte, KeySize))) {
			continue // forgotten
		}
		if versions[i], err = home.Move(b); err != nil {
			return nil, err
		}
	}
	if len(versions) == 0 || versions[len(versions)-1].Len() == 0 {
		return nil, fmt.Errorf("%w: it holds no version, or not the last", ErrSeal)
	}
	if !bytes.Equal(publicKey(signing), public) {
		return nil, fmt.Errorf("%w: its signing key is not the one the genesis names", ErrSeal)
	}
	return newKeyring(home, domain, versions, signing)
}

// cannotSeal says what to do on a platform without seal keys.
func cannotSeal(err error) error {
	if errors.Is(err, tee.ErrNoSealKey) {
		return fmt.Errorf("%w; provision the DomainKey", err)
	}
	return err
}

// sealer returns the AEAD under a seal key of p and zeroes the key. A zero key is refused: some
// run-times return one, without an error, outside an enclave. So is one of
// another size, which would quietly choose another strength of AES.
func sealer(p tee.Platform, key secret.Bytes) (cipher.AEAD, error) {
	defer key.Zero()
	if key.Len() != KeySize {
		return nil, fmt.Errorf("%w: platform %s returned %d bytes, want %d", tee.ErrKeyRequest, p.Name(), key.Len(), KeySize)
	}
	if key.Equal(secret.New(make([]byte, key.Len()))) {
		return nil, fmt.Errorf("%w: platform %s returned a zero key", tee.ErrKeyRequest, p.Name())
	}
	block, err := aes.NewCipher(key.Expose())
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
