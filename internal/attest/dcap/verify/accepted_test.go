package verify_test

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

func TestSimulatedQuote(t *testing.T) {
	s := newScene(t)
	s.terms.Advisories, s.terms.QEAdvisories = []string{"B", "A"}, []string{"C", "B"}
	s.terms.Status = verify.SWHardeningNeeded
	s.endorse()
	r, err := s.verify()
	if err != nil {
		t.Fatal(err)
	}
	if !r.Simulated || r.Stale || r.Status != verify.SWHardeningNeeded || r.PlatformStatus != r.Status || r.QEStatus != verify.UpToDate {
		t.Errorf("got simulated %v, stale %v, %v of %v and %v", r.Simulated, r.Stale, r.Status, r.PlatformStatus, r.QEStatus)
	}
	if !slices.Equal(r.Advisories, []string{"A", "B", "C"}) {
		t.Errorf("Advisories: got %v", r.Advisories)
	}
	want := s.platform
	want.Serial = hex.EncodeToString(s.machine.PCK.Cert.SerialNumber.Bytes())
	if r.Platform != want {
		t.Errorf("Platform: got %+v, want %+v", r.Platform, want)
	}
	if r.Report != s.report || r.QEReport != s.machine.QE.Report || r.Header != s.machine.QE.Header {
		t.Error("the reports or the header differ from those in the quote")
	}
	old := s.terms.Issued.Add(-400 * day)
	if !r.TCBDate.Equal(old) || !r.QETCBDate.Equal(old) || !r.OutOfDateSince.IsZero() || r.TCBEvaluation != 20 {
		t.Errorf("got dates %v, %v, %v and evaluation %d", r.TCBDate, r.QETCBDate, r.OutOfDateSince, r.TCBEvaluation)
	}
	if !slices.Equal(r.PlatformAdvisories, []string{"A", "B"}) {
		t.Errorf("PlatformAdvisories: got %v", r.PlatformAdvisories)
	}
	if !r.Expires.Equal(s.terms.Next) || !r.LatestIssue.Equal(s.terms.Issued) || !r.CertsExpire.Equal(s.fleet.PCKCA.Cert.NotAfter) {
		t.Errorf("got issue %v, end %v, end of certificates %v", r.LatestIssue, r.Expires, r.CertsExpire)
	}
}

// The table of Intel's quote verification library,
// convergeTcbStatusWithQeTcbStatus.
func TestMerge(t *testing.T) {
	const (
		upToDate, hardening, configuration, both = verify.UpToDate, verify.SWHardeningNeeded, verify.ConfigurationNeeded, verify.ConfigurationAndSWHardeningNeeded
		outOfDate, outOfDateConfiguration        = verify.OutOfDate, verify.OutOfDateConfigurationNeeded
	)
	for platform, want := range map[verify.Status][2]verify.Status{ // QE up to date, out of date
		upToDate:               {upToDate, outOfDate},
		hardening:              {hardening, outOfDate},
		configuration:          {configuration, outOfDateConfiguration},
		both:                   {both, outOfDateConfiguration},
		outOfDate:              {outOfDate, outOfDate},
		outOfDateConfiguration: {outOfDateConfiguration, outOfDateConfiguration},
	} {
		for qe, want := range map[verify.Status]verify.Status{
			upToDate: want[0], outOfDate: want[1], hardening: want[1], configuration: want[1], both: want[1], outOfDateConfiguration: want[1],
			verify.Revoked: verify.Revoked,
		} {
			if got := verify.Merge(platform, qe); got != want {
				t.Errorf("Merge(%v, %v): got %v, want %v", platform, qe, got, want)
			}
			if platform == hardening || qe == verify.Revoked {
				continue // one row suffices below; revocation is an error there
			}
			s := newScene(t)
			s.terms.Status, s.terms.QEStatus = platform, qe
			s.endorse()
			if r, err := s.verify(); err != nil || r.Status != want {
				t.Errorf("platform %v, QE %v: got %v, %v, want %v", platform, qe, r.Status, err, want)
			}
		}
		if got := verify.Merge(verify.Revoked, platform); got != verify.Revoked {
			t.Errorf("Merge(Revoked, %v): got %v", platform, got)
		}
	}
}

