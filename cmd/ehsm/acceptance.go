package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/acceptance"
	judging "github.com/ehsm-kms/ehsm/internal/attest/acceptance/judge"
	"github.com/ehsm-kms/ehsm/internal/attest/acceptance/speed"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// acceptanceFlags are those of attest acceptance.
type acceptanceFlags struct {
	core       acceptedCore
	each       time.Duration
	memory     int
	nonce, out string
	check, at  string // of a report that is there

	collateral, policy, root string
	source                   sourceFlags
	allowSim                 bool
	minRatio                 float64
}

func newAttestAcceptance(a *app) *cobra.Command {
	var f acceptanceFlags
	cmd := &cobra.Command{
		Use:   "acceptance [flags] -- COMMAND...",
		Short: "Check whether a machine's TEE can carry a core, and report it",
		Long: `acceptance starts ehsm-core in the TEE twice with COMMAND, as it will be started
in service, and asks it to check itself and its platform: identity, randomness,
evidence, seal keys (the second start must get those of the first), local reports,
clock, memory and throughput. Outside it looks at devices, processor and firmware,
measures the same operations, and verifies the evidence with what the maker says of
the machine. The core opens no domain for this and holds no keys.

The report has all of it, with the machine's data, and is bound into the evidence
of the second start: who has the file can check it elsewhere with --check, and a
changed one is refused. It has no secrets in it; it names the machine (its PPID or
chip id). docs/hardware.md has the steps for each platform, and what comes out.

The directory --domain must be there and empty. An enclave reads the directory that
its configuration mounts, /var/lib/ehsm/domain.

Collateral for SGX comes from a PCCS, from Intel if neither --pccs nor --collateral
is given, or from a file; for TDX and SEV-SNP only from a file, which may as well be
given to --check later. Exit code 0: nothing failed.`,
		Example: `  ehsm attest acceptance -- gramine-sgx ehsm-core
  ehsm attest acceptance --pccs https://localhost:8081 --ca-file pccs.pem -- ego run ehsm-core
  EHSM_CORE_PLATFORM=tsm ehsm attest acceptance --domain "$(mktemp -d)" -- ./ehsm-core
  ehsm attest acceptance --check acceptance-report.json`,
		Args: args(0, -1),
		RunE: func(cmd *cobra.Command, command []string) error {
			f.core.command, f.source.caFile = command, a.caFile
			if f.check != "" {
				return a.checkAcceptance(cmd.Context(), f)
			}
			return a.accept(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.core.domain, "domain", "/var/lib/ehsm/domain", "empty `directory` that the core sees as its domain")
	flags.DurationVar(&f.core.timeout, "timeout", 10*time.Minute, "`time` after which a start has failed")
	flags.DurationVar(&f.each, "each", time.Second, "`time` to measure each operation, in the TEE and outside")
	flags.IntVar(&f.memory, "memory", 256, "`MiB` to fill in the TEE")
	flags.StringVar(&f.nonce, "nonce", "", "64 hex `digits` of whoever asked for the report; shows that it is not an old one")
	flags.StringVar(&f.out, "out", "acceptance-report.json", "`file` for the report")
	flags.StringVar(&f.check, "check", "", "judge the report in a `file` instead of making one")
	flags.StringVar(&f.at, "at", "", "`time` for which to verify instead of now, with --check")
	flags.StringVar(&f.collateral, "collateral", "", "`file` with what the maker says of the machine: JSON or a bundle; PEM for SEV-SNP")
	flags.StringVar(&f.source.pccs, "pccs", "", "`URL` of a caching service to ask instead of Intel's")
	flags.StringVar(&f.source.apiKeyFile, "api-key-file", "", "`file` with a subscription key of Intel's service, if you have one")
	flags.StringVar(&f.policy, "policy", "", "`file` that says what is wanted; docs/formats.md#attestation-policy-v1")
	flags.StringVar(&f.root, "root", "", "PEM `file` of the roots to trust instead of the maker's")
	flags.BoolVar(&f.allowSim, "allow-sim", false, "accept a simulated platform, to try the procedure")
	flags.Float64Var(&f.minRatio, "min-ratio", 0.5, "least throughput in the TEE, as a `part` of that outside")
	return cmd
}

// options reads the files that the judgement needs.
func (a *app) acceptanceOptions(ctx context.Context, f acceptanceFlags) (o judging.Options, err error) {
	o.AllowSim, o.MinRatio = f.allowSim, f.minRatio
	if o.Now, err = parseAt(f.at); err != nil {
		return o, err
	}
	if f.root != "" {
		if o.Roots, err = a.readRoots(ctx, f.root); err != nil {
			return o, err
		}
	}
	if f.collateral != "" {
		if o.Collateral, err = a.readLimited(ctx, f.collateral, verify.MaxBundle); err != nil {
			return o, err
		}
	}
	if f.policy != "" {
		if o.Policy, err = a.readLimited(ctx, f.policy, maxPolicy); err != nil {
			return o, err
		}
		if _, err := judging.PolicyKind(o.Policy); err != nil {
			return o, withHint(fmt.Errorf("read %s: %w", f.policy, err), "docs/formats.md#attestation-policy-v1 has an example")
		}
	}
	return o, nil
}

// nonceOf reads --nonce, or draws one.
func (f *acceptanceFlags) nonceOf() ([]byte, error) {
	if f.nonce == "" {
		b := make([]byte, acceptance.NonceSize)
		rand.Read(b) // never fails
		return b, nil
	}
	b, err := hex.DecodeString(f.nonce)
	if err != nil || len(b) != acceptance.NonceSize {
		return nil, usagef("--nonce is %q, want %d hex digits", f.nonce, 2*acceptance.NonceSize)
	}
	return b, nil
}

func (f *acceptanceFlags) validate() error {
	switch {
	case len(f.core.command) == 0:
		return withHint(usagef("no command that starts the core"), "ehsm attest acceptance -- gramine-sgx ehsm-core")
	case f.at != "":
		return usagef("--at without --check")
	case f.each <= 0 || f.each > acceptance.MaxEach:
		return usagef("--each is %v, want more than 0 and at most %v", f.each, acceptance.MaxEach)
	case f.memory < 1 || f.memory > acceptance.MaxMemory:
		return usagef("--memory is %d, want 1 to %d", f.memory, acceptance.MaxMemory)
	}
	return nil
}

// accept makes a report and judges it.
func (a *app) accept(ctx context.Context, f acceptanceFlags) error {
	if err := f.validate(); err != nil {
		return err
	}
	nonce, err := f.nonceOf()
	if err != nil {
		return err
	}
	o, err := a.acceptanceOptions(ctx, f)
	if err != nil {
		return err
	}
	r := &acceptance.Report{Format: acceptance.ReportFormat, Nonce: nonce, Host: machine{"/"}.facts()}
	r.Host.Version, r.Host.Command, r.Host.Domain = api.Version, f.core.command, f.core.domain
	q := &acceptance.Request{Format: acceptance.RequestFormat, Nonce: nonce, Each: f.each, Memory: f.memory}
	a.warn("first start: %s", strings.Join(f.core.command, " "))
	first, log, err := f.core.run(ctx, q)
	if errors.Is(err, errCore) {
		return a.emitNoStart(&r.Host, err, log)
	}
	if err != nil {
		return err
	}
	r.First, r.Host.Log = *first, log
	if err := a.lookOutside(ctx, f, r, o); err != nil {
		return err
	}
	a.warn("second start")
	q = &acceptance.Request{Format: acceptance.RequestFormat, Nonce: r.SecondNonce(), Seals: first.Result.Seals}
	second, log, err := f.core.run(ctx, q)
	if errors.Is(err, errCore) {
		return a.emitNoStart(&r.Host, fmt.Errorf("second start: %w", err), log)
	}
	if err != nil {
		return err
	}
	r.Second = *second
	if f.at == "" {
		o.Now = time.Now() // runs take minutes, and collateral may be fresher than the start
	}
	if err := a.write(f.out, func(w io.Writer) error { _, err := w.Write(r.Encode()); return err }); err != nil {
		return err
	}
	return a.emitAcceptance(f.out, r, judging.Report(r, o))
}

// lookOutside does, between the two starts, what the host does.
func (a *app) lookOutside(ctx context.Context, f acceptanceFlags, r *acceptance.Report, o judging.Options) (err error) {
	a.warn("throughput outside of the TEE")
	if r.Host.Outside, err = speed.Measure(ctx, f.each); err != nil {
		return fmt.Errorf("measure throughput: %w", err)
	}
	r.Host.Collateral = o.Collateral
	if len(o.Collateral) == 0 {
		b, err := a.acceptanceCollateral(ctx, f, r.First.Evidence)
		if err != nil { // the line genuine says what to do
			a.warn("collateral: %s", printable(err.Error()))
		}
		r.Host.Collateral = b
	}
	r.Host.Time = time.Now().UTC()
	return nil
}

// acceptanceCollateral fetches what Intel says of the machine.
func (a *app) acceptanceCollateral(ctx context.Context, f acceptanceFlags, evidence []byte) ([]byte, error) {
	switch attest.KindOf(evidence) {
	case attest.SGXQuote3:
	case attest.TDXQuote4, attest.TDXQuote5, attest.SNPReport:
		return nil, errors.New("that of TDX and SEV-SNP is not fetched; docs/hardware.md says where to get it for --collateral")
	default:
		return nil, errors.New("the core has no evidence to fetch it for")
	}
	q, err := verify.QueryOf(evidence)
	if err != nil {
		return nil, err
	}
	source, name, err := f.source.source()
	if err != nil {
		return nil, err
	}
	c, err := source.Fetch(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", name, err)
	}
	return c.Append(nil), nil
}

// checkAcceptance judges a report that somebody else may have made.
func (a *app) checkAcceptance(ctx context.Context, f acceptanceFlags) error {
	if len(f.core.command) > 0 {
		return usagef("--check starts nothing: leave out %q", f.core.command[0])
	}
	o, err := a.acceptanceOptions(ctx, f)
	if err != nil {
		return err
	}
	b, err := a.readLimited(ctx, f.check, acceptance.MaxReport)
	if err != nil {
		return err
	}
	r, err := acceptance.DecodeReport(b)
	if err != nil {
		return withHint(fmt.Errorf("read %s: %s", f.check, printable(err.Error())), "the file must be as ehsm attest acceptance wrote it")
	}
	lines := judging.Report(r, o)
	if f.nonce != "" {
		nonce, err := f.nonceOf()
		if err != nil {
			return err
		}
		lines = append(lines, judging.NonceLine(r, nonce))
	}
	return a.emitAcceptance(f.check, r, lines)
}
