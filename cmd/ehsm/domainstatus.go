package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

func newDomainStatus(a *app) *cobra.Command {
	d := &door{app: a}
	var watch bool
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show a running domain on one screen",
		Long: `status shows what a dkeyserver knows of its domain: the manifest in force and who
signed it, the DomainKey, what deserves a look (WARNING), every machine with the
programs that take part on it, and machines that wait for admission.

` + doorHelp + `

What a program is (its measurement, its machine, the TCB status) is as the
dkeyserver or dkeycache that attested it has judged it. Cores are as their attested
dkeycache tells. Addresses are the word of hosts.`,
		Example: `  ehsm domain status
  ehsm domain status --watch
  ehsm domain status --output json | jq .warnings`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every < 100*time.Millisecond {
				return usagef("--every is %v, want at least 100ms", every)
			}
			if watch {
				return a.watchStatus(cmd.Context(), d, every)
			}
			return a.showStatus(cmd.Context(), d)
		},
	}
	d.flags(cmd.Flags())
	cmd.Flags().BoolVar(&watch, "watch", false, "show it again and again, until you stop it")
	cmd.Flags().DurationVar(&every, "every", 2*time.Second, "with --watch: `time` between two")
	return cmd
}

// A statusView is what status prints.
type statusView struct {
	*overview.Status
	Signed   bool               `json:"signed"` // with the domain's key
	Pinned   bool               `json:"pinned"` // the domain is the one that the caller named
	Warnings []overview.Warning `json:"warnings"`
	trust    string
	settings *manifest.Settings
	records  overview.Rewrap
	told     bool // records was
}

func (a *app) viewStatus(ctx context.Context, d *door) (*statusView, error) {
	v, err := d.visit(ctx)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	s, err := v.status(ctx)
	if err != nil {
		return nil, err
	}
	view := &statusView{Status: s, Signed: v.signed, Pinned: v.pinned, Warnings: s.Warnings(), trust: v.trust(), settings: &v.state.Settings}
	view.records, view.told = s.Rewrap()
	return view, nil
}

func (a *app) showStatus(ctx context.Context, d *door) error {
	v, err := a.viewStatus(ctx, d)
	if err != nil {
		return err
	}
	return a.emit(v, v.text())
}

// watchStatus shows the status until ctx ends. A dkeyserver that is away is waited
// for.
func (a *app) watchStatus(ctx context.Context, d *door, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		v, err := a.viewStatus(ctx, d)
		if ctx.Err() != nil {
			return nil
		}
		if isTerminal(a.stdout) && a.output == outputText {
			if err := a.print("\x1b[H\x1b[2J"); err != nil {
				return err
			}
		}
		if err != nil {
			a.report(err)
		} else if err := a.emit(v, v.text()+"\n"); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// factsText is how far the log of negative facts goes.
func factsText(f *overview.Facts) string {
	text := fmt.Sprintf("%d entries known, the last %.12s", f.Entries, f.Hash)
	if n := len(f.Unproven); n > 0 {
		text += fmt.Sprintf("; %d other heads wait for a core to look", n)
	}
	return text
}

// text renders the screen.
func (v *statusView) text() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	line("domain", "%s", v.Domain.ID)
	line("mode", "%s, DomainKey under %s", v.Domain.Mode, rootText(v.Domain.Root))
	m := &v.Manifest
	line("manifest", "%d of %s, %s%s", m.Version, m.Date.Format("2006-01-02"), signedText(m.Signers), followText(v.Following()))
	line("next one", "%s", quorumText(m))
	line("DomainKey", "%s", keyText(&v.Key, v.waitsText(), v.settings))
	if text := recordsText(v.records, v.told, v.settings); text != "" {
		line("records", "%s", text)
	}
	if text := leftText(v.records, v.told, v.settings); text != "" {
		line("left to be replaced", "%s", text)
	}
	if v.Facts != nil {
		line("disabled, deleted", "%s", factsText(v.Facts))
	}
	line("recovery", "%s", v.recoveryText())
	line("answered by", "dkeyserver (%s), release %s, up %s", v.Server.Kind, v.Server.Release, overview.Words(max(v.At.Sub(v.Server.Started), 0)))
	line("answer", "%s", v.trust)
	w.Flush()
	if len(v.Warnings) > 0 {
		b.WriteString("\n")
	}
	for _, warning := range v.Warnings {
		fmt.Fprintf(&b, "WARNING  %s\n", warning.Text)
	}
	b.WriteString("\n" + v.treeText() + v.waitingText())
	return b.String()
}

func rootText(r manifest.Root) string {
	if r == manifest.HSM {
		return "an HSM"
	}
	return "the seal key of its platform"
}

func signedText(signers []string) string {
	if len(signers) == 0 {
		return "which nobody had to sign"
	}
	return "signed by " + strings.Join(signers, ", ")
}

// followText says how many programs a manifest that is new has still to reach.
func followText(n int) string {
	switch n {
	case 0:
		return ""
	case 1:
		return "; a program is to follow"
	}
	return fmt.Sprintf("; %d programs are to follow", n)
}

func quorumText(m *overview.Manifest) string {
	if len(m.Operators) == 0 {
		return "never comes: the domain has no operators"
	}
	return fmt.Sprintf("takes %d of %s", m.Threshold, strings.Join(m.Operators, ", "))
}

func versionText(version uint32) string {
	if version == 0 {
		return "not here"
	}
	return fmt.Sprintf("version %d", version)
}

func (v *statusView) waitingText() string {
	if len(v.Waiting) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("\nwait for admission: genuine machines that the manifest does not name\n")
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for i, m := range v.Waiting {
		was := ""
		if m.Was != "" {
			was = fmt.Sprintf(" (was %s)", m.Was)
		}
		fmt.Fprintf(w, "  %d\tPPID %s%s\tsince %s\tlast %s\t%s\t%s\n", i+1, m.PPID, was, m.First.Format("2006-01-02 15:04"), v.ago(m.Last), timesText(m.Times), m.From)
	}
	w.Flush()
	b.WriteString("  to let one in: ehsm domain admit --waiting NUMBER --name NAME\n")
	return b.String()
}

func timesText(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// ago is a date in the past, in words.
func (v *statusView) ago(t time.Time) string {
	return agoText(uint32(max(v.At.Sub(t), 0) / time.Second))
}

func agoText(seconds uint32) string {
	if seconds < 2 {
		return "now"
	}
	return overview.Words(time.Duration(seconds)*time.Second) + " ago"
}
