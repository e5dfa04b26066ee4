// Package api is the vocabulary of the native API: names of actions and of
// their values, the members of requests and results, error codes and texts, and
// the signature of replies. It imports the standard library only and does no
// I/O; package canon beside it reads requests and renders what they are signed
// over, package ehsm in client/ehsm speaks the API.
//
// Members of type []byte travel as standard base64 with padding. Times are
// Unix milliseconds.
package api

import "encoding/json"

// The actions, as in the query parameter ActionParam. Names are exact, letter
// case included. Enroll and GetVersion are GET requests without a body, all others
// are POST requests with a signed Request.
const (
	CreateKey                       = "CreateKey"
	Encrypt                         = "Encrypt"
	Decrypt                         = "Decrypt"
	GenerateDataKey                 = "GenerateDataKey"
	GenerateDataKeyWithoutPlaintext = "GenerateDataKeyWithoutPlaintext"
	ExportDataKey                   = "ExportDataKey"
	ReEncrypt                       = "ReEncrypt"

	AsymmetricEncrypt = "AsymmetricEncrypt"
	AsymmetricDecrypt = "AsymmetricDecrypt"
	Sign              = "Sign"
	Verify            = "Verify"
	GetPublicKey      = "GetPublicKey"

	// On up to MaxBatch items with one key.
	BatchEncrypt   = "BatchEncrypt"
	BatchDecrypt   = "BatchDecrypt"
	BatchReEncrypt = "BatchReEncrypt"
	BatchSign      = "BatchSign"
	BatchVerify    = "BatchVerify"

	GetParametersForImport = "GetParametersForImport"
	ImportKeyMaterial      = "ImportKeyMaterial"

	ListKey      = "ListKey"
	EnableKey    = "EnableKey"
	DisableKey   = "DisableKey"
	DeleteKey    = "DeleteKey"
	DeleteAllKey = "DeleteAllKey"

	// The life of a key. The payloads must have the member ActionMember.
	RotateKey                  = "RotateKey"
	ListKeyVersions            = "ListKeyVersions"
	EnableKeyVersion           = "EnableKeyVersion"
	DisableKeyVersion          = "DisableKeyVersion"
	ScheduleKeyVersionDeletion = "ScheduleKeyVersionDeletion"
	DescribeKey                = "DescribeKey"
	UpdateKey                  = "UpdateKey"
	ScheduleKeyDeletion        = "ScheduleKeyDeletion"
	CancelKeyDeletion          = "CancelKeyDeletion"

	CreateSecret         = "CreateSecret"
	UpdateSecretDesc     = "UpdateSecretDesc"
	PutSecretValue       = "PutSecretValue"
	GetSecretValue       = "GetSecretValue"
	ListSecrets          = "ListSecrets"
	ListSecretVersionIds = "ListSecretVersionIds"
	DescribeSecret       = "DescribeSecret"
	DeleteSecret         = "DeleteSecret"
	RestoreSecret        = "RestoreSecret"

	GenerateQuote     = "GenerateQuote"
	VerifyQuote       = "VerifyQuote"
	UploadQuotePolicy = "UploadQuotePolicy"
	GetQuotePolicy    = "GetQuotePolicy"

	GetEvidence = "GetEvidence"
	GetVersion  = "GetVersion"
	Enroll      = "Enroll"
)

// Path is where every action is served, with and without a trailing slash.
const Path = "/ehsm"

// ActionParam is the query parameter that names the action.
const ActionParam = "Action"

// ActionMember is the member of a payload that repeats the action, so that the
// signature covers it. If present it must equal the query parameter.
const ActionMember = "action"

// SealedMember is the member of a payload by which its signature says that the request
// is sealed, with the text SealedYes: in clear it is refused, and who reads another one in
// clear cannot make it a sealed one. It comes with ActionMember.
const (
	SealedMember = "sealed"
	SealedYes    = "yes"
)

// MaxNonce is the longest nonce of a request, in UTF-16 code units.
const MaxNonce = 64

// CredentialMember is the member of a Request that names the key pair it is signed
// with. It is not covered by the signature.
const CredentialMember = "credential"

// Request is the signed envelope of a request. Sign is the standard base64 of
// HMAC-SHA-256 under the API key's text over the canonical string of appid, nonce,
// payload and timestamp; see package canon. With a Credential it is that of a
// signature with this key pair over the same string: 64 bytes, for P-256 with
// SHA-256 r and s in 32 bytes each, s at most half of the group's order.
type Request struct {
	AppID      string          `json:"appid"`
	Credential string          `json:"credential,omitempty"` // UUID of a key pair; absent for API keys
	Nonce      string          `json:"nonce,omitempty"`
	Timestamp  string          `json:"timestamp"` // Unix milliseconds, exactly 13 digits
	Payload    json.RawMessage `json:"payload,omitempty"`
	Sign       string          `json:"sign"`
}

// Reply is the envelope of every reply, whose HTTP status is always 200. T is
// the result of the action; on errors it is an empty object.
type Reply[T any] struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Result  T      `json:"result"`
}

// Empty is the result, or the payload, of actions that have none.
type Empty struct{}
