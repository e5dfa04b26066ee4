package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/trail"
)

func newAudit(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:     "audit",
		Short:   "Check and read copies of the audit trail",
		Example: "  ehsm audit verify --genesis genesis.json trail/\n  ehsm audit show trail/",
	}, newAuditVerify(a), newAuditShow(a))
}

func newAuditVerify(a *app) *cobra.Command {
	var genesisFile, domain string
	cmd := &cobra.Command{
		Use:   "verify --genesis FILE DIR|FILE...",
		Short: "Check that nothing in a trail was changed, dropped or added",
		Long: `verify recomputes the chain over the entries of each instance of the core and
checks the signatures under the domain's key. It names the first bad entry. What
files alone cannot show, that a trail was cut at its end, the report says.

The genesis file names the domain's key. Whoever can replace both the file and
the trail can replace the domain: --domain pins the id that you know.

Exit code 0: nothing is wrong. A file that ends within an entry, as a crash
leaves it, is reported and accepted. Zeros at the end of a file, which it has
while it is in use, are not reported. Entries that are missing are gaps, which a
manager that was killed while its core went on leaves as well.`,
		Example: `  ehsm audit verify --genesis ~/.local/state/ehsm/domain/genesis.json trail/
  ehsm audit verify --genesis genesis.json --domain 9a31...f0 --output json *.trail`,
		Args: args(1, -1),
		RunE: func(cmd *cobra.Command, paths []string) error {
			if genesisFile == "" {
				return withHint(usagef("no --genesis"), "genesis.json is in the domain directory of a node")
			}
			return a.verifyTrail(genesisFile, domain, paths)
		},
	}
	cmd.Flags().StringVar(&genesisFile, "genesis", "", "`file` with the first statement of the domain")
	cmd.Flags().StringVar(&domain, "domain", "", "`id` that the domain must have, in hex")
	return cmd
}

func (a *app) verifyTrail(genesisFile, domain string, paths []string) error {
	b, err := os.ReadFile(genesisFile)
	if err != nil {
		return err
	}
	state, err := manifest.Open(b)
	if err != nil {
		return fmt.Errorf("read %s: %w", genesisFile, err)
	}
	id := state.Domain
	if domain != "" && !strings.EqualFold(domain, id.String()) {
		return fmt.Errorf("%s is of the domain %s, want %s", genesisFile, id, domain)
	}
	files, closeAll, err := openTrail(paths)
	if err != nil {
		return err
	}
	defer closeAll()
	report := trail.Verify(files, state.DomainKey, id)
	if err := a.emit(verifiedOf(id, &report), reportText(id, &report)); err != nil {
		return err
	}
	missing, bad := 0, badFindings(&report)
	for i := range report.Instances {
		missing += len(report.Instances[i].Gaps)
	}
	switch {
	case bad > 0 && bad == missing:
		return fmt.Errorf("the trail is not complete: %d gaps, and nothing else is wrong", missing)
	case bad > 0:
		return fmt.Errorf("the trail is not intact: %d findings", bad)
	}
	return nil
}

// openTrail opens the files that are named, and those named *.trail in the
// directories that are.
func openTrail(paths []string) (files []trail.File, closeAll func(), err error) {
	var names []string
	for _, p := range paths {
		info, err := os.Stat(p)
		switch {
		case err != nil:
			return nil, nil, err
		case !info.IsDir():
			names = append(names, p)
			continue
		}
		found, err := filepath.Glob(filepath.Join(globQuote(p), "*.trail"))
		if err != nil {
			return nil, nil, err
		}
		names = append(names, found...)
	}
	if len(names) == 0 {
		return nil, nil, fmt.Errorf("no *.trail files in %s", strings.Join(paths, ", "))
	}
	slices.Sort(names)
	names = slices.Compact(names)
	var open []*os.File
	closeAll = func() {
		for _, f := range open {
			f.Close()
		}
	}
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		open = append(open, f)
		info, err := f.Stat()
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		files = append(files, trail.File{Name: name, Data: f, Size: info.Size()})
	}
	return files, closeAll, nil
}

// globQuote makes a path match itself only.
func globQuote(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// badFindings counts what is wrong beyond a torn end.
func badFindings(r *trail.Report) (n int) {
	count := func(f trail.Findings) {
		for _, x := range f.List {
			if x.Problem != trail.Torn {
				n++
			}
		}
		n += f.More
	}
	for i := range r.Instances {
		n += len(r.Instances[i].Gaps)
		count(r.Instances[i].Findings)
	}
	count(r.Unplaced)
	return n
}

// reportText renders a report for people.
func reportText(domain genesis.ID, r *trail.Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "domain %s\n", domain)
	for i := range r.Instances {
		in := &r.Instances[i]
		state := "intact"
		if len(in.Gaps) > 0 || len(in.Findings.List) > 0 {
			state = "see below"
		}
		fmt.Fprintf(&b, "instance %s on %s: %d entries from %s to %s: %s\n", in.ID, cmp.Or(in.Platform, "unknown platform"),
			in.Entries, stamp(in.FirstTime), stamp(in.LastTime), state)
		fmt.Fprintf(&b, "  %s\n", in.Ending())
		for _, g := range in.Gaps {
			fmt.Fprintf(&b, "  %s\n", g)
		}
		writeFindings(&b, in.Findings)
	}
	writeFindings(&b, r.Unplaced)
	return b.String()
}

func writeFindings(b *strings.Builder, f trail.Findings) {
	for _, x := range f.List {
		fmt.Fprintf(b, "  %s\n", x)
	}
	if f.More > 0 {
		fmt.Fprintf(b, "  and %d more\n", f.More)
	}
}

func stamp(micros int64) string {
	return time.UnixMicro(micros).UTC().Format("2006-01-02T15:04:05.000000Z")
}

// verified is a report in JSON.
type verified struct {
	Domain    string             `json:"domain"`
	Intact    bool               `json:"intact"` // a torn end is
	Instances []verifiedInstance `json:"instances"`
	Unplaced  []string           `json:"unplaced,omitempty"`
}

type verifiedInstance struct {
	Instance string   `json:"instance"`
	Platform string   `json:"platform"`
	Endorsed bool     `json:"endorsed"`
	Entries  uint64   `json:"entries"`
	First    uint64   `json:"first"`
	Last     uint64   `json:"last"`
	From     string   `json:"from"`
	To       string   `json:"to"`
	Signed   uint64   `json:"signed"`
	Unsigned uint64   `json:"unsigned"`
	Ending   string   `json:"ending"`
	Gaps     []string `json:"gaps,omitempty"`
	Findings []string `json:"findings,omitempty"`
}

func verifiedOf(domain genesis.ID, r *trail.Report) verified {
	v := verified{Domain: domain.String(), Intact: badFindings(r) == 0, Instances: []verifiedInstance{}, Unplaced: texts(r.Unplaced.List)}
	for i := range r.Instances {
		in := &r.Instances[i]
		v.Instances = append(v.Instances, verifiedInstance{
			Instance: in.ID.String(), Platform: in.Platform, Endorsed: in.Endorsed, Entries: in.Entries, First: in.First, Last: in.Last,
			From: stamp(in.FirstTime), To: stamp(in.LastTime), Signed: in.Signed, Unsigned: in.Unsigned,
			Ending: in.Ending(), Gaps: texts(in.Gaps), Findings: texts(in.Findings.List),
		})
	}
	return v
}

func texts[T fmt.Stringer](list []T) (out []string) {
	for _, x := range list {
		out = append(out, x.String())
	}
	return out
}
