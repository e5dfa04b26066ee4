package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/client/ehsm"
	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/harden"
)

type doctorFlags struct {
	policy, root, domain, collateral, at string
	pccs, pccsCAFile                     string
	allowSim                             bool
	machine                              string // root directory of the machine's files, for tests
}

func newAttestDoctor(a *app) *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out what keeps a service from being accepted, and what to do",
		Long: `doctor walks the whole way from a machine to an accepted quote and says of each
step whether it is all right, and if not, what to do about it:

  this machine   which TEE it has; a client needs none
  service        is it reached, and does it prove what it runs on
  collateral     is what Intel says of its machine to be had, and until when
  verification   each check of the quote, in its order
  policy         do you want it
  outlook        when, if nothing is done, trouble will come

It asks the service of --url or of your profile, and stops at no problem unless
nothing further can be looked at. It judges as "attest verify" does, and is no
replacement for it in scripts: it looks at more, and says more.

Exit code 0: no problem found.`,
		Example: `  ehsm attest doctor
  ehsm attest doctor --url https://kms.example:9000 --policy policy.json
  ehsm attest doctor --allow-sim                         # of ehsm dev
  ehsm attest doctor --pccs https://localhost:8081 --pccs-ca-file pccs.pem`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd.Context(), f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.policy, "policy", "", "`file` that says what is wanted; docs/formats.md#attestation-policy-v1")
	flags.StringVar(&f.root, "root", "", "PEM `file` of the roots to trust instead of Intel's")
	flags.StringVar(&f.domain, "domain", "", "`id` that the service's domain must have, 64 hex digits")
	flags.StringVar(&f.collateral, "collateral", "", "`file` of collateral to use instead of the service's")
	flags.StringVar(&f.pccs, "pccs", "", "`URL` of a caching service to ask for collateral instead")
	flags.StringVar(&f.pccsCAFile, "pccs-ca-file", "", "PEM `file` of the roots that vouch for that service")
	flags.BoolVar(&f.allowSim, "allow-sim", false, "accept a simulated platform, which protects nothing, for tests")
	flags.StringVar(&f.at, "at", "", "`time` for which to judge instead of now")
	flags.StringVar(&f.machine, "machine", "/", "root `directory` of the files of the machine")
	flags.MarkHidden("machine")
	return cmd
}

// A diagnosis is what doctor found.
type diagnosis struct {
	URL      string    `json:"url,omitempty"`
	At       time.Time `json:"at"`
	Problems int       `json:"problems"`
	Sections []section `json:"sections"`
}

func (a *app) doctor(ctx context.Context, f doctorFlags) error {
	now, err := parseAt(f.at)
	if err != nil {
		return err
	}
	if f.collateral != "" && f.pccs != "" {
		return usagef("--collateral and --pccs exclude each other")
	}
	d := &doctor{app: a, flags: f, now: now}
	d.add("this machine", append(machine{f.machine}.detect(), kernelProtection(harden.Probe())))
	d.add("service", d.service(ctx))
	d.add("collateral", d.fetch(ctx))
	d.readPolicy(ctx)
	d.add("verification", d.verify(ctx))
	d.add("policy", d.policyChecks())
	d.add("outlook", d.outlook())
	out := diagnosis{URL: d.url, At: now, Sections: d.sections, Problems: count(d.sections, stateProblem)}
	if err := a.emit(out, out.text()); err != nil {
		return err
	}
	if out.Problems > 0 {
		return withHint(fmt.Errorf("%d of %d checks found a problem", out.Problems, out.checks()), "the lines above marked -> say what to do; the first problem may be the cause of later ones")
	}
	return nil
}

func (d *diagnosis) checks() (n int) {
	for _, s := range d.Sections {
		n += len(s.Checks)
	}
	return n
}

func (d *diagnosis) text() string {
	var b strings.Builder
	for i := range d.Sections {
		if i > 0 {
			b.WriteString("\n")
		}
		d.Sections[i].write(&b)
	}
	return b.String()
}

// A doctor is one walk. What a step could not find out is nil for later ones.
type doctor struct {
	app      *app
	flags    doctorFlags
	now      time.Time
	sections []section

	url       string
	client    *ehsm.Client
	kind      attest.Kind
	evidence  *evidence         // of the service, and what it is judged by
	simRoot   *x509.Certificate // that it names, if it is simulated
	contents  *verify.Contents  // of the collateral for SGX
	warnings  []string          // of the policy
	policyErr error
	verdict   *verdict
}

func (d *doctor) add(name string, checks []check) {
	d.sections = append(d.sections, section{name, checks})
}
