package validate_test

import (
	"crypto/x509"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// A decision is one call of Check that would succeed, to change one thing of.
type decision struct {
	policy validate.Policy
	result verify.Result
	input  validate.Input
}

func newDecision() *decision {
	d := &decision{
		policy: validate.Policy{
			Enclaves:  []validate.Enclave{{Name: "core", MRSigner: [32]byte{2}, ISVProdID: 3, MinISVSVN: 4}},
			Platforms: []validate.Platform{{Name: "node-1", PPID: [16]byte{7}}},
			TCBGrace:  30 * day,
		},
		result: verify.Result{
			Status: verify.UpToDate, PlatformStatus: verify.UpToDate, QEStatus: verify.UpToDate, TCBEvaluation: 20,
			LatestIssue: now.Add(-day), Expires: now.Add(29 * day), CertsExpire: now.Add(1000 * day),
		},
		input: validate.Input{Now: now, ReportData: [64]byte{5}},
	}
	d.result.Platform.PPID, d.result.Platform.Serial = [16]byte{7}, "0a0b"
	d.result.Report = quote.Report{MREnclave: [32]byte{1}, MRSigner: [32]byte{2}, ISVProdID: 3, ISVSVN: 4, ReportData: [64]byte{5}}
	return d
}

func (d *decision) check() (validate.Decision, error) {
	return validate.Check(&d.policy, &d.result, d.input)
}

// setStatus makes a platform of a status, with advisories.
func (d *decision) setStatus(s verify.Status, advisories ...string) {
	d.result.Status, d.result.PlatformStatus = s, s
	d.result.Advisories, d.result.PlatformAdvisories = advisories, advisories
}

// setOutOfDate makes a platform that missed a recovery so long ago.
func (d *decision) setOutOfDate(s verify.Status, since time.Duration) {
	d.setStatus(s, "A")
	d.result.OutOfDateSince = now.Add(-since)
	d.input.Admitted = true
}

func accept(s verify.Status, advisories ...string) (list []validate.Acceptance) {
	for _, a := range advisories {
		list = append(list, validate.Acceptance{Status: s, Advisory: a, Reason: "test"})
	}
	return list
}

func TestAccepted(t *testing.T) {
	for name, row := range map[string]struct {
		change            func(d *decision)
		enclave, platform string
	}{
		"as it is":       {func(d *decision) {}, "core", "node-1"},
		"newer version":  {func(d *decision) { d.result.Report.ISVSVN = 9 }, "core", "node-1"},
		"by measurement": {func(d *decision) { d.policy.Enclaves = []validate.Enclave{{Name: "exact", MREnclave: [32]byte{1}}} }, "exact", "node-1"},
		"second entry": {func(d *decision) {
			d.policy.Enclaves = append([]validate.Enclave{{Name: "other", MREnclave: [32]byte{9}}, {Name: "new", MRSigner: [32]byte{2}, ISVProdID: 3, MinISVSVN: 5}}, d.policy.Enclaves...)
		}, "core", "node-1"},
		"by serial":    {func(d *decision) { d.policy.Platforms = []validate.Platform{{Name: "s", Serial: "0a0b"}} }, "core", "s"},
		"any platform": {func(d *decision) { d.policy.Platforms, d.policy.AnyPlatform = nil, true }, "core", ""},
		"named advisories": {func(d *decision) {
			d.setStatus(verify.SWHardeningNeeded, "A", "B")
			d.policy.Accepted = accept(verify.SWHardeningNeeded, "B", "A", "C")
		}, "core", "node-1"},
		"out of date, named": {func(d *decision) {
			d.setStatus(verify.OutOfDate, "A")
			d.policy.Accepted = accept(verify.OutOfDate, "A")
		}, "core", "node-1"},
		"debug, spelled out":      {func(d *decision) { d.result.Report.Attributes.Flags, d.policy.AllowDebug = quote.FlagDebug, true }, "core", "node-1"},
		"simulated, spelled out":  {func(d *decision) { d.result.Simulated, d.policy.AllowSim = true, true }, "core", "node-1"},
		"evaluation at the least": {func(d *decision) { d.policy.MinTCBEvaluation = 20 }, "core", "node-1"},
		"last second":             {func(d *decision) { d.input.Now = d.result.Expires }, "core", "node-1"},
	} {
		d := newDecision()
		row.change(d)
		got, err := d.check()
		if want := (validate.Decision{Enclave: row.enclave, Platform: row.platform}); err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, want)
		}
	}
}

