// Package verify answers one question about an Intel SGX quote: is it genuine?
// That is, did a quoting enclave that Intel vouches for, on a machine that Intel
// vouches for, sign it, and what does Intel say today about that machine's TCB?
// Whether one wants that enclave and accepts that TCB is for package validate.
//
// The trust anchor, the time and the collateral are parameters. The package
// does no I/O, holds no secrets and uses only the standard library. Sources:
// Intel SGX ECDSA Quote Library Reference; Intel SGX PCK Certificate and CRL
// Profile Specification; Intel's PCS API v4.
package verify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
)

// Options say under which conditions a quote is verified.
type Options struct {
	// Roots are the trust anchors; see IntelRoot. A chain must end in one of
	// them by equality. Without one nothing verifies.
	Roots []*x509.Certificate
	// Now is the time at which everything must be valid.
	Now time.Time
	// MinTCBEvaluation is the least tcbEvaluationDataNumber of both documents:
	// it stops the host from serving those before a TCB recovery.
	MinTCBEvaluation uint32
	// CollateralGrace accepts CRLs and documents for so long after their
	// nextUpdate, and marks the result Stale. Validate decides who benefits.
	CollateralGrace time.Duration
	// AllowSim admits certificates of simulated fleets: nothing is then
	// protected by hardware. Their root must be among Roots as well.
	AllowSim bool
}

// A Result says what was verified. It is meaningful only without an error.
type Result struct {
	// Status is the merged status of platform and quoting enclave. It is never
	// Revoked: that is an error.
	Status Status
	// Advisories of platform and quoting enclave, sorted, such as INTEL-SA-00615.
	Advisories []string
	// PlatformAdvisories are those of the platform alone, sorted.
	PlatformAdvisories []string
	// PlatformStatus and QEStatus are what Status was merged from.
	PlatformStatus, QEStatus Status
	// TCBDate and QETCBDate are those of the levels: all advisories published
	// until then are dealt with or listed.
	TCBDate, QETCBDate time.Time
	// OutOfDateSince is when a level above the platform's, or the quoting
	// enclave's, was published first; zero if neither is out of date or Intel
	// gives no later date.
	OutOfDateSince time.Time
	// TCBEvaluation is the lesser tcbEvaluationDataNumber of both documents.
	TCBEvaluation uint32
	// Expires is the earliest nextUpdate of CRLs and documents.
	Expires time.Time
	// CertsExpire is the earliest end of validity of all certificates.
	CertsExpire time.Time
	// Stale says that collateral had expired and CollateralGrace covered it.
	Stale bool
	// LatestIssue is the latest date of issue of all collateral: it is not
	// earlier now, whatever the clock says.
	LatestIssue time.Time
	// Simulated says that the chain belongs to a simulated fleet.
	Simulated bool

	Platform Platform
	Header   quote.Header
	Report   quote.Report // of the enclave that asked for the quote
	QEReport quote.Report
}

// verification is one run of Verify.
type verification struct {
	raw    []byte
	signed []byte // what the quote's signature is over
	c      *Collateral
	o      *Options

	quote           *quote.Quote
	root, ca, pck   *x509.Certificate
	rootCRL         *x509.RevocationList
	signer          *x509.Certificate // TCB signing certificate, once checked
	signerChainRead []byte            // the chain it came from
	tcb             *tcbInfo
	qe              *qeIdentity
	qeLevel         qeLevel

	result Result
}

// Verify checks everything that makes a quote genuine at time o.Now. It does not
// look at the enclave's identity, debug attribute or REPORTDATA; see validate.
// Every error is an *Error with the step that failed.
func Verify(q []byte, c Collateral, o Options) (Result, error) {
	v := &verification{raw: q, c: &c, o: &o}
	err := run([]check{
		{StepParse, v.parse},
		{StepPCKChain, v.pckChain},
		{StepCRL, v.crls},
		{StepSGXExtension, v.extension},
		{StepQEReport, v.qeReport},
		{StepQuoteSignature, v.quoteSignature},
		{StepTCBInfo, v.tcbInfo},
		{StepQEIdentity, func() error { return v.qeIdentity(sgxQE) }},
		{StepTCBLevel, v.tcbLevel},
	})
	if err != nil {
		return Result{}, err
	}
	return v.result, nil
}

// A check is a step with what it does.
type check struct {
	step Step
	run  func() error
}

// run makes the checks in their order, up to the first that fails.
func run(checks []check) error {
	for _, c := range checks {
		if err := c.run(); err != nil {
			return &Error{c.step, err}
		}
	}
	return nil
}

func (v *verification) parse() (err error) {
	if v.quote, err = quote.Parse(v.raw); err != nil {
		return err
	}
	v.signed = v.raw[:quote.SignedSize]
	v.result.Header, v.result.Report, v.result.QEReport = v.quote.Header, v.quote.Report, v.quote.QEReport
	return nil
}

// qeReport checks that the quoting enclave, on this platform, made the
// attestation key.
func (v *verification) qeReport() error {
	q := v.quote
	key := v.pck.PublicKey.(*ecdsa.PublicKey) // checkCertificate
	if !verifiesRaw(key, q.QEReport.Append(nil), &q.QESignature) {
		return ErrQEReportSignature
	}
	var want [64]byte // the hash, then 32 zero bytes
	sum := sha256.Sum256(append(bytes.Clone(q.AttestationKey[:]), q.AuthData...))
	copy(want[:], sum[:])
	if q.QEReport.ReportData != want {
		return ErrQEReportData
	}
	return nil
}

func (v *verification) quoteSignature() error {
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{4}, v.quote.AttestationKey[:]...))
	if err != nil {
		return ErrAttestationKey
	}
	if !verifiesRaw(key, v.signed, &v.quote.Signature) {
		return ErrQuoteSignature
	}
	return nil
}
