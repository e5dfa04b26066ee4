package e2e

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// quoteLines are about remote attestation. Which quotes are refused, and why, is
// tested with clocks and fleets of its own: internal/trusted/core.
func quoteLines() []line {
	return []line{
		{"34-quote", testQuote},
		{"35-verdict", testVerdict},
		{"35-corrupted", testCorruptedQuotes},
		{"36-policies", testQuotePolicies},
		{"13-validation-texts-quotes", testQuoteValidation},
		{"evidence", testEvidence},
		{"evidence-of-challenges", testEvidenceChallenges},
		{"quotes-at-once", testQuotesAtOnce},
	}
}

// reportData is the 64 bytes that an SGX quote of version 3 binds: the last of a
// report of 384 bytes, which follows a header of 48.
func reportData(t testing.TB, quote []byte) []byte {
	t.Helper()
	if len(quote) < 436 || quote[0] != 3 || quote[1] != 0 {
		t.Fatalf("got no SGX quote of version 3: %d bytes", len(quote))
	}
	return quote[368:432]
}

// quote has a quote made.
func (c *tenant) quote(t testing.TB, challenge []byte) (reply, []byte) {
	t.Helper()
	r := c.call(t, "GenerateQuote", fields{"challenge": b64(challenge)})
	want(t, r, 200, textSuccess)
	return r, r.bytes(t, "quote")
}

func testQuote(t *testing.T, g *target) {
	c := g.enroll(t)
	seen := map[string]bool{}
	for _, challenge := range [][]byte{randomBytes(1), randomBytes(32), randomBytes(3072)} {
		r, quote := c.quote(t, challenge)
		domain, err := hex.DecodeString(r.text(t, "domainId"))
		if err != nil || len(domain) != 32 {
			t.Fatalf("domainId is %q", r.text(t, "domainId"))
		}
		first := sha256.Sum256(challenge)
		second := sha256.Sum256(bytes.Join([][]byte{[]byte("ehsm-native-quote/v1"), domain, r.bytes(t, "hpkePublicKey")}, nil))
		if got := reportData(t, quote); !bytes.Equal(got[:32], first[:]) || !bytes.Equal(got[32:], second[:]) {
			t.Errorf("report data is %x, want %x%x", got, first, second)
		}
		if r.text(t, "challenge") != b64(challenge) || r.text(t, "reportDataBinding") != "ehsm-native-quote/v1" {
			t.Errorf("got %s", r.body)
		}
		seen[string(reportData(t, quote))] = true
	}
	if len(seen) != 3 {
		t.Errorf("3 challenges give %d values of report data", len(seen))
	}
}

// verdict checks a reply of VerifyQuote: the signature is computed from the text
// of the contract.
func (c *tenant) verdict(t testing.TB, r reply, nonce string, quote []byte) {
	t.Helper()
	want(t, r, 200, textSuccess)
	enclave, signer := hex.EncodeToString(quote[112:144]), hex.EncodeToString(quote[176:208])
	if r.Result["result"] != true || r.text(t, "nonce") != nonce || r.text(t, "mr_enclave") != enclave || r.text(t, "mr_signer") != signer {
		t.Errorf("%s: got %s", r.action, r.body)
	}
	text := "mr_enclave=" + enclave + "&mr_signer=" + signer + "&nonce=" + nonce + "&result=true"
	if status := r.integer(t, "tcbStatus"); status != 0 {
		text += "&tcbStatus=" + strconv.FormatInt(status, 10)
	}
	if got, want := r.text(t, "sign"), sign(c.apikey, text); got != want {
		t.Errorf("%s: sign is %s, want %s over %s", r.action, got, want, text)
	}
}

