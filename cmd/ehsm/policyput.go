package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

// A policyFile is a policy as put reads it from a file, in YAML or JSON.
type policyFile struct {
	Description string   `json:"description,omitempty" yaml:"description"` // up to 64 characters of printable ASCII
	Preset      string   `json:"preset,omitempty" yaml:"preset"`           // one of api.Presets
	Actions     []string `json:"actions,omitempty" yaml:"actions"`
	Keys        []string `json:"keys,omitempty" yaml:"keys"` // ids; absent: all keys of the tenant
}

const maxPolicyFile = 64 << 10 // bytes

// parsePolicyFile reads a policy. It refuses members that it does not know, and those
// that are there and empty: without keys a policy is about all of them.
func parsePolicyFile(b []byte) (policyFile, error) {
	var f policyFile
	d := yaml.NewDecoder(bytes.NewReader(b), yaml.Strict())
	if err := d.Decode(&f); err != nil {
		text, _, _ := strings.Cut(yaml.FormatError(err, false, false), "\n")
		return f, errors.New(text)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return f, errors.New("more than one document")
	}
	var present map[string]any
	if err := yaml.Unmarshal(b, &present); err != nil {
		return f, fmt.Errorf("no object: %w", err)
	}
	for name, empty := range map[string]bool{"preset": f.Preset == "", "actions": len(f.Actions) == 0, "keys": len(f.Keys) == 0} {
		if _, there := present[name]; there && empty {
			return f, fmt.Errorf("%s is there and empty: leave it out, or say what it is", name)
		}
	}
	return f, nil
}

// options checks a policy and returns it as the SDK wants it.
func (f policyFile) options() (ehsm.PolicyOptions, error) {
	o := ehsm.PolicyOptions{Preset: f.Preset, Actions: f.Actions, Keys: f.Keys, AllKeys: len(f.Keys) == 0, Description: f.Description}
	switch {
	case f.Preset == "" && len(f.Actions) == 0:
		return o, withHint(usagef("policy allows nothing"), "--preset or --action, or a file that has one of them: ehsm policy put --help")
	case f.Preset != "" && !slices.Contains(api.Presets(), f.Preset):
		return o, usagef("preset is %q, want one of: %s", f.Preset, strings.Join(api.Presets(), " "))
	case len(f.Keys) > api.MaxPolicyKeys:
		return o, usagef("policy names %d keys, limit %d", len(f.Keys), api.MaxPolicyKeys)
	}
	for _, name := range f.Actions {
		if !slices.Contains(api.PolicyActions(), name) {
			return o, withHint(usagef("a policy cannot allow action %q", name), "one of: "+strings.Join(api.PolicyActions(), " "))
		}
	}
	for _, id := range f.Keys {
		if !isUUID(id) {
			return o, withHint(usagef("key is %q, want the id of a key", id), "ehsm key list")
		}
	}
	return o, checkDescription(f.Description)
}

// isUUID reports whether a text has the form of an id, in lower case.
func isUUID(s string) bool {
	const form = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"
	if len(s) != len(form) {
		return false
	}
	for i := range len(s) {
		if hyphen := form[i] == '-'; hyphen != (s[i] == '-') || !hyphen && !strings.ContainsRune("0123456789abcdef", rune(s[i])) {
			return false
		}
	}
	return true
}

func newPolicyPut(a *app) *cobra.Command {
	var f policyFile
	var id string
	cmd := &cobra.Command{
		Use:   "put [FILE | (--preset NAME | --action NAME)... [--key ID]...]",
		Short: "Make a policy and print its id, or replace one",
		Long: `put makes a policy from a file (YAML or JSON, - for standard input) or from flags, and
prints its id. With --id it takes the place of that policy: what only the old one
allows ends within a second, at all nodes. Without keys a policy is about all of them;
with keys it allows only actions that name one.

  read-only      lists, descriptions and public keys; no values, no plaintexts
  encrypt-only   Encrypt, AsymmetricEncrypt, BatchEncrypt and new data keys
  decrypt-only   Decrypt, AsymmetricDecrypt and BatchDecrypt
  sign-only      Sign, BatchSign and GetPublicKey`,
		Example: `  ehsm policy put --preset sign-only --key $KEY --description "releases"
  ehsm policy put --id $P --action Encrypt --action Decrypt

  printf 'preset: encrypt-only\nkeys: [%s]\n' $KEY | ehsm policy put -`,
		Args: args(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.putPolicy(cmd.Context(), id, f, args)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&id, "id", "", "`ID` of the policy whose place it takes")
	flags.StringVar(&f.Preset, "preset", "", "`name` of a list of actions: "+strings.Join(api.Presets(), ", "))
	flags.StringArrayVar(&f.Actions, "action", nil, "`name` of an action that it allows")
	flags.StringArrayVar(&f.Keys, "key", nil, "`ID` of a key that it is about, else all")
	flags.StringVar(&f.Description, "description", "", "`text` that list shows, up to 64 characters of ASCII")
	return cmd
}

func (a *app) putPolicy(ctx context.Context, id string, f policyFile, files []string) error {
	if len(files) > 0 {
		if f.Preset != "" || f.Description != "" || len(f.Actions)+len(f.Keys) > 0 {
			return usagef("a file excludes --preset, --action, --key and --description")
		}
		b, err := a.readLimited(ctx, files[0], maxPolicyFile)
		if err != nil {
			return err
		}
		if f, err = parsePolicyFile(b); err != nil {
			return withHint(fmt.Errorf("read policy of %s: %w", files[0], err), "members are preset, actions, keys and description")
		}
	}
	o, err := f.options()
	if err != nil {
		return err
	}
	return a.asPolicyOwner(ctx, id, func(ctx context.Context, c *ehsm.Client) error {
		made := id
		if id != "" {
			err = c.ReplacePolicy(ctx, id, o)
		} else {
			made, err = c.CreatePolicy(ctx, o)
		}
		if err != nil {
			return err
		}
		return a.emit(map[string]string{"policyId": made}, printable(made)+"\n")
	})
}
