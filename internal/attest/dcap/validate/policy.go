package validate

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/attest/strictjson"
)

// PolicyFormat is the value of a policy file's member "format".
const PolicyFormat = "ehsm-sgx-policy/v1"

// Limits and defaults of policy files.
const (
	// DefaultTCBGrace holds where a file does not name tcb_grace.
	DefaultTCBGrace = 30 * day

	maxPolicy    = 1 << 20 // bytes
	maxEnclaves  = 64
	maxPlatforms = 4096
	maxAccepted  = 256
	maxText      = 1024 // characters of a name or reason
	maxGrace     = 365 * day

	day = 24 * time.Hour
)

// ErrPolicy is wrapped by every error of ParsePolicy.
var ErrPolicy = errors.New("invalid attestation policy")

// ParsePolicy reads a policy file: JSON with these members and no others. Only
// format and enclaves are required; a file without platforms must say
// any_platform. docs/formats.md#attestation-policy-v1 has an example.
//
//	format                 "ehsm-sgx-policy/v1"
//	enclaves               list of objects: name, and either mrenclave, or
//	                       mrsigner, isvprodid and min_isvsvn
//	platforms              list of objects: name, and either ppid or pck_serial
//	any_platform           true admits all machines
//	accept                 list of objects: status, advisory, reason
//	min_evaluation_number  least tcbEvaluationDataNumber, default 0
//	tcb_grace              such as "30d" or "12h", default 30d, at most 365d
//	collateral_grace       likewise, default none
//	allow_debug            true accepts debug enclaves
//	allow_sim              true accepts simulated platforms
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
	n.Only(append(MachineMembers(), "format", "enclaves", "allow_debug", "allow_sim")...)
	if format := n.Member("format").Text(); n.Err() == nil && format != PolicyFormat {
		return nil, fmt.Errorf("format %q, want %q", format, PolicyFormat)
	}
	p := new(Policy)
	for name, flag := range map[string]*bool{"allow_debug": &p.AllowDebug, "allow_sim": &p.AllowSim} {
		if n.Has(name) {
			*flag = n.Member(name).Bool()
		}
	}
	if err := p.readEnclaves(n); err != nil {
		return nil, err
	}
	return p, p.ReadMachines(n)
}

// MachineMembers are the members of a policy file that ReadMachines reads.
func MachineMembers() []string {
	return []string{"platforms", "any_platform", "accept", "min_evaluation_number", "tcb_grace", "collateral_grace"}
}

// ReadMachines reads what the policies of all kinds of DCAP evidence say of
// machines and of their TCB: the members that MachineMembers lists, with the
// meaning that ParsePolicy gives them.
func (p *Policy) ReadMachines(n *strictjson.Node) error {
	p.TCBGrace = DefaultTCBGrace
	if n.Has("any_platform") {
		p.AnyPlatform = n.Member("any_platform").Bool()
	}
	if n.Has("min_evaluation_number") {
		p.MinTCBEvaluation = uint32(n.Member("min_evaluation_number").Uint(math.MaxUint32))
	}
	if err := n.Err(); err != nil {
		return err
	}
	for _, read := range []func(*strictjson.Node) error{p.readGraces, p.readPlatforms, p.readAccepted} {
		if err := read(n); err != nil {
			return err
		}
		if err := n.Err(); err != nil {
			return err
		}
	}
	return nil
}

