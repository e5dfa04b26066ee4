package e2e

import (
	"bytes"
	"crypto/rand"
	"testing"
)

// symmetricLines are about encryption and data keys with AES.
func symmetricLines() []line {
	return []line{
		{"17-round-trips-aes", testRoundTripsAES},
		{"18-altered-ciphertexts-aes", testAlteredAES},
		{"18-foreign-ciphertexts", testForeignCiphertexts},
		{"25-data-keys", testDataKeys},
	}
}

var aesSpecs = []string{"EH_AES_GCM_128", "EH_AES_GCM_192", "EH_AES_GCM_256"}

func testRoundTripsAES(t *testing.T, g *target) { roundTrips(t, g.enroll(t), aesSpecs) }

// roundTrips encrypts and decrypts with a key of each spec.
func roundTrips(t *testing.T, c *tenant, specs []string) {
	for _, spec := range specs {
		c.roundTrip(t, c.create(t, spec, encryptDecrypt), spec)
	}
}

// roundTrip uses a key with all sizes that matter.
func (c *tenant) roundTrip(t *testing.T, key, spec string) {
	t.Helper()
	seen := map[string]bool{}
	for _, size := range [][2]int{{1, 0}, {1, 1}, {15, 0}, {16, 16}, {17, 0}, {6143, 0}, {6144, 0}, {6144, 6144}, {1, 0}} {
		plaintext, aad := randomBytes(size[0]), randomBytes(size[1])
		in := fields{"keyid": key, "plaintext": b64(plaintext)}
		if size[1] > 0 {
			in["aad"] = b64(aad)
		}
		r := c.call(t, "Encrypt", in)
		want(t, r, 200, textSuccess)
		sealed := r.bytes(t, "ciphertext")
		if seen[string(sealed)] || bytes.Contains(sealed, plaintext) && size[0] > 8 {
			t.Errorf("%s: a ciphertext repeats or shows the plaintext", spec)
		}
		seen[string(sealed)] = true
		out := in.without("plaintext").with(fields{"ciphertext": b64(sealed)})
		r = c.call(t, "Decrypt", out)
		want(t, r, 200, textSuccess)
		if got := r.bytes(t, "plaintext"); !bytes.Equal(got, plaintext) {
			t.Errorf("%s: %d bytes with %d bytes of aad come back as %d others", spec, size[0], size[1], len(got))
		}
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func testAlteredAES(t *testing.T, g *target) {
	c := g.enroll(t)
	for _, spec := range aesSpecs {
		altered(t, c, c.create(t, spec, encryptDecrypt), spec)
	}
}

// altered has one ciphertext in every wrong state: all are refused with the
// same bytes.
func altered(t *testing.T, c *tenant, key, spec string) {
	t.Helper()
	aad := b64([]byte("additional data"))
	r := c.call(t, "Encrypt", fields{"keyid": key, "plaintext": b64([]byte("attack at dawn")), "aad": aad})
	want(t, r, 200, textSuccess)
	good := r.bytes(t, "ciphertext")
	wrong := map[string][]byte{"one byte": {1}, "zeros": make([]byte, len(good)), "random": randomBytes(len(good)), "twice": append(bytes.Clone(good), good...)}
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 1 << (i % 8)
		wrong["bit of byte "+string(rune('0'+i/100))+string(rune('0'+i/10%10))+string(rune('0'+i%10))] = b
	}
	for _, n := range []int{1, 2, 16, 17, len(good) / 2, len(good) - 1} {
		wrong["cut by "+string(rune('0'+n%10))] = good[:len(good)-n]
	}
	wrong["a byte more"] = append(bytes.Clone(good), 0)
	for name, b := range wrong {
		r := c.call(t, "Decrypt", fields{"keyid": key, "ciphertext": b64(b), "aad": aad})
		r.action = spec + " " + name
		want(t, r, 400, textDecryption)
	}
	if spec[:6] == "EH_SM4" {
		return // these take no additional data
	}
	for _, other := range []string{"", "AAAA", b64([]byte("additional datb")), b64([]byte("additional data\x00"))} {
		r := c.call(t, "Decrypt", fields{"keyid": key, "ciphertext": b64(good), "aad": other})
		r.action = spec + " with aad " + other
		want(t, r, 400, textDecryption)
	}
}

// testForeignCiphertexts: what one key has encrypted no other opens.
func testForeignCiphertexts(t *testing.T, g *target) {
	c, other := g.enroll(t), g.enroll(t)
	key := c.createAES(t)
	sealed := c.call(t, "Encrypt", fields{"keyid": key, "plaintext": "AAAA"}).text(t, "ciphertext")
	want(t, c.call(t, "Decrypt", fields{"keyid": c.createAES(t), "ciphertext": sealed}), 400, textDecryption)
	want(t, c.call(t, "Decrypt", fields{"keyid": c.create(t, "EH_AES_GCM_128", encryptDecrypt), "ciphertext": sealed}), 400, textDecryption)
	want(t, other.call(t, "Decrypt", fields{"keyid": other.createAES(t), "ciphertext": sealed}), 400, textDecryption)
	want(t, c.call(t, "Decrypt", fields{"keyid": key, "ciphertext": sealed}), 200, textSuccess)
	// A key that waits for its material opens nothing.
	r := c.call(t, "CreateKey", fields{"keyspec": "EH_AES_GCM_256", "origin": externalKey, "keyusage": encryptDecrypt})
	want(t, c.call(t, "Decrypt", fields{"keyid": r.text(t, "keyid"), "ciphertext": sealed}), 500, textServer)
	want(t, c.call(t, "Encrypt", fields{"keyid": r.text(t, "keyid"), "plaintext": "AAAA"}), 500, textServer)
}

func testDataKeys(t *testing.T, g *target) {
	c := g.enroll(t)
	for _, spec := range aesSpecs {
		c.dataKeys(t, c.create(t, spec, encryptDecrypt), spec)
	}
}

// dataKeys makes data keys of all lengths under a key and opens them.
func (c *tenant) dataKeys(t *testing.T, key, spec string) {
	t.Helper()
	seen := map[string]bool{}
	for _, n := range []int{1, 16, 48, 1024, 16} {
		for _, in := range []fields{{"keyid": key, "keylen": n}, {"keyid": key, "keylen": n, "aad": "YWFk"}} {
			r := c.call(t, "GenerateDataKey", in)
			want(t, r, 200, textSuccess)
			plain := r.bytes(t, "plaintext")
			open := in.without("keylen").with(fields{"ciphertext": r.text(t, "ciphertext")})
			if got := c.call(t, "Decrypt", open).bytes(t, "plaintext"); len(plain) != n || !bytes.Equal(got, plain) {
				t.Errorf("%s: data key of %d bytes has %d and opens as %d", spec, n, len(plain), len(got))
			}
			r = c.call(t, "GenerateDataKeyWithoutPlaintext", in)
			want(t, r, 200, textSuccess)
			if len(r.Result) != 1 {
				t.Errorf("%s: the result has more than a ciphertext: %d members", spec, len(r.Result))
			}
			hidden := c.call(t, "Decrypt", open.with(fields{"ciphertext": r.text(t, "ciphertext")})).bytes(t, "plaintext")
			if len(hidden) != n || n >= 16 && (seen[string(plain)] || seen[string(hidden)]) {
				t.Errorf("%s: data key of %d bytes has %d, or comes again", spec, n, len(hidden))
			}
			seen[string(plain)], seen[string(hidden)] = true, true
		}
	}
}
