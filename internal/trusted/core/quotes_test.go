package core

import (
	"bytes"
	"context"
	"crypto/hpke"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// member64 returns a base64 member of a result.
func member64(t testing.TB, r reply, name string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.Strict().DecodeString(r.text(name))
	if err != nil || len(b) == 0 {
		t.Fatalf("%s: got %q, %v", name, r.text(name), err)
	}
	return b
}

func reportData(t testing.TB, q []byte) [64]byte {
	t.Helper()
	parsed, err := quote.Parse(q)
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Report.ReportData
}

// evidence asks for evidence over a challenge, as the manager passes it.
func (h *host) evidence(core int, challenge string) reply {
	h.t.Helper()
	return parseReply(h.t, h.call(core, &wire.Call{Action: "GetEvidence", Get: true, Body: []byte(challenge)}))
}

var challenge32 = bytes.Repeat([]byte{0xfb}, 32) // has - and _ in base64url

// TestGenerateQuote computes the report data by the text of the contract.
func TestGenerateQuote(t *testing.T) {
	h, d, _ := newQuoteHost(t)
	c := h.enroll()
	seen := map[[64]byte]bool{}
	for _, challenge := range [][]byte{{0}, []byte("challenge"), bytes.Repeat([]byte{9}, 3072)} {
		r := c.do(0, "GenerateQuote", map[string]any{"challenge": b64(challenge)})
		want(t, "GenerateQuote", r, 200, "success!")
		first := sha256.Sum256(challenge)
		domain := d.keys.Domain()
		key := member64(t, r, "hpkePublicKey")
		second := sha256.Sum256(append(append([]byte("ehsm-native-quote/v1"), domain[:]...), key...))
		got := reportData(t, member64(t, r, "quote"))
		if !bytes.Equal(got[:32], first[:]) || !bytes.Equal(got[32:], second[:]) {
			t.Errorf("report data is %x, want %x%x", got, first, second)
		}
		if seen[got] {
			t.Error("two challenges give the same report data")
		}
		seen[got] = true
		if r.text("challenge") != b64(challenge) || r.text("reportDataBinding") != "ehsm-native-quote/v1" || r.text("domainId") != hex.EncodeToString(domain[:]) {
			t.Errorf("got %v", r.Result)
		}
		if len(r.Result) != 5 {
			t.Errorf("result has %d members", len(r.Result))
		}
	}
}

// TestGetEvidence computes the report data by docs/formats.md.
func TestGetEvidence(t *testing.T) {
	h, d, _ := newQuoteHost(t)
	text := base64.RawURLEncoding.EncodeToString(challenge32)
	r := h.evidence(0, text)
	want(t, "GetEvidence", r, 200, "success!")
	e, err := attest.DecodeEvidence(member64(t, r, "evidence"))
	if err != nil || e.Kind != attest.SGXQuote3 {
		t.Fatalf("evidence: got %v, %v", e.Kind, err)
	}
	domain := d.keys.Domain()
	instance, err := wire.ParseUUID(r.text("instanceId"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha512.New()
	for _, field := range [][]byte{[]byte("ehsm/reportdata-instance/v2\x00"), domain[:], []byte("core"), challenge32, instance[:], member64(t, r, "hpkePublicKey"), member64(t, r, "replyKey")} {
		sum.Write(binary.BigEndian.AppendUint32(nil, uint32(len(field))))
		sum.Write(field)
	}
	if got := reportData(t, e.Quote); !bytes.Equal(got[:], sum.Sum(nil)) {
		t.Errorf("report data is %x, want %x", got, sum.Sum(nil))
	}
	if r.text("challenge") != text || r.text("role") != "core" || r.text("domainId") != hex.EncodeToString(domain[:]) ||
		r.text("reportDataBinding") != "ehsm/reportdata-instance/v2" || len(r.Result) != 8 {
		t.Errorf("got %v", r.Result)
	}
	if r.answer.Sign != "" || r.answer.Release != 0 {
		t.Errorf("an unsigned request gets a signature %q and a release time %d", r.answer.Sign, r.answer.Release)
	}
	info, _ := h.cores[0].Info(context.Background())
	if info.Instance != instance || !bytes.Equal(info.HPKEKey[:], member64(t, r, "hpkePublicKey")) {
		t.Error("the core describes itself as another instance")
	}
}

// TestInstanceKey has each start make a key of its own, of which the private half
// opens what is sealed to the public one.
func TestInstanceKey(t *testing.T) {
	h, d, _ := newQuoteHost(t)
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	if h.cores[0].instance.current.public == h.cores[1].instance.current.public {
		t.Error("two instances have one key")
	}
	k := h.cores[0].instance.current
	public, err := hpke.MLKEM768X25519().NewPublicKey(k.public[:])
	if err != nil {
		t.Fatal(err)
	}
	private, err := hpke.MLKEM768X25519().NewPrivateKey(k.private.Expose())
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := hpke.Seal(public, hpke.HKDFSHA256(), hpke.AES256GCM(), nil, []byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := hpke.Open(private, hpke.HKDFSHA256(), hpke.AES256GCM(), nil, sealed); err != nil || string(got) != "hello" {
		t.Errorf("Open: got %q, %v", got, err)
	}
}

// TestQuotesAreNoEvidence has a quote for a challenge never pass as evidence for
// it, nor the other way round, and evidence of one instance not as that of
// another.
func TestQuotesAreNoEvidence(t *testing.T) {
	h, d, _ := newQuoteHost(t)
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	other, otherDomain, _ := newQuoteHost(t)
	c := h.enroll()
	domain, foreign := d.keys.Domain(), otherDomain.keys.Domain()
	key, id := h.cores[0].instance.current.public[:], h.cores[0].info.Instance
	wanted := attest.ReportData(attest.UseInstanceKeys, domain, []byte("core"), challenge32, id[:], key, h.cores[0].reply.public)
	text := base64.RawURLEncoding.EncodeToString(challenge32)
	quoteOf := func(h *host, core int, challenge string) [64]byte {
		e, err := attest.DecodeEvidence(member64(t, h.evidence(core, challenge), "evidence"))
		if err != nil {
			t.Fatal(err)
		}
		return reportData(t, e.Quote)
	}
	if quoteOf(h, 0, text) != wanted {
		t.Fatal("evidence is not what is wanted")
	}
	// Challenges that a caller of GenerateQuote might choose in order to have the
	// quote say what evidence says.
	for name, challenge := range map[string][]byte{
		"the same":              challenge32,
		"the text":              []byte(text),
		"report data":           wanted[:],
		"what is hashed for it": []byte("ehsm/reportdata-instance/v1\x00core" + string(challenge32) + string(id[:]) + string(key)),
	} {
		got := reportData(t, member64(t, c.mustDo("GenerateQuote", map[string]any{"challenge": b64(challenge)}), "quote"))
		if got == wanted {
			t.Errorf("a quote for %s passes as evidence", name)
		}
		if got == attest.NativeReportData(challenge, foreign, key) {
			t.Errorf("a quote for %s passes in another domain", name)
		}
		if quoteOf(h, 0, text) == attest.NativeReportData(challenge, domain, key) {
			t.Errorf("evidence passes as a quote for %s", name)
		}
	}
	for name, got := range map[string][64]byte{
		"another instance":  quoteOf(h, 1, text),
		"another domain":    quoteOf(other, 0, text),
		"another challenge": quoteOf(h, 0, base64.RawURLEncoding.EncodeToString(make([]byte, 32))),
	} {
		if got == wanted {
			t.Errorf("evidence of %s passes", name)
		}
	}
}

func TestEvidenceRefused(t *testing.T) {
	h, _, _ := newQuoteHost(t)
	good := base64.RawURLEncoding.EncodeToString(challenge32)
	for name, row := range map[string]struct{ challenge, want string }{
		"none":         {"", "Missing required parameters, The challenge cannot be empty."},
		"31 bytes":     {base64.RawURLEncoding.EncodeToString(challenge32[:31]), "Parameter invalid, The challenge length error."},
		"33 bytes":     {base64.RawURLEncoding.EncodeToString(append(challenge32[:32:32], 0)), "Parameter invalid, The challenge length error."},
		"padded":       {good + "=", "Parameter invalid, The challenge length error."},
		"base64":       {strings.NewReplacer("-", "+", "_", "/").Replace(good), "Parameter invalid, The challenge not a vailed base64 string."},
		"line end":     {base64.RawURLEncoding.EncodeToString(challenge32[:31]) + "\n", "Parameter invalid, The challenge not a vailed base64 string."},
		"trailing bit": {good[:42] + "t", "Parameter invalid, The challenge not a vailed base64 string."},
		"far too long": {strings.Repeat(good, 100), "Parameter invalid, The challenge length error."},
	} {
		want(t, name, h.evidence(0, row.challenge), 400, row.want)
	}
	r := parseReply(t, h.call(0, &wire.Call{Action: "GetEvidence", Body: []byte(good)}))
	want(t, "POST", r, 404, "API Not Found")
}

func TestGenerateQuoteRefused(t *testing.T) {
	h, _, q := newQuoteHost(t)
	c := h.enroll()
	for name, row := range map[string]struct {
		payload map[string]any
		want    string
	}{
		"no payload":     {nil, "Missing required parameters, The challenge cannot be empty."},
		"no challenge":   {map[string]any{}, "Missing required parameters, The challenge cannot be empty."},
		"empty":          {map[string]any{"challenge": ""}, "Missing required parameters, The challenge cannot be empty."},
		"number":         {map[string]any{"challenge": 5}, "Parameter invalid, The challenge must be of string type."},
		"no base64":      {map[string]any{"challenge": "AAA"}, "Parameter invalid, The challenge not a vailed base64 string."},
		"base64url":      {map[string]any{"challenge": "-_-_"}, "Parameter invalid, The challenge not a vailed base64 string."},
		"4097 and more":  {map[string]any{"challenge": strings.Repeat("AAAA", 1025)}, "Parameter invalid, The challenge length error."},
		"under a keyid":  {map[string]any{"keyid": "AAAA"}, "Missing required parameters, The challenge cannot be empty."},
		"in upper case":  {map[string]any{"Challenge": "AAAA"}, "Missing required parameters, The challenge cannot be empty."},
		"array of texts": {map[string]any{"challenge": []string{"AAAA"}}, "Parameter invalid, The challenge must be of string type."},
	} {
		want(t, name, c.do(0, "GenerateQuote", row.payload), 400, row.want)
	}
	asked := map[string]any{"challenge": "AAAA"}
	for name, fail := range map[string]error{
		"quoting enclave": errors.New("no route to the quoting enclave"), "evidence": tee.ErrEvidence, "time": context.DeadlineExceeded,
	} {
		q.fail = fail
		body := c.body(asked)
		want(t, name, c.send(0, "GenerateQuote", body), 500, "Server exception.")
		want(t, name, h.evidence(0, base64.RawURLEncoding.EncodeToString(challenge32)), 500, "Server exception.")
		q.fail = nil
		want(t, name+", sent again", c.send(0, "GenerateQuote", body), 200, "success!")
		want(t, name+", sent once more", c.send(0, "GenerateQuote", body), 400, "Timestamp can't be repeated in 20 minutes")
	}
}

// plain is a platform without evidence.
type plain struct{ tee.Platform }

func TestPlatformWithoutEvidence(t *testing.T) {
	d := newDomain(t)
	d.platform = plain{d.platform}
	h := d.host(t, Limits{})
	want(t, "GenerateQuote", h.enroll().do(0, "GenerateQuote", map[string]any{"challenge": "AAAA"}), 500, "Server exception.")
	want(t, "GetEvidence", h.evidence(0, base64.RawURLEncoding.EncodeToString(challenge32)), 500, "Server exception.")
}

// odd is a platform whose evidence is no quote.
type odd struct {
	tee.Platform
	quote []byte
}

func (o odd) Evidence(context.Context, [64]byte) (attest.Evidence, error) {
	return attest.Evidence{Kind: attest.SGXQuote3, Quote: o.quote}, nil
}

func TestOddEvidence(t *testing.T) {
	for name, row := range map[string]struct {
		size, code int
		message    string
	}{
		"none": {0, 500, "Server exception."}, "too long": {attest.MaxQuote + 1, 500, "Server exception."}, "longest": {attest.MaxQuote, 200, "success!"},
	} {
		d := newDomain(t)
		d.platform = odd{d.platform, make([]byte, row.size)}
		h := d.host(t, Limits{})
		want(t, name, h.enroll().do(0, "GenerateQuote", map[string]any{"challenge": "AAAA"}), row.code, row.message)
		want(t, name+", to a stranger", h.evidence(0, base64.RawURLEncoding.EncodeToString(challenge32)), row.code, row.message)
	}
}

// TestQuotesAreBounded has a platform that does not answer. Strangers and tenants
// have places of their own; further ones are refused at once.
func TestQuotesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _, q := newQuoteHost(t)
		c := h.enroll()
		text := base64.RawURLEncoding.EncodeToString(challenge32)
		tenant := func() reply { return c.do(0, "GenerateQuote", map[string]any{"challenge": "AAAA"}) }
		stranger := func() reply { return h.evidence(0, text) }
		q.wait = make(chan struct{})
		replies := make(chan reply)
		for range maxStrangerQuotes {
			go func() { replies <- stranger() }()
		}
		synctest.Wait()
		want(t, "one stranger more", stranger(), 429, "Too many requests.")
		bodies := make([][]byte, maxTenantQuotes)
		for i := range bodies {
			bodies[i] = c.body(map[string]any{"challenge": "AAAA"})
			go func() { replies <- c.send(0, "GenerateQuote", bodies[i]) }()
		}
		synctest.Wait()
		body := c.body(map[string]any{"challenge": "AAAA"})
		want(t, "one tenant more", c.send(0, "GenerateQuote", body), 429, "Too many requests.")
		close(q.wait)
		for range maxStrangerQuotes + maxTenantQuotes {
			want(t, "one that had a place", <-replies, 200, "success!")
		}
		want(t, "the refused one, sent again", c.send(0, "GenerateQuote", body), 200, "success!")
		q.wait = make(chan struct{}) // for good
		want(t, "a tenant", tenant(), 500, "Server exception.")
		want(t, "a stranger", stranger(), 500, "Server exception.")
	})
}