func TestRefused(t *testing.T) {
	for name, row := range map[string]struct {
		change func(d *decision)
		want   error
	}{
		"empty policy":            {func(d *decision) { d.policy = validate.Policy{} }, validate.ErrEmptyPolicy},
		"everything but enclaves": {func(d *decision) { d.policy.Enclaves = nil; d.policy.AnyPlatform, d.policy.AllowDebug = true, true }, validate.ErrEmptyPolicy},
		"no platform":             {func(d *decision) { d.policy.Platforms = nil }, validate.ErrEmptyPolicy},
		"zero result":             {func(d *decision) { d.result = verify.Result{} }, validate.ErrNotVerified},
		"no status":               {func(d *decision) { d.result.Status = 0 }, validate.ErrNotVerified},
		"no end":                  {func(d *decision) { d.result.Expires = time.Time{} }, validate.ErrNotVerified},
		"no end of certificates":  {func(d *decision) { d.result.CertsExpire = time.Time{} }, validate.ErrNotVerified},
		"no time":                 {func(d *decision) { d.input.Now = time.Time{} }, validate.ErrTime},
		"time before issue":       {func(d *decision) { d.input.Now = d.result.LatestIssue.Add(-1) }, validate.ErrTime},
		"simulated":               {func(d *decision) { d.result.Simulated = true }, validate.ErrSimulated},
		"other REPORTDATA":        {func(d *decision) { d.input.ReportData[63] ^= 1 }, validate.ErrReportData},
		"no REPORTDATA":           {func(d *decision) { d.input.ReportData = [64]byte{} }, validate.ErrReportData},
		"debug":                   {func(d *decision) { d.result.Report.Attributes.Flags = quote.FlagDebug }, validate.ErrDebug},
		"empty entry":             {func(d *decision) { d.policy.Enclaves = []validate.Enclave{{Name: "x"}} }, validate.ErrEnclave},
		"empty entry, zero report": {func(d *decision) {
			d.policy.Enclaves = []validate.Enclave{{Name: "x"}}
			d.result.Report.MREnclave, d.result.Report.MRSigner, d.result.Report.ISVProdID = [32]byte{}, [32]byte{}, 0
		}, validate.ErrEnclave},
		"other measurement":         {func(d *decision) { d.policy.Enclaves = []validate.Enclave{{Name: "x", MREnclave: [32]byte{9}}} }, validate.ErrEnclave},
		"measurement decides alone": {func(d *decision) { d.policy.Enclaves[0].MREnclave = [32]byte{9} }, validate.ErrEnclave},
		"other signer":              {func(d *decision) { d.result.Report.MRSigner[0]++ }, validate.ErrEnclave},
		"other product":             {func(d *decision) { d.result.Report.ISVProdID++ }, validate.ErrEnclave},
		"older version":             {func(d *decision) { d.result.Report.ISVSVN-- }, validate.ErrSVN},
		"other machine":             {func(d *decision) { d.result.Platform.PPID[0]++ }, validate.ErrPlatform},
		"PPID entry, serial fits":   {func(d *decision) { d.policy.Platforms[0].Serial = "0a0b"; d.result.Platform.PPID[0]++ }, validate.ErrPlatform},
		"other serial":              {func(d *decision) { d.policy.Platforms[0] = validate.Platform{Serial: "0a0c"} }, validate.ErrPlatform},
		"empty platform entry":      {func(d *decision) { d.policy.Platforms[0] = validate.Platform{}; d.result.Platform = verify.Platform{} }, validate.ErrPlatform},
		"evaluation below":          {func(d *decision) { d.policy.MinTCBEvaluation = 21 }, validate.ErrEvaluation},
		"certificate expired": {func(d *decision) {
			d.input.Now, d.input.Admitted = d.result.CertsExpire.Add(1), true
			d.policy.CollateralGrace = 9999 * day
		}, validate.ErrCertificate},
		"collateral expired since": {func(d *decision) { d.input.Now = d.result.Expires.Add(1) }, validate.ErrStale},
		"stale":                    {func(d *decision) { d.result.Stale = true }, validate.ErrStale},
		"stale, new platform":      {func(d *decision) { d.result.Stale = true; d.policy.CollateralGrace = 300 * day }, validate.ErrStale},
		"stale, no grace":          {func(d *decision) { d.input.Now = d.result.Expires.Add(1); d.input.Admitted = true }, validate.ErrStale},
		"stale, grace over": {func(d *decision) {
			d.policy.CollateralGrace, d.input.Admitted = day, true
			d.input.Now = d.result.Expires.Add(day + 1)
		}, validate.ErrStale},
		"needs hardening": {func(d *decision) { d.setStatus(verify.SWHardeningNeeded, "A") }, validate.ErrStatus},
		"one advisory not named": {func(d *decision) {
			d.setStatus(verify.SWHardeningNeeded, "A", "B")
			d.policy.Accepted = accept(verify.SWHardeningNeeded, "A")
		}, validate.ErrStatus},
		"named for other status": {func(d *decision) {
			d.setStatus(verify.ConfigurationNeeded, "A")
			d.policy.Accepted = accept(verify.SWHardeningNeeded, "A")
		}, validate.ErrStatus},
		"no advisory to name": {func(d *decision) {
			d.setStatus(verify.ConfigurationNeeded)
			d.policy.Accepted = accept(verify.ConfigurationNeeded, "A")
		}, validate.ErrStatus},
		"revoked, named":            {func(d *decision) { d.setStatus(verify.Revoked, "A"); d.policy.Accepted = accept(verify.Revoked, "A") }, validate.ErrStatus},
		"unknown status, named":     {func(d *decision) { d.setStatus(99, "A"); d.input.Admitted = true }, validate.ErrStatus},
		"out of date, new platform": {func(d *decision) { d.setOutOfDate(verify.OutOfDate, day); d.input.Admitted = false }, validate.ErrStatus},
		"out of date, no date":      {func(d *decision) { d.setOutOfDate(verify.OutOfDate, day); d.result.OutOfDateSince = time.Time{} }, validate.ErrStatus},
		"grace over":                {func(d *decision) { d.setOutOfDate(verify.OutOfDate, 30*day+1) }, validate.ErrGraceOver},
		"no grace":                  {func(d *decision) { d.setOutOfDate(verify.OutOfDate, day); d.policy.TCBGrace = 0 }, validate.ErrGraceOver},
		"hardening has no grace":    {func(d *decision) { d.setOutOfDate(verify.SWHardeningNeeded, day) }, validate.ErrStatus},
		"configuration in grace":    {func(d *decision) { d.setOutOfDate(verify.OutOfDateConfigurationNeeded, day) }, validate.ErrStatus},
		"QE in grace, platform not accepted": {func(d *decision) {
			d.setOutOfDate(verify.OutOfDate, day)
			d.result.PlatformStatus = verify.SWHardeningNeeded
		}, validate.ErrStatus},
		"revoked in grace": {func(d *decision) { d.setOutOfDate(verify.Revoked, day) }, validate.ErrStatus},
	} {
		d := newDecision()
		row.change(d)
		if got, err := d.check(); !errors.Is(err, row.want) || got != (validate.Decision{}) {
			t.Errorf("%s: got %+v, %v, want %v", name, got, err, row.want)
		}
	}
}

