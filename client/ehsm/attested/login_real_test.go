package attested_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
	"github.com/ehsm-kms/ehsm/client/ehsm/attested"
	"github.com/ehsm-kms/ehsm/client/ehsmtest"
)

// An issuer makes tokens as a cluster does.
type issuer struct{ key ed25519.PrivateKey }

func (i issuer) jwks() string {
	return `{"keys":[{"kid":"k1","kty":"OKP","crv":"Ed25519","x":"` + base64.RawURLEncoding.EncodeToString(i.key.Public().(ed25519.PublicKey)) + `"}]}`
}

func (i issuer) token(subject string) []byte {
	now := time.Now().Unix()
	claims, _ := json.Marshal(map[string]any{"iss": "https://cluster.example", "aud": []string{"ehsm"}, "sub": subject, "iat": now, "exp": now + 600})
	signed := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"EdDSA","kid":"k1"}`)) + "." + base64.RawURLEncoding.EncodeToString(claims)
	return []byte(signed + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(i.key, []byte(signed))))
}

// TestRealLogin logs in at the real service, core and all, and out by the rule's end.
func TestRealLogin(t *testing.T) {
	kms := ehsmtest.New(t)
	iss := issuer{ed25519.NewKeyFromSeed([]byte(strings.Repeat("i", 32)))}
	rule := api.PutLoginRuleRequest{
		Name: "web", Kind: api.LoginJWT, Policy: api.PolicyAll, LifetimeSeconds: 60, Issuer: "https://cluster.example", Audience: "ehsm",
		Subject: "system:serviceaccount:shop:*", JWKS: iss.jwks(),
	}
	if id, err := kms.Client.PutLoginRule(t.Context(), rule); err != nil || len(id) != 36 {
		t.Fatalf("PutLoginRule: got %q, %v", id, err)
	}
	if list, err := kms.Client.ListLoginRules(t.Context()); err != nil || len(list) != 1 || list[0].Subject != rule.Subject || list[0].Keys["k1"] != "EdDSA" {
		t.Errorf("ListLoginRules: got %+v, %v", list, err)
	}
	plain, err := ehsm.New(ehsm.Config{URL: kms.URL, Fingerprint: kms.Fingerprint})
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	v := &attested.Verifier{InsecureSkipPolicy: true, AnyDomain: true, AllowSim: true}
	file := filepath.Join(t.TempDir(), "token")
	w := attested.Workload{AppID: kms.Client.AppID(), JWT: attested.JWTFile(file)}
	if _, _, err := v.Login(t.Context(), plain, w); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: got %v", err)
	}
	put := func(subject string) {
		t.Helper()
		if err := os.WriteFile(file, append(iss.token(subject), '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("system:serviceaccount:other:web")
	if _, _, err := v.Login(t.Context(), plain, w); !isLoginRefused(err) {
		t.Errorf("other subject: got %v", err)
	}
	put("system:serviceaccount:shop:web")
	c, report, err := v.Login(t.Context(), plain, w)
	if err != nil || !report.Simulated {
		t.Fatalf("got %+v, %v", report, err)
	}
	key, err := c.CreateKey(t.Context(), api.AESGCM256, api.EncryptDecrypt, api.InternalKey)
	if err != nil {
		t.Fatal(err)
	}
	ct, err := c.Encrypt(t.Context(), key, []byte("hello"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := kms.Client.Decrypt(t.Context(), key, ct, nil); err != nil || string(text) != "hello" {
		t.Errorf("by the owner: got %q, %v", text, err)
	}
	if _, err := c.PutLoginRule(t.Context(), rule); !ehsm.IsBadCredentials(err) {
		t.Errorf("rule by a workload: got %v", err)
	}
	// The rule is replaced: the client logs in again with what is in the file now.
	if _, err := kms.Client.PutLoginRule(t.Context(), rule); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Encrypt(t.Context(), key, []byte("hello"), nil); err != nil {
		t.Errorf("after another rule: got %v", err)
	}
	if err := kms.Client.DeleteLoginRule(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Encrypt(t.Context(), key, []byte("hello"), nil); !isLoginRefused(err) {
		t.Errorf("without the rule: got %v", err)
	}
	for name, w := range map[string]attested.Workload{
		"no proof": {AppID: w.AppID}, "no appid": {JWT: w.JWT},
		"both": {AppID: w.AppID, JWT: w.JWT, Quote: func(context.Context, [64]byte) ([]byte, error) { return nil, nil }},
	} {
		if _, _, err := v.Login(t.Context(), plain, w); !errors.Is(err, attested.ErrConfig) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func isLoginRefused(err error) bool {
	var refused *api.Error
	return errors.As(err, &refused) && refused.Message == api.MessageLogin
}
