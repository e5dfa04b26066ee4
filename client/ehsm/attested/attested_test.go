package attested

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"crypto/x509"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

func TestVerify(t *testing.T) {
	s := newService(t)
	r, err := s.verify(s.verifier())
	if err != nil {
		t.Fatal(err)
	}
	if !r.Simulated || r.Debug || !r.Wanted || r.Program != "core" || r.Machine != "" || r.Kind != "SGX quote v3" ||
		r.TCBStatus != "UpToDate" || r.Evaluation != 20 || !r.Revocation || !r.At.Equal(testNow) {
		t.Errorf("got %+v", r)
	}
	if r.Measurement != "aa"+strings.Repeat("00", 31) || r.Signer != "bb"+strings.Repeat("00", 31) || r.Product != 1 || r.SVN != 2 {
		t.Errorf("program: got %+v", r)
	}
	if r.DomainID != s.domain || !r.DomainPinned || r.Instance != instanceText || !bytes.Equal(r.HPKEPublicKey, s.key) {
		t.Errorf("identity: got %+v", r)
	}
	for _, word := range []string{"SIMULATED", `as "core" on any machine`, "UpToDate", "as expected", instanceText, "until 2026-03-02"} {
		if !strings.Contains(r.String(), word) {
			t.Errorf("%q is not in:\n%s", word, r)
		}
	}
}

// The ways in which a verifier may be told to accept more, one at a time.
func TestVerifyAcceptsWhatItIsTold(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*service, *Verifier)
		holds  func(*Report) bool
	}{
		{"any domain", func(_ *service, v *Verifier) { v.Domain, v.AnyDomain = [32]byte{}, true }, func(r *Report) bool { return !r.DomainPinned }},
		{"no policy", func(_ *service, v *Verifier) { v.Policy, v.InsecureSkipPolicy = nil, true }, func(r *Report) bool { return !r.Wanted }},
		{"no policy, debug", func(s *service, v *Verifier) {
			s.enclave.Attributes.Flags |= quote.FlagDebug
			v.Policy, v.InsecureSkipPolicy = nil, true
		}, func(r *Report) bool { return r.Debug && strings.Contains(r.String(), "DEBUG") }},
		{"the policy allows simulation", func(s *service, v *Verifier) { v.AllowSim, v.Policy = false, policy(t, `,"allow_sim":true`) }, func(r *Report) bool { return r.Simulated }},
		{"it has a reply key", func(*service, *Verifier) {}, func(r *Report) bool { return bytes.Equal(r.ReplyKey, bytes.Repeat([]byte{7}, 32)) }},
		{"of before there were reply keys", func(s *service, v *Verifier) { s.replyKey = nil }, func(r *Report) bool { return len(r.ReplyKey) == 0 }},
		{"the root is given", func(s *service, v *Verifier) { v.Roots = []*x509.Certificate{s.fleet.Root.Cert} }, func(r *Report) bool { return r.Simulated }},
		{"collateral is given", func(s *service, v *Verifier) {
			v.Collateral = s.collateral()
			s.terms.Next = testNow.Add(-time.Minute) // what it would offer
		}, func(r *Report) bool { return r.Expires.After(testNow) }},
		{"an advisory is accepted", func(s *service, v *Verifier) {
			s.terms.Status, s.terms.Advisories = verify.SWHardeningNeeded, []string{"SIM-SA-1"}
			v.Policy = policy(t, `,"accept":[{"status":"SWHardeningNeeded","advisory":"SIM-SA-1","reason":"test"}]`)
		}, func(r *Report) bool {
			return r.TCBStatus == "SWHardeningNeeded" && strings.Contains(r.String(), "SIM-SA-1")
		}},
	} {
		s := newService(t)
		v := s.verifier()
		row.change(s, v)
		if r, err := s.verify(v); err != nil || !row.holds(r) {
			t.Errorf("%s: got %+v, %v", row.name, r, err)
		}
	}
}

