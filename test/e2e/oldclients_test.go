package e2e

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A habit is how one of the existing clients makes its requests, after section
// 3.4 of the contract.
type habit struct {
	name      string
	path      string
	nonce     bool                  // a random unsigned number of 64 bits
	omitEmpty bool                  // no payload member if there is nothing in it
	print     func(v any) string    // a value in the string that is signed
	trim      func(s string) string // of the whole string
}

func habits() []habit {
	same := func(s string) string { return s }
	return []habit{
		{name: "Go", path: "/ehsm", print: func(v any) string { return fmt.Sprint(v) }, trim: same},
		{name: "Python", path: "/ehsm/", omitEmpty: true, print: pythonText, trim: same},
		{name: "Rust", path: "/ehsm", nonce: true, omitEmpty: true, print: jsonText, trim: func(s string) string {
			return strings.TrimRight(strings.ReplaceAll(s, `"`, ""), "&")
		}},
	}
}

func pythonText(v any) string {
	if b, ok := v.(bool); ok {
		return strings.ToUpper(fmt.Sprint(b)[:1]) + fmt.Sprint(b)[1:]
	}
	return fmt.Sprint(v)
}

// text is the string that the client signs: members in byte order, nothing
// left out, only the payload nested.
func (h habit) text(members map[string]any) string {
	names := make([]string, 0, len(members))
	for name := range members {
		names = append(names, name)
	}
	slices.Sort(names)
	parts := make([]string, 0, len(names))
	for _, name := range names {
		switch v := members[name].(type) {
		case fields:
			parts = append(parts, name+"="+h.text(v))
		default:
			parts = append(parts, name+"="+h.print(v))
		}
	}
	return h.trim(strings.Join(parts, "&"))
}

// An oldClient calls the service by habit. It does not look at reply signatures.
type oldClient struct {
	habit
	server        *target
	appid, apikey string
}

func newOldClient(t *testing.T, g *target, h habit) *oldClient {
	t.Helper()
	r := g.must(t, http.MethodGet, h.path+"?Action=Enroll", nil)
	want(t, r, 200, textSuccessful)
	g.secret(r.text(t, "apikey"))
	return &oldClient{h, g, r.text(t, "appid"), r.text(t, "apikey")}
}

func (c *oldClient) call(t *testing.T, action string, payload fields) reply {
	t.Helper()
	members := map[string]any{"appid": c.appid, "timestamp": stamp(time.Now())}
	if len(payload) > 0 || !c.omitEmpty {
		members["payload"] = payload
	}
	if c.nonce {
		members["nonce"] = strconv.FormatUint(rand.Uint64(), 10)
	}
	members["sign"] = sign(c.apikey, c.text(members))
	body, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.server.send(context.Background(), http.MethodPost, c.path+"?Action="+action, body)
	if err != nil {
		t.Fatalf("%s, as %s: %v", action, c.name, err)
	}
	r.action = c.name + " " + action
	return r
}

// TestOldClients drives all actions with the signing habits of the existing
// clients, empty values kept.
func TestOldClients(t *testing.T) {
	eachTarget(t, func(t *testing.T, g *target) {
		for _, h := range habits() {
			t.Run(h.name, func(t *testing.T) {
				c := newOldClient(t, g, h)
				for _, drive := range []func(*testing.T, *oldClient){driveKeys, driveEncryption, driveAsymmetric, driveImport, driveSecrets, driveQuotes} {
					drive(t, c)
				}
			})
		}
	})
}

// create makes a key.
func (c *oldClient) create(t *testing.T, spec, usage, origin string) string {
	t.Helper()
	r := c.call(t, "CreateKey", fields{"keyspec": spec, "origin": origin, "keyusage": usage})
	want(t, r, 200, textSuccess)
	return r.text(t, "keyid")
}

func driveKeys(t *testing.T, c *oldClient) {
	want(t, c.server.must(t, http.MethodGet, c.path+"?Action=GetVersion", nil), 200, textSuccess)
	key := c.create(t, "EH_AES_GCM_128", encryptDecrypt, internalKey)
	for _, action := range []string{"DisableKey", "EnableKey", "DeleteKey"} {
		want(t, c.call(t, action, fields{"keyid": key}), 200, textSuccessful)
	}
	for _, action := range []string{"ListKey", "DeleteAllKey", "ListKey"} {
		want(t, c.call(t, action, fields{}), 200, textSuccessful)
	}
}

func driveEncryption(t *testing.T, c *oldClient) {
	key := c.create(t, "EH_AES_GCM_256", encryptDecrypt, internalKey)
	for _, aad := range []string{"", "YWFkKy8="} {
		r := c.call(t, "Encrypt", fields{"keyid": key, "plaintext": "AAEC", "aad": aad})
		want(t, r, 200, textSuccess)
		r = c.call(t, "Decrypt", fields{"keyid": key, "ciphertext": r.text(t, "ciphertext"), "aad": aad})
		want(t, r, 200, textSuccess)
		if r.text(t, "plaintext") != "AAEC" {
			t.Errorf("%s: got %s", r.action, r.body)
		}
		r = c.call(t, "GenerateDataKey", fields{"keyid": key, "keylen": 48, "aad": aad})
		want(t, r, 200, textSuccess)
		plain := r.text(t, "plaintext")
		r = c.call(t, "Decrypt", fields{"keyid": key, "ciphertext": r.text(t, "ciphertext"), "aad": aad})
		if r.text(t, "plaintext") != plain {
			t.Errorf("%s: a data key opens as another", r.action)
		}
		want(t, c.call(t, "GenerateDataKeyWithoutPlaintext", fields{"keyid": key, "keylen": 48, "aad": aad}), 200, textSuccess)
	}
}

