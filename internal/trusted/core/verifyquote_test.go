package core

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// signedVerdict is the signature of a verdict by the text of the contract: the
// members sorted, without what is 0.
func signedVerdict(c *tenant, r reply) string {
	text := "mr_enclave=" + r.text("mr_enclave") + "&mr_signer=" + r.text("mr_signer") + "&nonce=" + r.text("nonce") + "&result=true"
	if status, _ := r.Result["tcbStatus"].(float64); status != 0 {
		text += "&tcbStatus=" + big.NewInt(int64(status)).String()
	}
	mac := hmac.New(sha256.New, []byte(c.apikey))
	mac.Write([]byte(text))
	return b64(mac.Sum(nil))
}

func TestVerifyQuote(t *testing.T) {
	h, _, q := newQuoteHost(t)
	c := h.enroll()
	own := member64(t, c.mustDo("GenerateQuote", map[string]any{"challenge": "AAAA"}), "quote")
	mrEnclave, mrSigner := hex.EncodeToString(q.report.MREnclave[:]), hex.EncodeToString(q.report.MRSigner[:])
	policy := c.mustDo("UploadQuotePolicy", map[string]any{"mr_enclave": strings.ToUpper(mrEnclave), "mr_signer": mrSigner}).text("policyId")
	for name, payload := range map[string]map[string]any{
		"a quote of the service":    verifying(own),
		"another quote":             verifying(q.quote(t, func(r *quote.Report) { r.ReportData[0] = 1 })),
		"with a policy":             verifying(own, policy),
		"an empty policy":           verifying(own, ""),
		"with what is not known":    {"quote": b64(own), "nonce": "AAAA", "more": 5},
		"with a long nonce":         {"quote": b64(own), "nonce": strings.Repeat("AAAA", 1024)},
		"with padding after itself": {"quote": b64(own), "nonce": "AA=="},
	} {
		r := c.do(0, "VerifyQuote", payload)
		want(t, name, r, 200, "success!")
		if r.Result["result"] != true || r.Result["tcbStatus"] != 0.0 || r.text("nonce") != payload["nonce"] ||
			r.text("mr_enclave") != mrEnclave || r.text("mr_signer") != mrSigner || len(r.Result) != 6 {
			t.Errorf("%s: got %v", name, r.Result)
		}
		if got, want := r.text("sign"), signedVerdict(c, r); got != want {
			t.Errorf("%s: sign is %s, want %s", name, got, want)
		}
	}
}

// TestVerifyQuoteAsksOnce has the core ask for the collateral of the quote's
// platform, and hold nothing back for it.
func TestVerifyQuoteAsksOnce(t *testing.T) {
	h, _, q := newQuoteHost(t)
	c := h.enroll()
	var asked []wire.CollateralQuery
	b := new(bytes.Buffer)
	stated := q.stated(t)
	b.Write(stated.Append(nil))
	h.collate = func(query wire.CollateralQuery) []byte {
		asked = append(asked, query)
		return b.Bytes()
	}
	c.mustDo("VerifyQuote", verifying(q.quote(t)))
	if want := []wire.CollateralQuery{{FMSPC: q.terms.Platform.FMSPC, CA: wire.PlatformCA}}; !slices.Equal(asked, want) {
		t.Errorf("asked for %v, want %v", asked, want)
	}
	if wire.MaxCollateral != verify.MaxBundle {
		t.Errorf("limit of collateral: got %d, want %d", wire.MaxCollateral, verify.MaxBundle)
	}
	if wire.ProcessorCA != verify.CAProcessor || wire.PlatformCA != verify.CAPlatform {
		t.Error("the CAs have other names")
	}
}

