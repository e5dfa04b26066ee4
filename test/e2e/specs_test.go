package e2e

import (
	"sync"
	"testing"
)

// Specs by kind.
var (
	sm4Specs = []string{"EH_SM4_CTR", "EH_SM4_CBC"}
	rsaSpecs = []string{"EH_RSA_2048", "EH_RSA_3072", "EH_RSA_4096"}
	ecSpecs  = []string{"EH_EC_P224", "EH_EC_P256", "EH_EC_P256K", "EH_EC_P384", "EH_EC_P521"}
)

// specLines are about keys of all kinds.
func specLines() []line {
	return []line{
		{"15-create-all-specs", testCreateAll},
		{"17-round-trips-sm4", func(t *testing.T, g *target) { roundTrips(t, g.enroll(t), sm4Specs) }},
		{"18-altered-ciphertexts-sm4", testAlteredSM4},
		{"25-data-keys-sm4", testDataKeysSM4},
		{"keys-of-the-wrong-kind", testWrongKinds},
	}
}

// A ring is a tenant with a key of every spec and usage. Asymmetric keys take
// long to make, so tests share them: none may change or delete one.
type ring struct {
	*tenant
	keys map[[2]string]string // by spec and usage
}

// rings holds the ring of a target.
type rings struct {
	once sync.Once
	made *ring
}

// ring returns the target's keys.
func (g *target) ring(t *testing.T) *ring {
	t.Helper()
	g.rings.once.Do(func() {
		r := &ring{g.enroll(t), map[[2]string]string{}}
		for _, usage := range []string{encryptDecrypt, signVerify} {
			for _, specs := range [][]string{rsaSpecs, ecSpecs, {"EH_SM2"}} {
				for _, spec := range specs {
					r.keys[[2]string{spec, usage}] = r.create(t, spec, usage)
				}
			}
		}
		for _, spec := range append(aesSpecs, sm4Specs...) {
			r.keys[[2]string{spec, encryptDecrypt}] = r.create(t, spec, encryptDecrypt)
		}
		r.keys[[2]string{"EH_HMAC", signVerify}] = r.create(t, "EH_HMAC", signVerify)
		g.rings.made = r
	})
	if g.rings.made == nil {
		t.Fatal("the keys could not be made")
	}
	return g.rings.made
}

func (r *ring) key(t *testing.T, spec, usage string) string {
	t.Helper()
	id, ok := r.keys[[2]string{spec, usage}]
	if !ok {
		t.Fatalf("no test key of %s, %s", spec, usage)
	}
	return id
}

func testCreateAll(t *testing.T, g *target) {
	r := g.ring(t)
	keys := r.list(t)
	for key, id := range r.keys {
		if keys[id].spec != key[0] || keys[id].state != 1 {
			t.Errorf("key of %s is listed as %+v", key, keys[id])
		}
	}
	if len(keys) != len(r.keys) {
		t.Errorf("%d keys are listed, want %d", len(keys), len(r.keys))
	}
}

func testAlteredSM4(t *testing.T, g *target) {
	r := g.ring(t)
	for _, spec := range sm4Specs {
		key := r.key(t, spec, encryptDecrypt)
		altered(t, r.tenant, key, spec)
		// Additional data have no effect.
		sealed := r.call(t, "Encrypt", fields{"keyid": key, "plaintext": "AAAA", "aad": "BBBB"}).text(t, "ciphertext")
		want(t, r.call(t, "Decrypt", fields{"keyid": key, "ciphertext": sealed, "aad": "CCCC"}), 200, textSuccess)
		want(t, r.call(t, "Decrypt", fields{"keyid": key, "ciphertext": sealed}), 200, textSuccess)
		other := r.key(t, sm4Specs[1-indexOf(sm4Specs, spec)], encryptDecrypt)
		want(t, r.call(t, "Decrypt", fields{"keyid": other, "ciphertext": sealed}), 400, textDecryption)
	}
}

func indexOf(list []string, s string) int {
	for i := range list {
		if list[i] == s {
			return i
		}
	}
	return -1
}

func testDataKeysSM4(t *testing.T, g *target) {
	r := g.ring(t)
	for _, spec := range sm4Specs {
		r.dataKeys(t, r.key(t, spec, encryptDecrypt), spec)
	}
}

// testWrongKinds uses every key for what it is not made for.
func testWrongKinds(t *testing.T, g *target) {
	r := g.ring(t)
	signing := fields{"message": "AAAA", "message_type": "EH_RAW", "digest_mode": "EH_SHA_256", "padding_mode": "EH_RSA_PKCS1"}
	asymmetric := fields{"plaintext": "AAAA", "padding_mode": "EH_RSA_PKCS1"}
	for key, id := range r.keys {
		symmetric := indexOf(append(aesSpecs, sm4Specs...), key[0]) >= 0
		encrypts := (indexOf(rsaSpecs, key[0]) >= 0 || key[0] == "EH_SM2") && key[1] == encryptDecrypt
		for _, row := range []struct {
			action  string
			payload fields
			fits    bool
		}{
			{"Encrypt", fields{"plaintext": "AAAA"}, symmetric},
			{"GenerateDataKey", fields{"keylen": 16}, symmetric},
			{"GenerateDataKeyWithoutPlaintext", fields{"keylen": 16}, symmetric},
			{"AsymmetricEncrypt", asymmetric, encrypts},
			{"Sign", signing, key[1] == signVerify},
			{"GetPublicKey", nil, !symmetric && key[0] != "EH_HMAC"},
		} {
			got := r.call(t, row.action, fields{"keyid": id}.with(row.payload))
			got.action = row.action + " with " + key[0] + " " + key[1]
			if row.fits {
				want(t, got, 200, textSuccess)
			} else {
				want(t, got, 500, textServer)
			}
		}
		if !symmetric {
			want(t, r.call(t, "Decrypt", fields{"keyid": id, "ciphertext": b64(make([]byte, 200))}), 500, textServer)
		}
		if !encrypts {
			payload := fields{"keyid": id, "ciphertext": b64(make([]byte, 256)), "padding_mode": "EH_RSA_PKCS1"}
			want(t, r.call(t, "AsymmetricDecrypt", payload), 500, textServer)
		}
		if key[1] != signVerify {
			want(t, r.call(t, "Verify", signing.with(fields{"keyid": id, "signature": b64(make([]byte, 256))})), 500, textServer)
		}
	}
}
