package record

import (
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// QuotePolicy says which enclave's quotes a tenant wants: one of exactly this
// code and this signer. It never changes and has no material.
type QuotePolicy struct {
	Created   int64 // Unix milliseconds, not 0
	MREnclave [32]byte
	MRSigner  [32]byte
}

const quotePolicyV1 = 1

func (p QuotePolicy) validate() error {
	if p.Created == 0 {
		return errors.New("quote policy has no date")
	}
	return nil
}

// SealQuotePolicy seals a policy. It refuses one without a date, as
// OpenQuotePolicy does.
func SealQuotePolicy(keys *domainkey.Keyring, h Header, p QuotePolicy) ([]byte, error) {
	if err := sealable(h, wire.QuotePolicy, p.validate()); err != nil {
		return nil, err
	}
	b := appendInt64s([]byte{quotePolicyV1}, p.Created)
	b = append(append(b, p.MREnclave[:]...), p.MRSigner[:]...)
	return seal(keys, h, b, secret.Bytes{})
}

// OpenQuotePolicy opens a policy. Errors: ErrOpen.
func OpenQuotePolicy(keys *domainkey.Keyring, h Header, sealed []byte) (QuotePolicy, error) {
	var p QuotePolicy
	if h.ID.Type != wire.QuotePolicy { // check+: policy-type: the core asks for policies by their type
		return p, fmt.Errorf("%w: %s is no quote policy", ErrOpen, h.ID)
	}
	attributes, none, err := open(keys, h, sealed)
	if err != nil {
		return p, err
	}
	r := version(attributes, quotePolicyV1)
	p.Created = r.Int64()
	r.Array(p.MREnclave[:])
	r.Array(p.MRSigner[:])
	if none.Len() != 0 {
		r.Fail("quote policy has material")
	}
	if err := finish(r, p.validate()); err != nil {
		return QuotePolicy{}, err
	}
	return p, nil
}
