// Package attest holds the words of attestation (RFC 9334) that attesters and
// relying parties share: what evidence is, and what the 64 bytes that it binds
// may mean. Verification of evidence is in dcap, tdx and snp.
//
// It holds no secrets and does no I/O.
package attest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

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

// ErrNoVerifier says that evidence is of a kind for which the program has no
// verifier: those of guests are in programs with the build tag tsm only.
var ErrNoVerifier = errors.New("no verifier for this kind of evidence is built in")

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
// for which no verifier is built into a TEE program: all but SGXQuote3. The
// evidence shares memory with b. Errors wrap pack.ErrMalformed, or ErrNoVerifier.
func DecodeEvidence(b []byte) (Evidence, error) { return DecodeEvidenceOf(b, SGXQuote3) }

// DecodeEvidenceOf is DecodeEvidence for a relying party that has verifiers for
// the given kinds.
func DecodeEvidenceOf(b []byte, kinds ...Kind) (Evidence, error) {
	r := pack.NewReader(b)
	if v := r.Uint8(); r.Err() == nil && v != formatV1 {
		r.Fail("format %d is unknown", v)
	}
	e := Evidence{Kind: Kind(r.Uint8())}
	if known := e.Kind >= SGXQuote3 && e.Kind <= SNPReport; r.Err() == nil && known && !slices.Contains(kinds, e.Kind) {
		return Evidence{}, fmt.Errorf("decode evidence: %w: %v", ErrNoVerifier, e.Kind)
	} else if r.Err() == nil && !known {
		r.Fail("%v is unknown", e.Kind)
	}
	e.Quote = r.Bytes(MaxQuote)
	if err := r.Close(); err != nil {
		return Evidence{}, fmt.Errorf("decode evidence: %w", err)
	}
	return e, nil
}

// KindOf tells by its first bytes which kind a bare quote or report is, such as
// one of GenerateQuote; zero if it is none of them. It verifies nothing.
func KindOf(quote []byte) Kind {
	const (
		headerSize                 = 8 // version, key type, TEE type
		keyTypeP256, teeTDX        = 2, 0x81
		snpSize, snpFirst, snpLast = 1184, 2, 5 // bytes and versions of ATTESTATION_REPORT
	)
	if len(quote) < headerSize {
		return 0
	}
	le := binary.LittleEndian
	version, keyType, tee := le.Uint16(quote), le.Uint16(quote[2:]), le.Uint32(quote[4:])
	switch whole := le.Uint32(quote); {
	case len(quote) == snpSize && whole >= snpFirst && whole <= snpLast:
		return SNPReport
	case keyType != keyTypeP256:
	case version == 3 && tee == 0:
		return SGXQuote3
	case version == 4 && tee == teeTDX:
		return TDXQuote4
	case version == 5 && tee == teeTDX:
		return TDXQuote5
	}
	return 0
}
