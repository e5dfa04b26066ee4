package snp

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/google/go-sev-guest/kds"
	pb "github.com/google/go-sev-guest/proto/sevsnp"
	google "github.com/google/go-sev-guest/verify"
	"github.com/google/go-sev-guest/verify/trust"
)

// A Step is one of the checks of Verify. They run in the order of their numbers.
type Step uint8

const (
	_             Step = iota
	StepParse          // shape of the report
	StepRoot           // the ARK, by equality; dates of all certificates
	StepCRL            // revocation, if there is a CRL
	StepChip           // chip id and TCB of the VCEK are those of the report
	StepSignature      // VCEK, ASK and ARK, and the report's signature
)

var stepNames = [...]string{StepParse: "parse", StepRoot: "root", StepCRL: "crl", StepChip: "chip", StepSignature: "signature"}

// String returns the step's short name, such as "chip".
func (s Step) String() string {
	if int(s) < len(stepNames) && stepNames[s] != "" {
		return stepNames[s]
	}
	return fmt.Sprintf("step %d", uint8(s))
}

// An Error is a refusal of Verify. Err wraps one of the errors named in this
// package.
type Error struct {
	Step Step
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("verify SEV-SNP report: %v: %v", e.Step, e.Err) }

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Errors of Verify beside those of Parse.
var (
	ErrNoRoot       = errors.New("no root certificate was given to the verifier")
	ErrCertificate  = errors.New("certificate is malformed")
	ErrUnknownRoot  = errors.New("ARK is not a given root")
	ErrCRL          = errors.New("CRL is malformed")
	ErrCRLSignature = errors.New("CRL is not signed by the ARK")
	ErrCRLDates     = errors.New("CRL is not in force")
	ErrRevoked      = errors.New("certificate is revoked")
	ErrCertDates    = errors.New("certificate is not in force")
	ErrProduct      = errors.New("product is not one that is read")
	ErrChipID       = errors.New("VCEK is of another chip")
	ErrTCB          = errors.New("VCEK is for another TCB than the report")
	ErrSignature    = errors.New("certificates or signature do not verify")
)

// Options say under which conditions a report is verified.
type Options struct {
	Roots []*x509.Certificate // trust anchors; see Roots. The ARK must equal one
	Now   time.Time           // at which everything must be valid
}

// A Result says what was verified. It is meaningful only without an error.
type Result struct {
	Report *Report
	// Product is the name of AMD for the kind of chip, such as Milan-B0.
	Product string
	// CertsExpire is the earliest end of validity of all certificates.
	CertsExpire time.Time
	// Revocation says that a CRL in force was given and revokes nothing here.
	// CRLExpires is its nextUpdate, LatestIssue its thisUpdate.
	Revocation              bool
	CRLExpires, LatestIssue time.Time
}

// verification is one run of Verify.
type verification struct {
	raw            []byte
	c              *Collateral
	o              *Options
	vcek, ask, ark *x509.Certificate
	result         Result
}

// Verify checks everything that makes a report genuine at time o.Now, except
// revocation if the collateral has no CRL: the result says so, and Check refuses
// it unless told otherwise. It does not look at measurement, policy or REPORTDATA
// of the guest. Every error is an *Error with the step that failed.
func Verify(raw []byte, c Collateral, o Options) (*Result, error) {
	v := &verification{raw: raw, c: &c, o: &o}
	for _, check := range []struct {
		step Step
		run  func() error
	}{
		{StepParse, v.parse}, {StepRoot, v.root}, {StepCRL, v.crl}, {StepChip, v.chip}, {StepSignature, v.signature},
	} {
		if err := check.run(); err != nil {
			return nil, &Error{check.step, err}
		}
	}
	return &v.result, nil
}

func (v *verification) parse() (err error) {
	if v.result.Report, err = Parse(v.raw); err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		der  []byte
		cert **x509.Certificate
	}{{"VCEK", v.c.VCEK, &v.vcek}, {"ASK", v.c.ASK, &v.ask}, {"ARK", v.c.ARK, &v.ark}} {
		if *part.cert, err = x509.ParseCertificate(part.der); err != nil {
			return fmt.Errorf("%s: %w: %w", part.name, ErrCertificate, err)
		}
		if end := (*part.cert).NotAfter; v.result.CertsExpire.IsZero() || end.Before(v.result.CertsExpire) {
			v.result.CertsExpire = end
		}
	}
	return nil
}

