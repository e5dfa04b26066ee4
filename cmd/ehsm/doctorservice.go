package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
	"github.com/ehsm-kms/ehsm/client/ehsm/attested"
	"github.com/ehsm-kms/ehsm/internal/attest"
	sgx "github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/attest/tdx"
	"github.com/ehsm-kms/ehsm/internal/host/collateral"
)

// What a service answered with, before anything of it is verified.
type served struct {
	client     *ehsm.Client
	evidence   attest.Evidence
	reportData [64]byte // that it must bind
	root       *x509.Certificate
}

// service calls the service and looks at the form of what it answers.
func (d *doctor) service(ctx context.Context) []check {
	client, c := d.connect()
	if client == nil {
		return []check{c}
	}
	all := []check{c}
	v, err := client.Version(ctx)
	if err != nil {
		return append(all, problem("reached", cmp.Or(hintFor(err), "is that the address of an eHSM-KMS?"), "%v", err))
	}
	all = append(all, passed("reached", "it says that it is version %s, commit %s", printable(v.Version), printable(cmp.Or(v.GitSHA, "unknown"))))
	return append(all, d.evidenceChecks(ctx, client)...)
}

// connect makes a client. It is nil if there is no usable address.
func (d *doctor) connect() (*ehsm.Client, check) {
	const name = "address"
	cfg, err := d.app.settings()
	if err == nil {
		var client *ehsm.Client
		if client, err = d.app.client(); err == nil {
			d.url = cfg.URL
			return client, passed(name, "%s", cfg.URL)
		}
	}
	var h hinted
	errors.As(err, &h)
	return nil, problem(name, cmp.Or(h.hint, hintFor(err), "see ehsm --help about settings"), "%v", err)
}

// evidenceChecks asks for evidence and keeps it if it can be read.
func (d *doctor) evidenceChecks(ctx context.Context, client *ehsm.Client) []check {
	const name = "evidence"
	var challenge [api.EvidenceChallenge]byte
	rand.Read(challenge[:])
	answer, err := client.Evidence(ctx, challenge)
	if err != nil {
		return []check{problem(name, "is the service of this version? does its platform make evidence (docs/platforms.md)? its log says more", "%v", err)}
	}
	e, err := attest.DecodeEvidenceOf(answer.Evidence, attest.SGXQuote3, attest.TDXQuote4, attest.TDXQuote5, attest.SNPReport)
	if err != nil {
		return []check{problem(name, "use an ehsm of the version of the service", "%s", printable(err.Error()))}
	}
	d.served = &served{client: client, evidence: e, root: simulatedRoot(e.Quote)}
	all := []check{passed(name, "%v, %d bytes", e.Kind, len(e.Quote))}
	if d.served.root != nil {
		all = append(all, d.simulated())
	}
	return append(all, d.binding(&answer, challenge[:]), d.domain(answer.DomainID))
}

// simulated says what a simulated platform means.
func (d *doctor) simulated() check {
	const name = "hardware"
	if d.flags.allowSim {
		return noted(name, "none: the platform is simulated, which --allow-sim accepts")
	}
	return problem(name, "ehsm dev and other services for tests do; --allow-sim accepts that, for tests only", "none: it runs on the simulated platform, where no hardware protects keys")
}

// binding recomputes what the evidence must bind.
func (d *doctor) binding(answer *api.GetEvidenceResult, challenge []byte) check {
	const name, do = "binding", "somebody answers with evidence that was made for another purpose: do not use this service"
	domain, err := attested.ParseDomain(answer.DomainID)
	if err != nil {
		return problem(name, do, "%v", err)
	}
	instance, err := hex.DecodeString(strings.ReplaceAll(answer.InstanceID, "-", ""))
	if err != nil || len(instance) != 16 {
		return problem(name, do, "instance id is %q, want a UUID", answer.InstanceID)
	}
	d.served.reportData = attest.ReportData(attest.UseInstance, domain, []byte(api.RoleCore), challenge, instance, answer.HPKEPublicKey)
	got, ok := reportDataOf(d.served.evidence)
	switch {
	case answer.Challenge != base64.RawURLEncoding.EncodeToString(challenge):
		return problem(name, do, "the answer is to another challenge")
	case !ok:
		return skipped(name, "the evidence cannot be read")
	case subtle.ConstantTimeCompare(got[:], d.served.reportData[:]) != 1:
		return problem(name, do, "it was not made for this challenge, domain, instance and key")
	}
	return passed(name, "made for a fresh challenge by instance %s", printable(answer.InstanceID))
}

// reportDataOf reads what evidence binds.
func reportDataOf(e attest.Evidence) (data [64]byte, ok bool) {
	const snpReportData = 0x50 // offset in AMD's ATTESTATION_REPORT
	switch e.Kind {
	case attest.SGXQuote3:
		if q, err := sgx.Parse(e.Quote); err == nil {
			return q.Report.ReportData, true
		}
	case attest.TDXQuote4, attest.TDXQuote5:
		if q, err := tdx.Parse(e.Quote); err == nil {
			return q.Report.ReportData, true
		}
	case attest.SNPReport:
		if len(e.Quote) >= snpReportData+len(data) {
			return [64]byte(e.Quote[snpReportData:]), true
		}
	}
	return data, false
}

