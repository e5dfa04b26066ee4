package e2e

import (
	"net/http"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// TestLimits has an app that asks for more than its share, and for more keys and
// secrets than it may have; another one does not notice.
func TestLimits(t *testing.T) {
	t.Parallel()
	s := manifest.Defaults(manifest.Development)
	s.Limits = manifest.Limits{RequestsPerSecond: 1, Burst: 8, Keys: 2, Secrets: 1}
	g, _ := owned(t, s)
	g.start(t)
	c, other := g.enroll(t), g.enroll(t)
	key := c.createAES(t)
	c.createAES(t)
	aes := fields{"keyspec": "EH_AES_GCM_128", "origin": "EH_INTERNAL_KEY", "keyusage": "EH_KEYUSAGE_ENCRYPT_DECRYPT"}
	want(t, c.call(t, "CreateKey", aes), 429, "The limit of keys is reached.")
	secret := fields{"secretName": "one", "secretData": "x"}
	want(t, c.call(t, "CreateSecret", secret), 200, "The one create success.")
	want(t, c.call(t, "CreateSecret", secret.with(fields{"secretName": "two"})), 429, "The limit of secrets is reached.")

	payload := fields{"keyid": key, "plaintext": "aGVsbG8="}
	deadline := time.Now().Add(20 * time.Second)
	limited := 0
	for limited < 3 {
		if time.Now().After(deadline) {
			t.Fatal("no request is over the limit")
		}
		if r := c.call(t, "Encrypt", payload); r.Code != 200 {
			want(t, r, 429, "Too many requests.")
			limited++
		}
	}
	want(t, other.call(t, "ListKey", nil), 200, "successful")
	for c.call(t, "Encrypt", payload).Code != 200 { // it recovers
		if time.Now().After(deadline) {
			t.Fatal("it is over the limit for good")
		}
	}
	want(t, g.must(t, http.MethodGet, "/ehsm?Action=GetVersion", nil), 200, textSuccess) // it needs no app
}
