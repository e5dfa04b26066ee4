package main

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/attest"
	sgx "github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/attest/snp"
	"github.com/ehsm-kms/ehsm/internal/host/collateral/collateraltest"
)

func TestDoctor(t *testing.T) {
	sim := []string{"--allow-sim", "--machine", "/nonexistent"}
	for name, e := range map[string]encounter{
		"all right": {args: append(sim, "--policy", "@wanted.json", "--domain", fakeDomain()), want: exitOK, stdout: []string{
			"this machine\n  ok       processor: unknown model", "service\n  ok       address: https://127.0.0.1:", "ok       reached: it says that it is version 0.1.0, commit abc",
			"ok       evidence: SGX quote v3, ", "note     hardware: none: the platform is simulated, which --allow-sim accepts", "ok       binding: made for a fresh challenge by instance " + fakeInstance,
			"ok       domain: " + fakeDomain() + ", as expected", "ok       source: the service", "ok       TCB info: issued ", ": 30 days left",
			"ok       parse: ", "ok       pck-chain: ", "ok       tcb-level: ", "ok       file: ", "names 1 enclave and 1 machine", "note     warning: simulated platforms are accepted",
			`ok       wanted: yes, as enclave "core" on platform "node 1"`, "ok       collateral: if it is not refreshed, the TCB info ends first, ", "ok       TCB: UpToDate; after Intel's next TCB recovery there are 30 days"}},
		"no policy": {args: sim, want: exitOK, stdout: []string{"note     domain: " + fakeDomain() + ", not compared",
			"note     wanted: not asked: no --policy. The enclave has MRENCLAVE " + strings.Repeat("aa", 32), "-> compare that with what its builder publishes"}},
		"simulated": {args: []string{"--machine", "/nonexistent"}, want: exitError, stdout: []string{
			"PROBLEM  hardware: none: it runs on the simulated platform", "-> ehsm dev and other services for tests do; --allow-sim accepts",
			"PROBLEM  pck-chain: certificate chain does not end in a given root", "skipped  crl: "},
			stderr: []string{"ehsm: 2 of ", "hint: the lines above marked ->"}},
		"with its root": {args: append(sim, "--root", "@root.pem"), want: exitOK},
		"another root":  {args: append(sim, "--root", "@wanted.json"), want: exitError, stdout: []string{"PROBLEM  root: ", "wanted.json: want certificates in PEM"}},
		"nobody there":  {args: sim, want: exitError, edit: func(s *fakeService) { s.Close() }, stdout: []string{"PROBLEM  reached: ", "connection refused", "-> is the service running?", "skipped  source: no evidence to fetch it for", "skipped  genuine: no evidence", "skipped  dates: no collateral"}},
		"nobody there, but collateral": {args: append(sim, "--collateral", "@collateral.json", "--policy", "@broken.json"), want: exitError, edit: func(s *fakeService) { s.saveCollateral(); s.Close() }, stdout: []string{
			"PROBLEM  reached: ", "collateral.json, for ", "ok       TCB info: ", "skipped  genuine: no evidence", "PROBLEM  file: read ", "ok       collateral: if it is not refreshed"}},
		"nobody there, nor collateral": {args: append(sim, "--collateral", "@broken.json"), want: exitError, edit: func(s *fakeService) { s.Close() }, stdout: []string{"PROBLEM  source: read ", "skipped  dates: no collateral"}},
		"a portal": {args: sim, want: exitError, edit: func(s *fakeService) {
			for _, what := range []string{api.GetVersion, api.GetEvidence, "collateral"} {
				s.instead[what] = page
			}
		}, stdout: []string{"PROBLEM  reached: GetVersion: ", "-> is that the address of an eHSM-KMS?"}},
		"no evidence": {args: sim, want: exitError, edit: func(s *fakeService) { s.instead[api.GetEvidence] = status(http.StatusNotFound) }, stdout: []string{"ok       reached: ", "PROBLEM  evidence: GetEvidence: "}},
		"evidence of nothing": {args: sim, want: exitError, edit: func(s *fakeService) {
			s.answer = func(a *api.GetEvidenceResult) { a.Evidence = []byte{1, 1, 0, 0, 0, 0} }
		}, stdout: []string{"skipped  binding: the evidence cannot be read", "PROBLEM  parse: quote is cut short"}},
		"unknown evidence": {args: sim, want: exitError, edit: func(s *fakeService) {
			s.answer = func(a *api.GetEvidenceResult) { a.Evidence = []byte{1, 99, 0, 0, 0, 0} }
		}, stdout: []string{"PROBLEM  evidence: ", "-> use an ehsm of the version of the service"}},
		"evidence of before":  {args: sim, want: exitError, edit: func(s *fakeService) { s.report = func(r *sgx.Report) { r.ReportData[0] ^= 1 } }, stdout: []string{"PROBLEM  binding: it was not made for this challenge, domain, instance and key", "-> somebody answers with evidence that was made for another purpose: do not use this service"}},
		"another challenge":   {args: sim, want: exitError, edit: func(s *fakeService) { s.answer = func(a *api.GetEvidenceResult) { a.Challenge = "x" } }, stdout: []string{"PROBLEM  binding: the answer is to another challenge"}},
		"a hostile domain":    {args: sim, want: exitError, edit: func(s *fakeService) { s.answer = func(a *api.GetEvidenceResult) { a.DomainID = "\x1b[2J" } }, stdout: []string{`PROBLEM  binding: domain id is "\x1b[2J"`}},
		"a hostile instance":  {args: sim, want: exitError, edit: func(s *fakeService) { s.answer = func(a *api.GetEvidenceResult) { a.InstanceID = "\x1b[2J" } }, stdout: []string{`PROBLEM  binding: instance id is "\x1b[2J"`}},
		"another domain":      {args: append(sim, "--domain", strings.Repeat("d1", 32)), want: exitError, stdout: []string{"PROBLEM  domain: it says " + fakeDomain() + ", want d1d1"}},
		"no collateral":       {args: sim, want: exitError, edit: func(s *fakeService) { s.instead["collateral"] = status(http.StatusNotFound) }, stdout: []string{"PROBLEM  source: the service: ", "-> have its operator configure a source", "skipped  genuine: no collateral", "skipped  dates: no collateral"}},
		"a page as it":        {args: sim, want: exitError, edit: func(s *fakeService) { s.instead["collateral"] = page }, stdout: []string{"PROBLEM  source: the service"}},
		"its own collateral":  {args: append(sim, "--collateral", "@collateral.json"), want: exitOK, edit: func(s *fakeService) { s.instead["collateral"] = page; s.saveCollateral() }, stdout: []string{"collateral.json\n"}},
		"missing collateral":  {args: append(sim, "--collateral", "@missing.json"), want: exitError, stdout: []string{"PROBLEM  source: ", "no such file"}},
		"a PCCS that is away": {args: append(sim, "--pccs", "https://127.0.0.1:1"), want: exitError, stdout: []string{"PROBLEM  source: https://127.0.0.1:1: ", "-> is that the address of the PCCS"}},
		"collateral ended":    {args: sim, want: exitError, edit: func(s *fakeService) { s.terms.Next = time.Now().Add(-time.Hour) }, stdout: []string{"PROBLEM  TCB info: issued ", ": over", "PROBLEM  crl: ", "PROBLEM  collateral: if it is not refreshed, the TCB info ends first, ", "skipped  tcb-info: "}},
		"collateral ends":     {args: sim, want: exitError, edit: func(s *fakeService) { s.terms.Next = time.Now().Add(50 * time.Hour) }, stdout: []string{"ok       TCB info: ", "ok       tcb-level: ", "PROBLEM  collateral: ", ": 2 days left", "-> see that its source is reached and refreshed"}},
		"from the future":     {args: append(sim, "--at", "2020-01-01"), want: exitError, stdout: []string{"PROBLEM  TCB info: issued ", "which is in the future", "-> is the clock of this machine right?"}},
		"out of date": {args: append(sim, "--policy", "@wanted.json"), want: exitError, edit: func(s *fakeService) {
			s.terms.Status, s.terms.Advisories, s.terms.NewerDate = verify.OutOfDate, []string{"SIM-SA-1"}, s.terms.Issued.Add(-9*24*time.Hour+time.Hour)
		}, stdout: []string{"ok       tcb-level: ", "PROBLEM  tcb-status: TCB status is not accepted: OutOfDate with [SIM-SA-1]", "PROBLEM  TCB: OutOfDate since ", "the grace period of 30 days ends ", ": 20 days left", "-> update the BIOS and microcode"}},
		"out of date for long": {args: sim, want: exitError, edit: func(s *fakeService) { s.terms.Status, s.terms.Advisories = verify.OutOfDate, []string{"SIM-SA-1"} }, stdout: []string{"PROBLEM  TCB: OutOfDate since ", ": over"}},
		"hardening": {args: sim, want: exitOK, edit: func(s *fakeService) {
			s.terms.Status, s.terms.Advisories = verify.SWHardeningNeeded, []string{"SIM-SA-1"}
		}, stdout: []string{"note     TCB: SWHardeningNeeded: only a policy that accepts each of [SIM-SA-1] accepts it"}},
		"revoked":         {args: sim, want: exitError, edit: func(s *fakeService) { s.terms.RevokedPCKs = []*big.Int{s.machine.PCK.Cert.SerialNumber} }, stdout: []string{"ok       pck-chain: ", "PROBLEM  crl: PCK certificate is revoked", "-> Intel has withdrawn its trust"}},
		"a forged quote":  {args: sim, want: exitError, edit: func(s *fakeService) { s.answer = func(a *api.GetEvidenceResult) { a.Evidence[200] ^= 1 } }, stdout: []string{"ok       qe-report: ", "PROBLEM  quote-signature: ", "skipped  tcb-info: "}},
		"another program": {args: append(sim, "--policy", "@other.json"), want: exitError, stdout: []string{"ok       tcb-level: ", "PROBLEM  enclave: enclave is not one of the policy"}},
		"debug":           {args: append(sim, "--policy", "@wanted.json"), want: exitError, edit: func(s *fakeService) { s.report = func(r *sgx.Report) { r.Attributes.Flags |= sgx.FlagDebug } }, stdout: []string{"PROBLEM  debug: "}},
		"broken policy":   {args: append(sim, "--policy", "@broken.json"), want: exitError, stdout: []string{"PROBLEM  file: read ", "accept_all", "-> docs/formats.md#attestation-policy-v1", "ok       tcb-level: "}},
		"two sources":     {args: append(sim, "--policy", "@wanted.json", "--pccs", "https://x", "--collateral", "y"), want: exitUsage, stderr: []string{"--collateral and --pccs exclude each other"}},
	} {
		t.Run(name, func(t *testing.T) { e.check(t, "doctor") })
	}
}

