package manifest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
)

// Mode is what a domain is for.
type Mode string

// The modes.
const (
	// Production refuses simulated platforms and enrollment in which the host
	// sees the API key.
	Production  Mode = "production"
	Development Mode = "development"
)

// Enrollment says who may enroll by a plain call, in which the host sees the API
// key.
type Enrollment string

// The modes of enrollment.
const (
	EnrollmentOpen   Enrollment = "open"   // anyone who reaches the service
	EnrollmentClosed Enrollment = "closed" // nobody
)

// Audit says when entries of the audit trail are durable.
type Audit string

// The modes of audit.
const (
	// Batched has entries of mutations and of reads of secrets durable before the
	// reply, others within 50 ms.
	Batched Audit = "batched"
	Sync    Audit = "sync" // every entry before the reply
)

// Trust roots, of which the verifiers have the certificates.
const (
	IntelSGX = "intel-sgx" // Intel's SGX root CA, which vouches for TDX too
	AMDSNP   = "amd-snp"   // AMD's root keys of Milan and Genoa
)

// Settings are everything that decides security in a domain. TEE programs take
// them from here and from nowhere else.
type Settings struct {
	Mode Mode `json:"mode"`
	// AllowSim admits simulated platforms: keys are then not protected by hardware.
	AllowSim bool `json:"allowSim"`
	// SimRoot is the root certificate, in DER, of the simulated platforms whose
	// quotes are taken for genuine. Only with AllowSim; nil: none.
	SimRoot []byte `json:"simRoot,omitempty"`
	// TrustRoots names the manufacturers' roots under which quotes are genuine.
	TrustRoots []string `json:"trustRoots,omitempty"`
	// Code is what may take part in the domain, each program in its role.
	Code []Code `json:"code,omitempty"`
	// Platforms are the machines that may take part.
	Platforms []Platform `json:"platforms,omitempty"`
	// AnyPlatform admits all machines of the trusted manufacturers. Attestation
	// keys have been extracted from machines, so this trusts everyone who owns one.
	AnyPlatform bool `json:"anyPlatform"`
	// HSMWithoutTEE lets a dkeyserver on a machine without a TEE keep the DomainKey
	// under the HSM: whoever has the machine has the HSM's PIN and then the key.
	// Only with root hsm and AllowSim.
	HSMWithoutTEE bool `json:"hsmWithoutTEE,omitempty"`
	// DomainKey says which versions of the DomainKey there are; zero: the first, which
	// the genesis made.
	DomainKey DomainKey `json:"domainKey,omitzero"`
	// Accept lists what is accepted beside platforms that are up to date.
	Accept []genesis.Acceptance `json:"accept,omitempty"`
	// MinEvaluation is the least tcbEvaluationDataNumber of collateral.
	MinEvaluation uint32 `json:"minEvaluationNumber,omitempty"`
	// SNPMinTCB is what the firmware of SEV-SNP chips must reach; zero: none does.
	SNPMinTCB SNPTCB `json:"snpMinTcb,omitzero"`
	// TCBGrace is for how long, in hours, an admitted platform may be out of date.
	TCBGrace int `json:"tcbGraceHours"`
	// CollateralGrace is for how long after its end, in hours, collateral serves an
	// admitted platform.
	CollateralGrace int `json:"collateralGraceHours"`
	// RequestWindow is how far a request's timestamp may lie from now, in seconds.
	RequestWindow int        `json:"requestWindowSeconds"`
	Enrollment    Enrollment `json:"enrollment"`
	// DeletionWindow is for how many days a deleted key can be restored.
	DeletionWindow int `json:"deletionWindowDays"`
	// DisabledKeySpecs are of no new key; keys that exist stay usable.
	DisabledKeySpecs []api.KeySpec `json:"disabledKeySpecs,omitempty"`
	// DisabledPaddings are refused in every RSA operation.
	DisabledPaddings []api.PaddingMode `json:"disabledPaddings,omitempty"`
	// Lease is for how long, in hours, a node serves without a dkeyserver.
	Lease int   `json:"leaseHours"`
	Audit Audit `json:"audit"`
	// SealedOnly has cores refuse signed requests in clear, and those that whoever has
	// read them in clear could have sealed. It excludes plain enrollment.
	SealedOnly bool `json:"sealedOnly,omitempty"`
	// Limits are those of each app; zero: none.
	Limits Limits `json:"limits,omitzero"`
}

// Limits of the settings.
const (
	minWindow   = 60       // seconds
	maxWindow   = 3600     // seconds
	maxGrace    = 365 * 24 // hours
	maxLease    = 365 * 24 // hours
	maxDeletion = 30       // days
)

