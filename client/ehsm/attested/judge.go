package attested

import (
	"bytes"
	"context"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ehsm-kms/ehsm/client/ehsm"
	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/attest/snp"
	"github.com/ehsm-kms/ehsm/internal/attest/tdx"
)

// genuine is evidence that was verified, before it is known to be wanted.
type genuine struct {
	report     Report
	reportData [64]byte // that the evidence binds
	// check decides under a policy. It is asked only after the REPORTDATA was
	// compared.
	check func(*Policy) (program, machine string, err error)
}

// judge verifies the evidence, compares what it binds, and asks the policy.
func (v *Verifier) judge(ctx context.Context, c *ehsm.Client, claim *claim) (*Report, error) {
	collateral, err := v.collateral(ctx, c)
	if err != nil {
		return nil, err
	}
	now := v.now()
	var g *genuine
	switch kind := claim.evidence.Kind; kind {
	case attest.SGXQuote3:
		g, err = v.sgx(claim.evidence.Quote, collateral, now)
	case attest.TDXQuote4, attest.TDXQuote5:
		g, err = v.tdx(claim.evidence.Quote, collateral, now)
	case attest.SNPReport:
		g, err = v.snp(claim.evidence.Quote, collateral, now)
	default:
		err = &Error{ErrNoEvidence, "parse", fmt.Errorf("%v has no verifier", kind)}
	}
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(g.reportData[:], claim.reportData[:]) != 1 {
		return nil, &Error{ErrChallenge, "report-data", errors.New("it binds other bytes than challenge, role, domain, instance and key give")}
	}
	return v.want(g, claim, now)
}

// want asks the policy and completes the report.
func (v *Verifier) want(g *genuine, claim *claim, now time.Time) (*Report, error) {
	r := &g.report
	if v.Policy != nil {
		var err error
		if r.Program, r.Machine, err = g.check(v.Policy); err != nil {
			return nil, wantError(err)
		}
		r.Wanted = true
	}
	r.Kind, r.At = claim.evidence.Kind.String(), now
	r.DomainID, r.DomainPinned = claim.domain, !v.AnyDomain
	r.Instance, r.HPKEPublicKey = claim.instance, bytes.Clone(claim.hpkeKey)
	r.ReplyKey = bytes.Clone(claim.replyKey)
	return r, nil
}

// wantError tells what is out of force from what is not wanted.
func wantError(err error) error {
	for _, stale := range []error{validate.ErrStale, validate.ErrCertificate, validate.ErrTime, snp.ErrExpired, snp.ErrBeforeIssued} {
		if errors.Is(err, stale) {
			return &Error{ErrStale, "policy", err}
		}
	}
	return &Error{ErrNotWanted, "policy", err}
}

// collateral returns what was given, or asks the service.
func (v *Verifier) collateral(ctx context.Context, c *ehsm.Client) ([]byte, error) {
	if len(v.Collateral) > 0 {
		return v.Collateral, nil
	}
	if c == nil {
		return nil, &Error{ErrNoCollateral, "collateral", errors.New("none was given, and no service to ask")}
	}
	b, err := c.Collateral(ctx)
	if errors.Is(err, ehsm.ErrNoCollateral) {
		return nil, &Error{ErrNoCollateral, "collateral", err}
	}
	return b, err
}

// decodeDCAP reads collateral for SGX and TDX in either of its forms.
func decodeDCAP(b []byte) (verify.Collateral, error) {
	decode := verify.DecodeCollateral
	if bytes.HasPrefix(bytes.TrimSpace(b), []byte("{")) {
		decode = verify.DecodeCollateralJSON
	}
	c, err := decode(b)
	if err != nil {
		return c, &Error{ErrNoCollateral, "collateral", err}
	}
	return c, nil
}

func (v *Verifier) allowSim() bool { return v.AllowSim || v.Policy.allowSim() }

// roots returns those for SGX and TDX.
func (v *Verifier) roots() []*x509.Certificate {
	if v.Roots != nil {
		return v.Roots
	}
	return []*x509.Certificate{verify.IntelRoot()}
}

// simRoot returns the root of a simulated platform's quote, if it is one: every
// certificate of the chain is marked. The mark of the others that count, those of
// the collateral, is checked here too, as this root makes all of them worthless.
func simRoot(raw []byte, c *verify.Collateral) (*x509.Certificate, bool) {
	q, err := quote.Parse(raw)
	if err != nil {
		return nil, false
	}
	chain, err := q.Certificates()
	if err != nil {
		return nil, false
	}
	all := slices.Clone(chain)
	for _, pem := range [][]byte{c.TCBInfoIssuerChain, c.QEIdentityIssuerChain} {
		ders, err := quote.DecodeChain(pem, 2)
		if err != nil {
			return nil, false
		}
		all = append(all, ders...)
	}
	for _, der := range all {
		if cert, err := x509.ParseCertificate(der); err != nil || !marked(cert) {
			return nil, false
		}
	}
	root, err := x509.ParseCertificate(chain[len(chain)-1])
	return root, err == nil
}