// Guests are judged too; the evidence here is published, so that it cannot bind a
// fresh challenge.
func TestDoctorGuests(t *testing.T) {
	show := func(kind attest.Kind, path string) func(*fakeService) {
		return func(s *fakeService) {
			b, err := os.ReadFile(path)
			if err != nil {
				s.t.Fatal(err)
			}
			s.answer = func(a *api.GetEvidenceResult) { a.Evidence = attest.Evidence{Kind: kind, Quote: b}.Append(nil) }
		}
	}
	tdxQuote, snpReport := filepath.Join(dcapData, "phala/tdx_quote"), filepath.Join(snpData, "attestation.bin")
	tdxCollateral := filepath.Join("..", "..", "internal", "attest", "tdx", "testdata", "tdx_quote_collateral.json")
	const binding = "PROBLEM  binding: it was not made for this challenge, domain, instance and key"
	for name, e := range map[string]encounter{
		"TDX": {args: []string{"--collateral", tdxCollateral, "--at", "2025-06-21"}, want: exitError, edit: show(attest.TDXQuote4, tdxQuote), stdout: []string{
			binding, "ok       tcb-level: ", "The guest has the measurement 91eb2b44", "ok       collateral: if it is not refreshed, the first part of it ends 2025-07-", "ok       TCB: UpToDate"}},
		"TDX, a policy for SGX": {args: []string{"--collateral", tdxCollateral, "--at", "2025-06-21", "--policy", "@wanted.json"}, want: exitError, edit: show(attest.TDXQuote4, tdxQuote), stdout: []string{
			"PROBLEM  file: read ", "ehsm-tdx-policy/v1"}},
		"TDX, late":             {args: []string{"--collateral", tdxCollateral}, want: exitError, edit: show(attest.TDXQuote4, tdxQuote), stdout: []string{"ok       pck-chain", "PROBLEM  crl: "}},
		"TDX, asking a PCCS":    {args: []string{"--pccs", "https://127.0.0.1:1"}, want: exitError, edit: show(attest.TDXQuote4, tdxQuote), stdout: []string{"PROBLEM  source: https://127.0.0.1:1: ", "-> a PCCS is asked about SGX quotes only"}},
		"SEV-SNP":               {args: []string{"--collateral", "@snp.pem", "--at", "2023-06-01"}, want: exitError, edit: show(attest.SNPReport, snpReport), stdout: []string{binding, "ok       root: ", "ok       signature: that chip has signed the report", "note     revocation: not checked", "ok       certificates: the first of them ends 2029-09-24T00:55:28Z"}},
		"SEV-SNP, of its own":   {want: exitError, edit: show(attest.SNPReport, snpReport), stdout: []string{"PROBLEM  source: the service", "skipped  genuine: no collateral"}},
		"TDX of no known shape": {args: []string{"--collateral", tdxCollateral}, want: exitError, edit: show(attest.TDXQuote5, snpReport), stdout: []string{"skipped  binding: the evidence cannot be read", "PROBLEM  "}},
	} {
		t.Run(name, func(t *testing.T) {
			edit := e.edit
			e.edit = func(s *fakeService) { s.write("snp.pem", snpPEM(s.t)); edit(s) }
			e.check(t, "doctor")
		})
	}
}

