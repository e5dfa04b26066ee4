package primitive

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/pem"
	"fmt"
)

const (
	rsaExponent = 65537
	// Overheads of RFC 8017: 0x00 0x02, eight bytes or more of padding, 0x00; and
	// for OAEP 0x00, seed, label hash, 0x01.
	pkcs1Overhead = 11
	oaepOverhead  = 2 + 2*sha256.Size
)

// rsaPublic encrypts and verifies under an RSA public key.
type rsaPublic struct{ key *rsa.PublicKey }

// rsaPrivate is an RSA key with its CRT values. Signatures are checked with the
// public key before they leave the standard library, so that a fault in one half
// of the CRT cannot give the factors away (Boneh, DeMillo, Lipton 1997):
// crypto/internal/fips140/rsa, decrypt with withCheck, called by signPKCS1v15
// and SignPSS. TestRSAFaults holds it to that.
type rsaPrivate struct {
	rsaPublic
	private *rsa.PrivateKey
}

// newRSA makes material: PKCS#1 RSAPrivateKey in DER (RFC 8017 appendix A.1.2),
// two primes, exponent 65537. PKCS#8 would add 26 constant bytes.
func newRSA(bits int) ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, err
	}
	return x509.MarshalPKCS1PrivateKey(key), nil
}

func openRSA(material []byte, bits int) (operations, error) {
	key, err := x509.ParsePKCS1PrivateKey(material)
	if err != nil {
		return nil, ErrMaterial // the cause might quote the material
	}
	// crypto/x509 takes the CRT values as optional; material has one encoding.
	again := x509.MarshalPKCS1PrivateKey(key)
	defer clear(again)
	if subtle.ConstantTimeCompare(again, material) != 1 {
		return nil, ErrMaterial
	}
	if key.N.BitLen() != bits || key.E != rsaExponent || len(key.Primes) != 2 {
		return nil, ErrMaterial
	}
	return rsaPrivate{rsaPublic{&key.PublicKey}, key}, nil
}

// rsaDigest refuses the digests and paddings that RSA signatures do not have.
func rsaDigest(d Digest, p Padding) error {
	if _, ok := d.standard(); !ok {
		return fmt.Errorf("RSA signature with %s: %w", d, ErrParameter)
	}
	if p != PaddingPKCS1 && p != PaddingPSS {
		return fmt.Errorf("RSA signature with %s: %w", p, ErrParameter)
	}
	return nil
}

// pssOptions fixes the salt at the length of the digest, for both directions.
func pssOptions() *rsa.PSSOptions {
	return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
}

func (k rsaPrivate) sign(message []byte, mt MessageType, d Digest, p Padding) ([]byte, error) {
	if err := rsaDigest(d, p); err != nil {
		return nil, err
	}
	digest, err := prehashExact(message, mt, d)
	if err != nil {
		return nil, err
	}
	hash, _ := d.standard()
	var signature []byte
	if p == PaddingPSS {
		signature, err = rsa.SignPSS(rand.Reader, k.private, hash, digest, pssOptions())
	} else {
		signature, err = rsa.SignPKCS1v15(nil, k.private, hash, digest)
	}
	if err != nil {
		return nil, fmt.Errorf("sign with RSA: %w", err)
	}
	return signature, nil
}

func (k rsaPublic) verify(message, signature []byte, mt MessageType, d Digest, p Padding) (bool, error) {
	if err := rsaDigest(d, p); err != nil {
		return false, err
	}
	if len(signature) != k.key.Size() {
		return false, fmt.Errorf("RSA signature: got %d bytes, want %d: %w", len(signature), k.key.Size(), ErrParameter)
	}
	digest, err := prehash(message, mt, d)
	if err != nil {
		return false, err
	}
	hash, _ := d.standard()
	if p == PaddingPSS {
		return rsa.VerifyPSS(k.key, hash, digest, signature, pssOptions()) == nil, nil
	}
	return rsa.VerifyPKCS1v15(k.key, hash, digest, signature) == nil, nil
}

// maxPlaintext is the most that padding p leaves room for, in bytes.
func (k rsaPublic) maxPlaintext(p Padding) (int, error) {
	switch p {
	case PaddingPKCS1:
		return k.key.Size() - pkcs1Overhead, nil
	case PaddingOAEP:
		return k.key.Size() - oaepOverhead, nil
	}
	return 0, fmt.Errorf("RSA encryption with %s: %w", p, ErrParameter)
}

func (k rsaPublic) encrypt(plaintext []byte, p Padding) ([]byte, error) {
	limit, err := k.maxPlaintext(p)
	if err != nil {
		return nil, err
	}
	if len(plaintext) > limit {
		return nil, fmt.Errorf("encrypt with RSA: got %d bytes, at most %d: %w", len(plaintext), limit, ErrParameter)
	}
	var ciphertext []byte
	if p == PaddingOAEP {
		ciphertext, err = rsa.EncryptOAEP(sha256.New(), rand.Reader, k.key, plaintext, nil)
	} else {
		//lint:ignore SA1019 the native API offers it; which keys admit it is sealed with them
		ciphertext, err = rsa.EncryptPKCS1v15(rand.Reader, k.key, plaintext)
	}
	if err != nil {
		return nil, fmt.Errorf("encrypt with RSA: %w", err)
	}
	return ciphertext, nil
}

// decrypt replaces what is no ciphertext of this modulus by 0, which has neither
// padding, so that it fails after the same work as any other.
func (k rsaPrivate) decrypt(ciphertext []byte, p Padding) ([]byte, error) {
	if _, err := k.maxPlaintext(p); err != nil {
		return nil, err
	}
	good := len(ciphertext) == k.key.Size() && bytes.Compare(ciphertext, k.key.N.Bytes()) < 0
	if !good {
		ciphertext = make([]byte, k.key.Size())
	}
	var plaintext []byte
	var err error
	if p == PaddingOAEP {
		plaintext, err = rsa.DecryptOAEP(sha256.New(), nil, k.private, ciphertext, nil)
	} else {
		//lint:ignore SA1019 the native API offers it; see Private.Decrypt for what the caller owes
		plaintext, err = rsa.DecryptPKCS1v15(nil, k.private, ciphertext)
	}
	if err != nil || !good {
		return nil, ErrDecrypt
	}
	return plaintext, nil
}

func (k rsaPublic) publicPEM() (string, error) {
	return toPEM("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(k.key)), nil
}

func toPEM(label string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}))
}
