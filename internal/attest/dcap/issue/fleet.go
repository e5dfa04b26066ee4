// Package issue makes simulated SGX platforms: a root CA, a PCK CA and a TCB
// signer per fleet, machines with a PCK certificate and a quoting enclave, the
// quotes they sign, and the collateral about them. All of it has the exact form
// of Intel's, so that what verifies it is the code that verifies Intel's.
//
// It protects nothing and is worth nothing: whoever has a fleet can attest
// anything. Every certificate says so in its subject, which package verify
// refuses unless told AllowSim. The keys are therefore plain values.
package issue

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// An Authority is a certificate with its private key.
type Authority struct {
	Cert *x509.Certificate
	Key  *ecdsa.PrivateKey
}

// A Fleet issues for all its machines. Its private keys stay with whoever made
// the fleet; machines need only their own.
type Fleet struct {
	Root, PCKCA, TCBSigner *Authority
}

// Lifetimes of certificates, from a day before the fleet is made, as clocks
// differ.
const (
	early        = 24 * time.Hour
	rootLifetime = 30 * 365 * 24 * time.Hour
	certLifetime = 15 * 365 * 24 * time.Hour
)

// NewFleet makes a fleet at the time now.
func NewFleet(now time.Time) (*Fleet, error) {
	root, err := selfSigned(RootTemplate(now))
	if err != nil {
		return nil, err
	}
	ca, err := root.Issue(CATemplate(now))
	if err != nil {
		return nil, err
	}
	signer, err := root.Issue(SignerTemplate(now))
	if err != nil {
		return nil, err
	}
	return &Fleet{Root: root, PCKCA: ca, TCBSigner: signer}, nil
}

func template(name string, now time.Time, lifetime time.Duration) *x509.Certificate {
	start := now.Add(-early).UTC().Truncate(time.Second)
	serial := make([]byte, 20)
	rand.Read(serial)                 // never fails
	serial[0] = serial[0]&0x7f | 0x40 // positive, and always of one length
	return &x509.Certificate{
		SerialNumber:          new(big.Int).SetBytes(serial),
		Subject:               pkix.Name{CommonName: name, Organization: []string{verify.SimulationOrganization}},
		NotBefore:             start,
		NotAfter:              start.Add(lifetime),
		SignatureAlgorithm:    x509.ECDSAWithSHA256,
		BasicConstraintsValid: true,
	}
}

// RootTemplate describes a fleet's root certificate.
func RootTemplate(now time.Time) *x509.Certificate {
	t := template("Simulated SGX Root CA", now, rootLifetime)
	t.IsCA, t.MaxPathLen, t.KeyUsage = true, 1, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	return t
}

// CATemplate describes the certificate of a fleet's PCK CA.
func CATemplate(now time.Time) *x509.Certificate {
	t := template("Simulated SGX PCK Platform CA", now, certLifetime)
	t.IsCA, t.MaxPathLenZero, t.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	return t
}

// SignerTemplate describes the certificate that signs TCB info and QE identity.
func SignerTemplate(now time.Time) *x509.Certificate {
	t := template("Simulated SGX TCB Signing", now, certLifetime)
	t.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment
	return t
}

// PCKTemplate describes the PCK certificate of a machine. Errors: none for a
// platform that can exist.
func PCKTemplate(p verify.Platform, now time.Time) (*x509.Certificate, error) {
	value, err := MarshalExtension(p)
	if err != nil {
		return nil, err
	}
	t := template("Simulated SGX PCK Certificate", now, certLifetime)
	t.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment
	t.ExtraExtensions = []pkix.Extension{{Id: oidSGX, Value: value}}
	return t, nil
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func selfSigned(t *x509.Certificate) (*Authority, error) {
	key, err := newKey()
	if err != nil {
		return nil, fmt.Errorf("issue %s: %w", t.Subject.CommonName, err)
	}
	a := &Authority{Cert: t, Key: key}
	return a.issue(t, key)
}

// Issue makes a key and signs a certificate for it.
func (a *Authority) Issue(t *x509.Certificate) (*Authority, error) {
	key, err := newKey()
	if err != nil {
		return nil, fmt.Errorf("issue %s: %w", t.Subject.CommonName, err)
	}
	return a.issue(t, key)
}

func (a *Authority) issue(t *x509.Certificate, key *ecdsa.PrivateKey) (*Authority, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, a.Cert, &key.PublicKey, a.Key)
	if err != nil {
		return nil, fmt.Errorf("issue %s: %w", t.Subject.CommonName, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("issue %s: %w", t.Subject.CommonName, err)
	}
	return &Authority{Cert: cert, Key: key}, nil
}

// SignRaw signs a message as quotes and documents are signed: ECDSA with
// SHA-256, r || s in 64 bytes.
func SignRaw(key *ecdsa.PrivateKey, message []byte) (signature [64]byte, err error) {
	sum := sha256.Sum256(message)
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		return signature, fmt.Errorf("sign: %w", err)
	}
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return signature, nil
}

// A CRL describes a revocation list.
type CRL struct {
	Issued, Next time.Time
	Revoked      []*big.Int // serial numbers
}

// CRL signs a revocation list and returns it in DER.
func (a *Authority) CRL(l CRL) ([]byte, error) {
	t := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: l.Issued, NextUpdate: l.Next, SignatureAlgorithm: x509.ECDSAWithSHA256}
	for _, serial := range l.Revoked {
		t.RevokedCertificateEntries = append(t.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: l.Issued, ReasonCode: 1})
	}
	der, err := x509.CreateRevocationList(rand.Reader, t, a.Cert, a.Key)
	if err != nil {
		return nil, fmt.Errorf("sign the CRL of %s: %w", a.Cert.Subject.CommonName, err)
	}
	return der, nil
}
