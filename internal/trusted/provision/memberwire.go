package provision

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// Numbers of states and of kinds of evidence on the wire. They never change.
var (
	memberStates   = []overview.State{"", overview.Connected, overview.Left, overview.Removed}
	memberEvidence = []string{"", overview.ByQuote, overview.ByReport, overview.ByItself}
)

// minMember is the least that a member takes in a message, in bytes.
const minMember = 16 + 2 + 16 + 1 + 1 + 2 + 2 + 16 + 2 + 32 + 32 + 2 + 2 + 1 + 2 + 4 + 4*8 + 8 + 4 + 4 + 4 + 2*4 + 3*8 + 4 + 4*8 + 2

// appendMembers encodes a list. Layout: docs/provisioning.md#members.
func appendMembers(dst []byte, list []overview.Member) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(list)))
	for i := range list {
		dst = appendMember(dst, &list[i])
	}
	return dst
}

func appendMember(dst []byte, m *overview.Member) []byte {
	dst = append(dst, m.Instance[:]...)
	dst = pack.AppendString(dst, m.Role)
	dst = append(dst, m.Via[:]...)
	dst = append(dst, byte(slices.Index(memberStates, m.State)), byte(slices.Index(memberEvidence, m.Evidence)))
	dst = pack.AppendString(dst, m.Platform)
	dst = pack.AppendString(dst, m.Machine)
	dst = append(dst, m.PPID[:]...)
	dst = pack.AppendString(dst, m.Serial)
	dst = append(append(dst, m.MREnclave[:]...), m.MRSigner[:]...)
	dst = binary.BigEndian.AppendUint16(dst, m.Product)
	dst = binary.BigEndian.AppendUint16(dst, m.SVN)
	dst = pack.AppendBool(dst, m.Debug)
	dst = pack.AppendString(dst, m.TCBStatus)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(m.Advisories)))
	for _, a := range m.Advisories {
		dst = pack.AppendString(dst, a)
	}
	for _, t := range []time.Time{m.TCBGraceUntil, m.CollateralGraceUntil, m.EvidenceUntil, m.Attested} {
		dst = binary.BigEndian.AppendUint64(dst, seconds(t))
	}
	dst = binary.BigEndian.AppendUint64(dst, m.Manifest)
	dst = binary.BigEndian.AppendUint32(dst, m.DomainKey)
	dst = binary.BigEndian.AppendUint32(dst, m.LeaseSeconds)
	dst = binary.BigEndian.AppendUint32(dst, m.SeenSeconds)
	dst = binary.BigEndian.AppendUint32(dst, m.Rewrap.Floor)
	dst = binary.BigEndian.AppendUint32(dst, m.Rewrap.Done)
	for _, n := range []uint64{m.Rewrap.Total, m.Rewrap.Looked, m.Rewrap.Refused} {
		dst = binary.BigEndian.AppendUint64(dst, n)
	}
	dst = binary.BigEndian.AppendUint32(dst, m.Rewrap.Compromised)
	for _, n := range []uint64{m.Rewrap.Keys, m.Rewrap.Secrets, m.Rewrap.APIKeys, m.Rewrap.Tenants} {
		dst = binary.BigEndian.AppendUint64(dst, n)
	}
	return pack.AppendString(dst, m.Address)
}

// seconds is a date on the wire; 0 is none.
func seconds(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.Unix())
}

func readMembers(r *pack.Reader) []overview.Member {
	list := make([]overview.Member, r.Count(overview.MaxMembers, minMember))
	for i := range list {
		list[i] = readMember(r)
	}
	return list
}

