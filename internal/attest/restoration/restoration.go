// Package restoration judges the request of a TEE that wants to restore a domain's
// DomainKey: is it a genuine ehsm-dkeyserver, on a machine that the domain's manifest
// admits, and was the session key made in it for this restoration? Custodians ask
// before they release their shares, and the TEE itself asks before it troubles them.
//
// It does no I/O and holds no secrets.
package restoration

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/admission"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/wire/escrow"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// Role is the only one in which a program restores.
const Role = manifest.RoleDKeyServer

// product is the product id (ISVPRODID) of the programs in that role.
const product = 3

var (
	// ErrDomain says that the request is of another domain than the wanted one.
	ErrDomain = errors.New("the request is of another domain")
	// ErrRole says that the program is not in the role that restores, whatever the
	// manifest says.
	ErrRole = errors.New("the program is no dkeyserver")
	// ErrCollateral says that there is no collateral to verify the evidence with.
	ErrCollateral = errors.New("collateral of the request")
)

// Options are what who judges knows beside the request.
type Options struct {
	// Domain is the id of the domain, which must be known by another way.
	Domain genesis.ID
	// Now is the time of the judgement. It never counts as earlier than the date of the manifest.
	Now time.Time
	// Collateral, if not nil, is used in place of the request's.
	Collateral *verify.Collateral
	// Guests judges evidence of confidential guests, as guests.Judge of package guests
	// does, which programs for enclaves do not link. nil: such evidence is refused.
	Guests func(Guest) (*Found, error)
}

// A Guest is evidence of a confidential guest, and under what it is to be judged.
type Guest struct {
	Evidence   attest.Evidence
	Collateral []byte // as the request has it
	Settings   *manifest.Settings
	Policy     *validate.Policy // of Role
	Roots      []*x509.Certificate
	Now        time.Time
	ReportData [64]byte
}

// Found is what evidence says, in words for people.
type Found struct {
	Program   string // such as "signer 01.., measurement 02.., version 1"
	Machine   string // its name in the manifest; empty if that admits all
	Number    string // of the machine, and its state, such as "PPID 03.., TCB UpToDate"
	Simulated bool
}

// A Verdict says what was found. Requests that are refused have none.
type Verdict struct {
	States []*manifest.State // the chain of manifests; the last is in force
	Found
}

// State is what the manifest in force says.
func (v *Verdict) State() *manifest.State { return v.States[len(v.States)-1] }

// ReportData returns what evidence for a request must bind, for a request whose
// last manifest is that of s.
func ReportData(r *escrow.Request, s *manifest.State) [64]byte {
	return attest.ReportData(attest.UseRestore, s.Domain, []byte(Role), r.Session[:], r.Backup[:], s.Hash[:])
}

// Judge verifies the manifests of a request, and its evidence under the last of
// them, strictly: no grace period counts. Errors: ErrDomain, ErrRole, ErrCollateral, admission.ErrNobody, those of
// escrow.Chain and Restorable, and of packages attest, verify and validate.
func Judge(r *escrow.Request, o Options) (*Verdict, error) {
	states, err := escrow.Chain(r.Manifests, o.Now)
	if err != nil {
		return nil, err
	}
	v := &Verdict{States: states}
	s := v.State()
	if s.Domain != o.Domain { // check: request-domain
		return nil, fmt.Errorf("%w: it is %s, wanted is %s", ErrDomain, s.Domain, o.Domain)
	}
	if err := escrow.Restorable(states); err != nil { // check+: request-restorable: the TEE asks the same before it makes a request
		return nil, err
	}
	now := o.Now
	if now.Before(s.Date) {
		now = s.Date
	}
	found, err := judge(r, s, &o, now)
	if err != nil {
		return nil, err
	}
	v.Found = *found
	return v, nil
}

// kinds are those of the evidence that is judged.
func (o *Options) kinds() []attest.Kind {
	if o.Guests == nil {
		return []attest.Kind{attest.SGXQuote3}
	}
	return []attest.Kind{attest.SGXQuote3, attest.TDXQuote4, attest.TDXQuote5, attest.SNPReport}
}

func judge(r *escrow.Request, s *manifest.State, o *Options, now time.Time) (*Found, error) {
	policy, err := admission.Policy(&s.Settings, Role)
	if err != nil {
		return nil, err
	}
	roots, err := admission.Roots(&s.Settings)
	if err != nil {
		return nil, err
	}
	e, err := attest.DecodeEvidenceOf(r.Evidence, o.kinds()...)
	if err != nil {
		return nil, err
	}
	if e.Kind == attest.SGXQuote3 {
		return judgeEnclave(e, r, policy, validate.Input{Now: now, ReportData: ReportData(r, s)}, roots, o.Collateral)
	}
	if o.Collateral != nil {
		return nil, fmt.Errorf("%w: collateral of your own is for SGX, and the evidence is a %v", ErrCollateral, e.Kind)
	}
	return o.Guests(Guest{
		Evidence: e, Collateral: r.Collateral, Settings: &s.Settings, Policy: policy, Roots: roots, Now: now, ReportData: ReportData(r, s),
	})
}

func judgeEnclave(e attest.Evidence, r *escrow.Request, policy *validate.Policy, in validate.Input, roots []*x509.Certificate, own *verify.Collateral) (*Found, error) {
	if own == nil {
		c, err := verify.DecodeCollateral(r.Collateral)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCollateral, err)
		}
		own = &c
	}
	report, err := verify.Verify(e.Quote, *own, policy.Options(roots, in.Now))
	if err != nil { // check: request-genuine
		return nil, err
	}
	d, err := validate.Check(policy, &report, in)
	if err != nil { // check: request-wanted
		return nil, err
	}
	b := &report.Report
	if b.ISVProdID != product { // check: request-role
		return nil, fmt.Errorf("%w: its product id is %d, want %d", ErrRole, b.ISVProdID, product)
	}
	return &Found{
		Program: fmt.Sprintf("signer %x, measurement %x, version %d", b.MRSigner, b.MREnclave, b.ISVSVN), Machine: d.Platform,
		Number: fmt.Sprintf("PPID %x, TCB %v", report.Platform.PPID, report.Status), Simulated: report.Simulated,
	}, nil
}
