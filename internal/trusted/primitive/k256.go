package primitive

import (
	"crypto/rand"
	"slices"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

const (
	k256ScalarLen = 32
	uncompressed  = 0x04
)

// k256SPKI is the SubjectPublicKeyInfo of a secp256k1 key up to the point:
// id-ecPublicKey (1.2.840.10045.2.1), secp256k1 (1.3.132.0.10), BIT STRING of 65
// bytes. RFC 5480 section 2; crypto/x509 does not know the curve.
var k256SPKI = []byte{
	0x30, 0x56, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01,
	0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a, 0x03, 0x42, 0x00,
}

// k256Private is an ECDSA key on secp256k1.
//
// The library's scalar multiplication and inversion take a time that depends on
// the scalar, and ECDSA gives the key away from a few bits of each nonce. So we
// sign ourselves, with the library's constant-time scalar arithmetic, and let
// the variable-time parts see only values masked by fresh randomness.
type k256Private struct {
	noEncryption
	d   secp256k1.ModNScalar
	pub *secp256k1.PublicKey
}

func newK256() ([]byte, error) {
	d := randomScalar()
	point := baseMult(&d)
	material := d.Bytes()
	return append(material[:], secp256k1.NewPublicKey(&point.X, &point.Y).SerializeUncompressed()...), nil
}

func openK256(material []byte) (operations, error) {
	if len(material) != k256ScalarLen+secp256k1.PubKeyBytesLenUncompressed || material[k256ScalarLen] != uncompressed {
		return nil, ErrMaterial
	}
	var k k256Private
	if overflow := k.d.SetByteSlice(material[:k256ScalarLen]); overflow || k.d.IsZero() {
		return nil, ErrMaterial
	}
	pub, err := secp256k1.ParsePubKey(material[k256ScalarLen:])
	if err != nil {
		return nil, ErrMaterial
	}
	k.pub = pub
	return &k, nil
}

// randomScalar is uniform in [1, n-1].
func randomScalar() (s secp256k1.ModNScalar) {
	for {
		var b [k256ScalarLen]byte
		rand.Read(b[:])
		if overflow := s.SetBytes(&b); overflow == 0 && !s.IsZero() {
			return s
		}
	}
}

// baseMult is k times the generator, affine, as (k-m)G + mG for a random m: each
// multiplication alone sees a scalar that is independent of k.
func baseMult(k *secp256k1.ModNScalar) (sum secp256k1.JacobianPoint) {
	m := randomScalar()
	rest := new(secp256k1.ModNScalar).NegateVal(&m).Add(k)
	var a, b secp256k1.JacobianPoint
	secp256k1.ScalarBaseMultNonConst(rest, &a)
	secp256k1.ScalarBaseMultNonConst(&m, &b)
	secp256k1.AddNonConst(&a, &b, &sum)
	sum.ToAffine()
	return sum
}

// inverse is k^-1, as (km)^-1 * m for a random m.
func inverse(k *secp256k1.ModNScalar) *secp256k1.ModNScalar {
	m := randomScalar()
	return new(secp256k1.ModNScalar).Mul2(k, &m).InverseNonConst().Mul(&m)
}

// sign hedges RFC 6979 with 32 random bytes (its section 3.6), so that neither
// bad randomness nor a fault in a repeated signature reveals the key.
func (k *k256Private) sign(message []byte, mt MessageType, d Digest, _ Padding) ([]byte, error) {
	digest, err := prehashExact(message, mt, d)
	if err != nil {
		return nil, err
	}
	var hedge [32]byte
	rand.Read(hedge[:])
	return k.signDigest(digest, hedge[:]), nil
}

// signDigest is ECDSA, FIPS 186-5 section 6.4.1, with the smaller of the two
// values of s. An empty hedge makes it deterministic, for known answers.
func (k *k256Private) signDigest(digest, hedge []byte) []byte {
	secretBytes := k.d.Bytes()
	defer clear(secretBytes[:])
	var e secp256k1.ModNScalar
	e.SetByteSlice(digest) // the leftmost 256 bits
	for i := uint32(0); ; i++ {
		nonce := secp256k1.NonceRFC6979(secretBytes[:], digest, hedge, nil, i)
		point := baseMult(nonce)
		var r, s secp256k1.ModNScalar
		r.SetByteSlice(point.X.Bytes()[:])
		s.Mul2(&k.d, &r).Add(&e).Mul(inverse(nonce))
		nonce.Zero()
		if !r.IsZero() && !s.IsZero() {
			return ecdsa.NewSignature(&r, &s).Serialize()
		}
	}
}

func (k *k256Private) verify(message, signature []byte, mt MessageType, d Digest, _ Padding) (bool, error) {
	digest, err := prehash(message, mt, d)
	if err != nil {
		return false, err
	}
	parsed, err := ecdsa.ParseDERSignature(signature)
	return err == nil && len(digest) > 0 && parsed.Verify(digest, k.pub), nil
}

func (k *k256Private) publicPEM() (string, error) {
	return toPEM("PUBLIC KEY", slices.Concat(k256SPKI, k.pub.SerializeUncompressed())), nil
}