func readMember(r *pack.Reader) (m overview.Member) {
	const text = overview.MaxText
	r.Array(m.Instance[:])
	m.Role = r.String(text)
	r.Array(m.Via[:])
	m.State, m.Evidence = oneOf(r, memberStates), oneOf(r, memberEvidence)
	m.Platform, m.Machine = r.String(text), r.String(text)
	r.Array(m.PPID[:])
	m.Serial = r.String(text)
	r.Array(m.MREnclave[:])
	r.Array(m.MRSigner[:])
	m.Product, m.SVN, m.Debug = r.Uint16(), r.Uint16(), r.Bool()
	m.TCBStatus = r.String(text)
	if n := r.Count(overview.MaxAdvisories, 2); n > 0 {
		m.Advisories = make([]string, n)
	}
	for i := range m.Advisories {
		m.Advisories[i] = r.String(text)
	}
	for _, t := range []*time.Time{&m.TCBGraceUntil, &m.CollateralGraceUntil, &m.EvidenceUntil, &m.Attested} {
		*t = readDate(r)
	}
	m.Manifest, m.DomainKey, m.LeaseSeconds, m.SeenSeconds = r.Uint64(), r.Uint32(), r.Uint32(), r.Uint32()
	m.Rewrap = overview.Rewrap{Floor: r.Uint32(), Done: r.Uint32(), Total: r.Uint64(), Looked: r.Uint64(), Refused: r.Uint64(),
		Compromised: r.Uint32(), Keys: r.Uint64(), Secrets: r.Uint64(), APIKeys: r.Uint64(), Tenants: r.Uint64()}
	m.Address = r.String(text)
	if r.Err() != nil {
		return overview.Member{}
	}
	if err := m.Validate(); err != nil {
		r.Fail("%v", err)
	}
	return m
}

func oneOf[T ~string](r *pack.Reader, words []T) T {
	n := int(r.Uint8())
	if n == 0 || n >= len(words) {
		r.Fail("word %d of %d", n, len(words)-1)
		return ""
	}
	return words[n]
}

func readDate(r *pack.Reader) time.Time {
	switch s := r.Int64(); {
	case s < 0 || s > maxDate:
		r.Fail("date %d", s)
		fallthrough
	case s == 0:
		return time.Time{}
	default:
		return time.Unix(s, 0).UTC()
	}
}

// fittingMembers returns as many of a list as a message has room for: the first,
// which is the sender, and then those that were heard of last.
func fittingMembers(list []overview.Member) []overview.Member {
	size := func(m *overview.Member) int { return len(appendMember(nil, m)) }
	total := 2 + 4
	for i := range list {
		total += size(&list[i])
	}
	if total <= channel.MaxMessage || len(list) == 0 {
		return list
	}
	rest := slices.Clone(list[1:])
	slices.SortStableFunc(rest, func(a, b overview.Member) int { return int(a.SeenSeconds) - int(b.SeenSeconds) })
	total = 2 + 4 + size(&list[0])
	for i := range rest {
		if total += size(&rest[i]); total > channel.MaxMessage {
			rest = rest[:i]
			break
		}
	}
	return append([]overview.Member{list[0]}, rest...)
}

// kindOfTEE is what a platform of a name is, for people.
func kindOfTEE(name string, simulated bool) string {
	switch {
	case simulated:
		return "sim"
	case name == "ego" || name == "gramine":
		return "sgx"
	}
	return overview.Clean(name, overview.MaxText)
}

// memberOf is what the channel has judged of a peer.
func memberOf(p channel.Peer) overview.Member {
	m := overview.Member{
		Role: string(p.Role), Evidence: overview.ByReport,
		MREnclave: p.Identity.Measurement, MRSigner: p.Identity.Signer, Product: p.Identity.Product, SVN: p.Identity.SVN, Debug: p.Identity.Debug,
		TCBGraceUntil: whole(p.Decision.TCBGraceUntil), CollateralGraceUntil: whole(p.Decision.CollateralGraceUntil),
		EvidenceUntil: whole(p.Until), Attested: whole(p.Attested),
	}
	if p.Kind != 0 {
		m.Evidence, m.Platform = overview.ByQuote, "sgx"
		m.Machine, m.PPID, m.Serial = overview.Clean(p.Decision.Platform, overview.MaxText), manifest.PPID(p.Machine.PPID), p.Machine.Serial
	}
	switch p.Kind {
	case attest.TDXQuote4, attest.TDXQuote5:
		m.Platform = "tdx"
	case attest.SNPReport:
		m.Platform = "snp"
	}
	if q := p.Quote; q != nil {
		if q.Simulated {
			m.Platform = "sim"
		}
		m.TCBStatus = overview.Clean(q.Status.String(), overview.MaxText)
		for _, a := range q.Advisories[:min(len(q.Advisories), overview.MaxAdvisories)] {
			m.Advisories = append(m.Advisories, overview.Clean(a, overview.MaxText))
		}
	}
	return m
}

func whole(t time.Time) time.Time {
	if t.Before(time.Unix(1, 0)) { // zero, or no date on the wire
		return time.Time{}
	}
	return t.UTC().Truncate(time.Second)
}
