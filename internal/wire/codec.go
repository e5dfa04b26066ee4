package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// formatV1 is the first byte of every message.
const formatV1 = 1

// start checks the format byte of a message.
func start(b []byte) *pack.Reader {
	r := pack.NewReader(b)
	if v := r.Uint8(); r.Err() == nil && v != formatV1 {
		r.Fail("message format %d is unknown", v)
	}
	return r
}

// finish adds what was being decoded to the reader's error.
func finish(r *pack.Reader, what string) error {
	if err := r.Close(); err != nil {
		return fmt.Errorf("decode %s: %w", what, err)
	}
	return nil
}

const recordIDSize = 1 + 16 + 16 + 4

func appendID(dst []byte, id RecordID) []byte {
	dst = append(dst, byte(id.Type))
	dst = append(dst, id.Tenant[:]...)
	dst = append(dst, id.ID[:]...)
	return binary.BigEndian.AppendUint32(dst, id.Version)
}

func readID(r *pack.Reader) (id RecordID) {
	id.Type = RecordType(r.Uint8())
	r.Array(id.Tenant[:])
	r.Array(id.ID[:])
	id.Version = r.Uint32()
	return id
}

const refSize = recordIDSize + 8 + 16 + 4

func appendRefs(dst []byte, refs []Ref) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(refs)))
	for i := range refs {
		dst = appendRef(dst, &refs[i])
	}
	return dst
}

func appendRef(dst []byte, f *Ref) []byte {
	dst = appendID(dst, f.ID)
	dst = binary.BigEndian.AppendUint64(dst, f.Revision)
	dst = append(dst, f.Tag[:]...)
	return pack.AppendBytes(dst, f.Sealed)
}

func readRef(r *pack.Reader) (f Ref) {
	f.ID = readID(r)
	f.Revision = r.Uint64()
	r.Array(f.Tag[:])
	if b := r.Bytes(MaxRecord); len(b) > 0 {
		f.Sealed = b
	}
	return f
}

func readRefs(r *pack.Reader, limit int) []Ref {
	n := r.Count(limit, refSize)
	if n == 0 {
		return nil
	}
	refs := make([]Ref, n)
	for i := range refs {
		refs[i] = readRef(r)
	}
	return refs
}

// Append appends the encoding of c.
func (c *Call) Append(dst []byte) []byte {
	dst = append(dst, formatV1)
	dst = pack.AppendString(dst, c.RequestID)
	dst = pack.AppendString(dst, c.Action)
	dst = pack.AppendBool(dst, c.Get)
	dst = pack.AppendBytes(dst, c.Body)
	dst = appendRefs(dst, c.Records)
	dst = pack.AppendBool(dst, c.Fresh)
	dst = pack.AppendBool(dst, c.Listed)
	dst = appendRefs(dst, c.Listing)
	dst = pack.AppendBool(dst, c.Collated)
	dst = pack.AppendBytes(dst, c.Collateral)
	dst = binary.BigEndian.AppendUint32(dst, c.Floor)
	return append(dst, c.Again)
}

// DecodeCall reads what Append wrote. The call shares memory with b.
func DecodeCall(b []byte) (*Call, error) {
	r := start(b)
	c := &Call{
		RequestID: r.String(MaxName),
		Action:    r.String(MaxName),
		Get:       r.Bool(),
		Body:      r.Bytes(MaxBody),
		Records:   readRefs(r, MaxRecords),
		Fresh:     r.Bool(),
		Listed:    r.Bool(),
		Listing:   readRefs(r, MaxList),
		Collated:  r.Bool(),
	}
	if b := r.Bytes(MaxCollateral); len(b) > 0 {
		c.Collateral = b
	}
	c.Floor = r.Uint32()
	c.Again = r.Uint8()
	return c, finish(r, "call")
}

// Append appends the encoding of s.
func (s *Sweep) Append(dst []byte) []byte {
	dst = append(dst, formatV1)
	dst = pack.AppendString(dst, s.RequestID)
	dst = appendRef(dst, &s.App)
	dst = appendRefs(dst, s.Keys)
	dst = appendRef(dst, &s.Secret)
	return binary.BigEndian.AppendUint32(dst, s.Floor)
}

