// Package guests judges evidence of confidential guests, of TDX and SEV-SNP, under a
// domain's settings: is it genuine, is the guest one of a role, and may it be on that
// machine? A guest is measured as a whole, so that its role is what the manifest lists
// it in.
//
// It does no I/O and holds no secrets. Programs for enclaves do not link it.
package guests

import (
	"bytes"
	"crypto/x509"
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
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// ErrKind says that evidence is of another kind than it says.
var ErrKind = errors.New("evidence of another kind")

// Kinds are those that Judge judges.
func Kinds() []attest.Kind {
	return []attest.Kind{attest.TDXQuote4, attest.TDXQuote5, attest.SNPReport}
}

// A Question is what is to be judged, and under what.
type Question struct {
	Evidence   attest.Evidence
	Collateral []byte            // collateral-v1, or that of SEV-SNP
	Role       string            // that the guest claims
	Policy     *validate.Policy  // of the role: on which of Intel's machines it may be
	Guests     *admission.Guests // of the role; nil: none
	Roots      []*x509.Certificate
	Now        time.Time
	ReportData [64]byte
	// Admitted, if not nil, says whether grace periods apply to a machine of Intel's.
	Admitted func(*verify.Result) bool
}

// A Verdict says what was found.
type Verdict struct {
	Measurement [32]byte // attest.TDXMeasurement or SNPMeasurement
	Machine     attest.Machine
	Decision    validate.Decision
	Quote       *verify.Result // of TDX; nil: a report of SEV-SNP
	// SNPUntil is when the first of a chip's certificates and revocation lists ends.
	SNPUntil time.Time
}

// Judge judges. Where the error is validate.ErrPlatform or snp.ErrChip, the verdict has
// the machine that is not admitted, and nothing else. Errors: validate.ErrEnclave where the role has no guests, ErrKind, and those of packages
// tdx, snp, verify and validate.
func Judge(q Question) (Verdict, error) {
	switch {
	case q.Guests == nil: // check: guest-role
		return Verdict{}, fmt.Errorf("%w: no guest is accepted in the role %q", validate.ErrEnclave, q.Role)
	case q.Evidence.Kind == attest.SNPReport:
		return q.snp()
	}
	return q.tdx()
}

// tdx judges a quote of TDX. Check compares REPORTDATA, in constant time.
func (q *Question) tdx() (v Verdict, err error) {
	collateral, err := verify.DecodeCollateral(q.Collateral)
	if err != nil {
		return v, err
	}
	r, err := tdx.Verify(q.Evidence.Quote, collateral, q.Policy.Options(q.Roots, q.Now))
	if err != nil { // check: tdx-genuine
		return v, err
	}
	if kind := attest.KindOf(q.Evidence.Quote); kind != q.Evidence.Kind { // check: tdx-kind
		return v, fmt.Errorf("%w: it is a %v, not a %v", ErrKind, kind, q.Evidence.Kind)
	}
	machine := attest.Machine{PPID: r.Platform.PPID, Serial: r.Platform.Serial}
	d, err := tdx.Check(q.tdxPolicy(), r, validate.Input{
		Now: q.Now, ReportData: q.ReportData, Admitted: q.Admitted != nil && q.Admitted(&r.Result),
	})
	if errors.Is(err, validate.ErrPlatform) {
		return Verdict{Machine: machine}, err
	}
	if err != nil { // check: tdx-wanted
		return v, err
	}
	body := &r.Quote.Report
	return Verdict{
		Measurement: attest.TDXMeasurement(body.MRTD, body.MRConfigID, body.RTMR), Machine: machine, Decision: d, Quote: &r.Result,
	}, nil
}

func (q *Question) tdxPolicy() *tdx.Policy {
	p := &tdx.Policy{Machines: *q.Policy}
	for _, g := range q.Guests.TDX {
		var rtmr [4][48]byte
		for i, r := range g.RTMR() {
			rtmr[i] = r
		}
		p.Guests = append(p.Guests, tdx.Guest{Name: q.Role, MRTD: g.MRTD, RTMR: rtmr, MRConfigID: g.MRConfigID})
	}
	return p
}

// snp judges a report of SEV-SNP. Check compares REPORTDATA, in constant time. Chips
// have no grace period: what their firmware must be is the manifest's to say.
func (q *Question) snp() (v Verdict, err error) {
	collateral, err := snp.DecodeCollateral(q.Collateral)
	if err != nil {
		return v, err
	}
	if !bytes.Equal(collateral.Append(nil), q.Collateral) { // check: snp-collateral
		return v, fmt.Errorf("%w: it has another encoding", snp.ErrCollateral)
	}
	o := snp.Options{Now: q.Now}
	if q.Guests.AMD {
		// Others of the policy are not AMD's: the names in their certificates do not
		// fit a report.
		o.Roots = slices.Concat(snp.Roots(), q.Roots)
	}
	r, err := snp.Verify(q.Evidence.Quote, collateral, o)
	if err != nil { // check: snp-genuine
		return v, err
	}
	machine := attest.Machine{Chip: r.Report.ChipID}
	d, err := snp.Check(q.snpPolicy(), r, q.ReportData, q.Now)
	if errors.Is(err, snp.ErrChip) {
		return Verdict{Machine: machine}, err
	}
	if err != nil { // check: snp-wanted
		return v, err
	}
	measurement := attest.SNPMeasurement(r.Report.Measurement, r.Report.HostData)
	if !q.Guests.Has(measurement) { // check: snp-host-data
		return v, fmt.Errorf("%w: host data %x", snp.ErrGuest, r.Report.HostData)
	}
	return Verdict{
		Measurement: measurement, Machine: machine, Decision: validate.Decision{Enclave: d.Guest, Platform: d.Chip}, SNPUntil: snpUntil(r),
	}, nil
}

func (q *Question) snpPolicy() *snp.Policy {
	least := q.Guests.MinTCB
	p := &snp.Policy{AnyChip: q.Guests.AnyChip, MinTCB: snp.TCB{Bootloader: least.Bootloader, TEE: least.TEE, SNP: least.SNP, Microcode: least.Microcode}}
	for _, g := range q.Guests.SNP {
		p.Guests = append(p.Guests, snp.Guest{Name: q.Role, Measurement: g.Measurement})
	}
	for _, m := range q.Guests.Chips {
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
