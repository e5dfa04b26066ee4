package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

func newDomainAdmit(a *app) *cobra.Command {
	c := &changing{door: door{app: a}}
	var waiting int
	var ppid, serial, name string
	cmd := &cobra.Command{
		Use:   "admit (--waiting N | --ppid HEX | --pck-serial HEX) --name NAME",
		Short: "Prepare the manifest that lets a machine in",
		Long: `admit prepares the manifest that follows the one in force and names one more
machine: one that waits, by its number in "ehsm domain status", or one whose PPID or
PCK serial you know.
` + changeHelp + `

` + doorHelp,
		Example: `  ehsm domain admit --waiting 1 --name "node 3"
  ehsm domain admit --ppid 0123456789abcdef0123456789abcdef --name "node 3" --out next.json`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			given := 0
			for _, flag := range []string{"waiting", "ppid", "pck-serial"} {
				if cmd.Flags().Changed(flag) {
					given++
				}
			}
			if given != 1 || name == "" {
				return withHint(usagef("want --name, and one of --waiting, --ppid and --pck-serial"), "ehsm domain status shows who waits")
			}
			return c.run(cmd.Context(), func(v *visit) (*edits, string, error) {
				p, err := c.newcomer(cmd.Context(), v, waiting, ppid, serial)
				if err != nil {
					return nil, "", err
				}
				p.Name = name
				b, err := json.Marshal(p)
				return &edits{add: []string{"settings.platforms=" + string(b)}}, "admits " + name, err
			})
		},
	}
	f := cmd.Flags()
	f.IntVar(&waiting, "waiting", 0, "`number` of the machine in the list of those that wait")
	f.StringVar(&ppid, "ppid", "", "PPID of the machine, 32 `hex` digits")
	f.StringVar(&serial, "pck-serial", "", "serial of its PCK certificate in `hex`; it changes with each TCB recovery")
	f.StringVar(&name, "name", "", "`name` of the machine, for people")
	c.flags(f)
	return cmd
}

// newcomer finds the machine that is meant, without a name.
func (c *changing) newcomer(ctx context.Context, v *visit, waiting int, ppid, serial string) (p manifest.Platform, err error) {
	if v.state.Settings.AnyPlatform {
		return p, withHint(errors.New("the manifest admits any machine; there is nobody to let in"),
			"ehsm domain manifest edit --set settings.anyPlatform=false --add settings.platforms=... names machines instead")
	}
	switch {
	case ppid != "":
		if err := p.PPID.UnmarshalText([]byte(strings.ToLower(ppid))); err != nil {
			return p, usageError{fmt.Errorf("--ppid: %w", err)}
		}
		return p, nil
	case serial != "":
		p.Serial = strings.ToLower(serial)
		return p, nil
	}
	s, err := v.status(ctx)
	if err != nil {
		return p, err
	}
	if waiting < 1 || waiting > len(s.Waiting) {
		return p, withHint(fmt.Errorf("%d machines wait, there is no number %d", len(s.Waiting), waiting), "ehsm domain status shows who waits")
	}
	m := s.Waiting[waiting-1]
	if m.PPID == (manifest.PPID{}) {
		p.Serial = m.Serial
	}
	p.PPID = m.PPID
	return p, nil
}

func newDomainRemove(a *app) *cobra.Command {
	c := &changing{door: door{app: a}}
	var rotate bool
	cmd := &cobra.Command{
		Use:   "remove [--rotate] NAME",
		Short: "Prepare the manifest that takes a machine out",
		Long: `remove prepares the manifest that follows the one in force and no longer names a
machine. Once that is in force, the programs of the machine are refused and forget
the DomainKey at their next contact, or at the end of their lease. What somebody has
copied out of it before is not undone: --rotate asks for a new version of the
DomainKey in the same manifest, which covers what is made later (see "ehsm domain
rotate"). Where you know that the DomainKey was copied, use "ehsm domain compromise".
` + changeHelp + `

` + doorHelp,
		Example: `  ehsm domain remove --rotate "node 3"`,
		Args:    args(1, 1),
		RunE: func(cmd *cobra.Command, names []string) error {
			return c.run(cmd.Context(), func(v *visit) (*edits, string, error) {
				var have []string
				for _, p := range v.state.Settings.Platforms {
					have = append(have, p.Name)
				}
				switch {
				case v.state.Settings.AnyPlatform:
					return nil, "", errors.New("the manifest admits any machine; none can be taken out by name")
				case !slices.Contains(have, names[0]):
					return nil, "", withHint(fmt.Errorf("the manifest has no machine %q", names[0]), "it has: "+strings.Join(have, ", "))
				case len(have) == 1:
					return nil, "", fmt.Errorf("%s is the only machine of the domain; nobody could use a key any more", names[0])
				}
				s, err := v.status(cmd.Context())
				if err == nil && len(s.Members) > 0 && s.Members[0].Machine == names[0] {
					a.warn("the dkeyserver that you ask is on %s: it hands nothing out any more under that manifest", names[0])
				}
				if err != nil {
					return nil, "", err
				}
				e, does := &edits{remove: []string{"settings.platforms=" + names[0]}}, "takes out "+names[0]
				if !rotate {
					a.warn("the DomainKey stays the same: if somebody may have had %s open, --rotate asks for a new one too, as does \"ehsm domain rotate\" later", names[0])
					return e, does, nil
				}
				r, version, err := rotatedTo(&v.state.Settings)
				if err != nil {
					return nil, "", err
				}
				e.set = r.set
				return e, fmt.Sprintf("%s and asks for version %d of the DomainKey", does, version), nil
			})
		},
	}
	cmd.Flags().BoolVar(&rotate, "rotate", false, "ask for a new version of the DomainKey as well")
	c.flags(cmd.Flags())
	return cmd
}

// keepCopy writes a manifest beside others, unless it is there.
func keepCopy(path string, b []byte) error {
	return keep(path, b, "is another file than the manifest in force", "use another directory, or --out with one")
}

// keep writes a file, unless it is there. Where another one is, it says so.
func keep(path string, b []byte, other, hint string) error {
	have, err := readSmall(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return writeNew(path, string(b), 0o644)
	case err != nil:
		return err
	case !bytes.Equal(have, b):
		return withHint(fmt.Errorf("%s %s", path, other), hint)
	}
	return nil
}

// fresh refuses a file that is there: somebody may have signed it.
func fresh(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return withHint(fmt.Errorf("%s exists already; somebody may have signed it", path), "--out names another file")
	}
	return nil
}

// quoteArg is an argument as a shell takes it.
func quoteArg(s string) string {
	if s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./@:=+", r))
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// nextPath is where the manifest that follows goes if nobody says so.
func (c *changing) nextPath(v *visit) string {
	if c.out != "" {
		return c.out
	}
	return manifest.FileName(v.state.Version + 1)
}

// previousPath is where a copy of the manifest in force goes: beside the next one.
func previousPath(v *visit, out string) string { return filepath.Join(filepath.Dir(out), v.lastName()) }