func (p *Policy) readGraces(n *strictjson.Node) (err error) {
	for name, grace := range map[string]*time.Duration{"tcb_grace": &p.TCBGrace, "collateral_grace": &p.CollateralGrace} {
		if !n.Has(name) {
			continue
		}
		if *grace, err = parseGrace(n.Member(name).Text()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// parseGrace reads a whole number of days or hours, such as 30d or 12h.
func parseGrace(s string) (time.Duration, error) {
	unit := map[string]time.Duration{"d": day, "h": time.Hour}
	digits := strings.TrimRight(s, "dh")
	v, err := strconv.ParseUint(digits, 10, 16)
	scale, ok := unit[s[len(digits):]]
	if err != nil || !ok || strconv.FormatUint(v, 10) != digits {
		return 0, fmt.Errorf("%q is not a number of days or hours, such as 30d", s)
	}
	if grace := time.Duration(v) * scale; grace <= maxGrace {
		return grace, nil
	}
	return 0, fmt.Errorf("%s is over the limit of %dd", s, maxGrace/day)
}

func readText(n *strictjson.Node, name string) (string, error) {
	s := n.Member(name).Text()
	if n.Err() == nil && (s == "" || len(s) > maxText) {
		return "", fmt.Errorf("%s has %d characters, want 1 to %d", name, len(s), maxText)
	}
	return s, n.Err()
}

func (p *Policy) readEnclaves(n *strictjson.Node) error {
	roles := map[Enclave]string{} // by what identifies the enclave
	for _, node := range n.Member("enclaves").Items(maxEnclaves) {
		e, err := readEnclave(node)
		if err != nil {
			return fmt.Errorf("enclaves: %w", err)
		}
		identity := Enclave{MREnclave: e.MREnclave, MRSigner: e.MRSigner, ISVProdID: e.ISVProdID}
		if other, twice := roles[identity]; twice {
			return fmt.Errorf("enclaves: %q and %q are the same enclave; each needs a product id of its own", other, e.Name)
		}
		roles[identity] = e.Name
		p.Enclaves = append(p.Enclaves, e)
	}
	if n.Err() == nil && len(p.Enclaves) == 0 {
		return errors.New("enclaves: the list is empty, so that nothing would be accepted")
	}
	return nil
}

func readEnclave(n *strictjson.Node) (e Enclave, err error) {
	if e.Name, err = readText(n, "name"); err != nil {
		return e, err
	}
	if n.Has("mrenclave") {
		n.Only("name", "mrenclave")
		n.Member("mrenclave").Hex(e.MREnclave[:])
	} else {
		n.Only("name", "mrsigner", "isvprodid", "min_isvsvn")
		n.Member("mrsigner").Hex(e.MRSigner[:])
		e.ISVProdID = uint16(n.Member("isvprodid").Uint(math.MaxUint16))
		e.MinISVSVN = uint16(n.Member("min_isvsvn").Uint(math.MaxUint16))
	}
	if n.Err() == nil && e.MREnclave == [32]byte{} && e.MRSigner == [32]byte{} {
		return e, fmt.Errorf("%q has a measurement or signer of zeros", e.Name)
	}
	return e, n.Err()
}

func (p *Policy) readPlatforms(n *strictjson.Node) error {
	var nodes []*strictjson.Node
	if n.Has("platforms") {
		nodes = n.Member("platforms").Items(maxPlatforms)
	}
	seen := map[Platform]bool{}
	for _, node := range nodes {
		m, err := readPlatform(node)
		if err != nil {
			return fmt.Errorf("platforms: %w", err)
		}
		id := Platform{PPID: m.PPID, Serial: m.Serial}
		if seen[id] {
			return fmt.Errorf("platforms: %q is listed twice", m.Name)
		}
		seen[id] = true
		p.Platforms = append(p.Platforms, m)
	}
	switch {
	case n.Err() != nil:
	case len(nodes) == 0 && !p.AnyPlatform:
		return errors.New("platforms: the list is empty, so that nothing would be accepted; list machines, or say any_platform")
	case len(nodes) > 0 && p.AnyPlatform:
		return errors.New("platforms: any_platform makes the list meaningless; remove one of them")
	}
	return nil
}

func readPlatform(n *strictjson.Node) (m Platform, err error) {
	if m.Name, err = readText(n, "name"); err != nil {
		return m, err
	}
	if n.Has("ppid") {
		n.Only("name", "ppid")
		n.Member("ppid").Hex(m.PPID[:])
		if n.Err() == nil && m.PPID == [16]byte{} {
			return m, fmt.Errorf("%q has a PPID of zeros", m.Name)
		}
		return m, n.Err()
	}
	n.Only("name", "pck_serial")
	text := n.Member("pck_serial").Text()
	if err := n.Err(); err != nil {
		return m, err
	}
	serial, err := hex.DecodeString(text)
	if err != nil || len(serial) == 0 || len(serial) > 20 || serial[0] == 0 {
		return m, fmt.Errorf("%q has the PCK serial %q, want 1 to 20 bytes in hex without leading zeros", m.Name, text)
	}
	m.Serial = hex.EncodeToString(serial)
	return m, nil
}

func (p *Policy) readAccepted(n *strictjson.Node) error {
	if !n.Has("accept") {
		return nil
	}
	for _, node := range n.Member("accept").Items(maxAccepted) {
		node.Only("status", "advisory", "reason")
		word, err := readText(node, "status")
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		var a Acceptance
		if a.Status, err = verify.ParseStatus(word); err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		if a.Status == verify.UpToDate || a.Status == verify.Revoked {
			return fmt.Errorf("accept: %v is always accepted or never", a.Status)
		}
		if a.Advisory, err = readText(node, "advisory"); err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		if a.Reason, err = readText(node, "reason"); err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		p.Accepted = append(p.Accepted, a)
	}
	return nil
}
