package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

func newAttestShow(a *app) *cobra.Command {
	var f evidenceFlags
	cmd := &cobra.Command{
		Use:   "show FILE",
		Short: "Show what a quote says, and with collateral its TCB status",
		Long: `show prints the enclave, the machine and the quoting enclave of an SGX quote, or
what a TDX quote or a SEV-SNP report says. The file may be binary or hex digits.
Without --collateral that is only what the file says of itself: anybody can write
such a file.

With --collateral the quote is verified as "attest verify" does it without a
policy, and the TCB status and advisories are shown. Exit code 1: it did not
verify.`,
		Example: `  ehsm attest show quote.bin
  ehsm attest show quote.bin --collateral collateral.json --at 2025-06-25 --output json`,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := a.readEvidence(cmd.Context(), args[0], f)
			if err != nil {
				return err
			}
			v := judge(e)
			if v.Quote == nil && v.Guest == nil { // nothing to show
				return v.err()
			}
			v.Wanted = nil
			return a.emitVerdict(v)
		},
	}
	addEvidenceFlags(cmd, &f)
	return cmd
}

func newAttestVerify(a *app) *cobra.Command {
	var f serviceFlags
	var address string
	cmd := &cobra.Command{
		Use:   "verify [FILE --collateral BUNDLE]",
		Short: "Check that a service or a quote is genuine, and one that you want",
		Long: `verify answers two questions, one after the other, about the service of --url or
of your profile, or about an SGX quote, a TDX quote or a SEV-SNP report in a file:

genuine: did a quoting enclave on a machine, both of which Intel vouches for,
  sign it? Checked are all certificates, CRLs, signatures and dates. Of a SEV-SNP
  report: did a chip that AMD vouches for sign it? Its collateral is PEM: VCEK,
  ASK, ARK and the CRL of the ARK.
wanted: does the policy accept this enclave or guest, on this machine, with this
  TCB status? Without --policy that is not asked, and the exit code is that of the
  first question; but an SGX enclave or a service in debug mode is refused, as
  only a policy that says so accepts one. Grace periods of a policy are for machines
  that a service has admitted before; here a machine is judged as a new one.

A service is asked with a fresh challenge, without credentials and before anything
secret is sent to it; --domain says whose keys it must have. What it answers with
must be made for this challenge. Collateral is asked of it too, as all of that is
signed, unless --collateral names a file. With --pin, a service of your profile that policy
and domain accept is remembered with both: from then on requests are encrypted to
cores that they accept, so that the host of the service does not read them.

--tls judges the certificate that a service shows (RA-TLS). Only a service that is in a
guest as a whole has evidence in it; its TLS then ends where its keys are.

An enclave binds 64 bytes of its own, REPORTDATA, into its quote: that is what
makes it fresh, and of the peer that one talks to. Of a file, --report-data
compares them.

Exit code 0: yes to all that was asked.`,
		Example: `  ehsm attest verify --allow-sim                      # of ehsm dev
  ehsm attest verify --url https://kms.example:9000 --policy policy.json --domain $DOMAIN
  ehsm attest verify --policy policy.json --domain $DOMAIN --pin
  ehsm attest verify quote.bin --collateral collateral.json --policy policy.json
  ehsm attest verify quote.hex --collateral bundle.bin --at 2025-06-25 --output json`,
		Args: args(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.pin && len(args) != 0 {
				return usagef("--pin is for services")
			}
			if address != "" && len(args) != 0 {
				return usagef("--tls is for services")
			}
			if address != "" {
				return a.verifyTLS(cmd.Context(), address, f)
			}
			if len(args) == 0 {
				return a.verifyService(cmd.Context(), f)
			}
			return a.verifyFile(cmd.Context(), args[0], f)
		},
	}
	addEvidenceFlags(cmd, &f.evidenceFlags)
	cmd.Flags().StringVar(&f.policy, "policy", "", "`file` that says what is wanted; docs/formats.md#attestation-policy-v1")
	cmd.Flags().StringVar(&f.reportData, "report-data", "", "`bytes` that the quote must bind, 128 hex digits")
	cmd.Flags().StringVar(&f.domain, "domain", "", "`id` that the service's domain must have, 64 hex digits")
	cmd.Flags().BoolVar(&f.allowSim, "allow-sim", false, "accept a simulated platform, which protects nothing, for tests")
	cmd.Flags().StringVar(&address, "tls", "", "`URL` of a service whose TLS ends in the TEE: judge the evidence in its certificate, in the handshake")
	cmd.Flags().BoolVar(&f.pin, "pin", false, "keep domain and policy in the profile and seal its requests")
	return cmd
}

// verifyFile judges the quote in a file.
func (a *app) verifyFile(ctx context.Context, file string, f serviceFlags) error {
	switch {
	case f.collateral == "":
		return withHint(usagef("no --collateral"), "ehsm attest show FILE shows a quote without it")
	case f.reportData != "" && f.policy == "":
		return withHint(usagef("--report-data without --policy"), "it is a part of what is wanted")
	case f.domain != "":
		return withHint(usagef("--domain is for services"), "ehsm attest quote prints the REPORTDATA, which binds the domain; --report-data compares it")
	}
	e, err := a.readEvidence(ctx, file, f.evidenceFlags)
	if err != nil {
		return err
	}
	if f.allowSim {
		e.options.AllowSim = true
		if root := simulatedRoot(e.raw); root != nil && f.root == "" {
			e.options.Roots, e.rootName = []*x509.Certificate{root}, nameOfSimRoot
		}
	}
	return a.emitVerdict(judge(e))
}