func (d *doctor) domain(id string) check {
	const name = "domain"
	switch {
	case d.flags.domain == "":
		return noted(name, "%s, not compared: no --domain", printable(id))
	case !strings.EqualFold(d.flags.domain, id):
		return problem(name, "its keys are not those that you know: do not use this service, unless its operator says why", "it says %s, want %s", printable(id), d.flags.domain)
	}
	return passed(name, "%s, as expected", printable(id))
}

// fetch obtains collateral for the evidence and reads what it says of itself.
func (d *doctor) fetch(ctx context.Context) []check {
	const name = "source"
	if d.served == nil && d.flags.collateral == "" {
		return []check{skipped(name, "no evidence to fetch it for")}
	}
	if d.served != nil && d.served.evidence.Kind == attest.SNPReport {
		return []check{skipped(name, "SEV-SNP has none of this kind: ehsm attest verify judges such services")}
	}
	c, source, err := d.obtain(ctx)
	if err != nil {
		var h hinted
		errors.As(err, &h)
		return []check{problem(name, cmp.Or(h.hint, hintFor(err)), "%s: %s", source, printable(err.Error()))}
	}
	d.collateral = c
	all := []check{passed(name, "%s", source)}
	contents, err := c.Contents()
	if err != nil {
		return append(all, problem("contents", hintRefetch, "%s", printable(err.Error())))
	}
	d.contents = &contents
	return append(all, d.collateralChecks(&contents)...)
}

// obtain reads collateral from where the flags say, or asks the service.
func (d *doctor) obtain(ctx context.Context) (c *verify.Collateral, source string, err error) {
	var quote []byte
	if d.served != nil {
		quote = d.served.evidence.Quote
	}
	switch {
	case d.flags.collateral != "":
		c, err = d.app.readCollateral(ctx, d.flags.collateral, quote)
		return c, d.flags.collateral, err
	case d.flags.pccs != "":
		c, err = d.askPCCS(ctx, quote)
		return c, d.flags.pccs, err
	}
	b, err := d.served.client.Collateral(ctx)
	if err != nil {
		return nil, "the service", withHint(err, "have its operator configure a source of collateral, and look at its log; or use --pccs or --collateral")
	}
	got, err := verify.DecodeCollateralJSON(b)
	return &got, "the service, which need not be trusted for it", err
}

func (d *doctor) askPCCS(ctx context.Context, quote []byte) (*verify.Collateral, error) {
	q, err := verify.QueryOf(quote)
	if err != nil {
		return nil, err
	}
	s, err := collateral.NewPCCS(collateral.ServiceOptions{URL: d.flags.pccs, CAFile: d.flags.pccsCAFile})
	if err != nil {
		return nil, err
	}
	c, err := s.Fetch(ctx, q)
	return &c, withHint(err, fetchHint(err, true))
}

// verify judges the evidence and shows each step.
func (d *doctor) verify(ctx context.Context) []check {
	switch {
	case d.served == nil:
		return []check{skipped("genuine", "no evidence")}
	case d.collateral == nil:
		return []check{skipped("genuine", "no collateral")}
	}
	e := &evidence{file: d.url, raw: d.served.evidence.Quote, collateral: d.collateral, policy: d.policy, reportData: &d.served.reportData}
	e.rootName, e.options.Now, e.options.AllowSim = "Intel's SGX root CA", d.now, d.flags.allowSim || d.policy != nil && d.policy.AllowSim
	e.options.Roots = []*x509.Certificate{verify.IntelRoot()}
	switch {
	case d.flags.root != "":
		roots, err := d.app.readRoots(ctx, d.flags.root)
		if err != nil {
			return []check{problem("root", "name a PEM file of the certificates to trust", "%v", err)}
		}
		e.options.Roots, e.rootName = roots, d.flags.root
	case d.served.root != nil && e.options.AllowSim:
		e.options.Roots, e.rootName = []*x509.Certificate{d.served.root}, "the simulated root that it names itself"
	}
	d.verdict = judge(e)
	return genuineChecks(&d.verdict.Genuine)
}

// readPolicy reads the policy, if there is one. Its warnings are for later.
func (d *doctor) readPolicy(ctx context.Context) {
	if d.flags.policy != "" {
		quiet := *d.app
		quiet.stderr = io.Discard
		d.policy, d.policyErr = quiet.readPolicy(ctx, d.flags.policy)
	}
}

// simulatedRoot returns the root that an SGX quote names if it is marked as
// simulated, and else nil. It proves nothing.
func simulatedRoot(quote []byte) *x509.Certificate {
	q, err := sgx.Parse(quote)
	if err != nil {
		return nil
	}
	chain, err := q.Certificates()
	if err != nil {
		return nil
	}
	root, err := x509.ParseCertificate(chain[len(chain)-1])
	if err != nil || !slices.Equal(root.Subject.Organization, []string{verify.SimulationOrganization}) {
		return nil
	}
	return root
}
