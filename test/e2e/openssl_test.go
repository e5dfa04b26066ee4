package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// opensslLines have openssl do the other half of what the service does.
func opensslLines() []line {
	return []line{
		{"19-openssl-encrypts", testOpensslEncrypts},
		{"21-openssl-verifies", testOpensslVerifies},
		{"26-openssl-opens-exports", testOpensslOpens},
		{"27-openssl-wraps-imports", testOpensslWraps},
	}
}

// sm2ID is the user ID of SM2 signatures that the contract names.
const sm2ID = "distid:1234567812345678"

// An oracle runs openssl in a directory of its own.
type oracle struct {
	t   *testing.T
	dir string
}

func newOracle(t *testing.T) oracle {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Fatal("openssl is needed for this test: ", err)
	}
	return oracle{t, t.TempDir()}
}

// file keeps data under a name that arguments of run may use.
func (o oracle) file(name string, data []byte) string {
	o.t.Helper()
	if err := os.WriteFile(filepath.Join(o.dir, name), data, 0o600); err != nil {
		o.t.Fatal(err)
	}
	return name
}

// run returns what openssl prints.
func (o oracle) run(args ...string) []byte {
	o.t.Helper()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(o.t.Context(), "openssl", args...)
	cmd.Dir, cmd.Stderr, cmd.WaitDelay = o.dir, &stderr, time.Second
	out, err := cmd.Output()
	if err != nil {
		o.t.Errorf("openssl %s: %v: %s%s", strings.Join(args, " "), err, out, &stderr)
	}
	return out
}

// padding is the options of pkeyutl for a padding of RSA.
func opensslPadding(name string) []string {
	if name == padPKCS1 {
		return []string{"-pkeyopt", "rsa_padding_mode:pkcs1"}
	}
	return []string{"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256", "-pkeyopt", "rsa_mgf1_md:sha256"}
}

func testOpensslEncrypts(t *testing.T, g *target) {
	r, o := g.ring(t), newOracle(t)
	plain := []byte("attack at dawn")
	o.file("plain", plain)
	for _, e := range encryptions() {
		if strings.HasPrefix(e.padding, "EH_PAD_RSA") {
			continue
		}
		text, _ := r.publicKey(t, e.spec, encryptDecrypt)
		args := []string{"pkeyutl", "-encrypt", "-pubin", "-inkey", o.file("public.pem", []byte(text)), "-in", "plain"}
		if e.spec != "EH_SM2" {
			args = append(args, opensslPadding(e.padding)...)
		}
		sealed := o.run(args...)
		got := r.call(t, "AsymmetricDecrypt", fields{"keyid": r.key(t, e.spec, encryptDecrypt), "ciphertext": b64(sealed), "padding_mode": e.padding})
		want(t, got, 200, textSuccess)
		if !bytes.Equal(got.bytes(t, "plaintext"), plain) {
			t.Errorf("%s %s: opens as another plaintext", e.spec, e.padding)
		}
	}
}

// opensslVerifies expects that openssl accepts a signature, and refuses it for
// another message.
func (o oracle) verifies(public string, message, signature []byte, options ...string) {
	o.t.Helper()
	o.file("public.pem", []byte(public))
	o.file("message", message)
	o.file("signature", signature)
	args := append([]string{"dgst", "-verify", "public.pem", "-signature", "signature"}, options...)
	if out := o.run(append(args, "message")...); !bytes.Contains(out, []byte("Verified OK")) {
		o.t.Errorf("openssl %s: %s", strings.Join(args, " "), out)
	}
	o.file("message", append([]byte("x"), message...))
	cmd := exec.CommandContext(o.t.Context(), "openssl", append(args, "message")...)
	cmd.Dir = o.dir
	if out, err := cmd.CombinedOutput(); err == nil || bytes.Contains(out, []byte("Verified OK")) {
		o.t.Errorf("openssl %s accepts another message", strings.Join(args, " "))
	}
}

