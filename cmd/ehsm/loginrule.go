package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/api"
)

func newLoginRule(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "rule",
		Short: "Decide which workloads may log in, as an owner",
		Long: `A rule accepts the tokens of one issuer, or the quotes of one program, and says for
how long the credentials are good and under which policy. Replacing or deleting it
takes back the credentials that workloads have by it, within a second.`,
		Example: `  ehsm login rule list
  ehsm login rule delete shop-web`,
	},
		newLoginRulePut(a),
		newLoginRuleList(a),
		newLoginRuleDelete(a),
	)
}

// ruleFlags are a rule as it is typed in.
type ruleFlags struct {
	req            api.PutLoginRuleRequest
	claims         []string
	jwks, mrsigner string
	lifetime       time.Duration
}

func newLoginRulePut(a *app) *cobra.Command {
	var f ruleFlags
	cmd := &cobra.Command{
		Use:   "put NAME --policy ID --lifetime TIME (--issuer URL ... | --mrenclave HEX | --mrsigner HEX:PRODID:SVN)",
		Short: "Make or replace a rule",
		Long: `put makes a rule, or replaces the one of its name.

Of a token, issuer ("iss") and audience ("aud", its only one) must be exactly those
given, and so must the subject ("sub"), which may end in * for all that begins so.
--claim adds others: NAME=VALUE, or a JSON pointer as /kubernetes.io/namespace=shop.
The keys of the issuer are pinned: --jwks is its key set, as a file. When the issuer
has new ones, put the rule again.

A program that logs in by its quote is known by its measurement, or by signer,
product and least version.`,
		Example: `  kubectl get --raw /openid/v1/jwks > jwks.json
  ehsm login rule put shop-web --policy all --lifetime 1h --issuer https://kubernetes.default.svc.cluster.local \
    --audience ehsm --subject system:serviceaccount:shop:web --jwks jwks.json
  ehsm login rule put batch --policy all --lifetime 12h --mrenclave 39213a...7d`,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.putLoginRule(cmd.Context(), args[0], f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.req.Policy, "policy", "", "`id` of the policy of the credentials, or all: whatever a user may")
	flags.DurationVar(&f.lifetime, "lifetime", 0, "for how `long` a credential is good, 1m to 12h")
	flags.StringVar(&f.req.Issuer, "issuer", "", "`text` of iss")
	flags.StringVar(&f.req.Audience, "audience", "", "`text` of aud")
	flags.StringVar(&f.req.Subject, "subject", "", "`text` of sub, or what it begins with and *")
	flags.StringArrayVar(&f.claims, "claim", nil, "another claim, `NAME=VALUE`; may be repeated")
	flags.StringVar(&f.jwks, "jwks", "", "`file` with the issuer's public keys as a JSON Web Key Set, - for standard input")
	flags.StringVar(&f.req.MREnclave, "mrenclave", "", "`measurement` of the program, 64 hex digits")
	flags.StringVar(&f.mrsigner, "mrsigner", "", "`signer`, product id and least SVN of the program, joined by :")
	return cmd
}

// request returns the request for a rule, or the error of a wrong command line.
func (a *app) ruleRequest(ctx context.Context, name string, f ruleFlags) (req api.PutLoginRuleRequest, err error) {
	req = f.req
	req.Name, req.LifetimeSeconds, req.Kind = name, int(f.lifetime/time.Second), api.LoginJWT
	switch {
	case req.Policy == "":
		return req, withHint(usagef("no --policy"), "--policy all allows whatever a user may; ehsm policy list shows others")
	case f.lifetime < time.Minute || f.lifetime > 12*time.Hour:
		return req, usagef("lifetime is %v, want 1m to 12h", f.lifetime)
	}
	if req.MREnclave != "" || f.mrsigner != "" {
		req.Kind = api.LoginQuote
		if req.Issuer+req.Audience+req.Subject+f.jwks != "" || len(f.claims) > 0 || (req.MREnclave != "") == (f.mrsigner != "") {
			return req, usagef("want either what is of a token, or --mrenclave, or --mrsigner")
		}
		return req, f.signer(&req)
	}
	if req.Issuer == "" || req.Audience == "" || req.Subject == "" || f.jwks == "" {
		return req, usagef("want --issuer, --audience, --subject and --jwks, or --mrenclave, or --mrsigner")
	}
	if req.Claims, err = joinClaims(f.claims); err != nil {
		return req, err
	}
	b, err := a.readLimited(ctx, f.jwks, api.MaxLoginJWT)
	req.JWKS = string(b)
	return req, err
}

// signer reads MRSIGNER:PRODID:SVN.
func (f *ruleFlags) signer(req *api.PutLoginRuleRequest) error {
	if f.mrsigner == "" {
		return nil
	}
	parts := strings.Split(f.mrsigner, ":")
	if len(parts) != 3 {
		return usagef("signer is %q, want MRSIGNER:PRODID:SVN", f.mrsigner)
	}
	product, err := strconv.ParseUint(parts[1], 10, 16)
	svn, svnErr := strconv.ParseUint(parts[2], 10, 16)
	if err != nil || svnErr != nil {
		return usagef("signer is %q, want MRSIGNER:PRODID:SVN", f.mrsigner)
	}
	req.MRSigner, req.Product, req.MinSVN = parts[0], int(product), int(svn)
	return nil
}

// joinClaims makes a JSON object of NAME=VALUE.
func joinClaims(list []string) (string, error) {
	if len(list) == 0 {
		return "", nil
	}
	claims := map[string]string{}
	for _, text := range list {
		name, value, ok := strings.Cut(text, "=")
		if _, twice := claims[name]; !ok || name == "" || value == "" || twice {
			return "", usagef("claim is %q, want NAME=VALUE, each name once", text)
		}
		claims[name] = value
	}
	b, err := json.Marshal(claims)
	return string(b), err
}

func (a *app) putLoginRule(ctx context.Context, name string, f ruleFlags) error {
	req, err := a.ruleRequest(ctx, name, f)
	if err != nil {
		return err
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	id, err := client.PutLoginRule(ctx, req)
	if err != nil {
		return asRuler(err)
	}
	return a.emit(map[string]string{"name": name, "ruleId": id, "appid": client.AppID()}, id+"\n")
}

// asRuler adds what to do about a refusal.
func asRuler(err error) error {
	var refused *api.Error
	if errors.As(err, &refused) && refused.Message == api.MessageLoginRule {
		return withHint(err, "ehsm login rule list")
	}
	return asOwner(err)
}

func newLoginRuleList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the rules",
		Example: "  ehsm login rule list\n  ehsm login rule list --output json",
		Args:    args(0, 0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.listLoginRules(cmd.Context()) },
	}
}

