package teetest

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/acceptance"
	"github.com/ehsm-kms/ehsm/internal/attest/acceptance/judge"
	inside "github.com/ehsm-kms/ehsm/internal/trusted/acceptance"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

// Accept runs an acceptance twice, as `ehsm attest acceptance` does. open starts
// the program once more on the same machine. All must pass but what the platform
// is without.
func Accept(t *testing.T, open func() (tee.Platform, error), without ...acceptance.Name) {
	t.Helper()
	first := Statement(t, start(t, open))
	second := Statement(t, start(t, open), first.Result.Seals...)
	for run, s := range []*acceptance.Statement{first, second} {
		for _, c := range s.Result.Checks {
			want := acceptance.Pass
			if slices.Contains(without, c.Name) {
				want = acceptance.NotAvailable
			}
			if c.Outcome != want {
				t.Errorf("run %d: %s: got %s (%s), want %s", run+1, c.Name, c.Outcome, c.Detail, want)
			}
			t.Logf("run %d: %s: %s: %s", run+1, c.Name, c.Outcome, c.Detail)
		}
		if err := s.CheckSignature(); err != nil || s.Problem != "" && !slices.Contains(without, acceptance.Evidence) {
			t.Errorf("run %d: %v, evidence: %s", run+1, err, s.Problem)
		}
	}
	judgeReport(t, first, start(t, open))
	if len(second.Result.Opened) != len(first.Result.Seals) || (len(first.Result.Seals) == 0) != slices.Contains(without, acceptance.SealKeys) {
		t.Errorf("%d seals, %d opened", len(first.Result.Seals), len(second.Result.Opened))
	}
}

// judgeReport completes a report with a second run on p and judges it. All must
// pass but genuine: no maker vouches for a fake, whatever it answers.
func judgeReport(t *testing.T, first *acceptance.Statement, p tee.Platform) {
	t.Helper()
	const each = time.Microsecond
	ran := run(t, p, &acceptance.Request{Format: acceptance.RequestFormat, Nonce: first.Result.Nonce, Each: each, Memory: 1})
	r := &acceptance.Report{Format: acceptance.ReportFormat, Nonce: first.Result.Nonce, First: *ran}
	r.Host = acceptance.Host{Time: time.Now().UTC(), Outside: ran.Result.Throughput, Collateral: []byte("none")}
	for _, path := range []string{judge.SGXEnclave, judge.SGXProvision, judge.TSM} {
		r.Host.Devices = append(r.Host.Devices, acceptance.Device{Path: path, State: acceptance.DeviceUsable})
	}
	r.Second = *run(t, p, &acceptance.Request{Format: acceptance.RequestFormat, Nonce: r.SecondNonce(), Seals: ran.Result.Seals})
	r, err := acceptance.DecodeReport(r.Encode())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range judge.Report(r, judge.Options{Now: time.Now(), AllowSim: true}) {
		if failed := l.Outcome == acceptance.Fail; failed != (l.Check == judge.Genuine) {
			t.Errorf("report: %s: %s: %s", l.Check, l.Outcome, l.Detail)
		}
	}
}

// Statement runs one acceptance on p, without throughput. The identity is held to
// what p itself says, and the randomness is not tested: fakes run anywhere.
func Statement(t *testing.T, p tee.Platform, seals ...acceptance.Seal) *acceptance.Statement {
	t.Helper()
	return run(t, p, &acceptance.Request{
		Format: acceptance.RequestFormat, Nonce: bytes.Repeat([]byte{7}, acceptance.NonceSize), Memory: 1, Seals: seals,
	})
}

func run(t *testing.T, p tee.Platform, q *acceptance.Request) *acceptance.Statement {
	t.Helper()
	s, err := inside.Run(t.Context(), inside.Config{
		Platform: p, Product: p.Identity().Product, SVN: p.Identity().SVN, Version: "test",
		Entropy: func() error { return nil }, Now: time.Now,
	}, q)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Broken checks that an acceptance of p, which is broken somewhere, fails in the
// check of a name; seals are those of a run before it broke.
func Broken(t *testing.T, p tee.Platform, name acceptance.Name, seals ...acceptance.Seal) {
	t.Helper()
	s := Statement(t, p, seals...)
	if c, _ := s.Result.Check(name); c.Outcome != acceptance.Fail {
		t.Errorf("%s: got %s: %s; want a failure", name, c.Outcome, c.Detail)
	}
}
