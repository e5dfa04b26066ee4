package judge

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/acceptance"
	"github.com/ehsm-kms/ehsm/internal/attest/acceptance/speed"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

var at = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// site is a fleet with two machines, which stand in for those of a maker.
type site struct {
	fleet     *issue.Fleet
	machine   *issue.Machine
	other     *issue.Machine
	terms     issue.Terms
	collected []byte
}

func newSite(t testing.TB) *site {
	t.Helper()
	fleet, err := issue.NewFleet(at)
	must(t, err)
	s := &site{fleet: fleet, terms: issue.Terms{Platform: issue.NewPlatform(), Issued: at.Add(-time.Hour), Next: at.Add(24 * time.Hour), Evaluation: 20}}
	s.machine, err = fleet.NewMachine(s.terms.Platform, at)
	must(t, err)
	s.other, err = fleet.NewMachine(issue.NewPlatform(), at)
	must(t, err)
	s.collected = s.collateral(t, s.terms)
	return s
}

func (s *site) collateral(t testing.TB, terms issue.Terms) []byte {
	t.Helper()
	c, err := s.fleet.Collateral(terms)
	must(t, err)
	return c.Append(nil)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// enclave attests as an enclave does whose report is given.
type enclave struct {
	machine *issue.Machine
	report  quote.Report
}

func (e enclave) Evidence(_ context.Context, data [64]byte) (attest.Evidence, error) {
	e.report.ReportData = data
	q, err := e.machine.Quote(e.report)
	return attest.Evidence{Kind: attest.SGXQuote3, Quote: q}, err
}

func program() quote.Report {
	return quote.Report{
		Attributes: quote.Attributes{Flags: quote.FlagInit | quote.FlagMode64, XFRM: 7},
		MREnclave:  [32]byte(bytes.Repeat([]byte{0xaa}, 32)), MRSigner: [32]byte(bytes.Repeat([]byte{0xbb}, 32)), ISVProdID: 1, ISVSVN: 1,
	}
}

// making is a report that is being made; tests change it before it is signed.
type making struct {
	site            *site
	host            acceptance.Host
	first, second   acceptance.Result
	attester, after attest.Attester // of the runs
	changed         func(*acceptance.Report)
}

func start(s *site) *making {
	result := func(from time.Time, names ...acceptance.Name) acceptance.Result {
		p := program()
		r := acceptance.Result{
			Version: "0.1.0", Go: "go1.26.8", Processors: 2, Started: from, Finished: from.Add(time.Minute),
			Platform: acceptance.Platform{Name: "ego", Simulated: true, Measurement: p.MREnclave[:], Signer: p.MRSigner[:], Product: 1, SVN: 1},
		}
		for _, name := range append([]acceptance.Name{
			acceptance.Identity, acceptance.Randomness, acceptance.Evidence, acceptance.SealKeys, acceptance.LocalReport, acceptance.Clock,
		}, names...) {
			r.Checks = append(r.Checks, acceptance.NewCheck(name, acceptance.Pass, "good "+string(name)))
		}
		return r
	}
	m := &making{
		site: s, first: result(at, acceptance.Memory, acceptance.Throughput), second: result(at.Add(2*time.Minute), acceptance.Restart),
		attester: enclave{s.machine, program()}, after: enclave{s.machine, program()},
	}
	m.first.Seals = []acceptance.Seal{{Policy: 1, KeyID: bytes.Repeat([]byte{1}, 32)}, {Policy: 2, KeyID: bytes.Repeat([]byte{2}, 32)}}
	m.second.Opened = []acceptance.Hex{m.first.Seals[0].KeyID, m.first.Seals[1].KeyID}
	m.host = acceptance.Host{Time: at.Add(90 * time.Second), Collateral: s.collected, Flags: []string{}}
	for _, path := range []string{SGXEnclave, SGXProvision} {
		m.host.Devices = append(m.host.Devices, acceptance.Device{Path: path, State: acceptance.DeviceUsable})
	}
	for _, path := range []string{TDXGuest, SEVGuest, TSM, TPM} {
		m.host.Devices = append(m.host.Devices, acceptance.Device{Path: path, State: acceptance.DeviceAbsent})
	}
	for _, name := range speed.Names() {
		m.first.Throughput = append(m.first.Throughput, speed.Rate{Operation: name, Threads: 1, PerSecond: 90})
		m.host.Outside = append(m.host.Outside, speed.Rate{Operation: name, Threads: 1, PerSecond: 100})
	}
	return m
}

func (m *making) report(t testing.TB) *acceptance.Report {
	t.Helper()
	r := &acceptance.Report{Format: acceptance.ReportFormat, Nonce: bytes.Repeat([]byte{7}, 32), Host: m.host}
	if m.first.Nonce == nil {
		m.first.Nonce = r.Nonce
	}
	first, err := acceptance.State(t.Context(), m.first, m.attester)
	must(t, err)
	r.First = *first
	m.second.Nonce = r.SecondNonce()
	second, err := acceptance.State(t.Context(), m.second, m.after)
	must(t, err)
	r.Second = *second
	if m.changed != nil {
		m.changed(r)
	}
	r, err = acceptance.DecodeReport(r.Encode())
	must(t, err)
	return r
}

func (s *site) options() Options {
	return Options{Roots: []*x509.Certificate{s.fleet.Root.Cert}, Now: at, AllowSim: true, MinRatio: 0.5}
}

func failed(lines []Line) []string {
	out := []string{}
	for _, l := range lines {
		if l.Outcome == acceptance.Fail {
			out = append(out, l.Check)
		}
	}
	return out
}

func find(lines []Line, check string) Line {
	for _, l := range lines {
		if l.Check == check {
			return l
		}
	}
	return Line{}
}

func TestGoodReport(t *testing.T) {
	s := newSite(t)
	o := s.options()
	o.Policy = fmt.Appendf(nil, `{"format":"ehsm-sgx-policy/v1","enclaves":[{"name":"core","mrenclave":"%x"}],"platforms":[{"name":"a","ppid":"%x"}],"allow_sim":true}`,
		bytes.Repeat([]byte{0xaa}, 32), s.terms.Platform.PPID)
	lines := Report(start(s).report(t), o)
	if f := failed(lines); len(f) > 0 || Failed(lines) {
		t.Errorf("failed: %v, %+v", f, lines)
	}
	seen := map[string]bool{}
	for _, l := range lines {
		if l.Detail == "" || seen[l.Check] || l.Hint != "" {
			t.Errorf("line %+v", l)
		}
		seen[l.Check] = true
	}
	if len(lines) != 15 {
		t.Errorf("got %d lines, want 15", len(lines))
	}
	if l := find(lines, Wanted); l.Outcome != acceptance.Pass {
		t.Errorf("wanted: %+v", l)
	}
	if l := find(lines, Hardware); l.Outcome != acceptance.NotAvailable {
		t.Errorf("hardware: %+v", l)
	}
	all := Compare(start(s).report(t))
	if len(all) != len(speed.Names()) || all[0].Ratio != 0.9 {
		t.Errorf("Compare: got %+v", all)
	}
}

// TestFailures breaks one thing at a time. Every check that a report has is
// broken at least once, and each failure says what to do.
func TestFailures(t *testing.T) {
	s := newSite(t)
	foreign := newSite(t)
	check := func(run func(*making) *acceptance.Result, name acceptance.Name, o acceptance.Outcome) func(*making, *Options) {
		return func(m *making, _ *Options) {
			r := run(m)
			for i := range r.Checks {
				if r.Checks[i].Name == name {
					r.Checks[i] = acceptance.NewCheck(name, o, "bad")
				}
			}
		}
	}
	first := func(m *making) *acceptance.Result { return &m.first }
	second := func(m *making) *acceptance.Result { return &m.second }
	without := func(r *acceptance.Result, name acceptance.Name) {
		r.Checks = slices.DeleteFunc(r.Checks, func(c acceptance.Check) bool { return c.Name == name })
	}
	run := func(change func(*quote.Report)) attest.Attester {
		p := program()
		change(&p)
		return enclave{s.machine, p}
	}
	device := func(path, state string) func(*making, *Options) {
		return func(m *making, _ *Options) {
			for i := range m.host.Devices {
				if m.host.Devices[i].Path == path {
					m.host.Devices[i].State = state
				}
			}
		}
	}
	for _, row := range []struct {
		name string
		want string // checks that fail
		text string // in the detail of the first
		brk  func(*making, *Options)
	}{
		{"no enclave device", Devices, "/dev/sgx_enclave is absent", device(SGXEnclave, acceptance.DeviceAbsent)},
		{"no provisioning device", Devices, "/dev/sgx_provision is there, but", device(SGXProvision, acceptance.DeviceClosed)},
		{"identity in the first run", "identity", "bad", check(first, acceptance.Identity, acceptance.Fail)},
		{"identity in the second run", "identity", "bad", check(second, acceptance.Identity, acceptance.Fail)},
		{"randomness", "randomness", "bad", check(second, acceptance.Randomness, acceptance.Fail)},
		{"evidence", "evidence", "bad", check(first, acceptance.Evidence, acceptance.Fail)},
		{"no evidence is no choice", "evidence", "bad", check(first, acceptance.Evidence, acceptance.NotAvailable)},
		{"seal", "seal", "bad", check(first, acceptance.SealKeys, acceptance.Fail)},
		{"no seal keys on SGX", "seal", "bad", check(second, acceptance.SealKeys, acceptance.NotAvailable)},
		{"restart", "seal-after-restart", "bad", check(second, acceptance.Restart, acceptance.Fail)},
		{"restart not done", "seal-after-restart", "did not do", func(m *making, _ *Options) { without(&m.second, acceptance.Restart) }},
		{"one seal opened", "seal-after-restart", "opened 1 seals", func(m *making, _ *Options) { m.second.Opened = m.second.Opened[:1] }},
		{"other seals opened", "seal-after-restart", "opened 2 seals", func(m *making, _ *Options) { m.second.Opened[1] = bytes.Repeat([]byte{9}, 32) }},
		{"nothing sealed, nothing opened", "seal-after-restart", "opened 0 seals", func(m *making, _ *Options) { m.first.Seals, m.second.Opened = nil, nil }},
		{"local report", "local-report", "bad", check(second, acceptance.LocalReport, acceptance.Fail)},
		{"no local report on EGo", "local-report", "bad", check(second, acceptance.LocalReport, acceptance.NotAvailable)},
		{"local report only at first", "local-report", "the first run says: good local-report; the second: bad", func(m *making, o *Options) {
			m.first.Platform.Name, m.second.Platform.Name = "gramine", "gramine"
			check(second, acceptance.LocalReport, acceptance.NotAvailable)(m, o)
		}},
		{"clock", "clock", "bad", check(first, acceptance.Clock, acceptance.Fail)},
		{"clock of the TEE", "clock", "not in order", func(m *making, _ *Options) { m.second.Started = at.Add(-time.Hour) }},
		{"clock of the host", "clock", "not in order", func(m *making, _ *Options) { m.host.Time = at.Add(time.Hour) }},
		{"memory", "memory", "bad", check(first, acceptance.Memory, acceptance.Fail)},
		{"memory not done", "memory", "did not do", func(m *making, _ *Options) { without(&m.first, acceptance.Memory) }},
		{"throughput", "throughput", "bad", check(first, acceptance.Throughput, acceptance.Fail)},
		{"slow", "throughput", "0.49 of what is reached outside", func(m *making, _ *Options) { m.first.Throughput[3].PerSecond = 49 }},
		{"stands still", "throughput", "was not measured both", func(m *making, o *Options) { m.first.Throughput[3].PerSecond, o.MinRatio = 0, 0 }},
		{"an operation less", "throughput", "was not measured both", func(m *making, _ *Options) { m.first.Throughput = m.first.Throughput[1:] }},
		{"not measured outside", "throughput", "was not measured both", func(m *making, _ *Options) { m.host.Outside = nil }},
		{"other measurement after the restart", "same-program", "another after a restart", func(m *making, _ *Options) {
			m.second.Platform.Measurement = bytes.Repeat([]byte{1}, 32)
			m.after = run(func(r *quote.Report) { r.MREnclave = [32]byte(bytes.Repeat([]byte{1}, 32)) })
		}},
		{"other program after the restart", "same-program", "another after a restart", func(m *making, _ *Options) { m.second.Version = "0.2.0" }},
		{"simulated", "genuine,hardware", "not allowed", func(_ *making, o *Options) { o.AllowSim = false }},
		{"no root of theirs", "genuine", "root", func(_ *making, o *Options) { o.Roots = nil }},
		{"root of somebody else", "genuine", "root", func(_ *making, o *Options) { o.Roots = []*x509.Certificate{foreign.fleet.Root.Cert} }},
		{"no collateral", "genuine", "no collateral", func(m *making, _ *Options) { m.host.Collateral = nil }},
		{"odd collateral", "genuine", "first run", func(m *making, _ *Options) { m.host.Collateral = []byte{1} }},
		{"odd collateral in JSON", "genuine", "first run", func(_ *making, o *Options) { o.Collateral = []byte("{}") }},
		{"collateral of another machine", "genuine", "first run", func(_ *making, o *Options) { o.Collateral = foreign.collected }},
		{"collateral too old", "genuine", "expired", func(_ *making, o *Options) { o.Now = at.Add(48 * time.Hour) }},
		{"revoked", "genuine", "revoked", func(_ *making, o *Options) {
			terms := s.terms
			terms.RevokedPCKs = append(terms.RevokedPCKs, s.machine.PCK.Cert.SerialNumber)
			o.Collateral = s.collateral(t, terms)
		}},
		{"no quote in the first run", "genuine", "first run: the run has no evidence", func(m *making, _ *Options) { m.attester = nil }},
		{"no quote in the second run", "genuine", "second run: the run has no evidence", func(m *making, _ *Options) { m.after = nil }},
		{"restarted on another machine", "genuine", "two machines", func(m *making, _ *Options) { m.after = enclave{s.other, program()} }},
		{"quote of another enclave", "genuine", "of another program", func(m *making, _ *Options) { m.attester = run(func(r *quote.Report) { r.MREnclave[0]++ }) }},
		{"quote of another signer", "genuine", "of another program", func(m *making, _ *Options) { m.attester = run(func(r *quote.Report) { r.MRSigner[0]++ }) }},
		{"quote of another product", "genuine", "of another program", func(m *making, _ *Options) { m.after = run(func(r *quote.Report) { r.ISVProdID++ }) }},
		{"quote of another version", "genuine", "of another program", func(m *making, _ *Options) { m.after = run(func(r *quote.Report) { r.ISVSVN++ }) }},
		{"quote of a debug enclave", "genuine", "of another program", func(m *making, _ *Options) {
			m.after = run(func(r *quote.Report) { r.Attributes.Flags |= quote.FlagDebug })
		}},
		{"denies to be simulated", "genuine,same-program", "simulated true", func(m *making, _ *Options) { m.first.Platform.Simulated = false }},
		{"another kind than it says", "genuine,report", "not a TDX quote v4", func(m *making, _ *Options) {
			m.changed = func(r *acceptance.Report) { r.First.Kind = "TDX quote v4" }
		}},
		{"no known kind", "genuine,report", "of no kind", func(m *making, _ *Options) {
			m.changed = func(r *acceptance.Report) { r.First.Evidence = acceptance.Hex{1, 2, 3} }
		}},
		{"quote of another statement", "genuine", "another result, nonce or key", func(m *making, _ *Options) {
			m.changed = func(r *acceptance.Report) { r.Second.Evidence = r.First.Evidence }
		}},
		{"a check passed by hand", "report,genuine", "first run: the result is not", func(m *making, o *Options) {
			check(first, acceptance.Clock, acceptance.Fail)(m, o)
			m.changed = func(r *acceptance.Report) {
				for i := range r.First.Result.Checks {
					r.First.Result.Checks[i].Outcome = acceptance.Pass
				}
			}
		}},
		{"signed anew outside of the TEE", "genuine", "has no evidence", func(m *making, o *Options) {
			m.changed = func(r *acceptance.Report) {
				second, err := acceptance.State(t.Context(), r.Second.Result, nil)
				must(t, err)
				r.Second = *second
			}
		}},
		{"changed by the host", "report", "does not cover", func(m *making, _ *Options) {
			m.changed = func(r *acceptance.Report) { r.Host.Model = "better" }
		}},
		{"another nonce", "report", "another nonce", func(m *making, _ *Options) { m.first.Nonce = bytes.Repeat([]byte{8}, 32) }},
		{"not wanted", Wanted, "not one of the policy", func(_ *making, o *Options) {
			o.Policy = []byte(`{"format":"ehsm-sgx-policy/v1","enclaves":[{"name":"x","mrenclave":"` + strings.Repeat("11", 32) + `"}],"any_platform":true,"allow_sim":true}`)
		}},
		{"policy of another TEE", Wanted, "", func(_ *making, o *Options) {
			o.Policy = []byte(`{"format":"ehsm-snp-policy/v1","guests":[{"name":"x","measurement":"` + strings.Repeat("11", 48) + `"}],"any_chip":true,"min_tcb":{"bootloader":1,"tee":0,"snp":0,"microcode":0}}`)
		}},
		{"wanted, but not genuine", "genuine,wanted", "expired", func(_ *making, o *Options) { o.Now, o.Policy = at.Add(48*time.Hour), []byte("{}") }},
	} {
		t.Run(row.name, func(t *testing.T) {
			m, o := start(s), s.options()
			row.brk(m, &o)
			lines := Report(m.report(t), o)
			want := strings.Split(row.want, ",")
			got := failed(lines)
			slices.Sort(want)
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Fatalf("failed: %v, want %v: %+v", got, want, lines)
			}
			found := false
			for _, l := range lines {
				if l.Outcome == acceptance.Fail {
					found = found || strings.Contains(l.Detail, row.text)
					if l.Hint == "" && !(l.Check == Wanted && len(want) > 1) {
						t.Errorf("%s has no hint", l.Check)
					}
				}
			}
			if !found {
				t.Errorf("no %q in %+v", row.text, lines)
			}
			if !Failed(lines) {
				t.Error("Failed says no")
			}
		})
	}
}