func (a *app) listLoginRules(ctx context.Context) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	list, err := client.ListLoginRules(ctx)
	if err != nil {
		return asRuler(err)
	}
	t := table("NAME", "POLICY", "LIFETIME", "WHO")
	for i := range list {
		r := &list[i]
		t.row(printable(r.Name), printable(r.Policy), (time.Duration(r.LifetimeSeconds) * time.Second).String(), whoOf(r))
	}
	return a.emit(list, t.String())
}

// whoOf says in words whom a rule accepts.
func whoOf(r *api.LoginRule) string {
	switch {
	case r.MREnclave != "":
		return "program " + printable(r.MREnclave)
	case r.MRSigner != "":
		return fmt.Sprintf("program of %s, product %d, from version %d", printable(r.MRSigner), r.Product, r.MinSVN)
	}
	who := fmt.Sprintf("%s of %s for %s", printable(r.Subject), printable(r.Issuer), printable(r.Audience))
	for _, name := range slices.Sorted(maps.Keys(r.Claims)) {
		who += fmt.Sprintf(", %s=%s", printable(name), printable(r.Claims[name]))
	}
	return who
}

func newLoginRuleDelete(a *app) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:     "delete NAME",
		Short:   "End a rule, and the credentials that workloads have by it",
		Long:    `delete ends a rule within a second. It asks first on a terminal; without one it needs --yes.`,
		Example: "  ehsm login rule delete shop-web",
		Args:    args(1, 1),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.deleteLoginRule(cmd.Context(), args[0], yes) },
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func (a *app) deleteLoginRule(ctx context.Context, name string, yes bool) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if !yes {
		if err := a.confirm(ctx, "delete login rule "+printable(name)); err != nil {
			return err
		}
	}
	if err := client.DeleteLoginRule(ctx, name); err != nil {
		return asRuler(err)
	}
	a.warn("login rule %s is deleted", printable(name))
	if a.output == outputText {
		return nil
	}
	return a.emit(map[string]string{"name": name, "state": "deleted"}, "")
}
