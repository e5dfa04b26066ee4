package jwt

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"
)

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

var (
	issuerKey = ed25519.NewKeyFromSeed(make([]byte, 32))
	noon      = time.Unix(1_780_000_000, 0)
)

func expected() *Expected {
	return &Expected{
		Issuer: "https://cluster.example", Audience: "ehsm", Subject: "system:serviceaccount:shop:*",
		Claims: []Claim{{"/kubernetes.io/namespace", "shop"}, {"tier", "prod"}},
		Keys:   []Key{{ID: "k1", Algorithm: EdDSA, Public: issuerKey.Public().(ed25519.PublicKey)}},
	}
}

// claims of a token that meets expected, changed.
func claims(change map[string]any) string {
	m := map[string]any{
		"iss": "https://cluster.example", "aud": []string{"ehsm"}, "sub": "system:serviceaccount:shop:web", "tier": "prod",
		"exp": noon.Unix() + 600, "iat": noon.Unix() - 5, "nbf": noon.Unix() - 5, "kubernetes.io": map[string]any{"namespace": "shop"},
	}
	maps.Copy(m, change)
	maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil })
	b, _ := json.Marshal(m) // of plain values
	return string(b)
}

func token(header, claims string) string {
	signed := b64([]byte(header)) + "." + b64([]byte(claims))
	return signed + "." + b64(ed25519.Sign(issuerKey, []byte(signed)))
}

const header = `{"alg":"EdDSA","kid":"k1","typ":"JWT"}`

func check(text string, e *Expected) error {
	t, err := Parse(text)
	if err != nil {
		return err
	}
	return t.Check(e, noon)
}

func TestAccepted(t *testing.T) {
	for name, text := range map[string]string{
		"as it is":              token(header, claims(nil)),
		"audience as text":      token(header, claims(map[string]any{"aud": "ehsm"})),
		"no type":               token(`{"alg":"EdDSA","kid":"k1"}`, claims(nil)),
		"access token":          token(`{"alg":"EdDSA","kid":"k1","typ":"at+JWT"}`, claims(nil)),
		"a key that is ignored": token(`{"alg":"EdDSA","kid":"k1","jku":"https://evil.example","jwk":{"kty":"oct"}}`, claims(nil)),
		"no nbf and iat":        token(header, claims(map[string]any{"nbf": nil, "iat": nil})),
		"a minute ahead":        token(header, claims(map[string]any{"nbf": noon.Unix() + 60, "iat": noon.Unix() + 60})),
		"last second":           token(header, claims(map[string]any{"exp": noon.Unix() + 1})),
	} {
		if err := check(text, expected()); err != nil {
			t.Errorf("%s: got %v", name, err)
		}
	}
	exact := expected()
	exact.Subject = "system:serviceaccount:shop:web"
	if err := check(token(header, claims(nil)), exact); err != nil {
		t.Errorf("exact subject: got %v", err)
	}
	two, err := Parse(token(header, claims(nil)))
	if err != nil {
		t.Fatal(err)
	}
	other := expected()
	other.Claims = []Claim{{"/tier/x", "y"}}
	if err := two.Check(other, noon); !errors.Is(err, ErrClaim) {
		t.Errorf("first rule: got %v", err)
	}
	if err := two.Check(expected(), noon); err != nil {
		t.Errorf("a rule after one that does not fit: got %v", err)
	}
}