func (v *verification) root() error {
	if len(v.o.Roots) == 0 {
		return ErrNoRoot
	}
	if !slices.ContainsFunc(v.o.Roots, func(root *x509.Certificate) bool { return bytes.Equal(root.Raw, v.ark.Raw) }) {
		return fmt.Errorf("%w: %q", ErrUnknownRoot, v.ark.Subject.CommonName)
	}
	for _, c := range []*x509.Certificate{v.ark, v.ask, v.vcek} {
		if v.o.Now.Before(c.NotBefore) || v.o.Now.After(c.NotAfter) {
			return fmt.Errorf("%w: %q is valid from %s to %s", ErrCertDates, c.Subject.CommonName, c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339))
		}
	}
	return nil
}

func (v *verification) crl() error {
	if len(v.c.CRL) == 0 {
		return nil
	}
	l, err := x509.ParseRevocationList(v.c.CRL)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrCRL, err)
	case len(l.Raw) != len(v.c.CRL):
		return fmt.Errorf("%w: bytes follow it", ErrCRL)
	case !bytes.Equal(l.RawIssuer, v.ark.RawSubject):
		return fmt.Errorf("%w: it is of %v", ErrCRLSignature, l.Issuer)
	}
	if err := l.CheckSignatureFrom(v.ark); err != nil {
		return fmt.Errorf("%w: %w", ErrCRLSignature, err)
	}
	// One that does not say until when it is in force has a NextUpdate of year 1.
	if v.o.Now.Before(l.ThisUpdate) || v.o.Now.After(l.NextUpdate) {
		return fmt.Errorf("%w: it is from %s to %s", ErrCRLDates, l.ThisUpdate.Format(time.RFC3339), l.NextUpdate.Format(time.RFC3339))
	}
	for name, serial := range map[string]*big.Int{"ASK": v.ask.SerialNumber, "VCEK": v.vcek.SerialNumber} {
		for i := range l.RevokedCertificateEntries {
			if l.RevokedCertificateEntries[i].SerialNumber.Cmp(serial) == 0 {
				return fmt.Errorf("%w: %s", ErrRevoked, name)
			}
		}
	}
	v.result.Revocation, v.result.CRLExpires, v.result.LatestIssue = true, l.NextUpdate, l.ThisUpdate
	return nil
}

// chip holds the certificate against the report: without that, the certificate
// of the chip at an older TCB, whose key the owner may know, would do.
func (v *verification) chip() error {
	x, err := kds.VcekCertificateExtensions(v.vcek)
	if err != nil {
		return fmt.Errorf("VCEK: %w: %w", ErrCertificate, err)
	}
	r := v.result.Report
	line := kds.ProductLineOfProductName(x.ProductName)
	switch {
	case line != "Milan" && line != "Genoa": // the TCB of Turin has another layout
		return fmt.Errorf("%w: %q", ErrProduct, x.ProductName)
	case !bytes.Equal(x.HWID, r.ChipID[:]):
		return fmt.Errorf("%w: %x, want %x", ErrChipID, x.HWID, r.ChipID)
	case uint64(x.TCBVersion) != r.parsed.GetReportedTcb():
		return fmt.Errorf("%w: %v, want %v", ErrTCB, tcbOf(uint64(x.TCBVersion)), r.ReportedTCB)
	}
	v.result.Product = x.ProductName
	return nil
}

// noNetwork is what go-sev-guest would fetch with if it fetched anything.
type noNetwork struct{}

func (noNetwork) Get(string) ([]byte, error) {
	return nil, errors.New("nothing is fetched while a report is verified")
}

func (v *verification) signature() error {
	roots := map[string][]*trust.AMDRootCerts{}
	for _, line := range []string{"Milan", "Genoa"} { // the library holds the issuer's name against it
		root := trust.AMDRootCertsProduct(line)
		root.ProductCerts = &trust.ProductCerts{Ask: v.ask, Ark: v.ark}
		roots[line] = []*trust.AMDRootCerts{root}
	}
	err := google.SnpAttestation(&pb.Attestation{
		Report:           v.result.Report.parsed,
		CertificateChain: &pb.CertificateChain{VcekCert: v.c.VCEK},
	}, &google.Options{DisableCertFetching: true, Getter: noNetwork{}, Now: v.o.Now, TrustedRoots: roots})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return nil
}