// TestPlatformsDiffer has the platforms do without what they do not have.
func TestPlatformsDiffer(t *testing.T) {
	s := newSite(t)
	for _, row := range []struct {
		platform string
		without  []acceptance.Name
		failed   string
	}{
		{"gramine", []acceptance.Name{acceptance.LocalReport}, ""},
		{"gramine", []acceptance.Name{acceptance.SealKeys}, "seal"},
		{"tdx", []acceptance.Name{acceptance.LocalReport, acceptance.SealKeys}, "devices"},
		{"snp", []acceptance.Name{acceptance.LocalReport, acceptance.SealKeys}, "devices"},
		{"tdx", []acceptance.Name{acceptance.Evidence}, "devices evidence"},
		{"sim", nil, ""},
		{"other", nil, "devices"},
	} {
		m := start(s)
		for _, r := range []*acceptance.Result{&m.first, &m.second} {
			r.Platform.Name = row.platform
			for i := range r.Checks {
				if slices.Contains(row.without, r.Checks[i].Name) {
					r.Checks[i].Outcome = acceptance.NotAvailable
				}
			}
		}
		if got := strings.Join(failed(Report(m.report(t), s.options())), " "); got != row.failed {
			t.Errorf("%s without %v: failed %q, want %q", row.platform, row.without, got, row.failed)
		}
	}
}

