package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

func newPolicy(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "policy",
		Short: "Decide what credentials of your tenant may do",
		Long: `A policy lists actions, and keys if it is not about all of them. A credential under a
policy may do what it lists and nothing else. What owners alone may do no policy can
give, and an owner is under none. Changes count at all nodes within a second.`,
		Example: `  P=$(ehsm policy put --preset encrypt-only --key $KEY)
  ehsm credential create --as batch --policy $P
  ehsm policy test Decrypt --policy $P --key $KEY`,
	},
		newPolicyPut(a),
		newPolicyGet(a),
		newPolicyList(a),
		newPolicyDelete(a),
		newPolicySet(a),
		newPolicyTest(a),
	)
}

func newPolicyGet(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "get ID",
		Short:   "Show a policy, in the form that put reads with --output json",
		Example: "  ehsm policy get $P",
		Args:    args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.asPolicyOwner(cmd.Context(), args[0], func(ctx context.Context, c *ehsm.Client) error {
				p, err := c.GetPolicy(ctx, args[0])
				if err != nil {
					return err
				}
				return a.emit(policyFileOf(p), policyText(p))
			})
		},
	}
}

// policyFileOf is a policy as put reads it.
func policyFileOf(p api.Policy) policyFile {
	f := policyFile{Description: p.Description, Actions: p.Actions}
	if !p.AllKeys {
		f.Keys = p.Keys
	}
	return f
}

func policyText(p api.Policy) string {
	keys := "all"
	if !p.AllKeys {
		keys = printableAll(p.Keys)
	}
	return fmt.Sprintf("policy:      %s\nactions:     %s\nkeys:        %s\ndescription: %s\ncreated:     %s\nmodified:    %s\n",
		printable(p.PolicyID), printableAll(p.Actions), keys, orNone(p.Description), instant(time.UnixMilli(p.Created)), instant(time.UnixMilli(p.Modified)))
}

func printableAll(list []string) string {
	shown := make([]string, len(list))
	for i, s := range list {
		shown[i] = printable(s)
	}
	return strings.Join(shown, " ")
}

func newPolicyList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the policies of your tenant, oldest first",
		Long: `list shows the policies that the host of the service hands out: it can leave some out.
In a policy that is left out here the same holds as before.`,
		Example: "  ehsm policy list\n  ehsm policy list --output json",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.asPolicyOwner(cmd.Context(), "", func(ctx context.Context, c *ehsm.Client) error {
				list, err := c.ListPolicies(ctx)
				if err != nil {
					return err
				}
				t := table("ID", "MODIFIED", "ACTIONS", "KEYS", "DESCRIPTION")
				for _, p := range list {
					keys := "all"
					if !p.AllKeys {
						keys = fmt.Sprint(len(p.Keys))
					}
					t.row(printable(p.PolicyID), instant(time.UnixMilli(p.Modified)), fmt.Sprint(len(p.Actions)), keys, describe(p.Description))
				}
				if list == nil {
					list = []api.Policy{}
				}
				return a.emit(list, t.String())
			})
		},
	}
}

func newPolicyDelete(a *app) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete ID",
		Short: "Delete a policy for good: credentials under it may do nothing",
		Long: `delete ends a policy within a second, at all nodes. The credentials under it stay, and
may do nothing until "ehsm policy set" puts them under another one. It asks first on
a terminal; without one it needs --yes.`,
		Example: "  ehsm policy delete $P",
		Args:    args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.asPolicyOwner(cmd.Context(), args[0], func(ctx context.Context, c *ehsm.Client) error {
				if !yes {
					if err := a.confirm(ctx, "delete policy "+printable(args[0])); err != nil {
						return err
					}
				}
				if err := c.DeletePolicy(ctx, args[0]); err != nil {
					return err
				}
				a.warn("policy %s is deleted", printable(args[0]))
				if a.output == outputText {
					return nil
				}
				return a.emit(map[string]string{"policyId": args[0], "state": "deleted"}, "")
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func newPolicySet(a *app) *cobra.Command {
	var none bool
	cmd := &cobra.Command{
		Use:   "set CREDENTIAL (POLICY | --none)",
		Short: "Put a credential of the role user under a policy, or under none",
		Long: `set changes which policy a credential is under, within a second at all nodes. With
--none it may do again whatever its role may.`,
		Example: "  ehsm credential list\n  ehsm policy set $CREDENTIAL $P",
		Args:    args(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if none != (len(args) == 1) {
				return withHint(usagef("got %d arguments, want a credential and a policy or --none", len(args)), "ehsm policy set --help")
			}
			policy := api.NoPolicy
			if !none {
				policy = args[1]
			}
			return a.asPolicyOwner(cmd.Context(), policy, func(ctx context.Context, c *ehsm.Client) error {
				if err := c.SetCredentialPolicy(ctx, args[0], policy); err != nil {
					return err
				}
				if none {
					a.warn("credential %s is under no policy", printable(args[0]))
				} else {
					a.warn("credential %s is under policy %s", printable(args[0]), printable(policy))
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&none, "none", false, "take its policy away")
	return cmd
}

// errDenied says that a policy does not allow what policy test was asked about.
var errDenied = errors.New("denied")

func newPolicyTest(a *app) *cobra.Command {
	var req api.TestPolicyRequest
	cmd := &cobra.Command{
		Use:   "test ACTION (--policy ID | --credential ID) [--key ID]",
		Short: "Would this be allowed, and why? Nothing is executed",
		Long: `test has the core decide as it would for a request, and executes nothing: for a user
with a policy, or for all that a credential has. It prints the reason, and exits with
0 if the request would be allowed, else with 1.`,
		Example: `  ehsm policy test Encrypt --policy $P --key $KEY
  ehsm policy test DeleteKey --credential $CREDENTIAL --key $KEY`,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (req.PolicyID == "") == (req.CredentialID == "") {
				return withHint(usagef("want one of --policy and --credential"), "ehsm policy list, ehsm credential list")
			}
			req.TestAction = args[0]
			return a.asPolicyOwner(cmd.Context(), req.PolicyID, func(ctx context.Context, c *ehsm.Client) error {
				return a.testPolicy(ctx, c, req)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&req.PolicyID, "policy", "", "`ID` of the policy")
	flags.StringVar(&req.CredentialID, "credential", "", "`ID` of the credential")
	flags.StringVar(&req.KeyID, "key", "", "`ID` of the key that the request would be about")
	return cmd
}

func (a *app) testPolicy(ctx context.Context, c *ehsm.Client, req api.TestPolicyRequest) error {
	res, err := c.TestPolicy(ctx, req)
	if err != nil {
		return err
	}
	answer := "denied"
	if res.Allowed {
		answer = "allowed"
	}
	if err := a.emit(res, fmt.Sprintf("%s: %s\n", answer, printable(res.Reason))); err != nil || res.Allowed {
		return err
	}
	return errDenied
}

// asPolicyOwner does something with a client, and adds what to do about a refusal of
// what only owners may. id is the policy that it is about, if any.
func (a *app) asPolicyOwner(ctx context.Context, id string, do func(context.Context, *ehsm.Client) error) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	err = do(ctx, client)
	switch {
	case ehsm.IsPolicyNotFound(err):
		return withHint(fmt.Errorf("policy %s: %w", printable(id), err), "ehsm policy list; a deleted policy does not come back")
	case errors.Is(err, ehsm.ErrOutcomeUnknown):
		return withHint(err, "look at the state before you try again: ehsm policy list")
	case ehsm.IsFull(err):
		return withHint(err, "delete one that nobody needs: ehsm policy list, ehsm policy delete ID")
	}
	return asOwner(err)
}
