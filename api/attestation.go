package api

import "fmt"

// Limits of the actions of remote attestation, in bytes before base64.
const (
	MaxChallenge      = 3072 // of GenerateQuote, and the nonce of VerifyQuote
	MaxQuote          = 8192 // of VerifyQuote
	EvidenceChallenge = 32   // of GetEvidence, exactly
)

// ChallengeParam is the query parameter of GetEvidence: EvidenceChallenge bytes in
// base64url without padding.
const ChallengeParam = "challenge"

// How a quote's 64 bytes of REPORTDATA are made, as the results of GenerateQuote
// and GetEvidence name it. Both bind the domain id and the HPKE public key of the
// core instance. docs/formats.md#reportdata.
const (
	// BindingNative is SHA-256 of the challenge, then SHA-256 of the binding's
	// name, the domain id and the HPKE public key.
	BindingNative = "ehsm-native-quote/v1"
	// BindingInstance is SHA-512 over a structure that also has the role and the
	// instance id. Only services from before there were key pairs say it.
	BindingInstance = "ehsm/reportdata-instance/v1"
	// BindingInstanceKeys also has the key that signs replies.
	BindingInstanceKeys = "ehsm/reportdata-instance/v2"
)

// RoleCore is the role of the program that answers GetEvidence.
const RoleCore = "core"

// GenerateQuoteRequest asks for a quote over 1 to MaxChallenge bytes.
type GenerateQuoteRequest struct {
	Challenge []byte `json:"challenge"`
}

// GenerateQuoteResult has the challenge as it was sent and the platform's quote:
// on SGX a DCAP ECDSA quote of version 3.
type GenerateQuoteResult struct {
	Challenge         []byte `json:"challenge"`
	Quote             []byte `json:"quote"`
	ReportDataBinding string `json:"reportDataBinding"` // BindingNative
	DomainID          string `json:"domainId"`          // 64 hex digits
	HPKEPublicKey     []byte `json:"hpkePublicKey"`     // MLKEM768-X25519, 1216 bytes
}

// GetEvidenceResult is the answer to an unsigned GET request, so that a stranger
// can verify a service before sending anything to it.
type GetEvidenceResult struct {
	Challenge         string `json:"challenge"`          // as it was sent
	Evidence          []byte `json:"evidence"`           // docs/formats.md#evidence-v1
	Role              string `json:"role"`               // RoleCore
	InstanceID        string `json:"instanceId"`         // UUID of this start of the core
	DomainID          string `json:"domainId"`           // 64 hex digits
	HPKEPublicKey     []byte `json:"hpkePublicKey"`      // MLKEM768-X25519, 1216 bytes
	ReplyKey          []byte `json:"replyKey,omitempty"` // Ed25519, signs replies to key pairs; absent with BindingInstance
	ReportDataBinding string `json:"reportDataBinding"`  // BindingInstanceKeys or BindingInstance
}

// VerifyQuoteRequest asks whether an SGX quote is genuine and, with a PolicyID,
// of the enclave that the policy names. Nonce is 1 to MaxChallenge bytes that come
// back under the signature; the quote need not contain it.
type VerifyQuoteRequest struct {
	Quote    []byte `json:"quote"`
	Nonce    []byte `json:"nonce"`
	PolicyID string `json:"policyId,omitempty"`
}

// VerifyQuoteResult is the verdict on a quote that was accepted; any other gives
// an error. Sign is HMAC-SHA-256 under the API key's text over the canonical
// string of the other members.
type VerifyQuoteResult struct {
	Result    bool      `json:"result"` // true
	Nonce     []byte    `json:"nonce"`
	MREnclave string    `json:"mr_enclave"` // 64 hex digits
	MRSigner  string    `json:"mr_signer"`  // 64 hex digits
	TCBStatus TCBStatus `json:"tcbStatus"`
	Sign      []byte    `json:"sign"`
}

// UploadQuotePolicyRequest states the enclave that the quotes of a policy must be
// of, in 64 hex digits each.
type UploadQuotePolicyRequest struct {
	MREnclave string `json:"mr_enclave"`
	MRSigner  string `json:"mr_signer"`
}

// UploadQuotePolicyResult names the new policy.
type UploadQuotePolicyResult struct {
	PolicyID string `json:"policyId"`
}

// GetQuotePolicyRequest names a policy.
type GetQuotePolicyRequest struct {
	PolicyID string `json:"policyId"`
}

// GetQuotePolicyResult is a policy, with PolicyID alone if there is none.
type GetQuotePolicyResult struct {
	PolicyID   string `json:"policyId"`
	MREnclave  string `json:"mr_enclave,omitempty"`
	MRSigner   string `json:"mr_signer,omitempty"`
	CreateTime int64  `json:"createTime,omitempty"`
}

// TCBStatus is what Intel says of a platform's TCB, in the numbers of its quote
// verification library (sgx_ql_qv_result_t). Which of them are accepted beside
// TCBUpToDate is the domain's choice.
type TCBStatus int

// The statuses that a domain may accept.
const (
	TCBUpToDate                   TCBStatus = 0
	TCBConfigNeeded               TCBStatus = 0xA001
	TCBOutOfDate                  TCBStatus = 0xA002
	TCBOutOfDateConfigNeeded      TCBStatus = 0xA003
	TCBSWHardeningNeeded          TCBStatus = 0xA007
	TCBConfigAndSWHardeningNeeded TCBStatus = 0xA008
)

// String returns Intel's word for the status, such as SWHardeningNeeded.
func (s TCBStatus) String() string {
	switch s {
	case TCBUpToDate:
		return "UpToDate"
	case TCBConfigNeeded:
		return "ConfigurationNeeded"
	case TCBOutOfDate:
		return "OutOfDate"
	case TCBOutOfDateConfigNeeded:
		return "OutOfDateConfigurationNeeded"
	case TCBSWHardeningNeeded:
		return "SWHardeningNeeded"
	case TCBConfigAndSWHardeningNeeded:
		return "ConfigurationAndSWHardeningNeeded"
	}
	return fmt.Sprintf("TCB status %#x", int(s))
}