func testVerdict(t *testing.T, g *target) {
	c := g.enroll(t)
	_, quote := c.quote(t, randomBytes(32))
	nonce := b64(randomBytes(20))
	payload := fields{"quote": b64(quote), "nonce": nonce}
	c.verdict(t, c.call(t, "VerifyQuote", payload), nonce, quote)
	other := g.enroll(t)
	other.verdict(t, other.call(t, "VerifyQuote", payload), nonce, quote)
	policy := c.policy(t, quote[112:144], quote[176:208])
	c.verdict(t, c.call(t, "VerifyQuote", payload.with(fields{"policyId": policy})), nonce, quote)
	c.verdict(t, c.call(t, "VerifyQuote", payload.with(fields{"policyId": ""})), nonce, quote)
	for name, policy := range map[string]string{
		"another enclave": c.policy(t, randomBytes(32), quote[176:208]),
		"another signer":  c.policy(t, quote[112:144], randomBytes(32)),
		"exchanged":       c.policy(t, quote[176:208], quote[112:144]),
	} {
		r := c.call(t, "VerifyQuote", payload.with(fields{"policyId": policy}))
		r.action += " under a policy of " + name
		want(t, r, 500, textServer)
	}
}

func testCorruptedQuotes(t *testing.T, g *target) {
	c := g.enroll(t)
	_, quote := c.quote(t, randomBytes(32))
	for name, at := range map[string]int{
		"version": 0, "user data": 30, "enclave": 112, "attributes": 96, "signer": 176, "report data": 400, "signature": 440,
		"attestation key": 510, "report of the QE": 600, "signature of the QE": 960, "certificates": 1200,
	} {
		bad := bytes.Clone(quote)
		bad[at] ^= 1
		r := c.call(t, "VerifyQuote", fields{"quote": b64(bad), "nonce": "AAAA"})
		r.action += " with another " + name
		want(t, r, 500, textServer)
	}
	for name, bad := range map[string][]byte{
		"cut short": quote[:len(quote)-1], "header alone": quote[:48], "one byte": quote[:1], "extended": append(bytes.Clone(quote), 0),
		"zeros": make([]byte, 8192),
	} {
		r := c.call(t, "VerifyQuote", fields{"quote": b64(bad), "nonce": "AAAA"})
		r.action += ", " + name
		want(t, r, 500, textServer)
	}
	want(t, c.call(t, "VerifyQuote", fields{"quote": b64(make([]byte, 8193)), "nonce": "AAAA"}), 400, "The quote's length is invalid.")
	r := c.call(t, "VerifyQuote", fields{"quote": b64(quote), "nonce": "AAAA"})
	c.verdict(t, r, "AAAA", quote) // nothing of this has harmed the good one
}

// policy uploads a policy.
func (c *tenant) policy(t testing.TB, enclave, signer []byte) string {
	t.Helper()
	r := c.call(t, "UploadQuotePolicy", fields{"mr_enclave": hex.EncodeToString(enclave), "mr_signer": hex.EncodeToString(signer)})
	want(t, r, 200, "Upload quote policy success.")
	return r.text(t, "policyId")
}

func testQuotePolicies(t *testing.T, g *target) {
	c, other := g.enroll(t), g.enroll(t)
	enclave, signer := hex.EncodeToString(randomBytes(32)), strings.Repeat("0123456789aBcDeF", 4)
	r := c.call(t, "UploadQuotePolicy", fields{"mr_enclave": strings.ToUpper(enclave), "mr_signer": signer})
	want(t, r, 200, "Upload quote policy success.")
	id := r.text(t, "policyId")
	r = c.call(t, "GetQuotePolicy", fields{"policyId": id})
	want(t, r, 200, "Query quote policy success.")
	if r.text(t, "policyId") != id || r.text(t, "mr_enclave") != enclave || r.text(t, "mr_signer") != strings.ToLower(signer) || r.integer(t, "createTime") <= 0 {
		t.Errorf("GetQuotePolicy: got %s", r.body)
	}
	_, quote := c.quote(t, randomBytes(8))
	const unknown = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
	for _, row := range []struct {
		c  *tenant
		id string
	}{{c, unknown}, {other, id}} {
		r := row.c.call(t, "GetQuotePolicy", fields{"policyId": row.id})
		want(t, r, 200, "Query quote policy success.")
		if r.text(t, "policyId") != row.id || len(r.Result) != 1 {
			t.Errorf("GetQuotePolicy of none: got %s", r.body)
		}
		want(t, row.c.call(t, "VerifyQuote", fields{"quote": b64(quote), "nonce": "AAAA", "policyId": row.id}), 400, "Invalid  policyId.")
	}
}

