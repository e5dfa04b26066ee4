package ehsm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/api"
)

// Public keys as the service gives them.
const (
	pemP256 = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt\n6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==\n-----END PUBLIC KEY-----\n"
	// The generator of secp256k1, and that of the curve of SM2.
	pemP256K = "-----BEGIN PUBLIC KEY-----\nMFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEeb5mfvncu6xVoGKVzocLBwKb/NstzijZ\nWfKBWxb4F5hIOtp3JqPEZV2k+/wOEQio/Re0SKaFVBmcR9CP+xDUuA==\n-----END PUBLIC KEY-----\n"
	pemSM2   = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoEcz1UBgi0DQgAEMsSuLB8ZgRlfmQRGajnJlI/jC7/y\nZgvhcVpFiTNMdMe8NzaixPZ3nFm9zuNraSFT0KmHfMYqR0AC3zLlITnwoA==\n-----END PUBLIC KEY-----\n"
	pemRSA   = "-----BEGIN RSA PUBLIC KEY-----\n@\n-----END RSA PUBLIC KEY-----\n"
)

func quoted(s string) string { b, _ := json.Marshal(s); return string(b) }

func TestAsymmetricActions(t *testing.T) {
	m, s := b64("hi"), b64("sig")
	text := func(b []byte, err error) (any, error) { return string(b), err }
	testActions(t, []actionTest{
		{api.AsymmetricEncrypt, `{"keyid":"k","padding_mode":"EH_RSA_PKCS1_OAEP","plaintext":"` + m + `"}`, `{"ciphertext":"` + b64("ct") + `"}`,
			func(c *Client) (any, error) { return text(c.AsymmetricEncrypt(t.Context(), "k", []byte("hi"), "")) }, "ct"},
		{api.AsymmetricDecrypt, `{"ciphertext":"` + b64("ct") + `","keyid":"k","padding_mode":"EH_RSA_PKCS1"}`, `{"plaintext":"` + m + `"}`,
			func(c *Client) (any, error) {
				return text(c.AsymmetricDecrypt(t.Context(), "k", []byte("ct"), api.PKCS1))
			}, "hi"},
		{api.Sign, `{"keyid":"k","message":"` + m + `","message_type":"EH_RAW","padding_mode":"EH_RSA_PKCS1_PSS"}`, `{"signature":"` + s + `"}`,
			func(c *Client) (any, error) {
				return text(c.SignMessage(t.Context(), "k", []byte("hi"), SignatureOptions{}))
			}, "sig"},
		{api.Sign, `{"digest_mode":"EH_SHA_384","keyid":"k","message":"` + m + `","message_type":"EH_DIGEST","padding_mode":"EH_RSA_PKCS1"}`, `{"signature":"` + s + `"}`,
			func(c *Client) (any, error) {
				return text(c.SignDigest(t.Context(), "k", []byte("hi"), SignatureOptions{api.SHA384, api.PKCS1}))
			}, "sig"},
		{api.Verify, `{"keyid":"k","message":"` + m + `","message_type":"EH_RAW","padding_mode":"EH_RSA_PKCS1_PSS","signature":"` + s + `"}`, `{"result":true}`,
			func(c *Client) (any, error) {
				return c.VerifyMessage(t.Context(), "k", []byte("hi"), []byte("sig"), SignatureOptions{})
			}, "true"},
		{api.Verify, `{"digest_mode":"EH_SHA_512","keyid":"k","message":"` + m + `","message_type":"EH_DIGEST","padding_mode":"EH_RSA_PKCS1_PSS","signature":"` + s + `"}`, `{"result":false}`,
			func(c *Client) (any, error) {
				return c.VerifyDigest(t.Context(), "k", []byte("hi"), []byte("sig"), SignatureOptions{Digest: api.SHA512})
			}, "false"},
		{api.ExportDataKey, `{"aad":"` + b64("a") + `","keyid":"k","olddatakey_base":"` + m + `","ukeyid":"u"}`, `{"newdatakey":"` + b64("new") + `"}`,
			func(c *Client) (any, error) {
				return text(c.ExportDataKey(t.Context(), "k", []byte("hi"), []byte("a"), ExportTarget{KeyID: "u"}))
			}, "new"},
		{api.ExportDataKey, `{"keyid":"k","olddatakey_base":"` + m + `","padding_mode":"EH_RSA_PKCS1","upubkey":"pem"}`, `{"newdatakey":"` + b64("new") + `"}`,
			func(c *Client) (any, error) {
				return text(c.ExportDataKey(t.Context(), "k", []byte("hi"), nil, ExportTarget{PublicKey: "pem", Padding: api.PKCS1}))
			}, "new"},
		{api.GetPublicKey, `{"keyid":"k"}`, `{"keyid":"k","pubkey":` + quoted(pemSM2) + `}`,
			func(c *Client) (any, error) {
				key, err := c.PublicKey(t.Context(), "k")
				return fmt.Sprintln(key.Spec, key.Key, key.PEM == pemSM2), err
			}, "EH_SM2 <nil> true\n"},
		{api.ImportKeyMaterial, `{"importToken":"t","key_material":"` + m + `","keyid":"k","padding_mode":"EH_RSA_PKCS1"}`, `{"result":true}`,
			func(c *Client) (any, error) {
				return nil, c.ImportKeyMaterial(t.Context(), "k", []byte("hi"), api.PKCS1, "t")
			}, "<nil>"},
	})
}

