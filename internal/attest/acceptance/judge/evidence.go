package judge

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/acceptance"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/attest/snp"
	"github.com/ehsm-kms/ehsm/internal/attest/strictjson"
	"github.com/ehsm-kms/ehsm/internal/attest/tdx"
)

// Errors of genuine, beside those of the verifiers.
var (
	errNoEvidence   = errors.New("the run has no evidence")
	errNoCollateral = errors.New("no collateral")
	errReportData   = errors.New("the evidence was made for another result, nonce or key")
	errProgram      = errors.New("the evidence is of another program than the one that the run names")
)

// claims are what genuine evidence says.
type claims struct {
	kind       attest.Kind
	reportData [64]byte
	program    acceptance.Platform // what of it the evidence has
	simulated  bool
	machine    string // PPID or chip id, in hex
	text       string // TCB, for people
	wanted     func(policy []byte) error
}

// genuine verifies the evidence of a run, and that it is over the run.
func genuine(s *acceptance.Statement, o Options) (*claims, error) {
	if len(s.Evidence) == 0 {
		return nil, fmt.Errorf("%w: %s", errNoEvidence, s.Problem)
	}
	if len(o.Collateral) == 0 {
		return nil, errNoCollateral
	}
	var c *claims
	var err error
	kind := attest.KindOf(s.Evidence)
	switch kind {
	case attest.SGXQuote3:
		c, err = sgx(s.Evidence, o)
	case attest.TDXQuote4, attest.TDXQuote5:
		c, err = domain(s.Evidence, o)
	case attest.SNPReport:
		c, err = guest(s.Evidence, o)
	default:
		err = fmt.Errorf("evidence of %d bytes is of no kind that has a verifier", len(s.Evidence))
	}
	if err != nil {
		return nil, err
	}
	c.kind = kind
	p := &s.Result.Platform
	switch {
	case kind.String() != s.Kind:
		return nil, fmt.Errorf("%w: it is a %v, not a %s", errProgram, kind, s.Kind)
	case c.reportData != s.ReportData():
		return nil, errReportData
	case !bytes.Equal(c.program.Measurement, p.Measurement) || !bytes.Equal(c.program.Signer, p.Signer) || c.program.Debug != p.Debug:
		return nil, fmt.Errorf("%w: measurement %x", errProgram, []byte(c.program.Measurement))
	case kind == attest.SGXQuote3 && (c.program.Product != p.Product || c.program.SVN != p.SVN):
		return nil, fmt.Errorf("%w: product %d, version %d", errProgram, c.program.Product, c.program.SVN)
	case c.simulated != p.Simulated:
		return nil, fmt.Errorf("%w: simulated %t, and it says %t", errProgram, c.simulated, p.Simulated)
	}
	return c, nil
}

// dcapCollateral reads collateral for SGX and TDX in either of its forms.
func dcapCollateral(b []byte) (verify.Collateral, error) {
	if bytes.HasPrefix(bytes.TrimSpace(b), []byte("{")) {
		return verify.DecodeCollateralJSON(b)
	}
	return verify.DecodeCollateral(b)
}

// roots returns those of the options, or the maker's own.
func (o *Options) roots(own ...*x509.Certificate) []*x509.Certificate {
	if o.Roots != nil {
		return o.Roots
	}
	return own
}

func sgx(raw []byte, o Options) (*claims, error) {
	collateral, err := dcapCollateral(o.Collateral)
	if err != nil {
		return nil, err
	}
	r, err := verify.Verify(raw, collateral, verify.Options{Roots: o.roots(verify.IntelRoot()), Now: o.Now, AllowSim: o.AllowSim})
	if err != nil {
		return nil, err
	}
	return &claims{
		reportData: r.Report.ReportData, simulated: r.Simulated, machine: hex.EncodeToString(r.Platform.PPID[:]), text: tcbText(&r),
		program: acceptance.Platform{
			Measurement: r.Report.MREnclave[:], Signer: r.Report.MRSigner[:],
			Product: r.Report.ISVProdID, SVN: r.Report.ISVSVN, Debug: r.Report.Attributes.Flags&quote.FlagDebug != 0,
		},
		wanted: func(policy []byte) error {
			p, err := validate.ParsePolicy(policy)
			if err == nil {
				_, err = validate.Check(p, &r, validate.Input{Now: o.Now, ReportData: r.Report.ReportData}) // compared by genuine
			}
			return err
		},
	}, nil
}

