package verify

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/strictjson"
)

// sgxQE is the id of the identity of the quoting enclave for SGX.
const sgxQE = "QE"

// qeIdentity is Intel's identity of version 2 of a quoting enclave.
type qeIdentity struct {
	header
	miscSelect, miscMask       uint32
	attributes, attributesMask quote.Attributes
	mrSigner                   [32]byte
	isvProdID                  uint16
	levels                     []qeLevel // in the order of the document, newest first
}

type qeLevel struct {
	isvSVN uint16
	levelStatus
}

// qeIdentity checks the QE identity, which must have that id, and holds the
// quoting enclave against it.
func (v *verification) qeIdentity(id string) error {
	if err := v.authentic(v.c.QEIdentity, &v.c.QEIdentitySignature, v.c.QEIdentityIssuerChain); err != nil {
		return err
	}
	q, err := parseIdentity(v.c.QEIdentity, id)
	if err != nil {
		return err
	}
	if err := v.current(q.header); err != nil {
		return err
	}
	v.qe = q
	if err := q.matches(&v.quote.QEReport); err != nil {
		return err
	}
	return v.matchQELevel()
}

func parseQEIdentity(b []byte) (*qeIdentity, error) { return parseIdentity(b, sgxQE) }

// parseIdentity reads the identity of the quoting enclave with that id.
func parseIdentity(b []byte, id string) (*qeIdentity, error) {
	_, n, err := strictjson.Parse(b, MaxDocument)
	if err != nil {
		return nil, err
	}
	q := new(qeIdentity)
	if q.header, err = readHeader(n, id, 2); err != nil {
		return nil, err
	}
	q.miscSelect, q.miscMask = readMisc(n.Member("miscselect")), readMisc(n.Member("miscselectMask"))
	q.attributes, q.attributesMask = readAttributes(n.Member("attributes")), readAttributes(n.Member("attributesMask"))
	n.Member("mrsigner").Hex(q.mrSigner[:])
	q.isvProdID = uint16(n.Member("isvprodid").Uint(math.MaxUint16))
	levels := n.Member("tcbLevels").Items(maxLevels)
	if err := n.Err(); err != nil {
		return nil, err
	}
	return q, q.readLevels(levels)
}

func (q *qeIdentity) readLevels(nodes []*strictjson.Node) (err error) {
	for _, node := range nodes {
		l := qeLevel{isvSVN: uint16(node.Member("tcb").Member("isvsvn").Uint(math.MaxUint16))}
		if l.levelStatus, err = readLevelStatus(node); err != nil {
			return err
		}
		if slices.ContainsFunc(q.levels, func(other qeLevel) bool { return other.isvSVN == l.isvSVN }) {
			return fmt.Errorf("%w: ISVSVN %d", ErrLevels, l.isvSVN)
		}
		q.levels = append(q.levels, l)
	}
	if len(q.levels) == 0 {
		return ErrLevels
	}
	return nil
}

// The hex of these is of the bytes as they stand in a report.

func readMisc(n *strictjson.Node) uint32 {
	var b [4]byte
	n.Hex(b[:])
	return binary.LittleEndian.Uint32(b[:])
}

func readAttributes(n *strictjson.Node) quote.Attributes {
	var b [16]byte
	n.Hex(b[:])
	return quote.Attributes{Flags: binary.LittleEndian.Uint64(b[:8]), XFRM: binary.LittleEndian.Uint64(b[8:])}
}

// matches compares the report of the quoting enclave with the identity. As in
// Intel's library the mask is laid over the report only: an identity that sets
// bits outside its mask matches nothing.
func (q *qeIdentity) matches(r *quote.Report) error {
	masked := quote.Attributes{Flags: r.Attributes.Flags & q.attributesMask.Flags, XFRM: r.Attributes.XFRM & q.attributesMask.XFRM}
	switch {
	case r.Attributes.Debug(): // whatever the mask says: the host reads its keys
		return ErrQEDebug
	case r.MiscSelect&q.miscMask != q.miscSelect:
		return fmt.Errorf("%w: %#x", ErrQEMiscSelect, r.MiscSelect)
	case masked != q.attributes:
		return fmt.Errorf("%w: %+v", ErrQEAttributes, r.Attributes)
	case r.MRSigner != q.mrSigner:
		return fmt.Errorf("%w: %x", ErrQESigner, r.MRSigner)
	case r.ISVProdID != q.isvProdID:
		return fmt.Errorf("%w: %d, want %d", ErrQEProduct, r.ISVProdID, q.isvProdID)
	}
	return nil
}

// matchQELevel finds the first level that the quoting enclave reaches.
func (v *verification) matchQELevel() error {
	svn := v.quote.QEReport.ISVSVN
	i := slices.IndexFunc(v.qe.levels, func(l qeLevel) bool { return svn >= l.isvSVN })
	if i < 0 {
		return fmt.Errorf("%w: %d", ErrQELevel, svn)
	}
	v.qeLevel = v.qe.levels[i]
	if v.qeLevel.status == Revoked {
		return fmt.Errorf("%w: ISVSVN %d, %v", ErrQERevoked, svn, v.qeLevel.advisories)
	}
	v.result.QEStatus, v.result.QETCBDate = v.qeLevel.status, v.qeLevel.date
	return nil
}

// mergeAdvisories returns the union of both lists, sorted.
func mergeAdvisories(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}
