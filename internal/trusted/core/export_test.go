package core

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

const (
	exportFailed = "Failed, Please confirm that your parameters are correct."
	keyInvalid   = "key invalid."
)

// toPEM is a public key in SubjectPublicKeyInfo.
func toPEM(t testing.TB, label string, der []byte, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}))
}

func spki(t testing.TB, public any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	return toPEM(t, "PUBLIC KEY", der, err)
}

// TestExportDataKey is line 26: 48 bytes to each kind of target, again and
// again, in all spellings, with each padding.
func TestExportDataKey(t *testing.T) {
	h, _ := rsaHost(t)
	c := h.enroll()
	for _, source := range []string{"EH_AES_GCM_256", "EH_SM4_CBC", "imported"} {
		var id string
		if source == "imported" {
			s := c.parameters(c.createExternal("EH_SM4_CTR"), "EH_RSA_2048")
			c.imported("source", s.payload(t, oaep, make([]byte, 16)))
			id = s.keyid
		} else {
			id = c.mustCreate(source, forCrypt)
		}
		dk := c.mustDo("GenerateDataKey", m{"keyid": id, "keylen": 48, "aad": hello})
		for _, spec := range append([]string{"EH_SM2"}, rsaSpecs...) {
			target := c.mustCreate(spec, forCrypt)
			for _, name := range []string{"olddatakey_base", "olddatakey", "old_data_key"} {
				for _, padding := range []any{nil, pkcs1, oaep, "EH_PAD_RSA_PKCS1"} {
					what := fmt.Sprintf("%s to %s by %s with %v", source, spec, name, padding)
					p := with(m{"keyid": id, name: dk.text("ciphertext"), "aad": hello, "ukeyid": target}, m{"padding_mode": padding})
					r := c.do(0, "ExportDataKey", p)
					if want(t, what, r, 200, "success!"); len(r.Result) != 1 {
						t.Errorf("%s: got %v", what, r.Result)
					}
					if padding == nil {
						padding = oaep
					}
					got := c.mustDo("AsymmetricDecrypt", m{"keyid": target, "ciphertext": r.text("newdatakey"), "padding_mode": padding}).text("plaintext")
					if got != dk.text("plaintext") {
						t.Errorf("%s: target opens %q, want %q", what, got, dk.text("plaintext"))
					}
				}
			}
		}
	}
}

