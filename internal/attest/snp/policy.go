package snp

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/strictjson"
)

// PolicyFormat is the value of a policy file's member "format".
const PolicyFormat = "ehsm-snp-policy/v1"

// Limits of policy files.
const (
	maxPolicy = 1 << 20 // bytes
	maxGuests = 256
	maxChips  = 4096
	maxText   = 1024 // characters of a name
)

// Errors of Check, wrapped with what was found. ErrPolicy is wrapped by every
// error of ParsePolicy.
var (
	ErrPolicy       = errors.New("invalid attestation policy")
	ErrEmptyPolicy  = errors.New("policy names no guest, no chip or no TCB")
	ErrNotVerified  = errors.New("report has not been verified")
	ErrReportData   = errors.New("report was made for another purpose or peer")
	ErrDebug        = errors.New("guest runs in debug mode")
	ErrMigratable   = errors.New("guest may be moved to another machine")
	ErrVMPL         = errors.New("report was not asked for at VMPL 0")
	ErrGuest        = errors.New("guest is not one of the policy")
	ErrChip         = errors.New("chip is not admitted")
	ErrTCBMinimum   = errors.New("TCB is below the minimum")
	ErrUnrevocable  = errors.New("revocation was not checked")
	ErrExpired      = errors.New("certificate or CRL has expired since the verification")
	ErrBeforeIssued = errors.New("time is before the issue of the CRL")
)

// A Guest is accepted by the measurement of its launch.
type Guest struct {
	Name        string
	Measurement [48]byte
}

// A Chip is a processor, named by its chip id.
type Chip struct {
	Name string
	ID   [64]byte
}

// A Policy says which guests are accepted, and on which chips. The zero value
// accepts nothing. No policy accepts a guest in debug mode, one that a migration
// agent may move, or a report from another VMPL than 0.
type Policy struct {
	Guests []Guest
	Chips  []Chip
	// AnyChip admits every chip that AMD vouches for: it trusts everyone who owns
	// one.
	AnyChip bool
	// MinTCB is what the reported TCB must reach in all its parts. All zeros is
	// no policy.
	MinTCB TCB
	// WithoutCRL accepts reports whose certificates were not checked for
	// revocation.
	WithoutCRL bool
}

