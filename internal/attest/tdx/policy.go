package tdx

import (
	"crypto/subtle"
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/strictjson"
)

// PolicyFormat is the value of a policy file's member "format".
const PolicyFormat = "ehsm-tdx-policy/v1"

// Limits of policy files.
const (
	maxPolicy = 1 << 20 // bytes
	maxGuests = 256
	maxText   = 1024 // characters of a name
)

// Errors of Check beside those of dcap/validate, wrapped with what was found.
// ErrPolicy is wrapped by every error of ParsePolicy.
var (
	ErrPolicy      = errors.New("invalid attestation policy")
	ErrEmptyPolicy = errors.New("policy names no guest")
	ErrNotVerified = errors.New("quote has not been verified")
	ErrDebug       = errors.New("guest runs in debug mode")
	ErrMigratable  = errors.New("guest may be moved to another machine")
	ErrGuest       = errors.New("guest is not one of the policy")
)

// A Guest is a trust domain that is accepted: all of its measurements, exactly.
type Guest struct {
	Name       string
	MRTD       [48]byte
	RTMR       [4][48]byte
	MRConfigID [48]byte
}

// A Policy says which guests are accepted, and on which machines. The zero value
// accepts nothing. No policy accepts a guest in debug mode or one that may be
// migrated: somebody else then reads its memory.
type Policy struct {
	Guests []Guest
	// Machines says which machines are admitted, and at which TCB status. Its
	// members about enclaves, debug mode and simulation have no meaning.
	Machines validate.Policy
}

// ParsePolicy reads a policy file: JSON with these members and no others.
//
//	format   "ehsm-tdx-policy/v1"
//	guests   list of objects: name, mrtd, rtmr0, rtmr1, rtmr2, rtmr3, mrconfigid,
//	         each measurement 96 hex digits
//
// and those that validate.MachineMembers lists, as in a policy for SGX. A
// measurement of zeros must be written out. docs/formats.md#tdx-policy-v1 has
// an example. Errors wrap ErrPolicy.
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
	n.Only(append(validate.MachineMembers(), "format", "guests")...)
	p := new(Policy)
	if err := p.readGuests(n); err != nil {
		return nil, err
	}
	return p, p.Machines.ReadMachines(n)
}

func (p *Policy) readGuests(n *strictjson.Node) error {
	seen := map[Guest]string{}
	for _, node := range n.Member("guests").Items(maxGuests) {
		g := readGuest(node)
		if n.Err() == nil && (g.Name == "" || len(g.Name) > maxText) {
			return fmt.Errorf("guests: name has %d characters, want 1 to %d", len(g.Name), maxText)
		}
		identity := g
		identity.Name = ""
		if other, twice := seen[identity]; twice && n.Err() == nil {
			return fmt.Errorf("guests: %q and %q are the same guest", other, g.Name)
		}
		if n.Err() == nil && g.MRTD == [48]byte{} {
			return fmt.Errorf("guests: %q has an MRTD of zeros", g.Name)
		}
		seen[identity] = g.Name
		p.Guests = append(p.Guests, g)
	}
	if n.Err() == nil && len(p.Guests) == 0 {
		return errors.New("guests: the list is empty, so that nothing would be accepted")
	}
	return n.Err()
}

func readGuest(n *strictjson.Node) (g Guest) {
	n.Only("name", "mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mrconfigid")
	g.Name = n.Member("name").Text()
	n.Member("mrtd").Hex(g.MRTD[:])
	for i := range g.RTMR {
		n.Member(fmt.Sprintf("rtmr%d", i)).Hex(g.RTMR[i][:])
	}
	n.Member("mrconfigid").Hex(g.MRConfigID[:])
	return g
}

// Warnings says what of the policy a person should know at every start.
func (p *Policy) Warnings() []string { return p.Machines.Warnings() }

// Check decides about a verified quote. The decision's Enclave is the name of the
// guest. Errors: those named above, and those of
// validate.CheckMachine and validate.ErrReportData.
func Check(p *Policy, r *Result, in validate.Input) (validate.Decision, error) {
	switch {
	case len(p.Guests) == 0:
		return validate.Decision{}, ErrEmptyPolicy
	case r.Quote == nil:
		return validate.Decision{}, ErrNotVerified
	}
	report := &r.Quote.Report
	switch {
	case subtle.ConstantTimeCompare(report.ReportData[:], in.ReportData[:]) != 1:
		return validate.Decision{}, validate.ErrReportData
	case report.Debug():
		return validate.Decision{}, fmt.Errorf("%w: attributes %#x", ErrDebug, report.Attributes)
	case report.Migratable():
		return validate.Decision{}, fmt.Errorf("%w: attributes %#x", ErrMigratable, report.Attributes)
	}
	name, err := p.guest(report)
	if err != nil {
		return validate.Decision{}, err
	}
	d, err := p.Machines.CheckMachine(&r.Result, in)
	if err != nil {
		return validate.Decision{}, err
	}
	d.Enclave = name
	return d, nil
}

// guest finds the entry that accepts the guest. Its error names the measurement
// that differs from the entry with the same MRTD, if there is one.
func (p *Policy) guest(r *Report) (string, error) {
	err := fmt.Errorf("%w: MRTD %x", ErrGuest, r.MRTD)
	for _, g := range p.Guests {
		if g.MRTD != r.MRTD {
			continue
		}
		switch i := differentRTMR(&g, r); {
		case i >= 0:
			err = fmt.Errorf("%w: %q has another RTMR%d than %x", ErrGuest, g.Name, i, r.RTMR[i])
		case g.MRConfigID != r.MRConfigID:
			err = fmt.Errorf("%w: %q has another MRCONFIGID than %x", ErrGuest, g.Name, r.MRConfigID)
		default:
			return g.Name, nil
		}
	}
	return "", err
}

// differentRTMR returns the number of the first that differs, or -1.
func differentRTMR(g *Guest, r *Report) int {
	for i := range g.RTMR {
		if g.RTMR[i] != r.RTMR[i] {
			return i
		}
	}
	return -1
}
