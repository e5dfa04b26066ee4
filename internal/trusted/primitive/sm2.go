package primitive

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/asn1"
	"fmt"
	"io"
	"math/big"
	"slices"

	"github.com/emmansun/gmsm/sm2"
	"github.com/emmansun/gmsm/sm3"
)

const (
	sm2ScalarLen = 32
	sm2PointLen  = 1 + 2*sm2ScalarLen
	// sm2MaxPlaintext is the most bytes that one SM2 encryption takes.
	sm2MaxPlaintext = 255
	// sm2UserID enters Z; GM/T 0009 section 10 gives it as the default.
	sm2UserID = "1234567812345678"
)

// sm2SPKI is the SubjectPublicKeyInfo of an SM2 key up to the point:
// id-ecPublicKey, sm2p256v1 (1.2.156.10197.1.301), BIT STRING of 65 bytes.
// GM/T 0009 section 7.1 and RFC 5480 section 2.
var sm2SPKI = []byte{
	0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01,
	0x06, 0x08, 0x2a, 0x81, 0x1c, 0xcf, 0x55, 0x01, 0x82, 0x2d, 0x03, 0x42, 0x00,
}

// sm2Public verifies and encrypts, GB/T 32918.2 and 32918.4.
type sm2Public struct{ key *ecdsa.PublicKey }

// sm2Private is an SM2 key.
type sm2Private struct {
	sm2Public
	private *sm2.PrivateKey
	decoy   []byte
}

func newSM2() ([]byte, error) {
	key, err := sm2.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	d, x, y := key.D, key.X, key.Y
	return append(d.FillBytes(make([]byte, sm2ScalarLen)), sm2Point(x, y)...), nil
}

// sm2Point is the uncompressed point; x and y are at most 256 bits long.
func sm2Point(x, y *big.Int) []byte {
	point := make([]byte, sm2PointLen)
	point[0] = uncompressed
	x.FillBytes(point[1 : 1+sm2ScalarLen])
	y.FillBytes(point[1+sm2ScalarLen:])
	return point
}

func openSM2(material []byte) (operations, error) {
	if len(material) != sm2ScalarLen+sm2PointLen {
		return nil, ErrMaterial
	}
	pub, err := parseSM2Point(material[sm2ScalarLen:])
	if err != nil {
		return nil, ErrMaterial
	}
	// GB/T 32918.1 section 6.1: the scalar is in [1, n-2].
	d, limit := new(big.Int).SetBytes(material[:sm2ScalarLen]), sm2.P256().Params().N
	if d.Sign() == 0 || d.Cmp(new(big.Int).Sub(limit, big.NewInt(1))) >= 0 {
		return nil, ErrMaterial
	}
	//lint:ignore SA1019 sm2.NewPrivateKey would compute the point that we have
	private, err := new(sm2.PrivateKey).FromECPrivateKey(&ecdsa.PrivateKey{PublicKey: *pub, D: d})
	if err != nil {
		return nil, ErrMaterial
	}
	decoy, err := sm2Decoy()
	if err != nil {
		return nil, err
	}
	return sm2Private{sm2Public{&private.PublicKey}, private, decoy}, nil
}

// parseSM2Point takes the uncompressed form only.
func parseSM2Point(point []byte) (*ecdsa.PublicKey, error) {
	if len(point) != sm2PointLen || point[0] != uncompressed {
		return nil, ErrParameter
	}
	return sm2.NewPublicKey(point)
}

// digest is SM3(Z | message), GB/T 32918.2 section 5.5 and 6.1.
func (k sm2Public) digest(message []byte) ([]byte, error) {
	digest, err := sm2.CalculateSM2Hash(k.key, message, []byte(sm2UserID))
	if err != nil {
		return nil, fmt.Errorf("hash for SM2: %w", err)
	}
	return digest, nil
}

// sign takes what it is given for the message, also if it is said to be a
// digest: that is what the native API does.
func (k sm2Private) sign(message []byte, mt MessageType, _ Digest, _ Padding) ([]byte, error) {
	if mt != MessageRaw && mt != MessageDigest {
		return nil, fmt.Errorf("sign a message of type %s: %w", mt, ErrParameter)
	}
	digest, err := k.digest(message)
	if err != nil {
		return nil, err
	}
	signature, err := sm2.SignASN1(rand.Reader, k.private, digest, nil)
	if err != nil {
		return nil, fmt.Errorf("sign with SM2: %w", err)
	}
	return signature, nil
}