func testQuoteValidation(t *testing.T, g *target) {
	c := g.enroll(t)
	hash := strings.Repeat("ab", 32)
	for _, row := range []struct {
		action  string
		payload fields
		message string
	}{
		{"GenerateQuote", nil, "Missing required parameters, The challenge cannot be empty."},
		{"GenerateQuote", fields{"challenge": 1}, "Parameter invalid, The challenge must be of string type."},
		{"GenerateQuote", fields{"challenge": strings.Repeat("AAAA", 1025)}, "Parameter invalid, The challenge length error."},
		{"GenerateQuote", fields{"challenge": "AAA"}, "Parameter invalid, The challenge not a vailed base64 string."},
		{"VerifyQuote", fields{"nonce": "AAAA"}, "Missing required parameters, The quote cannot be empty."},
		{"VerifyQuote", fields{"quote": "AAAA"}, "Missing required parameters, The nonce cannot be empty."},
		{"VerifyQuote", fields{"quote": strings.Repeat("AAAA", 2732), "nonce": "AAAA"}, "Parameter invalid, The quote length error."},
		{"VerifyQuote", fields{"quote": "AAAA", "nonce": strings.Repeat("AAAA", 1025)}, "Parameter invalid, The nonce length error."},
		{"VerifyQuote", fields{"quote": "AAAA", "nonce": "AAAA", "policyId": "a"}, "Parameter invalid, The policyId length error."},
		{"UploadQuotePolicy", fields{"mr_enclave": hash}, "Missing required parameters, The mr_signer cannot be empty."},
		{"UploadQuotePolicy", fields{"mr_enclave": hash[1:], "mr_signer": hash}, "Parameter invalid, The mr_enclave length error."},
		{"UploadQuotePolicy", fields{"mr_enclave": hash, "mr_signer": hash[2:] + "xy"}, "Parameter invalid, The mr_signer format wrong."},
		{"UploadQuotePolicy", fields{"mr_enclave": hash, "mr_signer": hash, "debug": true}, "Parameter invalid, The debug type is incorrect."},
		{"GetQuotePolicy", fields{}, "Missing required parameters, The policyId cannot be empty."},
		{"GetQuotePolicy", fields{"policyId": strings.ToUpper("3f2504e0-4f89-41d3-9a0c-0305e82c3301")}, "Parameter invalid, The policyId format wrong."},
	} {
		want(t, c.call(t, row.action, row.payload), 400, row.message)
	}
}

// evidence asks for evidence over a challenge, as a stranger.
func (g *target) evidence(t testing.TB, challenge string) reply {
	t.Helper()
	r := g.must(t, http.MethodGet, "/ehsm?Action=GetEvidence&challenge="+challenge, nil)
	r.action = "GetEvidence"
	return r
}

