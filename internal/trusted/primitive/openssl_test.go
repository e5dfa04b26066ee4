package primitive

import (
	"bytes"
	"encoding/asn1"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// openssl runs the openssl program in a temporary directory. Files that it reads
// are written by write, and out.bin is what it makes.
type openssl struct {
	t    *testing.T
	path string
	dir  string
}

func newOpenSSL(t *testing.T) openssl {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl program in the path")
	}
	return openssl{t, path, t.TempDir()}
}

func (o openssl) write(name string, data []byte) {
	o.t.Helper()
	if err := os.WriteFile(filepath.Join(o.dir, name), data, 0o600); err != nil {
		o.t.Fatal(err)
	}
}

// run returns out.bin, or fails.
func (o openssl) run(args ...string) []byte {
	o.t.Helper()
	if out, ok := o.try(args...); !ok {
		o.t.Fatalf("openssl %q: %s", args, out)
	}
	out, err := os.ReadFile(filepath.Join(o.dir, "out.bin"))
	if err != nil && !os.IsNotExist(err) {
		o.t.Fatal(err)
	}
	return out
}

// try returns what openssl said, and whether it exited with 0.
func (o openssl) try(args ...string) (string, bool) {
	cmd := exec.Command(o.path, args...)
	cmd.Dir = o.dir
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

var curveOIDs = map[Spec]asn1.ObjectIdentifier{
	ECP224:  {1, 3, 132, 0, 33},
	ECP256:  {1, 2, 840, 10045, 3, 1, 7},
	ECP256K: {1, 3, 132, 0, 10},
	ECP384:  {1, 3, 132, 0, 34},
	ECP521:  {1, 3, 132, 0, 35},
	SM2:     {1, 2, 156, 10197, 1, 301},
}

// privatePEM writes material as openssl reads it: RFC 8017 or RFC 5915.
func privatePEM(t *testing.T, spec Spec, material []byte) []byte {
	t.Helper()
	if spec.RSA() {
		return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: material})
	}
	n := len(material) / 3
	if spec == ECP521 {
		n = 66
	}
	der := marshalASN1(t, struct {
		Version int
		Scalar  []byte
		Curve   asn1.ObjectIdentifier `asn1:"explicit,tag:0"`
		Point   asn1.BitString        `asn1:"explicit,tag:1"`
	}{1, material[:n], curveOIDs[spec], asn1.BitString{Bytes: material[n:], BitLength: 8 * (len(material) - n)}})
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}

// openBoth opens fresh material here and writes private.pem and public.pem, the
// latter by our own PublicPEM, for openssl.
func (o openssl) openBoth(spec Spec) *Private {
	o.t.Helper()
	material := testMaterial(o.t, spec)
	key, err := OpenPrivate(spec, material)
	if err != nil {
		o.t.Fatal(err)
	}
	text, err := key.PublicPEM()
	if err != nil {
		o.t.Fatal(err)
	}
	o.write("private.pem", privatePEM(o.t, spec, material.Expose()))
	o.write("public.pem", []byte(text))
	return key
}

// The public key that openssl computes from the private one is ours.
func TestOpenSSLPublicKeys(t *testing.T) {
	for spec := range Spec(len(specs)) {
		if !spec.Asymmetric() {
			continue
		}
		o := newOpenSSL(t)
		o.openBoth(spec)
		args := []string{"pkey", "-in", "private.pem", "-pubout", "-out", "out.bin"}
		if spec.RSA() {
			args = []string{"rsa", "-in", "private.pem", "-RSAPublicKey_out", "-out", "out.bin"}
		}
		want, err := os.ReadFile(filepath.Join(o.dir, "public.pem"))
		if err != nil {
			t.Fatal(err)
		}
		if got := o.run(args...); !bytes.Equal(got, want) {
			t.Errorf("%s: got %s from openssl, want ours, %s", spec, got, want)
		}
	}
}

// signing is how openssl makes and checks one kind of signature.
type signing struct {
	name    string
	spec    Spec
	digest  Digest
	padding Padding
	args    []string
}

