package primitive

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"math/big"
	"reflect"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
)

// TestRSAFaults corrupts each CRT value inside an opened key, where the standard
// library keeps it, and wants an error instead of a signature: a signature that
// is right modulo one prime only gives the other one away.
func TestRSAFaults(t *testing.T) {
	for _, field := range []string{"dP", "dQ"} {
		key := testPrivate(t, RSA2048)
		inner := reflect.ValueOf(key.ops().(rsaPrivate).private).Elem().FieldByName("Precomputed").FieldByName("fips").Elem()
		value := inner.FieldByName(field).Bytes() // aliases the key's memory
		for _, p := range []Padding{PaddingPKCS1, PaddingPSS} {
			if _, err := key.Sign([]byte("m"), MessageRaw, SHA256, p); err != nil {
				t.Fatalf("before the fault: %v", err)
			}
			value[len(value)/2] ^= 0x10
			if s, err := key.Sign([]byte("m"), MessageRaw, SHA256, p); err == nil || s != nil {
				t.Errorf("fault in %s, %s: got %x, %v, want an error and no signature", field, p, s, err)
			}
			value[len(value)/2] ^= 0x10
		}
	}
}

// Material whose parts contradict each other is refused when it is opened.
func TestOpenRSAInconsistent(t *testing.T) {
	good := testPrivate(t, RSA2048).ops().(rsaPrivate).private
	clone := func() *rsa.PrivateKey {
		k, err := x509.ParsePKCS1PrivateKey(x509.MarshalPKCS1PrivateKey(good))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	two := big.NewInt(2)
	rows := map[string]func(*rsa.PrivateKey){
		"N":    func(k *rsa.PrivateKey) { k.N.Add(k.N, two) },
		"E":    func(k *rsa.PrivateKey) { k.E = 65539 },
		"E 3":  func(k *rsa.PrivateKey) { k.E = 3 },
		"D":    func(k *rsa.PrivateKey) { k.D.Add(k.D, two) },
		"P":    func(k *rsa.PrivateKey) { k.Primes[0].Add(k.Primes[0], two) },
		"Q":    func(k *rsa.PrivateKey) { k.Primes[1].Add(k.Primes[1], two) },
		"dP":   func(k *rsa.PrivateKey) { k.Precomputed.Dp.Add(k.Precomputed.Dp, two) },
		"dQ":   func(k *rsa.PrivateKey) { k.Precomputed.Dq.Add(k.Precomputed.Dq, two) },
		"qInv": func(k *rsa.PrivateKey) { k.Precomputed.Qinv.Add(k.Precomputed.Qinv, two) },
	}
	for name, change := range rows {
		k := clone()
		change(k)
		if _, err := OpenPrivate(RSA2048, secret.New(rawPKCS1(t, k))); !errors.Is(err, ErrMaterial) {
			t.Errorf("%s changed: got %v, want ErrMaterial", name, err)
		}
	}
	// To crypto/x509 the CRT values are optional, and what it does not understand
	// there does not exist.
	bare := marshalASN1(t, struct {
		Version int
		N       *big.Int
		E       int
		D, P, Q *big.Int
	}{0, good.N, good.E, good.D, good.Primes[0], good.Primes[1]})
	if _, err := OpenPrivate(RSA2048, secret.New(bare)); !errors.Is(err, ErrMaterial) {
		t.Errorf("no CRT values: got %v, want ErrMaterial", err)
	}
	if _, err := OpenPrivate(RSA2048, secret.New(rawPKCS1(t, good))); err != nil {
		t.Errorf("nothing changed: %v", err)
	}
	for _, spec := range []Spec{RSA3072, RSA4096} {
		if _, err := OpenPrivate(spec, secret.New(rawPKCS1(t, good))); !errors.Is(err, ErrMaterial) {
			t.Errorf("RSA-2048 as %s: got %v, want ErrMaterial", spec, err)
		}
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(good)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenPrivate(RSA2048, secret.New(pkcs8)); !errors.Is(err, ErrMaterial) {
		t.Errorf("PKCS#8: got %v, want ErrMaterial", err)
	}
}

func TestRSADecryptRefuses(t *testing.T) {
	key := testPrivate(t, RSA2048)
	inner := key.ops().(rsaPrivate)
	for _, p := range []Padding{PaddingPKCS1, PaddingOAEP} {
		good, err := key.Encrypt([]byte("secret"), p)
		if err != nil {
			t.Fatal(err)
		}
		other, err := key.Encrypt([]byte("secret"), PaddingPKCS1+PaddingOAEP-p)
		if err != nil {
			t.Fatal(err)
		}
		rows := map[string][]byte{
			"nothing": nil, "one byte": {1}, "cut": good[:255], "a byte more": append(bytes.Clone(good), 0),
			"leading zero more": append([]byte{0}, good...), "zero": make([]byte, 256), "the other padding": other,
			"one":         append(make([]byte, 255), 1),
			"modulus":     inner.key.N.Bytes(),
			"modulus - 1": new(big.Int).Sub(inner.key.N, big.NewInt(1)).Bytes(),
			"not reduced": bytes.Repeat([]byte{0xff}, 256),
		}
		for _, i := range []int{0, 1, 100, 255} {
			bad := bytes.Clone(good)
			bad[i] ^= 1
			rows["byte "+string(rune('0'+i%10))+" flipped"] = bad
		}
		for name, c := range rows {
			if got, err := key.Decrypt(c, p); err != ErrDecrypt || got != nil {
				t.Errorf("%s, %s: got %x, %v, want ErrDecrypt itself", p, name, got, err)
			}
		}
	}
}

// TestPKCS1PaddingIsOneError makes the paddings that Bleichenbacher's attack
// tells apart.
func TestPKCS1PaddingIsOneError(t *testing.T) {
	key := testPrivate(t, RSA2048)
	inner := key.ops().(rsaPrivate)
	full := func(head ...byte) []byte { return append(head, bytes.Repeat([]byte{0x55}, 256-len(head))...) }
	short := full(0, 2, 1, 2, 3, 4, 5, 6, 7, 0)
	rows := map[string][]byte{
		"first byte 1": full(1, 2), "type 1": full(0, 1), "type 0": full(0, 0), "no zero": full(0, 2),
		"seven bytes of padding": short, "zero at once": full(0, 2, 0),
	}
	for name, em := range rows {
		m := new(big.Int).SetBytes(em)
		c := new(big.Int).Exp(m, big.NewInt(int64(inner.key.E)), inner.key.N).FillBytes(make([]byte, 256))
		if got, err := key.Decrypt(c, PaddingPKCS1); err != ErrDecrypt || got != nil {
			t.Errorf("%s: got %x, %v, want ErrDecrypt itself", name, got, err)
		}
	}
}

func TestNewMaterialRSA(t *testing.T) {
	for _, spec := range []Spec{RSA2048, RSA3072, RSA4096} {
		if (raceEnabled || testing.Short()) && spec != RSA2048 {
			continue
		}
		t.Run(spec.String(), func(t *testing.T) {
			t.Parallel()
			material, err := NewMaterial(spec)
			if err != nil {
				t.Fatal(err)
			}
			key, err := OpenPrivate(spec, material)
			if err != nil {
				t.Fatal(err)
			}
			inner := key.ops().(rsaPrivate).private
			if inner.E != rsaExponent || len(inner.Primes) != 2 || inner.Validate() != nil {
				t.Errorf("exponent %d, %d primes, %v", inner.E, len(inner.Primes), inner.Validate())
			}
		})
	}
}

// rawPKCS1 writes the key as it is; the standard library would refuse, or repair.
func rawPKCS1(t *testing.T, k *rsa.PrivateKey) []byte {
	t.Helper()
	return marshalASN1(t, struct {
		Version               int
		N                     *big.Int
		E                     int
		D, P, Q, Dp, Dq, Qinv *big.Int
	}{0, k.N, k.E, k.D, k.Primes[0], k.Primes[1], k.Precomputed.Dp, k.Precomputed.Dq, k.Precomputed.Qinv})
}

func TestParsePublicTargetRefuses(t *testing.T) {
	rsa1024, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	good := testPrivate(t, RSA2048)
	text, err := good.PublicPEM()
	if err != nil {
		t.Fatal(err)
	}
	sm2Text, err := testPrivate(t, SM2).PublicPEM()
	if err != nil {
		t.Fatal(err)
	}
	ecText, err := testPrivate(t, ECP256).PublicPEM()
	if err != nil {
		t.Fatal(err)
	}
	k256Text, err := testPrivate(t, ECP256K).PublicPEM()
	if err != nil {
		t.Fatal(err)
	}
	pub := good.ops().(rsaPrivate).key
	key := func(n *big.Int, e int) string {
		return toPEM("RSA PUBLIC KEY", marshalASN1(t, struct {
			N *big.Int
			E int
		}{n, e}))
	}
	big8192 := new(big.Int).SetBit(big.NewInt(1), 8191, 1)
	privateDER := x509.MarshalPKCS1PrivateKey(good.ops().(rsaPrivate).private)
	rows := map[string]string{
		"nothing": "", "no PEM": "hello", "two keys": text + text, "text before": "key:\n" + text,
		"text after": text + "x", "cut": text[:len(text)/2], "other label": toPEM("CERTIFICATE", privateDER),
		"private key": toPEM("RSA PRIVATE KEY", privateDER), "private in public": toPEM("RSA PUBLIC KEY", privateDER),
		"header":    "-----BEGIN PUBLIC KEY-----\nA: b\n\n" + text[len("-----BEGIN RSA PUBLIC KEY-----\n"):],
		"1024 bits": toPEM("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rsa1024.PublicKey)),
		"8192 bits": key(big8192, 65537), "even modulus": key(new(big.Int).Sub(pub.N, big.NewInt(1)), 65537),
		"exponent 1": key(pub.N, 1), "exponent 3": key(pub.N, 3), "even exponent": key(pub.N, 65538),
		"huge exponent": key(pub.N, 1<<32+1), "negative modulus": key(new(big.Int).Neg(pub.N), 65537),
		"P-256": ecText, "secp256k1": k256Text, "SM2 point off the curve": offCurve(t, sm2Text),
		"SM2 cut": toPEM("PUBLIC KEY", sm2SPKI), "too long": text + string(bytes.Repeat([]byte("\n"), maxPEM)),
	}
	for name, text := range rows {
		if k, err := ParsePublicTarget(text); !errors.Is(err, ErrParameter) || k != nil {
			t.Errorf("%s: got %v, want ErrParameter", name, err)
		}
	}
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"PKCS#1": text, "SPKI": toPEM("PUBLIC KEY", spki), "SM2": sm2Text, "white space around": "\n " + text + "\r\n\n"} {
		if _, err := ParsePublicTarget(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