// testEvidence recomputes what evidence binds, by docs/formats.md.
func testEvidence(t *testing.T, g *target) {
	challenge := randomBytes(32)
	r := g.evidence(t, base64.RawURLEncoding.EncodeToString(challenge))
	want(t, r, 200, textSuccess)
	e := r.bytes(t, "evidence")
	if len(e) < 6 || e[0] != 1 || e[1] != 1 || int(binary.BigEndian.Uint32(e[2:])) != len(e)-6 {
		t.Fatalf("evidence is no SGX quote in format 1: %x", e[:min(6, len(e))])
	}
	domain, err := hex.DecodeString(r.text(t, "domainId"))
	if err != nil {
		t.Fatal(err)
	}
	instance, err := hex.DecodeString(strings.ReplaceAll(r.text(t, "instanceId"), "-", ""))
	if err != nil || len(instance) != 16 {
		t.Fatalf("instanceId is %q", r.text(t, "instanceId"))
	}
	sum := sha512.New()
	for _, field := range [][]byte{[]byte("ehsm/reportdata-instance/v2\x00"), domain, []byte("core"), challenge, instance, r.bytes(t, "hpkePublicKey"), r.bytes(t, "replyKey")} {
		sum.Write(binary.BigEndian.AppendUint32(nil, uint32(len(field))))
		sum.Write(field)
	}
	if got := reportData(t, e[6:]); !bytes.Equal(got, sum.Sum(nil)) {
		t.Errorf("report data is %x, want %x", got, sum.Sum(nil))
	}
	if r.text(t, "role") != "core" || r.text(t, "reportDataBinding") != "ehsm/reportdata-instance/v2" || r.signature != "" {
		t.Errorf("got %s, signature %q", r.body, r.signature)
	}
	c := g.enroll(t)
	native, quote := c.quote(t, challenge)
	if native.text(t, "hpkePublicKey") != r.text(t, "hpkePublicKey") || native.text(t, "domainId") != r.text(t, "domainId") {
		t.Error("GenerateQuote and GetEvidence speak of two instances")
	}
	if bytes.Equal(reportData(t, quote), sum.Sum(nil)) {
		t.Error("a quote over the same challenge passes as evidence")
	}
	c.verdict(t, c.call(t, "VerifyQuote", fields{"quote": b64(e[6:]), "nonce": "AAAA"}), "AAAA", e[6:])
}

func testEvidenceChallenges(t *testing.T, g *target) {
	good := base64.RawURLEncoding.EncodeToString(randomBytes(32))
	for name, row := range map[string]struct{ challenge, message string }{
		"none":       {"", "Missing required parameters, The challenge cannot be empty."},
		"short":      {good[:42], "Parameter invalid, The challenge length error."},
		"long":       {strings.Repeat(good, 20), "Parameter invalid, The challenge length error."},
		"padded":     {good + "%3D", "Parameter invalid, The challenge length error."},
		"not base64": {good[:42] + "!", "Parameter invalid, The challenge not a vailed base64 string."},
	} {
		r := g.evidence(t, row.challenge)
		r.action += " with " + name
		want(t, r, 400, row.message)
	}
	want(t, g.must(t, http.MethodPost, "/ehsm?Action=GetEvidence&challenge="+good, []byte("{}")), 404, textNotFound)
	want(t, g.must(t, http.MethodGet, "/ehsm/?challenge="+good+"&Action=GetEvidence", nil), 200, textSuccess)
}

// testQuotesAtOnce has many strangers and tenants ask at once. Each gets a quote
// or is told to come again, and meanwhile everybody else is served.
func testQuotesAtOnce(t *testing.T, g *target) {
	c := g.enroll(t)
	key := c.createAES(t)
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			r := g.evidence(t, base64.RawURLEncoding.EncodeToString(randomBytes(32)))
			if r.Code != 200 && (r.Code != 429 || r.Message != "Too many requests.") {
				t.Errorf("GetEvidence: got %s", r.body)
			}
		})
		wg.Go(func() {
			r, err := c.try(t.Context(), "GenerateQuote", fields{"challenge": b64(randomBytes(32))})
			if err != nil || r.Code != 200 && (r.Code != 429 || r.Message != "Too many requests.") {
				t.Errorf("GenerateQuote: got %s, %v", r.body, err)
			}
		})
		wg.Go(func() {
			r, err := c.try(t.Context(), "Encrypt", fields{"keyid": key, "plaintext": "AAAA"})
			if err != nil || r.Code != 200 {
				t.Errorf("Encrypt meanwhile: got %s, %v", r.body, err)
			}
		})
	}
	wg.Wait()
}
