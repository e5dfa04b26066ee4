// Package restoration judges the request of a TEE that wants to restore a domain's
// DomainKey: is it a genuine ehsm-dkeyserver, on a machine that the domain's manifest
// admits, and was the session key made in it for this restoration? Custodians ask
// before they release their shares, and the TEE itself asks before it troubles them.
//
// It does no I/O and holds no secrets.
package restoration

import (
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
}

// A Verdict says what was found. Requests that are refused have none.
type Verdict struct {
	States   []*manifest.State // the chain of manifests; the last is in force
	Report   verify.Result
	Decision validate.Decision
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
	if err := v.judge(r, o.Collateral, now); err != nil {
		return nil, err
	}
	return v, nil
}

func (v *Verdict) judge(r *escrow.Request, own *verify.Collateral, now time.Time) error {
	s := v.State()
	policy, err := admission.Policy(&s.Settings, Role)
	if err != nil {
		return err
	}
	roots, err := admission.Roots(&s.Settings)
	if err != nil {
		return err
	}
	e, err := attest.DecodeEvidence(r.Evidence)
	if err != nil {
		return err
	}
	if own == nil {
		c, err := verify.DecodeCollateral(r.Collateral)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrCollateral, err)
		}
		own = &c
	}
	if v.Report, err = verify.Verify(e.Quote, *own, policy.Options(roots, now)); err != nil {
		return err
	}
	v.Decision, err = validate.Check(policy, &v.Report, validate.Input{Now: now, ReportData: ReportData(r, s)})
	if err != nil { // check: request-wanted
		return err
	}
	if v.Report.Report.ISVProdID != product { // check: request-role
		return fmt.Errorf("%w: its product id is %d, want %d", ErrRole, v.Report.Report.ISVProdID, product)
	}
	return nil
}
