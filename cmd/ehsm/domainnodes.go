package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

func newDomainNodes(a *app) *cobra.Command {
	d := &door{app: a}
	cmd := &cobra.Command{
		Use:   "nodes",
		Short: "List the programs of a running domain in detail",
		Long: `nodes lists every program that takes part in the domain, and those that did in the
last 24 hours, with all that is known of it: machine, evidence, TCB status,
measurement, version, manifest, DomainKey, and since when. Status is the short form.

` + doorHelp,
		Example: `  ehsm domain nodes
  ehsm domain nodes --output json | jq '.[] | select(.role == "core")'`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := a.viewStatus(cmd.Context(), d)
			if err != nil {
				return err
			}
			return a.emit(v.Members, v.nodesText())
		},
	}
	d.flags(cmd.Flags())
	return cmd
}

func (v *statusView) nodesText() string {
	var b strings.Builder
	for _, machine := range machines(v.Status, true) {
		fmt.Fprintln(&b, machine.title())
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		line := func(name, format string, args ...any) {
			fmt.Fprintf(w, "  %s\t%s\n", name, fmt.Sprintf(format, args...))
		}
		if machine.ppid != (manifest.PPID{}) {
			line("PPID", "%s", machine.ppid)
		}
		if machine.serial != "" {
			line("PCK serial", "%s", machine.serial)
		}
		for _, m := range machine.members {
			v.memberText(&m, line)
		}
		w.Flush()
	}
	fmt.Fprintf(&b, "answer: %s\n", v.trust)
	return b.String()
}

func (v *statusView) memberText(m *overview.Member, line func(name, format string, args ...any)) {
	line(m.Role, "%s, %s, %s, %s", m.Instance, stateText(m), v.manifestText(m), v.keyText(m))
	line("", "measurement %s", m.MREnclave)
	line("", "signer %s, product %d, version %d%s", m.MRSigner, m.Product, m.SVN, debugText(m.Debug))
	switch m.Evidence {
	case overview.ByQuote:
		line("", "%s quote, attested %s: %s%s", m.Platform, v.ago(m.Attested), m.TCBStatus, advisoriesText(m.Advisories))
	case overview.ByReport:
		line("", "report of its machine, attested %s by the dkeycache %s", v.ago(m.Attested), m.Via.String()[:8])
	default:
		line("", "the dkeyserver that answers; others judge it")
	}
	for _, g := range []struct {
		what  string
		until time.Time
	}{{"out of date, in grace", m.TCBGraceUntil}, {"collateral ended, in grace", m.CollateralGraceUntil}, {"evidence good", m.EvidenceUntil}} {
		if !g.until.IsZero() {
			line("", "%s until %s", g.what, g.until.Format("2006-01-02 15:04"))
		}
	}
	if lease := leaseText(m); lease != "" {
		line("", "%s", lease)
	}
	if m.Address != "" {
		line("", "from %s, by the word of its host", m.Address)
	}
}

func debugText(debug bool) string {
	if debug {
		return ", DEBUG"
	}
	return ""
}

func advisoriesText(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return ", " + strings.Join(list, ", ")
}
