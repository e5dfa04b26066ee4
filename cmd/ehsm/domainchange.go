package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

// changeHelp is what the commands say that prepare a manifest.
const changeHelp = `
Nothing changes yet: the file is signed by as many operators as the manifest in force
asks for, and brought with "ehsm domain submit". With --key it is signed with that key
at once, and where one operator decides alone, brought too. A copy of the manifest in
force is put beside it, which "ehsm domain manifest sign" compares with.`

// changing is what the commands share that prepare a manifest.
type changing struct {
	door
	out, key string
}

func (c *changing) flags(f *pflag.FlagSet) {
	c.door.flags(f)
	f.StringVar(&c.out, "out", "", "`file` for the manifest; default manifest-VERSION.json here")
	f.StringVar(&c.key, "key", "", "an operator's key `file`: sign at once, and submit where that is enough")
}

// A prepared manifest is what these commands print.
type prepared struct {
	File       string   `json:"file"`
	Previous   string   `json:"previous"` // file with the manifest in force
	Version    uint64   `json:"version"`
	Signatures int      `json:"signatures"`
	Threshold  int      `json:"threshold"`
	Operators  []string `json:"operators"`
	Submitted  bool     `json:"submitted"`
	does       string
}

// run prepares a manifest: edit says what changes, and in words what that does.
func (c *changing) run(ctx context.Context, edit func(*visit) (*edits, string, error)) error {
	v, err := c.visit(ctx)
	if err != nil {
		return err
	}
	defer v.Close()
	key, err := c.signer(v)
	if err != nil {
		return err
	}
	if key != nil {
		defer clear(key.secret)
	}
	out := c.nextPath(v)
	if err := fresh(out); err != nil {
		return err
	}
	e, does, err := edit(v)
	if err != nil {
		return err
	}
	p := &prepared{File: out, Previous: previousPath(v, out), Version: v.state.Version + 1, Threshold: v.state.Operators.Threshold, does: does}
	for _, o := range v.state.Operators.Members {
		p.Operators = append(p.Operators, o.Name)
	}
	doc := &document{state: v.state}
	terms, err := e.apply(doc.terms())
	if err != nil {
		return err
	}
	b, err := follow(doc, terms)
	if err != nil {
		return manifestHint(err)
	}
	c.app.tellChanges(changesOf(doc, &document{draft: &manifest.Draft{Format: manifest.DraftFormat, Terms: *terms}}))
	if key != nil {
		if b, err = key.signed(b, p); err != nil {
			return err
		}
	}
	if err := keepCopy(p.Previous, v.last()); err != nil {
		return err
	}
	if err := c.app.writeBytes(out, b); err != nil {
		return err
	}
	if p.Submitted = p.Signatures >= p.Threshold; p.Submitted {
		if _, err := v.submit(ctx, b); err != nil {
			return err
		}
	}
	return c.app.emit(p, p.text())
}

// signer reads --key, before anything is said of what it would sign; nil: there is
// none. The caller clears its secret.
func (c *changing) signer(v *visit) (*keyFile, error) {
	if c.key == "" {
		return nil, nil
	}
	k, err := readKeyFile(c.key)
	if err != nil {
		return nil, err
	}
	q := &v.state.Operators
	if _, ok := q.Member(k.person.Key); ok && k.duty == manifest.Operator {
		return k, nil
	}
	clear(k.secret)
	var names []string
	for _, o := range q.Members {
		names = append(names, o.Name)
	}
	return nil, withHint(fmt.Errorf("the key of %s %s is no operator's of the manifest in force", k.duty, k.person.Name), "operators are: "+strings.Join(names, ", "))
}

// signed adds the signature of the key to a manifest.
func (k *keyFile) signed(b []byte, p *prepared) ([]byte, error) {
	m, err := manifest.Parse(b)
	if err != nil {
		return nil, err
	}
	if err := m.Sign(k.signer()); err != nil {
		return nil, err
	}
	p.Signatures = len(m.Signatures)
	return m.Encode()
}

