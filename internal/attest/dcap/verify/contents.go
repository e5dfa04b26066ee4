package verify

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
)

// The certification authorities for PCK certificates, as Intel's services name
// them. Each has a revocation list of its own.
const (
	CAProcessor = "processor"
	CAPlatform  = "platform"
)

// ErrCA is returned for certificates and CRLs of an unknown PCK CA.
var ErrCA = errors.New("issuer is neither Intel's processor CA nor its platform CA")

// A Query names the collateral of one kind of platform.
type Query struct {
	FMSPC [6]byte // of the PCK certificate
	CA    string  // that issued it: CAProcessor or CAPlatform
}

// QueryOf says which collateral Verify needs for a quote. It verifies nothing.
// Errors: those of quote.Parse and quote.DecodeChain, ErrCertificate, ErrCA, and
// those named ErrExtension.
func QueryOf(q []byte) (Query, error) {
	parsed, err := quote.Parse(q)
	if err != nil {
		return Query{}, err
	}
	ders, err := parsed.Certificates()
	if err != nil {
		return Query{}, err
	}
	pck, err := x509.ParseCertificate(ders[0])
	if err != nil {
		return Query{}, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	platform, err := PlatformOf(pck)
	if err != nil {
		return Query{}, err
	}
	ca, err := caOf(pck.Issuer)
	return Query{platform.FMSPC, ca}, err
}

// caOf reads a CA's name, such as Intel SGX PCK Platform CA.
func caOf(name pkix.Name) (string, error) {
	switch {
	case strings.Contains(name.CommonName, "PCK Platform CA"):
		return CAPlatform, nil
	case strings.Contains(name.CommonName, "PCK Processor CA"):
		return CAProcessor, nil
	}
	return "", fmt.Errorf("%w: %q", ErrCA, name.CommonName)
}

// Contents is what collateral says of itself.
type Contents struct {
	Query
	PCEID       [2]byte
	TCBInfo     Edition
	QEIdentity  Edition
	RootCRL     Edition
	PCKCRL      Edition
	CertsExpire time.Time // earliest end of validity of the certificates in the chains
	Simulated   bool      // a certificate is of a simulated fleet
}

// An Edition dates a document or revocation list.
type Edition struct {
	Issued, Next time.Time // issueDate or thisUpdate, and nextUpdate
	Evaluation   uint32    // tcbEvaluationDataNumber; 0 for a CRL
	Number       *big.Int  // of a CRL; nil for a document
	Entries      int       // TCB levels, or revoked certificates
}

// Expires returns the earliest nextUpdate of the four parts.
func (c *Contents) Expires() time.Time {
	t := c.TCBInfo.Next
	for _, e := range []Edition{c.QEIdentity, c.RootCRL, c.PCKCRL} {
		earliest(&t, e.Next)
	}
	return t
}

// Contents reads every part of collateral as Verify does, but checks neither
// signatures nor dates: a fetcher learns what it holds, and that it is no error
// page. An absent PCK CRL issuer chain is no error, as it is optional. Errors:
// those of Verify for parts that are missing or malformed, not in an *Error, and
// ErrCA.
func (c *Collateral) Contents() (Contents, error) {
	var out Contents
	for _, part := range []struct {
		name string
		read func(*Contents) error
	}{
		{"TCB info", c.readTCBInfo},
		{"QE identity", c.readQEIdentity},
		{"root CRL", c.readRootCRL},
		{"PCK CRL", c.readPCKCRL},
	} {
		if err := part.read(&out); err != nil {
			return Contents{}, fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return out, nil
}

func (c *Collateral) readTCBInfo(out *Contents) error {
	if len(c.TCBInfo) == 0 {
		return ErrDocumentMissing
	}
	t, err := parseTCBInfo(c.TCBInfo)
	if err != nil {
		return err
	}
	out.FMSPC, out.PCEID = t.fmspc, t.pceID
	out.TCBInfo = Edition{Issued: t.issued, Next: t.next, Evaluation: t.evaluation, Entries: len(t.levels)}
	return out.readChain(c.TCBInfoIssuerChain)
}

func (c *Collateral) readQEIdentity(out *Contents) error {
	if len(c.QEIdentity) == 0 {
		return ErrDocumentMissing
	}
	q, err := parseQEIdentity(c.QEIdentity)
	if err != nil {
		return err
	}
	out.QEIdentity = Edition{Issued: q.issued, Next: q.next, Evaluation: q.evaluation, Entries: len(q.levels)}
	return out.readChain(c.QEIdentityIssuerChain)
}

func (c *Collateral) readRootCRL(out *Contents) (err error) {
	if len(c.RootCRL) == 0 {
		return ErrRootCRLMissing
	}
	_, err = out.readCRL(c.RootCRL, &out.RootCRL)
	return err
}

func (c *Collateral) readPCKCRL(out *Contents) error {
	if len(c.PCKCRL) == 0 {
		return ErrPCKCRLMissing
	}
	l, err := out.readCRL(c.PCKCRL, &out.PCKCRL)
	if err != nil {
		return err
	}
	if out.CA, err = caOf(l.Issuer); err != nil || len(c.PCKCRLIssuerChain) == 0 {
		return err
	}
	return out.readChain(c.PCKCRLIssuerChain)
}

func (out *Contents) readCRL(der []byte, e *Edition) (*x509.RevocationList, error) {
	l, err := parseCRL(der)
	if err != nil {
		return nil, err
	}
	if l.NextUpdate.IsZero() {
		return nil, ErrCRLNextUpdate
	}
	*e = Edition{Issued: l.ThisUpdate, Next: l.NextUpdate, Number: l.Number, Entries: len(l.RevokedCertificateEntries)}
	return l, nil
}

// readChain notes the dates of an issuer and its root.
func (out *Contents) readChain(chain []byte) error {
	ders, err := quote.DecodeChain(chain, 2)
	if err != nil {
		return err
	}
	for _, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrCertificate, err)
		}
		earliest(&out.CertsExpire, cert.NotAfter)
		out.Simulated = out.Simulated || slices.Contains(cert.Subject.Organization, SimulationOrganization)
	}
	return nil
}
