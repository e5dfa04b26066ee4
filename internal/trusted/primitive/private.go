package primitive

import (
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
)

// Private is one opened version of an asymmetric key or of an HMAC key. It is
// parsed once and may be kept in a cache; it is safe for concurrent use and
// shows nothing but an address to formatters.
//
// Errors of its methods wrap ErrUsage (the spec has no such operation) or
// ErrParameter (digest, padding, message type or length not allowed), or are
// ErrDecrypt itself; any other error is a fault of the machine.
type Private struct {
	spec Spec
	// ops is a func because fmt would print what an interface holds.
	ops func() operations
}

// operations is what a family of keys does. Those that it does not do return
// ErrUsage.
type operations interface {
	sign(message []byte, mt MessageType, d Digest, p Padding) ([]byte, error)
	verify(message, signature []byte, mt MessageType, d Digest, p Padding) (bool, error)
	encrypt(plaintext []byte, p Padding) ([]byte, error)
	decrypt(ciphertext []byte, p Padding) ([]byte, error)
	publicPEM() (string, error)
}

// OpenPrivate parses material made by NewMaterial. The material is read, not
// kept: the caller may zero it afterwards. It returns ErrUsage for symmetric
// specs and ErrMaterial if the material does not parse.
func OpenPrivate(spec Spec, material secret.Bytes) (*Private, error) {
	ops, err := openOperations(spec, material.Expose())
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", spec, err)
	}
	return &Private{spec: spec, ops: func() operations { return ops }}, nil
}

func openOperations(spec Spec, material []byte) (operations, error) {
	switch spec.family() {
	case familyRSA:
		return openRSA(material, specs[spec].bits)
	case familyEC:
		if spec == ECP256K {
			return openK256(material)
		}
		return openEC(material, curveOf(spec))
	case familySM2:
		return openSM2(material)
	case familyHMAC:
		return openHMAC(material)
	}
	return nil, ErrUsage
}

// Spec is the spec that the key was opened as.
func (k *Private) Spec() Spec { return k.spec }

// Sign signs message.
//
//   - RSA: PaddingPKCS1 or PaddingPSS, any digest but SM3; as long as the modulus.
//   - EC: ECDSA with any digest, ASN.1 DER SEQUENCE(r, s).
//   - SM2: SM3 over Z (user id 1234567812345678) and message whatever d and mt
//     say, ASN.1 DER.
//   - HMAC: HMAC-SHA-256, 32 bytes; mt must be MessageRaw and d SHA256.
//
// Under MessageDigest, RSA and EC want exactly d.Size bytes. Only RSA looks at p.
func (k *Private) Sign(message []byte, mt MessageType, d Digest, p Padding) ([]byte, error) {
	return k.ops().sign(message, mt, d, p)
}

// Verify says whether signature is one of message, under the rules of Sign with
// three differences: a digest of any length is looked at, SM2 wants d to be SM3,
// and RSA returns ErrParameter for a signature not as long as the modulus. A
// malformed DER signature is just false.
func (k *Private) Verify(message, signature []byte, mt MessageType, d Digest, p Padding) (bool, error) {
	return k.ops().verify(message, signature, mt, d, p)
}

// Encrypt encrypts for this key, as Public.Encrypt. EC and HMAC keys do not.
func (k *Private) Encrypt(plaintext []byte, p Padding) ([]byte, error) {
	return k.ops().encrypt(plaintext, p)
}

// Decrypt is the inverse of Encrypt. Every failure that depends on ciphertext is
// ErrDecrypt, after one private key operation. Under PaddingPKCS1 the failure is
// an oracle all the same (Bleichenbacher, CRYPTO '98): the caller counts and
// limits it.
func (k *Private) Decrypt(ciphertext []byte, p Padding) ([]byte, error) {
	return k.ops().decrypt(ciphertext, p)
}

// PublicPEM is the public key, ending in a newline: PKCS#1 ("RSA PUBLIC KEY")
// for RSA, SubjectPublicKeyInfo with a named curve ("PUBLIC KEY") for EC and SM2.
// It returns ErrUsage for HMAC.
func (k *Private) PublicPEM() (string, error) { return k.ops().publicPEM() }