func TestGrace(t *testing.T) {
	for name, row := range map[string]struct {
		change          func(d *decision)
		tcb, collateral time.Time
	}{
		"first day":   {func(d *decision) { d.setOutOfDate(verify.OutOfDate, 0) }, now.Add(30 * day), time.Time{}},
		"last second": {func(d *decision) { d.setOutOfDate(verify.OutOfDate, 30*day) }, now, time.Time{}},
		"configuration accepted": {func(d *decision) {
			d.setOutOfDate(verify.OutOfDateConfigurationNeeded, day)
			d.policy.Accepted = accept(verify.ConfigurationAndSWHardeningNeeded, "Z")
		}, now.Add(29 * day), time.Time{}},
		"only the QE": {func(d *decision) { d.setOutOfDate(verify.OutOfDate, day); d.result.PlatformStatus = verify.UpToDate }, now.Add(29 * day), time.Time{}},
		"only the QE, platform accepted": {func(d *decision) {
			d.setOutOfDate(verify.OutOfDate, day)
			d.result.PlatformStatus, d.result.Advisories = verify.SWHardeningNeeded, []string{"A", "Q"}
			d.policy.Accepted = accept(verify.SWHardeningNeeded, "A")
		}, now.Add(29 * day), time.Time{}},
		"accepted for good": {func(d *decision) {
			d.setOutOfDate(verify.OutOfDate, 99*day)
			d.policy.Accepted = accept(verify.OutOfDate, "A")
		}, time.Time{}, time.Time{}},
		"collateral": {func(d *decision) {
			d.policy.CollateralGrace, d.input.Admitted, d.input.Now = 7*day, true, d.result.Expires.Add(7*day)
		}, time.Time{}, now.Add(36 * day)},
		"both": {func(d *decision) {
			d.setOutOfDate(verify.OutOfDate, 0)
			d.policy.CollateralGrace, d.input.Now, d.result.Stale = 7*day, now.Add(29*day+1), true
		}, now.Add(30 * day), now.Add(36 * day)},
	} {
		d := newDecision()
		row.change(d)
		got, err := d.check()
		if err != nil || !got.TCBGraceUntil.Equal(row.tcb) || !got.CollateralGraceUntil.Equal(row.collateral) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

func TestDebugQuoteOfARealPlatform(t *testing.T) {
	b, err := os.ReadFile("../testdata/automata/quote_sgx.bin")
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := os.ReadFile("../testdata/phala/sgx_quote_collateral.json")
	if err != nil {
		t.Fatal(err)
	}
	c, err := verify.DecodeCollateralJSON(bundle)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2025, 6, 25, 0, 0, 0, 0, time.UTC)
	p := &validate.Policy{AnyPlatform: true, Accepted: accept(verify.ConfigurationAndSWHardeningNeeded, "INTEL-SA-00289", "INTEL-SA-00615")}
	r, err := verify.Verify(b, c, p.Options([]*x509.Certificate{verify.IntelRoot()}, at))
	if err != nil {
		t.Fatal(err)
	}
	p.Enclaves = []validate.Enclave{{Name: "x", MREnclave: r.Report.MREnclave}}
	in := validate.Input{Now: at, ReportData: r.Report.ReportData}
	if _, err := validate.Check(p, &r, in); !errors.Is(err, validate.ErrDebug) {
		t.Errorf("got %v, want ErrDebug", err)
	}
	p.AllowDebug = true
	if _, err := validate.Check(p, &r, in); err != nil {
		t.Errorf("spelled out: got %v", err)
	}
}

// A TCB recovery puts a whole fleet out of date over night. Admitted machines go
// on for the grace period; new ones are refused at once, admitted ones after it.
func TestTCBRecoveryOfAFleet(t *testing.T) {
	fleet, err := issue.NewFleet(now)
	if err != nil {
		t.Fatal(err)
	}
	policy := newDecision().policy
	policy.AllowSim, policy.Platforms, policy.AnyPlatform = true, nil, true
	recovery := now.Add(2 * day)
	for range 5 {
		platform := issue.NewPlatform()
		machine, err := fleet.NewMachine(platform, now)
		if err != nil {
			t.Fatal(err)
		}
		b, err := machine.Quote(newDecision().result.Report)
		if err != nil {
			t.Fatal(err)
		}
		decide := func(at time.Time, admitted bool, terms issue.Terms) error {
			terms.Platform, terms.Issued, terms.Next = platform, at.Add(-time.Hour), at.Add(30*day)
			c, err := fleet.Collateral(terms)
			if err != nil {
				t.Fatal(err)
			}
			r, err := verify.Verify(b, c, policy.Options([]*x509.Certificate{fleet.Root.Cert}, at))
			if err != nil {
				t.Fatal(err)
			}
			_, err = validate.Check(&policy, &r, validate.Input{Now: at, ReportData: [64]byte{5}, Admitted: admitted})
			return err
		}
		before, after := issue.Terms{}, issue.Terms{Status: verify.OutOfDate, NewerDate: recovery, Advisories: []string{"INTEL-SA-1"}}
		if err := decide(now, false, before); err != nil {
			t.Errorf("before: got %v", err)
		}
		for _, at := range []time.Time{recovery.Add(day), recovery.Add(30 * day)} {
			if err := decide(at, true, after); err != nil {
				t.Errorf("in grace: got %v", err)
			}
			if err := decide(at, false, after); !errors.Is(err, validate.ErrStatus) {
				t.Errorf("new machine: got %v, want ErrStatus", err)
			}
		}
		if err := decide(recovery.Add(30*day+time.Second), true, after); !errors.Is(err, validate.ErrGraceOver) {
			t.Errorf("after grace: got %v, want ErrGraceOver", err)
		}
	}
}

func TestOptionsAndWarnings(t *testing.T) {
	p := &validate.Policy{MinTCBEvaluation: 7, CollateralGrace: day}
	if o := p.Options(nil, now); o.MinTCBEvaluation != 7 || o.CollateralGrace != day || o.AllowSim || !o.Now.Equal(now) {
		t.Errorf("Options: got %+v", o)
	}
	if w := p.Warnings(); len(w) != 0 {
		t.Errorf("Warnings: got %q", w)
	}
	p.AllowSim, p.AllowDebug, p.AnyPlatform = true, true, true
	if w := p.Warnings(); len(w) != 3 || !p.Options(nil, now).AllowSim {
		t.Errorf("Warnings: got %q", w)
	}
}
