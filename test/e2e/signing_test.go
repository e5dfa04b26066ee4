package e2e

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	_ "crypto/sha256" // linked in for crypto.Hash.New
	_ "crypto/sha512"
	"testing"
)

// signingLines are about signatures and MACs.
func signingLines() []line {
	return []line{
		{"21-sign-rsa", testSignRSA},
		{"21-sign-ec", testSignEC},
		{"21-sign-sm2", testSignSM2},
		{"21-defaults-of-members", testSignDefaults},
		{"22-sign-refusals", testSignRefusals},
		{"23-hmac", testHMAC},
	}
}

// digests are the hashes of the contract that the standard library has.
var digests = map[string]crypto.Hash{"EH_SHA_224": crypto.SHA224, "EH_SHA_256": crypto.SHA256, "EH_SHA_384": crypto.SHA384, "EH_SHA_512": crypto.SHA512}

func digestOf(h crypto.Hash, message []byte) []byte {
	d := h.New()
	d.Write(message)
	return d.Sum(nil)
}

// signing is the payload of Sign, and of Verify less the signature.
func signing(key, digest, padding string, message []byte, raw bool) fields {
	kind := "EH_DIGEST"
	if raw {
		kind = "EH_RAW"
	}
	return fields{"keyid": key, "message": b64(message), "message_type": kind, "digest_mode": digest, "padding_mode": padding}
}

// signed makes a signature and has the service verify it, and refuse others.
func (r *ring) signed(t *testing.T, in fields) []byte {
	t.Helper()
	got := r.call(t, "Sign", in)
	want(t, got, 200, textSuccess)
	signature := got.bytes(t, "signature")
	r.verdict(t, in, signature, true)
	flipped := bytes.Clone(signature)
	flipped[len(flipped)-1] ^= 1
	r.verdict(t, in, flipped, false)
	r.verdict(t, in.with(fields{"message": b64(append([]byte("x"), signature[:31]...))}), signature, false)
	return signature
}

func (r *ring) verdict(t *testing.T, in fields, signature []byte, holds bool) {
	t.Helper()
	got := r.call(t, "Verify", in.with(fields{"signature": b64(signature)}))
	want(t, got, 200, textSuccess)
	if got.Result["result"] != holds || len(got.Result) != 1 {
		t.Errorf("Verify: got %s, want %v", got.body, holds)
	}
}