// TestVerifyQuoteTexts has payloads that are refused before a quote is looked at.
func TestVerifyQuoteTexts(t *testing.T) {
	h, _, q := newQuoteHost(t)
	c, other := h.enroll(), h.enroll()
	good := b64(q.quote(t))
	foreign := other.mustDo("UploadQuotePolicy", policyOf([32]byte{1}, [32]byte{2})).text("policyId")
	for name, row := range map[string]struct {
		payload map[string]any
		want    string
	}{
		"no payload":     {nil, "Missing required parameters, The quote cannot be empty."},
		"no nonce":       {map[string]any{"quote": good}, "Missing required parameters, The nonce cannot be empty."},
		"empty nonce":    {map[string]any{"quote": good, "nonce": ""}, "Missing required parameters, The nonce cannot be empty."},
		"no quote":       {map[string]any{"nonce": "AAAA"}, "Missing required parameters, The quote cannot be empty."},
		"quote no text":  {map[string]any{"quote": 1, "nonce": "AAAA"}, "Parameter invalid, The quote must be of string type."},
		"quote no b64":   {map[string]any{"quote": "AAA", "nonce": "AAAA"}, "Parameter invalid, The quote not a vailed base64 string."},
		"nonce no b64":   {map[string]any{"quote": good, "nonce": "nonce"}, "Parameter invalid, The nonce not a vailed base64 string."},
		"long nonce":     {map[string]any{"quote": good, "nonce": strings.Repeat("AAAA", 1025)}, "Parameter invalid, The nonce length error."},
		"10928":          {map[string]any{"quote": strings.Repeat("AAAA", 2732), "nonce": "AAAA"}, "Parameter invalid, The quote length error."},
		"8193 bytes":     {verifying(make([]byte, 8193)), "The quote's length is invalid."},
		"policy too":     {verifying(make([]byte, 8193), foreign), "The quote's length is invalid."},
		"short policy":   {verifying(q.quote(t), "abc"), "Parameter invalid, The policyId length error."},
		"upper case":     {verifying(q.quote(t), strings.ToUpper(foreign)), "Parameter invalid, The policyId format wrong."},
		"unknown policy": {verifying(q.quote(t), wire.NewUUID().String()), "Invalid  policyId."},
		"no UUID":        {verifying(q.quote(t), "zzzzzzzz-zzzz-zzzz-zzzz-zzzzzzzzzzzz"), "Invalid  policyId."},
		"foreign policy": {verifying(q.quote(t), foreign), "Invalid  policyId."},
		"a key's id":     {verifying(q.quote(t), c.createKey()), "Invalid  policyId."},
	} {
		want(t, name, c.do(0, "VerifyQuote", row.payload), 400, row.want)
	}
}

// section changes a byte of a quote.
func section(at int) func([]byte) []byte {
	return func(b []byte) []byte { b[at] ^= 1; return b }
}

func resized(b []byte, n int) []byte { return append(b, make([]byte, max(0, n-len(b)))...)[:n] }

