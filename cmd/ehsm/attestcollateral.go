package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/client/ehsm"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/host/collateral"
)

func newAttestCollateral(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "collateral",
		Short: "Fetch, read and carry what Intel says of a kind of machine",
		Long: `Collateral is what a quote is verified with: Intel's statements about a kind of
machine (its FMSPC) and the lists of what Intel has revoked. All of it is signed,
so that it does not matter who carries it. It is in force for about a month.

A file of it is JSON as verifiers commonly exchange it, or a bundle of ours, for
several kinds of machines, which a service takes where it cannot reach Intel.`,
		Example: `  ehsm attest collateral fetch --quote quote.bin -o collateral.json
  ehsm attest collateral show collateral.json`,
	}, newCollateralFetch(a), newCollateralShow(a), newCollateralImport(a), newCollateralExport(a))
}

// Forms of collateral in files.
const (
	formJSON   = "json"   // of one kind of machine, as verifiers exchange it
	formBundle = "bundle" // of any number; docs/formats.md#collateral-bundle-v1
)

// A pick says of which kind of machine collateral is wanted.
type pick struct{ quote, fmspc, ca string }

func (p *pick) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.quote, "quote", "", "`file` with a quote of such a machine")
	cmd.Flags().StringVar(&p.fmspc, "fmspc", "", "kind of the machine, 12 hex `digits`; ehsm attest show prints it")
	cmd.Flags().StringVar(&p.ca, "ca", "", "CA of its PCK certificate, `processor or platform`")
}

// query reads the quote or the two flags. No flag at all is no error: ok is
// false then.
func (a *app) query(ctx context.Context, p pick) (q verify.Query, ok bool, err error) {
	switch {
	case p == pick{}:
		return q, false, nil
	case p.quote != "" && p.fmspc+p.ca != "":
		return q, false, usagef("--quote and --fmspc exclude each other")
	case p.quote != "":
		b, err := a.readLimited(ctx, p.quote, maxQuoteFile)
		if err != nil {
			return q, false, err
		}
		if q, err = verify.QueryOf(quoteBytes(b)); err != nil {
			return q, false, withHint(fmt.Errorf("read %s: %s", p.quote, printable(err.Error())), attestHint(verify.StepParse.String(), err))
		}
		return q, true, nil
	}
	b, err := hex.DecodeString(p.fmspc)
	if err != nil || len(b) != len(q.FMSPC) {
		return q, false, withHint(usagef("--fmspc is %q, want 12 hex digits", p.fmspc), "ehsm attest show QUOTE prints it")
	}
	if p.ca != verify.CAProcessor && p.ca != verify.CAPlatform {
		return q, false, withHint(usagef("--ca is %q, want processor or platform", p.ca), "ehsm attest show QUOTE prints it; servers with several processors have platform")
	}
	return verify.Query{FMSPC: [6]byte(b), CA: p.ca}, true, nil
}

// A sourceFlags names where collateral is fetched.
type sourceFlags struct {
	pccs, caFile, apiKeyFile string
	early                    bool
}

// source returns the service that the flags name: a PCCS, or Intel's.
func (f sourceFlags) source() (s *collateral.Service, name string, err error) {
	o := collateral.ServiceOptions{URL: f.pccs, CAFile: f.caFile, APIKeyFile: f.apiKeyFile, Early: f.early}
	if f.pccs != "" {
		s, err = collateral.NewPCCS(o)
		name = f.pccs
	} else {
		s, err = collateral.NewPCS(o)
		name = collateral.IntelPCS
	}
	if err != nil {
		return nil, name, usageError{err}
	}
	return s, name, nil
}

