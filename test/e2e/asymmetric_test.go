package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"testing"
)

// asymmetricLines are about encryption with key pairs.
func asymmetricLines() []line {
	return []line{
		{"19-asymmetric-round-trips", testAsymmetric},
		{"19-from-another-library", testForeignLibrary},
		{"20-undecryptable", testUndecryptable},
		{"22-padding-members", testPaddingMember},
		{"24-public-keys", testPublicKeys},
		{"13-validation-texts-asymmetric", testValidationAsymmetric},
		{"14-key-lookup-asymmetric", testKeyLookupAsymmetric},
		{"41-public-key-body-for-another-action", testPublicKeyBody},
	}
}

const (
	padNone  = "EH_PAD_NONE"
	padPKCS1 = "EH_RSA_PKCS1"
	padPSS   = "EH_RSA_PKCS1_PSS"
	padOAEP  = "EH_RSA_PKCS1_OAEP"
)

// An encryption is a key with a padding and its largest plaintext, in bytes.
type encryption struct {
	spec, padding string
	largest       int
}

func encryptions() []encryption {
	return []encryption{
		{"EH_RSA_2048", padPKCS1, 245}, {"EH_RSA_3072", padPKCS1, 373}, {"EH_RSA_4096", padPKCS1, 501},
		{"EH_RSA_2048", padOAEP, 190}, {"EH_RSA_3072", padOAEP, 318}, {"EH_RSA_4096", padOAEP, 446},
		{"EH_RSA_2048", "EH_PAD_RSA_PKCS1", 245}, {"EH_RSA_2048", "EH_PAD_RSA_PKCS1_OAEP", 190},
		{"EH_SM2", padNone, 255}, {"EH_SM2", padOAEP, 255}, {"EH_SM2", padPKCS1, 255},
	}
}

func testAsymmetric(t *testing.T, g *target) {
	r := g.ring(t)
	for _, e := range encryptions() {
		in := fields{"keyid": r.key(t, e.spec, encryptDecrypt), "padding_mode": e.padding}
		for _, n := range []int{1, 16, e.largest} {
			plain := b64(randomBytes(n))
			got := r.call(t, "AsymmetricEncrypt", in.with(fields{"plaintext": plain}))
			want(t, got, 200, textSuccess)
			got = r.call(t, "AsymmetricDecrypt", in.with(fields{"ciphertext": got.text(t, "ciphertext")}))
			want(t, got, 200, textSuccess)
			if got.text(t, "plaintext") != plain {
				t.Errorf("%s %s: %d bytes come back as others", e.spec, e.padding, n)
			}
		}
		for _, n := range []int{e.largest + 1, 1000, 6144} {
			if got := r.call(t, "AsymmetricEncrypt", in.with(fields{"plaintext": b64(make([]byte, n))})); got.Code == 200 {
				t.Errorf("%s %s: %d bytes are encrypted, want %d at most", e.spec, e.padding, n, e.largest)
			}
		}
	}
}

// publicKey returns the public half of a key, as text and parsed. Curves that
// the standard library lacks parse to nil.
func (r *ring) publicKey(t *testing.T, spec, usage string) (text string, key any) {
	t.Helper()
	got := r.call(t, "GetPublicKey", fields{"keyid": r.key(t, spec, usage)})
	want(t, got, 200, textSuccess)
	text = got.text(t, "pubkey")
	block, rest := pem.Decode([]byte(text))
	kind := "PUBLIC KEY"
	if indexOf(rsaSpecs, spec) >= 0 {
		kind = "RSA PUBLIC KEY"
	}
	if block == nil || block.Type != kind || len(rest) != 0 || len(block.Headers) != 0 || text != string(pem.EncodeToMemory(block)) {
		t.Fatalf("%s: public key is no PEM of the kind %s: %q", spec, kind, text)
	}
	if got.text(t, "keyid") != r.key(t, spec, usage) || len(got.Result) != 2 {
		t.Errorf("%s: result %s", spec, got.body)
	}
	var err error
	switch {
	case kind == "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case spec != "EH_SM2" && spec != "EH_EC_P256K":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	}
	if err != nil {
		t.Fatalf("%s: %v", spec, err)
	}
	return text, key
}

func testPublicKeys(t *testing.T, g *target) {
	r := g.ring(t)
	bits := map[string]int{"EH_RSA_2048": 2048, "EH_RSA_3072": 3072, "EH_RSA_4096": 4096, "EH_EC_P224": 224, "EH_EC_P256": 256, "EH_EC_P384": 384, "EH_EC_P521": 521}
	seen := map[string]bool{}
	for _, usage := range []string{encryptDecrypt, signVerify} {
		for _, specs := range [][]string{rsaSpecs, ecSpecs, {"EH_SM2"}} {
			for _, spec := range specs {
				text, key := r.publicKey(t, spec, usage)
				size := bits[spec]
				switch key := key.(type) {
				case *rsa.PublicKey:
					size = key.N.BitLen()
				case *ecdsa.PublicKey:
					size = key.Curve.Params().BitSize
				}
				if size != bits[spec] || seen[text] {
					t.Errorf("%s: key of %d bits, or one that comes a second time", spec, size)
				}
				seen[text] = true
			}
		}
	}
}

// testForeignLibrary has the standard library encrypt what the service opens.
func testForeignLibrary(t *testing.T, g *target) {
	r := g.ring(t)
	for _, spec := range rsaSpecs {
		_, key := r.publicKey(t, spec, encryptDecrypt)
		public := key.(*rsa.PublicKey)
		plain := randomBytes(32)
		oaep, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public, plain, nil)
		if err != nil {
			t.Fatal(err)
		}
		//lint:ignore SA1019 the contract has this padding
		pkcs1, err := rsa.EncryptPKCS1v15(rand.Reader, public, plain)
		if err != nil {
			t.Fatal(err)
		}
		for padding, sealed := range map[string][]byte{padOAEP: oaep, padPKCS1: pkcs1} {
			got := r.call(t, "AsymmetricDecrypt", fields{"keyid": r.key(t, spec, encryptDecrypt), "ciphertext": b64(sealed), "padding_mode": padding})
			want(t, got, 200, textSuccess)
			if !bytes.Equal(got.bytes(t, "plaintext"), plain) {
				t.Errorf("%s %s: opens as another plaintext", spec, padding)
			}
		}
	}
}