func (k sm2Public) verify(message, signature []byte, mt MessageType, d Digest, _ Padding) (bool, error) {
	if mt != MessageRaw && mt != MessageDigest || d != SM3 {
		return false, fmt.Errorf("verify SM2 with %s and %s: %w", mt, d, ErrParameter)
	}
	digest, err := k.digest(message)
	if err != nil {
		return false, err
	}
	return sm2.VerifyASN1(k.key, digest, signature), nil
}

func (k sm2Public) encrypt(plaintext []byte, _ Padding) ([]byte, error) {
	if len(plaintext) == 0 || len(plaintext) > sm2MaxPlaintext {
		return nil, fmt.Errorf("encrypt with SM2: got %d bytes, want 1 to %d: %w", len(plaintext), sm2MaxPlaintext, ErrParameter)
	}
	return k.encryptFrom(rand.Reader, plaintext)
}

// sm2Retries bounds the attempts of one encryption. An attempt fails if the key
// stream is zero, for n bytes once in 2^8n.
const sm2Retries = 64

// encryptFrom draws the scalar of GB/T 32918.4 section 6.1 from random, 32 bytes
// an attempt. gmsm v0.44.0 overwrites the public key with the point of its first
// attempt, so that what it makes in a second one opens under no key. It gets
// randomness for one attempt, and we start over.
func (k sm2Public) encryptFrom(random io.Reader, plaintext []byte) ([]byte, error) {
	for range sm2Retries {
		source := oneScalar{random: random}
		ciphertext, err := sm2.EncryptASN1(&source, k.key, plaintext)
		if err == nil {
			return ciphertext, nil
		}
		if !source.spent {
			return nil, fmt.Errorf("encrypt with SM2: %w", err)
		}
	}
	return nil, fmt.Errorf("encrypt with SM2: no usable scalar in %d", sm2Retries)
}

// oneScalar lets one scalar be read and fails afterwards.
type oneScalar struct {
	random      io.Reader
	used, spent bool
}

func (r *oneScalar) Read(b []byte) (int, error) {
	if r.used {
		r.spent = true
		return 0, io.ErrUnexpectedEOF
	}
	r.used = true
	return io.ReadFull(r.random, b)
}

// sm2Ciphertext is the SM2Cipher of GM/T 0009 section 7.2.
type sm2Ciphertext struct {
	X, Y       *big.Int
	Hash       []byte
	Ciphertext []byte
}

// sm2Decoy is a ciphertext that parses and whose hash is wrong.
func sm2Decoy() ([]byte, error) {
	g := sm2.P256().Params()
	return asn1.Marshal(sm2Ciphertext{g.Gx, g.Gy, make([]byte, sm3.Size), make([]byte, 1)})
}

// sm2WellFormed says whether ciphertext is the one DER encoding of a point of
// the curve, a hash and at least one byte.
func sm2WellFormed(ciphertext []byte) bool {
	var c sm2Ciphertext
	rest, err := asn1.Unmarshal(ciphertext, &c)
	if err != nil || len(rest) > 0 || len(c.Hash) != sm3.Size || len(c.Ciphertext) == 0 {
		return false
	}
	again, err := asn1.Marshal(c)
	if err != nil || !bytes.Equal(again, ciphertext) {
		return false
	}
	if c.X.Sign() < 0 || c.Y.Sign() < 0 || c.X.BitLen() > 8*sm2ScalarLen || c.Y.BitLen() > 8*sm2ScalarLen {
		return false
	}
	_, err = parseSM2Point(sm2Point(c.X, c.Y))
	return err == nil
}

// decrypt replaces what is no ciphertext at all by one that cannot open, so that
// it fails after the same work as any other. gmsm alone would also take the
// older encodings without DER.
func (k sm2Private) decrypt(ciphertext []byte, _ Padding) ([]byte, error) {
	good := sm2WellFormed(ciphertext)
	if !good {
		ciphertext = k.decoy
	}
	plaintext, err := k.private.Decrypt(nil, ciphertext, sm2.ASN1DecrypterOpts)
	if err != nil || !good {
		return nil, ErrDecrypt
	}
	return plaintext, nil
}

func (k sm2Public) publicPEM() (string, error) {
	//lint:ignore SA1019 crypto/ecdsa encodes the NIST curves only
	point := sm2Point(k.key.X, k.key.Y)
	return toPEM("PUBLIC KEY", slices.Concat(sm2SPKI, point)), nil
}
