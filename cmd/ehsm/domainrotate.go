package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

// rotatedTo is the change that makes a new version of the DomainKey.
func rotatedTo(s *manifest.Settings, compromised ...uint32) (*edits, uint32, error) {
	k := s.DomainKey
	k.Version = s.DomainKeyVersion() + 1
	k.Compromised = append(slices.Clone(k.Compromised), compromised...)
	slices.Sort(k.Compromised)
	e, err := setDomainKey(k)
	return e, k.Version, err
}

func setDomainKey(k manifest.DomainKey) (*edits, error) {
	b, err := json.Marshal(k)
	return &edits{set: []string{"settings.domainKey=" + string(b)}}, err
}

func newDomainRotate(a *app) *cobra.Command {
	c := &changing{door: door{app: a}}
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Prepare the manifest that has a new DomainKey version made",
		Long: `rotate prepares the manifest that follows the one in force and asks for the next
version of the DomainKey. Once that is in force, the root dkeyserver makes the
version, every TEE of the domain fetches it, and the managers have all records
wrapped under it while they serve. "ehsm domain status" shows how far that is. The
old versions stay until "ehsm domain forget".
` + changeHelp + `

` + doorHelp,
		Example: `  ehsm domain rotate --key alice.key
  ehsm domain status --watch`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.run(cmd.Context(), func(v *visit) (*edits, string, error) {
				e, version, err := rotatedTo(&v.state.Settings)
				return e, fmt.Sprintf("asks for version %d of the DomainKey", version), err
			})
		},
	}
	c.flags(cmd.Flags())
	return cmd
}

func newDomainCompromise(a *app) *cobra.Command {
	c := &changing{door: door{app: a}}
	var version uint32
	cmd := &cobra.Command{
		Use:   "compromise [--version N]",
		Short: "Prepare the manifest that says that a DomainKey version has leaked",
		Long: `compromise prepares the manifest that follows the one in force. It marks a version
of the DomainKey, and all below it that are not forgotten, as one that somebody else
may have, and asks for a new one where the version is the current one. All records are
wrapped anew then, but who had the old version and a copy of the database has read the
keys themselves: every key, secret and API key of customers that was made under a marked
version, or before, is to be replaced by its owner. "ehsm domain status" shows how many
are left, and /compromised beside the /metrics of a manager which. Then remove what
leaked (ehsm domain remove), and forget the version.
` + changeHelp + `

` + doorHelp,
		Example: `  ehsm domain compromise --key alice.key
  ehsm domain compromise --version 2`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.run(cmd.Context(), func(v *visit) (*edits, string, error) {
				s := &v.state.Settings
				if version == 0 {
					version = s.DomainKeyVersion()
				}
				return compromised(s, version)
			})
		},
	}
	cmd.Flags().Uint32Var(&version, "version", 0, "`number` of the version that leaked; default the current one")
	c.flags(cmd.Flags())
	return cmd
}

// compromised marks the versions up to one.
func compromised(s *manifest.Settings, version uint32) (*edits, string, error) {
	current := s.DomainKeyVersion()
	if version > current {
		return nil, "", fmt.Errorf("there is no version %d of the DomainKey; the current one is %d", version, current)
	}
	var marks []uint32
	for n := uint32(1); n <= version; n++ {
		if !slices.Contains(s.DomainKey.Compromised, n) && !slices.Contains(s.DomainKey.Forgotten, n) {
			marks = append(marks, n)
		}
	}
	if len(marks) == 0 {
		return nil, "", fmt.Errorf("version %d of the DomainKey is marked already", version)
	}
	does := "marks " + versionsText(marks) + " of the DomainKey as compromised"
	if version == current {
		e, next, err := rotatedTo(s, marks...)
		return e, fmt.Sprintf("%s and asks for version %d", does, next), err
	}
	k := s.DomainKey
	k.Compromised = append(slices.Clone(k.Compromised), marks...)
	slices.Sort(k.Compromised)
	e, err := setDomainKey(k)
	return e, does, err
}

func versionsText(versions []uint32) string {
	if len(versions) == 1 {
		return fmt.Sprintf("version %d", versions[0])
	}
	return "versions " + strings.Trim(strings.Join(strings.Fields(fmt.Sprint(versions)), ", "), "[]")
}