func TestOutOfDateSince(t *testing.T) {
	since := now.Add(-20 * day)
	for name, row := range map[string]struct {
		platform, qe verify.Status
		want         time.Time
	}{
		"nothing":  {verify.ConfigurationNeeded, verify.UpToDate, time.Time{}},
		"platform": {verify.OutOfDate, verify.UpToDate, since},
		"QE":       {verify.UpToDate, verify.OutOfDate, since},
		"both":     {verify.OutOfDateConfigurationNeeded, verify.OutOfDate, since},
	} {
		s := newScene(t)
		s.terms.Status, s.terms.QEStatus, s.terms.NewerDate = row.platform, row.qe, since
		s.endorse()
		if r, err := s.verify(); err != nil || !r.OutOfDateSince.Equal(row.want) {
			t.Errorf("%s: got %v, %v, want %v", name, r.OutOfDateSince, err, row.want)
		}
	}
	// Of several recoveries that a platform missed the first one counts.
	s := newScene(t)
	s.terms.Status = verify.OutOfDate
	s.tcbInfo(func(d *issue.TCBInfo) {
		first := d.Levels[0]
		first.TCB.Components = slices.Clone(first.TCB.Components)
		first.TCB.Components[0].SVN++
		first.Date = issue.Time(now)
		d.Levels = slices.Insert(d.Levels, 0, first)
	})
	if r, err := s.verify(); err != nil || !r.OutOfDateSince.Equal(s.terms.Issued.Add(-200*day)) {
		t.Errorf("two recoveries: got %v, %v", r.OutOfDateSince, err)
	}
	// A level that no later one is above of is out of date since nobody knows when.
	s = newScene(t)
	s.terms.Status, s.terms.NewerDate = verify.OutOfDate, s.terms.Issued.Add(-500*day)
	s.endorse()
	if r, err := s.verify(); err != nil || !r.OutOfDateSince.IsZero() {
		t.Errorf("no later date: got %v, %v", r.OutOfDateSince, err)
	}
}

// The first level that is reached counts, and all 17 numbers must be.
func TestLevelOfAPlatform(t *testing.T) {
	s := newScene(t)
	level := func(status verify.Status, edit func(*issue.TCB)) issue.TCBLevel {
		l := s.terms.TCBInfo().Levels[0]
		edit(&l.TCB)
		l.Status = status.String()
		return l
	}
	for i := range 17 {
		above := func(c *issue.TCB) {
			if i == 16 {
				c.PCESVN++
			} else {
				c.Components[i].SVN++
			}
		}
		s.tcbInfo(func(d *issue.TCBInfo) {
			d.Levels = []issue.TCBLevel{
				level(verify.UpToDate, above),
				level(verify.ConfigurationNeeded, func(*issue.TCB) {}),
				level(verify.OutOfDate, func(c *issue.TCB) { c.Components[0].SVN-- }),
			}
		})
		if r, err := s.verify(); err != nil || r.Status != verify.ConfigurationNeeded {
			t.Errorf("number %d one below the first level: got %v, %v", i, r.Status, err)
		}
	}
}

func TestLesserEvaluationNumber(t *testing.T) {
	s := newScene(t)
	s.options.MinTCBEvaluation = 19
	s.qeIdentity(func(d *issue.QEIdentity) { d.Evaluation = 19 })
	if r, err := s.verify(); err != nil || r.TCBEvaluation != 19 {
		t.Errorf("lower in the QE identity: got %d, %v", r.TCBEvaluation, err)
	}
	s.options.MinTCBEvaluation = 0
	s.tcbInfo(func(d *issue.TCBInfo) { d.Evaluation = 0 })
	if r, err := s.verify(); err != nil || r.TCBEvaluation != 0 {
		t.Errorf("zero in the TCB info: got %d, %v", r.TCBEvaluation, err)
	}
}