func newCollateralFetch(a *app) *cobra.Command {
	var p pick
	var f sourceFlags
	var form, out string
	var service bool
	cmd := &cobra.Command{
		Use:   "fetch (--quote FILE | --fmspc HEX --ca CA | --service) -o FILE",
		Short: "Fetch collateral from Intel, a PCCS, or a service of ours",
		Long: `fetch asks the caching service (PCCS) of --pccs, or Intel's own service, which
needs no key, for the collateral of one kind of machine. With --service it asks
the eHSM-KMS of --url or your profile for that of its own machine. What comes
must parse and be of that kind; whether it is Intel's is for "attest verify" to
say.

A PCCS often has a certificate of its own making: --ca-file names it. The file is
JSON if its name ends in .json or with --format json, and a bundle otherwise.`,
		Example: `  ehsm attest collateral fetch --quote quote.bin -o collateral.json
  ehsm attest collateral fetch --service -o collateral.json
  ehsm attest collateral fetch --fmspc 00606a000000 --ca platform \
      --pccs https://localhost:8081 --ca-file pccs.pem -o machines.bundle`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if service {
				if p != (pick{}) || f != (sourceFlags{}) {
					return usagef("--service excludes --quote, --fmspc, --ca and the flags of other sources")
				}
				return a.fetchOwn(cmd.Context(), form, out)
			}
			f.caFile = a.caFile
			return a.fetchCollateral(cmd.Context(), p, f, form, out)
		},
	}
	p.flags(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&service, "service", false, "ask the service of --url or the profile for its own")
	flags.StringVar(&f.pccs, "pccs", "", "`URL` of a caching service to ask instead of Intel's")
	flags.StringVar(&f.apiKeyFile, "api-key-file", "", "`file` with a subscription key of Intel's service, if you have one")
	flags.BoolVar(&f.early, "early", false, "what Intel publishes early, before operators had time to update machines")
	addFormFlags(cmd, &form, &out)
	return cmd
}

func addFormFlags(cmd *cobra.Command, form, out *string) {
	cmd.Flags().StringVar(form, "format", "", "form of the file, `json or bundle`")
	cmd.Flags().StringVarP(out, "out", "o", "", "write to a `file`, complete or not at all, instead of standard output")
}

func (a *app) fetchCollateral(ctx context.Context, p pick, f sourceFlags, form, out string) error {
	q, ok, err := a.query(ctx, p)
	if err != nil {
		return err
	}
	if !ok {
		return withHint(usagef("of which machine? neither --quote nor --fmspc, nor --service"), "ehsm attest show QUOTE prints FMSPC and CA of a machine")
	}
	if form, err = chooseForm(form, out); err != nil {
		return err
	}
	source, name, err := f.source()
	if err != nil {
		return err
	}
	c, err := source.Fetch(ctx, q)
	if err != nil {
		return withHint(fmt.Errorf("ask %s: %s", name, printable(err.Error())), fetchHint(err, f.pccs != ""))
	}
	return a.writeCollateral([]verify.Collateral{c}, form, out)
}

// fetchOwn asks the service of the settings for the collateral of its machine.
func (a *app) fetchOwn(ctx context.Context, form, out string) error {
	form, err := chooseForm(form, out)
	if err != nil {
		return err
	}
	client, err := a.plainClient()
	if err != nil {
		return err
	}
	defer client.Close()
	b, err := client.Collateral(ctx)
	if errors.Is(err, ehsm.ErrNoCollateral) {
		return withHint(err, hintOwn)
	}
	if err != nil {
		return err
	}
	all, err := collateral.Decode(b)
	if err != nil {
		return withHint(fmt.Errorf("read the collateral of the service: %s", printable(err.Error())), "is that the address of an eHSM-KMS?")
	}
	return a.writeCollateral(all, form, out)
}

const hintOwn = "have its operator configure a source of collateral, and look at its log; or fetch it from Intel or a PCCS"

// fetchHint says what to do if collateral was not to be had.
func fetchHint(err error, pccs bool) string {
	var status *collateral.StatusError
	switch {
	case errors.Is(err, collateral.ErrUnknownPlatform) && pccs:
		return "is the machine registered with this PCCS? or leave out --pccs to ask Intel"
	case errors.Is(err, collateral.ErrUnknownPlatform):
		return "Intel knows no such machine: look at the FMSPC again; machines of pre-production have none"
	case errors.As(err, &status) && status.Code == 401:
		return "the service wants a subscription key: --api-key-file"
	case errors.As(err, &status) && (status.Code == 429 || status.Code >= 500):
		return "the service is busy or broken: try again later"
	case errors.Is(err, collateral.ErrAnswer):
		return "does a proxy or a portal answer in place of the service? try the address in a browser"
	case hintFor(err) != "" && pccs: // of TLS and of dialing
		return "is that the address of the PCCS, and --ca-file the certificate that it shows?"
	}
	return "can this machine reach the service? behind a proxy set HTTPS_PROXY; without a way to it, fetch elsewhere and carry the file here"
}