// A hostile host, step by step.
func TestVerifyRefuses(t *testing.T) {
	otherDomain, otherInstance := [32]byte{0xff}, [16]byte{0xff}
	answer := func(path string, status int, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == path {
				w.WriteHeader(status)
				io.WriteString(w, body)
			}
			return r.URL.Path == path
		}
	}
	evidence := func(kind attest.Kind, quote []byte) func(*api.GetEvidenceResult) {
		return func(a *api.GetEvidenceResult) { a.Evidence = attest.Evidence{Kind: kind, Quote: quote}.Append(nil) }
	}
	for _, row := range []struct {
		name   string
		change func(*service, *Verifier)
		kind   error
		step   string
	}{
		// What the evidence binds.
		{"old challenge", func(s *service, _ *Verifier) {
			s.bind = func([]byte) [64]byte { return s.honest(make([]byte, 32)) }
		}, ErrChallenge, "report-data"},
		{"other use", func(s *service, _ *Verifier) {
			s.bind = func(c []byte) [64]byte {
				return attest.ReportData(attest.UseChannel, s.domain, []byte("core"), c, s.instance[:], s.key)
			}
		}, ErrChallenge, "report-data"},
		{"other role", func(s *service, _ *Verifier) {
			s.bind = func(c []byte) [64]byte {
				return attest.ReportData(attest.UseInstanceKeys, s.domain, []byte("dkeycache"), c, s.instance[:], s.key, s.replyKey)
			}
		}, ErrChallenge, "report-data"},
		{"other domain is bound", func(s *service, _ *Verifier) {
			s.bind = func(c []byte) [64]byte {
				return attest.ReportData(attest.UseInstanceKeys, otherDomain, []byte("core"), c, s.instance[:], s.key, s.replyKey)
			}
		}, ErrChallenge, "report-data"},
		{"other instance is bound", func(s *service, _ *Verifier) {
			s.bind = func(c []byte) [64]byte {
				return attest.ReportData(attest.UseInstanceKeys, s.domain, []byte("core"), c, otherInstance[:], s.key, s.replyKey)
			}
		}, ErrChallenge, "report-data"},
		{"key of the host", func(s *service, _ *Verifier) {
			host := newService(t).key
			s.change = func(a *api.GetEvidenceResult) { a.HPKEPublicKey = host }
		}, ErrChallenge, "report-data"},
		{"reply key of the host", func(s *service, _ *Verifier) {
			s.change = func(a *api.GetEvidenceResult) { a.ReplyKey = bytes.Repeat([]byte{8}, 32) }
		}, ErrChallenge, "report-data"},
		{"reply key that is not bound", func(s *service, _ *Verifier) {
			s.replyKey = nil
			s.change = func(a *api.GetEvidenceResult) {
				a.ReplyKey, a.ReportDataBinding = bytes.Repeat([]byte{8}, 32), api.BindingInstanceKeys
			}
		}, ErrChallenge, "report-data"},
		{"as one without a reply key", func(s *service, _ *Verifier) {
			s.change = func(a *api.GetEvidenceResult) { a.ReportDataBinding = api.BindingInstance }
		}, ErrChallenge, "report-data"},
		{"no reply key", func(s *service, _ *Verifier) { s.change = func(a *api.GetEvidenceResult) { a.ReplyKey = nil } }, ErrNoEvidence, "answer"},
		{"native quote", func(s *service, _ *Verifier) {
			s.bind = func(c []byte) [64]byte { return attest.NativeReportData(c, s.domain, s.key) }
		}, ErrChallenge, "report-data"},
		{"nothing is bound", func(s *service, _ *Verifier) { s.bind = func([]byte) [64]byte { return [64]byte{} } }, ErrChallenge, "report-data"},
		// What the answer says.
		{"challenge of another", func(s *service, _ *Verifier) {
			s.change = func(a *api.GetEvidenceResult) { a.Challenge = strings.Repeat("A", 43) }
		}, ErrChallenge, "challenge"},
		{"no challenge", func(s *service, _ *Verifier) { s.change = func(a *api.GetEvidenceResult) { a.Challenge = "" } }, ErrChallenge, "challenge"},
		{"says another role", func(s *service, _ *Verifier) { s.change = func(a *api.GetEvidenceResult) { a.Role = "dkeyserver" } }, ErrChallenge, "binding"},
		{"says another binding", func(s *service, _ *Verifier) {
			s.change = func(a *api.GetEvidenceResult) { a.ReportDataBinding = api.BindingNative }
		}, ErrChallenge, "binding"},
		{"a domain of its own", func(s *service, v *Verifier) { s.domain = otherDomain }, ErrDomain, "domain"},
		{"says the expected domain", func(s *service, v *Verifier) {
			expected := hex.EncodeToString(s.domain[:])
			s.domain = otherDomain
			s.change = func(a *api.GetEvidenceResult) { a.DomainID = expected }
		}, ErrChallenge, "report-data"},
		{"domain in upper case", func(s *service, _ *Verifier) {
			s.change = func(a *api.GetEvidenceResult) { a.DomainID = strings.ToUpper(a.DomainID) }
		}, ErrNoEvidence, "answer"},
		{"no domain", func(s *service, _ *Verifier) { s.change = func(a *api.GetEvidenceResult) { a.DomainID = "" } }, ErrNoEvidence, "answer"},
		{"instance is no UUID", func(s *service, _ *Verifier) {
			s.change = func(a *api.GetEvidenceResult) { a.InstanceID = strings.ReplaceAll(instanceText, "-", "") }
		}, ErrNoEvidence, "answer"},
		{"key is none", func(s *service, _ *Verifier) {
			s.change = func(a *api.GetEvidenceResult) { a.HPKEPublicKey = []byte("key") }
		}, ErrNoEvidence, "answer"},
		// The evidence itself.
		{"no evidence", func(s *service, _ *Verifier) { s.change = func(a *api.GetEvidenceResult) { a.Evidence = nil } }, ErrNoEvidence, "parse"},
		{"unknown kind", func(s *service, _ *Verifier) { s.change = evidence(9, []byte("quote")) }, ErrNoEvidence, "parse"},
		{"quote is rubbish", func(s *service, _ *Verifier) { s.change = evidence(attest.SGXQuote3, []byte("quote")) }, ErrNotGenuine, "parse"},
		{"SGX as TDX", func(s *service, _ *Verifier) { s.change = evidence(attest.TDXQuote4, s.quote([64]byte{})) }, ErrNotGenuine, "parse"},
		{"SGX as SEV-SNP", func(s *service, _ *Verifier) { s.change = evidence(attest.SNPReport, s.quote([64]byte{})) }, ErrNoCollateral, "collateral"},
		{"a byte of the quote", func(s *service, _ *Verifier) {
			s.change = func(a *api.GetEvidenceResult) { a.Evidence[6+48+64] ^= 1 }
		}, ErrNotGenuine, "quote-signature"},
		{"simulated", func(_ *service, v *Verifier) { v.AllowSim = false }, ErrSimulated, "pck-chain"},
		{"simulated, root given", func(s *service, v *Verifier) {
			v.AllowSim, v.Roots = false, []*x509.Certificate{s.fleet.Root.Cert}
		}, ErrSimulated, "pck-chain"},
		{"another fleet than the given root", func(s *service, v *Verifier) {
			v.Roots = []*x509.Certificate{newService(t).fleet.Root.Cert}
		}, ErrNotGenuine, "pck-chain"},
		{"TCB revoked", func(s *service, _ *Verifier) { s.terms.Status = verify.Revoked }, ErrNotGenuine, "tcb-level"},
		// Collateral.
		{"collateral of another fleet", func(s *service, v *Verifier) { v.Collateral = newService(t).collateral() }, ErrNotGenuine, "crl"},
		{"collateral is old", func(s *service, _ *Verifier) { s.terms.Next = testNow.Add(-time.Minute) }, ErrStale, "crl"},
		{"the clock is behind", func(s *service, _ *Verifier) { s.terms.Issued = testNow.Add(time.Minute) }, ErrStale, "crl"},
		{"certificates are old", func(_ *service, v *Verifier) { v.Now = func() time.Time { return testNow.AddDate(40, 0, 0) } }, ErrStale, "pck-chain"},
		{"no collateral", func(s *service, _ *Verifier) {
			s.answer = answer("/attestation/collateral", 404, `{"error":"no source is configured"}`)
		}, ErrNoCollateral, "collateral"},
		{"collateral is rubbish", func(s *service, _ *Verifier) { s.answer = answer("/attestation/collateral", 200, `<html>`) }, ErrNoCollateral, "collateral"},
		{"collateral with a member twice", func(s *service, _ *Verifier) {
			s.answer = answer("/attestation/collateral", 200, `{"tcb_info":"","tcb_info":""}`)
		}, ErrNoCollateral, "collateral"},
		// What is genuine and not wanted.
		{"other signer", func(s *service, _ *Verifier) { s.enclave.MRSigner[0] ^= 1 }, ErrNotWanted, "policy"},
		{"other product", func(s *service, _ *Verifier) { s.enclave.ISVProdID++ }, ErrNotWanted, "policy"},
		{"older version", func(s *service, _ *Verifier) { s.enclave.ISVSVN-- }, ErrNotWanted, "policy"},
		{"debug", func(s *service, _ *Verifier) { s.enclave.Attributes.Flags |= quote.FlagDebug }, ErrNotWanted, "policy"},
		{"out of date", func(s *service, _ *Verifier) { s.terms.Status = verify.OutOfDate }, ErrNotWanted, "policy"},
		{"old evaluation", func(s *service, v *Verifier) { v.Policy = policy(t, `,"min_evaluation_number":21`) }, ErrNotWanted, "policy"},
		{"policy for TDX", func(s *service, v *Verifier) { v.Policy = tdxPolicy(t, strings.Repeat("ab", 48)) }, ErrNotWanted, "policy"},
		// No answer at all.
		{"the service refuses", func(s *service, _ *Verifier) {
			s.answer = answer("/ehsm", 200, `{"code":500,"message":"Server exception.","result":{}}`)
		}, ErrNoEvidence, "answer"},
		{"no answer of the API", func(s *service, _ *Verifier) { s.answer = answer("/ehsm", 200, `hello`) }, ErrNoEvidence, "answer"},
		{"HTTP status 404", func(s *service, _ *Verifier) { s.answer = answer("/ehsm", 404, `{}`) }, ErrNoEvidence, "answer"},
		// The verifier.
		{"no policy", func(_ *service, v *Verifier) { v.Policy = nil }, ErrConfig, "configuration"},
		{"policy and none", func(_ *service, v *Verifier) { v.InsecureSkipPolicy = true }, ErrConfig, "configuration"},
		{"no domain", func(_ *service, v *Verifier) { v.Domain = [32]byte{} }, ErrConfig, "configuration"},
		{"domain and any", func(_ *service, v *Verifier) { v.AnyDomain = true }, ErrConfig, "configuration"},
	} {
		s := newService(t)
		v := s.verifier()
		row.change(s, v)
		r, err := s.verify(v)
		var e *Error
		if r != nil || !errors.Is(err, row.kind) || !errors.As(err, &e) || e.Step != row.step {
			t.Errorf("%s: got %v, want %v in step %s", row.name, err, row.kind, row.step)
		} else if strings.Contains(err.Error(), "%!") {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}

// A root that is not given is taken only if all that stands on it is marked.
func TestUnmarkedRootIsNotTaken(t *testing.T) {
	s := newService(t)
	s.machine.Chain = bytes.Clone(s.machine.Chain)
	t.Run("document signer of another fleet", func(t *testing.T) {
		c, err := s.fleet.Collateral(s.terms)
		if err != nil {
			t.Fatal(err)
		}
		c.QEIdentityIssuerChain = quote.EncodeChain(verify.IntelRoot().Raw, verify.IntelRoot().Raw)
		if _, ok := simRoot(s.quote([64]byte{}), &c); ok {
			t.Error("an unmarked certificate was taken for a simulated one")
		}
	})
	for name, organizations := range map[string][]string{"none": nil, "other": {"Intel Corporation"}, "two": {verify.SimulationOrganization, "Intel Corporation"}} {
		template := issue.SignerTemplate(testNow)
		template.Subject.Organization = organizations
		a, err := s.fleet.Root.Issue(template)
		if err != nil {
			t.Fatal(err)
		}
		if marked(a.Cert) {
			t.Errorf("%s: taken for marked", name)
		}
	}
	template := issue.CATemplate(testNow)
	template.Subject.Organization = []string{"Intel Corporation"}
	ca, err := s.fleet.Root.Issue(template)
	if err != nil {
		t.Fatal(err)
	}
	a, err := ca.Issue(issue.SignerTemplate(testNow))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(a.Cert.Subject.Organization, verify.SimulationOrganization) || marked(a.Cert) {
		t.Error("of another issuer: taken for marked")
	}
}

func TestChallengesAreFresh(t *testing.T) {
	s, seen := newService(t), map[string]bool{}
	s.change = func(a *api.GetEvidenceResult) { seen[a.Challenge] = true }
	c, v := s.client(), s.verifier()
	for range 3 {
		if _, err := v.Verify(context.Background(), c); err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) != 3 || s.collateralAsked.Load() != 3 {
		t.Errorf("%d challenges, collateral asked for %d times", len(seen), s.collateralAsked.Load())
	}
}

func TestVerifyNative(t *testing.T) {
	s := newService(t)
	challenge := []byte("a challenge of mine")
	good := func() Native {
		return Native{challenge, s.quote(attest.NativeReportData(challenge, s.domain, s.key)), s.domain, s.key}
	}
	v := s.verifier()
	r, err := v.VerifyNative(t.Context(), s.client(), good())
	if err != nil || r.Instance != "" || !r.Wanted || !bytes.Equal(r.HPKEPublicKey, s.key) {
		t.Fatalf("got %+v, %v", r, err)
	}
	v.Collateral = s.collateral()
	if _, err := v.VerifyNative(t.Context(), nil, good()); err != nil {
		t.Errorf("without a client: %v", err)
	}
	for name, row := range map[string]struct {
		change func(*Native)
		kind   error
	}{
		"other challenge": {func(n *Native) { n.Challenge = []byte("another") }, ErrChallenge},
		"no challenge":    {func(n *Native) { n.Challenge = nil }, ErrChallenge},
		"long challenge": {func(n *Native) {
			n.Challenge = make([]byte, api.MaxChallenge+1)
			n.Quote = s.quote(attest.NativeReportData(n.Challenge, s.domain, s.key))
		}, ErrChallenge},
		"other domain":      {func(n *Native) { n.DomainID[0] ^= 1 }, ErrDomain},
		"other key":         {func(n *Native) { n.HPKEPublicKey = newService(t).key }, ErrChallenge},
		"no key":            {func(n *Native) { n.HPKEPublicKey = nil }, ErrNoEvidence},
		"no quote":          {func(n *Native) { n.Quote = nil }, ErrNoEvidence},
		"evidence":          {func(n *Native) { n.Quote = s.quote(s.honest(challenge)) }, ErrChallenge},
		"channel evidence":  {func(n *Native) { n.Quote = s.quote(attest.ReportData(attest.UseChannel, s.domain, challenge)) }, ErrChallenge},
		"quote of no kind":  {func(n *Native) { n.Quote = []byte("quote of no kind") }, ErrNoEvidence},
		"damaged signature": {func(n *Native) { n.Quote[440] ^= 1 }, ErrNotGenuine},
	} {
		n := good()
		row.change(&n)
		if r, err := v.VerifyNative(t.Context(), nil, n); r != nil || !errors.Is(err, row.kind) {
			t.Errorf("%s: got %v, want %v", name, err, row.kind)
		}
	}
	v.Collateral = nil
	if _, err := v.VerifyNative(t.Context(), nil, good()); !errors.Is(err, ErrNoCollateral) {
		t.Errorf("neither client nor collateral: got %v", err)
	}
}

// A failure of the connection is no verdict.
func TestUnreachableServiceIsNoVerdict(t *testing.T) {
	c, err := ehsm.New(ehsm.Config{URL: "http://127.0.0.1:1", Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	var verdict *Error
	if _, err := newService(t).verifier().Verify(t.Context(), c); err == nil || errors.As(err, &verdict) {
		t.Errorf("got %v", err)
	}
}

const testdata = "../../../internal/attest/"

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(testdata + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func tdxPolicy(t testing.TB, mrtd string) *Policy {
	t.Helper()
	fields := fmt.Sprintf(`"mrtd":%q,"mrconfigid":"%096d"`, mrtd, 0)
	for i := range 4 {
		fields += fmt.Sprintf(`,"rtmr%d":"%096d"`, i, 0)
	}
	p, err := ParsePolicy([]byte(`{"format":"ehsm-tdx-policy/v1","any_platform":true,"guests":[{"name":"guest",` + fields + `}]}`))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Evidence of real platforms, for what each binds. No policy here wants it, as
// each is for another program or another kind of TEE.
func TestRealEvidence(t *testing.T) {
	at := func(text string) func() time.Time {
		now, err := time.Parse(time.DateOnly, text)
		if err != nil {
			t.Fatal(err)
		}
		return func() time.Time { return now }
	}
	sgx, tdx := read(t, "dcap/testdata/phala/sgx_quote"), read(t, "dcap/testdata/phala/tdx_quote")
	for _, row := range []struct {
		name, measurement, status string
		raw, reportData           []byte
		v                         Verifier
	}{
		{"SGX", "33d8736db756ed4997e04ba358d27833188f1932ff7b1d156904d3f560452fbb", "ConfigurationAndSWHardeningNeeded", sgx, sgx[48+320 : 48+384],
			Verifier{Collateral: read(t, "dcap/testdata/phala/sgx_quote_collateral.json"), Now: at("2025-06-25")}},
		{"TDX", "91eb2b44d141d4ece09f0c75c2c53d247a3c68edd7fafe8a3520c942a604a407de03ae6dc5f87f27428b2538873118b7", "UpToDate", tdx, tdx[48+520 : 48+584],
			Verifier{Collateral: read(t, "tdx/testdata/tdx_quote_collateral.json"), Now: at("2025-06-21")}},
		{"SEV-SNP", "b07af9620f3b839b", "bootloader 2, TEE 0, SNP 5, microcode 68", read(t, "snp/testdata/attestation.bin"), read(t, "snp/testdata/attestation.bin")[0x50:0x90],
			Verifier{Collateral: snpCollateral(t), Now: at("2026-03-01")}},
	} {
		row.v.InsecureSkipPolicy, row.v.AnyDomain = true, true
		claim := &claim{evidence: attest.Evidence{Kind: attest.KindOf(row.raw), Quote: row.raw}, reportData: [64]byte(row.reportData)}
		r, err := row.v.judge(t.Context(), nil, claim)
		if err != nil || !strings.HasPrefix(r.Measurement, row.measurement) || r.TCBStatus != row.status || r.Simulated {
			t.Errorf("%s: got %+v, %v", row.name, r, err)
			continue
		}
		if strings.Contains(r.String(), "%!") {
			t.Errorf("%s: %s", row.name, r)
		}
		v := row.v
		v.InsecureSkipPolicy = false
		for _, p := range []*Policy{policy(t, ""), tdxPolicy(t, strings.Repeat("ab", 48)), snpPolicy(t)} {
			v.Policy = p
			if _, err := v.judge(t.Context(), nil, claim); !errors.Is(err, ErrNotWanted) {
				t.Errorf("%s, other policy: got %v", row.name, err)
			}
		}
		v = row.v
		v.Now = func() time.Time { return row.v.Now().AddDate(30, 0, 0) }
		if _, err := v.judge(t.Context(), nil, claim); !errors.Is(err, ErrStale) {
			t.Errorf("%s, in 30 years: got %v", row.name, err)
		}
		claim.reportData[0] ^= 1
		if _, err := row.v.judge(t.Context(), nil, claim); !errors.Is(err, ErrChallenge) {
			t.Errorf("%s, other report data: got %v", row.name, err)
		}
	}
}

func TestParsePolicyNamesTheKind(t *testing.T) {
	for name, bad := range map[string]string{
		"unknown member": `{"format":"ehsm-sgx-policy/v1","accept_all":true}`,
		"empty":          ``, "no format": `{}`, "other format": `{"format":"ehsm-nitro-policy/v1"}`, "format twice": `{"format":"a","format":"b"}`,
		"SGX, empty": `{"format":"ehsm-sgx-policy/v1"}`, "TDX, empty": `{"format":"ehsm-tdx-policy/v1"}`, "SNP, empty": `{"format":"ehsm-snp-policy/v1"}`,
	} {
		if p, err := ParsePolicy([]byte(bad)); !errors.Is(err, ErrPolicy) || p != nil || strings.Count(err.Error(), ErrPolicy.Error()) != 1 {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if w := policy(t, "").Warnings(); len(w) != 1 {
		t.Errorf("SGX: %q", w)
	}
	if w := tdxPolicy(t, strings.Repeat("ab", 48)).Warnings(); len(w) != 1 {
		t.Errorf("TDX: %q", w)
	}
	if w := snpPolicy(t).Warnings(); len(w) != 2 {
		t.Errorf("SEV-SNP: %q", w)
	}
}

// FuzzAnswer gives whatever a host may answer; nothing but the honest answer to
// this challenge can be accepted, and that the host cannot make.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"challenge":"","evidence":"AQEAAAAA","role":"core"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var answer api.GetEvidenceResult
		if json.Unmarshal(b, &answer) != nil {
			return
		}
		v := Verifier{InsecureSkipPolicy: true, AnyDomain: true, Collateral: []byte("{}")}
		if c, err := v.claimOf(make([]byte, 32), &answer); err == nil {
			if r, err := v.judge(context.Background(), nil, c); err == nil {
				t.Errorf("accepted: %v", r)
			}
		}
	})
}