func TestAsymmetricResults(t *testing.T) {
	testResults(t, []resultTest{
		{"no ciphertext", `{}`, func(c *Client) error { _, err := c.AsymmetricEncrypt(t.Context(), "k", []byte("p"), ""); return err }},
		{"no plaintext", `{}`, func(c *Client) error { _, err := c.AsymmetricDecrypt(t.Context(), "k", []byte("c"), ""); return err }},
		{"no signature", `{}`, func(c *Client) error {
			_, err := c.SignMessage(t.Context(), "k", []byte("m"), SignatureOptions{})
			return err
		}},
		{"no verdict", `{}`, func(c *Client) error {
			_, err := c.VerifyMessage(t.Context(), "k", []byte("m"), []byte("s"), SignatureOptions{})
			return err
		}},
		{"verdict is a text", `{"result":"true"}`, func(c *Client) error {
			_, err := c.VerifyMessage(t.Context(), "k", []byte("m"), []byte("s"), SignatureOptions{})
			return err
		}},
		{"no data key", `{}`, func(c *Client) error {
			_, err := c.ExportDataKey(t.Context(), "k", []byte("m"), nil, ExportTarget{KeyID: "u"})
			return err
		}},
		{"public key of another", `{"keyid":"x","pubkey":` + quoted(pemP256) + `}`, func(c *Client) error { _, err := c.PublicKey(t.Context(), "k"); return err }},
		{"no public key", `{"keyid":"k"}`, func(c *Client) error { _, err := c.PublicKey(t.Context(), "k"); return err }},
		{"signer without a type", `{"keyid":"k","pubkey":` + quoted(pemSM2) + `}`, func(c *Client) error { _, err := c.Signer(t.Context(), "k"); return err }},
		{"decrypter of an EC key", `{"keyid":"k","pubkey":` + quoted(pemP256) + `}`, func(c *Client) error { _, err := c.Decrypter(t.Context(), "k"); return err }},
		{"import not done", `{"result":false}`, func(c *Client) error { return c.ImportKeyMaterial(t.Context(), "k", []byte("m"), api.OAEP, "t") }},
		{"no token", `{"pubkey":` + quoted(pemP256) + `}`, func(c *Client) error { _, err := c.ParametersForImport(t.Context(), "k", api.RSA2048); return err }},
		{"other key pair", `{"importToken":"t","pubkey":` + quoted(pemP256) + `}`, func(c *Client) error { _, err := c.ParametersForImport(t.Context(), "k", api.RSA2048); return err }},
		{"key pair is no RSA", `{"importToken":"t","pubkey":` + quoted(pemP256) + `}`, func(c *Client) error { _, err := c.ParametersForImport(t.Context(), "k", api.ECP256); return err }},
	})
}

func TestParsePublicKey(t *testing.T) {
	key, err := parsePublicKey(pemP256)
	if ec, ok := key.Key.(*ecdsa.PublicKey); err != nil || !ok || ec.Curve != elliptic.P256() || key.Spec != api.ECP256 {
		t.Errorf("P-256: got %+v, %v", key, err)
	}
	for text, want := range map[string]api.KeySpec{pemP256K: api.ECP256K, pemSM2: api.SM2} {
		if key, err := parsePublicKey(text); err != nil || key.Key != nil || key.Spec != want || key.PEM != text {
			t.Errorf("%s: got %+v, %v", want, key, err)
		}
	}
	refused := []struct{ name, text string }{
		{"empty", ""},
		{"text", "hello"},
		{"text before", "x\n" + pemP256},
		{"text after", pemP256 + "x"},
		{"two keys", pemP256 + pemP256},
		{"headers", strings.Replace(pemP256, "-----\n", "-----\nA: b\n\n", 1)},
		{"private key", strings.ReplaceAll(pemP256, "PUBLIC", "PRIVATE")},
		{"EC key as PKCS#1", strings.ReplaceAll(pemP256, "PUBLIC", "RSA PUBLIC")},
		{"no point", strings.Replace(pemP256, "QgAE", "QgAF", 1)},
		{"no DER", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"},
		{"RSA of 16 bits", strings.Replace(pemRSA, "@", "MAgCAwDMowIBAw==", 1)},
		{"Ed25519", "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"},
	}
	for _, tt := range refused {
		if tt.name != "text after" && tt.text == pemP256 {
			t.Errorf("%s: the row changes nothing", tt.name)
		}
		if key, err := parsePublicKey(tt.text); err == nil {
			t.Errorf("%s: got %+v, want a refusal", tt.name, key)
		}
	}
}

func FuzzParsePublicKey(f *testing.F) {
	for _, s := range []string{pemP256, pemP256K, pemSM2, strings.Replace(pemRSA, "@", "MAgCAwDMowIBAw==", 1), ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		key, err := parsePublicKey(text)
		if err == nil && (key.PEM != text || key.Spec == "") {
			t.Errorf("got %+v without an error", key)
		}
	})
}

