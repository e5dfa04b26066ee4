// Package admission makes of a domain's settings what the verifier of quotes asks
// for: the roots under which a quote is genuine, and the policy under which it is
// wanted, by the role of the program that sent it.
//
// It does no I/O and holds no secrets.
package admission

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

var (
	// ErrNobody says that the settings admit no program to a role, or no machine.
	ErrNobody = errors.New("the domain's manifest admits nobody")
	// ErrRoot says that a trust root of the settings is none to be used.
	ErrRoot = errors.New("trust root of the domain's manifest")
)

// Roots returns the certificates under which quotes are genuine in a domain: that of
// Intel, if its settings name it, and, where simulation is allowed, of its simulated
// platforms. Those of AMD are for reports; see Guests. It does not rely on the rules of package manifest: a root
// that could pass for Intel's is refused. Errors: ErrRoot.
func Roots(s *manifest.Settings) ([]*x509.Certificate, error) {
	var roots []*x509.Certificate
	for _, name := range s.TrustRoots {
		switch name {
		case manifest.IntelSGX:
			roots = append(roots, verify.IntelRoot())
		case manifest.AMDSNP:
		default:
			return nil, fmt.Errorf("%w: %q is unknown", ErrRoot, name)
		}
	}
	if len(s.SimRoot) == 0 {
		return roots, nil
	}
	if !s.AllowSim {
		return nil, fmt.Errorf("%w: it is simulated, which the manifest does not allow", ErrRoot)
	}
	root, err := x509.ParseCertificate(s.SimRoot)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRoot, err)
	}
	if !slices.Contains(root.Subject.Organization, verify.SimulationOrganization) {
		return nil, fmt.Errorf("%w: the one for simulated platforms is not marked as such", ErrRoot)
	}
	return append(roots, root), nil
}

// Policy returns what an enclave must be to take part in a role, and on which of
// Intel's machines a guest may be; see GuestsOf. It never accepts code in debug
// mode. Errors: ErrNobody for a role without code and settings without machines, and
// those of Accepted.
func Policy(s *manifest.Settings, role string) (*validate.Policy, error) {
	p := &validate.Policy{
		AnyPlatform: s.AnyPlatform, MinTCBEvaluation: s.MinEvaluation, AllowSim: s.AllowSim,
		TCBGrace: time.Duration(s.TCBGrace) * time.Hour, CollateralGrace: time.Duration(s.CollateralGrace) * time.Hour,
	}
	for _, c := range s.Code {
		if c.Role == role && !c.IsGuest() {
			p.Enclaves = append(p.Enclaves, validate.Enclave{
				Name: role, MREnclave: c.MREnclave, MRSigner: c.MRSigner, ISVProdID: c.Product, MinISVSVN: c.MinSVN,
			})
		}
	}
	for _, m := range s.Platforms {
		if m.Chip == (manifest.ChipID{}) {
			p.Platforms = append(p.Platforms, validate.Platform{Name: m.Name, PPID: m.PPID, Serial: m.Serial})
		}
	}
	switch {
	case len(p.Enclaves) == 0 && GuestsOf(s, role) == nil:
		return nil, fmt.Errorf("%w: no code in the role %q", ErrNobody, role)
	case len(s.Platforms) == 0 && !p.AnyPlatform:
		return nil, fmt.Errorf("%w: no platforms", ErrNobody)
	}
	var err error
	p.Accepted, err = Accepted(s.Accept)
	return p, err
}

// Accepted returns the acceptances of a domain in the words of package validate.
// Errors: for a status that is unknown.
func Accepted(list []genesis.Acceptance) ([]validate.Acceptance, error) {
	var all []validate.Acceptance
	for _, a := range list {
		status, err := verify.ParseStatus(a.Status)
		if err != nil {
			return nil, fmt.Errorf("accepted TCB status of the manifest: %w", err)
		}
		all = append(all, validate.Acceptance{Status: status, Advisory: a.Advisory, Reason: a.Reason})
	}
	return all, nil
}
