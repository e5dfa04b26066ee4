package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

func newSecretDescribe(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "describe NAME",
		Short:   "Show all about a secret but its value",
		Example: "  ehsm secret describe db-password",
		Args:    args(1, 1),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.describeSecret(cmd.Context(), args[0]) },
	}
}

func (a *app) describeSecret(ctx context.Context, name string) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	d, err := client.DescribeSecret(ctx, name)
	if err != nil {
		return fmt.Errorf("secret %s: %w", printable(name), err)
	}
	v := struct {
		Name         string     `json:"name"`
		Description  string     `json:"description"`
		Created      *time.Time `json:"created"`
		Deletion     *time.Time `json:"deletion"`     // null: none is planned
		Rotation     string     `json:"rotation"`     // interval, "" for none
		LastRotation *time.Time `json:"lastRotation"` // null: never
		NextRotation *time.Time `json:"nextRotation"` // null: no interval
	}{d.SecretName, d.Description, date(d.CreateTime), date(d.PlannedDeleteTime),
		d.RotationInterval, date(d.LastRotationDate), date(d.NextRotationDate)}
	return a.emit(v, fmt.Sprintf("name:          %s\ndescription:   %s\ncreated:       %s\ndeletion:      %s\nrotation:      %s\nlast rotation: %s\nnext rotation: %s\n",
		printable(v.Name), orNone(v.Description), dateText(v.Created, "-"), dateText(v.Deletion, "none"),
		orNone(v.Rotation), dateText(v.LastRotation, "never"), dateText(v.NextRotation, "none")))
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return printable(s)
}

func newSecretSetDescription(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "set-description NAME TEXT",
		Short:   "Set the description of a secret; an empty one clears it",
		Example: "  ehsm secret set-description db-password 'of the shop'\n  ehsm secret set-description db-password ''",
		Args:    args(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeSecret(args[0], "described", func(c *ehsm.Client) error {
				return c.UpdateSecretDescription(cmd.Context(), args[0], args[1])
			})
		},
	}
}

type secretDeleteFlags struct {
	force, yes bool
	days       int
}

const defaultDays = 30 // until a deleted secret is gone

func newSecretDelete(a *app) *cobra.Command {
	var f secretDeleteFlags
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a secret, with time to restore it",
		Long: `delete hides the value at once. The secret is gone after 30 days or --days; until
then ehsm secret restore brings it back, and its name is taken. With --force it is
gone at once, with all its versions. It asks first on a terminal; without one it
needs --yes.`,
		Example: `  ehsm secret delete db-password
  ehsm secret delete --yes --days 7 db-password
  ehsm secret delete --force db-password`,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			changed := cmd.Flags().Changed("days")
			switch {
			case changed && f.force:
				return usagef("want one of --days and --force")
			case changed && (f.days < 1 || f.days > api.MaxRecoveryPeriod):
				return usagef("days are %d, want 1 to %d", f.days, api.MaxRecoveryPeriod)
			}
			return a.deleteSecret(cmd.Context(), args[0], f)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.force, "force", false, "it cannot be restored")
	flags.IntVar(&f.days, "days", defaultDays, "`number` of days in which it can be restored, 1 to 365")
	flags.BoolVar(&f.yes, "yes", false, "do not ask")
	return cmd
}

func (a *app) deleteSecret(ctx context.Context, name string, f secretDeleteFlags) error {
	what, state := "delete secret "+printable(name), fmt.Sprintf("deleted, and gone in %d days", f.days)
	if f.force {
		what, state = what+" for good", "gone"
	}
	if !f.yes {
		if err := a.confirm(ctx, what); err != nil {
			return err
		}
	}
	return a.changeSecret(name, state, func(c *ehsm.Client) error {
		if f.force {
			return c.DeleteSecretNow(ctx, name)
		}
		return c.DeleteSecret(ctx, name, f.days)
	})
}

func newSecretRestore(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "restore NAME",
		Short:   "Bring a deleted secret back before it is gone",
		Example: "  ehsm secret restore db-password",
		Args:    args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeSecret(args[0], "restored", func(c *ehsm.Client) error {
				return c.RestoreSecret(cmd.Context(), args[0])
			})
		},
	}
}
