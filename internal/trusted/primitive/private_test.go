package primitive

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
)

// testRSA are the Wycheproof files whose first key serves as a test key, because
// making RSA keys takes seconds.
var testRSA = map[Spec]string{
	RSA2048: "rsa_oaep_2048_sha256_mgf1sha256_test.json",
	RSA3072: "rsa_oaep_3072_sha256_mgf1sha256_test.json",
	RSA4096: "rsa_oaep_4096_sha256_mgf1sha256_test.json",
}

func testMaterial(t testing.TB, spec Spec) secret.Bytes {
	t.Helper()
	if file, ok := testRSA[spec]; ok {
		key := rsaFromPKCS8(t, vectors[rsaDecryptGroup](t, file)[0].PrivateKeyPKCS8)
		return secret.New(x509.MarshalPKCS1PrivateKey(key.private))
	}
	material, err := NewMaterial(spec)
	if err != nil {
		t.Fatal(err)
	}
	return material
}

func testPrivate(t testing.TB, spec Spec) *Private {
	t.Helper()
	material := testMaterial(t, spec)
	key, err := OpenPrivate(spec, material)
	if err != nil {
		t.Fatal(err)
	}
	material.Zero() // must not matter any more
	if key.Spec() != spec {
		t.Fatalf("Spec: got %s, want %s", key.Spec(), spec)
	}
	return key
}

func privateSpecs() (list []Spec) {
	for s := range Spec(len(specs)) {
		if s.Asymmetric() || s == HMAC {
			list = append(list, s)
		}
	}
	return list
}

// allowed is what a spec signs with: every combination not listed here
// must be refused.
func allowed(spec Spec, mt MessageType, d Digest, p Padding, verify bool) bool {
	knownType := mt == MessageRaw || mt == MessageDigest
	switch spec.family() {
	case familyRSA:
		return knownType && d >= SHA224 && d <= SHA512 && (p == PaddingPKCS1 || p == PaddingPSS)
	case familyEC:
		return knownType && d >= SHA224 && d <= SM3
	case familySM2:
		return knownType && (d == SM3 || !verify)
	default:
		return mt == MessageRaw && d == SHA256
	}
}

// TestSignVerifyEveryCombination walks specs x message types x digests x
// paddings, invalid numbers included.
func TestSignVerifyEveryCombination(t *testing.T) {
	for _, spec := range privateSpecs() {
		if raceEnabled && (spec == RSA3072 || spec == RSA4096 || spec == ECP521) {
			continue
		}
		t.Run(spec.String(), func(t *testing.T) {
			t.Parallel()
			key := testPrivate(t, spec)
			for mt := range endMessageType + 1 {
				for d := range endDigest + 1 {
					for p := range endPadding + 1 {
						checkCombination(t, key, mt, d, p)
					}
				}
			}
		})
	}
}

func checkCombination(t *testing.T, key *Private, mt MessageType, d Digest, p Padding) {
	t.Helper()
	name := fmt.Sprintf("%s %s %s", mt, d, p)
	message := []byte("a message that is not a digest")
	if mt == MessageDigest && d.Size() > 0 {
		message = d.Sum(message)
	}
	signature, err := key.Sign(message, mt, d, p)
	if !allowed(key.Spec(), mt, d, p, false) {
		if !errors.Is(err, ErrParameter) || signature != nil {
			t.Errorf("Sign %s: got %x, %v, want ErrParameter", name, signature, err)
		}
	} else if err != nil {
		t.Fatalf("Sign %s: %v", name, err)
	}
	if !allowed(key.Spec(), mt, d, p, true) {
		if ok, err := key.Verify(message, make([]byte, 256), mt, d, p); !errors.Is(err, ErrParameter) || ok {
			t.Errorf("Verify %s: got %v, %v, want ErrParameter", name, ok, err)
		}
		return
	}
	if ok, err := key.Verify(message, signature, mt, d, p); err != nil || !ok {
		t.Errorf("Verify %s: got %v, %v, want true", name, ok, err)
	}
	other := append(bytes.Clone(message[:len(message)-1]), message[len(message)-1]^1)
	signature[len(signature)/2] ^= 1
	for what, m := range map[string][]byte{"other signature": message, "other message and signature": other} {
		if ok, err := key.Verify(m, signature, mt, d, p); err != nil || ok {
			t.Errorf("Verify %s, %s: got %v, %v, want false", name, what, ok, err)
		}
	}
}

