package channel

import (
	"context"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel/internal/session"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sgx"
)

// Judge implements session.Method: is it genuine, and do we want it? Validate
// compares REPORTDATA, in constant time.
func (q quotes) Judge(ctx context.Context, c session.Claim) (v session.Verdict, err error) {
	e, err := attest.DecodeEvidence(c.Evidence)
	if err != nil { // check+: evidence-kind: what was not decoded is no quote either
		return v, err
	}
	collateral, err := q.collateral(ctx, e.Quote, c.Collateral)
	if err != nil {
		return v, err
	}
	r, err := verify.Verify(e.Quote, collateral, c.Policy.Options(q.cfg.Policy.Roots(), c.Now))
	if err != nil { // check: quote-genuine
		return v, err
	}
	d, err := validate.Check(c.Policy, &r, validate.Input{
		Now: c.Now, ReportData: c.ReportData, Admitted: q.cfg.Policy.Admitted(r.Platform),
	})
	if err != nil { // check: quote-wanted
		return v, err
	}
	return session.Verdict{Identity: sgx.Identity(r.Report), Decision: d, Quote: &r, Until: until(&r, d)}, nil
}

// until is when the first of what the verdict rests on ends. With a grace period
// that is the end of the grace.
func until(r *verify.Result, d validate.Decision) time.Time {
	end := r.Expires
	if !d.CollateralGraceUntil.IsZero() {
		end = d.CollateralGraceUntil
	}
	for _, t := range []time.Time{r.CertsExpire, d.TCBGraceUntil} {
		if !t.IsZero() && t.Before(end) {
			end = t
		}
	}
	return end
}
