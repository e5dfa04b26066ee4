package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

func newKey(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:     "key",
		Short:   "Make, list and change keys",
		Example: "  ehsm key create\n  ehsm key list",
	},
		newKeyCreate(a),
		newKeyList(a),
		newKeyShow(a),
		newKeyState(a, "enable", "Make disabled keys usable again", "enabled", (*ehsm.Client).EnableKey),
		newKeyState(a, "disable", "Make keys unusable until they are enabled", "disabled", (*ehsm.Client).DisableKey),
		newKeyRotate(a),
		newKeyUpdate(a),
		newKeyVersion(a),
		newKeyDelete(a),
		newKeyState(a, "restore", "Give deleted keys back that are not destroyed yet", "as it was before it was deleted", (*ehsm.Client).CancelKeyDeletion),
	)
}

type keyFlags struct {
	spec, usage, origin string
	external            bool
	paddings            []string
}

func newKeyCreate(a *app) *cobra.Command {
	var f keyFlags
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a key and print its id",
		Long: `create makes a key. Specs are named as in the API, the prefix EH_ may be left
out; the usage is sign for EC and HMAC keys and encrypt for all others unless it
is given. A key of external origin waits for material that you import.`,
		Example: `  ehsm key create
  ehsm key create --spec AES_GCM_128
  ehsm key create --spec EC_P256 --usage sign`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.createKey(cmd.Context(), f) },
	}
	cmd.Flags().StringVar(&f.spec, "spec", string(api.AESGCM256), "algorithm and size: "+specNames())
	cmd.Flags().StringVar(&f.usage, "usage", "", "`encrypt or sign`")
	cmd.Flags().StringVar(&f.origin, "origin", "internal", "`internal or external`")
	cmd.Flags().BoolVar(&f.external, "external", false, "the same as --origin external")
	cmd.Flags().StringSliceVar(&f.paddings, "padding-modes", nil, "the only paddings of an RSA key: `pkcs1,oaep,pss`; all of its usage without it")
	cmd.RegisterFlagCompletionFunc("spec", cobra.FixedCompletions(strings.Fields(specNames()), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// request returns what the flags ask for.
func (f *keyFlags) request() (req api.CreateKeyRequest, err error) {
	if req.KeySpec, err = parseSpec(f.spec); err != nil {
		return req, err
	}
	usage, origin := f.usage, f.origin
	if usage == "" {
		usage = "encrypt"
		if strings.HasPrefix(string(req.KeySpec), "EH_EC_") || req.KeySpec == api.HMAC {
			usage = "sign"
		}
	}
	if f.external {
		origin = "external"
	}
	var ok bool
	if req.KeyUsage, ok = map[string]api.KeyUsage{"encrypt": api.EncryptDecrypt, "sign": api.SignVerify}[usage]; !ok {
		return req, usagef("usage is %q, want encrypt or sign", usage)
	}
	if req.Origin, ok = map[string]api.Origin{"internal": api.InternalKey, "external": api.ExternalKey}[origin]; !ok {
		return req, usagef("origin is %q, want internal or external", origin)
	}
	req.PaddingModes, err = parsePaddings(f.paddings)
	return req, err
}

func (a *app) createKey(ctx context.Context, f keyFlags) error {
	req, err := f.request()
	if err != nil {
		return err
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	id, err := client.CreateKey(ctx, req.KeySpec, req.KeyUsage, req.Origin, req.PaddingModes...)
	if err != nil {
		return err
	}
	return a.emit(api.CreateKeyResult{KeyID: id}, id+"\n")
}

// keyView is a key as the CLI shows it.
type keyView struct {
	KeyID   string      `json:"keyid"`
	Spec    api.KeySpec `json:"keyspec"`
	State   string      `json:"state"`
	Created time.Time   `json:"created"`
	Expires *time.Time  `json:"expires"` // null: never
	Alias   string      `json:"alias,omitempty"`
}

func viewOf(k api.Key) keyView {
	v := keyView{KeyID: k.KeyID, Spec: k.KeySpec, State: k.KeyState.String(), Created: time.UnixMilli(k.CreationDate).UTC(), Alias: k.Alias}
	if k.ExpireTime != api.NeverExpires {
		t := time.UnixMilli(k.ExpireTime).UTC()
		v.Expires = &t
	}
	return v
}

func (v keyView) expires() string {
	if v.Expires == nil {
		return "never"
	}
	return v.Expires.Format(time.RFC3339)
}

// keys returns all keys of the tenant, the oldest first.
func (a *app) keys(ctx context.Context) ([]keyView, error) {
	client, err := a.client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	list, err := client.ListKeys(ctx)
	if err != nil {
		return nil, err
	}
	views := make([]keyView, 0, len(list))
	for _, k := range list {
		views = append(views, viewOf(k))
	}
	slices.SortFunc(views, func(x, y keyView) int {
		return cmp.Or(x.Created.Compare(y.Created), cmp.Compare(x.KeyID, y.KeyID))
	})
	return views, nil
}

func newKeyList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List your keys, the oldest first",
		Example: "  ehsm key list\n  ehsm key list --output json",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			keys, err := a.keys(cmd.Context())
			if err != nil {
				return err
			}
			var text strings.Builder
			w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "KEY\tSPEC\tSTATE\tCREATED\tEXPIRES")
			for _, k := range keys {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", k.KeyID, k.Spec, k.State, k.Created.Format(time.RFC3339), k.expires())
			}
			w.Flush()
			return a.emit(keys, text.String())
		},
	}
}