func TestRefused(t *testing.T) {
	good := token(header, claims(nil))
	parts := strings.Split(good, ".")
	hs := b64([]byte(`{"alg":"HS256","kid":"k1"}`)) + "." + parts[1]
	m := hmac.New(sha256.New, issuerKey.Public().(ed25519.PublicKey))
	m.Write([]byte(hs))
	set := func(name string, value any) string { return token(header, claims(map[string]any{name: value})) }
	for _, row := range []struct {
		name, text string
		want       error
	}{
		{"empty", "", ErrMalformed},
		{"two parts", parts[0] + "." + parts[1], ErrMalformed},
		{"five parts", good + ".a.b", ErrMalformed},
		{"padding", parts[0] + "=." + parts[1] + "." + parts[2], ErrMalformed},
		{"line end", parts[0] + ".\n" + parts[1] + "." + parts[2], ErrMalformed},
		{"standard base64", parts[0] + "." + parts[1] + ".++//", ErrMalformed},
		{"header no JSON", token(`{`, claims(nil)), ErrMalformed},
		{"header an array", token(`[]`, claims(nil)), ErrMalformed},
		{"header member twice", token(`{"alg":"EdDSA","kid":"k1","kid":"k1"}`, claims(nil)), ErrMalformed},
		{"algorithm twice", token(`{"alg":"none","alg":"EdDSA","kid":"k1"}`, claims(nil)), ErrMalformed},
		{"algorithm twice, escaped", token(`{"alg":"EdDSA","\u0061lg":"none","kid":"k1"}`, claims(nil)), ErrMalformed},
		{"no key id", token(`{"alg":"EdDSA"}`, claims(nil)), ErrMalformed},
		{"key id a number", token(`{"alg":"EdDSA","kid":1}`, claims(nil)), ErrMalformed},
		{"encrypted", token(`{"alg":"EdDSA","kid":"k1","typ":"JWE"}`, claims(nil)), ErrMalformed},
		{"critical", token(`{"alg":"EdDSA","kid":"k1","crit":["exp"],"exp":1}`, claims(nil)), ErrCritical},
		{"critical b64", token(`{"alg":"EdDSA","kid":"k1","crit":["b64"],"b64":false}`, claims(nil)), ErrCritical},
		{"critical null", token(`{"alg":"EdDSA","kid":"k1","crit":null}`, claims(nil)), ErrCritical},
		{"none", b64([]byte(`{"alg":"none","kid":"k1"}`)) + "." + parts[1] + ".", ErrAlgorithm},
		{"None", b64([]byte(`{"alg":"None","kid":"k1"}`)) + "." + parts[1] + "." + parts[2], ErrAlgorithm},
		{"HS256 with the public key", hs + "." + b64(m.Sum(nil)), ErrAlgorithm},
		{"another algorithm than the key's", token(`{"alg":"ES256","kid":"k1"}`, claims(nil)), ErrAlgorithm},
		{"algorithm in lower case", token(`{"alg":"eddsa","kid":"k1"}`, claims(nil)), ErrAlgorithm},
		{"unknown key id", token(`{"alg":"EdDSA","kid":"k2"}`, claims(nil)), ErrKeyID},
		{"no signature", parts[0] + "." + parts[1] + ".", ErrSignature},
		{"other signature", parts[0] + "." + parts[1] + "." + b64(make([]byte, 64)), ErrSignature},
		{"other claims", parts[0] + "." + b64([]byte(claims(map[string]any{"tier": "prod2"}))) + "." + parts[2], ErrSignature},
		{"claims no JSON", token(header, `x`), ErrMalformed},
		{"claims an array", token(header, `[]`), ErrMalformed},
		{"claim twice", token(header, strings.Replace(claims(nil), `"tier"`, `"iss":"https://cluster.example","tier"`, 1)), ErrMalformed},
		{"no issuer", set("iss", nil), ErrMalformed},
		{"unknown issuer", set("iss", "https://other.example"), ErrIssuer},
		{"issuer with a slash", set("iss", "https://cluster.example/"), ErrIssuer},
		{"no audience", set("aud", nil), ErrAudience},
		{"other audience", set("aud", "vault"), ErrAudience},
		{"longer audience", set("aud", "ehsm2"), ErrAudience},
		{"no audience in the list", set("aud", []string{}), ErrAudience},
		{"several audiences", set("aud", []string{"ehsm", "vault"}), ErrAudience},
		{"audience an object", set("aud", map[string]any{"ehsm": 1}), ErrAudience},
		{"no end", set("exp", nil), ErrMalformed},
		{"end as text", set("exp", "2026"), ErrMalformed},
		{"end negative", set("exp", -1), ErrMalformed},
		{"end a fraction", set("exp", 1e300), ErrMalformed},
		{"expired this second", set("exp", noon.Unix()), ErrExpired},
		{"expired long ago", set("exp", 0), ErrExpired},
		{"not yet", set("nbf", noon.Unix()+61), ErrFuture},
		{"made in the future", set("iat", noon.Unix()+61), ErrFuture},
		{"date as text", set("iat", "now"), ErrMalformed},
		{"no subject", set("sub", nil), ErrSubject},
		{"other subject", set("sub", "system:serviceaccount:shop2:web"), ErrSubject},
		{"subject a number", set("sub", 7), ErrSubject},
		{"claim missing", set("tier", nil), ErrClaim},
		{"other claim", set("tier", "test"), ErrClaim},
		{"claim a list", set("tier", []string{"prod"}), ErrClaim},
		{"inner claim missing", set("kubernetes.io", nil), ErrClaim},
		{"inner claim flat", set("kubernetes.io", "shop"), ErrClaim},
		{"other inner claim", set("kubernetes.io", map[string]any{"namespace": "shop2"}), ErrClaim},
		{"too long", token(header, claims(map[string]any{"pad": strings.Repeat("p", MaxToken)})), ErrMalformed},
		{"nested deep", token(header, claims(map[string]any{"pad": json.RawMessage(strings.Repeat("[", 20) + strings.Repeat("]", 20))})), ErrMalformed},
	} {
		if err := check(row.text, expected()); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
	}
}

