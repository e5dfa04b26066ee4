package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"testing"
)

// exportLines are about data keys for other holders.
func exportLines() []line {
	return []line{
		{"26-export-to-keys", testExport},
		{"26-export-to-a-public-key", testExportPublic},
		{"26-export-refusals", testExportRefusals},
	}
}

const textExport = "Failed, Please confirm that your parameters are correct."

func testExport(t *testing.T, g *target) {
	r := g.ring(t)
	spellings := []string{"olddatakey_base", "olddatakey", "old_data_key"}
	for i, from := range append(aesSpecs, sm4Specs...) {
		key := r.key(t, from, encryptDecrypt)
		in := fields{"keyid": key}
		if i%2 == 0 {
			in["aad"] = "YWFk"
		}
		data := r.call(t, "GenerateDataKey", in.with(fields{"keylen": 48}))
		want(t, data, 200, textSuccess)
		for n, to := range append(rsaSpecs, "EH_SM2") {
			target := r.key(t, to, encryptDecrypt)
			for _, padding := range []string{"", padOAEP, padPKCS1} {
				out := in.with(fields{spellings[(i+n)%3]: data.text(t, "ciphertext"), "ukeyid": target})
				opens := padding
				if padding == "" {
					opens = padOAEP
				} else {
					out["padding_mode"] = padding
				}
				got := r.call(t, "ExportDataKey", out)
				want(t, got, 200, textSuccess)
				if len(got.Result) != 1 {
					t.Errorf("ExportDataKey: %d members in the result", len(got.Result))
				}
				opened := r.call(t, "AsymmetricDecrypt", fields{"keyid": target, "ciphertext": got.text(t, "newdatakey"), "padding_mode": opens})
				want(t, opened, 200, textSuccess)
				if opened.text(t, "plaintext") != data.text(t, "plaintext") {
					t.Errorf("%s to %s with padding %q: another data key arrives", from, to, padding)
				}
			}
		}
	}
}

