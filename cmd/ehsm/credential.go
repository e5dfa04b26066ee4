package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

func newCredential(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "credential",
		Short: "Make, list, revoke and rotate the credentials of your tenant",
		Long: `A tenant has up to 16 credentials: API keys, up to four of them, and key pairs, of
which the service knows the public half only. Give each program one of its own, with
the role user; an owner decides about credentials, and is what ehsm enroll gives you.

An API key that is replaced as a matter of routine is rotated. One that somebody else
may have seen is revoked: whoever has it can rotate it too.`,
		Example: `  ehsm credential create --as batch --description "batch jobs"
  ehsm credential list
  ehsm credential rotate`,
	},
		newCredentialCreate(a),
		newCredentialList(a),
		newCredentialRevoke(a),
		newCredentialRotate(a),
	)
}

// credentialView is a credential as the CLI lists it.
type credentialView struct {
	CredentialID  string             `json:"credentialId"`
	Kind          api.CredentialKind `json:"kind"`
	Role          string             `json:"role"`
	Created       *time.Time         `json:"created"`
	Expires       *time.Time         `json:"expires"`  // null: never
	Ends          *time.Time         `json:"ends"`     // null: no rotation has put another one in its place
	LastUsed      *time.Time         `json:"lastUsed"` // null: not since the instance that answered started
	RequireAction bool               `json:"requireAction"`
	PolicyID      string             `json:"policyId"` // "": none
	Description   string             `json:"description"`
}

func newCredentialList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the credentials of your tenant, as an owner",
		Long: `list shows the credentials of your tenant. EXPIRES is also when an API key makes way
for its successor. LAST USED is what the instance that answers has seen since its
start, to the minute.`,
		Example: "  ehsm credential list\n  ehsm credential list --output json",
		Args:    args(0, 0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.listCredentials(cmd.Context()) },
	}
}

func (a *app) listCredentials(ctx context.Context) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	list, err := client.ListCredentials(ctx)
	if err != nil {
		return asOwner(err)
	}
	views := []credentialView{}
	t := table("ID", "KIND", "ROLE", "CREATED", "EXPIRES", "LAST USED", "POLICY", "DESCRIPTION")
	for _, c := range list.Credentials {
		v := credentialView{
			CredentialID: c.CredentialID, Kind: c.Kind, Role: c.Role, Created: date(c.Created), Expires: date(c.Expires),
			Ends: date(c.Ends), LastUsed: date(c.LastUsed), RequireAction: c.RequireAction, PolicyID: c.PolicyID, Description: c.Description,
		}
		views = append(views, v)
		t.row(printable(v.CredentialID), printable(string(v.Kind)), printable(v.Role), dateText(v.Created, "-"),
			dateText(v.last(), "never"), dateText(v.LastUsed, "-"), describe(v.PolicyID), describe(v.Description))
	}
	return a.emit(views, t.String())
}

// last returns when the credential stops to work, for whatever reason; nil: never.
func (v credentialView) last() *time.Time {
	if v.Expires == nil || v.Ends != nil && v.Ends.Before(*v.Expires) {
		return v.Ends
	}
	return v.Expires
}

// describe returns a description for a cell of a table.
func describe(text string) string {
	if text == "" {
		return "-"
	}
	return printable(text)
}

func newCredentialRevoke(a *app) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "revoke ID",
		Short: "End a credential for good, at all nodes",
		Long: `revoke ends a credential within a second, for good. It takes an owner; the last
owner credential stays. It asks first on a terminal; without one it needs --yes.

The credential may be the one that you call with: make another one before.`,
		Example: `  ehsm credential list
  ehsm credential revoke 0b7e8a52-6c1d-4f0e-9a35-2d4c6e8f1a3b`,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.revokeCredential(cmd.Context(), args[0], yes) },
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func (a *app) revokeCredential(ctx context.Context, id string, yes bool) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if !yes {
		what := "revoke credential " + printable(id)
		if isTerminal(a.stdin) { // who is asked is told which one it is
			if what, err = describeCredential(ctx, client, id); err != nil {
				return asOwner(err)
			}
		}
		if err := a.confirm(ctx, what); err != nil {
			return err
		}
	}
	if err := client.RevokeCredential(ctx, id); err != nil {
		return asOwner(fmt.Errorf("credential %s: %w", printable(id), err))
	}
	a.warn("credential %s is revoked", id)
	if a.output == outputText {
		return nil
	}
	return a.emit(map[string]string{"credentialId": id, "state": "revoked"}, "")
}

// describeCredential returns the question whether to revoke a credential.
func describeCredential(ctx context.Context, client *ehsm.Client, id string) (string, error) {
	list, err := client.ListCredentials(ctx)
	if err != nil {
		return "", err
	}
	for _, c := range list.Credentials {
		if c.CredentialID == id {
			return fmt.Sprintf("revoke credential %s (%s of role %s, %s)", id, printable(string(c.Kind)), printable(c.Role), orNone(c.Description)), nil
		}
	}
	return "", withHint(fmt.Errorf("tenant has no credential %s", printable(id)), "ehsm credential list")
}

// asOwner adds what to do about a refusal of what only owners may.
func asOwner(err error) error {
	var refusal *api.Error
	switch {
	case errors.Is(err, ehsm.ErrOutcomeUnknown), errors.Is(err, ehsm.ErrReplySignature):
		return withHint(err, "look at the state before you try again: ehsm credential list")
	case ehsm.IsBadCredentials(err):
		return withHint(err, "this takes an owner credential that the service knows: ehsm --profile NAME selects one")
	case !errors.As(err, &refusal):
		return err
	}
	switch refusal.Message { // docs/api.md#credentials
	case "not find this credential":
		return withHint(err, "ehsm credential list")
	case "another credential has this publicKey":
		return withHint(err, "it is registered already, see ehsm credential list; or make another key pair")
	case "too many credentials":
		return withHint(err, "revoke one that nobody needs: ehsm credential list, ehsm credential revoke ID")
	case "the last owner credential cannot be revoked":
		return withHint(err, "make another owner first: ehsm credential create --role owner --as NAME")
	}
	return err
}