// defaults is a combination that spec signs with.
func defaults(spec Spec) (MessageType, Digest, Padding) {
	if spec.RSA() {
		return MessageRaw, spec.DefaultDigest(), PaddingPSS
	}
	return MessageRaw, spec.DefaultDigest(), PaddingNone
}

func TestVerifyFalse(t *testing.T) {
	for _, spec := range privateSpecs() {
		mt, d, p := defaults(spec)
		key, message := testPrivate(t, spec), []byte("message")
		signature, err := key.Sign(message, mt, d, p)
		if err != nil {
			t.Fatal(err)
		}
		foreign := testPrivate(t, map[bool]Spec{true: RSA2048, false: spec}[spec.RSA()])
		if spec != RSA2048 { // its test key would be the same key
			other, err := foreign.Sign(message, mt, d, p)
			if err != nil {
				t.Fatal(err)
			}
			ok, err := key.Verify(message, other, mt, d, p)
			if ok || err != nil && !spec.RSA() {
				t.Errorf("%s: signature of another key: got %v, %v, want false", spec, ok, err)
			}
		}
		for name, m := range map[string][]byte{"other message": []byte("massage"), "empty message": nil} {
			if ok, err := key.Verify(m, signature, mt, d, p); ok || err != nil {
				t.Errorf("%s: %s: got %v, %v, want false", spec, name, ok, err)
			}
		}
		for name, s := range map[string][]byte{"empty": nil, "cut": signature[1:], "longer": append(bytes.Clone(signature), 0)} {
			ok, err := key.Verify(message, s, mt, d, p)
			if ok || errors.Is(err, ErrParameter) != spec.RSA() {
				t.Errorf("%s: %s signature: got %v, %v", spec, name, ok, err)
			}
		}
	}
}

// Malformed DER is a wrong signature, no error.
func TestVerifyMalformedDER(t *testing.T) {
	rows := map[string]string{
		"nothing": "", "one byte": "30", "empty sequence": "3000", "one integer": "3003020101",
		"zeros": "3006020100020100", "negative": "30060201ff0201ff", "padded r": "300702020001020101",
		"long length": "308106020101020101", "indefinite": "30800201010201010000", "trailing": "300602010102010100",
		"three integers": "3009020101020101020101", "set": "3106020101020101", "octet string": "3006040101020101",
		"length beyond": "3007020101020101", "huge length": "3084ffffffff020101020101",
	}
	for _, spec := range []Spec{ECP224, ECP256, ECP256K, ECP384, ECP521, SM2} {
		key := testPrivate(t, spec)
		mt, d, p := defaults(spec)
		for name, der := range rows {
			if ok, err := key.Verify([]byte("m"), unhex(t, der), mt, d, p); ok || err != nil {
				t.Errorf("%s: %s: got %v, %v, want false", spec, name, ok, err)
			}
		}
	}
}

func TestDigestLengths(t *testing.T) {
	for _, spec := range []Spec{RSA2048, ECP224, ECP256, ECP256K, ECP384, ECP521} {
		key := testPrivate(t, spec)
		_, d, p := defaults(spec)
		signature, err := key.Sign(d.Sum(nil), MessageDigest, d, p)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{0, 1, 20, 31, 33, 64} {
			if s, err := key.Sign(make([]byte, n), MessageDigest, d, p); !errors.Is(err, ErrParameter) || s != nil {
				t.Errorf("%s: Sign a digest of %d bytes: got %x, %v, want ErrParameter", spec, n, s, err)
			}
			if ok, err := key.Verify(make([]byte, n), signature, MessageDigest, d, p); ok || err != nil {
				t.Errorf("%s: Verify a digest of %d bytes: got %v, %v, want false", spec, n, ok, err)
			}
		}
	}
}