// outsider is a key pair that the service does not have.
func outsider(t *testing.T) (private *rsa.PrivateKey, pkcs1, spki string) {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return private, pemText("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&private.PublicKey)), spkiText(t, &private.PublicKey)
}

func pemText(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func spkiText(t *testing.T, public any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return pemText("PUBLIC KEY", der)
}

// testExportPublic: an independent library opens what is exported to its key.
func testExportPublic(t *testing.T, g *target) {
	r := g.ring(t)
	private, pkcs1, spki := outsider(t)
	key := r.key(t, "EH_AES_GCM_256", encryptDecrypt)
	data := r.call(t, "GenerateDataKey", fields{"keyid": key, "keylen": 48})
	plain := data.bytes(t, "plaintext")
	for _, public := range []string{pkcs1, spki} {
		out := fields{"keyid": key, "olddatakey_base": data.text(t, "ciphertext"), "upubkey": public}
		for _, padding := range []string{"", padOAEP, padPKCS1} {
			if padding != "" {
				out["padding_mode"] = padding
			}
			got := r.call(t, "ExportDataKey", out)
			want(t, got, 200, textSuccess)
			var opened []byte
			var err error
			if padding == padPKCS1 {
				//lint:ignore SA1019 the contract has this padding
				opened, err = rsa.DecryptPKCS1v15(nil, private, got.bytes(t, "newdatakey"))
			} else {
				opened, err = rsa.DecryptOAEP(sha256.New(), nil, private, got.bytes(t, "newdatakey"), nil)
			}
			if err != nil || !bytes.Equal(opened, plain) {
				t.Errorf("padding %q: got another data key, %v", padding, err)
			}
		}
	}
}

func testExportRefusals(t *testing.T, g *target) {
	r, other := g.ring(t), g.enroll(t)
	key, target := r.key(t, "EH_AES_GCM_256", encryptDecrypt), r.key(t, "EH_RSA_2048", encryptDecrypt)
	_, pkcs1, _ := outsider(t)
	sealed := r.call(t, "GenerateDataKey", fields{"keyid": key, "keylen": 48}).text(t, "ciphertext")
	long := r.call(t, "GenerateDataKey", fields{"keyid": key, "keylen": 191}).text(t, "ciphertext")
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	disabled := r.create(t, "EH_SM2", encryptDecrypt)
	want(t, r.call(t, "DisableKey", fields{"keyid": disabled}), 200, textSuccessful)
	good := fields{"keyid": key, "olddatakey_base": sealed, "ukeyid": target}
	for name, row := range map[string]struct {
		in      fields
		code    int
		message string
	}{
		"no target":             {good.without("ukeyid"), 0, ""},
		"two targets":           {good.with(fields{"upubkey": pkcs1}), 0, ""},
		"no data key":           {good.without("olddatakey_base"), 400, "Missing required parameters, The olddatakey_base cannot be empty."},
		"two data keys":         {good.with(fields{"olddatakey": "AAAA"}), 400, "Parameter invalid, The olddatakey_base type is incorrect."},
		"garbage":               {good.with(fields{"olddatakey_base": "AAAA"}), 400, textExport},
		"no base64":             {good.with(fields{"olddatakey_base": "!"}), 400, textExport},
		"wrong aad":             {good.with(fields{"aad": "AAAA"}), 400, textExport},
		"too long":              {good.with(fields{"olddatakey_base": long}), 400, textExport},
		"too long for PKCS1":    {good.with(fields{"olddatakey_base": r.call(t, "GenerateDataKey", fields{"keyid": key, "keylen": 246}).text(t, "ciphertext"), "padding_mode": padPKCS1}), 400, textExport},
		"too long for SM2":      {good.with(fields{"olddatakey_base": r.call(t, "GenerateDataKey", fields{"keyid": key, "keylen": 256}).text(t, "ciphertext"), "ukeyid": r.key(t, "EH_SM2", encryptDecrypt)}), 400, textExport},
		"unknown target":        {good.with(fields{"ukeyid": "3f2504e0-4f89-41d3-9a0c-0305e82c3301"}), 400, textKeyID},
		"foreign target":        {good.with(fields{"ukeyid": other.create(t, "EH_SM2", encryptDecrypt)}), 400, textKeyID},
		"disabled target":       {good.with(fields{"ukeyid": disabled}), 400, "keyid is disabled"},
		"EC target":             {good.with(fields{"ukeyid": r.key(t, "EH_EC_P256", encryptDecrypt)}), 500, textServer},
		"symmetric target":      {good.with(fields{"ukeyid": key}), 400, "key invalid."},
		"target to sign":        {good.with(fields{"ukeyid": r.key(t, "EH_RSA_2048", signVerify)}), 400, "key invalid."},
		"upubkey no PEM":        {good.without("ukeyid").with(fields{"upubkey": "x"}), 400, "key invalid."},
		"upubkey of 1024 bits":  {good.without("ukeyid").with(fields{"upubkey": small(t)}), 400, "key invalid."},
		"upubkey EC":            {good.without("ukeyid").with(fields{"upubkey": spkiText(t, &ec.PublicKey)}), 400, "key invalid."},
		"upubkey wrong kind":    {good.without("ukeyid").with(fields{"upubkey": pemText("CERTIFICATE", []byte{0x30, 0})}), 400, "key invalid."},
		"padding that signs":    {good.with(fields{"padding_mode": padPSS}), 0, ""},
		"asymmetric source":     {good.with(fields{"keyid": target}), 500, textServer},
		"another key's":         {good.with(fields{"keyid": r.key(t, "EH_AES_GCM_128", encryptDecrypt)}), 400, textExport},
		"upubkey with trailing": {good.without("ukeyid").with(fields{"upubkey": pkcs1 + pkcs1}), 400, "key invalid."},
	} {
		got := r.call(t, "ExportDataKey", row.in)
		got.action = name
		switch {
		case row.code != 0:
			want(t, got, row.code, row.message)
		case got.Code == 200:
			t.Errorf("%s: is served", name)
		}
	}
}

// small is a public key with a modulus of 1024 bits. Nobody needs its private
// half, so any odd number will do.
func small(t *testing.T) string {
	t.Helper()
	private, _, _ := outsider(t)
	public := private.PublicKey
	public.N = private.Primes[0]
	return pemText("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&public))
}