// Defaults returns the settings of a new domain of a mode: what is safe, and what
// can be chosen only by those who make the domain is left empty.
func Defaults(m Mode) Settings {
	s := Settings{
		Mode: m, TrustRoots: []string{IntelSGX}, TCBGrace: 30 * 24, RequestWindow: int(genesis.DefaultWindow / time.Second),
		Enrollment: EnrollmentClosed, DeletionWindow: 7, Lease: 72, Audit: Batched,
	}
	if m == Development {
		s.AllowSim, s.Enrollment = true, EnrollmentOpen
		return s
	}
	s.Limits = generous()
	return s
}

// Window is RequestWindow as a duration.
func (s *Settings) Window() time.Duration { return time.Duration(s.RequestWindow) * time.Second }

// PlainEnrollment reports whether a plain call of Enroll is served.
func (s *Settings) PlainEnrollment() bool {
	return s.Mode == Development && s.Enrollment == EnrollmentOpen
}

func (s *Settings) validate() error {
	for _, check := range []func() error{
		s.validateModes, s.validateNumbers, s.validateRoots, s.validateCode, s.validatePlatforms,
		s.DomainKey.validate, s.Limits.validate, func() error { return validateAccept(s.Accept) },
		func() error { return validateNames("disabledKeySpecs", s.DisabledKeySpecs, api.KeySpecs()) },
		func() error { return validateNames("disabledPaddings", s.DisabledPaddings, switchable()) },
	} {
		if err := check(); err != nil {
			return fmt.Errorf("settings: %w", err)
		}
	}
	return nil
}

// switchable are the paddings that can be switched off.
func switchable() []api.PaddingMode { return []api.PaddingMode{api.PKCS1, api.PSS, api.OAEP} }

func (s *Settings) validateModes() error {
	production := s.Mode == Production
	switch {
	case !production && s.Mode != Development:
		return fmt.Errorf("mode %q, want %s or %s", s.Mode, Production, Development)
	case s.Enrollment != EnrollmentOpen && s.Enrollment != EnrollmentClosed:
		return fmt.Errorf("enrollment %q, want %s or %s", s.Enrollment, EnrollmentOpen, EnrollmentClosed)
	case s.Audit != Batched && s.Audit != Sync:
		return fmt.Errorf("audit %q, want %s or %s", s.Audit, Batched, Sync)
	case s.HSMWithoutTEE && !s.AllowSim:
		return errors.New("hsmWithoutTEE without allowSim: no machine without a TEE may take part")
	case s.SealedOnly && s.Enrollment == EnrollmentOpen:
		return errors.New("sealedOnly with open enrollment, in which the host sees the API key")
	case production && s.AllowSim:
		return errors.New("allowSim in production mode")
	case production && s.Enrollment == EnrollmentOpen:
		return errors.New("open enrollment in production mode")
	case production && len(s.TrustRoots) == 0:
		return errors.New("production mode without trust roots")
	}
	return nil
}

func (s *Settings) validateNumbers() error {
	for _, n := range []struct {
		name                  string
		value, least, highest int
	}{
		{"tcbGraceHours", s.TCBGrace, 0, maxGrace},
		{"collateralGraceHours", s.CollateralGrace, 0, maxGrace},
		{"requestWindowSeconds", s.RequestWindow, minWindow, maxWindow},
		{"deletionWindowDays", s.DeletionWindow, 0, maxDeletion},
		{"leaseHours", s.Lease, 1, maxLease},
	} {
		if n.value < n.least || n.value > n.highest {
			return fmt.Errorf("%s is %d, want %d to %d", n.name, n.value, n.least, n.highest)
		}
	}
	return nil
}

func (s *Settings) validateRoots() error {
	if err := validateNames("trustRoots", s.TrustRoots, []string{IntelSGX, AMDSNP}); err != nil {
		return err
	}
	switch {
	case s.SimRoot == nil:
		return nil
	case !s.AllowSim:
		return errors.New("simRoot without allowSim")
	}
	return genesis.CheckSimRoot(s.SimRoot)
}

// validateNames refuses a list with a name that is not known or comes twice.
func validateNames[T ~string](member string, list, known []T) error {
	for i, name := range list {
		if !slices.Contains(known, name) {
			return fmt.Errorf("%s: %q is unknown", member, name)
		}
		if slices.Contains(list[:i], name) {
			return fmt.Errorf("%s: %q comes twice", member, name)
		}
	}
	return nil
}

func validateAccept(list []genesis.Acceptance) error {
	for _, a := range list {
		if !printable(a.Reason) {
			return fmt.Errorf("accept: the reason for %s has characters that do not print", a.Advisory)
		}
	}
	return genesis.CheckAccept(list)
}