// newKeyState returns a command that changes the state of keys.
func newKeyState(a *app, verb, short, state string, change func(*ehsm.Client, context.Context, string) error) *cobra.Command {
	return &cobra.Command{
		Use:     verb + " KEY...",
		Short:   short,
		Example: "  ehsm key " + verb + " $KEY",
		Args:    args(1, -1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			return a.changeKeys(cmd.Context(), ids, state, change)
		},
	}
}

// changeKeys changes one key after the other and stops at the first failure.
func (a *app) changeKeys(ctx context.Context, ids []string, state string, change func(*ehsm.Client, context.Context, string) error) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	for _, id := range ids {
		if err := change(client, ctx, id); err != nil {
			return fmt.Errorf("key %s: %w", id, err)
		}
		if a.output == outputText {
			a.warn("key %s is %s", id, state)
			continue
		}
		if err := a.emit(map[string]string{"keyid": id, "state": state}, ""); err != nil {
			return err
		}
	}
	return nil
}

func newKeyDelete(a *app) *cobra.Command {
	var yes, all bool
	var days int
	cmd := &cobra.Command{
		Use:   "delete KEY...",
		Short: "Delete keys; what they encrypted cannot be read any more",
		Long: `delete makes keys unusable at once and has them destroyed after the deletion
window of the service, or after --days. Until then "ehsm key restore" gives them
back. It asks first on a terminal; without one it needs --yes.`,
		Example: "  ehsm key delete $KEY\n  ehsm key delete --yes --days 30 $KEY\n  ehsm key delete --all",
		Args: func(cmd *cobra.Command, ids []string) error {
			if all {
				return args(0, 0)(cmd, ids)
			}
			return args(1, -1)(cmd, ids)
		},
		RunE: func(cmd *cobra.Command, ids []string) error {
			if !cmd.Flags().Changed("days") {
				return a.deleteKeys(cmd.Context(), ids, all, yes, (*ehsm.Client).DeleteKey)
			}
			if all {
				return usagef("--days goes with keys, not with --all")
			}
			days, err := windowDays(days)
			if err != nil {
				return err
			}
			return a.deleteKeys(cmd.Context(), ids, false, yes, func(c *ehsm.Client, ctx context.Context, id string) error {
				_, err := c.ScheduleKeyDeletion(ctx, id, days)
				return err
			})
		},
	}
	cmd.Flags().IntVar(&days, "days", 0, "`days` until the material is destroyed, 0 to 30; 0: at once")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&all, "all", false, "delete every key you have")
	return cmd
}

func (a *app) deleteKeys(ctx context.Context, ids []string, all, yes bool, remove func(*ehsm.Client, context.Context, string) error) error {
	what := strings.Join(ids, ", ")
	if all {
		what = "all your keys"
	}
	if !yes {
		if err := a.confirm(ctx, "delete "+what); err != nil {
			return err
		}
	}
	if !all {
		return a.changeKeys(ctx, ids, "deleted", remove)
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.DeleteAllKeys(ctx); err != nil {
		return err
	}
	a.warn("all keys are deleted")
	return nil
}

// confirm asks on a terminal whether to do what cannot be undone.
func (a *app) confirm(ctx context.Context, what string) error {
	if !isTerminal(a.stdin) {
		return withHint(usagef("%s: no terminal to ask on", what), "--yes")
	}
	fmt.Fprintf(a.stderr, "ehsm: %s? type yes: ", what)
	answer, err := bufio.NewReader(interruptible{ctx, a.stdin}).ReadString('\n')
	if err != nil && err != io.EOF {
		return err
	}
	if strings.TrimSpace(answer) != "yes" {
		return fmt.Errorf("%s: not confirmed, nothing was done", what)
	}
	return nil
}
