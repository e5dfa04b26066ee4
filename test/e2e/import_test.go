package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"testing"
)

// importLines are about keys that are brought along. That a token ends after 24
// hours needs a clock in the test's hand: internal/trusted/core.
func importLines() []line {
	return []line{
		{"27-import", testImport},
		{"25-imported-keys", testImportedKeys},
		{"27-raw-bytes", testImportRaw},
		{"28-second-session", testSecondSession},
		{"29-tokens", testImportTokens},
		{"29-unwrap-failures", testUnwrapFailures},
		{"29-parameters-refusals", testParametersRefusals},
	}
}

const (
	textToken  = "ImportToken failed."
	textImport = "Import key failed."
)

// materialSizes are the specs that can be imported, with the length of their
// material in bytes.
var materialSizes = map[string]int{"EH_AES_GCM_128": 16, "EH_AES_GCM_192": 24, "EH_AES_GCM_256": 32, "EH_SM4_CTR": 16, "EH_SM4_CBC": 16}

// A session is an import under way.
type session struct {
	c     *tenant
	key   string
	token string
	pem   string
	wrap  *rsa.PublicKey
}

// external makes a key that waits for its material.
func (c *tenant) external(t *testing.T, spec string) string {
	t.Helper()
	r := c.call(t, "CreateKey", fields{"keyspec": spec, "origin": externalKey, "keyusage": encryptDecrypt})
	want(t, r, 200, textSuccess)
	return r.text(t, "keyid")
}

// session begins an import.
func (c *tenant) session(t *testing.T, key, wrapping string) session {
	t.Helper()
	r := c.call(t, "GetParametersForImport", fields{"keyid": key, "keyspec": wrapping})
	want(t, r, 200, textSuccess)
	s := newSession(t, r)
	s.c, s.key = c, key
	return s
}

// newSession reads what GetParametersForImport has answered.
func newSession(t *testing.T, r reply) session {
	t.Helper()
	s := session{token: r.text(t, "importToken"), pem: r.text(t, "pubkey")}
	if len(r.bytes(t, "importToken")) == 0 || len(r.Result) != 2 {
		t.Errorf("GetParametersForImport: result has %d members or an empty token", len(r.Result))
	}
	block, _ := pem.Decode([]byte(s.pem))
	if block == nil || block.Type != "RSA PUBLIC KEY" {
		t.Fatalf("wrapping key is no PKCS#1 PEM: %q", s.pem)
	}
	var err error
	if s.wrap, err = x509.ParsePKCS1PublicKey(block.Bytes); err != nil {
		t.Fatal(err)
	}
	return s
}

