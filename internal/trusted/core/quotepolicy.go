package core

import (
	"encoding/hex"

	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// policyRecord names the record of the policy that a request names; false for
// what is no UUID and so names none.
func (x *request) policyRecord() (wire.RecordID, bool) {
	id, err := wire.ParseUUID(x.payload.text("policyId"))
	return wire.RecordID{Type: wire.QuotePolicy, Tenant: x.tenant, ID: id}, err == nil
}

// loadPolicy returns the tenant's policy that a request names, nil if there is
// none.
func (x *request) loadPolicy() (*record.QuotePolicy, error) {
	id, ok := x.policyRecord()
	if !ok {
		return nil, nil
	}
	x.key = id.ID
	p, err := load(x, x.core.policies, id, func(h record.Header, sealed []byte) (record.QuotePolicy, error) {
		return record.OpenQuotePolicy(x.core.keys, h, sealed)
	})
	if err != nil || p == nil {
		return nil, err
	}
	return &p.value, nil
}

// uploadQuotePolicy stores a policy, which never changes.
func (x *request) uploadQuotePolicy() (result, error) {
	p := record.QuotePolicy{Created: x.millis()}
	hex.Decode(p.MREnclave[:], []byte(x.payload.text("mr_enclave"))) // validated
	hex.Decode(p.MRSigner[:], []byte(x.payload.text("mr_signer")))
	id := wire.RecordID{Type: wire.QuotePolicy, Tenant: x.tenant, ID: wire.NewUUID()}
	x.key = id.ID
	sealed, err := record.SealQuotePolicy(x.core.keys, record.Header{ID: id, Revision: 1}, p)
	if err != nil {
		return result{}, errInternal("seal quote policy")
	}
	w := wire.Write{ID: id, Revision: 1, Sealed: sealed}
	x.write(w)
	x.onStored = append(x.onStored, func() { x.core.policies.put(id, w.Revision, w.Tag(), p) })
	return result{"Upload quote policy success.", object{}.text("policyId", id.ID.String()).end()}, nil
}

// getQuotePolicy shows a policy. One that is not there has nothing but its id.
func (x *request) getQuotePolicy() (result, error) {
	p, err := x.loadPolicy()
	if err != nil {
		return result{}, err
	}
	o := object{}.text("policyId", x.payload.text("policyId"))
	if p != nil {
		o = o.text("mr_enclave", hex.EncodeToString(p.MREnclave[:])).text("mr_signer", hex.EncodeToString(p.MRSigner[:])).
			integer("createTime", p.Created)
	}
	return result{"Query quote policy success.", o.end()}, nil
}