func tcbText(r *verify.Result) string {
	text := fmt.Sprintf("TCB %v of %s", r.Status, r.TCBDate.Format(time.DateOnly))
	if len(r.Advisories) > 0 {
		text += ", " + strings.Join(r.Advisories, " ")
	}
	return text
}

// domain verifies a TDX quote. The measurement is that of the platform tsm.
func domain(raw []byte, o Options) (*claims, error) {
	collateral, err := dcapCollateral(o.Collateral)
	if err != nil {
		return nil, err
	}
	r, err := tdx.Verify(raw, collateral, verify.Options{Roots: o.roots(verify.IntelRoot()), Now: o.Now})
	if err != nil {
		return nil, err
	}
	body := &r.Quote.Report
	h := sha256.New()
	h.Write([]byte("ehsm/tdx-measurement/v1\x00"))
	for _, register := range [][48]byte{body.MRTD, body.MRConfigID, body.RTMR[0], body.RTMR[1], body.RTMR[2], body.RTMR[3]} {
		h.Write(register[:])
	}
	return &claims{
		reportData: body.ReportData, machine: hex.EncodeToString(r.Platform.PPID[:]), text: tcbText(&r.Result),
		program: acceptance.Platform{Measurement: h.Sum(nil), Signer: make([]byte, 32), Debug: body.Debug()},
		wanted: func(policy []byte) error {
			p, err := tdx.ParsePolicy(policy)
			if err == nil {
				_, err = tdx.Check(p, r, validate.Input{ReportData: body.ReportData, Now: o.Now}) // compared by genuine
			}
			return err
		},
	}, nil
}

// guest verifies a SEV-SNP report. The measurement is that of the platform tsm.
func guest(raw []byte, o Options) (*claims, error) {
	collateral, err := snp.DecodeCollateral(o.Collateral)
	if err != nil {
		return nil, err
	}
	r, err := snp.Verify(raw, collateral, snp.Options{Roots: o.roots(snp.Roots()...), Now: o.Now})
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	h.Write([]byte("ehsm/snp-measurement/v1\x00"))
	h.Write(r.Report.Measurement[:])
	h.Write(r.Report.HostData[:])
	return &claims{
		reportData: r.Report.ReportData, machine: hex.EncodeToString(r.Report.ChipID[:]),
		text:    fmt.Sprintf("%s, TCB %v, revocation checked: %t", r.Product, r.Report.ReportedTCB, r.Revocation),
		program: acceptance.Platform{Measurement: h.Sum(nil), Signer: make([]byte, 32), Debug: r.Report.Debug()},
		wanted: func(policy []byte) error {
			p, err := snp.ParsePolicy(policy)
			if err == nil {
				_, err = snp.Check(p, r, r.Report.ReportData, o.Now) // compared by genuine
			}
			return err
		},
	}, nil
}

// PolicyKind checks a policy file and returns for which kind of TEE it is: sgx,
// tdx or snp. Errors: those of the parsers, and of strictjson.
func PolicyKind(policy []byte) (kind string, err error) {
	_, n, err := strictjson.Parse(policy, len(policy))
	if err != nil {
		return "", err
	}
	format := n.Member("format").Text()
	if err := n.Err(); err != nil {
		return "", err
	}
	switch format {
	case validate.PolicyFormat:
		_, err = validate.ParsePolicy(policy)
		return "sgx", err
	case tdx.PolicyFormat:
		_, err = tdx.ParsePolicy(policy)
		return "tdx", err
	case snp.PolicyFormat:
		_, err = snp.ParsePolicy(policy)
		return "snp", err
	}
	return "", fmt.Errorf("policy format %q is unknown", format)
}
