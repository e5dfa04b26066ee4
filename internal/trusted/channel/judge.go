package channel

import (
	"context"
	"errors"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel/internal/session"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sgx"
)

// Judge implements session.Method: is it genuine, and do we want it? Evidence of
// guests is refused with attest.ErrNoVerifier by a program without their verifiers.
func (q quotes) Judge(ctx context.Context, c session.Claim) (v session.Verdict, err error) {
	e, err := attest.DecodeEvidenceOf(c.Evidence, append(guestKinds(), attest.SGXQuote3)...)
	if err != nil { // check+: evidence-kind: what was not decoded is no quote either
		return v, err
	}
	if e.Kind != attest.SGXQuote3 {
		return q.judgeGuest(e, c)
	}
	return q.judgeEnclave(ctx, e, c)
}

// judgeEnclave judges a quote of SGX. Validate compares REPORTDATA, in constant time.
func (q quotes) judgeEnclave(ctx context.Context, e attest.Evidence, c session.Claim) (v session.Verdict, err error) {
	collateral, err := q.collateral(ctx, e.Quote, c.Collateral)
	if err != nil {
		return v, err
	}
	r, err := verify.Verify(e.Quote, collateral, c.Policy.Options(q.cfg.Policy.Roots(), c.Now))
	if err != nil { // check: quote-genuine
		return v, err
	}
	d, err := validate.Check(c.Policy, &r, validate.Input{
		Now: c.Now, ReportData: c.ReportData, Admitted: q.admitted(&r),
	})
	if err != nil { // check: quote-wanted
		return v, stranger(err, machineOf(&r))
	}
	return session.Verdict{
		Identity: sgx.Identity(r.Report), Decision: d, Kind: e.Kind, Machine: machineOf(&r), Quote: &r, Until: until(&r, d),
	}, nil
}

// machineOf is the machine of a verified quote.
func machineOf(r *verify.Result) attest.Machine {
	return attest.Machine{PPID: r.Platform.PPID, Serial: r.Platform.Serial}
}

// stranger names the machine in the refusal of one that is not admitted.
func stranger(err error, m attest.Machine) error {
	if errors.Is(err, validate.ErrPlatform) {
		return &session.Stranger{Machine: m, Err: err}
	}
	return err
}

// admitted says whether grace periods apply to a machine: because this program has
// accepted it without one, or because it had been admitted already when it fell
// behind. The latter a program knows that has just started, as all do after a power
// failure. A machine that was admitted later is judged as it is.
func (q quotes) admitted(r *verify.Result) bool {
	if q.cfg.Policy.Admitted(r.Platform) {
		return true
	}
	l, ok := q.cfg.Policy.(session.Lister)
	if !ok {
		return false
	}
	behind := r.Expires
	if !r.OutOfDateSince.IsZero() && r.OutOfDateSince.Before(behind) {
		behind = r.OutOfDateSince
	}
	since := l.ListedSince(r.Platform)
	if since.IsZero() || since.After(behind) { // check: grace-admitted
		return false
	}
	return true
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