func newDomainForget(a *app) *cobra.Command {
	c := &changing{door: door{app: a}}
	var version uint32
	var force bool
	cmd := &cobra.Command{
		Use:   "forget --version N",
		Short: "Prepare the manifest that destroys an old DomainKey version",
		Long: `forget prepares the manifest that follows the one in force and has every TEE of the
domain zero a version of the DomainKey, in its escrow too. What is still wrapped by it
nobody can read any more, ever: that is how keys which were deleted become
unreadable in old copies of the database. So every backup of the database from
before its records were wrapped anew is lost with it; forget says from when they
are. It refuses while the dkeyserver knows of records that still need the version.
` + changeHelp + `

` + doorHelp,
		Example: `  ehsm domain forget --version 1`,
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if version == 0 {
				return usagef("want --version")
			}
			return c.run(cmd.Context(), func(v *visit) (*edits, string, error) {
				e, err := forgotten(&v.state.Settings, version)
				if err != nil {
					return nil, "", err
				}
				if err := c.unneeded(cmd.Context(), v, version, force); err != nil {
					return nil, "", err
				}
				since, err := v.versionSince(version + 1)
				if err != nil {
					return nil, "", err
				}
				a.warn("lost for good: all backups of the database from before %s, and later ones from before its records were wrapped anew", since.Format("2006-01-02 15:04"))
				a.warn("make a backup now, before that manifest is in force")
				return e, fmt.Sprintf("has version %d of the DomainKey forgotten", version), nil
			})
		},
	}
	cmd.Flags().Uint32Var(&version, "version", 0, "`number` of the version to forget")
	cmd.Flags().BoolVar(&force, "force", false, "also if nobody says that no record needs it")
	c.flags(cmd.Flags())
	return cmd
}

// unneeded refuses to forget a version that records may need.
func (c *changing) unneeded(ctx context.Context, v *visit, version uint32, force bool) error {
	s, err := v.status(ctx)
	if err != nil || force {
		return err
	}
	const hint = "ehsm domain status shows how far the records are; --force forgets all the same"
	r, told := s.Rewrap()
	switch {
	case !told:
		return withHint(errors.New("no core tells under which versions the records of its store are"), hint)
	case r.Done <= version:
		return withHint(fmt.Errorf("records may still need version %d: all are done up to version %d only", version, r.Done), hint)
	case r.Refused > 0:
		c.app.warn("%s not wrapped anew, such as those of keys that were deleted; what is so is lost with the version", countText(r.Refused, "record"))
	}
	if m := lagging(s, version); m != nil {
		return withHint(fmt.Errorf("%s %s has no later version yet", m.Role, m.Place()), hint)
	}
	return nil
}

// lagging is a member that has no later version than one; nil: there is none. Programs
// that were started again are not waited for, nor those whose machine was taken out.
func lagging(s *overview.Status, version uint32) *overview.Member {
	for i := range s.Members {
		m := &s.Members[i]
		ended := m.State == overview.Removed || m.State == overview.Left && superseded(s, m)
		if !ended && m.DomainKey <= version {
			return m
		}
	}
	return nil
}

// forgotten is the change that has a version forgotten.
func forgotten(s *manifest.Settings, version uint32) (*edits, error) {
	k := s.DomainKey
	switch {
	case version >= s.DomainKeyVersion():
		return nil, withHint(fmt.Errorf("version %d is not an old one; the current one is %d", version, s.DomainKeyVersion()), "ehsm domain rotate makes a new one")
	case slices.Contains(k.Forgotten, version):
		return nil, fmt.Errorf("version %d is forgotten already", version)
	}
	k.Forgotten = append(slices.Clone(k.Forgotten), version)
	slices.Sort(k.Forgotten)
	return setDomainKey(k)
}

// versionSince is the date of the manifest that asked for a version of the
// DomainKey.
func (v *visit) versionSince(version uint32) (time.Time, error) {
	var state *manifest.State
	for _, f := range v.files {
		next, err := manifest.Open(f)
		if state != nil {
			next, err = state.Next(f, time.Now())
		}
		if err != nil {
			return time.Time{}, manifestHint(err)
		}
		if state = next; state.Settings.DomainKeyVersion() >= version {
			return state.Date, nil
		}
	}
	return time.Time{}, errors.New("no manifest asked for that version")
}