// snpPEM puts published certificates of a chip together.
func snpPEM(t *testing.T) []byte {
	t.Helper()
	der, err := os.ReadFile(filepath.Join(snpData, "vcek.testcer"))
	if err != nil {
		t.Fatal(err)
	}
	chain, err := os.ReadFile(filepath.Join(snpData, "milan.testcer"))
	if err != nil {
		t.Fatal(err)
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), chain...)
}

// A PCCS that knows the machine serves as a source.
func TestDoctorPCCS(t *testing.T) {
	s, pccs := newFakeService(t), collateraltest.NewServer(t, collateraltest.PCCS)
	s.instead["collateral"] = status(http.StatusNotFound)
	code, stdout, _ := s.run("doctor", "--allow-sim", "--pccs", pccs.URL, "--pccs-ca-file", pccs.CAFile())
	if code != exitError || !strings.Contains(stdout, "PROBLEM  source: "+pccs.URL) || !strings.Contains(stdout, "-> is the machine registered with this PCCS?") {
		t.Errorf("doctor with a PCCS that does not know the machine: exit %d, %s", code, stdout)
	}
	pccs.Offer(t, s.collateral())
	if code, stdout, _ = s.run("doctor", "--allow-sim", "--pccs", pccs.URL, "--pccs-ca-file", pccs.CAFile()); code != exitOK {
		t.Errorf("doctor with a PCCS: exit %d, %s", code, stdout)
	}
}