// TestExportToPublicKey exports to keys that the service does not have.
func TestExportToPublicKey(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	id := c.createKey()
	dk := c.mustDo("GenerateDataKey", m{"keyid": id, "keylen": 48})
	base := m{"keyid": id, "olddatakey_base": dk.text("ciphertext")}
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public := &private.PublicKey
	for name, text := range map[string]string{
		"PKCS#1": toPEM(t, "RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(public), nil), "SPKI": spki(t, public),
		"white space around": "\n " + spki(t, public) + "\n",
	} {
		for _, padding := range []any{nil, oaep, pkcs1} {
			got := unb64(t, c.mustDo("ExportDataKey", with(base, m{"upubkey": text, "padding_mode": padding})).text("newdatakey"))
			var opened []byte
			if padding == pkcs1 {
				//lint:ignore SA1019 the native API offers it
				opened, err = rsa.DecryptPKCS1v15(nil, private, got)
			} else {
				opened, err = rsa.DecryptOAEP(sha256.New(), nil, private, got, nil)
			}
			if err != nil || b64(opened) != dk.text("plaintext") {
				t.Errorf("%s, %v: owner opens %x, %v", name, padding, opened, err)
			}
		}
	}
	sm2 := c.mustCreate("EH_SM2", forCrypt)
	got := c.mustDo("ExportDataKey", with(base, m{"upubkey": c.publicKey(sm2), "padding_mode": pss})).text("newdatakey")
	if pt := c.mustDo("AsymmetricDecrypt", m{"keyid": sm2, "ciphertext": got}).text("plaintext"); pt != dk.text("plaintext") {
		t.Errorf("SM2: owner opens %q", pt)
	}
}

// TestExportSizes has the longest data key that fits, and one byte more.
func TestExportSizes(t *testing.T) {
	h, _ := rsaHost(t)
	c := h.enroll()
	id := c.createKey()
	rsaID, sm2ID := c.mustCreate("EH_RSA_2048", forCrypt), c.mustCreate("EH_SM2", forCrypt)
	for _, row := range []struct {
		target, padding string
		longest         int
	}{{rsaID, oaep, 190}, {rsaID, pkcs1, 245}, {sm2ID, noPadding, 255}} {
		for more, code := range map[int]int{0: 200, 1: 400} {
			ct := c.mustDo("GenerateDataKeyWithoutPlaintext", m{"keyid": id, "keylen": row.longest + more}).text("ciphertext")
			message := map[int]string{200: "success!", 400: exportFailed}[code]
			r := c.do(0, "ExportDataKey", m{"keyid": id, "olddatakey_base": ct, "ukeyid": row.target, "padding_mode": row.padding})
			want(t, fmt.Sprintf("%s, %d bytes", row.padding, row.longest+more), r, code, message)
		}
	}
}

func TestExportRefusals(t *testing.T) {
	h, _ := rsaHost(t)
	c, other := h.enroll(), h.enroll()
	id := c.createKey()
	rsaID := c.mustCreate("EH_RSA_2048", forCrypt)
	dk := c.mustDo("GenerateDataKey", m{"keyid": id, "keylen": 48, "aad": hello}).text("ciphertext")
	good := m{"keyid": id, "olddatakey_base": dk, "aad": hello, "ukeyid": rsaID}
	flipped := unb64(t, dk)
	flipped[len(flipped)-1] ^= 1
	disabled, disabledSource := c.mustCreate("EH_RSA_2048", forCrypt), c.createKey()
	c.mustDo("DisableKey", named(disabled))
	c.mustDo("DisableKey", named(disabledSource))
	deleted := c.mustCreate("EH_RSA_2048", forCrypt)
	c.mustDo("DeleteKey", named(deleted))
	fixed := map[int]*rsa.PublicKey{}
	for _, bits := range []int{1024, 2048} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		fixed[bits] = &key.PublicKey
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weak := *fixed[2048]
	weak.E = 3
	publicPEM := spki(t, fixed[2048])
	sm2PEM := c.publicKey(c.mustCreate("EH_SM2", forCrypt))
	offCurve, _ := pem.Decode([]byte(sm2PEM))
	offCurve.Bytes[len(offCurve.Bytes)-1] ^= 1
	brought := func(text string) m { return m{"ukeyid": nil, "upubkey": text} }
	type row struct {
		name    string
		more    m
		code    int
		message string
	}
	rows := []row{
		{"no source", m{"keyid": nil}, 400, fmt.Sprintf(missingMember, "keyid")},
		{"foreign source", m{"keyid": other.createKey()}, 400, "keyid error"},
		{"disabled source", m{"keyid": disabledSource}, 400, "keyid is disabled"},
		{"RSA source", m{"keyid": rsaID}, 500, server},
		{"HMAC source", m{"keyid": c.mustCreate("EH_HMAC", forSigns)}, 500, server},
		{"source without material", m{"keyid": c.createExternal("EH_AES_GCM_256")}, 500, server},
		{"no data key", m{"olddatakey_base": nil}, 400, fmt.Sprintf(missingMember, "olddatakey_base")},
		{"data key no text", m{"olddatakey_base": 1}, 400, "Parameter invalid, The olddatakey_base must be of string type."},
		{"data key too long", m{"olddatakey_base": strings.Repeat("A", 8193)}, 400, "Parameter invalid, The olddatakey_base length error."},
		{"two data keys", m{"olddatakey": dk[4:]}, 400, fmt.Sprintf(wrongMember, "olddatakey_base")},
		{"data key no base64", m{"olddatakey_base": "*"}, 400, exportFailed},
		{"data key with a line feed", m{"olddatakey_base": dk[:8] + "\n" + dk[8:]}, 400, exportFailed},
		{"data key flipped", m{"olddatakey_base": b64(flipped)}, 400, exportFailed},
		{"data key cut", m{"olddatakey_base": dk[:40]}, 400, exportFailed},
		{"data key of another key", m{"keyid": c.createKey()}, 400, exportFailed},
		{"other aad", m{"aad": b64("other")}, 400, exportFailed},
		{"no aad", m{"aad": nil}, 400, exportFailed},
		{"no target", m{"ukeyid": nil}, 400, fmt.Sprintf(missingMember, "ukeyid")},
		{"empty targets", m{"ukeyid": "", "upubkey": ""}, 400, fmt.Sprintf(missingMember, "ukeyid")},
		{"two targets", m{"upubkey": publicPEM}, 400, keyInvalid},
		{"target no text", m{"ukeyid": 1}, 400, "Parameter invalid, The ukeyid must be of string type."},
		{"target no id", m{"ukeyid": "key"}, 400, "keyid error"},
		{"unknown target", m{"ukeyid": wire.NewUUID().String()}, 400, "keyid error"},
		{"foreign target", m{"ukeyid": other.mustCreate("EH_RSA_2048", forCrypt)}, 400, "keyid error"},
		{"deleted target", m{"ukeyid": deleted}, 400, "keyid error"},
		{"disabled target", m{"ukeyid": disabled}, 400, "keyid is disabled"},
		{"target is the source", m{"ukeyid": id}, 400, keyInvalid},
		{"SM4 target", m{"ukeyid": c.mustCreate("EH_SM4_CTR", forCrypt)}, 400, keyInvalid},
		{"HMAC target", m{"ukeyid": c.mustCreate("EH_HMAC", forSigns)}, 400, keyInvalid},
		{"external target", m{"ukeyid": c.createExternal("EH_AES_GCM_256")}, 400, keyInvalid},
		{"RSA target that signs", m{"ukeyid": c.mustCreate("EH_RSA_2048", forSigns)}, 400, keyInvalid},
		{"SM2 target that signs", m{"ukeyid": c.mustCreate("EH_SM2", forSigns)}, 400, keyInvalid},
		{"padding of signatures", m{"padding_mode": pss}, 500, server},
		{"no padding", m{"padding_mode": noPadding}, 500, server},
		{"no padding for a public key", with(brought(publicPEM), m{"padding_mode": noPadding}), 500, server},
		{"unknown padding", m{"padding_mode": "EH_RSA_X931"}, 400, fmt.Sprintf(wrongMember, "padding_mode")},
		{"public key no PEM", brought("key"), 400, keyInvalid},
		{"public key no text", brought(""), 400, fmt.Sprintf(missingMember, "ukeyid")},
		{"public key too long", brought(strings.Repeat("A", 8193)), 400, "Parameter invalid, The upubkey length error."},
		{"two public keys", brought(publicPEM + publicPEM), 400, keyInvalid},
		{"public key cut", brought(publicPEM[:200]), 400, keyInvalid},
		{"1024 bits", brought(spki(t, fixed[1024])), 400, keyInvalid},
		{"exponent 3", brought(spki(t, &weak)), 400, keyInvalid},
		{"EC public key", brought(spki(t, &ec.PublicKey)), 400, keyInvalid},
		{"SM2 point off the curve", brought(string(pem.EncodeToMemory(offCurve))), 400, keyInvalid},
		{"wrong label", brought(strings.ReplaceAll(publicPEM, "PUBLIC KEY", "CERTIFICATE")), 400, keyInvalid},
	}
	for _, spec := range ecSpecs {
		for _, usage := range []string{forCrypt, forSigns} {
			rows = append(rows, row{spec + " " + usage, m{"ukeyid": c.mustCreate(spec, usage)}, 500, server})
		}
	}
	for _, r := range rows {
		want(t, r.name, c.do(0, "ExportDataKey", with(good, r.more)), r.code, r.message)
	}
	want(t, "good", c.do(0, "ExportDataKey", good), 200, "success!")
}

// TestExportOfExpiredKeys goes on working, on both ends.
func TestExportOfExpiredKeys(t *testing.T) {
	h, d := rsaHost(t)
	c := h.enroll()
	id, target := c.createKey(), c.mustCreate("EH_RSA_2048", forCrypt)
	dk := c.mustDo("GenerateDataKey", m{"keyid": id, "keylen": 48}).text("ciphertext")
	for _, k := range []string{id, target} {
		h.alter(d, c, k, func(k *record.Key) { k.Expires = 1 })
	}
	want(t, "expired", c.do(0, "ExportDataKey", m{"keyid": id, "olddatakey_base": dk, "ukeyid": target}), 200, "success!")
}

// TestExportAudit has the trail name the key that was exported from.
func TestExportAudit(t *testing.T) {
	h, _ := rsaHost(t)
	c := h.enroll()
	id, target := c.createKey(), c.mustCreate("EH_RSA_2048", forCrypt)
	dk := c.mustDo("GenerateDataKey", m{"keyid": id, "keylen": 48}).text("ciphertext")
	h.frames = nil
	c.mustDo("ExportDataKey", m{"keyid": id, "olddatakey_base": dk, "ukeyid": target})
	key := c.keyRecord(id).ID
	if !bytes.Contains(h.frames, slices.Concat(key[:], []byte{0, 0, 0, 1})) {
		t.Error("the trail does not name the source and its version")
	}
}

// TestPaddingSets has keys that admit one padding only.
func TestPaddingSets(t *testing.T) {
	h, _ := rsaHost(t)
	c := h.enroll()
	source := c.createKey()
	dk := c.mustDo("GenerateDataKey", m{"keyid": source, "keylen": 48}).text("ciphertext")
	for _, row := range []struct {
		admitted []string
		paddings map[string]int // code with each
	}{
		{[]string{oaep}, map[string]int{oaep: 200, "EH_PAD_RSA_PKCS1_OAEP": 200, pkcs1: 500, "EH_PAD_RSA_PKCS1": 500, pss: 500, noPadding: 500}},
		{[]string{pkcs1}, map[string]int{oaep: 500, pkcs1: 200}},
		{[]string{"EH_PAD_RSA_PKCS1", "EH_RSA_PKCS1"}, map[string]int{oaep: 500, pkcs1: 200}},
		{[]string{pkcs1, oaep}, map[string]int{oaep: 200, pkcs1: 200, pss: 500}},
		{[]string{}, map[string]int{oaep: 200, pkcs1: 200, pss: 500}},
	} {
		id := c.create("EH_RSA_2048", forCrypt, m{"padding_modes": row.admitted}).text("keyid")
		public := parsePKCS1(t, c.publicKey(id))
		for padding, code := range row.paddings {
			what, message := fmt.Sprintf("%v, asked for %s", row.admitted, padding), map[int]string{200: "success!", 500: server}[code]
			want(t, "encrypt: "+what, c.do(0, "AsymmetricEncrypt", m{"keyid": id, "plaintext": hello, "padding_mode": padding}), code, message)
			want(t, "export: "+what, c.do(0, "ExportDataKey", m{"keyid": source, "olddatakey_base": dk, "ukeyid": id, "padding_mode": padding}), code, message)
			// The same ciphertext that opens where the padding is admitted.
			ct := importing{public: public}.payload(t, padding, []byte("hello"))["key_material"]
			want(t, "decrypt: "+what, c.do(0, "AsymmetricDecrypt", m{"keyid": id, "ciphertext": ct, "padding_mode": padding}), code, message)
		}
	}
	only := c.create("EH_RSA_2048", forCrypt, m{"padding_modes": []string{pkcs1}}).text("keyid")
	want(t, "export with the default padding", c.do(0, "ExportDataKey", m{"keyid": source, "olddatakey_base": dk, "ukeyid": only}), 500, server)

	sign := m{"message": hello, "message_type": "EH_RAW"}
	all := c.mustCreate("EH_RSA_2048", forSigns)
	for _, admitted := range []string{pkcs1, pss} {
		id := c.create("EH_RSA_2048", forSigns, m{"padding_modes": []string{admitted}}).text("keyid")
		for _, padding := range []string{pkcs1, pss} {
			what, code, message := admitted+", asked for "+padding, 500, server
			if padding == admitted {
				code, message = 200, "success!"
			}
			signature := c.mustDo("Sign", with(sign, m{"keyid": all, "padding_mode": padding})).text("signature")
			p := with(sign, m{"keyid": id, "padding_mode": padding})
			want(t, "sign: "+what, c.do(0, "Sign", p), code, message)
			// The test's RSA keys are all one, so the signature is genuine.
			r := c.do(0, "Verify", with(p, m{"signature": signature}))
			want(t, "verify: "+what, r, code, message)
			if code == 200 && r.Result["result"] != true {
				t.Errorf("verify: %s: got %v", what, r.Result)
			}
		}
	}
	spec, _ := primitive.ParseSpec("EH_RSA_2048")
	if k := c.stateOf(all); k.Spec != spec || k.Paddings != primitive.SignaturePaddings {
		t.Errorf("stored key has spec %s, paddings %#x", k.Spec, k.Paddings)
	}
}

// stateOf opens the stored record of a key.
func (c *tenant) stateOf(keyid string) record.Key {
	c.h.t.Helper()
	id := c.keyRecord(keyid)
	w := c.h.rows[id]
	k, err := record.OpenKey(c.h.cores[0].keys, record.Header{ID: id, Revision: w.Revision}, w.Sealed)
	if err != nil {
		c.h.t.Fatal(err)
	}
	return k
}
