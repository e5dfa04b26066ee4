package verify

import (
	"encoding/hex"
	"fmt"
	"math"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/strictjson"
)

// tcbInfo is Intel's TCB info of version 3 for SGX.
type tcbInfo struct {
	header
	fmspc  [6]byte
	pceID  [2]byte
	levels []tcbLevel // in the order of the document, newest first
}

type tcbLevel struct {
	tcb
	levelStatus
}

// tcb is what a platform must reach to be on a level.
type tcb struct {
	components [components]uint8
	pceSVN     uint16
}

// tcbInfo checks and keeps the TCB info.
func (v *verification) tcbInfo() error {
	if err := v.authentic(v.c.TCBInfo, &v.c.TCBInfoSignature, v.c.TCBInfoIssuerChain); err != nil {
		return err
	}
	t, err := parseTCBInfo(v.c.TCBInfo)
	if err != nil {
		return err
	}
	v.tcb = t
	return v.current(t.header)
}

func parseTCBInfo(b []byte) (*tcbInfo, error) {
	_, n, err := strictjson.Parse(b, MaxDocument)
	if err != nil {
		return nil, err
	}
	t := new(tcbInfo)
	if t.header, err = readHeader(n, "SGX", 3); err != nil {
		return nil, err
	}
	if n.Has("tdxModule") || n.Has("tdxModuleIdentities") {
		return nil, ErrTDXMember
	}
	n.Member("fmspc").Hex(t.fmspc[:])
	n.Member("pceId").Hex(t.pceID[:])
	kind := n.Member("tcbType").Uint(math.MaxUint32)
	levels := n.Member("tcbLevels").Items(maxLevels)
	if err := n.Err(); err != nil {
		return nil, err
	}
	if kind != 0 {
		return nil, fmt.Errorf("%w: %d", ErrTCBType, kind)
	}
	return t, t.readLevels(levels)
}

func (t *tcbInfo) readLevels(nodes []*strictjson.Node) error {
	seen := map[tcb]bool{}
	for _, n := range nodes {
		l, err := readTCBLevel(n)
		if err != nil {
			return err
		}
		if seen[l.tcb] {
			return fmt.Errorf("%w: %v", ErrLevels, l.tcb)
		}
		seen[l.tcb] = true
		t.levels = append(t.levels, l)
	}
	if len(t.levels) == 0 {
		return ErrLevels
	}
	return nil
}

func readTCBLevel(n *strictjson.Node) (l tcbLevel, err error) {
	inner := n.Member("tcb")
	items := inner.Member("sgxtcbcomponents").Items(maxLevels)
	if n.Err() == nil && len(items) != components {
		return l, fmt.Errorf("%w: it has %d", ErrComponents, len(items))
	}
	for i, item := range items {
		l.components[i] = uint8(item.Member("svn").Uint(math.MaxUint8))
	}
	l.pceSVN = uint16(inner.Member("pcesvn").Uint(math.MaxUint16))
	l.levelStatus, err = readLevelStatus(n)
	return l, err
}

// tcbLevel finds the platform's level and merges its status with that of the
// quoting enclave.
func (v *verification) tcbLevel() error {
	p, r := &v.result.Platform, &v.result
	switch {
	case v.tcb.fmspc != p.FMSPC:
		return fmt.Errorf("%w: %s, want %s", ErrFMSPC, hex.EncodeToString(v.tcb.fmspc[:]), hex.EncodeToString(p.FMSPC[:]))
	case v.tcb.pceID != p.PCEID:
		return fmt.Errorf("%w: %s, want %s", ErrPCEID, hex.EncodeToString(v.tcb.pceID[:]), hex.EncodeToString(p.PCEID[:]))
	}
	level := v.tcb.match(p)
	if level == nil {
		return ErrNoTCBLevel
	}
	if level.status == Revoked {
		return fmt.Errorf("%w: %v", ErrPlatformRevoked, level.advisories)
	}
	r.PlatformStatus, r.TCBDate = level.status, level.date
	r.TCBEvaluation = min(v.tcb.evaluation, v.qe.evaluation)
	r.Status = Merge(level.status, v.qeLevel.status)
	r.PlatformAdvisories = mergeAdvisories(level.advisories, nil)
	r.Advisories = mergeAdvisories(level.advisories, v.qeLevel.advisories)
	r.OutOfDateSince = v.outOfDateSince(level)
	return nil
}

// match returns the first level that the platform reaches in all components and
// in PCESVN, or nil.
func (t *tcbInfo) match(p *Platform) *tcbLevel {
	for i := range t.levels {
		if t.levels[i].reachedBy(p) {
			return &t.levels[i]
		}
	}
	return nil
}

func (t tcb) reachedBy(p *Platform) bool {
	for i, want := range t.components {
		if p.Components[i] < want {
			return false
		}
	}
	return p.PCESVN >= t.pceSVN
}

func isOutOfDate(s Status) bool { return s == OutOfDate || s == OutOfDateConfigurationNeeded }

// outOfDateSince returns the date from which on more was asked of the platform
// or of its quoting enclave than they have: the earliest date of a level above
// theirs. It is zero where nothing is out of date, or no level says since when.
func (v *verification) outOfDateSince(platform *tcbLevel) (since time.Time) {
	note := func(own, level time.Time) {
		if level.After(own) && (since.IsZero() || level.Before(since)) {
			since = level
		}
	}
	if isOutOfDate(platform.status) {
		for _, l := range v.tcb.levels {
			note(platform.date, l.date)
		}
	}
	if qe := v.qeOutOfDateSince(); !qe.IsZero() {
		earliest(&since, qe)
	}
	return since
}