func TestCollateralGrace(t *testing.T) {
	s := newScene(t)
	s.options.Now = s.terms.Next.Add(7 * day)
	s.options.CollateralGrace = 7 * day
	r, err := s.verify()
	if err != nil || !r.Stale || !r.Expires.Equal(s.terms.Next) {
		t.Errorf("on the last day of grace: got stale %v, end %v, %v", r.Stale, r.Expires, err)
	}
	s.options.Now = s.terms.Next
	if r, err := s.verify(); err != nil || r.Stale {
		t.Errorf("in the last second: got stale %v, %v", r.Stale, err)
	}
	s.options.CollateralGrace = -7 * day
	if _, err := s.verify(); err != nil {
		t.Errorf("in the last second, with a negative grace: %v", err)
	}
}

func TestAcceptedVariants(t *testing.T) {
	for name, change := range map[string]func(s *scene){
		"processor CA": func(s *scene) {
			s.platform.HasInstance, s.platform.InstanceID, s.platform.CachedKeys, s.platform.SMT = false, [16]byte{}, false, false
			s.reissuePCK(s.fleet.PCKCA, func(*x509.Certificate) {})
		},
		"a second root":    func(s *scene) { s.options.Roots = append([]*x509.Certificate{verify.IntelRoot()}, s.options.Roots...) },
		"no PCK CRL chain": func(s *scene) { s.collateral.PCKCRLIssuerChain = nil },
		"others are revoked": func(s *scene) {
			s.terms.RevokedPCKs, s.terms.RevokedCAs = []*big.Int{big.NewInt(7)}, []*big.Int{big.NewInt(8)}
			s.endorse()
		},
		"no auth data":          func(s *scene) { s.machine.QE.AuthData = nil; s.must(s.machine.Certify()); s.requote() },
		"long auth data":        func(s *scene) { s.machine.QE.AuthData = make([]byte, 1000); s.must(s.machine.Certify()); s.requote() },
		"newer quoting enclave": func(s *scene) { s.qe(func(r *quote.Report) { r.ISVSVN++ }) },
		"unknown member":        func(s *scene) { s.tcbText(`"id":"SGX"`, `"id":"SGX","new":{"a":[1]}`) },
		"unknown in QE":         func(s *scene) { s.qeText(`"id":"QE"`, `"id":"QE","new":null`) },
		"spaces in a document":  func(s *scene) { s.tcbText(`,"version":3`, " ,\n\t\"version\" : 3") },
		"renewed CA": func(s *scene) {
			tpl := *s.fleet.PCKCA.Cert
			tpl.SerialNumber = big.NewInt(99)
			der, err := x509.CreateCertificate(rand.Reader, &tpl, s.fleet.Root.Cert, s.fleet.PCKCA.Key.Public(), s.fleet.Root.Key)
			s.must(err)
			s.collateral.PCKCRLIssuerChain = quote.EncodeChain(der, s.fleet.Root.Cert.Raw)
		},
		"two signers": func(s *scene) {
			first := s.collateral
			s.reissueSigner(func(*x509.Certificate) {})
			s.collateral.TCBInfo, s.collateral.TCBInfoSignature, s.collateral.TCBInfoIssuerChain = first.TCBInfo, first.TCBInfoSignature, first.TCBInfoIssuerChain
		},
	} {
		s := newScene(t)
		change(s)
		if _, err := s.verify(); err != nil {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestStatusWords(t *testing.T) {
	for s := verify.UpToDate; s <= verify.Revoked; s++ {
		if got, err := verify.ParseStatus(s.String()); err != nil || got != s {
			t.Errorf("ParseStatus(%q): got %v, %v", s, got, err)
		}
	}
	for _, word := range []string{"", "uptodate", "UpToDate ", "status 0", "TDRelaunchAdvised"} {
		if got, err := verify.ParseStatus(word); err == nil {
			t.Errorf("ParseStatus(%q): got %v", word, got)
		}
	}
}