// sealed wraps material for the session.
func (s session) sealed(t *testing.T, padding string, material []byte) string {
	t.Helper()
	var b []byte
	var err error
	if padding == padPKCS1 {
		//lint:ignore SA1019 the contract has this padding
		b, err = rsa.EncryptPKCS1v15(rand.Reader, s.wrap, material)
	} else {
		b, err = rsa.EncryptOAEP(sha256.New(), rand.Reader, s.wrap, material, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b64(b)
}

// bring imports material.
func (s session) bring(t *testing.T, padding string, material []byte) reply {
	t.Helper()
	return s.c.call(t, "ImportKeyMaterial", fields{"keyid": s.key, "padding_mode": padding, "importToken": s.token,
		"key_material": s.sealed(t, padding, material)})
}

// brought expects that an import has succeeded.
func brought(t *testing.T, r reply) {
	t.Helper()
	want(t, r, 200, textSuccess)
	if r.Result["result"] != true || len(r.Result) != 1 {
		t.Errorf("ImportKeyMaterial: got %s", r.body)
	}
}

// testImport has all 30 combinations on one target. Wrapping keys take long to
// make, so the others see the shortest.
func testImport(t *testing.T, g *target) {
	c := g.enroll(t)
	for spec, size := range materialSizes {
		for _, wrapping := range rsaSpecs {
			if wrapping != "EH_RSA_2048" && g.kind != dev {
				continue
			}
			for _, padding := range []string{padPKCS1, padOAEP} {
				s := c.session(t, c.external(t, spec), wrapping)
				if bits := s.wrap.N.BitLen(); wrapping != map[int]string{2048: "EH_RSA_2048", 3072: "EH_RSA_3072", 4096: "EH_RSA_4096"}[bits] {
					t.Errorf("%s: wrapping key has %d bits", wrapping, bits)
				}
				brought(t, s.bring(t, padding, randomBytes(size)))
				c.roundTrip(t, s.key, spec+" imported")
			}
		}
	}
}

// imported is a key with the given material.
func (c *tenant) imported(t *testing.T, spec string, material []byte) string {
	t.Helper()
	s := c.session(t, c.external(t, spec), "EH_RSA_2048")
	brought(t, s.bring(t, padOAEP, material))
	return s.key
}

func testImportedKeys(t *testing.T, g *target) {
	c := g.enroll(t)
	for _, spec := range []string{"EH_AES_GCM_192", "EH_SM4_CTR"} {
		key := c.imported(t, spec, randomBytes(materialSizes[spec]))
		c.dataKeys(t, key, spec+" imported")
		altered(t, c, key, spec)
		data := c.call(t, "GenerateDataKey", fields{"keyid": key, "keylen": 32})
		target := c.create(t, "EH_SM2", encryptDecrypt)
		got := c.call(t, "ExportDataKey", fields{"keyid": key, "olddatakey_base": data.text(t, "ciphertext"), "ukeyid": target})
		want(t, got, 200, textSuccess)
		got = c.call(t, "AsymmetricDecrypt", fields{"keyid": target, "ciphertext": got.text(t, "newdatakey"), "padding_mode": padNone})
		if !bytes.Equal(got.bytes(t, "plaintext"), data.bytes(t, "plaintext")) {
			t.Errorf("%s: another data key is exported", spec)
		}
		want(t, c.call(t, "DisableKey", fields{"keyid": key}), 200, textSuccessful)
		want(t, c.call(t, "Encrypt", fields{"keyid": key, "plaintext": "AAAA"}), 400, "keyid is disabled")
		want(t, c.call(t, "EnableKey", fields{"keyid": key}), 200, textSuccessful)
		c.roundTrip(t, key, spec+" enabled again")
	}
}

// testImportRaw: digits of hex are bytes like others.
func testImportRaw(t *testing.T, g *target) {
	c := g.enroll(t)
	c.roundTrip(t, c.imported(t, "EH_AES_GCM_256", []byte("00112233445566778899aabbccddeeff")), "hex digits")
	s := c.session(t, c.external(t, "EH_AES_GCM_128"), "EH_RSA_2048")
	want(t, s.bring(t, padOAEP, []byte("00112233445566778899aabbccddeeff")), 500, textImport) // 32 bytes are too many
	brought(t, s.bring(t, padOAEP, []byte("0011223344556677")))
}

// testSecondSession: what is imported stays, and only the last session counts.
func testSecondSession(t *testing.T, g *target) {
	c := g.enroll(t)
	material := randomBytes(32)
	first := c.session(t, c.external(t, "EH_AES_GCM_256"), "EH_RSA_2048")
	second := c.session(t, first.key, "EH_RSA_2048")
	want(t, first.bring(t, padOAEP, material), 500, textToken)
	brought(t, second.bring(t, padOAEP, material))
	sealed := c.call(t, "Encrypt", fields{"keyid": first.key, "plaintext": "AAAA"}).text(t, "ciphertext")
	still := func() {
		t.Helper()
		want(t, c.call(t, "Decrypt", fields{"keyid": first.key, "ciphertext": sealed}), 200, textSuccess)
	}
	third := c.session(t, first.key, "EH_RSA_2048")
	still()
	want(t, second.bring(t, padOAEP, material), 500, textToken)
	want(t, third.bring(t, padOAEP, randomBytes(32)), 500, textImport) // other material
	still()
	brought(t, third.bring(t, padPKCS1, material)) // the same again
	want(t, third.bring(t, padPKCS1, material), 500, textToken)
	still()
}

func testImportTokens(t *testing.T, g *target) {
	c, other := g.enroll(t), g.enroll(t)
	s := c.session(t, c.external(t, "EH_AES_GCM_128"), "EH_RSA_2048")
	neighbour := c.session(t, c.external(t, "EH_AES_GCM_128"), "EH_RSA_2048")
	foreign := other.session(t, other.external(t, "EH_AES_GCM_128"), "EH_RSA_2048")
	material := randomBytes(16)
	in := fields{"keyid": s.key, "padding_mode": padOAEP, "importToken": s.token, "key_material": s.sealed(t, padOAEP, material)}
	wrong := map[string]any{"none": "", "two letters": "ab", "no base64": "!!", "zeros": b64(make([]byte, 64)), "longer": s.token + "AAAA",
		"shorter": s.token[:len(s.token)-4], "of another key": neighbour.token, "of another tenant": foreign.token, "lone": "A"}
	raw := []byte(s.token)
	for i := range raw {
		flipped := bytes.Clone(raw)
		if flipped[i] = 'A'; raw[i] == 'A' {
			flipped[i] = 'B'
		}
		wrong["character "+string(rune('0'+i/100))+string(rune('0'+i/10%10))+string(rune('0'+i%10))] = string(flipped)
	}
	for name, token := range wrong {
		r := c.call(t, "ImportKeyMaterial", in.with(fields{"importToken": token}))
		r.action = name
		want(t, r, 500, textToken)
	}
	want(t, c.call(t, "ImportKeyMaterial", in.without("importToken")), 500, textToken)
	want(t, c.call(t, "ImportKeyMaterial", in.with(fields{"keyid": neighbour.key})), 500, textToken)
	want(t, c.call(t, "ImportKeyMaterial", in.with(fields{"zz": "x"})), 400, "Parameter invalid, The zz type is incorrect.")
	want(t, c.call(t, "ImportKeyMaterial", in.with(fields{"ImportToken": neighbour.token})), 400, "Parameter invalid, The importToken type is incorrect.")
	brought(t, c.call(t, "ImportKeyMaterial", in.without("importToken").with(fields{"import_token": s.token, "KeyMaterialExpireUnix": 1})))
	want(t, c.call(t, "ImportKeyMaterial", in), 500, textToken) // used
	in = fields{"keyid": neighbour.key, "padding_mode": padPKCS1, "ImportToken": neighbour.token, "key_material": neighbour.sealed(t, padPKCS1, material)}
	brought(t, c.call(t, "ImportKeyMaterial", in))
}

// testUnwrapFailures: all causes give one text, and only some of them are
// allowed to one session.
func testUnwrapFailures(t *testing.T, g *target) {
	c := g.enroll(t)
	s := c.session(t, c.external(t, "EH_AES_GCM_128"), "EH_RSA_2048")
	material := randomBytes(16)
	in := fields{"keyid": s.key, "padding_mode": padOAEP, "importToken": s.token}
	for name, row := range map[string][2]string{
		"random": {padOAEP, b64(randomBytes(256))}, "short": {padOAEP, "AAAA"}, "other padding": {padPKCS1, s.sealed(t, padOAEP, material)},
		"length 15": {padOAEP, s.sealed(t, padOAEP, material[:15])}, "length 24": {padPKCS1, s.sealed(t, padPKCS1, randomBytes(24))},
		"length 1": {padPKCS1, s.sealed(t, padPKCS1, material[:1])},
	} {
		r := c.call(t, "ImportKeyMaterial", in.with(fields{"padding_mode": row[0], "key_material": row[1]}))
		r.action = name
		want(t, r, 500, textImport)
	}
	for i := 0; ; i++ {
		r := c.call(t, "ImportKeyMaterial", in.with(fields{"key_material": b64(randomBytes(256))}))
		if r.Message == textToken {
			break
		}
		if want(t, r, 500, textImport); i > 1000 {
			t.Fatal("a thousand failed unwraps are allowed to one session")
		}
	}
	want(t, s.bring(t, padOAEP, material), 500, textToken)
	brought(t, c.session(t, s.key, "EH_RSA_2048").bring(t, padOAEP, material))
}

func testParametersRefusals(t *testing.T, g *target) {
	r := g.ring(t)
	waiting := r.external(t, "EH_AES_GCM_256")
	for _, spec := range []string{"EH_SM2", "EH_EC_P256", "EH_AES_GCM_256", "EH_HMAC"} {
		want(t, r.call(t, "GetParametersForImport", fields{"keyid": waiting, "keyspec": spec}), 500, textServer)
	}
	for _, key := range []string{r.key(t, "EH_AES_GCM_256", encryptDecrypt), r.key(t, "EH_RSA_2048", encryptDecrypt), r.key(t, "EH_HMAC", signVerify)} {
		want(t, r.call(t, "GetParametersForImport", fields{"keyid": key, "keyspec": "EH_RSA_2048"}), 500, textServer)
	}
	want(t, r.call(t, "Encrypt", fields{"keyid": waiting, "plaintext": "AAAA"}), 500, textServer)
	want(t, r.call(t, "GetPublicKey", fields{"keyid": waiting}), 500, textServer)
	want(t, r.call(t, "DeleteKey", fields{"keyid": waiting}), 200, textSuccessful)
	want(t, r.call(t, "GetParametersForImport", fields{"keyid": waiting, "keyspec": "EH_RSA_2048"}), 400, textKeyID)
}
