package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

// windowDays is the number of days for the SDK, which has a word for none.
func windowDays(days int) (int, error) {
	switch {
	case days < 0 || days > api.MaxDeletionDays:
		return 0, usagef("--days is %d, want 0 to %d", days, api.MaxDeletionDays)
	case days == 0:
		return ehsm.Immediately, nil
	}
	return days, nil
}

func newKeyRotate(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "rotate KEY...",
		Short: "Give keys new material; what they have protected is still read",
		Long: `rotate makes a new version of each key, which protects new data from now on. Older
versions go on reading what they have protected: "ehsm rewrap" encrypts that anew.
To have it done by the service, see "ehsm key update --rotate-every".`,
		Example: "  ehsm key rotate $KEY\n  ehsm key show $KEY",
		Args:    args(1, -1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			return a.withClient(func(client *ehsm.Client) error {
				for _, id := range ids {
					version, err := client.RotateKey(cmd.Context(), id)
					if err != nil {
						return fmt.Errorf("key %s: %w", id, err)
					}
					if err := a.emit(api.RotateKeyResult{KeyID: id, KeyVersion: version}, fmt.Sprintf("key %s has version %d now\n", id, version)); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

// withClient runs what needs a client for once.
func (a *app) withClient(run func(*ehsm.Client) error) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	return run(client)
}

type keyUpdate struct {
	req     api.UpdateKeyRequest
	tags    []string
	protect bool
	free    bool
}

func newKeyUpdate(a *app) *cobra.Command {
	var u keyUpdate
	cmd := &cobra.Command{
		Use:   "update KEY",
		Short: "Change a key's description, tags, rotation and protection",
		Long: `update changes what the flags say and leaves the rest. Tags are given all together.
With --least-decrypt N the key reads nothing any more that versions below N have
protected: have it encrypted anew first ("ehsm rewrap").`,
		Example: `  ehsm key update $KEY --description "invoices" --tag team=post --tag cost=4711
  ehsm key update $KEY --rotate-every 90
  ehsm key update $KEY --protect
  ehsm key update $KEY --least-decrypt 3
  ehsm key update $KEY --clear rotation,tags`,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			u.req.KeyID = ids[0]
			if err := u.complete(); err != nil {
				return err
			}
			return a.withClient(func(client *ehsm.Client) error {
				if err := client.UpdateKey(cmd.Context(), u.req); err != nil {
					return err
				}
				return a.showKey(cmd.Context(), client, ids[0])
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&u.req.Description, "description", "", "`text` of up to 1024 bytes")
	f.StringArrayVar(&u.tags, "tag", nil, "`name=value`; all tags that the key shall have")
	f.BoolVar(&u.protect, "protect", false, "refuse to delete the key")
	f.BoolVar(&u.free, "no-protect", false, "let the key be deleted again")
	f.IntVar(&u.req.RotationDays, "rotate-every", 0, "`days` after which the service makes a new version, 1 to 2560")
	f.Uint32Var(&u.req.LeastEncrypt, "least-encrypt", 0, "least `version` that may protect new data")
	f.Uint32Var(&u.req.LeastDecrypt, "least-decrypt", 0, "least `version` that may process what is protected")
	f.StringSliceVar(&u.req.Clear, "clear", nil, "`parts` to take away: description, tags, rotation, leastEncrypt, leastDecrypt")
	return cmd
}

// complete makes the request of the flags.
func (u *keyUpdate) complete() error {
	switch {
	case u.protect && u.free:
		return usagef("--protect and --no-protect exclude each other")
	case u.protect:
		u.req.DeletionProtection = "on"
	case u.free:
		u.req.DeletionProtection = "off"
	}
	for _, tag := range u.tags {
		name, value, ok := strings.Cut(tag, "=")
		if !ok || name == "" || value == "" {
			return usagef("tag is %q, want name=value", tag)
		}
		if u.req.Tags == nil {
			u.req.Tags = map[string]string{}
		}
		u.req.Tags[name] = value
	}
	r := &u.req
	if r.Description == "" && r.Tags == nil && r.DeletionProtection == "" && r.RotationDays == 0 && r.LeastEncrypt == 0 && r.LeastDecrypt == 0 && r.Clear == nil {
		return usagef("nothing to change: see ehsm key update --help")
	}
	return nil
}

func newKeyVersion(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:     "version",
		Short:   "Change old versions of a key",
		Example: "  ehsm key version disable $KEY 1\n  ehsm key version delete $KEY 1 --days 30",
	},
		newVersionState(a, "disable", "Have nothing read with a version", "disabled", (*ehsm.Client).DisableKeyVersion),
		newVersionState(a, "enable", "Undo disable and delete", "enabled", (*ehsm.Client).EnableKeyVersion),
		newVersionDelete(a),
	)
}

func newVersionState(a *app, verb, short, state string, change func(*ehsm.Client, context.Context, string, uint32) error) *cobra.Command {
	return &cobra.Command{
		Use:     verb + " KEY VERSION",
		Short:   short,
		Example: "  ehsm key version " + verb + " $KEY 1",
		Args:    args(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			version, err := parseVersion(args[1])
			if err != nil {
				return err
			}
			return a.withClient(func(client *ehsm.Client) error {
				if err := change(client, cmd.Context(), args[0], version); err != nil {
					return err
				}
				a.warn("version %d of key %s is %s", version, args[0], state)
				return nil
			})
		},
	}
}

func parseVersion(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 0 {
		return 0, usagef("version is %q, want a number from 1 on", text)
	}
	return uint32(n), nil
}

func newVersionDelete(a *app) *cobra.Command {
	var days int
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete KEY VERSION",
		Short: "Make a version unusable, and have its material destroyed later",
		Long: `delete suspends an old version at once and has its material destroyed after the
deletion window of the service, or after --days. Until then "ehsm key version
enable" takes it back. What the version has protected cannot be read afterwards.`,
		Example: "  ehsm key version delete $KEY 1\n  ehsm key version delete --yes --days 30 $KEY 1",
		Args:    args(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			version, err := parseVersion(args[1])
			if err != nil {
				return err
			}
			window := 0
			if cmd.Flags().Changed("days") {
				if window, err = windowDays(days); err != nil {
					return err
				}
			}
			if !yes {
				if err := a.confirm(cmd.Context(), fmt.Sprintf("delete version %d of key %s", version, args[0])); err != nil {
					return err
				}
			}
			return a.withClient(func(client *ehsm.Client) error {
				at, err := client.ScheduleKeyVersionDeletion(cmd.Context(), args[0], version, window)
				if err != nil {
					return err
				}
				res := api.ScheduleDeletionResult{KeyID: args[0], KeyVersion: version, DeletionDate: at.UnixMilli()}
				return a.emit(res, fmt.Sprintf("version %d of key %s is destroyed on %s\n", version, args[0], moment(res.DeletionDate)))
			})
		},
	}
	cmd.Flags().IntVar(&days, "days", 0, "`days` until the material is destroyed, 0 to 30; 0: at once")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}