// testUndecryptable: what does not decrypt is refused with the same bytes,
// whatever is wrong.
func testUndecryptable(t *testing.T, g *target) {
	r := g.ring(t)
	for _, e := range []encryption{{"EH_RSA_2048", padPKCS1, 0}, {"EH_RSA_2048", padOAEP, 0}, {"EH_RSA_4096", padOAEP, 0}, {"EH_SM2", padNone, 0}} {
		key := r.key(t, e.spec, encryptDecrypt)
		if e.padding == padPKCS1 {
			key = r.create(t, e.spec, encryptDecrypt) // its failures are counted
		}
		in := fields{"keyid": key, "padding_mode": e.padding}
		good := r.call(t, "AsymmetricEncrypt", in.with(fields{"plaintext": b64([]byte("attack at dawn"))})).bytes(t, "ciphertext")
		wrong := map[string][]byte{
			"zeros": make([]byte, len(good)), "ones": bytes.Repeat([]byte{0xff}, len(good)), "one byte": {1},
			"short": good[:len(good)-1], "long": append(bytes.Clone(good), 0), "led by zero": append([]byte{0}, good...), "DER": {0x30, 0},
		}
		for i := 0; i < len(good); i += 1 + len(good)/16 {
			b := bytes.Clone(good)
			b[i] ^= 1
			wrong["bit of byte "+string(rune('a'+i*16/len(good)))] = b
		}
		for name, b := range wrong {
			got := r.call(t, "AsymmetricDecrypt", in.with(fields{"ciphertext": b64(b)}))
			got.action = e.spec + " " + e.padding + " " + name
			want(t, got, 400, textDecryption)
		}
		other := map[string]string{padPKCS1: padOAEP, padOAEP: padPKCS1}[e.padding]
		if other == "" {
			continue
		}
		got := r.call(t, "AsymmetricDecrypt", in.with(fields{"ciphertext": b64(good), "padding_mode": other}))
		want(t, got, 400, textDecryption)
	}
	for _, spec := range ecSpecs { // EC keys with this usage exist, but decrypt nothing
		payload := fields{"keyid": r.key(t, spec, encryptDecrypt), "ciphertext": "AAAA", "padding_mode": padNone}
		want(t, r.call(t, "AsymmetricDecrypt", payload), 500, textServer)
	}
}

// testPaddingMember: RSA keys need a padding that encrypts, others ignore it.
func testPaddingMember(t *testing.T, g *target) {
	r := g.ring(t)
	key := r.key(t, "EH_RSA_2048", encryptDecrypt)
	const missing = "Missing required parameters, The padding_mode cannot be empty."
	want(t, r.call(t, "AsymmetricEncrypt", fields{"keyid": key, "plaintext": "AAAA"}), 400, missing)
	want(t, r.call(t, "AsymmetricDecrypt", fields{"keyid": key, "ciphertext": "AAAA"}), 400, missing)
	for _, padding := range []string{padNone, padPSS} {
		want(t, r.call(t, "AsymmetricEncrypt", fields{"keyid": key, "plaintext": "AAAA", "padding_mode": padding}), 500, textServer)
		want(t, r.call(t, "AsymmetricDecrypt", fields{"keyid": key, "ciphertext": b64(make([]byte, 256)), "padding_mode": padding}), 500, textServer)
	}
	want(t, r.call(t, "AsymmetricEncrypt", fields{"keyid": r.key(t, "EH_SM2", encryptDecrypt), "plaintext": "AAAA"}), 200, textSuccess)
}

