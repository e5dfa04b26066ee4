//go:build tsm

package channel

import (
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/admission"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/guests"
	"github.com/ehsm-kms/ehsm/internal/attest/snp"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel/internal/session"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

// guestKinds are the kinds of evidence that judgeGuest judges.
func guestKinds() []attest.Kind { return guests.Kinds() }

// judgeGuest judges evidence of a confidential guest, whose collateral comes from the
// peer.
func (q quotes) judgeGuest(e attest.Evidence, c session.Claim) (session.Verdict, error) {
	var accepted *admission.Guests
	if p, ok := q.cfg.Policy.(session.GuestPolicy); ok {
		accepted = p.Guests(c.Role)
	}
	if q.cfg.PeerCollateral != nil {
		return session.Verdict{}, errors.Join(unasked(c.Collateral), fmt.Errorf("%w: collateral of its own is for SGX", ErrConfig))
	}
	v, err := guests.Judge(guests.Question{
		Evidence: e, Collateral: c.Collateral, Role: string(c.Role), Policy: c.Policy, Guests: accepted, Roots: q.cfg.Policy.Roots(),
		Now: c.Now, ReportData: c.ReportData, Admitted: q.admitted,
	})
	switch {
	case errors.Is(err, validate.ErrPlatform) || errors.Is(err, snp.ErrChip):
		return session.Verdict{}, &session.Stranger{Machine: v.Machine, Err: err}
	case errors.Is(err, guests.ErrKind):
		return session.Verdict{}, fmt.Errorf("%w: %w", ErrEvidence, err)
	case err != nil: // check: guest-wanted
		return session.Verdict{}, err
	}
	end := v.SNPUntil
	if v.Quote != nil {
		end = until(v.Quote, v.Decision)
	}
	return session.Verdict{
		Identity: tee.Identity{Measurement: v.Measurement, Product: c.Role.Product()}, Decision: v.Decision,
		Kind: e.Kind, Machine: v.Machine, Quote: v.Quote, Until: end,
	}, nil
}