func driveAsymmetric(t *testing.T, c *oldClient) {
	key := c.create(t, "EH_SM2", encryptDecrypt, internalKey)
	r := c.call(t, "AsymmetricEncrypt", fields{"keyid": key, "plaintext": "AAEC", "padding_mode": padOAEP})
	want(t, r, 200, textSuccess)
	r = c.call(t, "AsymmetricDecrypt", fields{"keyid": key, "ciphertext": r.text(t, "ciphertext"), "padding_mode": padOAEP})
	if r.text(t, "plaintext") != "AAEC" {
		t.Errorf("%s: got %s", r.action, r.body)
	}
	public := c.call(t, "GetPublicKey", fields{"keyid": key}).text(t, "pubkey")
	from := c.create(t, "EH_SM4_CBC", encryptDecrypt, internalKey)
	data := c.call(t, "GenerateDataKey", fields{"keyid": from, "keylen": 16, "aad": ""})
	for _, target := range []fields{{"ukeyid": key}, {"upubkey": public}} {
		if _, text := target["upubkey"]; text && c.name == "Rust" {
			continue // no call of that client sends a value with line feeds
		}
		out := fields{"keyid": from, "olddatakey_base": data.text(t, "ciphertext"), "aad": ""}.with(target)
		want(t, c.call(t, "ExportDataKey", out), 200, textSuccess)
	}
	for spec, digest := range map[string]string{"EH_SM2": "EH_SM3", "EH_EC_P256K": "EH_SHA_512", "EH_HMAC": "EH_SHA_256"} {
		in := signing(c.create(t, spec, signVerify, internalKey), digest, padNone, []byte("attack at dawn"), true)
		r := c.call(t, "Sign", in)
		want(t, r, 200, textSuccess)
		r = c.call(t, "Verify", in.with(fields{"signature": r.text(t, "signature"), "padding_mode": padPKCS1}))
		if want(t, r, 200, textSuccess); r.Result["result"] != true {
			t.Errorf("%s: got %s", r.action, r.body)
		}
	}
}

func driveImport(t *testing.T, c *oldClient) {
	key := c.create(t, "EH_SM4_CTR", encryptDecrypt, externalKey)
	r := c.call(t, "GetParametersForImport", fields{"keyid": key, "keyspec": "EH_RSA_2048"})
	want(t, r, 200, textSuccess)
	s := newSession(t, r)
	brought(t, c.call(t, "ImportKeyMaterial", fields{"keyid": key, "padding_mode": padOAEP, "key_material": s.sealed(t, padOAEP, randomBytes(16)), "importToken": s.token}))
	want(t, c.call(t, "Encrypt", fields{"keyid": key, "plaintext": "AAEC"}), 200, textSuccess)
}

func driveSecrets(t *testing.T, c *oldClient) {
	const name = "a b&c=d"
	for _, row := range []struct {
		action  string
		payload fields
		message string
	}{
		{"CreateSecret", fields{"secretData": "x+%41", "description": ""}, "The " + name + " create success."},
		{"PutSecretValue", fields{"secretData": "y"}, "The " + name + " new version put success."},
		{"GetSecretValue", fields{"versionId": 1}, textSuccessful},
		{"ListSecretVersionIds", nil, "List secret versionIds success."},
		{"DescribeSecret", nil, "Describe secrets success."},
		{"ListSecrets", nil, "List secrets success."},
		{"UpdateSecretDesc", fields{"description": ""}, "Update secret description success."},
		{"DeleteSecret", fields{"recoveryPeriod": 7, "force_delete": false}, "The " + name + " will be deleted after 7 days."},
		{"RestoreSecret", nil, "The " + name + " restore success."},
		{"DeleteSecret", fields{"forceDelete": "true"}, "The " + name + " delete success"},
	} {
		want(t, c.call(t, row.action, fields{"secretName": name}.with(row.payload)), 200, row.message)
	}
	want(t, c.call(t, "ListSecrets", fields{}), 200, "List secrets success.")
}

func driveQuotes(t *testing.T, c *oldClient) {
	r := c.call(t, "GenerateQuote", fields{"challenge": "AAAA"})
	want(t, r, 200, textSuccess)
	quote := r.bytes(t, "quote")
	r = c.call(t, "UploadQuotePolicy", fields{"mr_enclave": hex.EncodeToString(quote[112:144]), "mr_signer": hex.EncodeToString(quote[176:208])})
	want(t, r, 200, "Upload quote policy success.")
	policy := r.text(t, "policyId")
	want(t, c.call(t, "GetQuotePolicy", fields{"policyId": policy}), 200, "Query quote policy success.")
	for _, policy := range []string{"", policy} {
		r = c.call(t, "VerifyQuote", fields{"quote": b64(quote), "nonce": "AAAA", "policyId": policy})
		if want(t, r, 200, textSuccess); r.Result["result"] != true {
			t.Errorf("%s: got %s", r.action, r.body)
		}
	}
}
