package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

func newKeyShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show KEY",
		Short: "Show all there is to know of a key",
		Long: `show tells a key's kind and state, its versions and what is planned for them. It
knows deleted keys too, as long as "ehsm key restore" gives them back.`,
		Example: "  ehsm key show $KEY\n  ehsm key show $KEY --output json",
		Args:    args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(func(client *ehsm.Client) error { return a.showKey(cmd.Context(), client, args[0]) })
		},
	}
}

func (a *app) showKey(ctx context.Context, client *ehsm.Client, id string) error {
	k, err := client.DescribeKey(ctx, id)
	if ehsm.IsKeyNotFound(err) {
		return withHint(fmt.Errorf("you have no key %q", id), "ehsm key list")
	}
	if err != nil {
		return err
	}
	return a.emit(k, describeKey(&k))
}

// describeKey is a key for people: what does not apply to it is left out.
func describeKey(k *api.KeyDescription) string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s:\t%s\n", name, fmt.Sprintf(format, args...))
	}
	line("key", "%s", k.KeyID)
	if k.Description != "" {
		line("description", "%q", k.Description)
	}
	for i, name := range slices.Sorted(maps.Keys(k.Tags)) {
		label := "tags"
		if i > 0 {
			label = ""
			fmt.Fprintf(w, "\t%q = %q\n", name, k.Tags[name])
			continue
		}
		line(label, "%q = %q", name, k.Tags[name])
	}
	line("spec", "%s, to %s%s%s", k.KeySpec, usageText(k.KeyUsage), paddingText(k.PaddingModes), originText(k.Origin))
	line("state", "%s", keyState(k))
	line("created", "%s", moment(k.Created))
	if k.Expires != 0 {
		line("expires", "%s", moment(k.Expires))
	}
	if k.RotationDays != 0 {
		line("rotates", "every %d days, next on %s", k.RotationDays, moment(k.NextRotation))
	}
	if least := max(k.LeastEncrypt, k.LeastDecrypt); least != 0 {
		line("least version", "%d to encrypt or sign, %d to decrypt or verify", max(k.LeastEncrypt, 1), max(k.LeastDecrypt, 1))
	}
	w.Flush()
	fmt.Fprintln(&text)
	versionTable(&text, k.Versions)
	return text.String()
}

func versionTable(text *strings.Builder, versions []api.KeyVersion) {
	if len(versions) == 0 {
		text.WriteString("It has no material yet: ehsm import --help\n")
		return
	}
	w := tabwriter.NewWriter(text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VERSION\tSTATE\tCREATED\t")
	for _, v := range versions {
		note := ""
		switch {
		case v.Primary:
			note = "primary: protects new data"
		case v.DeletionDate != 0:
			note = "destroyed on " + moment(v.DeletionDate)
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\n", v.KeyVersion, stateWord(v.State), moment(v.Created), note)
	}
	w.Flush()
}

func keyState(k *api.KeyDescription) string {
	switch {
	case k.DeletionDate != 0:
		return "deleted; destroyed on " + moment(k.DeletionDate) + " unless: ehsm key restore " + k.KeyID
	case k.DeletionProtection:
		return stateWord(k.State) + ", protected from deletion"
	}
	return stateWord(k.State)
}

// stateWord is a state as the commands call it.
func stateWord(state string) string {
	return cmp.Or(map[string]string{"active": "enabled", "suspended": "disabled", "pre-activation": "waits for material"}[state], state)
}

func usageText(u api.KeyUsage) string {
	return cmp.Or(map[api.KeyUsage]string{api.EncryptDecrypt: "encrypt and decrypt", api.SignVerify: "sign and verify"}[u], string(u))
}

func paddingText(modes []api.PaddingMode) string {
	if len(modes) == 0 {
		return ""
	}
	names := make([]string, len(modes))
	for i, m := range modes {
		names[i] = string(m)
	}
	return " with " + strings.Join(names, ", ")
}

func originText(o api.Origin) string {
	if o == api.ExternalKey {
		return "; imported material"
	}
	return ""
}

// moment is a time in Unix milliseconds, to the second.
func moment(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