// chooseForm returns the form of a file: the one asked for, or that of its name.
func chooseForm(form, out string) (string, error) {
	if form == "" {
		form = formBundle
		if strings.HasSuffix(out, ".json") || out == "" || out == stdio {
			form = formJSON
		}
	}
	if form != formJSON && form != formBundle {
		return "", usagef("--format is %q, want json or bundle", form)
	}
	return form, nil
}

// writeCollateral writes a file, or standard output, and says what is in it.
func (a *app) writeCollateral(all []verify.Collateral, form, out string) error {
	b, err := encodeCollateral(all, form)
	if err != nil {
		return err
	}
	if err := a.write(out, func(w io.Writer) error { _, err := w.Write(b); return err }); err != nil {
		return err
	}
	if out == "" || out == stdio {
		return nil
	}
	views, err := collateralViews(all, time.Now())
	if err != nil {
		return err
	}
	return a.emit(struct {
		File     string           `json:"file"`
		Format   string           `json:"format"`
		Machines []collateralView `json:"machines"`
	}{out, form, views}, collateralText(views))
}

func encodeCollateral(all []verify.Collateral, form string) ([]byte, error) {
	if form == formBundle {
		return collateral.EncodeBundle(all)
	}
	if len(all) != 1 {
		return nil, usagef("got collateral of %d kinds of machines, and JSON holds that of one", len(all))
	}
	b, err := all[0].EncodeJSON()
	return append(b, '\n'), err
}

// collateralIn reads a file with collateral in any form.
func (a *app) collateralIn(ctx context.Context, path string) ([]verify.Collateral, error) {
	b, err := a.readLimited(ctx, path, collateral.MaxBundleFile)
	if err != nil {
		return nil, err
	}
	all, err := collateral.Decode(b)
	if err != nil { // the text may quote the file, which nobody vouches for
		hint := "want collateral as JSON, or a bundle: ehsm attest collateral fetch makes both"
		if errors.Is(err, verify.ErrDocumentID) {
			hint = "of collateral for TDX only ehsm attest verify and show make use; these commands are for that of SGX"
		}
		return nil, withHint(fmt.Errorf("read %s: %s", path, printable(err.Error())), hint)
	}
	return all, nil
}

func newCollateralShow(a *app) *cobra.Command {
	var at string
	cmd := &cobra.Command{
		Use:   "show FILE",
		Short: "Show what a file of collateral is for, and how long it lasts",
		Long: `show prints for each kind of machine in a file the number of Intel's evaluation
(it grows with each TCB recovery), when each part was issued, until when it is in
force, and which part ends first. It checks no signatures: "attest verify" does.`,
		Example: `  ehsm attest collateral show collateral.json
  ehsm attest collateral show machines.bundle --output json`,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			now, err := parseAt(at)
			if err != nil {
				return err
			}
			all, err := a.collateralIn(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			views, err := collateralViews(all, now)
			if err != nil {
				return err
			}
			return a.emit(views, collateralText(views))
		},
	}
	cmd.Flags().StringVar(&at, "at", "", "`time` from which to count the days left instead of now")
	return cmd
}

func newCollateralImport(a *app) *cobra.Command {
	var bundle string
	cmd := &cobra.Command{
		Use:   "import FILE... --into BUNDLE",
		Short: "Put collateral into a bundle for services that cannot reach Intel",
		Long: `import adds the collateral of every file, in any form, to a bundle, which it makes
if there is none. Collateral of a machine that the bundle has already takes its
place, unless it is older: that is refused, as it would undo a TCB recovery.

A service reads the bundle that its settings name again when it refreshes; see
docs/attestation.md.`,
		Example: "  ehsm attest collateral import collateral.json --into machines.bundle",
		Args:    args(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if bundle == "" {
				return usagef("no --into")
			}
			return a.importCollateral(cmd.Context(), args, bundle)
		},
	}
	cmd.Flags().StringVar(&bundle, "into", "", "`file` of the bundle")
	return cmd
}

