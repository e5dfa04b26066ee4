// Package attest holds the words of attestation (RFC 9334) that attesters and
// relying parties share: what evidence is, and what the 64 bytes that it binds
// may mean. Verification of evidence is in the packages below dcap.
//
// It holds no secrets and does no I/O.
package attest

import (
	"context"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// Kind says how evidence is encoded and verified. Numbers are transmitted and
// never change.
type Kind uint8

const (
	_         Kind = iota
	SGXQuote3      // Intel SGX quote, version 3, ECDSA-P256; see dcap/quote
	TDXQuote4      // Intel TDX quote, version 4
	TDXQuote5      // Intel TDX quote, version 5
	SNPReport      // AMD SEV-SNP attestation report, 1184 bytes, without certificates
)

// String names the kind for logs and errors.
func (k Kind) String() string {
	switch k {
	case SGXQuote3:
		return "SGX quote v3"
	case TDXQuote4:
		return "TDX quote v4"
	case TDXQuote5:
		return "TDX quote v5"
	case SNPReport:
		return "SEV-SNP report"
	}
	return fmt.Sprintf("evidence kind %d", uint8(k))
}

// MaxQuote is the longest quote in evidence, in bytes.
const MaxQuote = 16 << 10

const formatV1 = 1

// Evidence is what a TEE says of itself, signed by its platform. It proves
// nothing before it is verified with collateral and validated under a policy.
type Evidence struct {
	Kind  Kind
	Quote []byte
}

// An Attester produces evidence for the code it runs in.
type Attester interface {
	// Evidence binds reportData to this TEE. It may block on the platform for
	// hundreds of milliseconds. Callers make reportData with ReportData.
	Evidence(ctx context.Context, reportData [64]byte) (Evidence, error)
}

// Append appends the encoding of e. Layout: docs/formats.md#evidence-v1.
func (e Evidence) Append(dst []byte) []byte {
	return pack.AppendBytes(append(dst, formatV1, byte(e.Kind)), e.Quote)
}

// DecodeEvidence reads what Append wrote, and nothing else. It refuses the kinds
// for which no verifier is built in: all but SGXQuote3. The evidence shares memory
// with b. Errors wrap pack.ErrMalformed.
func DecodeEvidence(b []byte) (Evidence, error) {
	r := pack.NewReader(b)
	if v := r.Uint8(); r.Err() == nil && v != formatV1 {
		r.Fail("format %d is unknown", v)
	}
	e := Evidence{Kind: Kind(r.Uint8())}
	if r.Err() == nil && e.Kind != SGXQuote3 {
		r.Fail("%v: no verifier is built in", e.Kind)
	}
	e.Quote = r.Bytes(MaxQuote)
	if err := r.Close(); err != nil {
		return Evidence{}, fmt.Errorf("decode evidence: %w", err)
	}
	return e, nil
}
