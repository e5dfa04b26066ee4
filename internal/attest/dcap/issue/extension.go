package issue

import (
	"encoding/asn1"
	"fmt"
	"slices"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// oidSGX is the extension of PCK certificates. Source: Intel SGX PCK Certificate
// and CRL Profile Specification, section 1.3.5.
var oidSGX = asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}

// An Item is a pair in the SGX extension, or in a sequence within it.
type Item struct {
	ID    asn1.ObjectIdentifier
	Value any
}

// OID returns the extension's OID, continued by numbers.
func OID(numbers ...int) asn1.ObjectIdentifier { return append(slices.Clone(oidSGX), numbers...) }

// Items lists what MarshalExtension writes for a platform, in Intel's order.
func Items(p verify.Platform) []Item {
	var tcb []Item
	for i, svn := range p.Components {
		tcb = append(tcb, Item{OID(2, i+1), int(svn)})
	}
	tcb = append(tcb, Item{OID(2, 17), int(p.PCESVN)}, Item{OID(2, 18), p.CPUSVN[:]})
	items := []Item{
		{OID(1), p.PPID[:]},
		{OID(2), tcb},
		{OID(3), p.PCEID[:]},
		{OID(4), p.FMSPC[:]},
		{OID(5), asn1.Enumerated(p.Type)},
	}
	if p.HasInstance {
		configuration := []Item{{OID(7, 1), p.Dynamic}, {OID(7, 2), p.CachedKeys}, {OID(7, 3), p.SMT}}
		items = append(items, Item{OID(6), p.InstanceID[:]}, Item{OID(7), configuration})
	}
	return items
}

// MarshalExtension returns the value of the SGX extension in DER. The platform's
// Serial is not part of it.
func MarshalExtension(p verify.Platform) ([]byte, error) {
	der, err := asn1.Marshal(Items(p))
	if err != nil {
		return nil, fmt.Errorf("encode SGX extension: %w", err)
	}
	return der, nil
}
