package jwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
)

// Algorithm is a signature algorithm of RFC 7518 and RFC 8037. Numbers are persisted
// and never change. There is none for a shared secret, and none for no signature.
type Algorithm uint8

const (
	_     Algorithm = iota
	RS256           // RSASSA-PKCS1-v1_5 with SHA-256
	PS256           // RSASSA-PSS with SHA-256 and a salt of 32 bytes
	ES256           // ECDSA on P-256 with SHA-256
	ES384           // ECDSA on P-384 with SHA-384
	EdDSA           // Ed25519
)

// String returns the name that a header has for the algorithm.
func (a Algorithm) String() string {
	switch a {
	case RS256:
		return "RS256"
	case PS256:
		return "PS256"
	case ES256:
		return "ES256"
	case ES384:
		return "ES384"
	case EdDSA:
		return "EdDSA"
	}
	return fmt.Sprintf("algorithm %d", uint8(a))
}

// parseAlgorithm returns the algorithm of a name, 0 for every other name.
func parseAlgorithm(name string) Algorithm {
	for a := RS256; a <= EdDSA; a++ {
		if a.String() == name {
			return a
		}
	}
	return 0
}

// Limits of keys.
const (
	MaxKeyID   = 128  // bytes of a key id
	minModulus = 2048 // bits of RSA
	maxModulus = 4096
	// MaxPublic is the longest Key.Public, in bytes: RSA with maxModulus.
	MaxPublic = 560
)

// A Key is a public key of an issuer. It verifies one algorithm and no other, whatever
// the header of a token says.
type Key struct {
	ID        string // "kid", 1 to MaxKeyID bytes
	Algorithm Algorithm
	// Public is PKCS#1 in DER for RSA, an uncompressed point for ECDSA, 32 bytes for
	// Ed25519.
	Public []byte
}

var errPublic = errors.New("public key is malformed")

// Check refuses a key that Verify could not use, or that is too weak.
func (k *Key) Check() error {
	if k.ID == "" || len(k.ID) > MaxKeyID {
		return fmt.Errorf("key id of %d bytes, want 1 to %d", len(k.ID), MaxKeyID)
	}
	_, err := k.public()
	return err
}

// public parses the key.
func (k *Key) public() (crypto.PublicKey, error) {
	switch k.Algorithm {
	case RS256, PS256:
		return parseRSA(k.Public)
	case ES256:
		return parsePoint(elliptic.P256(), k.Public)
	case ES384:
		return parsePoint(elliptic.P384(), k.Public)
	case EdDSA:
		if len(k.Public) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("%w: %d bytes, want %d", errPublic, len(k.Public), ed25519.PublicKeySize)
		}
		return ed25519.PublicKey(k.Public), nil
	}
	return nil, fmt.Errorf("%w: %s", errPublic, k.Algorithm)
}

func parseRSA(der []byte) (*rsa.PublicKey, error) {
	key, err := x509.ParsePKCS1PublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errPublic, err)
	}
	if n := key.N.BitLen(); n < minModulus || n > maxModulus {
		return nil, fmt.Errorf("%w: RSA of %d bits, want %d to %d", errPublic, n, minModulus, maxModulus)
	}
	if key.N.Bit(0) == 0 || key.E < 65537 || key.E%2 == 0 {
		return nil, fmt.Errorf("%w: RSA with exponent %d, or an even modulus", errPublic, key.E)
	}
	return key, nil
}

func parsePoint(curve elliptic.Curve, b []byte) (*ecdsa.PublicKey, error) {
	key, err := ecdsa.ParseUncompressedPublicKey(curve, b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errPublic, err)
	}
	return key, nil
}

// verify reports whether a signature over a message is the key's. ECDSA signatures
// are r and s of equal lengths (RFC 7518, 3.4).
func (k *Key) verify(message, signature []byte) bool {
	public, err := k.public()
	if err != nil {
		return false
	}
	short, long := sha256.Sum256(message), sha512.Sum384(message)
	switch k.Algorithm {
	case RS256:
		return rsa.VerifyPKCS1v15(public.(*rsa.PublicKey), crypto.SHA256, short[:], signature) == nil
	case PS256:
		o := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
		return rsa.VerifyPSS(public.(*rsa.PublicKey), crypto.SHA256, short[:], signature, o) == nil
	case ES256:
		return verifyECDSA(public.(*ecdsa.PublicKey), short[:], signature, 32)
	case ES384:
		return verifyECDSA(public.(*ecdsa.PublicKey), long[:], signature, 48)
	case EdDSA:
		return ed25519.Verify(public.(ed25519.PublicKey), message, signature)
	}
	return false
}

func verifyECDSA(key *ecdsa.PublicKey, digest, signature []byte, half int) bool {
	if len(signature) != 2*half {
		return false
	}
	r, s := new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])
	return ecdsa.Verify(key, digest, r, s)
}