func signings() []signing {
	pss := []string{"-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"}
	rows := []signing{
		{"RSA-2048 PKCS#1 SHA-224", RSA2048, SHA224, PaddingPKCS1, []string{"-sha224"}},
		{"RSA-3072 PKCS#1 SHA-384", RSA3072, SHA384, PaddingPKCS1, []string{"-sha384"}},
		{"RSA-2048 PSS SHA-256", RSA2048, SHA256, PaddingPSS, append([]string{"-sha256"}, pss...)},
		{"RSA-3072 PSS SHA-384", RSA3072, SHA384, PaddingPSS, append([]string{"-sha384"}, pss...)},
		{"RSA-4096 PSS SHA-512", RSA4096, SHA512, PaddingPSS, append([]string{"-sha512"}, pss...)},
		{"SM2", SM2, SM3, PaddingNone, []string{"-sm3", "-sigopt", "distid:" + sm2UserID}},
	}
	for _, spec := range []Spec{ECP224, ECP256, ECP256K, ECP384, ECP521} {
		for d, arg := range map[Digest]string{SHA224: "-sha224", SHA256: "-sha256", SHA384: "-sha384", SHA512: "-sha512", SM3: "-sm3"} {
			rows = append(rows, signing{spec.String() + " " + d.String(), spec, d, PaddingNone, []string{arg}})
		}
	}
	return rows
}

func TestOpenSSLSignatures(t *testing.T) {
	message := []byte("a message for two implementations")
	for _, s := range signings() {
		t.Run(s.name, func(t *testing.T) {
			o := newOpenSSL(t)
			key := o.openBoth(s.spec)
			if s.spec.RSA() { // openssl dgst reads SubjectPublicKeyInfo only
				o.run("rsa", "-RSAPublicKey_in", "-in", "public.pem", "-pubout", "-out", "public.pem")
			}
			o.write("message", message)

			theirs := o.run(append([]string{"dgst", "-sign", "private.pem", "-out", "out.bin"}, append(s.args, "message")...)...)
			if ok, err := key.Verify(message, theirs, MessageRaw, s.digest, s.padding); err != nil || !ok {
				t.Errorf("Verify openssl's signature: got %v, %v, want true", ok, err)
			}

			ours, err := key.Sign(message, MessageRaw, s.digest, s.padding)
			if err != nil {
				t.Fatal(err)
			}
			o.write("signature", ours)
			verify := append([]string{"dgst", "-verify", "public.pem", "-signature", "signature"}, append(s.args, "message")...)
			if out, ok := o.try(verify...); !ok {
				t.Errorf("openssl refuses our signature: %s", out)
			}
			o.write("message", append(message, '!'))
			if _, ok := o.try(verify...); ok {
				t.Error("openssl takes our signature for another message")
			}
		})
	}
}

func TestOpenSSLEncryption(t *testing.T) {
	oaep := []string{"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256", "-pkeyopt", "rsa_mgf1_md:sha256"}
	rows := []struct {
		name    string
		spec    Spec
		padding Padding
		args    []string
	}{
		{"RSA-2048 OAEP", RSA2048, PaddingOAEP, oaep},
		{"RSA-3072 OAEP", RSA3072, PaddingOAEP, oaep},
		{"RSA-4096 OAEP", RSA4096, PaddingOAEP, oaep},
		{"RSA-2048 PKCS#1", RSA2048, PaddingPKCS1, []string{"-pkeyopt", "rsa_padding_mode:pkcs1"}},
		{"SM2", SM2, PaddingNone, nil},
	}
	plaintext := []byte("thirty-two bytes of a data key..")
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			o := newOpenSSL(t)
			key := o.openBoth(r.spec)
			o.write("plain", plaintext)
			theirs := o.run(append([]string{"pkeyutl", "-encrypt", "-inkey", "private.pem", "-in", "plain", "-out", "out.bin"}, r.args...)...)
			if got, err := key.Decrypt(theirs, r.padding); err != nil || !bytes.Equal(got, plaintext) {
				t.Errorf("Decrypt openssl's ciphertext: got %q, %v, want %q", got, err, plaintext)
			}
			ours, err := key.Encrypt(plaintext, r.padding)
			if err != nil {
				t.Fatal(err)
			}
			o.write("cipher", ours)
			if got := o.run(append([]string{"pkeyutl", "-decrypt", "-inkey", "private.pem", "-in", "cipher", "-out", "out.bin"}, r.args...)...); !bytes.Equal(got, plaintext) {
				t.Errorf("openssl decrypts ours to %q, want %q", got, plaintext)
			}
		})
	}
}
