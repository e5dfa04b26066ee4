package verify

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
)

// oidSGX is Intel's extension of PCK certificates. Its items and theirs have
// OIDs that continue it. Source: Intel SGX PCK Certificate and CRL Profile
// Specification, section 1.3.5.
var oidSGX = asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}

// Numbers that continue oidSGX, and those that continue itemTCB.
const (
	itemPPID          = 1
	itemTCB           = 2
	itemPCEID         = 3
	itemFMSPC         = 4
	itemType          = 5
	itemInstance      = 6
	itemConfiguration = 7

	tcbPCESVN = 17
	tcbCPUSVN = 18

	components = 16
	sgxTypes   = 3 // standard, scalable, scalable with integrity
)

// A Platform is what a PCK certificate says of the machine.
type Platform struct {
	PPID       [16]byte // names the machine, for as long as its fuses are not reset
	Serial     string   // of the PCK certificate, lower-case hex; changes with each TCB
	FMSPC      [6]byte  // family, model, stepping, platform type, custom SKU
	PCEID      [2]byte
	Components [components]uint8 // SVN of each TCB component
	PCESVN     uint16
	CPUSVN     [16]byte
	Type       uint8 // 0 standard, 1 scalable, 2 scalable with integrity
	// What follows is in certificates of the Platform CA only.
	HasInstance bool
	InstanceID  [16]byte // of a platform with several packages
	Dynamic     bool     // packages may be added
	CachedKeys  bool     // keys are kept by Intel's registration service
	SMT         bool     // hyper-threading is on
}

// extension reads the SGX extension of the PCK certificate.
func (v *verification) extension() error {
	p, err := PlatformOf(v.pck)
	if err != nil {
		return err
	}
	v.result.Platform = p
	return nil
}

// PlatformOf reads what a PCK certificate says of its machine. It does not verify
// the certificate: only what Verify returns is vouched for. Errors: those named
// ErrExtension.
func PlatformOf(pck *x509.Certificate) (Platform, error) {
	p, err := parseExtension(pck)
	if err != nil {
		return Platform{}, err
	}
	p.Serial = hex.EncodeToString(pck.SerialNumber.Bytes())
	return p, nil
}

func parseExtension(c *x509.Certificate) (p Platform, err error) {
	var value []byte
	found := 0
	for _, e := range c.Extensions {
		if e.Id.Equal(oidSGX) {
			value = e.Value
			found++
		}
	}
	if found == 0 {
		return p, ErrExtensionMissing
	}
	if found > 1 {
		return p, ErrExtensionTwice
	}
	return parsePlatform(value)
}

// parsePlatform reads the value of the extension.
func parsePlatform(der []byte) (Platform, error) {
	var (
		p   Platform
		r   = itemReader{prefix: oidSGX, err: new(error)}
		top = r.items(asn1.RawValue{FullBytes: der}, itemConfiguration)
	)
	top.octets(itemPPID, p.PPID[:])
	top.octets(itemPCEID, p.PCEID[:])
	top.octets(itemFMSPC, p.FMSPC[:])
	p.Type = uint8(top.number(itemType, asn1.TagEnum, sgxTypes-1))
	p.readTCB(top.items(top.need(itemTCB), tcbCPUSVN, itemTCB))
	if p.HasInstance = top.has(itemInstance) || top.has(itemConfiguration); p.HasInstance { // both or none
		top.octets(itemInstance, p.InstanceID[:])
		p.readConfiguration(top.items(top.need(itemConfiguration), 3, itemConfiguration))
	}
	return p, *r.err
}

func (p *Platform) readTCB(r itemReader) {
	for i := range p.Components {
		p.Components[i] = uint8(r.number(i+1, asn1.TagInteger, math.MaxUint8))
	}
	p.PCESVN = uint16(r.number(tcbPCESVN, asn1.TagInteger, math.MaxUint16))
	r.octets(tcbCPUSVN, p.CPUSVN[:])
}

// readConfiguration reads three flags, each of which may be left out.
func (p *Platform) readConfiguration(r itemReader) {
	for i, flag := range []*bool{&p.Dynamic, &p.CachedKeys, &p.SMT} {
		if r.has(i + 1) {
			*flag = r.truth(i + 1)
		}
	}
}

// An itemReader reads a sequence of pairs of OID and value, and keeps the first
// error of all readers made from one.
type itemReader struct {
	prefix asn1.ObjectIdentifier
	values map[int]asn1.RawValue // by the number that continues prefix
	err    *error
}

func (r itemReader) fail(err error, item int) {
	if *r.err == nil {
		*r.err = fmt.Errorf("%w: %v.%d", err, r.prefix, item)
	}
}

// items reads sequence, whose OIDs are the reader's prefix, continued by at, and
// a number from 1 to last.
func (r itemReader) items(sequence asn1.RawValue, last int, at ...int) itemReader {
	sub := itemReader{append(slices.Clone(r.prefix), at...), map[int]asn1.RawValue{}, r.err}
	if *r.err != nil {
		return sub
	}
	// Not a slice of structs: encoding/asn1 passes over what follows their fields.
	var pairs [][]asn1.RawValue
	if rest, err := asn1.Unmarshal(sequence.FullBytes, &pairs); err != nil || len(rest) > 0 {
		sub.fail(ErrExtensionFormat, 0)
	}
	for _, pair := range pairs {
		sub.add(pair, last)
	}
	return sub
}

// add takes one pair of OID and value.
func (r itemReader) add(pair []asn1.RawValue, last int) {
	var id asn1.ObjectIdentifier
	if len(pair) != 2 {
		r.fail(ErrExtensionFormat, 0)
		return
	}
	if _, err := asn1.Unmarshal(pair[0].FullBytes, &id); err != nil {
		r.fail(ErrExtensionFormat, 0)
		return
	}
	n := len(id) - 1
	item := id[n]
	switch {
	case !id[:n].Equal(r.prefix) || item < 1 || item > last:
		r.fail(ErrExtensionUnknown, item)
	case r.has(item):
		r.fail(ErrExtensionTwice, item)
	}
	r.values[item] = pair[1]
}

func (r itemReader) has(item int) bool {
	_, ok := r.values[item]
	return ok
}

func (r itemReader) need(item int) asn1.RawValue {
	if !r.has(item) {
		r.fail(ErrExtensionIncomplete, item)
	}
	return r.values[item]
}

// octets fills dst from an octet string of its length.
func (r itemReader) octets(item int, dst []byte) {
	v := r.need(item)
	if v.Class != asn1.ClassUniversal || v.IsCompound || v.Tag != asn1.TagOctetString || len(v.Bytes) != len(dst) {
		r.fail(ErrExtensionValue, item)
		return
	}
	copy(dst, v.Bytes)
}

// number reads an integer or an enumerated value from 0 to limit.
func (r itemReader) number(item, tag, limit int) int {
	v := r.need(item)
	if v.Class != asn1.ClassUniversal || v.IsCompound || v.Tag != tag {
		r.fail(ErrExtensionValue, item)
		return 0
	}
	var n int
	if tag == asn1.TagEnum { // its contents are those of an integer
		v.FullBytes = append([]byte{asn1.TagInteger}, v.FullBytes[1:]...)
	}
	if _, err := asn1.Unmarshal(v.FullBytes, &n); err != nil || n < 0 || n > limit {
		r.fail(ErrExtensionValue, item)
		return 0
	}
	return n
}

func (r itemReader) truth(item int) bool {
	var b bool
	if _, err := asn1.Unmarshal(r.need(item).FullBytes, &b); err != nil {
		r.fail(ErrExtensionValue, item)
	}
	return b
}
