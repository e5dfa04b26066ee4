//go:build tsm

package channel

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/admission"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/attest/snp"
	"github.com/ehsm-kms/ehsm/internal/attest/tdx"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel/internal/session"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// guestKinds are the kinds of evidence that judgeGuest judges.
func guestKinds() []attest.Kind {
	return []attest.Kind{attest.TDXQuote4, attest.TDXQuote5, attest.SNPReport}
}

// judgeGuest judges evidence of a confidential guest. It is measured as a whole, so
// that the role is what the manifest lists it in. Its collateral comes from the peer.
func (q quotes) judgeGuest(e attest.Evidence, c session.Claim) (session.Verdict, error) {
	var guests *admission.Guests
	if p, ok := q.cfg.Policy.(session.GuestPolicy); ok {
		guests = p.Guests(c.Role)
	}
	if guests == nil {
		return session.Verdict{}, fmt.Errorf("%w: no guest is accepted in the role %q", validate.ErrEnclave, c.Role)
	}
	if q.cfg.PeerCollateral != nil {
		return session.Verdict{}, errors.Join(unasked(c.Collateral), fmt.Errorf("%w: collateral of its own is for SGX", ErrConfig))
	}
	if e.Kind == attest.SNPReport {
		return q.judgeSNP(e, c, guests)
	}
	return q.judgeTDX(e, c, guests)
}

// judgeTDX judges a quote of TDX. Check compares REPORTDATA, in constant time.
func (q quotes) judgeTDX(e attest.Evidence, c session.Claim, guests *admission.Guests) (v session.Verdict, err error) {
	collateral, err := verify.DecodeCollateral(c.Collateral)
	if err != nil {
		return v, err
	}
	r, err := tdx.Verify(e.Quote, collateral, c.Policy.Options(q.cfg.Policy.Roots(), c.Now))
	if err != nil { // check: tdx-genuine
		return v, err
	}
	if kind := attest.KindOf(e.Quote); kind != e.Kind { // check: tdx-kind
		return v, fmt.Errorf("%w: it is a %v, not a %v", ErrEvidence, kind, e.Kind)
	}
	p := &tdx.Policy{Machines: *c.Policy}
	for _, g := range guests.TDX {
		var rtmr [4][48]byte
		for i, r := range g.RTMR() {
			rtmr[i] = r
		}
		p.Guests = append(p.Guests, tdx.Guest{Name: string(c.Role), MRTD: g.MRTD, RTMR: rtmr, MRConfigID: g.MRConfigID})
	}
	machine := machineOf(&r.Result)
	d, err := tdx.Check(p, r, validate.Input{Now: c.Now, ReportData: c.ReportData, Admitted: q.admitted(&r.Result)})
	if err != nil { // check: tdx-wanted
		return v, stranger(err, machine)
	}
	body := &r.Quote.Report
	id := tee.Identity{Measurement: attest.TDXMeasurement(body.MRTD, body.MRConfigID, body.RTMR), Product: c.Role.Product()}
	return session.Verdict{
		Identity: id, Decision: d, Kind: e.Kind, Machine: machine, Quote: &r.Result, Until: until(&r.Result, d),
	}, nil
}

// judgeSNP judges a report of SEV-SNP. Check compares REPORTDATA, in constant time.
// Chips have no grace period: what their firmware must be is the manifest's to say.
func (q quotes) judgeSNP(e attest.Evidence, c session.Claim, guests *admission.Guests) (v session.Verdict, err error) {
	collateral, err := snp.DecodeCollateral(c.Collateral)
	if err != nil {
		return v, err
	}
	if !bytes.Equal(collateral.Append(nil), c.Collateral) { // check: snp-collateral
		return v, fmt.Errorf("%w: it has another encoding", snp.ErrCollateral)
	}
	o := snp.Options{Now: c.Now}
	if guests.AMD {
		// Others of the policy are not AMD's: the names in their certificates do not
		// fit a report.
		o.Roots = slices.Concat(snp.Roots(), q.cfg.Policy.Roots())
	}
	r, err := snp.Verify(e.Quote, collateral, o)
	if err != nil { // check: snp-genuine
		return v, err
	}
	machine := attest.Machine{Chip: r.Report.ChipID}
	d, err := snp.Check(snpPolicy(guests, c.Role), r, c.ReportData, c.Now)
	switch {
	case errors.Is(err, snp.ErrChip):
		return v, &session.Stranger{Machine: machine, Err: err}
	case err != nil: // check: snp-wanted
		return v, err
	}
	id := tee.Identity{Measurement: attest.SNPMeasurement(r.Report.Measurement, r.Report.HostData), Product: c.Role.Product()}
	if !guests.Has(id.Measurement) { // check: snp-host-data
		return v, fmt.Errorf("%w: host data %x", snp.ErrGuest, r.Report.HostData)
	}
	return session.Verdict{
		Identity: id, Decision: validate.Decision{Enclave: d.Guest, Platform: d.Chip}, Kind: e.Kind, Machine: machine, Until: snpUntil(r),
	}, nil
}

// snpPolicy is the policy of guests in a role.
func snpPolicy(guests *admission.Guests, r Role) *snp.Policy {
	least := guests.MinTCB
	p := &snp.Policy{AnyChip: guests.AnyChip, MinTCB: snp.TCB{Bootloader: least.Bootloader, TEE: least.TEE, SNP: least.SNP, Microcode: least.Microcode}}
	for _, g := range guests.SNP {
		p.Guests = append(p.Guests, snp.Guest{Name: string(r), Measurement: g.Measurement})
	}
	for _, m := range guests.Chips {
		if m.Chip != (manifest.ChipID{}) {
			p.Chips = append(p.Chips, snp.Chip{Name: m.Name, ID: m.Chip})
		}
	}
	return p
}

// snpUntil is when the first of what the verdict rests on ends.
func snpUntil(r *snp.Result) time.Time {
	if r.CRLExpires.Before(r.CertsExpire) {
		return r.CRLExpires
	}
	return r.CertsExpire
}
