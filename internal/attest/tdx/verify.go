package tdx

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/attest/strictjson"
)

// Errors of Verify beside those of package dcap/verify.
var (
	ErrModuleSigner     = errors.New("TDX module has another MRSIGNERSEAM")
	ErrModuleAttributes = errors.New("TDX module has other SEAMATTRIBUTES")
	ErrModuleUnknown    = errors.New("TCB info does not name this TDX module")
	ErrModuleLevel      = errors.New("TDX module is below all its TCB levels")
	ErrModuleRevoked    = errors.New("TDX module's TCB level is revoked")
	ErrSecondVerifier   = errors.New("second verifier refuses the quote")
)

// A Result says what was verified. Its embedded Result is about machine, quoting
// enclave and collateral, as for SGX; the SGX report in it is zero. PlatformStatus
// includes that of the TDX module.
type Result struct {
	verify.Result
	Quote *Quote
	// ModuleStatus is that of the TDX module alone; zero for modules of TDX 1.0,
	// which have no level of their own.
	ModuleStatus verify.Status
}

const (
	components = 16
	maxLevels  = 256 // Intel's documents have less than 40
)

// Verify checks everything that makes a quote genuine at time o.Now. It does not
// look at measurements, attributes or REPORTDATA of the domain; see Check. There
// are no simulated TDX platforms: o.AllowSim has no effect. Every error is a
// *verify.Error with the step that failed.
func Verify(raw []byte, c verify.Collateral, o verify.Options) (*Result, error) {
	o.AllowSim = false
	q, err := Parse(raw)
	if err != nil {
		return nil, &verify.Error{Step: verify.StepParse, Err: err}
	}
	e, err := verify.VerifyEnvelope(q.envelope, c, o)
	if err != nil {
		return nil, err
	}
	r := &Result{Result: e.Result, Quote: q}
	if err := r.level(e.TCBInfo); err != nil {
		return nil, &verify.Error{Step: verify.StepTCBLevel, Err: err}
	}
	if err := secondOpinion(q, o); err != nil {
		return nil, &verify.Error{Step: verify.StepQuoteSignature, Err: fmt.Errorf("%w: %w", ErrSecondVerifier, err)}
	}
	return r, nil
}

// A tcb is what a machine must reach.
type tcb struct {
	sgx, tdx [components]uint8
	pceSVN   uint16
}

// level finds the levels of machine and TDX module and merges their status with
// that of the quoting enclave.
func (r *Result) level(info *strictjson.Node) error {
	if err := r.module(info.Member("tdxModule")); err != nil {
		return err
	}
	found, newer, err := r.machineLevel(info.Member("tcbLevels").Items(maxLevels))
	if err == nil {
		err = info.Err()
	}
	if err != nil {
		return err
	}
	if found == nil {
		return verify.ErrNoTCBLevel
	}
	if found.Status == verify.Revoked {
		return fmt.Errorf("%w: %v", verify.ErrPlatformRevoked, found.Advisories)
	}
	module, err := r.moduleLevel(info)
	if err != nil {
		return err
	}
	status, advisories := found.Status, found.Advisories
	if module != nil {
		r.ModuleStatus = module.Status
		status, advisories = verify.Merge(status, module.Status), append(advisories, module.Advisories...)
	}
	r.PlatformStatus, r.TCBDate = status, found.Date
	r.PlatformAdvisories = sorted(advisories)
	r.Status = verify.Merge(status, r.QEStatus)
	r.Advisories = sorted(append(r.Advisories, advisories...))
	r.noteOutOfDate(found, newer)
	return nil
}

// noteOutOfDate sets since when more is asked of the machine than it has. An
// outdated module has no such date here, so that no grace period covers it.
func (r *Result) noteOutOfDate(found *verify.Level, newer time.Time) {
	outdated := func(s verify.Status) bool {
		return s == verify.OutOfDate || s == verify.OutOfDateConfigurationNeeded
	}
	switch {
	case r.ModuleStatus != 0 && r.ModuleStatus != verify.UpToDate:
		r.OutOfDateSince = time.Time{}
	case outdated(found.Status) && !newer.IsZero() && (r.OutOfDateSince.IsZero() || newer.Before(r.OutOfDateSince)):
		r.OutOfDateSince = newer
	}
}

