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
	"slices"
	"strings"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
	"github.com/ehsm-kms/ehsm/client/ehsm/attested"
	"github.com/ehsm-kms/ehsm/internal/attest"
	sgx "github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/attest/snp"
	"github.com/ehsm-kms/ehsm/internal/attest/tdx"
)

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
			d.url, d.flags.domain = cfg.URL, cmp.Or(d.flags.domain, d.app.domainOf(cfg.URL))
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
	d.client, d.kind, d.simRoot = client, e.Kind, simulatedRoot(e.Quote)
	d.evidence = &evidence{file: d.url, raw: e.Quote, rootName: "Intel's SGX root CA"}
	d.evidence.options.Roots = []*x509.Certificate{verify.IntelRoot()}
	all := []check{passed(name, "%v, %d bytes", e.Kind, len(e.Quote))}
	if d.simRoot != nil {
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
	return problem(name, hintSimService, "none: it runs on the simulated platform, where no hardware protects keys")
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
	want := attest.ReportData(attest.UseInstance, domain, []byte(api.RoleCore), challenge, instance, answer.HPKEPublicKey)
	if answer.ReportDataBinding == api.BindingInstanceKeys {
		want = attest.ReportData(attest.UseInstanceKeys, domain, []byte(api.RoleCore), challenge, instance, answer.HPKEPublicKey, answer.ReplyKey)
	}
	d.evidence.reportData = &want
	got, ok := reportDataOf(attest.Evidence{Kind: d.kind, Quote: d.evidence.raw})
	switch {
	case answer.Challenge != base64.RawURLEncoding.EncodeToString(challenge):
		return problem(name, do, "the answer is to another challenge")
	case !ok:
		return skipped(name, "the evidence cannot be read")
	case subtle.ConstantTimeCompare(got[:], want[:]) != 1:
		return problem(name, do, "it was not made for this challenge, domain, instance and key")
	}
	return passed(name, "made for a fresh challenge by instance %s", printable(answer.InstanceID))
}

// reportDataOf reads what evidence binds.
func reportDataOf(e attest.Evidence) (data [64]byte, ok bool) {
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
		if r, err := snp.Parse(e.Quote); err == nil {
			return r.ReportData, true
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

// nameOfSimRoot is shown for what simulatedRoot returns.
const nameOfSimRoot = "the simulated root that it names itself"

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