func TestEncryptLimits(t *testing.T) {
	rows := []struct {
		spec     Spec
		padding  Padding
		min, max int
	}{
		{RSA2048, PaddingPKCS1, 0, 245}, {RSA2048, PaddingOAEP, 0, 190},
		{RSA3072, PaddingPKCS1, 0, 373}, {RSA3072, PaddingOAEP, 0, 318},
		{RSA4096, PaddingPKCS1, 0, 501}, {RSA4096, PaddingOAEP, 0, 446},
		{SM2, PaddingNone, 1, 255}, {SM2, PaddingOAEP, 1, 255}, {SM2, 0, 1, 255},
	}
	for _, r := range rows {
		key := testPrivate(t, r.spec)
		text, err := key.PublicPEM()
		if err != nil {
			t.Fatal(err)
		}
		target, err := ParsePublicTarget(text)
		if err != nil || target.RSA() != r.spec.RSA() {
			t.Fatalf("ParsePublicTarget of our own %s: %v", r.spec, err)
		}
		for name, encrypt := range map[string]func([]byte, Padding) ([]byte, error){"Private": key.Encrypt, "Public": target.Encrypt} {
			for _, n := range []int{r.min, 16, r.max} {
				plaintext := bytes.Repeat([]byte{0xb6}, n)
				c, err := encrypt(plaintext, r.padding)
				if err != nil {
					t.Fatalf("%s.Encrypt(%d bytes) of %s, %s: %v", name, n, r.spec, r.padding, err)
				}
				got, err := key.Decrypt(c, r.padding)
				if err != nil || !bytes.Equal(got, plaintext) {
					t.Errorf("Decrypt %d bytes of %s, %s: got %x, %v", n, r.spec, r.padding, got, err)
				}
			}
			for _, n := range []int{r.min - 1, r.max + 1, 6144} {
				if n < 0 {
					continue
				}
				if c, err := encrypt(make([]byte, n), r.padding); !errors.Is(err, ErrParameter) || c != nil {
					t.Errorf("%s.Encrypt(%d bytes) of %s, %s: got %x, %v, want ErrParameter", name, n, r.spec, r.padding, c, err)
				}
			}
		}
	}
}

func TestEncryptRefuses(t *testing.T) {
	rows := []struct {
		spec    Spec
		padding Padding
		want    error
	}{
		{RSA2048, 0, ErrParameter}, {RSA2048, PaddingNone, ErrParameter},
		{RSA2048, PaddingPSS, ErrParameter}, {RSA2048, endPadding, ErrParameter},
		{ECP224, PaddingNone, ErrUsage}, {ECP256, PaddingOAEP, ErrUsage}, {ECP256K, PaddingNone, ErrUsage},
		{ECP384, PaddingNone, ErrUsage}, {ECP521, PaddingNone, ErrUsage}, {HMAC, PaddingNone, ErrUsage},
	}
	for _, r := range rows {
		key := testPrivate(t, r.spec)
		if c, err := key.Encrypt([]byte("p"), r.padding); !errors.Is(err, r.want) || c != nil {
			t.Errorf("Encrypt %s, %s: got %x, %v, want %v", r.spec, r.padding, c, err, r.want)
		}
		if p, err := key.Decrypt(make([]byte, 256), r.padding); !errors.Is(err, r.want) || p != nil {
			t.Errorf("Decrypt %s, %s: got %x, %v, want %v", r.spec, r.padding, p, err, r.want)
		}
	}
}

func TestOpenPrivateRefuses(t *testing.T) {
	for _, spec := range privateSpecs() {
		material := testMaterial(t, spec).Expose()
		rows := map[string][]byte{
			"nothing": nil, "cut": material[:len(material)-1], "a byte more": append(bytes.Clone(material), 0),
			"zeros": make([]byte, len(material)), "ones": bytes.Repeat([]byte{0xff}, len(material)),
			"half": material[:len(material)/2],
		}
		if spec == HMAC { // any 32 bytes are a key
			delete(rows, "zeros")
			delete(rows, "ones")
		}
		if spec.family() == familyEC || spec == SM2 {
			point := len(material) / 3
			if spec == ECP521 {
				point = 66
			}
			other := bytes.Clone(material)
			other[len(other)-1] ^= 1
			rows["point off the curve"] = other
			rows["scalar zero"] = append(make([]byte, point), material[point:]...)
			rows["scalar too large"] = append(bytes.Repeat([]byte{0xff}, point), material[point:]...)
			rows["hybrid point"] = append(append(bytes.Clone(material[:point]), 6|material[len(material)-1]&1), material[point+1:]...)
		}
		for name, m := range rows {
			if k, err := OpenPrivate(spec, secret.Copy(m)); !errors.Is(err, ErrMaterial) || k != nil {
				t.Errorf("OpenPrivate(%s, %s): got %v, want ErrMaterial", spec, name, err)
			}
		}
		for _, other := range privateSpecs() {
			if sameShape := spec.family() == familyEC || spec == SM2; other != spec && !(sameShape && other.family() != familyRSA) {
				if _, err := OpenPrivate(other, secret.Copy(material)); !errors.Is(err, ErrMaterial) {
					t.Errorf("OpenPrivate(%s) of %s material: got %v, want ErrMaterial", other, spec, err)
				}
			}
		}
	}
	for _, spec := range []Spec{0, AESGCM256, SM4CBC, 16, 255} {
		if _, err := OpenPrivate(spec, secret.New(make([]byte, 32))); !errors.Is(err, ErrUsage) {
			t.Errorf("OpenPrivate(%s): got %v, want ErrUsage", spec, err)
		}
	}
}

