package primitive

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
)

// Material of EC and SM2 keys: the private scalar, big endian in as many bytes
// as the group order has, then the public point, uncompressed (SEC 1 section
// 2.3.3: 04, x, y). The point saves a scalar multiplication at each opening, 0.1
// to 0.6 ms on the larger curves. It is checked to lie on the curve; that it
// belongs to the scalar is known from NewMaterial, and kept by the seal.

// noEncryption gives a family without encryption the methods that say so.
type noEncryption struct{}

func (noEncryption) encrypt([]byte, Padding) ([]byte, error) {
	return nil, fmt.Errorf("encrypt: %w", ErrUsage)
}

func (noEncryption) decrypt([]byte, Padding) ([]byte, error) {
	return nil, fmt.Errorf("decrypt: %w", ErrUsage)
}

// ecPrivate is an ECDSA key on a NIST curve, FIPS 186-5.
type ecPrivate struct {
	noEncryption
	key *ecdsa.PrivateKey
}

func curveOf(s Spec) elliptic.Curve {
	switch s {
	case ECP224:
		return elliptic.P224()
	case ECP256:
		return elliptic.P256()
	case ECP384:
		return elliptic.P384()
	case ECP521:
		return elliptic.P521()
	}
	return nil
}

func newEC(curve elliptic.Curve) ([]byte, error) {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		return nil, err
	}
	scalar, err := key.Bytes()
	if err != nil {
		return nil, err
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	return append(scalar, point...), nil
}

func openEC(material []byte, curve elliptic.Curve) (operations, error) {
	n := (curve.Params().N.BitLen() + 7) / 8
	if len(material) < n {
		return nil, ErrMaterial
	}
	point, err := ecdsa.ParseUncompressedPublicKey(curve, material[n:])
	if err != nil {
		return nil, ErrMaterial
	}
	d := new(big.Int).SetBytes(material[:n])
	if d.Sign() == 0 || d.Cmp(curve.Params().N) >= 0 {
		return nil, ErrMaterial
	}
	//lint:ignore SA1019 ParseRawPrivateKey would compute the point that we have
	return ecPrivate{key: &ecdsa.PrivateKey{PublicKey: *point, D: d}}, nil
}

// sign is hedged: crypto/ecdsa draws the nonce from key, digest and randomness.
func (k ecPrivate) sign(message []byte, mt MessageType, d Digest, _ Padding) ([]byte, error) {
	digest, err := prehashExact(message, mt, d)
	if err != nil {
		return nil, err
	}
	signature, err := ecdsa.SignASN1(rand.Reader, k.key, digest)
	if err != nil {
		return nil, fmt.Errorf("sign with ECDSA: %w", err)
	}
	return signature, nil
}

func (k ecPrivate) verify(message, signature []byte, mt MessageType, d Digest, _ Padding) (bool, error) {
	digest, err := prehash(message, mt, d)
	if err != nil {
		return false, err
	}
	return len(digest) > 0 && ecdsa.VerifyASN1(&k.key.PublicKey, digest, signature), nil
}

func (k ecPrivate) publicPEM() (string, error) {
	der, err := x509.MarshalPKIXPublicKey(&k.key.PublicKey)
	if err != nil {
		return "", fmt.Errorf("marshal public key: %w", err)
	}
	return toPEM("PUBLIC KEY", der), nil
}
