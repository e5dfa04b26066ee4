package primitive

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
)

const (
	// maxPEM is more than an RSA-4096 key needs, in bytes.
	maxPEM = 4 << 10
	// Moduli a caller may bring: 112 bits of strength, and what an RSA operation
	// may cost us.
	minTargetBits = 2048
	maxTargetBits = 4096
)

// Public is a public key that a caller brought, to encrypt a data key for.
type Public struct {
	encryption interface {
		encrypt(plaintext []byte, p Padding) ([]byte, error)
	}
	rsa bool
}

// ParsePublicTarget reads one PEM block and nothing but white space around it:
// "RSA PUBLIC KEY" (PKCS#1), or "PUBLIC KEY" (SubjectPublicKeyInfo) of RSA or SM2.
// RSA moduli have 2048 to 4096 bits and the exponent is odd, from 65537 to 2^31-1;
// SM2 points are uncompressed. Everything else is ErrParameter.
func ParsePublicTarget(text string) (*Public, error) {
	if len(text) > maxPEM {
		return nil, fmt.Errorf("parse public key: got %d bytes, at most %d: %w", len(text), maxPEM, ErrParameter)
	}
	text = strings.TrimSpace(text)
	block, rest := pem.Decode([]byte(text))
	if block == nil || len(block.Headers) > 0 || len(rest) > 0 || !strings.HasPrefix(text, "-----BEGIN ") {
		return nil, fmt.Errorf("parse public key: no PEM block alone: %w", ErrParameter)
	}
	switch block.Type {
	case "RSA PUBLIC KEY":
		key, err := x509.ParsePKCS1PublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse PKCS#1 public key: %w", ErrParameter)
		}
		return rsaTarget(key)
	case "PUBLIC KEY":
		return spkiTarget(block.Bytes)
	}
	return nil, fmt.Errorf("parse public key of type %q: %w", block.Type, ErrParameter)
}

func spkiTarget(der []byte) (*Public, error) {
	if point, ok := bytes.CutPrefix(der, sm2SPKI); ok {
		key, err := parseSM2Point(point)
		if err != nil {
			return nil, fmt.Errorf("parse SM2 public key: %w", ErrParameter)
		}
		return &Public{encryption: sm2Public{key}}, nil
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("parse public key: %w", ErrParameter)
	}
	if key, ok := key.(*rsa.PublicKey); ok {
		return rsaTarget(key)
	}
	return nil, fmt.Errorf("parse public key: got %T, want RSA or SM2: %w", key, ErrParameter)
}

func rsaTarget(key *rsa.PublicKey) (*Public, error) {
	bits := key.N.BitLen()
	if bits < minTargetBits || bits > maxTargetBits || key.N.Bit(0) == 0 {
		return nil, fmt.Errorf("RSA modulus of %d bits: %w", bits, ErrParameter)
	}
	if key.E < rsaExponent || key.E%2 == 0 || key.E > 1<<31-1 {
		return nil, fmt.Errorf("RSA exponent %d: %w", key.E, ErrParameter)
	}
	return &Public{encryption: rsaPublic{key}, rsa: true}, nil
}

// RSA says whether the key is an RSA key, the only kind with a choice of padding.
func (k *Public) RSA() bool { return k.rsa }

// Encrypt encrypts plaintext for the key. RSA takes PaddingPKCS1 (modulus bytes
// - 11) or PaddingOAEP (modulus bytes - 66); SM2 ignores p, takes 1 to 255 bytes
// and gives the ASN.1 DER of GM/T 0009. It returns ErrParameter if the padding
// is another or the plaintext does not fit.
func (k *Public) Encrypt(plaintext []byte, p Padding) ([]byte, error) {
	return k.encryption.encrypt(plaintext, p)
}
