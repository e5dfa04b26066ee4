package primitive

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"slices"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
)

// p256One is the material of the P-256 key 1, whose point is the generator.
func p256One(t testing.TB) []byte {
	return unhex(t, "0000000000000000000000000000000000000000000000000000000000000001"+
		"046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"+
		"4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5")
}

// encodeMaterial writes an opened key as material again.
func encodeMaterial(t testing.TB, k *Private) []byte {
	t.Helper()
	switch k := k.ops().(type) {
	case rsaPrivate:
		return x509.MarshalPKCS1PrivateKey(k.private)
	case ecPrivate:
		point, err := k.key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		scalar, err := k.key.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return append(scalar, point...)
	case *k256Private:
		scalar := k.d.Bytes()
		return append(scalar[:], k.pub.SerializeUncompressed()...)
	case sm2Private:
		//lint:ignore SA1019 crypto/ecdsa encodes the NIST curves only
		return append(k.private.D.FillBytes(make([]byte, sm2ScalarLen)), sm2Point(k.key.X, k.key.Y)...)
	case hmacPrivate:
		return k.key.Expose()
	}
	t.Fatal("unknown family")
	return nil
}

// FuzzParseMaterial opens anything as anything. What opens is the one encoding
// of what it is.
func FuzzParseMaterial(f *testing.F) {
	f.Add(uint8(RSA2048), testMaterial(f, RSA2048).Expose())
	f.Add(uint8(ECP256), p256One(f))
	f.Add(uint8(ECP256K), encodeMaterial(f, &Private{ops: func() operations { return k256FromScalar(f, p256One(f)[:32]) }}))
	f.Add(uint8(SM2), encodeMaterial(f, sm2Example(f)))
	f.Add(uint8(HMAC), make([]byte, 32))
	f.Fuzz(func(t *testing.T, number uint8, material []byte) {
		spec := Spec(number)
		k, err := OpenPrivate(spec, secret.Copy(material))
		if err != nil {
			return
		}
		if again := encodeMaterial(t, k); !bytes.Equal(again, material) {
			t.Errorf("%s opens %x, which is written %x", spec, material, again)
		}
	})
}

// TestMaterialIsOneEncoding is the same over material that opens.
func TestMaterialIsOneEncoding(t *testing.T) {
	for _, spec := range privateSpecs() {
		material := testMaterial(t, spec)
		k, err := OpenPrivate(spec, material)
		if err != nil {
			t.Fatal(err)
		}
		if again := encodeMaterial(t, k); !bytes.Equal(again, material.Expose()) {
			t.Errorf("%s: written again it differs", spec)
		}
	}
}

// FuzzDER gives Verify hostile signatures. One that verifies is the one DER
// encoding of its two integers.
func FuzzDER(f *testing.F) {
	digest := sha256.Sum256([]byte("message digest"))
	p256, err := OpenPrivate(ECP256, secret.New(p256One(f)))
	if err != nil {
		f.Fatal(err)
	}
	nist, err := p256.ops().(ecPrivate).key.Sign(nil, digest[:], crypto.SHA256) // RFC 6979
	if err != nil {
		f.Fatal(err)
	}
	k256 := k256FromScalar(f, p256One(f)[:32])
	f.Add(nist)
	f.Add(k256.signDigest(digest[:], nil))
	f.Add(derSignature(f,
		unhex(f, "f5a03b0648d2c4630eeac513e1bb81a15944da3827d5b74143ac7eaceee720b3"),
		unhex(f, "b1b6aa29df212fd8763182bc0d421ca1bb9038fd1f7f42d4840b69c485bbc1aa")))
	f.Add([]byte{0x30, 0})
	keys := []operations{p256.ops(), k256, sm2Example(f).ops()}
	f.Fuzz(func(t *testing.T, signature []byte) {
		for i, k := range keys {
			d := []Digest{SHA256, SHA256, SM3}[i]
			ok, err := k.verify([]byte("message digest"), signature, MessageRaw, d, PaddingNone)
			if err != nil {
				t.Errorf("%T: got %v, want no error", k, err)
			}
			if !ok {
				continue
			}
			var v rs
			rest, err := asn1.Unmarshal(signature, &v)
			if err != nil || len(rest) > 0 || !bytes.Equal(marshalASN1(t, v), signature) {
				t.Errorf("%T takes %x, which is not DER", k, signature)
			}
		}
	})
}

// FuzzSM2Decrypt gives Decrypt hostile ciphertexts: one error, and what opens is
// well formed.
func FuzzSM2Decrypt(f *testing.F) {
	f.Add(unhex(f, "3077022004ebfc718e8d1798620432268e77feb6415e2ede0e073c0f4f640ecd2e149a73"+
		"022100e858f9d81e5430a57b36daab8f950a3c64e6ee6a63094d99283aff767e124df0"+
		"042059983c18f809e262923c53aec295d30383b54e39d609d160afcb1908d0bd8766"+
		"041321886ca989ca9c7d58087307ca93092d651efa"))
	f.Add([]byte{0x04})
	key := sm2Example(f)
	f.Fuzz(func(t *testing.T, ciphertext []byte) {
		got, err := key.Decrypt(ciphertext, PaddingNone)
		if err != nil && (err != ErrDecrypt || got != nil) {
			t.Errorf("got %x, %v, want ErrDecrypt itself", got, err)
		}
		if err == nil && !sm2WellFormed(ciphertext) {
			t.Errorf("%x opens and is not well formed", ciphertext)
		}
	})
}

// FuzzParsePublicTarget reads hostile PEM. What it takes encrypts.
func FuzzParsePublicTarget(f *testing.F) {
	rsaText, err := testPrivate(f, RSA2048).PublicPEM()
	if err != nil {
		f.Fatal(err)
	}
	sm2Text, err := sm2Example(f).PublicPEM()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(rsaText)
	f.Add(sm2Text)
	f.Add(toPEM("PUBLIC KEY", slices.Concat(sm2SPKI, p256One(f)[32:])))
	f.Add("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		key, err := ParsePublicTarget(text)
		if err != nil {
			return
		}
		if c, err := key.Encrypt([]byte("data key"), PaddingOAEP); err != nil || len(c) < 100 {
			t.Errorf("%q is taken, but encrypts to %x, %v", text, c, err)
		}
	})
}