func testValidationAsymmetric(t *testing.T, g *target) {
	r := g.ring(t)
	encrypt, sign := r.key(t, "EH_RSA_2048", encryptDecrypt), r.key(t, "EH_RSA_2048", signVerify)
	signing := fields{"keyid": sign, "message": "AAAA", "message_type": "EH_RAW", "digest_mode": "EH_SHA_256", "padding_mode": padPKCS1}
	good := map[string]fields{
		"AsymmetricEncrypt": {"keyid": encrypt, "plaintext": "AAAA", "padding_mode": padPKCS1},
		"AsymmetricDecrypt": {"keyid": encrypt, "ciphertext": "AAAA", "padding_mode": padPKCS1},
		"Sign":              signing, "Verify": signing.with(fields{"signature": "AAAA"}),
		"GetPublicKey": {"keyid": sign}, "ExportDataKey": {"keyid": r.key(t, "EH_AES_GCM_128", encryptDecrypt), "olddatakey_base": "AAAA", "ukeyid": encrypt},
		"GetParametersForImport": {"keyid": encrypt, "keyspec": "EH_RSA_2048"},
		"ImportKeyMaterial":      {"keyid": encrypt, "padding_mode": padPKCS1, "key_material": "AAAA", "importToken": "AAAA"},
	}
	var faults []fault
	for action := range good {
		faults = append(faults, uuidFaults(action, "keyid")...)
	}
	for _, row := range [][2]string{{"AsymmetricEncrypt", "plaintext"}, {"AsymmetricDecrypt", "ciphertext"}, {"Sign", "message"},
		{"Verify", "message"}, {"Verify", "signature"}, {"ImportKeyMaterial", "key_material"}} {
		faults = append(faults, base64Faults(row[0], row[1], 8192)...)
	}
	faults = append(faults, optional(base64Faults("ExportDataKey", "aad", 8192))...)
	for _, row := range [][2]string{{"AsymmetricEncrypt", "padding_mode"}, {"AsymmetricDecrypt", "padding_mode"}, {"Sign", "padding_mode"},
		{"Sign", "message_type"}, {"Sign", "digest_mode"}, {"Verify", "padding_mode"}, {"Verify", "message_type"}, {"Verify", "digest_mode"},
		{"ExportDataKey", "padding_mode"}} {
		faults = append(faults, nameFaults(row[0], row[1])[2:]...) // required or not depends on the key
	}
	faults = append(faults, nameFaults("GetParametersForImport", "keyspec")...)
	faults = append(faults, nameFaults("ImportKeyMaterial", "padding_mode")...)
	faulty(t, r.tenant, good, faults)
}

func testKeyLookupAsymmetric(t *testing.T, g *target) {
	r, other := g.ring(t), g.enroll(t)
	own := other.create(t, "EH_EC_P256", signVerify)
	foreign := r.key(t, "EH_EC_P256", signVerify)
	signing := fields{"message": "AAAA", "message_type": "EH_RAW", "digest_mode": "EH_SHA_256", "padding_mode": padNone}
	uses := map[string]fields{
		"AsymmetricEncrypt": {"plaintext": "AAAA", "padding_mode": padPKCS1}, "AsymmetricDecrypt": {"ciphertext": "AAAA", "padding_mode": padPKCS1},
		"Sign": signing, "Verify": signing.with(fields{"signature": "AAAA"}), "GetPublicKey": {},
		"ExportDataKey": {"olddatakey_base": "AAAA", "ukeyid": own}, "GetParametersForImport": {"keyspec": "EH_RSA_2048"},
		"ImportKeyMaterial": {"padding_mode": padPKCS1, "key_material": "AAAA", "importToken": "AAAA"},
	}
	for action, payload := range uses {
		for _, key := range []string{foreign, "3f2504e0-4f89-41d3-9a0c-0305e82c3301"} {
			want(t, other.call(t, action, payload.with(fields{"keyid": key})), 400, textKeyID)
		}
	}
	want(t, other.call(t, "DisableKey", fields{"keyid": own}), 200, textSuccessful)
	for action, payload := range uses {
		want(t, other.call(t, action, payload.with(fields{"keyid": own})), 400, "keyid is disabled")
	}
}

// testPublicKeyBody: the body of GetPublicKey fits other actions, but not twice.
func testPublicKeyBody(t *testing.T, g *target) {
	c := g.enroll(t)
	key := c.create(t, "EH_EC_P256", signVerify)
	for _, action := range []string{"DeleteKey", "DisableKey"} {
		q := c.unsigned(fields{"keyid": key}).signed(c.apikey)
		want(t, c.deliver(t, "GetPublicKey", q), 200, textSuccess)
		want(t, c.deliver(t, action, q), 400, textReplay)
	}
	if k := c.list(t)[key]; k.state != 1 {
		t.Errorf("the key is listed as %+v", k)
	}
}