// machineLevel returns the first level that the machine reaches, or nil, and the
// earliest later date of a level above it.
func (r *Result) machineLevel(nodes []*strictjson.Node) (found *verify.Level, newer time.Time, err error) {
	seen := map[tcb]bool{}
	var dates []time.Time
	for _, n := range nodes {
		t, err := readTCB(n.Member("tcb"))
		if err != nil {
			return nil, newer, err
		}
		l, err := verify.ReadLevel(n)
		if err != nil {
			return nil, newer, err
		}
		if seen[t] {
			return nil, newer, fmt.Errorf("%w: %v", verify.ErrLevels, t)
		}
		seen[t] = true
		switch {
		case found != nil:
		case r.reaches(&t):
			found = &l
		default:
			dates = append(dates, l.Date)
		}
	}
	for _, d := range dates {
		if found != nil && d.After(found.Date) && (newer.IsZero() || d.Before(newer)) {
			newer = d
		}
	}
	return found, newer, nil
}

func readTCB(n *strictjson.Node) (t tcb, err error) {
	for name, svns := range map[string]*[components]uint8{"sgxtcbcomponents": &t.sgx, "tdxtcbcomponents": &t.tdx} {
		items := n.Member(name).Items(maxLevels)
		if n.Err() == nil && len(items) != components {
			return t, fmt.Errorf("%w: %s has %d", verify.ErrComponents, name, len(items))
		}
		for i, item := range items {
			svns[i] = uint8(item.Member("svn").Uint(math.MaxUint8))
		}
	}
	t.pceSVN = uint16(n.Member("pcesvn").Uint(math.MaxUint16))
	return t, n.Err()
}

// reaches compares all components. The first two of TEE_TCB_SVN are the TDX
// module's; where the module says its version, its own levels replace them.
func (r *Result) reaches(t *tcb) bool {
	for i := range components {
		if r.Platform.Components[i] < t.sgx[i] {
			return false
		}
		if i < 2 && r.moduleVersion() > 0 {
			continue
		}
		if r.Quote.Report.TEETCBSVN[i] < t.tdx[i] {
			return false
		}
	}
	return r.Platform.PCESVN >= t.pceSVN
}

func (r *Result) moduleVersion() uint8 { return r.Quote.Report.TEETCBSVN[tdxModuleVersionByte] }

// module holds the TDX module against who may sign it and which attributes it
// may have: n is tdxModule of TCB info, or one of tdxModuleIdentities.
func (r *Result) module(n *strictjson.Node) error {
	var signer [48]byte
	var attributes, mask [8]byte
	n.Member("mrsigner").Hex(signer[:])
	n.Member("attributes").Hex(attributes[:])
	n.Member("attributesMask").Hex(mask[:])
	if err := n.Err(); err != nil {
		return err
	}
	report := &r.Quote.Report
	if signer != report.MRSignerSEAM {
		return fmt.Errorf("%w: %x", ErrModuleSigner, report.MRSignerSEAM)
	}
	for i, m := range mask {
		if report.SEAMAttributes[i]&m != attributes[i] {
			return fmt.Errorf("%w: %x", ErrModuleAttributes, report.SEAMAttributes)
		}
	}
	return nil
}

// moduleLevel returns the level of the TDX module, or nil if it is of a version
// that has none.
func (r *Result) moduleLevel(info *strictjson.Node) (*verify.Level, error) {
	version, svn := r.moduleVersion(), uint64(r.Quote.Report.TEETCBSVN[0])
	if version == 0 {
		return nil, nil
	}
	id := "TDX_" + hex.EncodeToString([]byte{version})
	for _, n := range info.Member("tdxModuleIdentities").Items(maxLevels) {
		if !strings.EqualFold(n.Member("id").Text(), id) {
			continue
		}
		if err := r.module(n); err != nil {
			return nil, err
		}
		for _, node := range n.Member("tcbLevels").Items(maxLevels) {
			least := node.Member("tcb").Member("isvsvn").Uint(math.MaxUint16)
			l, err := verify.ReadLevel(node)
			switch {
			case err != nil:
				return nil, err
			case svn < least:
				continue
			case l.Status == verify.Revoked:
				return nil, fmt.Errorf("%w: %v", ErrModuleRevoked, l.Advisories)
			}
			return &l, nil
		}
		return nil, fmt.Errorf("%w: %s has SVN %d", ErrModuleLevel, id, svn)
	}
	if err := info.Err(); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%w: %s", ErrModuleUnknown, id)
}

func sorted(advisories []string) []string {
	all := slices.Clone(advisories)
	slices.Sort(all)
	return slices.Compact(all)
}
