package main

import (
	"encoding/json"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	sgx "github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// An encounter is a service, honest or not, and what a person must read about it.
type encounter struct {
	edit   func(*fakeService)
	args   []string
	want   int
	stdout []string
	stderr []string
}

func (e *encounter) check(t *testing.T, command string) {
	t.Helper()
	s := newFakeService(t)
	if e.edit != nil {
		e.edit(s)
	}
	code, stdout, stderr := s.run(append([]string{command}, e.args...)...)
	if code != e.want {
		t.Errorf("%s %v: exit %d, want %d", command, e.args, code, e.want)
	}
	for _, text := range e.stdout {
		if !strings.Contains(stdout, text) {
			t.Errorf("%s: stdout lacks %q:\n%s", command, text, stdout)
		}
	}
	for _, text := range e.stderr {
		if !strings.Contains(stderr, text) {
			t.Errorf("%s: stderr lacks %q:\n%s", command, text, stderr)
		}
	}
	if strings.ContainsFunc(stdout+stderr, func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f }) {
		t.Errorf("%s: control characters in %q", command, stdout+stderr)
	}
}

func TestVerifyService(t *testing.T) {
	sim := []string{"--allow-sim"}
	for name, e := range map[string]encounter{
		"simulated and allowed": {args: sim, want: exitOK, stdout: []string{
			"genuine:           yes (simulated: no hardware protects these keys)\n",
			"wanted:            not asked: no --policy; any genuine program would pass",
			fakeDomain() + ", not compared; --domain does", "program:           measurement " + strings.Repeat("aa", 32),
			"TCB status:        UpToDate", "instance:          " + fakeInstance, `{"format":"ehsm-sgx-policy/v1","enclaves":[{"name":"core","mrenclave":"aaaa`}},
		"simulated": {want: exitError, stdout: []string{"genuine:           no: pck-chain: the service runs on the simulated platform, where no hardware protects keys\n"},
			stderr: []string{"ehsm: the service is not genuine: pck-chain: the service runs on the simulated platform", "ehsm: hint: ehsm dev and other services for tests do; --allow-sim accepts that, for tests only"}},
		"with its root, not allowed": {args: []string{"--root", "@root.pem"}, want: exitError, stderr: []string{"runs on the simulated platform"}},
		"with its root":              {args: []string{"--root", "@root.pem", "--allow-sim"}, want: exitOK, stdout: []string{"genuine:           yes (simulated"}},
		"wanted": {args: []string{"--policy", "@wanted.json"}, want: exitOK, stdout: []string{`wanted:            yes, as "core" on machine "node 1"`},
			stderr: []string{"ehsm: policy: simulated platforms are accepted"}},
		"wanted, and allowed by the flag": {args: []string{"--policy", "@strict.json", "--allow-sim"}, want: exitOK, stdout: []string{"wanted:            yes"}},
		"wanted, but simulated":           {args: []string{"--policy", "@strict.json"}, want: exitError, stdout: []string{"genuine:           no: pck-chain", "wanted:            unknown: not shown to be genuine"}},
		"another program": {args: []string{"--policy", "@other.json"}, want: exitError,
			stdout: []string{"genuine:           yes\n", "wanted:            no: enclave: enclave is not one of the policy: MRENCLAVE " + strings.Repeat("aa", 32)},
			stderr: []string{"the service is genuine, but not wanted: enclave: ", "hint: if you know this build, add its measurement"}},
		"another machine": {args: []string{"--policy", "@elsewhere.json"}, want: exitError, stderr: []string{"not wanted: platform: platform is not admitted: PPID "}},
		"the domain":      {args: []string{"--allow-sim", "--domain", strings.ToUpper(fakeDomain())}, want: exitOK, stdout: []string{fakeDomain() + ", as expected"}},
		"another domain": {args: []string{"--allow-sim", "--domain", strings.Repeat("d1", 32)}, want: exitError,
			stdout: []string{"genuine:           unknown: domain: service is of another domain"}, stderr: []string{"nothing is known about the service: domain: ", "hint: its keys are not those that you know"}},
		"the domain, in the evidence alone": {args: []string{"--allow-sim", "--domain", strings.Repeat("d1", 32)}, want: exitError,
			edit: func(s *fakeService) {
				s.answer = func(a *api.GetEvidenceResult) { a.DomainID = strings.Repeat("d1", 32) }
			}, stderr: []string{"evidence was not made for this challenge"}},
		"evidence of before": {args: sim, want: exitError, edit: func(s *fakeService) { s.report = func(r *sgx.Report) { r.ReportData[0] ^= 1 } },
			stdout: []string{"genuine:           no: report-data: evidence was not made for this challenge"}, stderr: []string{"hint: somebody answers with evidence that was made for another purpose: do not use this service"}},
		"another key": {args: sim, want: exitError, edit: func(s *fakeService) {
			other := newFakeService(s.t)
			s.answer = func(a *api.GetEvidenceResult) { a.HPKEPublicKey = other.hpkeKey }
		}, stderr: []string{"report-data"}},
		"a forged quote": {args: sim, want: exitError, edit: func(s *fakeService) { s.answer = func(a *api.GetEvidenceResult) { a.Evidence[200] ^= 1 } }, stderr: []string{"not genuine: quote-signature: ", "hint: what the service shows is damaged or forged: do not use it"}},
		"debug":          {args: []string{"--policy", "@wanted.json"}, want: exitError, edit: func(s *fakeService) { s.report = func(r *sgx.Report) { r.Attributes.Flags |= sgx.FlagDebug } }, stderr: []string{"not wanted: debug: ", "hint: the host can read the memory"}},
		"debug, not asked": {args: sim, want: exitError, edit: func(s *fakeService) { s.report = func(r *sgx.Report) { r.Attributes.Flags |= sgx.FlagDebug } },
			stdout: []string{"genuine:           yes", "wanted:            no: debug: enclave runs in debug mode\n", "DEBUG:             the host can read the memory of this program"}, stderr: []string{"not wanted: debug: ", "hint: the host can read the memory"}},
		"out of date": {args: []string{"--policy", "@wanted.json"}, want: exitError, edit: func(s *fakeService) { s.terms.Status, s.terms.Advisories = verify.OutOfDate, []string{"SIM-SA-1"} },
			stderr: []string{"not wanted: tcb-status: ", "hint: update the machine's BIOS and microcode"}},
		"revoked": {args: sim, want: exitError, edit: func(s *fakeService) { s.terms.RevokedPCKs = []*big.Int{s.machine.PCK.Cert.SerialNumber} }, stderr: []string{"not genuine: crl: PCK certificate is revoked", "hint: Intel has withdrawn its trust"}},
		"old collateral": {args: sim, want: exitError, edit: func(s *fakeService) { s.terms.Next = time.Now().Add(-time.Hour) },
			stderr: []string{"not genuine: crl: ", "CRL has expired", "hint: the service has let its collateral expire"}},
		"no collateral": {args: sim, want: exitError, edit: func(s *fakeService) { s.instead["collateral"] = status(http.StatusNotFound) },
			stdout: []string{"genuine:           unknown: collateral: "}, stderr: []string{"hint: name a file with --collateral"}},
		"a page for collateral": {args: sim, want: exitError, edit: func(s *fakeService) { s.instead["collateral"] = page }, stderr: []string{"nothing is known about the service: collateral: "}},
		"no evidence":           {args: sim, want: exitError, edit: func(s *fakeService) { s.instead[api.GetEvidence] = status(http.StatusNotFound) }, stderr: []string{"nothing is known about the service: ", "hint: is it an eHSM-KMS of this version"}},
		"a page for evidence":   {args: sim, want: exitError, edit: func(s *fakeService) { s.instead[api.GetEvidence] = page }, stderr: []string{"service shows no evidence"}},
		"evidence of nothing": {args: sim, want: exitError, edit: func(s *fakeService) {
			s.answer = func(a *api.GetEvidenceResult) { a.Evidence = []byte{1, 1, 0, 0, 0, 0} }
		}, stderr: []string{"not genuine: parse: "}},
		"unknown kind of evidence": {args: sim, want: exitError, edit: func(s *fakeService) {
			s.answer = func(a *api.GetEvidenceResult) { a.Evidence = []byte{1, 99, 0, 0, 0, 0} }
		}, stderr: []string{"evidence kind 99"}},
		"a hostile instance id":    {args: sim, want: exitError, edit: func(s *fakeService) { s.answer = func(a *api.GetEvidenceResult) { a.InstanceID = "\x1b[2J" } }, stderr: []string{"instance id is"}},
		"not a domain id":          {args: []string{"--domain", "d0"}, want: exitUsage, stderr: []string{"--domain: domain id is \"d0\", want 64 hex digits", "hint: ehsm dev prints it"}},
		"report data of a service": {args: []string{"--policy", "@wanted.json", "--report-data", "00"}, want: exitUsage, stderr: []string{"--report-data is for files"}},
		"broken policy":            {args: []string{"--policy", "@broken.json"}, want: exitError, stderr: []string{"broken.json: invalid attestation policy: ", "accept_all"}},
		"missing policy":           {args: []string{"--policy", "@missing.json"}, want: exitError, stderr: []string{"no such file"}},
	} {
		t.Run(name, func(t *testing.T) { e.check(t, "verify") })
	}
}

// The policy that verify prints accepts the service, and nothing else.
func TestVerifyServicePin(t *testing.T) {
	s := newFakeService(t)
	_, stdout, _ := s.run("verify", "--allow-sim", "--output", "json")
	var v serviceAnswer
	if err := json.Unmarshal([]byte(stdout), &v); err != nil {
		t.Fatalf("verify: %v in %s", err, stdout)
	}
	s.write("pin.json", v.Service.Pin)
	if code, _, stderr := s.run("verify", "--policy", "@pin.json", "--domain", v.Service.DomainID); code != exitOK {
		t.Errorf("verify with its own pin: exit %d, %s", code, stderr)
	}
	s.report = func(r *sgx.Report) { r.MREnclave[0]++ }
	if code, _, stderr := s.run("verify", "--policy", "@pin.json", "--domain", v.Service.DomainID); code != exitError {
		t.Errorf("verify of another program with the pin: exit %d, %s", code, stderr)
	}
}
