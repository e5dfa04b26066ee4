package api

// The actions about a tenant's credentials. Their payloads must have the member
// ActionMember.
const (
	CreateCredential = "CreateCredential"
	ListCredentials  = "ListCredentials"
	RevokeCredential = "RevokeCredential"
	RotateAPIKey     = "RotateAPIKey"
)

// A CredentialKind is how requests are signed with a credential.
type CredentialKind string

// The kinds of credentials.
const (
	KindAPIKey  CredentialKind = "api-key" // HMAC-SHA-256
	KindEd25519 CredentialKind = "ed25519" // public key of 32 bytes
	KindP256    CredentialKind = "p256"    // ECDSA with SHA-256; public key is the uncompressed point, 65 bytes
)

// Limits of credentials.
const (
	MaxCredentials = 16
	MaxAPIKeys     = 4              // of them
	MaxDescription = 64             // characters of printable ASCII, of a credential
	MaxOverlap     = 30 * 24 * 3600 // seconds
)

// FirstCredential is the id of the API key that Enroll gives.
const FirstCredential = "00000000-0000-0000-0000-000000000000"

// CreateCredentialRequest asks for a credential, which only an owner may. PublicKey
// is that of a key pair, Role RoleOwner or RoleUser.
type CreateCredentialRequest struct {
	Kind          CredentialKind `json:"kind"`
	Role          string         `json:"role"`
	PublicKey     []byte         `json:"publicKey,omitempty"`
	Description   string         `json:"description,omitempty"`
	Expires       int64          `json:"expires,omitempty"` // Unix milliseconds, 0: never
	RequireAction bool           `json:"requireAction,omitempty"`
	PolicyID      string         `json:"policyId,omitempty"` // of a user, "": no policy
}

// CreateCredentialResult has the text of the new API key, which is shown this once.
type CreateCredentialResult struct {
	CredentialID string `json:"credentialId"`
	APIKey       string `json:"apikey,omitempty"`
}

// ListCredentialsResult is what an owner is told. LastUsed is known to the instance
// that answers, since UsedSince, and to the minute.
type ListCredentialsResult struct {
	Credentials []Credential `json:"credentials"`
	InstanceID  string       `json:"instanceId"`
	UsedSince   int64        `json:"usedSince"` // Unix milliseconds
}

// A Credential is one of a tenant's. Times are Unix milliseconds.
type Credential struct {
	CredentialID  string         `json:"credentialId"`
	Kind          CredentialKind `json:"kind"`
	Role          string         `json:"role"`
	Description   string         `json:"description"`
	Created       int64          `json:"created"`
	Expires       int64          `json:"expires"`  // 0: never
	Ends          int64          `json:"ends"`     // a rotation has put another one in its place; 0: none has
	LastUsed      int64          `json:"lastUsed"` // 0: not since UsedSince
	RequireAction bool           `json:"requireAction"`
	PolicyID      string         `json:"policyId"`  // "": all that the role may
	PublicKey     []byte         `json:"publicKey"` // empty for an API key
}

// RevokeCredentialRequest names a credential. The result is Empty.
type RevokeCredentialRequest struct {
	CredentialID string `json:"credentialId"`
}

// RotateAPIKeyRequest asks for a successor of an API key: of the one that signs, or
// of the one that an owner names. The key ends after the overlap, 0 to MaxOverlap
// seconds.
type RotateAPIKeyRequest struct {
	CredentialID   string `json:"credentialId,omitempty"`
	OverlapSeconds int    `json:"overlapSeconds,omitempty"`
}

// RotateAPIKeyResult has the text of the new API key, which is shown this once.
type RotateAPIKeyResult struct {
	CredentialID string `json:"credentialId"`
	APIKey       string `json:"apikey"`
	OverlapEnds  int64  `json:"overlapEnds"` // Unix milliseconds
}