// TestQuotesRefused has a quote, or what is said about it, changed in one way
// each. The client hears the same of all; the audit trail has the reason.
func TestQuotesRefused(t *testing.T) {
	d, q := newQuoteDomain(t)
	good := func(b []byte) []byte { return b }
	// From the layout of a quote: header 48, report 384, length 4, signature 64,
	// key 64, report of the quoting enclave 384, its signature 64.
	const atKey, atQEReport, atQESignature, atAuth = 500, 564, 948, 1014
	for _, row := range []struct {
		name   string
		change func(b []byte) []byte
		terms  func(*issue.Terms)
		report func(*quote.Report)
		reason string
	}{
		{"empty but for a byte", func(b []byte) []byte { return b[:1] }, nil, nil, "quote is malformed"},
		{"cut short by a byte", func(b []byte) []byte { return b[:len(b)-1] }, nil, nil, "quote is malformed"},
		{"without signature", func(b []byte) []byte { return b[:432] }, nil, nil, "quote is malformed"},
		{"followed by a byte", func(b []byte) []byte { return append(b, 0) }, nil, nil, "quote is malformed"},
		{"longest, padded", func(b []byte) []byte { return resized(b, 8192) }, nil, nil, "quote is malformed"},
		{"version 2", func(b []byte) []byte { b[0] = 2; return b }, nil, nil, "quote is malformed"},
		{"version 4", func(b []byte) []byte { b[0] = 4; return b }, nil, nil, "quote is malformed"},
		{"version 4 of TDX", func(b []byte) []byte { b[0], b[4] = 4, 0x81; return b }, nil, nil, "TDX quote: not built in"},
		{"version 5 of TDX", func(b []byte) []byte { b[0], b[4] = 5, 0x81; return b }, nil, nil, "TDX quote: not built in"},
		{"an SNP report", func([]byte) []byte { return binary.LittleEndian.AppendUint32(nil, 3)[:4:4] }, nil, nil, "quote is malformed"},
		{"an SNP report in full", func([]byte) []byte { return resized([]byte{3}, 1184) }, nil, nil, "SEV-SNP report: not built in"},
		{"another key type", func(b []byte) []byte { b[2] = 3; return b }, nil, nil, "quote is malformed"},
		{"another vendor", section(12), nil, nil, "quote is malformed"},
		{"user data", section(30), nil, nil, "quote is not genuine: quote-signature"},
		{"report", section(48 + 64), nil, nil, "quote is not genuine: quote-signature"},
		{"report data", section(400), nil, nil, "quote is not genuine: quote-signature"},
		{"signature", section(436), nil, nil, "quote is not genuine: quote-signature"},
		{"attestation key", section(atKey), nil, nil, "quote is not genuine: qe-report"},
		{"report of the QE", section(atQEReport + 64), nil, nil, "quote is not genuine: qe-report"},
		{"signature of the QE", section(atQESignature), nil, nil, "quote is not genuine: qe-report"},
		{"authentication data", section(atAuth), nil, nil, "quote is not genuine: qe-report"},
		{"certification type", func(b []byte) []byte { b[atAuth+32] = 6; return b }, nil, nil, "quote is malformed"},
		{"PEM", section(atAuth + 32 + 6 + 100), nil, nil, "quote is malformed"},
		{"debug", good, nil, func(r *quote.Report) { r.Attributes.Flags |= quote.FlagDebug }, "quote of a debug enclave"},
		{"enclave of zeros", good, nil, func(r *quote.Report) { r.MREnclave = [32]byte{} }, "quote is not accepted"},
		{"revoked PCK", good, func(x *issue.Terms) { x.RevokedPCKs = []*big.Int{q.machine.PCK.Cert.SerialNumber} }, nil, "quote is not genuine: crl"},
		{"revoked CA", good, func(x *issue.Terms) { x.RevokedCAs = []*big.Int{q.fleet.PCKCA.Cert.SerialNumber} }, nil, "quote is not genuine: crl"},
		{"revoked platform", good, func(x *issue.Terms) { x.Status = verify.Revoked }, nil, "quote is not genuine: tcb-level"},
		{"revoked QE", good, func(x *issue.Terms) { x.QEStatus = verify.Revoked }, nil, "quote is not genuine: qe-identity"},
		{"expired collateral", good, func(x *issue.Terms) { x.Next = x.Issued.Add(time.Hour) }, nil, "quote is not genuine: crl"},
		{"collateral of tomorrow", good, func(x *issue.Terms) { x.Issued = noon2026.Add(day) }, nil, "quote is not genuine: crl"},
		{"another FMSPC", good, func(x *issue.Terms) { x.Platform.FMSPC[0] ^= 1 }, nil, "quote is not genuine: tcb-level"},
		{"out of date", good, func(x *issue.Terms) { x.Status, x.Advisories = verify.OutOfDate, []string{"INTEL-SA-00615"} }, nil, "TCB status is not accepted"},
		{"configuration needed", good, func(x *issue.Terms) { x.Status = verify.ConfigurationNeeded }, nil, "TCB status is not accepted"},
		{"hardening needed", good, func(x *issue.Terms) { x.Status, x.Advisories = verify.SWHardeningNeeded, []string{"INTEL-SA-00615"} }, nil, "TCB status is not accepted"},
		{"QE out of date", good, func(x *issue.Terms) { x.QEStatus = verify.OutOfDate }, nil, "TCB status is not accepted"},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := d.host(t, Limits{})
			c := h.enroll()
			h.serves(q.stated(t, func(x *issue.Terms) {
				if row.terms != nil {
					row.terms(x)
				}
			}))
			b := q.quote(t, func(r *quote.Report) {
				if row.report != nil {
					row.report(r)
				}
			})
			want(t, row.name, c.do(0, "VerifyQuote", verifying(row.change(b))), 500, "Server exception.")
			if got := reasons(t, h); !slices.Contains(got, "VerifyQuote 500 "+row.reason) {
				t.Errorf("the trail has %v, want %q", got, row.reason)
			}
		})
	}
}

