// Package validate answers one question about a verified SGX quote: do I want
// it? Package verify has said that it is genuine; a Policy says which enclaves,
// on which machines, at which TCB status are accepted. An empty policy accepts
// nothing.
//
// It does no I/O and holds no secrets.
package validate

import (
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// Errors of Check, wrapped with what was found.
var (
	ErrEmptyPolicy = errors.New("policy names no enclave, or no platform")
	ErrNotVerified = errors.New("quote has not been verified")
	ErrTime        = errors.New("time is before the issue of the collateral")
	ErrSimulated   = errors.New("platform is simulated, which the policy does not allow")
	ErrReportData  = errors.New("quote was made for another purpose or peer")
	ErrDebug       = errors.New("enclave runs in debug mode")
	ErrEnclave     = errors.New("enclave is not one of the policy")
	ErrSVN         = errors.New("enclave's version is below the minimum")
	ErrPlatform    = errors.New("platform is not admitted")
	ErrEvaluation  = errors.New("tcbEvaluationDataNumber is below the minimum")
	ErrCertificate = errors.New("certificate has expired since the verification")
	ErrStale       = errors.New("collateral has expired")
	ErrStatus      = errors.New("TCB status is not accepted")
	ErrGraceOver   = errors.New("TCB is out of date and the grace period has ended")
)

// A Policy says what is accepted. Its file format is read by ParsePolicy.
type Policy struct {
	// Enclaves are accepted, each for what its name says.
	Enclaves []Enclave
	// Platforms are the admitted machines.
	Platforms []Platform
	// AnyPlatform admits every machine that Intel vouches for. Attestation keys
	// have been extracted from machines by physical attacks, so this trusts
	// everyone who owns one.
	AnyPlatform bool
	// Accepted lists what is accepted beside UpToDate.
	Accepted []Acceptance
	// MinTCBEvaluation is the least tcbEvaluationDataNumber.
	MinTCBEvaluation uint32
	// TCBGrace is for how long after a TCB recovery a platform that was admitted
	// before may be out of date.
	TCBGrace time.Duration
	// CollateralGrace is for how long after its end collateral serves a platform
	// that was admitted before.
	CollateralGrace time.Duration
	// AllowDebug accepts enclaves whose memory the host can read.
	AllowDebug bool
	// AllowSim accepts simulated platforms: nothing is protected by hardware.
	AllowSim bool
}

// An Enclave is accepted by its measurement, or else by signer, product and
// version. With neither it matches nothing.
type Enclave struct {
	Name      string   // what the enclave is accepted as, such as "core"
	MREnclave [32]byte // exactly this code
	MRSigner  [32]byte // if MREnclave is zero: code of this signer,
	ISVProdID uint16   // of exactly this product,
	MinISVSVN uint16   // of this version or a newer one
}

// A Platform is a machine, named by one of two numbers.
type Platform struct {
	Name   string
	PPID   [16]byte // of the machine
	Serial string   // if PPID is zero: of its PCK certificate, lower-case hex; changes with its TCB
}

// An Acceptance accepts a status where the advisory is the cause. A quote with
// several advisories needs one for each.
type Acceptance struct {
	Status   verify.Status
	Advisory string // such as INTEL-SA-00615
	Reason   string // why it does no harm here; for those who read the policy
}

// Input is what the relying party knows beside quote and policy.
type Input struct {
	// Now is the time of the decision, that of the verification or later.
	Now time.Time
	// ReportData is what the quote must bind; see attest.ReportData.
	ReportData [64]byte
	// Admitted says that this relying party has accepted the platform before,
	// without a grace period. It must come from a memory that the host cannot
	// write; only then do grace periods apply.
	Admitted bool
}

// A Decision says why a quote was accepted.
type Decision struct {
	Enclave  string // name of the policy's entry
	Platform string // name of the policy's entry; empty with AnyPlatform
	// TCBGraceUntil and CollateralGraceUntil are set if the platform was
	// accepted only thanks to a grace period: when it ends.
	TCBGraceUntil, CollateralGraceUntil time.Time
}

// Options returns the options under which quotes for this policy are verified.
func (p *Policy) Options(roots []*x509.Certificate, now time.Time) verify.Options {
	return verify.Options{
		Roots: roots, Now: now, MinTCBEvaluation: p.MinTCBEvaluation, CollateralGrace: p.CollateralGrace, AllowSim: p.AllowSim,
	}
}

// Warnings says what of the policy a person should know at every start.
func (p *Policy) Warnings() []string {
	var all []string
	if p.AllowSim {
		all = append(all, "simulated platforms are accepted: keys are not protected by hardware")
	}
	if p.AllowDebug {
		all = append(all, "debug enclaves are accepted: the host can read their memory")
	}
	if p.AnyPlatform {
		all = append(all, "any platform is admitted: an attestation key extracted from any machine is enough")
	}
	return all
}

// Check decides about a verified quote. Errors: those named Err in this package
// that end in what the quote lacks.
func Check(p *Policy, r *verify.Result, in Input) (Decision, error) {
	if len(p.Enclaves) == 0 {
		return Decision{}, ErrEmptyPolicy
	}
	if err := p.usable(r, in); err != nil {
		return Decision{}, err
	}
	if subtle.ConstantTimeCompare(r.Report.ReportData[:], in.ReportData[:]) != 1 {
		return Decision{}, ErrReportData
	}
	enclave, err := p.CheckEnclave(&r.Report)
	if err != nil {
		return Decision{}, err
	}
	d, err := p.CheckMachine(r, in)
	if err != nil {
		return Decision{}, err
	}
	d.Enclave = enclave
	return d, nil
}

// usable refuses what can be decided about in no case.
func (p *Policy) usable(r *verify.Result, in Input) error {
	switch {
	case len(p.Platforms) == 0 && !p.AnyPlatform:
		return ErrEmptyPolicy
	case r.Status == 0 || r.LatestIssue.IsZero() || r.Expires.IsZero() || r.CertsExpire.IsZero():
		return ErrNotVerified
	case in.Now.Before(r.LatestIssue):
		return fmt.Errorf("%w: %s", ErrTime, in.Now.Format(time.RFC3339))
	case r.Simulated && !p.AllowSim:
		return ErrSimulated
	}
	return nil
}

// CheckMachine decides about the machine and its TCB, whatever runs on it: it
// reads neither r.Report nor in.ReportData. The decision names no enclave.
// Errors: those of Check that are not about the enclave.
func (p *Policy) CheckMachine(r *verify.Result, in Input) (d Decision, err error) {
	if err := p.usable(r, in); err != nil {
		return Decision{}, err
	}
	if d.Platform, err = p.platform(&r.Platform); err != nil {
		return Decision{}, err
	}
	if r.TCBEvaluation < p.MinTCBEvaluation {
		return Decision{}, fmt.Errorf("%w: %d, want at least %d", ErrEvaluation, r.TCBEvaluation, p.MinTCBEvaluation)
	}
	if d.CollateralGraceUntil, err = p.fresh(r, in); err != nil {
		return Decision{}, err
	}
	if d.TCBGraceUntil, err = p.status(r, in); err != nil {
		return Decision{}, err
	}
	return d, nil
}

// CheckEnclave decides about what runs, whatever the machine, and returns the
// name of the policy's entry: enough for a local report, which the machine itself
// vouches for. It does not read REPORTDATA. Errors: ErrDebug, ErrEnclave, ErrSVN.
func (p *Policy) CheckEnclave(r *quote.Report) (name string, err error) {
	if r.Attributes.Debug() && !p.AllowDebug {
		return "", ErrDebug
	}
	return p.enclave(r)
}

// enclave finds the entry that accepts the enclave.
func (p *Policy) enclave(r *quote.Report) (name string, err error) {
	err = fmt.Errorf("%w: MRENCLAVE %x, MRSIGNER %x, product %d", ErrEnclave, r.MREnclave, r.MRSigner, r.ISVProdID)
	for i := range p.Enclaves {
		e := &p.Enclaves[i]
		switch {
		case e.MREnclave != [32]byte{}:
			if e.MREnclave == r.MREnclave {
				return e.Name, nil
			}
		case e.MRSigner == [32]byte{} || e.MRSigner != r.MRSigner || e.ISVProdID != r.ISVProdID:
		case e.MinISVSVN > r.ISVSVN:
			err = fmt.Errorf("%w: %s has ISVSVN %d, want at least %d", ErrSVN, e.Name, r.ISVSVN, e.MinISVSVN)
		default:
			return e.Name, nil
		}
	}
	return "", err
}

// platform finds the entry that admits the machine.
func (p *Policy) platform(m *verify.Platform) (name string, err error) {
	for i := range p.Platforms {
		e := &p.Platforms[i]
		if e.PPID != [16]byte{} && e.PPID == m.PPID || e.PPID == [16]byte{} && e.Serial != "" && e.Serial == m.Serial {
			return e.Name, nil
		}
	}
	if p.AnyPlatform {
		return "", nil
	}
	return "", fmt.Errorf("%w: PPID %x, PCK serial %s", ErrPlatform, m.PPID, m.Serial)
}

// fresh accepts collateral that is in force, or in its grace period for an
// admitted platform, of which it returns the end.
func (p *Policy) fresh(r *verify.Result, in Input) (until time.Time, err error) {
	if in.Now.After(r.CertsExpire) {
		return until, fmt.Errorf("%w: on %s", ErrCertificate, r.CertsExpire.Format(time.RFC3339))
	}
	if !r.Stale && !in.Now.After(r.Expires) {
		return until, nil
	}
	until = r.Expires.Add(p.CollateralGrace)
	if !in.Admitted || in.Now.After(until) {
		return time.Time{}, fmt.Errorf("%w: on %s", ErrStale, r.Expires.Format(time.RFC3339))
	}
	return until, nil
}

// status accepts the TCB status for what the policy says of it, or for the grace
// period of an admitted platform, of which it returns the end.
func (p *Policy) status(r *verify.Result, in Input) (until time.Time, err error) {
	if p.accepts(r.Status, r.Advisories) {
		return until, nil
	}
	refusal := fmt.Errorf("%w: %v with %v", ErrStatus, r.Status, r.Advisories)
	if !in.Admitted || !p.graceCovers(r) {
		return until, refusal
	}
	until = r.OutOfDateSince.Add(p.TCBGrace)
	if in.Now.After(until) {
		return time.Time{}, fmt.Errorf("%w: on %s: %v with %v", ErrGraceOver, until.Format(time.RFC3339), r.Status, r.Advisories)
	}
	return until, nil
}

// accepts reports whether a status is accepted for each of its advisories. A
// status without advisories gives no cause to accept.
func (p *Policy) accepts(s verify.Status, advisories []string) bool {
	if s == verify.UpToDate {
		return true
	}
	if s == verify.Revoked || len(advisories) == 0 {
		return false
	}
	for _, advisory := range advisories {
		if !slices.ContainsFunc(p.Accepted, func(a Acceptance) bool { return a.Status == s && a.Advisory == advisory }) {
			return false
		}
	}
	return true
}

// graceCovers reports whether being out of date is all that is wrong with the
// platform. The rest of its status must be accepted without grace. Of a platform
// that is out of date and also needs configuration the advisories do not say
// which is for what, so that any acceptance of needed configuration counts.
func (p *Policy) graceCovers(r *verify.Result) bool {
	if r.OutOfDateSince.IsZero() || r.Status != verify.OutOfDate && r.Status != verify.OutOfDateConfigurationNeeded {
		return false
	}
	switch r.PlatformStatus {
	case verify.OutOfDate:
		return true
	case verify.OutOfDateConfigurationNeeded:
		return slices.ContainsFunc(p.Accepted, func(a Acceptance) bool {
			return a.Status == verify.ConfigurationNeeded || a.Status == verify.ConfigurationAndSWHardeningNeeded
		})
	}
	return p.accepts(r.PlatformStatus, r.PlatformAdvisories) // only the quoting enclave is out of date
}