// DecodeSweep reads what Append wrote. The sweep shares memory with b.
func DecodeSweep(b []byte) (*Sweep, error) {
	r := start(b)
	s := &Sweep{RequestID: r.String(MaxName), App: readRef(r), Keys: readRefs(r, SweepStep), Secret: readRef(r), Floor: r.Uint32()}
	return s, finish(r, "sweep")
}

// Append appends the encoding of v.
func (v Resolve) Append(dst []byte) []byte {
	dst = append(dst, formatV1)
	dst = binary.BigEndian.AppendUint64(dst, v.Handle)
	return append(dst, byte(v.Outcome))
}

// DecodeResolve reads what Append wrote.
func DecodeResolve(b []byte) (Resolve, error) {
	r := start(b)
	v := Resolve{Handle: r.Uint64(), Outcome: Outcome(r.Uint8())}
	if r.Err() == nil && (v.Outcome < Stored || v.Outcome > Failed) {
		r.Fail("outcome %d is unknown", v.Outcome)
	}
	return v, finish(r, "resolve")
}

// Append appends the encoding of i.
func (i Info) Append(dst []byte) []byte {
	dst = append(dst, formatV1)
	dst = pack.AppendString(dst, i.Version)
	dst = pack.AppendString(dst, i.GitSHA)
	dst = pack.AppendString(dst, i.Platform)
	dst = append(dst, i.Domain[:]...)
	dst = append(dst, i.Instance[:]...)
	dst = append(dst, i.AuditKey[:]...)
	dst = pack.AppendBool(dst, i.Simulated)
	dst = pack.AppendBool(dst, i.OpenEnrollment)
	dst = append(dst, i.HPKEKey[:]...)
	dst = binary.BigEndian.AppendUint64(dst, i.Manifest)
	dst = binary.BigEndian.AppendUint32(dst, i.DomainKey)
	return binary.BigEndian.AppendUint32(dst, i.Compromised)
}

// DecodeInfo reads what Append wrote.
func DecodeInfo(b []byte) (Info, error) {
	r := start(b)
	i := Info{Version: r.String(MaxName), GitSHA: r.String(MaxName), Platform: r.String(MaxName)}
	r.Array(i.Domain[:])
	r.Array(i.Instance[:])
	r.Array(i.AuditKey[:])
	i.Simulated = r.Bool()
	i.OpenEnrollment = r.Bool()
	r.Array(i.HPKEKey[:])
	i.Manifest, i.DomainKey, i.Compromised = r.Uint64(), r.Uint32(), r.Uint32()
	return i, finish(r, "info")
}

// Append appends the encoding of a.
func (a *Answer) Append(dst []byte) []byte {
	dst = append(dst, formatV1, byte(a.Kind))
	dst = binary.BigEndian.AppendUint16(dst, uint16(a.Code))
	dst = pack.AppendBytes(dst, a.Reply)
	dst = pack.AppendString(dst, a.Sign)
	dst = binary.BigEndian.AppendUint64(dst, uint64(a.Release))
	dst = binary.BigEndian.AppendUint64(dst, a.Handle)
	dst = appendWrites(dst, a.Writes)
	dst = pack.AppendBool(dst, a.Replay != nil)
	if a.Replay != nil {
		dst = append(dst, a.Replay.Tenant[:]...)
		dst = append(dst, a.Replay.Tag[:]...)
		dst = binary.BigEndian.AppendUint64(dst, uint64(a.Replay.Until))
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(a.NeedRecords)))
	for _, id := range a.NeedRecords {
		dst = appendID(dst, id)
	}
	dst = pack.AppendBool(dst, a.NeedList != nil)
	if q := a.NeedList; q != nil {
		dst = append(dst, byte(q.Type))
		dst = append(dst, q.Tenant[:]...)
		dst = append(dst, q.ID[:]...)
		dst = binary.BigEndian.AppendUint32(dst, q.After)
		dst = binary.BigEndian.AppendUint32(dst, uint32(q.Limit))
	}
	dst = pack.AppendBool(dst, a.NeedCollateral != nil)
	if q := a.NeedCollateral; q != nil {
		dst = append(dst, q.FMSPC[:]...)
		dst = pack.AppendString(dst, q.CA)
	}
	dst = binary.BigEndian.AppendUint32(dst, a.NeedVersion)
	dst = pack.AppendBool(dst, a.NeedFacts)
	dst = appendNewFacts(dst, a.Facts)
	return appendAudit(dst, &a.Audit)
}