// What the core would refuse, or do otherwise than asked for, is not sent.
func TestSignerRefuses(t *testing.T) {
	rsaKey, ecKey := &rsa.PublicKey{}, &ecdsa.PublicKey{}
	tests := []struct {
		name   string
		public crypto.PublicKey
		digest int
		opts   crypto.SignerOpts
	}{
		{"no options", ecKey, 32, nil},
		{"SHA-1", rsaKey, 20, crypto.SHA1},
		{"no hash", ecKey, 32, crypto.Hash(0)},
		{"SHA-512/256", ecKey, 32, crypto.SHA512_256},
		{"digest too short", ecKey, 31, crypto.SHA256},
		{"digest of another", rsaKey, 32, crypto.SHA384},
		{"salt", rsaKey, 32, &rsa.PSSOptions{SaltLength: 20, Hash: crypto.SHA256}},
		{"PSS without hash", rsaKey, 32, &rsa.PSSOptions{}},
		{"PSS with an EC key", ecKey, 32, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &fakeServer{answer: func(string, map[string]any) string { return succeed(`{"signature":"c2ln"}`) }}
			signer := &Signer{remote{s.start(t), "k", tt.public}}
			if got, err := signer.Sign(nil, make([]byte, tt.digest), tt.opts); err == nil || s.seen != 0 {
				t.Errorf("Sign: got %x, %v after %d requests", got, err, s.seen)
			}
		})
	}
}

func TestDecrypterRefuses(t *testing.T) {
	tests := []struct {
		name string
		opts crypto.DecrypterOpts
	}{
		//lint:ignore SA1019 the API has this padding
		{"session key", &rsa.PKCS1v15DecryptOptions{SessionKeyLen: 48}},
		{"OAEP with SHA-1", &rsa.OAEPOptions{Hash: crypto.SHA1}},
		{"OAEP without hash", &rsa.OAEPOptions{}},
		{"other MGF", &rsa.OAEPOptions{Hash: crypto.SHA256, MGFHash: crypto.SHA1}},
		{"label", &rsa.OAEPOptions{Hash: crypto.SHA256, Label: []byte("l")}},
		{"options of another package", 7},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := &Decrypter{remote{nil, "k", &rsa.PublicKey{}}}
			if got, err := d.Decrypt(nil, []byte("c"), tt.opts); err == nil {
				t.Errorf("Decrypt: got %x", got)
			}
		})
	}
}

func TestExportNeedsOneTarget(t *testing.T) {
	c := (&fakeServer{}).start(t)
	for _, to := range []ExportTarget{{}, {KeyID: "k", PublicKey: "p"}} {
		if _, err := c.ExportDataKey(t.Context(), "k", []byte("d"), nil, to); err == nil {
			t.Errorf("ExportDataKey to %+v: got no error", to)
		}
	}
}

// An import key that the core did not sign for is never used.
func TestImportNeedsTheSignature(t *testing.T) {
	s := &fakeServer{
		sign:   func(_, _ []byte, _, _ string) string { return "" },
		answer: func(string, map[string]any) string { return succeed(`{"importToken":"t","pubkey":"p"}`) },
	}
	c := s.start(t)
	if err := c.ImportKey(t.Context(), "k", make([]byte, 32)); !errors.Is(err, ErrReplySignature) || s.seen != 1 {
		t.Errorf("ImportKey: got %v after %d requests", err, s.seen)
	}
	for _, n := range []int{0, 15, 17, 31, 33, 64} {
		if err := c.ImportKey(t.Context(), "k", make([]byte, n)); err == nil || s.seen != 1 {
			t.Errorf("ImportKey of %d bytes: got %v after %d requests", n, err, s.seen)
		}
	}
}
