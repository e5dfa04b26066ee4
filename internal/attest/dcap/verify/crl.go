package verify

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
)

// crls checks both revocation lists and that they revoke nothing of the chain.
// They must be there: a host that could leave them out could use a revoked
// machine for ever.
func (v *verification) crls() error {
	if len(v.c.RootCRL) == 0 {
		return ErrRootCRLMissing
	}
	if len(v.c.PCKCRL) == 0 {
		return ErrPCKCRLMissing
	}
	var err error
	if v.rootCRL, err = v.crl(v.c.RootCRL, v.root); err != nil {
		return fmt.Errorf("root CRL: %w", err)
	}
	if revokes(v.rootCRL, v.ca.SerialNumber) {
		return ErrIntermediateRevoked
	}
	pckCRL, err := v.crl(v.c.PCKCRL, v.ca)
	if err != nil {
		return fmt.Errorf("PCK CRL: %w", err)
	}
	if revokes(pckCRL, v.pck.SerialNumber) {
		return ErrPCKRevoked
	}
	return v.crlIssuerChain()
}

// crlIssuerChain checks the chain that is served with the PCK CRL. The CRL was
// held against the CA of the quote, so this only refuses what does not belong
// together.
func (v *verification) crlIssuerChain() error {
	if len(v.c.PCKCRLIssuerChain) == 0 {
		return nil
	}
	ders, err := quote.DecodeChain(v.c.PCKCRLIssuerChain, 2)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCRLIssuerChain, err)
	}
	if !bytes.Equal(ders[1], v.root.Raw) {
		return fmt.Errorf("%w: %w", ErrCRLIssuerChain, ErrUnknownRoot)
	}
	if bytes.Equal(ders[0], v.ca.Raw) {
		return nil
	}
	// Intel may have renewed the certificate of the same CA.
	ca, err := v.certificate(ders[0], v.root, pckCA)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCRLIssuerChain, err)
	}
	if !bytes.Equal(ca.RawSubject, v.ca.RawSubject) || !bytes.Equal(ca.RawSubjectPublicKeyInfo, v.ca.RawSubjectPublicKeyInfo) {
		return fmt.Errorf("%w: it is of %v", ErrCRLIssuerChain, ca.Subject)
	}
	if revokes(v.rootCRL, ca.SerialNumber) {
		return fmt.Errorf("%w: %w", ErrCRLIssuerChain, ErrIntermediateRevoked)
	}
	return nil
}

// crl parses a list and checks that issuer signed it and that it is in force.
func (v *verification) crl(der []byte, issuer *x509.Certificate) (*x509.RevocationList, error) {
	l, err := parseCRL(der)
	if err != nil {
		return nil, err
	}
	switch {
	case l.SignatureAlgorithm != x509.ECDSAWithSHA256:
		return nil, fmt.Errorf("%w: %v", ErrCRLAlgorithm, l.SignatureAlgorithm)
	case !bytes.Equal(l.RawIssuer, issuer.RawSubject):
		return nil, fmt.Errorf("%w: %v", ErrCRLIssuer, l.Issuer)
	case !bytes.Equal(l.AuthorityKeyId, issuer.SubjectKeyId):
		return nil, ErrCRLIssuerKey
	case !verifiesASN1(issuer, l.RawTBSRevocationList, l.Signature):
		return nil, ErrCRLSignature
	case l.NextUpdate.IsZero():
		return nil, ErrCRLNextUpdate
	}
	return l, v.fresh(l.ThisUpdate, l.NextUpdate, ErrCRLNotYetValid, ErrCRLExpired)
}

// parseCRL reads a complete CRL in DER and refuses what changes its meaning:
// a delta CRL, one of some reasons only, or one with entries of other issuers
// says so in critical extensions.
func parseCRL(der []byte) (*x509.RevocationList, error) {
	if len(der) > MaxCRL {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrCRLTooLong, len(der), MaxCRL)
	}
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCRL, err)
	}
	if len(l.Raw) != len(der) {
		return nil, fmt.Errorf("%w: %d bytes follow it", ErrCRL, len(der)-len(l.Raw))
	}
	if l.Number == nil {
		return nil, ErrCRLNumber
	}
	if err := refuseCritical(l.Extensions); err != nil {
		return nil, err
	}
	for _, e := range l.RevokedCertificateEntries {
		if err := refuseCritical(e.Extensions); err != nil {
			return nil, err
		}
	}
	return l, nil
}

var (
	oidCRLNumber    = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidAuthorityKey = asn1.ObjectIdentifier{2, 5, 29, 35}
)

func refuseCritical(extensions []pkix.Extension) error {
	for _, e := range extensions {
		if e.Critical && !e.Id.Equal(oidCRLNumber) && !e.Id.Equal(oidAuthorityKey) {
			return fmt.Errorf("%w: %v", ErrCRLExtension, e.Id)
		}
	}
	return nil
}

// revokes reports that the list names the serial number. Any entry revokes: the
// reason "removed" exists in delta CRLs only.
func revokes(l *x509.RevocationList, serial *big.Int) bool {
	for i := range l.RevokedCertificateEntries {
		if l.RevokedCertificateEntries[i].SerialNumber.Cmp(serial) == 0 {
			return true
		}
	}
	return false
}

// fresh holds collateral to its dates, extended by the grace of the options, and
// lets them bound the result.
func (v *verification) fresh(issued, next time.Time, early, late error) error {
	switch {
	case v.o.Now.Before(issued):
		return fmt.Errorf("%w: from %s", early, issued.Format(time.RFC3339))
	case v.o.Now.After(next.Add(max(0, v.o.CollateralGrace))):
		return fmt.Errorf("%w: on %s", late, next.Format(time.RFC3339))
	case v.o.Now.After(next):
		v.result.Stale = true
	}
	if issued.After(v.result.LatestIssue) {
		v.result.LatestIssue = issued
	}
	earliest(&v.result.Expires, next)
	return nil
}

func earliest(t *time.Time, at time.Time) {
	if t.IsZero() || at.Before(*t) {
		*t = at
	}
}
