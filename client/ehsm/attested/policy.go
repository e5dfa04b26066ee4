package attested

import (
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/snp"
	"github.com/ehsm-kms/ehsm/internal/attest/strictjson"
	"github.com/ehsm-kms/ehsm/internal/attest/tdx"
)

// maxPolicy is the longest policy file in bytes.
const maxPolicy = 1 << 20

// ErrPolicy is wrapped by every error of ParsePolicy.
var ErrPolicy = errors.New("invalid attestation policy")

// A Policy says which programs, machines and TCB statuses are accepted, for one
// kind of TEE. Evidence of another kind is not wanted.
type Policy struct {
	sgx *validate.Policy
	tdx *tdx.Policy
	snp *snp.Policy
}

// ParsePolicy reads a policy file: JSON, of the format that its member "format"
// names: ehsm-sgx-policy/v1, ehsm-tdx-policy/v1 or ehsm-snp-policy/v1. Unknown
// members, and policies that accept nothing, are refused.
// docs/formats.md#attestation-policy-v1 has examples. Errors wrap ErrPolicy.
func ParsePolicy(b []byte) (*Policy, error) {
	p := new(Policy)
	_, n, err := strictjson.Parse(b, maxPolicy)
	if err == nil {
		format := n.Member("format").Text()
		if err = n.Err(); err == nil {
			err = p.parse(format, b)
		}
	}
	switch {
	case err == nil:
		return p, nil
	case errors.As(err, new(policyError)):
		return nil, err
	}
	return nil, fmt.Errorf("%w: %w", ErrPolicy, err)
}

// A policyError is of the parser for one kind of TEE, whose text says already
// that the policy is invalid.
type policyError struct{ error }

// Unwrap returns ErrPolicy and the cause.
func (e policyError) Unwrap() []error { return []error{ErrPolicy, e.error} }

func (p *Policy) parse(format string, b []byte) (err error) {
	switch format {
	case validate.PolicyFormat:
		p.sgx, err = validate.ParsePolicy(b)
	case tdx.PolicyFormat:
		p.tdx, err = tdx.ParsePolicy(b)
	case snp.PolicyFormat:
		p.snp, err = snp.ParsePolicy(b)
	default:
		return fmt.Errorf("format %q, want %q, %q or %q", format, validate.PolicyFormat, tdx.PolicyFormat, snp.PolicyFormat)
	}
	if err != nil {
		return policyError{err}
	}
	return nil
}

// Warnings says what of the policy a person should know at every start, such as
// that simulated platforms are accepted.
func (p *Policy) Warnings() []string {
	switch {
	case p.sgx != nil:
		return p.sgx.Warnings()
	case p.tdx != nil:
		return p.tdx.Warnings()
	case p.snp != nil:
		return p.snp.Warnings()
	}
	return nil
}

// allowSim reports whether the policy itself accepts simulated platforms.
func (p *Policy) allowSim() bool { return p != nil && p.sgx != nil && p.sgx.AllowSim }
