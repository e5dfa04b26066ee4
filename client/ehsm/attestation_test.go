package ehsm

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/api"
)

// quoteResult is a result of GenerateQuote as the contract describes it: a quote is
// its version and, from byte 368, what it binds.
func quoteResult(challenge, domain, key []byte) map[string]any {
	first := sha256.Sum256(challenge)
	second := sha256.Sum256([]byte("ehsm-native-quote/v1" + string(domain) + string(key)))
	quote := append([]byte{3, 0}, make([]byte, 1000)...)
	copy(quote[368:], first[:])
	copy(quote[400:], second[:])
	return map[string]any{
		"challenge": b64(string(challenge)), "quote": b64(string(quote)), "reportDataBinding": "ehsm-native-quote/v1",
		"domainId": hex.EncodeToString(domain), "hpkePublicKey": b64(string(key)),
	}
}

func jsonOf(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func TestGenerateQuote(t *testing.T) {
	challenge, domain, key := []byte("challenge"), bytes.Repeat([]byte{7}, 32), []byte("key")
	tdx := append([]byte{4, 0}, make([]byte, 1000)...)
	for _, row := range []struct {
		name string
		edit func(map[string]any)
		want error
	}{
		{"as it should be", func(map[string]any) {}, nil},
		{"a quote of another kind", func(r map[string]any) { r["quote"] = b64(string(tdx)) }, nil},
		{"another challenge echoed", func(r map[string]any) { r["challenge"] = b64("Challenge") }, ErrQuoteBinding},
		{"another challenge in the quote", func(r map[string]any) { r["quote"] = quoteResult([]byte("old"), domain, key)["quote"] }, ErrQuoteBinding},
		{"another key in the quote", func(r map[string]any) { r["quote"] = quoteResult(challenge, domain, []byte("KEY"))["quote"] }, ErrQuoteBinding},
		{"another domain in the quote", func(r map[string]any) { r["quote"] = quoteResult(challenge, make([]byte, 32), key)["quote"] }, ErrQuoteBinding},
		{"another domain named", func(r map[string]any) { r["domainId"] = strings.Repeat("00", 32) }, ErrQuoteBinding},
		{"another key named", func(r map[string]any) { r["hpkePublicKey"] = b64("KEY") }, ErrQuoteBinding},
		{"report data of zeros", func(r map[string]any) {
			r["quote"] = b64(string(append([]byte{3, 0}, make([]byte, 1000)...)))
		}, ErrQuoteBinding},
		{"no binding", func(r map[string]any) { delete(r, "reportDataBinding") }, ErrQuoteBinding},
		{"a binding of the future", func(r map[string]any) { r["reportDataBinding"] = "ehsm-native-quote/v2" }, ErrQuoteBinding},
		{"domain id that is none", func(r map[string]any) { r["domainId"] = "domain" }, ErrQuoteBinding},
		{"short domain id", func(r map[string]any) { r["domainId"] = "0707" }, ErrQuoteBinding},
		{"no quote", func(r map[string]any) { delete(r, "quote") }, ErrReply},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := &fakeServer{answer: func(action string, payload map[string]any) string {
				if action != api.GenerateQuote || payload["challenge"] != b64(string(challenge)) {
					t.Errorf("server: got %s %v", action, payload)
				}
				res := quoteResult(challenge, domain, key)
				row.edit(res)
				return succeed(jsonOf(res))
			}}
			res, err := s.start(t).GenerateQuote(t.Context(), challenge)
			if !errors.Is(err, row.want) {
				t.Fatalf("GenerateQuote: got %v, want %v", err, row.want)
			}
			if row.want != nil && res.Quote != nil || row.want == nil && !bytes.Equal(res.Challenge, challenge) {
				t.Errorf("GenerateQuote: got %+v", res)
			}
		})
	}
}

// verdictText is what a verdict is signed over, by the text of the contract.
func verdictText(r map[string]any) string {
	m := maps.Clone(r)
	delete(m, "sign")
	if m["tcbStatus"] == 0 {
		delete(m, "tcbStatus")
	}
	if m["result"] == false {
		delete(m, "result")
	}
	return canonical(m)
}

func verdictSign(key string, r map[string]any) string {
	h := hmac.New(sha256.New, []byte(key))
	io.WriteString(h, verdictText(r))
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}

