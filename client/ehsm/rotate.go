package ehsm

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"fmt"
	"time"

	"github.com/ehsm-kms/ehsm/api"
)

// CredentialOptions are what a new credential is.
type CredentialOptions struct {
	// Owner lets it decide about the tenant's credentials.
	Owner bool
	// PublicKey, an ed25519.PublicKey or an *ecdsa.PublicKey on P-256, makes it a key
	// pair, whose private half never leaves its holder. nil: an API key.
	PublicKey crypto.PublicKey
	// Description is shown by ListCredentials: up to api.MaxDescription characters
	// of printable ASCII.
	Description string
	// Expires is when it ends by the time of the core. Zero: never.
	Expires time.Time
	// RequireAction has its requests refused unless they name their action under the
	// signature, as those of this package do.
	RequireAction bool
	// Policy is the id of the policy that it is under; "": none. An owner has none.
	Policy string
}

// CreateCredential makes a credential of the tenant, as an owner. For an API key it
// returns the key too, which nobody can show again.
func (c *Client) CreateCredential(ctx context.Context, o CredentialOptions) (id string, key APIKey, err error) {
	req := api.CreateCredentialRequest{Kind: api.KindAPIKey, Role: api.RoleUser, Description: o.Description, RequireAction: o.RequireAction, PolicyID: o.Policy}
	if o.Owner {
		req.Role = api.RoleOwner
	}
	if !o.Expires.IsZero() {
		req.Expires = o.Expires.UnixMilli()
	}
	if o.PublicKey != nil {
		if req.Kind, req.PublicKey, err = encodePublicKey(o.PublicKey); err != nil {
			return "", key, err
		}
	}
	var res api.CreateCredentialResult
	err = c.call(ctx, api.CreateCredential, false, req, &res)
	if err == nil && (res.CredentialID == "" || (res.APIKey == "") != (o.PublicKey != nil)) {
		err = missing(api.CreateCredential, "credentialId or apikey")
	}
	return res.CredentialID, NewAPIKey(res.APIKey), err
}

// encodePublicKey returns the kind of a key pair, and its public half as the API
// has it.
func encodePublicKey(public crypto.PublicKey) (api.CredentialKind, []byte, error) {
	switch k := public.(type) {
	case ed25519.PublicKey:
		return api.KindEd25519, k, nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			point, err := k.Bytes()
			return api.KindP256, point, err
		}
	}
	return "", nil, fmt.Errorf("public key is %T, want ed25519.PublicKey or *ecdsa.PublicKey on P-256", public)
}

// ListCredentials returns the tenant's credentials to an owner. When they were last
// used is what the instance that answers knows.
func (c *Client) ListCredentials(ctx context.Context) (api.ListCredentialsResult, error) {
	var res api.ListCredentialsResult
	err := c.call(ctx, api.ListCredentials, true, nil, &res)
	return res, err
}

// RevokeCredential ends a credential at all nodes, within a second at most. It takes
// an owner, and leaves the tenant at least one owner credential.
func (c *Client) RevokeCredential(ctx context.Context, id string) error {
	return c.call(ctx, api.RevokeCredential, false, api.RevokeCredentialRequest{CredentialID: id}, nil)
}

// RotateAPIKey makes a successor of the client's API key, with the same rights, and
// returns it with its id. The key of before goes on for the overlap, 0 to 30 days in
// whole seconds: have all who use it change over meanwhile. c keeps its key; see With.
// Where the outcome is unknown, rotate once more: the overlap gets no longer.
//
// It is no answer to a key that somebody else has seen: that is to be revoked.
func (c *Client) RotateAPIKey(ctx context.Context, overlap time.Duration) (cred Credentials, id string, err error) {
	return c.RotateAPIKeyOf(ctx, "", overlap)
}

// RotateAPIKeyOf is RotateAPIKey for the API key with an id, as an owner.
func (c *Client) RotateAPIKeyOf(ctx context.Context, credential string, overlap time.Duration) (cred Credentials, id string, err error) {
	if overlap < 0 || overlap > api.MaxOverlap*time.Second || overlap%time.Second != 0 {
		return cred, "", fmt.Errorf("overlap is %v, want whole seconds up to 30 days", overlap)
	}
	var res api.RotateAPIKeyResult
	req := api.RotateAPIKeyRequest{CredentialID: credential, OverlapSeconds: int(overlap / time.Second)}
	err = c.call(ctx, api.RotateAPIKey, false, req, &res)
	if err == nil && (res.CredentialID == "" || res.APIKey == "") {
		err = missing(api.RotateAPIKey, "credentialId or apikey")
	}
	return Credentials{AppID: c.appID, APIKey: NewAPIKey(res.APIKey)}, res.CredentialID, err
}