func addEvidenceFlags(cmd *cobra.Command, f *evidenceFlags) {
	cmd.Flags().StringVar(&f.collateral, "collateral", "", "`file` with what Intel says of the machine, JSON or a bundle")
	cmd.Flags().StringVar(&f.root, "root", "", "PEM `file` of the roots to trust instead of Intel's")
	cmd.Flags().StringVar(&f.at, "at", "", "`time` for which to verify instead of now")
}

// Answers to the two questions.
const (
	answerYes     = "yes"
	answerNo      = "no"
	answerUnknown = "unknown" // of a kind that is not verified here, or not genuine
	answerUnasked = "not asked"
)

// A finding is the answer to one question. Unless it is yes, it has a reason.
type finding struct {
	Answer string `json:"answer"`
	Step   string `json:"step,omitempty"` // the check that failed
	Reason string `json:"reason,omitempty"`
	Hint   string `json:"hint,omitempty"`
}

// refusal makes the finding of a check that failed.
func refusal(answer, step string, err error) finding {
	return finding{Answer: answer, Step: step, Reason: printable(err.Error()), Hint: attestHint(step, err)}
}

// A verdict is what attest show and attest verify print.
type verdict struct {
	File     string     `json:"file"`
	At       time.Time  `json:"at"`
	Root     string     `json:"root"`
	Genuine  finding    `json:"genuine"`
	Wanted   *finding   `json:"wanted,omitempty"`
	Enclave  string     `json:"acceptedEnclave,omitempty"`  // entry of the policy
	Platform string     `json:"acceptedPlatform,omitempty"` // entry of the policy
	Compared bool       `json:"reportDataCompared"`
	Quote    *quoteView `json:"quote,omitempty"`
	Guest    *guestView `json:"guest,omitempty"` // instead of Quote, for TDX and SEV-SNP
	TCB      *tcbView   `json:"tcb,omitempty"`
}

// judge answers both questions as far as the evidence allows.
func judge(e *evidence) *verdict {
	if isGuest(e.raw) {
		return judgeGuest(e)
	}
	v := &verdict{File: e.file, At: e.options.Now, Root: e.rootName, Wanted: &finding{Answer: answerUnknown, Reason: "not shown to be genuine"}}
	if e.policy == nil {
		v.Wanted = &finding{Answer: answerUnasked, Reason: "no --policy"}
	}
	if err := foreign(e.raw); err != nil {
		v.Genuine = refusal(answerUnknown, verify.StepParse.String(), err)
		return v
	}
	var err error
	if v.Quote, err = quoteViewOf(e.raw); err != nil {
		v.Genuine = refusal(answerNo, verify.StepParse.String(), err)
		return v
	}
	if e.collateral == nil {
		v.Genuine = unverified()
		return v
	}
	r, err := verify.Verify(e.raw, *e.collateral, e.options)
	if err != nil {
		v.Genuine = notGenuine(err)
		if errors.Is(err, verify.ErrUnknownRoot) && !e.options.AllowSim && simulatedRoot(e.raw) != nil {
			v.Genuine.Hint = hintSimulated
		}
		return v
	}
	v.Genuine, v.TCB = finding{Answer: answerYes}, tcbViewOf(&r)
	switch {
	case e.policy != nil:
		v.want(e, &r)
	case r.Report.Attributes.Debug(): // a policy has to say that it accepts one
		v.decide("", "", validate.ErrDebug)
	}
	return v
}

func notGenuine(err error) finding {
	var e *verify.Error
	if !errors.As(err, &e) {
		return refusal(answerNo, "verify", err)
	}
	return refusal(answerNo, e.Step.String(), e.Err)
}

// want answers the second question about a genuine quote.
func (v *verdict) want(e *evidence, r *verify.Result) {
	in := validate.Input{Now: e.options.Now, ReportData: r.Report.ReportData} // equal to itself: not compared
	if e.reportData != nil {
		in.ReportData, v.Compared = *e.reportData, true
	}
	policy := *e.policy
	policy.AllowSim = e.options.AllowSim // the flag may have said so
	d, err := validate.Check(&policy, r, in)
	v.decide(d.Enclave, d.Platform, err)
}

// emitVerdict prints a verdict and returns the error that it means.
func (a *app) emitVerdict(v *verdict) error {
	if err := a.emit(v, v.text()); err != nil {
		return err
	}
	return v.err()
}

// err is nil if all that was asked was answered with yes.
func (v *verdict) err() error {
	failed := func(what string, f *finding) error {
		err := fmt.Errorf("%s: %s: %s", what, f.Step, f.Reason)
		if f.Hint == "" {
			return err
		}
		return withHint(err, f.Hint)
	}
	switch {
	case v.Genuine.Answer == answerUnknown:
		return failed("the evidence is not of a kind that is verified here", &v.Genuine)
	case v.Genuine.Answer == answerNo:
		return failed("the quote is not genuine", &v.Genuine)
	case v.Wanted != nil && v.Wanted.Answer == answerNo:
		return failed("the quote is genuine, but not wanted", v.Wanted)
	}
	return nil
}