func TestVerifyQuote(t *testing.T) {
	enclave, signer := strings.Repeat("ab", 32), strings.Repeat("cd", 32)
	sign := func(r map[string]any) { r["sign"] = verdictSign(testAPIKey, r) }
	for _, row := range []struct {
		name string
		edit func(r map[string]any)
		want error
	}{
		{"up to date", sign, nil},
		{"hardening needed", func(r map[string]any) { r["tcbStatus"] = 0xa007; sign(r) }, nil},
		{"a member of the future", func(r map[string]any) { r["advisories"] = "x"; sign(r) }, nil},
		{"no signature", func(map[string]any) {}, ErrVerdict},
		{"under another key", func(r map[string]any) { r["sign"] = verdictSign("key", r) }, ErrVerdict},
		{"another status", func(r map[string]any) { sign(r); r["tcbStatus"] = 0xa002 }, ErrVerdict},
		{"a status taken away", func(r map[string]any) { r["tcbStatus"] = 0xa002; sign(r); r["tcbStatus"] = 0 }, ErrVerdict},
		{"another enclave", func(r map[string]any) { sign(r); r["mr_enclave"] = signer }, ErrVerdict},
		{"another signer", func(r map[string]any) { sign(r); r["mr_signer"] = enclave }, ErrVerdict},
		{"another nonce", func(r map[string]any) { sign(r); r["nonce"] = b64("n") }, ErrVerdict},
		{"an old verdict", func(r map[string]any) { r["nonce"] = b64("n"); sign(r) }, ErrVerdict},
		{"a bad verdict made good", func(r map[string]any) { r["result"] = false; sign(r); r["result"] = true }, ErrVerdict},
		{"a bad verdict", func(r map[string]any) { r["result"] = false; sign(r) }, ErrVerdict},
		{"no result", func(r map[string]any) { delete(r, "result"); sign(r) }, ErrVerdict},
		{"no enclave", func(r map[string]any) { delete(r, "mr_enclave"); sign(r) }, ErrReply},
		{"result is a number", func(r map[string]any) { r["result"] = 1; sign(r) }, ErrReply},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := &fakeServer{answer: func(action string, payload map[string]any) string {
				if action != api.VerifyQuote || payload["quote"] != b64("quote") || payload["policyId"] != "p" {
					t.Errorf("server: got %s %v", action, payload)
				}
				res := map[string]any{"result": true, "nonce": payload["nonce"], "mr_enclave": enclave, "mr_signer": signer, "tcbStatus": 0}
				row.edit(res)
				return succeed(jsonOf(res))
			}}
			res, err := s.start(t).VerifyQuote(t.Context(), []byte("quote"), "p")
			if !errors.Is(err, row.want) {
				t.Fatalf("VerifyQuote: got %v, want %v", err, row.want)
			}
			if row.want == nil && (!res.Result || res.MREnclave != enclave || res.MRSigner != signer) {
				t.Errorf("VerifyQuote: got %+v", res)
			}
		})
	}
}

func TestVerifyQuoteNonces(t *testing.T) {
	seen := map[any]bool{}
	s := &fakeServer{answer: func(_ string, payload map[string]any) string {
		if seen[payload["nonce"]] || len(payload["nonce"].(string)) != 44 || payload["policyId"] != nil {
			t.Errorf("server: got %v", payload)
		}
		seen[payload["nonce"]] = true
		return refuse(500, "Server exception.")
	}}
	c := s.start(t)
	for range 3 {
		if _, err := c.VerifyQuote(t.Context(), []byte("q"), ""); !IsQuoteRefused(err) {
			t.Errorf("VerifyQuote: got %v, want a refusal", err)
		}
	}
}

func TestQuotePolicies(t *testing.T) {
	enclave, signer := [32]byte{0xab}, [32]byte{31: 0xcd}
	hexEnclave, hexSigner := hex.EncodeToString(enclave[:]), hex.EncodeToString(signer[:])
	policy := fmt.Sprintf(`{"policyId":"p","mr_enclave":"%s","mr_signer":"%s","createTime":5000}`, hexEnclave, hexSigner)
	testActions(t, []actionTest{
		{api.UploadQuotePolicy, fmt.Sprintf(`{"mr_enclave":"%s","mr_signer":"%s"}`, hexEnclave, hexSigner), `{"policyId":"p"}`,
			func(c *Client) (any, error) { return c.UploadQuotePolicy(t.Context(), enclave, signer) }, "p"},
		{api.GetQuotePolicy, `{"policyId":"p"}`, policy,
			func(c *Client) (any, error) {
				p, err := c.GetQuotePolicy(t.Context(), "p")
				return fmt.Sprint(p.ID, " ", p.MREnclave == enclave, p.MRSigner == signer, p.Created.Unix()), err
			}, "p true true 5"},
	})
	get := func(c *Client) error { _, err := c.GetQuotePolicy(t.Context(), "p"); return err }
	testResults(t, []resultTest{
		{"no policyId", `{}`, func(c *Client) error { _, err := c.UploadQuotePolicy(t.Context(), enclave, signer); return err }},
		{"policy of another id", strings.Replace(policy, `"p"`, `"q"`, 1), get},
		{"no signer", fmt.Sprintf(`{"policyId":"p","mr_enclave":"%s"}`, hexEnclave), get},
		{"short enclave", strings.Replace(policy, "ab00", "ab", 1), get},
		{"long enclave", strings.Replace(policy, "ab00", "ab0000", 1), get},
		{"no hex", strings.Replace(policy, "ab00", "xy00", 1), get},
	})
	s := &fakeServer{answer: func(string, map[string]any) string { return succeed(`{"policyId":"p"}`) }}
	if _, err := s.start(t).GetQuotePolicy(t.Context(), "p"); !errors.Is(err, ErrNoQuotePolicy) || !IsQuotePolicyNotFound(err) {
		t.Errorf("GetQuotePolicy of an unknown one: got %v, want %v", err, ErrNoQuotePolicy)
	}
	s = &fakeServer{answer: func(string, map[string]any) string { return refuse(400, "Invalid  policyId.") }}
	if _, err := s.start(t).VerifyQuote(t.Context(), []byte("q"), "p"); !IsQuotePolicyNotFound(err) || IsQuoteRefused(err) {
		t.Errorf("VerifyQuote with an unknown policy: got %v", err)
	}
}
