package verify

import (
	"errors"
	"fmt"
)

// A Step is one of the checks of Verify. They run in the order of their
// numbers, and the first that fails ends the verification.
type Step uint8

const (
	_                  Step = iota
	StepParse               // shape of the quote: package quote
	StepPCKChain            // PCK certificate, its CA, and the root by equality
	StepCRL                 // both revocation lists, and what they revoke
	StepSGXExtension        // what the PCK certificate says of the platform
	StepQEReport            // quoting enclave's report: signature and REPORTDATA
	StepQuoteSignature      // the quote's own signature
	StepTCBInfo             // TCB info: signer, signature, dates, contents
	StepQEIdentity          // QE identity likewise, and the quoting enclave matches it
	StepTCBLevel            // the platform's level in the TCB info
)

var stepNames = [...]string{
	StepParse: "parse", StepPCKChain: "pck-chain", StepCRL: "crl", StepSGXExtension: "sgx-extension", StepQEReport: "qe-report",
	StepQuoteSignature: "quote-signature", StepTCBInfo: "tcb-info", StepQEIdentity: "qe-identity", StepTCBLevel: "tcb-level",
}

// String returns the step's short name, such as "pck-chain".
func (s Step) String() string {
	if int(s) < len(stepNames) && stepNames[s] != "" {
		return stepNames[s]
	}
	return fmt.Sprintf("step %d", uint8(s))
}

// An Error is a refusal of Verify. Err wraps one of the errors named in this
// package, in quote or in strictjson.
type Error struct {
	Step Step
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("verify quote: %v: %v", e.Step, e.Err) }

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Certificates: StepPCKChain, and the signers of StepTCBInfo and StepQEIdentity.
var (
	ErrNoRoot            = errors.New("no root certificate was given to the verifier")
	ErrUnknownRoot       = errors.New("certificate chain does not end in a given root")
	ErrSimulated         = errors.New("certificate belongs to a simulated platform, which was not allowed")
	ErrCertificate       = errors.New("certificate is malformed")
	ErrCertKey           = errors.New("certificate's key is not on P-256")
	ErrCertAlgorithm     = errors.New("certificate is not signed with ECDSA and SHA-256")
	ErrCertIssuer        = errors.New("certificate's issuer is not the subject of the next one")
	ErrCertSignature     = errors.New("certificate's signature does not verify")
	ErrCertNotYetValid   = errors.New("certificate is not yet valid")
	ErrCertExpired       = errors.New("certificate has expired")
	ErrCertExtension     = errors.New("certificate has a critical extension that is not understood")
	ErrCertNotCA         = errors.New("certificate of a CA does not say that it is one")
	ErrCertIsCA          = errors.New("certificate of a CA stands where none may")
	ErrCertKeyUsage      = errors.New("certificate's key may not be used for this")
	ErrCertRole          = errors.New("certificate's common name is of another role")
	ErrTCBSignerRevoked  = errors.New("TCB signing certificate is revoked")
	ErrSignatureMismatch = errors.New("signature over the document does not verify")
)

// Revocation: StepCRL.
var (
	ErrRootCRLMissing      = errors.New("root CRL is missing")
	ErrPCKCRLMissing       = errors.New("PCK CRL is missing")
	ErrCRLTooLong          = errors.New("CRL is too long")
	ErrCRL                 = errors.New("CRL is malformed")
	ErrCRLAlgorithm        = errors.New("CRL is not signed with ECDSA and SHA-256")
	ErrCRLIssuer           = errors.New("CRL is of another issuer")
	ErrCRLIssuerKey        = errors.New("CRL names another key of its issuer")
	ErrCRLSignature        = errors.New("CRL's signature does not verify")
	ErrCRLNotYetValid      = errors.New("CRL is not yet valid")
	ErrCRLExpired          = errors.New("CRL has expired")
	ErrCRLNextUpdate       = errors.New("CRL does not say until when it is valid")
	ErrCRLExtension        = errors.New("CRL has a critical extension that is not understood")
	ErrCRLNumber           = errors.New("CRL has no number")
	ErrCRLIssuerChain      = errors.New("PCK CRL's issuer chain is not that of the PCK certificate")
	ErrIntermediateRevoked = errors.New("PCK CA is revoked")
	ErrPCKRevoked          = errors.New("PCK certificate is revoked")
)

// What the PCK certificate says of the platform: StepSGXExtension.
var (
	ErrExtensionMissing    = errors.New("PCK certificate has no SGX extension")
	ErrExtensionFormat     = errors.New("SGX extension is malformed")
	ErrExtensionTwice      = errors.New("SGX extension has an item twice")
	ErrExtensionUnknown    = errors.New("SGX extension has an unknown item")
	ErrExtensionIncomplete = errors.New("SGX extension lacks an item")
	ErrExtensionValue      = errors.New("SGX extension has an item of the wrong type or size")
)

// Signatures of the quote: StepQEReport and StepQuoteSignature.
var (
	ErrQEReportSignature = errors.New("report of the quoting enclave is not signed by the PCK")
	ErrQEReportData      = errors.New("report of the quoting enclave does not vouch for the attestation key")
	ErrAttestationKey    = errors.New("attestation key is not a point of P-256")
	ErrQuoteSignature    = errors.New("quote is not signed by the attestation key")
)

// Signed documents: StepTCBInfo and StepQEIdentity.
var (
	ErrDocumentMissing     = errors.New("document is missing")
	ErrDocumentID          = errors.New("document is for another kind of TEE or enclave")
	ErrDocumentVersion     = errors.New("document has an unknown version")
	ErrDocumentNotYetValid = errors.New("document is not yet valid")
	ErrDocumentExpired     = errors.New("document has expired")
	ErrEvaluationNumber    = errors.New("tcbEvaluationDataNumber is below the minimum")
	ErrTCBType             = errors.New("tcbType is not 0")
	ErrTDXMember           = errors.New("TCB info for SGX has members for TDX")
	ErrComponents          = errors.New("TCB level does not have 16 components")
	ErrLevels              = errors.New("document has no TCB levels, or one twice")
	ErrUnknownStatus       = errors.New("TCB status is unknown")
)

// The quoting enclave against its identity: StepQEIdentity.
var (
	ErrQEMiscSelect = errors.New("quoting enclave has another MISCSELECT")
	ErrQEAttributes = errors.New("quoting enclave has other ATTRIBUTES")
	ErrQEDebug      = errors.New("quoting enclave runs in debug mode")
	ErrQESigner     = errors.New("quoting enclave has another MRSIGNER")
	ErrQEProduct    = errors.New("quoting enclave has another ISVPRODID")
	ErrQELevel      = errors.New("quoting enclave's ISVSVN is below all TCB levels")
	ErrQERevoked    = errors.New("quoting enclave's TCB level is revoked")
)

// The platform against the TCB info: StepTCBLevel.
var (
	ErrFMSPC           = errors.New("TCB info is for another FMSPC")
	ErrPCEID           = errors.New("TCB info is for another PCEID")
	ErrNoTCBLevel      = errors.New("platform is below all TCB levels")
	ErrPlatformRevoked = errors.New("platform's TCB level is revoked")
)