// GB/T 32918.1 bounds the SM2 scalar by n-2, one below ECDSA's bound: with n-1
// the inverse of 1+d does not exist.
func TestScalarBounds(t *testing.T) {
	point := testMaterial(t, SM2).Expose()[sm2ScalarLen:]
	n1 := unhex(t, "fffffffeffffffffffffffffffffffff7203df6b21c6052b53bbf40939d54122")
	if _, err := OpenPrivate(SM2, secret.New(append(n1, point...))); !errors.Is(err, ErrMaterial) {
		t.Errorf("OpenPrivate(SM2) with n-1: got %v, want ErrMaterial", err)
	}
	n := unhex(t, "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141")
	point = testMaterial(t, ECP256K).Expose()[k256ScalarLen:]
	if _, err := OpenPrivate(ECP256K, secret.New(append(n, point...))); !errors.Is(err, ErrMaterial) {
		t.Errorf("OpenPrivate(ECP256K) with n: got %v, want ErrMaterial", err)
	}
}

func TestPublicPEM(t *testing.T) {
	for _, spec := range privateSpecs() {
		material := testMaterial(t, spec)
		key, err := OpenPrivate(spec, material)
		if err != nil {
			t.Fatal(err)
		}
		text, err := key.PublicPEM()
		if spec == HMAC {
			if !errors.Is(err, ErrUsage) || text != "" {
				t.Errorf("PublicPEM of HMAC: got %q, %v, want ErrUsage", text, err)
			}
			continue
		}
		label := map[bool]string{true: "RSA PUBLIC KEY", false: "PUBLIC KEY"}[spec.RSA()]
		block, rest := pem.Decode([]byte(text))
		if err != nil || block == nil || block.Type != label || len(rest) > 0 || !strings.HasSuffix(text, "-----END "+label+"-----\n") {
			t.Fatalf("PublicPEM of %s: got %q, %v", spec, text, err)
		}
		// No run of the private part is in the public one.
		if n := len(material.Expose()) / 3; !spec.RSA() && bytes.Contains(block.Bytes, material.Expose()[:n]) {
			t.Errorf("PublicPEM of %s holds the private scalar", spec)
		}
		if !spec.RSA() && !bytes.HasSuffix(block.Bytes, material.Expose()[len(material.Expose())*2/3:]) {
			t.Errorf("PublicPEM of %s does not end in the point", spec)
		}
	}
}

func TestPrivateNeverPrints(t *testing.T) {
	for _, spec := range privateSpecs() {
		material := testMaterial(t, spec).Expose()
		key, err := OpenPrivate(spec, secret.Copy(material))
		if err != nil {
			t.Fatal(err)
		}
		type holder struct{ hidden *Private }
		for _, v := range []any{key, *key, holder{key}, &holder{key}, []any{key}} {
			for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%s"} {
				out := fmt.Sprintf(verb, v)
				if len(out) > 200 || strings.Contains(out, hex.EncodeToString(material[:8])) {
					t.Errorf("%s of %T with %s prints %d characters: %.80s", verb, v, spec, len(out), out)
				}
			}
		}
	}
}

func TestPrivateIsConcurrent(t *testing.T) {
	for _, spec := range []Spec{RSA2048, ECP256, ECP256K, SM2, HMAC} {
		key := testPrivate(t, spec)
		mt, d, p := defaults(spec)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 3 {
					signature, err := key.Sign([]byte("m"), mt, d, p)
					if err != nil {
						t.Error(err)
					}
					if ok, err := key.Verify([]byte("m"), signature, mt, d, p); err != nil || !ok {
						t.Errorf("%s: got %v, %v, want true", spec, ok, err)
					}
				}
			})
		}
		wg.Wait()
	}
}