func TestVirtualTPM(t *testing.T) {
	h := start(newSite(t)).host
	h.Flags = []string{"rdrand", "hypervisor"}
	set := func(state string, paths ...string) {
		for i := range h.Devices {
			if slices.Contains(paths, h.Devices[i].Path) {
				h.Devices[i].State = state
			}
		}
	}
	set(acceptance.DeviceAbsent, SGXEnclave, SGXProvision)
	if VirtualTPMOnly(&h) {
		t.Error("a guest without a TPM has one")
	}
	set(acceptance.DeviceUsable, TPM)
	for _, platform := range []string{"tdx", "snp", "tsm", "ego", "gramine"} {
		if l := DeviceLine(&h, platform); l.Outcome != acceptance.Fail || !strings.Contains(l.Hint, "virtual TPM") {
			t.Errorf("%s: got %+v", platform, l)
		}
	}
	set(acceptance.DeviceUsable, SEVGuest)
	if VirtualTPMOnly(&h) {
		t.Error("a guest with its TEE's device has a TPM only")
	}
	set(acceptance.DeviceUsable, TSM)
	if l := DeviceLine(&h, "snp"); l.Outcome != acceptance.Pass {
		t.Errorf("got %+v", l)
	}
}

func TestNonceLine(t *testing.T) {
	r := start(newSite(t)).report(t)
	if l := NonceLine(r, r.Nonce); l.Outcome != acceptance.Pass {
		t.Errorf("got %+v", l)
	}
	if l := NonceLine(r, make([]byte, 32)); l.Outcome != acceptance.Fail || l.Hint == "" {
		t.Errorf("another nonce: got %+v", l)
	}
}