// ParsePolicy reads a policy file: JSON with these members and no others. format,
// guests and min_tcb are required; a file without chips must say any_chip.
// docs/formats.md#snp-policy-v1 has an example.
//
//	format       "ehsm-snp-policy/v1"
//	guests       list of objects: name, and measurement in 96 hex digits
//	chips        list of objects: name, and chip_id in 128 hex digits
//	any_chip     true admits all chips
//	min_tcb      object: bootloader, tee, snp, microcode, each from 0 to 255
//	without_crl  true accepts reports without a check of revocation
//
// Errors wrap ErrPolicy.
func ParsePolicy(b []byte) (*Policy, error) {
	p, err := parsePolicy(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	return p, nil
}

func parsePolicy(b []byte) (*Policy, error) {
	_, n, err := strictjson.Parse(b, maxPolicy)
	if err != nil {
		return nil, err
	}
	// First, as it tells the user most.
	if format := n.Member("format").Text(); n.Err() == nil && format != PolicyFormat {
		return nil, fmt.Errorf("format %q, want %q", format, PolicyFormat)
	}
	n.Only("format", "guests", "chips", "any_chip", "min_tcb", "without_crl")
	p := new(Policy)
	for name, flag := range map[string]*bool{"any_chip": &p.AnyChip, "without_crl": &p.WithoutCRL} {
		if n.Has(name) {
			*flag = n.Member(name).Bool()
		}
	}
	p.readTCB(n.Member("min_tcb"))
	if n.Err() == nil && p.MinTCB == (TCB{}) {
		return nil, errors.New("min_tcb: all zeros accepts every firmware ever made")
	}
	if err := p.readGuests(n); err != nil {
		return nil, err
	}
	return p, p.readChips(n)
}

func (p *Policy) readTCB(n *strictjson.Node) {
	n.Only("bootloader", "tee", "snp", "microcode")
	for name, level := range map[string]*uint8{
		"bootloader": &p.MinTCB.Bootloader, "tee": &p.MinTCB.TEE, "snp": &p.MinTCB.SNP, "microcode": &p.MinTCB.Microcode,
	} {
		*level = uint8(n.Member(name).Uint(math.MaxUint8))
	}
}

func readName(n *strictjson.Node) (string, error) {
	s := n.Member("name").Text()
	if n.Err() == nil && (s == "" || len(s) > maxText) {
		return "", fmt.Errorf("name has %d characters, want 1 to %d", len(s), maxText)
	}
	return s, n.Err()
}

func (p *Policy) readGuests(n *strictjson.Node) error {
	seen := map[[48]byte]bool{}
	for _, node := range n.Member("guests").Items(maxGuests) {
		node.Only("name", "measurement")
		name, err := readName(node)
		if err != nil {
			return fmt.Errorf("guests: %w", err)
		}
		g := Guest{Name: name}
		node.Member("measurement").Hex(g.Measurement[:])
		if n.Err() == nil && (seen[g.Measurement] || g.Measurement == [48]byte{}) {
			return fmt.Errorf("guests: %q has a measurement of zeros, or one that is listed twice", name)
		}
		seen[g.Measurement] = true
		p.Guests = append(p.Guests, g)
	}
	if n.Err() == nil && len(p.Guests) == 0 {
		return errors.New("guests: the list is empty, so that nothing would be accepted")
	}
	return n.Err()
}

func (p *Policy) readChips(n *strictjson.Node) error {
	var nodes []*strictjson.Node
	if n.Has("chips") {
		nodes = n.Member("chips").Items(maxChips)
	}
	seen := map[[64]byte]bool{}
	for _, node := range nodes {
		node.Only("name", "chip_id")
		name, err := readName(node)
		if err != nil {
			return fmt.Errorf("chips: %w", err)
		}
		c := Chip{Name: name}
		node.Member("chip_id").Hex(c.ID[:])
		if n.Err() == nil && (seen[c.ID] || c.ID == [64]byte{}) {
			return fmt.Errorf("chips: %q has an id of zeros, or one that is listed twice", name)
		}
		seen[c.ID] = true
		p.Chips = append(p.Chips, c)
	}
	switch {
	case n.Err() != nil:
	case len(nodes) == 0 && !p.AnyChip:
		return errors.New("chips: the list is empty, so that nothing would be accepted; list chips, or say any_chip")
	case len(nodes) > 0 && p.AnyChip:
		return errors.New("chips: any_chip makes the list meaningless; remove one of them")
	}
	return n.Err()
}

// Warnings says what of the policy a person should know at every start.
func (p *Policy) Warnings() []string {
	var all []string
	if p.AnyChip {
		all = append(all, "any chip is admitted: an attestation key extracted from any machine is enough")
	}
	if p.WithoutCRL {
		all = append(all, "revocation need not be checked: certificates that AMD has revoked are accepted")
	}
	return all
}

// A Decision says why a report was accepted.
type Decision struct {
	Guest string // name of the policy's entry
	Chip  string // name of the policy's entry; empty with AnyChip
}

// Check decides about a verified report that was made for reportData, at the
// time now of the verification or later. Errors: those named Err in this file.
func Check(p *Policy, r *Result, reportData [64]byte, now time.Time) (d Decision, err error) {
	switch {
	case len(p.Guests) == 0 || len(p.Chips) == 0 && !p.AnyChip || p.MinTCB == (TCB{}):
		return Decision{}, ErrEmptyPolicy
	case r.Report == nil || r.CertsExpire.IsZero() || r.Product == "":
		return Decision{}, ErrNotVerified
	case subtle.ConstantTimeCompare(r.Report.ReportData[:], reportData[:]) != 1:
		return Decision{}, ErrReportData
	case r.Report.Debug():
		return Decision{}, fmt.Errorf("%w: policy %#x", ErrDebug, r.Report.Policy)
	case r.Report.Migratable():
		return Decision{}, fmt.Errorf("%w: policy %#x", ErrMigratable, r.Report.Policy)
	case r.Report.VMPL != 0:
		return Decision{}, fmt.Errorf("%w: VMPL %d", ErrVMPL, r.Report.VMPL)
	}
	if d.Guest, err = p.guest(r.Report); err != nil {
		return Decision{}, err
	}
	if d.Chip, err = p.chip(r.Report); err != nil {
		return Decision{}, err
	}
	if err := p.fresh(r, now); err != nil {
		return Decision{}, err
	}
	return d, nil
}

// fresh decides about TCB, revocation and dates.
func (p *Policy) fresh(r *Result, now time.Time) error {
	switch {
	case !r.Report.ReportedTCB.Meets(p.MinTCB):
		return fmt.Errorf("%w: %v, want at least %v", ErrTCBMinimum, r.Report.ReportedTCB, p.MinTCB)
	case !r.Revocation && !p.WithoutCRL:
		return ErrUnrevocable
	case now.After(r.CertsExpire) || r.Revocation && now.After(r.CRLExpires):
		return fmt.Errorf("%w: certificates on %s", ErrExpired, r.CertsExpire.Format(time.RFC3339))
	case now.Before(r.LatestIssue):
		return fmt.Errorf("%w: %s", ErrBeforeIssued, now.Format(time.RFC3339))
	}
	return nil
}

func (p *Policy) guest(r *Report) (string, error) {
	for _, g := range p.Guests {
		if g.Measurement == r.Measurement {
			return g.Name, nil
		}
	}
	return "", fmt.Errorf("%w: measurement %x", ErrGuest, r.Measurement)
}

func (p *Policy) chip(r *Report) (string, error) {
	for _, c := range p.Chips {
		if c.ID == r.ChipID {
			return c.Name, nil
		}
	}
	if p.AnyChip {
		return "", nil
	}
	return "", fmt.Errorf("%w: chip id %x", ErrChip, r.ChipID)
}
