package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// adminFlags say who asks, and what the service must prove, as its replies are
// signed by a key that its evidence binds.
type adminFlags struct {
	Pins
	key string
}

func newAdmin(a *app) *cobra.Command {
	var f adminFlags
	cmd := group(&cobra.Command{
		Use:   "admin",
		Short: "Administer tenants and enrollment tokens of a domain",
		Long: `admin asks the service for what an administrator of its domain may do. --key is
the file of "ehsm domain keygen --duty administrator". The service is verified
by --policy and --domain first. Nothing here yields a credential of a tenant, but for "apps rekey", which takes the
custodians of the domain.`,
		Example: adminExample("tokens create --tenant shop --uses 3") + "\n" + adminExample("apps list"),
	}, newAdminApps(a, &f), newAdminTokens(a, &f), newAdminAdmins(a, &f))
	flags := cmd.PersistentFlags()
	flags.StringVar(&f.key, "key", "", "`file` with the administrator's private key")
	f.register(flags, "")
	return cmd
}

// adminExample is a command of administrators as it is typed.
func adminExample(command string) string {
	return "  ehsm admin " + command + " --key frank.key --policy policy.json --domain 9a31...f0"
}

// adminCall is a command that sends one request and prints its result as JSON.
func (a *app) adminCall(f *adminFlags, use, short, example, action string, n int, payload func(args []string) any) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Example: adminExample(example), Args: args(n, n), RunE: func(cmd *cobra.Command, args []string) error {
		var result json.RawMessage
		if err := a.asAdmin(cmd.Context(), f, action, payload(args), &result); err != nil {
			return err
		}
		return a.emit(result, string(result)+"\n")
	}}
}

// asAdmin sends a request that the administrator signs.
func (a *app) asAdmin(ctx context.Context, f *adminFlags, action string, payload, result any) error {
	if f.key == "" {
		return usagef("want --key")
	}
	key, err := readKeyFile(f.key)
	if err != nil {
		return err
	}
	if key.duty != manifest.Administrator {
		return usagef("%s is a key for the duty of %s, want one of %s", f.key, key.duty, manifest.Administrator)
	}
	known, err := a.knownBy(f.Pins)
	if err != nil {
		return err
	}
	v, err := a.verifierOf(ctx, known)
	if err != nil {
		return err
	}
	client, err := a.plainClient()
	if err != nil {
		return err
	}
	defer client.Close()
	admin, err := v.Sealed(client).WithKeyPair(api.DomainAppID, ehsm.KeyPair{
		ID: api.AdminCredentialText(key.person.Key), Signer: key.signer(), ReplyKey: v.ReplyKeys(client),
	})
	if err != nil {
		return err
	}
	return admin.Do(ctx, action, payload, result)
}

// knownBy returns what the service must prove: what the flags say, or, where they say
// nothing, what the profile pins.
func (a *app) knownBy(flags Pins) (Pins, error) {
	cfg, err := a.settings()
	if err != nil {
		return flags, err
	}
	p, err := a.selected()
	if err != nil {
		return flags, err
	}
	if flags == (Pins{}) && p.complete() && sameService(cfg.URL, p.URL) {
		return p.Pins, nil
	}
	return flags.kept()
}

func none([]string) any { return nil }

func newAdminApps(a *app, f *adminFlags) *cobra.Command {
	app := func(args []string) any { return api.AppRequest{AppID: args[0]} }
	var list api.ListAppsRequest
	listing := a.adminCall(f, "list", "List apps, up to 1000", "apps list", api.ListApps, 0, func([]string) any { return list })
	listing.Flags().StringVar(&list.After, "after", "", "`appid`: list only those above it")
	return group(&cobra.Command{Use: "apps", Short: "List, disable, enable, delete and re-key apps", Example: adminExample("apps list")}, listing,
		a.adminCall(f, "disable APPID", "Suspend all credentials of an app", "apps disable 86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c", api.DisableApp, 1, app),
		a.adminCall(f, "enable APPID", "End the suspension of an app", "apps enable 86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c", api.EnableApp, 1, app),
		a.adminCall(f, "delete APPID", "Take the credentials of an app away for good, and delete its keys",
			"apps delete 86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c", api.DeleteApp, 1, app),
		newAdminRekey(a, f))
}

func newAdminTokens(a *app, f *adminFlags) *cobra.Command {
	return group(&cobra.Command{Use: "tokens", Short: "Make, list and revoke enrollment tokens", Example: adminExample("tokens create --tenant shop")}, newTokensCreate(a, f),
		a.adminCall(f, "list", "List the tokens that were not revoked", "tokens list", api.ListTokens, 0, none),
		a.adminCall(f, "revoke TOKENID", "End a token", "tokens revoke 0f3c...", api.RevokeToken, 1, func(args []string) any { return api.TokenRequest{TokenID: args[0]} }))
}

func newTokensCreate(a *app, f *adminFlags) *cobra.Command {
	var q api.CreateTokenRequest
	var expires time.Duration
	cmd := &cobra.Command{
		Use: "create", Short: "Make an enrollment token and print it",
		Long: `create draws a token, tells the service its hash, and prints it. It is printed
once, and is a secret: who has it enrolls.`,
		Example: adminExample("tokens create --tenant shop --uses 3 --expires 24h"),
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			token := api.NewEnrollToken()
			hash := token.Hash()
			q.TokenID, q.Hash, q.Seconds = token.ID(), hex.EncodeToString(hash[:]), int(expires/time.Second)
			if err := a.asAdmin(cmd.Context(), f, api.CreateToken, q, nil); err != nil {
				return err
			}
			return a.emit(map[string]string{"tokenid": token.ID(), "token": token.Expose()}, token.Expose()+"\n")
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&q.Uses, "uses", 1, "`number` of apps that it is good for")
	flags.DurationVar(&expires, "expires", 24*time.Hour, "`time` after which it is void, such as 24h")
	flags.StringVar(&q.Name, "tenant", "", "`name` of the apps that it makes")
	flags.StringVar(&q.Role, "role", api.RoleOwner, "`role` of their first credential: owner or user")
	return cmd
}

func newAdminAdmins(a *app, f *adminFlags) *cobra.Command {
	add := &cobra.Command{Use: "add FILE", Short: "Make the holder of a public key an administrator",
		Example: adminExample("admins add grace.key.pub"), Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			people, err := readPublic(manifest.Administrator, args)
			if err != nil {
				return err
			}
			return a.asAdmin(cmd.Context(), f, api.AddAdministrator, api.AddAdministratorRequest{Name: people[0].Name, PublicKey: people[0].Key}, nil)
		}}
	return group(&cobra.Command{Use: "admins", Short: "List, add and remove administrators", Example: adminExample("admins list")}, add,
		a.adminCall(f, "list", "List the administrators", "admins list", api.ListAdministrators, 0, none),
		a.adminCall(f, "remove ID", "Take an administrator's key away; the last one stays", "admins remove 5b21...", api.RemoveAdministrator, 1,
			func(args []string) any { return api.AdministratorRequest{ID: args[0]} }))
}