func TestCollateralRefused(t *testing.T) {
	d, q := newQuoteDomain(t)
	h := d.host(t, Limits{})
	c := h.enroll()
	stated := q.stated(t)
	encoded := stated.Append(nil)
	for name, row := range map[string]struct {
		collateral []byte
		reason     string
	}{
		"none":               {nil, "no collateral for the quote"},
		"empty":              {[]byte{}, "no collateral for the quote"},
		"page of an error":   {[]byte("<html>"), "collateral is malformed"},
		"cut short":          {encoded[:len(encoded)-1], "collateral is malformed"},
		"followed by a byte": {append(bytes.Clone(encoded), 0), "collateral is malformed"},
	} {
		h.collate = func(wire.CollateralQuery) []byte { return row.collateral }
		want(t, name, c.do(0, "VerifyQuote", verifying(q.quote(t))), 500, "Server exception.")
		if got := reasons(t, h); got[len(got)-1] != "VerifyQuote 500 "+row.reason {
			t.Errorf("%s: the trail has %q, want %q", name, got[len(got)-1], row.reason)
		}
	}
	call := wire.Call{Action: "VerifyQuote", Body: c.body(verifying(q.quote(t))), Collated: true, Collateral: make([]byte, wire.MaxCollateral+1)}
	if _, err := h.try(0, &call); err == nil {
		t.Error("collateral over the limit is taken")
	}
}

// TestPolicies has quotes of other enclaves and signers.
func TestPolicies(t *testing.T) {
	h, _, q := newQuoteHost(t)
	c := h.enroll()
	for name, row := range map[string]struct {
		enclave, signer [32]byte
		code            int
		message, reason string
	}{
		"this one":           {q.report.MREnclave, q.report.MRSigner, 200, "success!", "ok"},
		"another enclave":    {[32]byte{9}, q.report.MRSigner, 500, "Server exception.", "quote of another enclave"},
		"another signer":     {q.report.MREnclave, [32]byte{9}, 500, "Server exception.", "quote of another signer"},
		"exchanged":          {q.report.MRSigner, q.report.MREnclave, 500, "Server exception.", "quote of another enclave"},
		"zeros":              {[32]byte{}, [32]byte{}, 500, "Server exception.", "quote of another enclave"},
		"zeros as a signer":  {q.report.MREnclave, [32]byte{}, 500, "Server exception.", "quote of another signer"},
		"differ in one byte": {q.report.MREnclave, flipped(q.report.MRSigner), 500, "Server exception.", "quote of another signer"},
	} {
		id := c.mustDo("UploadQuotePolicy", policyOf(row.enclave, row.signer)).text("policyId")
		want(t, name, c.do(0, "VerifyQuote", verifying(q.quote(t), id)), row.code, row.message)
		if got := reasons(t, h); !strings.HasSuffix(got[len(got)-1], row.reason) {
			t.Errorf("%s: the trail has %q, want %q", name, got[len(got)-1], row.reason)
		}
	}
}

func flipped(b [32]byte) [32]byte { b[31] ^= 1; return b }