func (a *app) importCollateral(ctx context.Context, paths []string, bundle string) error {
	held := map[string]verify.Collateral{}
	if _, err := os.Stat(bundle); err == nil {
		paths = append([]string{bundle}, paths...)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, path := range paths {
		all, err := a.collateralIn(ctx, path)
		if err != nil {
			return err
		}
		for _, c := range all {
			name, err := newerThan(c, held)
			if err != nil {
				return withHint(fmt.Errorf("import %s: %w", path, err), "if that is what you want, remove "+bundle+" first")
			}
			held[name] = c
		}
	}
	all := make([]verify.Collateral, 0, len(held))
	for _, c := range held {
		all = append(all, c)
	}
	return a.writeCollateral(all, formBundle, bundle)
}

// newerThan refuses collateral that is older, in any of its parts, than what is
// held for the same kind of machine. It returns the name of that kind.
func newerThan(c verify.Collateral, held map[string]verify.Collateral) (string, error) {
	contents, err := c.Contents()
	if err != nil {
		return "", err
	}
	name := collateral.Format(contents.Query)
	old, ok := held[name]
	if !ok {
		return name, nil
	}
	was, err := old.Contents()
	if err != nil {
		return "", err
	}
	before, after := editions(&was), editions(&contents)
	for i, e := range after {
		if e.Evaluation < before[i].Evaluation || e.Issued.Before(before[i].Issued) {
			return "", fmt.Errorf("its %s for %s is of %s, older than what the bundle has, of %s", e.name, name, instant(e.Issued), instant(before[i].Issued))
		}
	}
	return name, nil
}

func newCollateralExport(a *app) *cobra.Command {
	var p pick
	var form, out string
	cmd := &cobra.Command{
		Use:   "export FILE -o FILE",
		Short: "Take the collateral of one kind of machine out of a file, as JSON",
		Long: `export writes the collateral of one kind of machine, which --quote or --fmspc and
--ca name if the file has several, in the form that other verifiers read.`,
		Example: `  ehsm attest collateral export machines.bundle --quote quote.bin -o collateral.json
  ehsm attest collateral export collateral.json --format bundle -o machine.bundle`,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.exportCollateral(cmd.Context(), args[0], p, cmp.Or(form, formJSON), out)
		},
	}
	p.flags(cmd)
	addFormFlags(cmd, &form, &out)
	return cmd
}

func (a *app) exportCollateral(ctx context.Context, path string, p pick, form, out string) error {
	form, err := chooseForm(form, out)
	if err != nil {
		return err
	}
	all, err := a.collateralIn(ctx, path)
	if err != nil {
		return err
	}
	q, ok, err := a.query(ctx, p)
	if err != nil {
		return err
	}
	if !ok && len(all) != 1 {
		return withHint(usagef("%s has collateral of %d kinds of machines", path, len(all)), "name one with --fmspc and --ca, or --quote")
	}
	if ok {
		if all, err = choose(all, q); err != nil {
			return withHint(fmt.Errorf("read %s: %w", path, err), "ehsm attest collateral show "+shellWord(path))
		}
	}
	return a.writeCollateral(all, form, out)
}

// choose returns the collateral for q among several.
func choose(all []verify.Collateral, q verify.Query) ([]verify.Collateral, error) {
	i := slices.IndexFunc(all, func(c verify.Collateral) bool {
		contents, err := c.Contents()
		return err == nil && contents.Query == q
	})
	if i < 0 {
		return nil, fmt.Errorf("%w: %s", collateral.ErrUnknownPlatform, collateral.Format(q))
	}
	return all[i : i+1], nil
}

// chooseFor returns the collateral for a quote from a bundle. If that of one
// machine is all there is, it is for the verification to refuse it.
func chooseFor(all []verify.Collateral, quote []byte, path string) (*verify.Collateral, error) {
	if len(all) == 1 {
		return &all[0], nil
	}
	q, err := verify.QueryOf(quote)
	if err == nil {
		all, err = choose(all, q)
	}
	if err != nil {
		return nil, withHint(fmt.Errorf("read %s: %s", path, printable(err.Error())), "ehsm attest collateral fetch --quote QUOTE, then import")
	}
	return &all[0], nil
}
