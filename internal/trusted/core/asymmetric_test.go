package core

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

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
