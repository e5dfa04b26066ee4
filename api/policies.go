package api

import "slices"

// The actions about what a tenant's credentials may do. Only owners may ask for them,
// and their payloads must have the member ActionMember.
const (
	PutPolicy           = "PutPolicy"
	GetPolicy           = "GetPolicy"
	ListPolicies        = "ListPolicies"
	DeletePolicy        = "DeletePolicy"
	TestPolicy          = "TestPolicy"
	SetCredentialPolicy = "SetCredentialPolicy"
)

// The presets: lists of actions with a name.
const (
	PresetReadOnly    = "read-only"    // lists, descriptions and public keys; no values, no plaintexts
	PresetEncryptOnly = "encrypt-only" // Encrypt, AsymmetricEncrypt, BatchEncrypt, new data keys
	PresetDecryptOnly = "decrypt-only" // Decrypt, AsymmetricDecrypt, BatchDecrypt
	PresetSignOnly    = "sign-only"    // Sign, BatchSign, GetPublicKey
)

// Presets lists the presets.
func Presets() []string {
	return []string{PresetReadOnly, PresetEncryptOnly, PresetDecryptOnly, PresetSignOnly}
}

// PolicyActions lists the actions that a policy can allow: all signed ones but those of
// owners and of administrators.
func PolicyActions() []string {
	return slices.DeleteFunc(append(Actions(), RotateAPIKey), func(name string) bool {
		return name == GetEvidence || name == GetVersion || name == Enroll
	})
}

// Limits of policies.
const (
	MaxPolicies      = 128 // of a tenant
	MaxPolicyActions = 64
	MaxPolicyKeys    = 256
)

// NoPolicy is the id that SetCredentialPolicy takes a credential's policy away with.
const NoPolicy = "00000000-0000-0000-0000-000000000000"

// Texts of refusals of the actions on policies.
const (
	MessagePolicyUnknown = "not find this policy"
	MessageFullPolicies  = "The limit of policies is reached."
)

// PutPolicyRequest makes a policy, or has another one take the place of PolicyID. It
// allows the actions of Preset and those of Actions, at least one. Keys are the ids of
// the only keys that these may be about; nil: all of the tenant's. The service
// refuses an empty list that is not nil, and the signature does not cover it, so that
// it must not be sent.
type PutPolicyRequest struct {
	PolicyID    string   `json:"policyId,omitempty"`
	Preset      string   `json:"preset,omitempty"`
	Actions     []string `json:"actions,omitempty"`
	Keys        []string `json:"keys,omitzero"`
	Description string   `json:"description,omitempty"` // up to MaxDescription characters of printable ASCII
}

// PutPolicyResult names the policy.
type PutPolicyResult struct {
	PolicyID string `json:"policyId"`
}

// PolicyRequest names the policy for GetPolicy, whose result is a Policy, and for
// DeletePolicy, whose result is Empty.
type PolicyRequest struct {
	PolicyID string `json:"policyId"`
}

// A Policy is what credentials that name it may do: these actions, about these keys,
// and nothing else. Times are Unix milliseconds.
type Policy struct {
	PolicyID    string   `json:"policyId"`
	Actions     []string `json:"actions"`
	AllKeys     bool     `json:"allKeys"`        // the actions may be about all keys of the tenant
	Keys        []string `json:"keys,omitempty"` // else the ids of these
	Description string   `json:"description"`
	Created     int64    `json:"created"`
	Modified    int64    `json:"modified"`
}

// ListPoliciesResult has the tenant's policies, oldest first. The host of the service
// can leave some out.
type ListPoliciesResult struct {
	List []Policy `json:"list"`
}

// TestPolicyRequest asks whether a request for TestAction about the key KeyID, if it is
// about one, would be allowed to a user with the policy PolicyID, or to the credential
// CredentialID: one of the two. Nothing is executed.
type TestPolicyRequest struct {
	PolicyID     string `json:"policyId,omitempty"`
	CredentialID string `json:"credentialId,omitempty"`
	TestAction   string `json:"testAction"`
	KeyID        string `json:"keyid,omitempty"`
}

// TestPolicyResult has the answer and a reason in words.
type TestPolicyResult struct {
	Allowed bool   `json:"allowed"`
	Reason  string `json:"reason"`
}

// SetCredentialPolicyRequest puts a credential of the role user under a policy, or
// under none with NoPolicy. The result is Empty.
type SetCredentialPolicyRequest struct {
	CredentialID string `json:"credentialId"`
	PolicyID     string `json:"policyId"`
}