func TestGenuineHints(t *testing.T) {
	for _, err := range []error{
		errNoCollateral, errNoEvidence, errReportData, errProgram, verify.ErrUnknownRoot, verify.ErrSimulated,
		&verify.Error{Step: verify.StepCRL, Err: verify.ErrCRLExpired}, errors.New("other"),
	} {
		if genuineHint(err) == "" {
			t.Errorf("%v has no hint", err)
		}
	}
}

func TestPolicyKind(t *testing.T) {
	for policy, want := range map[string]string{
		`{"format":"ehsm-sgx-policy/v1","enclaves":[{"name":"x","mrenclave":"` + strings.Repeat("11", 32) + `"}],"any_platform":true}`:                                                      "sgx",
		`{"format":"ehsm-snp-policy/v1","guests":[{"name":"x","measurement":"` + strings.Repeat("11", 48) + `"}],"any_chip":true,"min_tcb":{"bootloader":1,"tee":0,"snp":0,"microcode":0}}`: "snp",
		`{"format":"ehsm-sgx-policy/v1"}`: "", `{"format":"other"}`: "", `{}`: "", ``: "", `{"format":1}`: "",
	} {
		if got, err := PolicyKind([]byte(policy)); got != want && want != "" || (err == nil) != (want != "") {
			t.Errorf("PolicyKind(%s): got %q, %v, want %q", policy, got, err, want)
		}
	}
}