func (p *prepared) text() string {
	if p.Submitted {
		return fmt.Sprintf("manifest %d %s and is in force at this dkeyserver; the others have it within seconds\nsee: ehsm domain status\n", p.Version, p.does)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s; it has %d of %d signatures\nnext:\n", p.File, p.does, p.Signatures, p.Threshold)
	fmt.Fprintf(&b, "  %d of %s, one after the other, in the same file:\n", p.Threshold, strings.Join(p.Operators, ", "))
	fmt.Fprintf(&b, "    ehsm domain manifest sign --key KEY --previous %s %s\n", quoteArg(p.Previous), quoteArg(p.File))
	fmt.Fprintf(&b, "  then, here:\n    ehsm domain submit %s\n", quoteArg(p.File))
	return b.String()
}

func newDomainSubmit(a *app) *cobra.Command {
	d := &door{app: a}
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "submit MANIFEST",
		Short: "Bring a signed manifest to the running domain",
		Long: `submit gives a manifest to the dkeyserver of this machine. It takes only what
enough operators have signed and what follows the manifest in force, keeps it, and
gives it to all other programs of the domain, which takes some seconds. --wait waits
until every program that is there has it.

` + doorHelp,
		Example: `  ehsm domain submit manifest-4.json
  ehsm domain submit --wait 30s manifest-4.json`,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, paths []string) error {
			b, err := readSmall(paths[0])
			if err != nil {
				return err
			}
			v, err := d.visit(cmd.Context())
			if err != nil {
				return err
			}
			defer v.Close()
			s, err := v.submit(cmd.Context(), b)
			if err != nil {
				return err
			}
			text := fmt.Sprintf("manifest %d is in force at this dkeyserver; the others have it within seconds\n", s.Version)
			if !s.New {
				text = fmt.Sprintf("manifest %d was in force already\n", s.Version)
			}
			if wait > 0 {
				if err := v.everywhere(cmd.Context(), s.Version, wait); err != nil {
					return err
				}
				text = fmt.Sprintf("manifest %d is in force everywhere\n", s.Version)
			}
			return a.emit(s, text)
		},
	}
	d.flags(cmd.Flags())
	cmd.Flags().DurationVar(&wait, "wait", 0, "for how long to wait until every program has it: a `time` such as 30s")
	return cmd
}

// submit brings a manifest. Where it is refused, it says why and what to do.
func (v *visit) submit(ctx context.Context, file []byte) (s *overview.Submitted, err error) {
	err = v.ask(ctx, overview.Submit, file, func(payload []byte) (err error) {
		s, err = overview.ParseSubmitted(payload)
		return err
	})
	if errors.Is(err, overview.ErrRefused) {
		_, why := v.state.Next(file, time.Now())
		var h hinted
		if errors.As(manifestHint(why), &h) {
			err = withHint(err, h.hint)
		}
	}
	if err != nil {
		return nil, err
	}
	if s.Unwritten != "" {
		v.app.warn("it is not on the dkeyserver's disk yet, and tried again: %s", s.Unwritten)
	}
	return s, nil
}

// everywhere waits until every program that is there is under a manifest.
func (v *visit) everywhere(ctx context.Context, version uint64, limit time.Duration) error {
	ctx, stop := context.WithTimeout(ctx, limit)
	defer stop()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		s, err := v.status(ctx)
		if err != nil {
			return err
		}
		var behind []string
		for i := range s.Members {
			if m := &s.Members[i]; m.State == overview.Connected && m.Manifest < version {
				behind = append(behind, m.Role+" "+m.Place())
			}
		}
		if len(behind) == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return withHint(fmt.Errorf("manifest %d is in force, but %s had not taken it after %v", version, strings.Join(behind, ", "), limit), "ehsm domain status")
		}
	}
}

func newManifestGet(a *app) *cobra.Command {
	d := &door{app: a}
	var out string
	cmd := &cobra.Command{
		Use:   "get [--out FILE]",
		Short: "Fetch the manifest in force from a dkeyserver",
		Long: `get verifies all manifests of the running domain, from the genesis on, and writes
the one in force: a signer's own copy, from which the next one is prepared.

` + doorHelp,
		Example: `  ehsm domain manifest get --domain 9a31...f0 --out manifest-3.json`,
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := d.visit(cmd.Context())
			if err != nil {
				return err
			}
			defer v.Close()
			a.warn("manifest %d of the domain %s, %s", v.state.Version, v.state.Domain, v.trust())
			return a.writeBytes(out, v.last())
		},
	}
	d.flags(cmd.Flags())
	cmd.Flags().StringVar(&out, "out", "", "`file` for the manifest; default standard output")
	return cmd
}