// Every problem says what to do, and the number of problems is the exit code's.
func TestDoctorJSON(t *testing.T) {
	s := newFakeService(t)
	s.terms.Next = time.Now().Add(-time.Hour)
	code, stdout, _ := s.run("doctor", "--output", "json")
	var d diagnosis
	if err := json.Unmarshal([]byte(stdout), &d); err != nil {
		t.Fatalf("doctor: %v in %s", err, stdout)
	}
	if code != exitError || d.Problems == 0 || d.Problems != count(d.Sections, stateProblem) || d.URL != s.URL {
		t.Errorf("doctor: exit %d, got %+v", code, d)
	}
	var names []string
	for _, section := range d.Sections {
		names = append(names, section.Name)
		for _, c := range section.Checks {
			if c.State == stateProblem && c.Do == "" {
				t.Errorf("doctor: nothing to do about %q of %s", c.Name, section.Name)
			}
		}
	}
	if got := strings.Join(names, ", "); got != "this machine, service, collateral, verification, policy, outlook" {
		t.Errorf("doctor: sections %s", got)
	}
}

// Each step of a verification has its words.
func TestStepWords(t *testing.T) {
	for kind, last := range map[attest.Kind]fmt.Stringer{
		attest.SGXQuote3: verify.StepTCBLevel, attest.TDXQuote4: verify.StepTCBLevel, attest.SNPReport: snp.StepSignature,
	} {
		words := stepWords(kind)
		if got := words[len(words)-1].step; got != last.String() {
			t.Errorf("%v: last step is %s, want %v", kind, got, last)
		}
		for _, s := range words {
			checks := genuineChecks(&finding{Answer: answerNo, Step: s.step, Reason: "because"}, kind)
			if n := count([]section{{"", checks}}, stateProblem); n != 1 || len(checks) != len(words) {
				t.Errorf("%v: %s: got %d problems in %v", kind, s.step, n, checks)
			}
		}
		if checks := genuineChecks(&finding{Answer: answerNo, Step: "other", Reason: "because"}, kind); len(checks) != 1 || checks[0].State != stateProblem {
			t.Errorf("%v: got %v of an unknown step", kind, checks)
		}
	}
	if got := len(stepWords(attest.SGXQuote3)); got != int(verify.StepTCBLevel) {
		t.Errorf("got %d steps of DCAP, want %d", got, verify.StepTCBLevel)
	}
}
