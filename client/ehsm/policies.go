package ehsm

import (
	"context"
	"errors"

	"github.com/ehsm-kms/ehsm/api"
)

// PolicyOptions are what a policy allows: the actions of Preset, those of Actions, or
// both.
type PolicyOptions struct {
	Preset  string   // one of api.Presets, or ""
	Actions []string // names of actions, none of those that only owners may ask for
	// AllKeys lets the actions be about all keys of the tenant. Without it they may be
	// about those of Keys only, at least one: a list that has come out empty is no
	// policy about everything.
	AllKeys bool
	Keys    []string // ids
	// Description is shown by ListPolicies: up to api.MaxDescription characters of
	// printable ASCII.
	Description string
}

func (o PolicyOptions) request(id string) (api.PutPolicyRequest, error) {
	r := api.PutPolicyRequest{PolicyID: id, Preset: o.Preset, Actions: o.Actions, Keys: o.Keys, Description: o.Description}
	switch {
	case o.Preset == "" && len(o.Actions) == 0:
		return r, errors.New("policy without actions")
	case o.AllKeys && len(o.Keys) > 0:
		return r, errors.New("policy about all keys names keys")
	case !o.AllKeys && len(o.Keys) == 0:
		return r, errors.New("policy about no key: name keys, or set AllKeys")
	case o.AllKeys:
		r.Keys = nil
	}
	return r, nil
}

// CreatePolicy makes a policy of the tenant, as an owner, and returns its id.
func (c *Client) CreatePolicy(ctx context.Context, o PolicyOptions) (id string, err error) {
	return c.putPolicy(ctx, "", o)
}

// ReplacePolicy has another policy take the place of one, as an owner: all that the old
// one allows and the new one does not ends at all nodes, within a second at most.
func (c *Client) ReplacePolicy(ctx context.Context, id string, o PolicyOptions) error {
	if id == "" {
		return errors.New("no id of a policy")
	}
	_, err := c.putPolicy(ctx, id, o)
	return err
}

func (c *Client) putPolicy(ctx context.Context, id string, o PolicyOptions) (string, error) {
	req, err := o.request(id)
	if err != nil {
		return "", err
	}
	var res api.PutPolicyResult
	err = c.call(ctx, api.PutPolicy, false, req, &res)
	if err == nil && (res.PolicyID == "" || id != "" && id != res.PolicyID) {
		err = missing(api.PutPolicy, "policyId, or another one than asked for")
	}
	return res.PolicyID, err
}

// GetPolicy returns a policy of the tenant to an owner.
func (c *Client) GetPolicy(ctx context.Context, id string) (api.Policy, error) {
	var res api.Policy
	err := c.call(ctx, api.GetPolicy, true, api.PolicyRequest{PolicyID: id}, &res)
	if err == nil && res.PolicyID != id {
		err = missing(api.GetPolicy, "policyId, or another one than asked for")
	}
	return res, err
}

// ListPolicies returns the tenant's policies to an owner, oldest first. The host of
// the service can leave some out.
func (c *Client) ListPolicies(ctx context.Context) ([]api.Policy, error) {
	var res api.ListPoliciesResult
	err := c.call(ctx, api.ListPolicies, true, nil, &res)
	return res.List, err
}

// DeletePolicy deletes a policy for good, as an owner. Credentials that name it may do
// nothing any more, at all nodes within a second at most, until SetCredentialPolicy
// gives them another one.
func (c *Client) DeletePolicy(ctx context.Context, id string) error {
	return c.call(ctx, api.DeletePolicy, false, api.PolicyRequest{PolicyID: id}, nil)
}

// TestPolicy asks, as an owner, whether a policy or a credential lets a request have an
// action run that is about a key, if it is about one, and why. Nothing is executed.
func (c *Client) TestPolicy(ctx context.Context, req api.TestPolicyRequest) (api.TestPolicyResult, error) {
	var res api.TestPolicyResult
	err := c.call(ctx, api.TestPolicy, true, req, &res)
	return res, err
}

// SetCredentialPolicy puts a credential of the role user under a policy, or under none
// with api.NoPolicy, as an owner. It counts at all nodes within a second at most.
func (c *Client) SetCredentialPolicy(ctx context.Context, credential, policy string) error {
	return c.call(ctx, api.SetCredentialPolicy, false, api.SetCredentialPolicyRequest{CredentialID: credential, PolicyID: policy}, nil)
}

// IsPolicyNotFound reports whether the tenant has no such policy.
func IsPolicyNotFound(err error) bool { return refused(err, api.MessagePolicyUnknown) }