// marked reports that the certificate says of its subject and nothing else than
// that it is simulated.
func marked(c *x509.Certificate) bool {
	mark := []string{verify.SimulationOrganization}
	return slices.Equal(c.Subject.Organization, mark) && slices.Equal(c.Issuer.Organization, mark)
}

// sgx verifies an SGX quote.
func (v *Verifier) sgx(raw, collateral []byte, now time.Time) (*genuine, error) {
	c, err := decodeDCAP(collateral)
	if err != nil {
		return nil, err
	}
	o := verify.Options{Roots: slices.Clone(v.roots()), Now: now, AllowSim: v.allowSim()}
	if root, simulated := simRoot(raw, &c); simulated {
		if !o.AllowSim {
			return nil, &Error{ErrNotGenuine, verify.StepPCKChain.String(), fmt.Errorf("%w: no hardware protects its keys; AllowSim accepts it", ErrSimulated)}
		}
		if !slices.ContainsFunc(o.Roots, marked) { // a given one is not replaced
			o.Roots = append(o.Roots, root)
		}
	}
	r, err := verify.Verify(raw, c, o)
	if err != nil {
		return nil, genuineError(err)
	}
	g := &genuine{reportData: r.Report.ReportData, report: dcapReport(&r)}
	g.report.describeEnclave(&r.Report)
	g.check = func(p *Policy) (string, string, error) {
		if p.sgx == nil {
			return "", "", errors.New("policy is not for SGX")
		}
		accepting := *p.sgx
		accepting.AllowSim = o.AllowSim
		d, err := validate.Check(&accepting, &r, validate.Input{Now: now, ReportData: r.Report.ReportData}) // compared by judge
		return d.Enclave, d.Platform, err
	}
	return g, nil
}

// tdx verifies a TDX quote.
func (v *Verifier) tdx(raw, collateral []byte, now time.Time) (*genuine, error) {
	c, err := decodeDCAP(collateral)
	if err != nil {
		return nil, err
	}
	r, err := tdx.Verify(raw, c, verify.Options{Roots: v.roots(), Now: now})
	if err != nil {
		return nil, genuineError(err)
	}
	body := &r.Quote.Report
	g := &genuine{reportData: body.ReportData, report: dcapReport(&r.Result)}
	g.report.describeDomain(body)
	g.check = func(p *Policy) (string, string, error) {
		if p.tdx == nil {
			return "", "", errors.New("policy is not for TDX")
		}
		d, err := tdx.Check(p.tdx, r, validate.Input{ReportData: body.ReportData, Now: now}) // compared by judge
		return d.Enclave, d.Platform, err
	}
	return g, nil
}

// snp verifies a SEV-SNP report.
func (v *Verifier) snp(raw, collateral []byte, now time.Time) (*genuine, error) {
	c, err := snp.DecodeCollateral(collateral)
	if err != nil {
		return nil, &Error{ErrNoCollateral, "collateral", err}
	}
	roots := v.Roots
	if roots == nil {
		roots = snp.Roots()
	}
	r, err := snp.Verify(raw, c, snp.Options{Roots: roots, Now: now})
	if err != nil {
		return nil, genuineError(err)
	}
	g := &genuine{reportData: r.Report.ReportData}
	g.report.describeGuest(r)
	g.check = func(p *Policy) (string, string, error) {
		if p.snp == nil {
			return "", "", errors.New("policy is not for SEV-SNP")
		}
		d, err := snp.Check(p.snp, r, r.Report.ReportData, now) // compared by judge
		return d.Guest, d.Chip, err
	}
	return g, nil
}

// genuineError names the step of a verifier's refusal, and tells what is out of
// force from what was never genuine.
func genuineError(err error) error {
	step, cause := "verify", err
	var d *verify.Error
	var s *snp.Error
	switch {
	case errors.As(err, &d):
		step, cause = d.Step.String(), d.Err
	case errors.As(err, &s):
		step, cause = s.Step.String(), s.Err
	}
	for _, stale := range []error{
		verify.ErrCertNotYetValid, verify.ErrCertExpired, verify.ErrCRLNotYetValid, verify.ErrCRLExpired,
		verify.ErrDocumentNotYetValid, verify.ErrDocumentExpired, snp.ErrCRLDates, snp.ErrCertDates,
	} {
		if errors.Is(err, stale) {
			return &Error{ErrStale, step, cause}
		}
	}
	if errors.Is(err, verify.ErrSimulated) {
		cause = fmt.Errorf("%w: %w", ErrSimulated, cause)
	}
	return &Error{ErrNotGenuine, step, cause}
}
