package core

import (
	"context"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// A quoter is a platform with evidence: a machine of a simulated fleet that the
// test has in its hands.
type quoter struct {
	tee.Platform
	fleet   *issue.Fleet
	machine *issue.Machine
	report  quote.Report // of the enclave, without REPORTDATA
	terms   issue.Terms  // what the fleet states about the machine

	wait chan struct{} // evidence waits for it, if it is not nil
	fail error         // instead of evidence
}

// newQuoter makes a fleet whose collateral is in force from a day before now.
func newQuoter(t testing.TB, p tee.Platform, now time.Time) *quoter {
	t.Helper()
	q := &quoter{Platform: p}
	platform := issue.NewPlatform()
	var err error
	if q.fleet, err = issue.NewFleet(now.Add(-30 * day)); err != nil {
		t.Fatal(err)
	}
	if q.machine, err = q.fleet.NewMachine(platform, now.Add(-30*day)); err != nil {
		t.Fatal(err)
	}
	q.terms = issue.Terms{Platform: platform, Issued: now.Add(-day), Next: now.Add(29 * day), Evaluation: 20}
	q.report = quote.Report{
		CPUSVN: platform.CPUSVN, Attributes: quote.Attributes{Flags: quote.FlagInit | quote.FlagMode64, XFRM: 7},
		MREnclave: [32]byte{1, 31: 0xe1}, MRSigner: [32]byte{2, 31: 0xe2}, ISVProdID: 3, ISVSVN: 4,
	}
	return q
}

// Evidence implements tee.Attester.
func (q *quoter) Evidence(ctx context.Context, reportData [64]byte) (attest.Evidence, error) {
	if q.wait != nil {
		select {
		case <-q.wait:
		case <-ctx.Done():
			return attest.Evidence{}, ctx.Err()
		}
	}
	if q.fail != nil {
		return attest.Evidence{}, q.fail
	}
	r := q.report
	r.ReportData = reportData
	b, err := q.machine.Quote(r)
	return attest.Evidence{Kind: attest.SGXQuote3, Quote: b}, err
}

// quote signs a quote of the enclave, changed by edits.
func (q *quoter) quote(t testing.TB, edits ...func(*quote.Report)) []byte {
	t.Helper()
	r := q.report
	for _, edit := range edits {
		edit(&r)
	}
	b, err := q.machine.Quote(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// stated is the fleet's collateral under its terms, changed by edits.
func (q *quoter) stated(t testing.TB, edits ...func(*issue.Terms)) verify.Collateral {
	t.Helper()
	terms := q.terms
	for _, edit := range edits {
		edit(&terms)
	}
	c, err := q.fleet.Collateral(terms)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// noon is the time of hosts in tests.
var noon2026 = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// newQuoteDomain is a domain on a machine that makes quotes, which it takes for
// genuine.
func newQuoteDomain(t testing.TB) (domain, *quoter) {
	t.Helper()
	d := newDomain(t)
	q := newQuoter(t, d.platform, noon2026)
	d.platform, d.settings.SimRoot = q, q.fleet.Root.Cert.Raw
	return d, q
}

// serves has the host answer every question for collateral.
func (h *host) serves(c verify.Collateral) {
	b := c.Append(nil)
	h.collate = func(wire.CollateralQuery) []byte { return b }
}

// newQuoteHost is a host with one core that makes and verifies quotes.
func newQuoteHost(t testing.TB) (*host, domain, *quoter) {
	t.Helper()
	d, q := newQuoteDomain(t)
	h := d.host(t, Limits{})
	h.serves(q.stated(t))
	return h, d, q
}

// verifying is the payload of a VerifyQuote.
func verifying(q []byte, more ...string) map[string]any {
	p := map[string]any{"quote": b64(q), "nonce": "bm9uY2U="}
	if len(more) > 0 {
		p["policyId"] = more[0]
	}
	return p
}