func testOpensslVerifies(t *testing.T, g *target) {
	r, o := g.ring(t), newOracle(t)
	message := randomBytes(1000)
	names := map[string]string{"EH_SHA_224": "-sha224", "EH_SHA_256": "-sha256", "EH_SHA_384": "-sha384", "EH_SHA_512": "-sha512", "EH_SM3": "-sm3"}
	for _, spec := range append(rsaSpecs, ecSpecs...) {
		public, _ := r.publicKey(t, spec, signVerify)
		for digest, option := range names {
			paddings := map[string][]string{padNone: nil}
			if indexOf(rsaSpecs, spec) >= 0 {
				if digest == "EH_SM3" {
					continue
				}
				paddings = map[string][]string{padPKCS1: nil, padPSS: {"-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"}}
			}
			for padding, options := range paddings {
				got := r.call(t, "Sign", signing(r.key(t, spec, signVerify), digest, padding, message, true))
				want(t, got, 200, textSuccess)
				o.verifies(public, message, got.bytes(t, "signature"), append([]string{option}, options...)...)
			}
		}
	}
	public, _ := r.publicKey(t, "EH_SM2", signVerify)
	for _, raw := range []bool{true, false} { // the bytes of a digest are a message too
		got := r.call(t, "Sign", signing(r.key(t, "EH_SM2", signVerify), "EH_SM3", padNone, message, raw))
		want(t, got, 200, textSuccess)
		o.verifies(public, message, got.bytes(t, "signature"), "-sm3", "-sigopt", sm2ID)
	}
	t.Run("openssl signs", func(t *testing.T) { testOpensslSigns(t, r, o) })
}

// testOpensslSigns: the service has the key, so openssl can only try in vain.
func testOpensslSigns(t *testing.T, r *ring, o oracle) {
	for spec, args := range map[string][]string{
		"EH_EC_P256": {"genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"}, "EH_SM2": {"genpkey", "-algorithm", "SM2"},
		"EH_RSA_2048": {"genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"},
	} {
		o.file("private.pem", o.run(args...))
		o.file("message", []byte("attack at dawn"))
		digest, options := "EH_SHA_256", []string{"-sha256"}
		if spec == "EH_SM2" {
			digest, options = "EH_SM3", []string{"-sm3", "-sigopt", sm2ID}
		}
		signature := o.run(append(append([]string{"dgst", "-sign", "private.pem"}, options...), "message")...)
		r.verdict(t, signing(r.key(t, spec, signVerify), digest, padPKCS1, []byte("attack at dawn"), true), signature, false)
	}
}

// testOpensslOpens exports data keys to key pairs that only openssl has.
func testOpensslOpens(t *testing.T, g *target) {
	r, o := g.ring(t), newOracle(t)
	key := r.key(t, "EH_SM4_CTR", encryptDecrypt)
	data := r.call(t, "GenerateDataKey", fields{"keyid": key, "keylen": 48})
	for name, args := range map[string][]string{
		"RSA": {"genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"}, "SM2": {"genpkey", "-algorithm", "SM2"},
	} {
		o.file("private.pem", o.run(args...))
		public := string(o.run("pkey", "-in", "private.pem", "-pubout"))
		paddings := []string{padOAEP, padPKCS1}
		if name == "SM2" {
			paddings = []string{padNone}
		}
		for _, padding := range paddings {
			got := r.call(t, "ExportDataKey", fields{"keyid": key, "olddatakey_base": data.text(t, "ciphertext"), "upubkey": public, "padding_mode": padding})
			want(t, got, 200, textSuccess)
			open := []string{"pkeyutl", "-decrypt", "-inkey", "private.pem", "-in", o.file("sealed", got.bytes(t, "newdatakey"))}
			if name == "RSA" {
				open = append(open, opensslPadding(padding)...)
			}
			if opened := o.run(open...); !bytes.Equal(opened, data.bytes(t, "plaintext")) {
				t.Errorf("%s %s: openssl opens another data key", name, padding)
			}
		}
	}
}

func testOpensslWraps(t *testing.T, g *target) {
	c, o := g.enroll(t), newOracle(t)
	for spec, padding := range map[string]string{"EH_AES_GCM_256": padOAEP, "EH_SM4_CBC": padPKCS1} {
		s := c.session(t, c.external(t, spec), "EH_RSA_2048")
		o.file("material", randomBytes(materialSizes[spec]))
		sealed := o.run(append([]string{"pkeyutl", "-encrypt", "-pubin", "-inkey", o.file("public.pem", []byte(s.pem)), "-in", "material"}, opensslPadding(padding)...)...)
		brought(t, c.call(t, "ImportKeyMaterial", fields{"keyid": s.key, "padding_mode": padding, "importToken": s.token, "key_material": b64(sealed)}))
		c.roundTrip(t, s.key, spec+" from openssl")
	}
}