func testSignRSA(t *testing.T, g *target) {
	r := g.ring(t)
	for _, spec := range rsaSpecs {
		key := r.key(t, spec, signVerify)
		_, public := r.publicKey(t, spec, signVerify)
		for digest, h := range digests {
			message := randomBytes(6144)
			sum := digestOf(h, message)
			for _, padding := range []string{padPKCS1, padPSS} {
				raw := r.signed(t, signing(key, digest, padding, message, true))
				made := r.signed(t, signing(key, digest, padding, sum, false))
				r.verdict(t, signing(key, digest, padding, sum, false), raw, true)
				r.verdict(t, signing(key, digest, padding, message, true), made, true)
				for _, s := range [][]byte{raw, made} {
					var err error
					if padding == padPKCS1 {
						err = rsa.VerifyPKCS1v15(public.(*rsa.PublicKey), h, sum, s)
					} else {
						err = rsa.VerifyPSS(public.(*rsa.PublicKey), h, sum, s, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
					}
					if err != nil {
						t.Errorf("%s %s %s: %v", spec, digest, padding, err)
					}
				}
			}
		}
	}
	// One signature under the name of another padding or digest does not hold.
	key, message := r.key(t, "EH_RSA_2048", signVerify), []byte("attack at dawn")
	s := r.signed(t, signing(key, "EH_SHA_256", padPKCS1, message, true))
	r.verdict(t, signing(key, "EH_SHA_256", padPSS, message, true), s, false)
	r.verdict(t, signing(key, "EH_SHA_512", padPKCS1, message, true), s, false)
	r.verdict(t, signing(key, "EH_SHA_256", "EH_PAD_RSA_PKCS1", message, true), s, true) // the documented spelling
	pss := r.signed(t, signing(key, "EH_SHA_256", "EH_PAD_RSA_PKCS1_PSS", message, true))
	r.verdict(t, signing(key, "EH_SHA_256", padPSS, message, true), pss, true)
}

func testSignEC(t *testing.T, g *target) {
	r := g.ring(t)
	for _, spec := range ecSpecs {
		key := r.key(t, spec, signVerify)
		_, public := r.publicKey(t, spec, signVerify)
		for digest, h := range digests {
			message := randomBytes(100)
			sum := digestOf(h, message)
			raw := r.signed(t, signing(key, digest, padNone, message, true))
			made := r.signed(t, signing(key, digest, padNone, sum, false))
			r.verdict(t, signing(key, digest, padPKCS1, message, true), made, true)
			r.verdict(t, signing(key, digest, padPSS, sum, false), raw, true)
			for _, s := range [][]byte{raw, made} {
				if public, ok := public.(*ecdsa.PublicKey); ok && !ecdsa.VerifyASN1(public, sum, s) {
					t.Errorf("%s %s: the standard library does not accept the signature", spec, digest)
				}
			}
		}
		r.signed(t, signing(key, "EH_SM3", padNone, []byte("attack at dawn"), true))
		r.signed(t, signing(key, "EH_SM3", padNone, randomBytes(32), false))
		malformed(t, r, signing(key, "EH_SHA_256", padPKCS1, []byte("x"), true))
	}
}

// malformed has signatures that are no DER: they do not hold, and that is all.
func malformed(t *testing.T, r *ring, in fields) {
	t.Helper()
	for _, s := range [][]byte{{1}, {0x30, 0}, {0x30, 6, 2, 1, 1, 2, 1}, {0x30, 6, 2, 1, 0, 2, 1, 0}, {0x30, 6, 2, 1, 1, 2, 1, 1}, randomBytes(64), make([]byte, 72), randomBytes(512)} {
		r.verdict(t, in, s, false)
	}
}

func testSignSM2(t *testing.T, g *target) {
	r := g.ring(t)
	key, message := r.key(t, "EH_SM2", signVerify), randomBytes(6144)
	raw := r.signed(t, signing(key, "EH_SM3", padNone, message, true))
	// Bytes of a digest are a message like any other, of any length.
	made := r.signed(t, signing(key, "EH_SM3", padNone, message, false))
	r.verdict(t, signing(key, "EH_SM3", padPKCS1, message, false), raw, true)
	r.verdict(t, signing(key, "EH_SM3", padPKCS1, message, true), made, true)
	malformed(t, r, signing(key, "EH_SM3", padPKCS1, message, true))
	// Sign uses SM3 whatever it is told; Verify wants to be told the truth.
	got := r.call(t, "Sign", signing(key, "EH_SHA_256", padNone, message, true))
	want(t, got, 200, textSuccess)
	r.verdict(t, signing(key, "EH_SM3", padNone, message, true), got.bytes(t, "signature"), true)
	lie := signing(key, "EH_SHA_256", padNone, message, true).with(fields{"signature": got.text(t, "signature")})
	want(t, r.call(t, "Verify", lie), 500, textServer)
}

func testSignDefaults(t *testing.T, g *target) {
	r := g.ring(t)
	message := []byte("attack at dawn")
	for spec, digest := range map[string]string{"EH_EC_P384": "EH_SHA_256", "EH_SM2": "EH_SM3", "EH_RSA_2048": "EH_SHA_256", "EH_HMAC": "EH_SHA_256"} {
		key := r.key(t, spec, signVerify)
		in := signing(key, digest, padPKCS1, message, true)
		got := r.call(t, "Sign", in.without("digest_mode"))
		want(t, got, 200, textSuccess)
		r.verdict(t, in, got.bytes(t, "signature"), true)
		r.verdict(t, in.without("digest_mode"), got.bytes(t, "signature"), true)
		want(t, r.call(t, "Sign", in.without("message_type")), 400, "Missing required parameters, The message_type cannot be empty.")
		bare := r.call(t, "Sign", in.without("padding_mode"))
		if spec == "EH_RSA_2048" {
			want(t, bare, 400, "Missing required parameters, The padding_mode cannot be empty.")
		} else {
			want(t, bare, 200, textSuccess)
			r.verdict(t, in.without("padding_mode"), bare.bytes(t, "signature"), true)
		}
	}
}

func testSignRefusals(t *testing.T, g *target) {
	r := g.ring(t)
	rsa2048, ec := r.key(t, "EH_RSA_2048", signVerify), r.key(t, "EH_EC_P256", signVerify)
	sum := randomBytes(32)
	for name, in := range map[string]fields{
		"RSA without padding":      signing(rsa2048, "EH_SHA_256", padNone, sum, true),
		"RSA with OAEP":            signing(rsa2048, "EH_SHA_256", padOAEP, sum, true),
		"RSA with SM3":             signing(rsa2048, "EH_SM3", padPKCS1, sum, true),
		"RSA-PSS with SM3":         signing(rsa2048, "EH_SM3", padPSS, sum, true),
		"RSA digest too short":     signing(rsa2048, "EH_SHA_256", padPKCS1, sum[:31], false),
		"RSA digest too long":      signing(rsa2048, "EH_SHA_224", padPKCS1, sum, false),
		"RSA digest of another":    signing(rsa2048, "EH_SHA_512", padPSS, sum, false),
		"EC digest too short":      signing(ec, "EH_SHA_256", padNone, sum[:20], false),
		"EC digest too long":       signing(ec, "EH_SHA_256", padNone, randomBytes(64), false),
		"RSA key for encryption":   signing(r.key(t, "EH_RSA_2048", encryptDecrypt), "EH_SHA_256", padPKCS1, sum, true),
		"EC key for encryption":    signing(r.key(t, "EH_EC_P256", encryptDecrypt), "EH_SHA_256", padNone, sum, true),
		"SM2 key for encryption":   signing(r.key(t, "EH_SM2", encryptDecrypt), "EH_SM3", padNone, sum, true),
		"symmetric key":            signing(r.key(t, "EH_AES_GCM_256", encryptDecrypt), "EH_SHA_256", padNone, sum, true),
		"HMAC of a digest":         signing(r.key(t, "EH_HMAC", signVerify), "EH_SHA_256", padNone, sum, false),
		"HMAC with another digest": signing(r.key(t, "EH_HMAC", signVerify), "EH_SHA_512", padNone, sum, true),
		"HMAC with SM3":            signing(r.key(t, "EH_HMAC", signVerify), "EH_SM3", padNone, sum, true),
	} {
		got := r.call(t, "Sign", in)
		got.action = name
		want(t, got, 500, textServer)
	}
	good := signing(rsa2048, "EH_SHA_256", padPKCS1, sum, true)
	for name, row := range map[string]struct {
		in        fields
		signature []byte
	}{
		"RSA signature too short": {good, make([]byte, 255)},
		"RSA signature too long":  {good, make([]byte, 257)},
		"RSA without padding":     {good.with(fields{"padding_mode": padNone}), make([]byte, 256)},
		"RSA with OAEP":           {good.with(fields{"padding_mode": padOAEP}), make([]byte, 256)},
		"key for encryption":      {good.with(fields{"keyid": r.key(t, "EH_RSA_2048", encryptDecrypt)}), make([]byte, 256)},
		"SM2 with SHA-256":        {signing(r.key(t, "EH_SM2", signVerify), "EH_SHA_256", padNone, sum, true), make([]byte, 70)},
	} {
		got := r.call(t, "Verify", row.in.with(fields{"signature": b64(row.signature)}))
		got.action = name
		want(t, got, 500, textServer)
	}
	r.verdict(t, good, make([]byte, 256), false)
}

func testHMAC(t *testing.T, g *target) {
	r := g.ring(t)
	in := signing(r.key(t, "EH_HMAC", signVerify), "EH_SHA_256", padNone, randomBytes(6144), true)
	made := r.signed(t, in)
	again := r.call(t, "Sign", in.with(fields{"padding_mode": padPSS})).bytes(t, "signature")
	if len(made) != 32 || !bytes.Equal(made, again) {
		t.Errorf("HMAC of %d bytes, or two for one message", len(made))
	}
	for _, s := range [][]byte{made[:31], append(bytes.Clone(made), 0), make([]byte, 32), {1}} {
		r.verdict(t, in, s, false)
	}
	other := in.with(fields{"keyid": r.create(t, "EH_HMAC", signVerify)})
	r.verdict(t, other, made, false)
}