func appendWrites(dst []byte, writes []Write) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(writes)))
	for i := range writes {
		w := &writes[i]
		dst = appendID(dst, w.ID)
		dst = binary.BigEndian.AppendUint64(dst, w.Expected)
		dst = binary.BigEndian.AppendUint64(dst, w.Revision)
		dst = pack.AppendBool(dst, w.Hidden)
		dst = binary.BigEndian.AppendUint32(dst, w.Primary)
		dst = pack.AppendBool(dst, w.Sweep)
		dst = binary.BigEndian.AppendUint64(dst, uint64(w.Due))
		dst = pack.AppendBool(dst, w.Rewrapped)
		dst = pack.AppendBool(dst, w.Remove)
		dst = pack.AppendBytes(dst, w.Sealed)
	}
	return dst
}

func appendAudit(dst []byte, a *Audit) []byte {
	dst = binary.BigEndian.AppendUint64(dst, a.First)
	dst = binary.BigEndian.AppendUint32(dst, uint32(a.Count))
	dst = pack.AppendBool(dst, a.Durable)
	return pack.AppendBytes(dst, a.Frames)
}

// DecodeAnswer reads what Append wrote. The answer shares memory with b.
func DecodeAnswer(b []byte) (*Answer, error) {
	r := start(b)
	a := &Answer{Kind: Kind(r.Uint8()), Code: int(r.Uint16())}
	if r.Err() == nil && (a.Kind < Final || a.Kind > Need) {
		r.Fail("answer kind %d is unknown", a.Kind)
	}
	if b := r.Bytes(MaxFrame); len(b) > 0 {
		a.Reply = b
	}
	a.Sign = r.String(MaxSign)
	a.Release = r.Int64()
	a.Handle = r.Uint64()
	a.Writes = readWrites(r)
	if r.Bool() {
		a.Replay = readReplay(r)
	}
	if n := r.Count(MaxRecords, recordIDSize); n > 0 {
		a.NeedRecords = make([]RecordID, n)
		for i := range a.NeedRecords {
			a.NeedRecords[i] = readID(r)
		}
	}
	if r.Bool() {
		a.NeedList = readQuery(r)
	}
	if r.Bool() {
		a.NeedCollateral = readCollateralQuery(r)
	}
	a.NeedVersion = r.Uint32()
	a.NeedFacts = r.Bool()
	a.Facts = readNewFacts(r)
	a.Audit = readAudit(r)
	return a, finish(r, "answer")
}

func readWrites(r *pack.Reader) []Write {
	n := r.Count(MaxWrites, recordIDSize+8+8+1+4+1+8+1+1+4)
	if n == 0 {
		return nil
	}
	writes := make([]Write, n)
	for i := range writes {
		writes[i] = Write{
			ID: readID(r), Expected: r.Uint64(), Revision: r.Uint64(),
			Hidden: r.Bool(), Primary: r.Uint32(), Sweep: r.Bool(), Due: r.Int64(), Rewrapped: r.Bool(), Remove: r.Bool(),
		}
		if b := r.Bytes(MaxRecord); len(b) > 0 {
			writes[i].Sealed = b
		}
	}
	return writes
}

func readReplay(r *pack.Reader) *Replay {
	p := &Replay{}
	r.Array(p.Tenant[:])
	r.Array(p.Tag[:])
	p.Until = r.Int64()
	return p
}

func readQuery(r *pack.Reader) *Query {
	q := &Query{Type: RecordType(r.Uint8())}
	r.Array(q.Tenant[:])
	r.Array(q.ID[:])
	q.After = r.Uint32()
	q.Limit = int(r.Uint32())
	if q.Limit > MaxList {
		r.Fail("list limit %d is over %d", q.Limit, MaxList)
	}
	return q
}

func readCollateralQuery(r *pack.Reader) *CollateralQuery {
	q := &CollateralQuery{}
	r.Array(q.FMSPC[:])
	q.CA = r.String(MaxName)
	if r.Err() == nil && q.CA != ProcessorCA && q.CA != PlatformCA {
		r.Fail("CA %q is unknown", q.CA)
	}
	return q
}

func readAudit(r *pack.Reader) Audit {
	a := Audit{First: r.Uint64(), Count: int(r.Uint32()), Durable: r.Bool()}
	if b := r.Bytes(MaxFrame); len(b) > 0 {
		a.Frames = b
	}
	return a
}
