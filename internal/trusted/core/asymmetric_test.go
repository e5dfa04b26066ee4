package core

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/trail"
)

type m = map[string]any

const (
	server    = "Server exception."
	forCrypt  = usageEncrypt
	forSigns  = usageSign
	pkcs1     = "EH_RSA_PKCS1"
	pss       = "EH_RSA_PKCS1_PSS"
	oaep      = "EH_RSA_PKCS1_OAEP"
	noPadding = "EH_PAD_NONE"
)

var (
	symmetricSpecs = []string{"EH_AES_GCM_128", "EH_AES_GCM_192", "EH_AES_GCM_256", "EH_SM4_CTR", "EH_SM4_CBC"}
	rsaSpecs       = []string{"EH_RSA_2048", "EH_RSA_3072", "EH_RSA_4096"}
	ecSpecs        = []string{"EH_EC_P224", "EH_EC_P256", "EH_EC_P256K", "EH_EC_P384", "EH_EC_P521"}
)

// b64 is text in base64.
func b64[T string | []byte](text T) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

func unb64(t testing.TB, text string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// with is a payload with other members, nil taking one away.
func with(p m, more m) m {
	p = maps.Clone(p)
	for k, v := range more {
		if v == nil {
			delete(p, k)
		} else {
			p[k] = v
		}
	}
	return p
}

// fixedRSA makes a core use one key pair of each RSA spec for everything, made
// once for the whole run, as generating them takes seconds.
func fixedRSA(c *Core) {
	c.generators.generate = func(s primitive.Spec) (secret.Bytes, error) {
		if !s.RSA() {
			return primitive.NewMaterial(s)
		}
		return secret.Copy(rsaMaterial(s)), nil
	}
}

var rsaMaterial = func() func(primitive.Spec) []byte {
	made := map[primitive.Spec]func() []byte{}
	for _, s := range []primitive.Spec{primitive.RSA2048, primitive.RSA3072, primitive.RSA4096} {
		made[s] = sync.OnceValue(func() []byte {
			b, err := primitive.NewMaterial(s)
			if err != nil {
				panic(err)
			}
			return b.Expose()
		})
	}
	return func(s primitive.Spec) []byte { return made[s]() }
}()

// rsaHost is a host whose core makes RSA keys at no cost.
func rsaHost(t testing.TB) (*host, domain) {
	h, d := newHost(t)
	fixedRSA(h.cores[0])
	return h, d
}

func (c *tenant) create(spec, usage string, more m) reply {
	c.h.t.Helper()
	return c.do(0, "CreateKey", with(m{"keyspec": spec, "origin": originInternal, "keyusage": usage}, more))
}

func (c *tenant) mustCreate(spec, usage string) string {
	c.h.t.Helper()
	r := c.create(spec, usage, nil)
	if r.Code != 200 {
		c.h.t.Fatalf("CreateKey %s: %d %s", spec, r.Code, r.Message)
	}
	return r.text("keyid")
}

func (c *tenant) publicKey(keyid string) string {
	c.h.t.Helper()
	return c.mustDo("GetPublicKey", named(keyid)).text("pubkey")
}

func parsePKCS1(t testing.TB, text string) *rsa.PublicKey {
	t.Helper()
	block, rest := pem.Decode([]byte(text))
	if block == nil || len(rest) > 0 || block.Type != "RSA PUBLIC KEY" {
		t.Fatalf("no PKCS#1 PEM: %q", text)
	}
	key, err := x509.ParsePKCS1PublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func modulus(spec string) int {
	var bits int
	fmt.Sscanf(spec, "EH_RSA_%d", &bits)
	return bits / 8
}

// TestCreateEverySpec is lines 15 and 23 of the compatibility checklist.
func TestCreateEverySpec(t *testing.T) {
	h, _ := rsaHost(t)
	c := h.enroll()
	for _, spec := range append(append([]string{"EH_SM2"}, rsaSpecs...), ecSpecs...) {
		for _, usage := range []string{forCrypt, forSigns} {
			want(t, spec+" "+usage, c.create(spec, usage, nil), 200, "success!")
		}
	}
	for _, spec := range symmetricSpecs {
		want(t, spec, c.create(spec, forCrypt, nil), 200, "success!")
		want(t, spec+" external", c.create(spec, forCrypt, m{"origin": originExternal}), 200, "success!")
	}
	want(t, "EH_HMAC", c.create("EH_HMAC", forSigns, nil), 200, "success!")
	if n := len(c.mustDo("ListKey", nil).Result["list"].([]any)); n != 18+10+1 {
		t.Errorf("ListKey: got %d keys, want 29", n)
	}
}

// TestCreateRefusals is line 16, and what cannot be imported.
func TestCreateRefusals(t *testing.T) {
	h, _ := rsaHost(t)
	c := h.enroll()
	type row struct {
		name, spec, usage string
		more              m
		code              int
		message           string
	}
	rows := []row{
		{"EH_HMAC encrypts", "EH_HMAC", forCrypt, nil, 500, server},
		{"EH_RSA_3071", "EH_RSA_3071", forCrypt, nil, 400, "Parameter invalid, The keyspec type is incorrect."},
		{"spec in lower case", "eh_rsa_2048", forCrypt, nil, 400, "Parameter invalid, The keyspec type is incorrect."},
		{"random origin", "EH_RSA_2048", forCrypt, m{"origin": "EH_PURPLE_KEY"}, 400, "Parameter invalid, The origin type is incorrect."},
		{"no origin", "EH_SM2", forCrypt, m{"origin": nil}, 400, "Missing required parameters, The origin cannot be empty."},
		{"no usage", "EH_SM2", forCrypt, m{"keyusage": nil}, 500, server},
		{"unknown usage", "EH_EC_P256", "EH_KEYUSAGE_WRAP", nil, 500, server},
		{"usage is a number", "EH_EC_P256", "", m{"keyusage": 1}, 500, server},
		{"unknown member", "EH_SM2", forCrypt, m{"padding_mode": oaep}, 400, "Parameter invalid, The padding_mode type is incorrect."},
		{"paddings as text", "EH_RSA_2048", forCrypt, m{"padding_modes": oaep}, 400, "Parameter invalid, The padding_modes type is incorrect."},
		{"unknown padding", "EH_RSA_2048", forCrypt, m{"padding_modes": []string{oaep, "EH_RSA_X931"}}, 400, "Parameter invalid, The padding_modes type is incorrect."},
		{"padding none", "EH_RSA_2048", forCrypt, m{"padding_modes": []string{noPadding}}, 400, "Parameter invalid, The padding_modes type is incorrect."},
		{"padding is a number", "EH_RSA_2048", forCrypt, m{"padding_modes": []int{1}}, 400, "Parameter invalid, The padding_modes type is incorrect."},
		{"padding and null", "EH_RSA_2048", forCrypt, m{"padding_modes": []any{oaep, nil, oaep}}, 400, "Parameter invalid, The padding_modes type is incorrect."},
		{"paddings of a signature to encrypt", "EH_RSA_2048", forCrypt, m{"padding_modes": []string{pss}}, 500, server},
		{"one padding too many", "EH_RSA_2048", forCrypt, m{"padding_modes": []string{oaep, pss}}, 500, server},
		{"paddings of encryption to sign", "EH_RSA_2048", forSigns, m{"padding_modes": []string{oaep}}, 500, server},
		{"paddings of an SM2 key", "EH_SM2", forCrypt, m{"padding_modes": []string{oaep}}, 500, server},
		{"paddings of an AES key", "EH_AES_GCM_256", forCrypt, m{"padding_modes": []string{pkcs1}}, 500, server},
	}
	for _, spec := range symmetricSpecs {
		rows = append(rows, row{spec + " signs", spec, forSigns, nil, 500, server})
		rows = append(rows, row{spec + " external signs", spec, forSigns, m{"origin": originExternal}, 500, server})
	}
	for _, spec := range append(append([]string{"EH_SM2", "EH_HMAC"}, rsaSpecs...), ecSpecs...) {
		for _, usage := range []string{forCrypt, forSigns} {
			rows = append(rows, row{spec + " external " + usage, spec, usage, m{"origin": originExternal}, 500, server})
		}
	}
	for _, r := range rows {
		want(t, r.name, c.create(r.spec, r.usage, r.more), r.code, r.message)
	}
	if n := len(c.mustDo("ListKey", nil).Result["list"].([]any)); n != 0 {
		t.Errorf("refused CreateKeys have made %d keys", n)
	}
}

// TestRSAEncryption is line 19: both ways with the service, and each way with
// the standard library on the other side.
func TestRSAEncryption(t *testing.T) {
	h, _ := rsaHost(t)
	c := h.enroll()
	for _, spec := range rsaSpecs {
		id := c.mustCreate(spec, forCrypt)
		public := parsePKCS1(t, c.publicKey(id))
		parsed, _ := primitive.ParseSpec(spec)
		private, err := x509.ParsePKCS1PrivateKey(rsaMaterial(parsed))
		if err != nil {
			t.Fatal(err)
		}
		for _, padding := range []string{pkcs1, oaep, "EH_PAD_RSA_PKCS1", "EH_PAD_RSA_PKCS1_OAEP"} {
			what, isOAEP := spec+" "+padding, strings.HasSuffix(padding, "OAEP")
			limit := modulus(spec) - 11
			if isOAEP {
				limit = modulus(spec) - 66
			}
			plaintext := bytes.Repeat([]byte{0xa5}, limit)
			ct := c.mustDo("AsymmetricEncrypt", m{"keyid": id, "plaintext": b64(plaintext), "padding_mode": padding}).text("ciphertext")
			pt := c.mustDo("AsymmetricDecrypt", m{"keyid": id, "ciphertext": ct, "padding_mode": padding}).text("plaintext")
			if pt != b64(plaintext) {
				t.Errorf("%s: decrypts to %q", what, pt)
			}
			want(t, what+", a byte too long", c.do(0, "AsymmetricEncrypt", m{"keyid": id, "plaintext": b64(append(plaintext, 1)), "padding_mode": padding}), 500, server)

			var opened, sealed []byte
			if isOAEP {
				opened, err = rsa.DecryptOAEP(sha256.New(), nil, private, unb64(t, ct), nil)
			} else {
				//lint:ignore SA1019 the native API offers it
				opened, err = rsa.DecryptPKCS1v15(nil, private, unb64(t, ct))
			}
			if err != nil || !bytes.Equal(opened, plaintext) {
				t.Errorf("%s: the standard library opens %x, %v", what, opened, err)
			}
			if isOAEP {
				sealed, err = rsa.EncryptOAEP(sha256.New(), rand.Reader, public, []byte("hello"), nil)
			} else {
				//lint:ignore SA1019 the native API offers it
				sealed, err = rsa.EncryptPKCS1v15(rand.Reader, public, []byte("hello"))
			}
			if err != nil {
				t.Fatal(err)
			}
			if pt := c.mustDo("AsymmetricDecrypt", m{"keyid": id, "ciphertext": b64(sealed), "padding_mode": padding}).text("plaintext"); pt != hello {
				t.Errorf("%s: what the standard library made decrypts to %q", what, pt)
			}
		}
	}
}

func TestSM2Encryption(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	id := c.mustCreate("EH_SM2", forCrypt)
	for _, padding := range []any{nil, noPadding, oaep, pkcs1, pss} { // all ignored
		for _, n := range []int{1, 32, 255} {
			plaintext := b64(bytes.Repeat([]byte{7}, n))
			ct := c.mustDo("AsymmetricEncrypt", with(m{"keyid": id, "plaintext": plaintext, "padding_mode": oaep}, m{"padding_mode": padding})).text("ciphertext")
			pt := c.mustDo("AsymmetricDecrypt", with(m{"keyid": id, "ciphertext": ct, "padding_mode": oaep}, m{"padding_mode": padding})).text("plaintext")
			if pt != plaintext {
				t.Errorf("padding %v, %d bytes: decrypts to %q", padding, n, pt)
			}
		}
	}
	want(t, "256 bytes", c.do(0, "AsymmetricEncrypt", m{"keyid": id, "plaintext": b64(make([]byte, 256)), "padding_mode": noPadding}), 500, server)
	want(t, "no padding by that name", c.do(0, "AsymmetricEncrypt", m{"keyid": id, "plaintext": hello, "padding_mode": "EH_RSA"}), 400,
		"Parameter invalid, The padding_mode type is incorrect.")
}

// TestUndecryptable is line 20: whatever is wrong with a ciphertext gives one
// answer.
func TestUndecryptable(t *testing.T) {
	h, _ := rsaHost(t)
	c := h.enroll()
	for _, row := range []struct{ spec, padding string }{{"EH_RSA_2048", oaep}, {"EH_RSA_2048", pkcs1}, {"EH_SM2", noPadding}} {
		id := c.mustCreate(row.spec, forCrypt)
		ct := unb64(t, c.mustDo("AsymmetricEncrypt", m{"keyid": id, "plaintext": hello, "padding_mode": row.padding}).text("ciphertext"))
		flip := func(i int) []byte { b := bytes.Clone(ct); b[i] ^= 1; return b }
		for name, bad := range map[string][]byte{
			"first byte flipped": flip(0), "middle byte flipped": flip(len(ct) / 2), "last byte flipped": flip(len(ct) - 1),
			"cut by one": ct[:len(ct)-1], "a zero more": append(bytes.Clone(ct), 0), "a zero before": append([]byte{0}, ct...),
			"one byte": {1}, "zeros": make([]byte, len(ct)), "ones": bytes.Repeat([]byte{0xff}, len(ct)),
			"twice": append(bytes.Clone(ct), ct...), "as long as may be": bytes.Repeat([]byte{9}, 6144),
		} {
			r := c.do(0, "AsymmetricDecrypt", m{"keyid": id, "ciphertext": b64(bad), "padding_mode": row.padding})
			want(t, row.spec+" "+row.padding+" "+name, r, 400, textDecryption)
		}
		other := map[string]string{oaep: pkcs1, pkcs1: oaep}[row.padding]
		if other != "" {
			want(t, row.padding+" opened as "+other, c.do(0, "AsymmetricDecrypt", m{"keyid": id, "ciphertext": b64(ct), "padding_mode": other}), 400, textDecryption)
		}
	}
}

// signKeys has a key of each kind that signs, with the paddings it can be asked
// with.
func signKeys(c *tenant) map[string]string {
	keys := map[string]string{}
	for _, spec := range append(append([]string{"EH_SM2", "EH_HMAC"}, rsaSpecs...), ecSpecs...) {
		keys[spec] = c.mustCreate(spec, forSigns)
	}
	return keys
}

// TestSignVerify is lines 21 and 23.
func TestSignVerify(t *testing.T) {
	h, _ := rsaHost(t)
	c := h.enroll()
	keys := signKeys(c)
	digests := map[string]func([]byte) []byte{
		"EH_SHA_224": primitive.SHA224.Sum, "EH_SHA_256": primitive.SHA256.Sum, "EH_SHA_384": primitive.SHA384.Sum,
		"EH_SHA_512": primitive.SHA512.Sum, "EH_SM3": primitive.SM3.Sum,
	}
	check := func(what string, sign, verify m) {
		t.Helper()
		signature := c.mustDo("Sign", sign).text("signature")
		verify = with(verify, m{"signature": signature})
		verdict := func(how string, more m, good bool) {
			t.Helper()
			r := c.do(0, "Verify", with(verify, more))
			if want(t, what+" "+how, r, 200, "success!"); r.Result["result"] != good || len(r.Result) != 1 {
				t.Errorf("%s %s: got %v, want %v", what, how, r.Result, good)
			}
		}
		verdict("verify", nil, true)
		raw := unb64(t, signature)
		raw[len(raw)-1] ^= 1
		verdict("last byte flipped", m{"signature": b64(raw)}, false)
		verdict("another message", m{"message": b64("another"), "message_type": "EH_RAW"}, false)
	}
	message := []byte("message")
	for spec, id := range keys {
		isRSA := strings.HasPrefix(spec, "EH_RSA")
		for name, sum := range digests {
			if isRSA && name == "EH_SM3" || spec == "EH_SM2" && name != "EH_SM3" || spec == "EH_HMAC" && name != "EH_SHA_256" {
				continue
			}
			raw := m{"keyid": id, "message": b64(message), "message_type": "EH_RAW", "digest_mode": name, "padding_mode": noPadding}
			digest := with(raw, m{"message": b64(sum(message)), "message_type": "EH_DIGEST"})
			paddings := []string{noPadding}
			if isRSA {
				paddings = []string{pkcs1, pss, "EH_PAD_RSA_PKCS1", "EH_PAD_RSA_PKCS1_PSS"}
			}
			if isRSA && name != "EH_SHA_256" && spec != "EH_RSA_2048" {
				paddings = paddings[1:2] // the large keys are slow
			}
			for _, padding := range paddings {
				p := m{"padding_mode": padding}
				check(spec+" "+name+" "+padding, with(raw, p), with(raw, p))
				if spec == "EH_HMAC" || spec == "EH_SM2" {
					continue
				}
				// A signature of a message is one of its digest.
				check(spec+" "+name+" digest, "+padding, with(digest, p), with(raw, p))
				check(spec+" "+name+" raw, "+padding, with(raw, p), with(digest, p))
			}
			if !isRSA { // clients sign with one padding and verify with another
				check(spec+" "+name, raw, with(raw, m{"padding_mode": pkcs1}))
				check(spec+" "+name+", no padding named", with(raw, m{"padding_mode": nil}), raw)
			}
		}
	}
	sm2 := m{"keyid": keys["EH_SM2"], "message": b64("any length"), "message_type": "EH_DIGEST"}
	check("SM2, digest is a message", sm2, sm2)
	check("SM2, digest is a message 2", sm2, with(sm2, m{"message_type": "EH_RAW", "digest_mode": "EH_SM3"}))
	check("SM2 signs with SM3 whatever is asked", with(sm2, m{"digest_mode": "EH_SHA_512"}), sm2)
}

// TestDefaultDigests leaves digest_mode out on either side.
func TestDefaultDigests(t *testing.T) {
	h, _ := rsaHost(t)
	c := h.enroll()
	for spec, digest := range map[string]string{
		"EH_RSA_2048": "EH_SHA_256", "EH_EC_P256": "EH_SHA_256", "EH_EC_P521": "EH_SHA_256", "EH_SM2": "EH_SM3", "EH_HMAC": "EH_SHA_256",
	} {
		p := m{"keyid": c.mustCreate(spec, forSigns), "message": hello, "message_type": "EH_RAW", "padding_mode": pkcs1}
		for _, row := range []struct{ sign, verify any }{{nil, digest}, {digest, nil}, {"", nil}} {
			signature := c.mustDo("Sign", with(p, m{"digest_mode": row.sign})).text("signature")
			if r := c.mustDo("Verify", with(p, m{"digest_mode": row.verify, "signature": signature})); r.Result["result"] != true {
				t.Errorf("%s signed with %v and verified with %v: got %v", spec, row.sign, row.verify, r.Result)
			}
		}
	}
}

// TestSignaturesElsewhere has the standard library verify, and make, what the
// service does not get to see being made.
func TestSignaturesElsewhere(t *testing.T) {
	h, _ := rsaHost(t)
	c := h.enroll()
	id := c.mustCreate("EH_RSA_2048", forSigns)
	public := parsePKCS1(t, c.publicKey(id))
	private, err := x509.ParsePKCS1PrivateKey(rsaMaterial(primitive.RSA2048))
	if err != nil {
		t.Fatal(err)
	}
	message := []byte("message")
	digest := sha512.Sum384(message)
	p := m{"keyid": id, "message": b64(message), "message_type": "EH_RAW", "digest_mode": "EH_SHA_384", "padding_mode": pss}
	options := &rsa.PSSOptions{SaltLength: 48}
	if err := rsa.VerifyPSS(public, crypto.SHA384, digest[:], unb64(t, c.mustDo("Sign", p).text("signature")), options); err != nil {
		t.Errorf("PSS: %v", err)
	}
	if err := rsa.VerifyPKCS1v15(public, crypto.SHA384, digest[:], unb64(t, c.mustDo("Sign", with(p, m{"padding_mode": pkcs1})).text("signature"))); err != nil {
		t.Errorf("PKCS1: %v", err)
	}
	for salt, good := range map[int]bool{48: true, 47: false, 20: false, 0: false} {
		options.SaltLength = salt
		if salt == 0 {
			options.SaltLength = rsa.PSSSaltLengthAuto // as long as fits
		}
		signature, err := rsa.SignPSS(rand.Reader, private, crypto.SHA384, digest[:], options)
		if err != nil {
			t.Fatal(err)
		}
		if r := c.mustDo("Verify", with(p, m{"signature": b64(signature)})); r.Result["result"] != good {
			t.Errorf("PSS with a salt of %d bytes: got %v, want %v", salt, r.Result, good)
		}
	}

	mac := c.mustCreate("EH_HMAC", forSigns)
	tag := unb64(t, c.mustDo("Sign", m{"keyid": mac, "message": b64(message), "message_type": "EH_RAW"}).text("signature"))
	material := materialOf(t, h, c, mac)
	sum := hmac.New(sha256.New, material)
	sum.Write(message)
	if len(material) != 32 || !bytes.Equal(tag, sum.Sum(nil)) {
		t.Errorf("HMAC: got %x under a key of %d bytes, want %x", tag, len(material), sum.Sum(nil))
	}
}

// materialOf opens the stored material of version 1 of a key.
func materialOf(t testing.TB, h *host, c *tenant, keyid string) []byte {
	t.Helper()
	id := c.keyRecord(keyid)
	id.Type, id.Version = wire.KeyVersion, 1
	w, ok := h.rows[id]
	if !ok {
		return nil
	}
	_, material, err := record.OpenKeyVersion(h.cores[0].keys, record.Header{ID: id, Revision: w.Revision}, w.Sealed)
	if err != nil {
		t.Fatal(err)
	}
	return material.Expose()
}

// TestSignRefusals has what Sign and Verify of each kind of key do not do.
func TestSignRefusals(t *testing.T) {
	h, _ := rsaHost(t)
	c := h.enroll()
	keys := signKeys(c)
	sum := b64(sha256.New().Sum(nil))
	base := m{"message": hello, "message_type": "EH_RAW", "digest_mode": "EH_SHA_256", "padding_mode": pkcs1}
	signatures := map[string]string{}
	for spec, id := range keys {
		signatures[spec] = c.mustDo("Sign", with(base, m{"keyid": id})).text("signature")
	}
	aes, rsaCrypt, sm2Crypt, ecCrypt := c.createKey(), c.mustCreate("EH_RSA_2048", forCrypt), c.mustCreate("EH_SM2", forCrypt), c.mustCreate("EH_EC_P256", forCrypt)
	const missing = "Missing required parameters, The %s cannot be empty."
	for _, row := range []struct {
		name, spec string
		more       m
		code       int
		message    string
		verify     bool // Verify goes on, whatever it finds
	}{
		{"RSA without padding", "EH_RSA_2048", m{"padding_mode": nil}, 400, fmt.Sprintf(missing, "padding_mode"), false},
		{"RSA with EH_PAD_NONE", "EH_RSA_2048", m{"padding_mode": noPadding}, 500, server, false},
		{"RSA with OAEP", "EH_RSA_3072", m{"padding_mode": oaep}, 500, server, false},
		{"RSA with SM3", "EH_RSA_2048", m{"digest_mode": "EH_SM3"}, 500, server, false},
		{"RSA digest too short", "EH_RSA_2048", m{"message_type": "EH_DIGEST"}, 500, server, true},
		{"RSA digest of another hash", "EH_RSA_2048", m{"message_type": "EH_DIGEST", "message": sum, "digest_mode": "EH_SHA_384"}, 500, server, true},
		{"PSS digest too short", "EH_RSA_2048", m{"message_type": "EH_DIGEST", "padding_mode": pss}, 500, server, true},
		{"EC digest too short", "EH_EC_P256", m{"message_type": "EH_DIGEST"}, 500, server, true},
		{"secp256k1 digest of another hash", "EH_EC_P256K", m{"message_type": "EH_DIGEST", "message": sum, "digest_mode": "EH_SHA_512"}, 500, server, true},
		{"HMAC of a digest", "EH_HMAC", m{"message_type": "EH_DIGEST", "message": sum}, 500, server, false},
		{"HMAC with another hash", "EH_HMAC", m{"digest_mode": "EH_SHA_512"}, 500, server, false},
		{"HMAC with SM3", "EH_HMAC", m{"digest_mode": "EH_SM3"}, 500, server, false},
		{"no message type", "EH_EC_P384", m{"message_type": nil}, 400, fmt.Sprintf(missing, "message_type"), false},
		{"SM2 without message type", "EH_SM2", m{"message_type": ""}, 400, fmt.Sprintf(missing, "message_type"), false},
		{"unknown message type", "EH_EC_P384", m{"message_type": "EH_COOKED"}, 400, "Parameter invalid, The message_type type is incorrect.", false},
		{"unknown digest", "EH_EC_P384", m{"digest_mode": "EH_MD5"}, 400, "Parameter invalid, The digest_mode type is incorrect.", false},
		{"unknown padding", "EH_RSA_2048", m{"padding_mode": "EH_RSA_X931"}, 400, "Parameter invalid, The padding_mode type is incorrect.", false},
		{"no message", "EH_EC_P384", m{"message": nil}, 400, fmt.Sprintf(missing, "message"), false},
		{"message no base64", "EH_EC_P384", m{"message": "hello"}, 400, "Parameter invalid, The message not a vailed base64 string.", false},
		{"message too long", "EH_EC_P384", m{"message": strings.Repeat("AAAA", 2049)}, 400, "Parameter invalid, The message length error.", false},
		{"AES key", "EH_EC_P256", m{"keyid": aes}, 500, server, false},
		{"RSA key that encrypts", "EH_RSA_2048", m{"keyid": rsaCrypt}, 500, server, false},
		{"SM2 key that encrypts", "EH_SM2", m{"keyid": sm2Crypt, "digest_mode": "EH_SM3"}, 500, server, false},
		{"EC key that encrypts", "EH_EC_P256", m{"keyid": ecCrypt}, 500, server, false},
		{"unknown key", "EH_EC_P256", m{"keyid": wire.NewUUID().String()}, 400, "keyid error", false},
		{"no key", "EH_EC_P256", m{"keyid": nil}, 400, fmt.Sprintf(missing, "keyid"), false},
	} {
		p := with(with(base, m{"keyid": keys[row.spec]}), row.more)
		want(t, "Sign: "+row.name, c.do(0, "Sign", p), row.code, row.message)
		r := c.do(0, "Verify", with(p, m{"signature": signatures[row.spec]}))
		if !row.verify {
			want(t, "Verify: "+row.name, r, row.code, row.message)
		} else if r.Code != 200 || r.Result["result"] != false {
			t.Errorf("Verify: %s: got %d %v, want 200 and false", row.name, r.Code, r.Result)
		}
	}
	for spec, id := range keys { // SM2 verifies with SM3 only
		p := with(base, m{"keyid": id, "digest_mode": "EH_SHA_256", "signature": signatures[spec]})
		if spec == "EH_SM2" {
			want(t, "SM2 with SHA-256", c.do(0, "Verify", p), 500, server)
		}
		long := append(unb64(t, signatures[spec]), 0)
		r := c.do(0, "Verify", with(p, m{"signature": b64(long), "digest_mode": nil}))
		if strings.HasPrefix(spec, "EH_RSA") {
			want(t, spec+" signature a byte too long", r, 500, server)
			want(t, spec+" signature a byte too short", c.do(0, "Verify", with(p, m{"signature": b64(long[:len(long)-2])})), 500, server)
		} else if r.Code != 200 || r.Result["result"] != false {
			t.Errorf("%s signature a byte too long: got %d %v, want 200 and false", spec, r.Code, r.Result)
		}
		want(t, spec+" signature of 513 bytes", c.do(0, "Verify", with(p, m{"signature": b64(make([]byte, 513)), "digest_mode": nil})), 500, server)
		want(t, spec+" no signature", c.do(0, "Verify", with(p, m{"signature": nil})), 400, fmt.Sprintf(missing, "signature"))
	}
}

// TestMalformedDER is line 21's wrong signature: just false.
func TestMalformedDER(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	for _, spec := range append([]string{"EH_SM2"}, ecSpecs...) {
		p := m{"keyid": c.mustCreate(spec, forSigns), "message": hello, "message_type": "EH_RAW"}
		good := unb64(t, c.mustDo("Sign", p).text("signature"))
		for name, bad := range map[string][]byte{
			"nothing in it": {0x30, 0}, "a zero": {0}, "zero and zero": {0x30, 6, 2, 1, 0, 2, 1, 0}, "no DER": []byte("signature"),
			"cut": good[:len(good)-1], "trailing byte": append(bytes.Clone(good), 0), "long length": append([]byte{0x30, 0x81}, good[1:]...),
			"512 bytes": make([]byte, 512),
		} {
			r := c.do(0, "Verify", with(p, m{"signature": b64(bad)}))
			if r.Code != 200 || r.Result["result"] != false {
				t.Errorf("%s %s: got %d %v, want 200 and false", spec, name, r.Code, r.Result)
			}
		}
	}
}

// TestEncryptionRefusals is line 22 and the other keys that do not encrypt.
func TestEncryptionRefusals(t *testing.T) {
	h, _ := rsaHost(t)
	c, other := h.enroll(), h.enroll()
	rsaID := c.mustCreate("EH_RSA_2048", forCrypt)
	external := c.create("EH_AES_GCM_128", forCrypt, m{"origin": originExternal}).text("keyid")
	const missing = "Missing required parameters, The %s cannot be empty."
	type row struct {
		name    string
		more    m
		code    int
		message string
	}
	rows := []row{
		{"RSA without padding", m{"padding_mode": nil}, 400, fmt.Sprintf(missing, "padding_mode")},
		{"RSA with EH_PAD_NONE", m{"padding_mode": noPadding}, 500, server},
		{"RSA with PSS", m{"padding_mode": pss}, 500, server},
		{"unknown padding", m{"padding_mode": "EH_RSA_X931"}, 400, "Parameter invalid, The padding_mode type is incorrect."},
		{"padding is a number", m{"padding_mode": 2}, 400, "Parameter invalid, The padding_mode type is incorrect."},
		{"AES key", m{"keyid": c.createKey()}, 500, server},
		{"external key without material", m{"keyid": external}, 500, server},
		{"HMAC key", m{"keyid": c.mustCreate("EH_HMAC", forSigns)}, 500, server},
		{"RSA key that signs", m{"keyid": c.mustCreate("EH_RSA_2048", forSigns)}, 500, server},
		{"SM2 key that signs", m{"keyid": c.mustCreate("EH_SM2", forSigns)}, 500, server},
		{"unknown key", m{"keyid": wire.NewUUID().String()}, 400, "keyid error"},
		{"foreign key", m{"keyid": other.mustCreate("EH_SM2", forCrypt)}, 400, "keyid error"},
	}
	for _, spec := range ecSpecs {
		rows = append(rows, row{spec, m{"keyid": c.mustCreate(spec, forCrypt)}, 500, server})
	}
	for _, r := range rows {
		want(t, "encrypt: "+r.name, c.do(0, "AsymmetricEncrypt", with(m{"keyid": rsaID, "plaintext": hello, "padding_mode": oaep}, r.more)), r.code, r.message)
		want(t, "decrypt: "+r.name, c.do(0, "AsymmetricDecrypt", with(m{"keyid": rsaID, "ciphertext": b64(make([]byte, 256)), "padding_mode": oaep}, r.more)), r.code, r.message)
	}
	want(t, "symmetric encryption under RSA", c.do(0, "Encrypt", encrypts(rsaID)), 500, server)
	want(t, "data key under RSA", c.do(0, "GenerateDataKey", m{"keyid": rsaID, "keylen": 16}), 500, server)
}

// TestGetPublicKey is line 24.
func TestGetPublicKey(t *testing.T) {
	h, _ := rsaHost(t)
	c, other := h.enroll(), h.enroll()
	for _, usage := range []string{forCrypt, forSigns} {
		for _, spec := range append(append([]string{"EH_SM2"}, rsaSpecs...), ecSpecs...) {
			id := c.mustCreate(spec, usage)
			r := c.mustDo("GetPublicKey", named(id))
			label := "PUBLIC KEY"
			if strings.HasPrefix(spec, "EH_RSA") {
				label = "RSA PUBLIC KEY"
				if n := parsePKCS1(t, r.text("pubkey")).Size(); n != modulus(spec) {
					t.Errorf("%s: modulus of %d bytes", spec, n)
				}
			}
			text := r.text("pubkey")
			if !strings.HasPrefix(text, "-----BEGIN "+label+"-----\n") || !strings.HasSuffix(text, "-----END "+label+"-----\n") {
				t.Errorf("%s: got %q", spec, text)
			}
			if r.text("keyid") != id || len(r.Result) != 2 {
				t.Errorf("%s: got %v", spec, r.Result)
			}
			want(t, spec+" of another", other.do(0, "GetPublicKey", named(id)), 400, "keyid error")
		}
	}
	for name, id := range map[string]string{
		"AES": c.createKey(), "HMAC": c.mustCreate("EH_HMAC", forSigns), "SM4": c.mustCreate("EH_SM4_CBC", forCrypt),
		"external": c.create("EH_AES_GCM_256", forCrypt, m{"origin": originExternal}).text("keyid"),
	} {
		want(t, name, c.do(0, "GetPublicKey", named(id)), 500, server)
	}
	want(t, "no key", c.do(0, "GetPublicKey", m{}), 400, "Missing required parameters, The keyid cannot be empty.")
	want(t, "no payload", c.do(0, "GetPublicKey", nil), 400, "Missing required parameters")
}

// TestKeyStatesOfAsymmetricKeys is line 14: what a disabled or expired key does.
func TestKeyStatesOfAsymmetricKeys(t *testing.T) {
	h, d := rsaHost(t)
	c := h.enroll()
	crypt, signs := c.mustCreate("EH_RSA_2048", forCrypt), c.mustCreate("EH_EC_P256", forSigns)
	ct := c.mustDo("AsymmetricEncrypt", m{"keyid": crypt, "plaintext": hello, "padding_mode": oaep}).text("ciphertext")
	sign := m{"keyid": signs, "message": hello, "message_type": "EH_RAW"}
	signature := c.mustDo("Sign", sign).text("signature")
	protects := map[string]m{"AsymmetricEncrypt": {"keyid": crypt, "plaintext": hello, "padding_mode": oaep}, "Sign": sign}
	processes := map[string]m{
		"AsymmetricDecrypt": {"keyid": crypt, "ciphertext": ct, "padding_mode": oaep},
		"Verify":            with(sign, m{"signature": signature}), "GetPublicKey": named(crypt),
	}
	all := func(what string, of map[string]m, code int, message string) {
		t.Helper()
		for action, p := range of {
			want(t, action+" "+what, c.do(0, action, p), code, message)
		}
	}
	for _, id := range []string{crypt, signs} {
		c.mustDo("DisableKey", named(id))
	}
	all("disabled", protects, 400, "keyid is disabled")
	all("disabled", processes, 400, "keyid is disabled")
	for _, id := range []string{crypt, signs} {
		c.mustDo("EnableKey", named(id))
	}
	all("enabled", protects, 200, "success!")
	for _, id := range []string{crypt, signs} {
		h.alter(d, c, id, func(k *record.Key) { k.Expires = h.now.UnixMilli() })
	}
	all("expired", protects, 400, "keyid expire")
	all("expired", processes, 200, "success!")
	for _, id := range []string{crypt, signs} {
		c.mustDo("DeleteKey", named(id))
	}
	all("deleted", protects, 400, "keyid error")
	all("deleted", processes, 400, "keyid error")
}

// reasons lists action, code and reason of each request in the trail.
func reasons(t testing.TB, h *host) (rows []string) {
	t.Helper()
	for rest := h.frames; len(rest) > 0; {
		f, more, err := trail.CutFrame(rest)
		if err != nil {
			t.Fatal(err)
		}
		e, err := trail.Parse(f.Entry)
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == trail.Request {
			rows = append(rows, fmt.Sprintf("%s %d %s", e.Action, e.Code, e.Reason))
		}
		rest = more
	}
	return rows
}