func TestValidate(t *testing.T) {
	if err := expected().Validate(); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", MaxText+1)
	for name, change := range map[string]func(*Expected){
		"no issuer":         func(e *Expected) { e.Issuer = "" },
		"long issuer":       func(e *Expected) { e.Issuer = long },
		"no audience":       func(e *Expected) { e.Audience = "" },
		"no subject":        func(e *Expected) { e.Subject = "" },
		"every subject":     func(e *Expected) { e.Subject = "*" },
		"star in it":        func(e *Expected) { e.Subject = "a*b" },
		"two stars":         func(e *Expected) { e.Subject = "a**" },
		"star first":        func(e *Expected) { e.Subject = "*a" },
		"empty claim":       func(e *Expected) { e.Claims[0].Value = "" },
		"nameless claim":    func(e *Expected) { e.Claims[0].Name = "" },
		"claim twice":       func(e *Expected) { e.Claims[0].Name = "tier" },
		"odd pointer":       func(e *Expected) { e.Claims[0].Name = "/a~2" },
		"deep pointer":      func(e *Expected) { e.Claims[0].Name = strings.Repeat("/a", 9) },
		"nine claims":       func(e *Expected) { e.Claims = make([]Claim, 9) },
		"no keys":           func(e *Expected) { e.Keys = nil },
		"nine keys":         func(e *Expected) { e.Keys = make([]Key, 9) },
		"key twice":         func(e *Expected) { e.Keys = append(e.Keys, e.Keys[0]) },
		"key of no kind":    func(e *Expected) { e.Keys[0].Algorithm = 0 },
		"key of other kind": func(e *Expected) { e.Keys[0].Algorithm = RS256 },
	} {
		e := expected()
		change(e)
		if err := e.Validate(); err == nil {
			t.Errorf("%s: it is accepted", name)
		}
	}
	if names, err := path("/a~1b/c~0d"); err != nil || fmt.Sprint(names) != "[a/b c~d]" {
		t.Errorf("path: got %q, %v", names, err)
	}
}

func FuzzToken(f *testing.F) {
	f.Add(token(header, claims(nil)))
	f.Add(b64([]byte(`{"alg":"none","kid":"k1"}`)) + ".e30.")
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := Parse(text)
		if err != nil || tok.Check(expected(), noon) != nil {
			return
		}
		parts := strings.Split(text, ".")
		value, err := base64.RawURLEncoding.DecodeString(parts[2])
		if err != nil || !ed25519.Verify(issuerKey.Public().(ed25519.PublicKey), []byte(parts[0]+"."+parts[1]), value) {
			t.Errorf("%q: it is accepted without a signature", text)
		}
	})
}
