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
	"fmt"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

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