func policyOf(enclave, signer [32]byte) map[string]any {
	return map[string]any{"mr_enclave": hex.EncodeToString(enclave[:]), "mr_signer": hex.EncodeToString(signer[:])}
}

// TestAcceptedStatuses has each status accepted by the genesis, and told by the
// number of Intel's library.
func TestAcceptedStatuses(t *testing.T) {
	d, q := newQuoteDomain(t)
	const advisory = "INTEL-SA-00615"
	for status, number := range map[verify.Status]float64{
		verify.UpToDate: 0, verify.ConfigurationNeeded: 0xa001, verify.OutOfDate: 0xa002, verify.OutOfDateConfigurationNeeded: 0xa003,
		verify.SWHardeningNeeded: 0xa007, verify.ConfigurationAndSWHardeningNeeded: 0xa008,
	} {
		terms := func(x *issue.Terms) {
			if x.Status = status; status != verify.UpToDate {
				x.Advisories = []string{advisory}
			}
		}
		accepting := d
		if status != verify.UpToDate {
			accepting.settings.Accept = accepts(status.String(), advisory)
		}
		h := accepting.host(t, Limits{})
		h.serves(q.stated(t, terms))
		c := h.enroll()
		r := c.do(0, "VerifyQuote", verifying(q.quote(t)))
		want(t, status.String(), r, 200, "success!")
		if r.Result["tcbStatus"] != number || r.text("sign") != signedVerdict(c, r) {
			t.Errorf("%v: got %v", status, r.Result)
		}
		if status == verify.UpToDate {
			continue
		}
		h.serves(q.stated(t, terms, func(x *issue.Terms) { x.Advisories = append(x.Advisories, "INTEL-SA-00657") }))
		want(t, status.String()+" for another cause too", c.do(0, "VerifyQuote", verifying(q.quote(t))), 500, "Server exception.")
	}
	if _, err := tcbStatus(verify.Revoked); err == nil {
		t.Error("Revoked has a number")
	}
}

func TestLeastEvaluationNumber(t *testing.T) {
	d, q := newQuoteDomain(t)
	for least, code := range map[uint32]int{19: 200, 20: 200, 21: 500} {
		d.settings.MinEvaluation = least
		h := d.host(t, Limits{})
		h.serves(q.stated(t))
		if r := h.enroll().do(0, "VerifyQuote", verifying(q.quote(t))); r.Code != code {
			t.Errorf("least number %d: got %d, want %d", least, r.Code, code)
		}
	}
}

// TestRoots has settings that no core starts with.
func TestRoots(t *testing.T) {
	d, q := newQuoteDomain(t)
	intel := verify.IntelRoot().Raw
	for name, edit := range map[string]func(*Config){
		"simulated root where none is allowed": func(c *Config) { c.Settings.AllowSim, c.Platform = false, hardware{q} },
		"root that is not marked":              func(c *Config) { c.Settings.SimRoot = intel },
		"root that is no certificate":          func(c *Config) { c.Settings.SimRoot = []byte("root") },
		"unknown status":                       func(c *Config) { c.Settings.Accept = accepts("Fine", "INTEL-SA-00615") },
	} {
		cfg := Config{Platform: q, Keys: d.keys, Settings: d.settings}
		edit(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: the core starts", name)
		}
	}
}

// TestIntelIsNotTrusted has a domain that names no manufacturer.
func TestIntelIsNotTrusted(t *testing.T) {
	d := newDomainAt(t, time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC))
	d.settings.TrustRoots, d.settings.Accept = nil, accepts("SWHardeningNeeded", "INTEL-SA-00615")
	h := d.hostAt(t, Limits{}, time.Date(2025, 8, 20, 0, 0, 0, 0, time.UTC))
	h.serves(automata(t))
	r := h.enroll().do(0, "VerifyQuote", verifying(dcapVector(t, "automata/quotev3.hex")))
	want(t, "quote of Intel's", r, 500, "Server exception.")
}

// hardware is a platform that is not simulated.
type hardware struct{ *quoter }

func (hardware) Simulated() bool { return false }
