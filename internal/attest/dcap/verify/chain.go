package verify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
)

// SimulationOrganization is the organization in every name of a simulated fleet.
const SimulationOrganization = "SIMULATION - NOT INTEL"

// A role says what a certificate may be used for.
type role struct {
	name       string // what the common name contains, as Intel's library demands it
	isCA       bool
	usage      x509.KeyUsage
	inMessages string
}

var (
	pckCA     = role{"SGX PCK", true, x509.KeyUsageCertSign | x509.KeyUsageCRLSign, "PCK CA"}
	pckLeaf   = role{"SGX PCK Certificate", false, x509.KeyUsageDigitalSignature, "PCK certificate"}
	tcbSigner = role{"SGX TCB Signing", false, x509.KeyUsageDigitalSignature, "TCB signing certificate"}
)

// findRoot returns the given root that equals der. Only equality makes a root:
// a certificate with the same name and key but other contents is another one.
func (v *verification) findRoot(der []byte) (*x509.Certificate, error) {
	if len(v.o.Roots) == 0 {
		return nil, ErrNoRoot
	}
	for _, root := range v.o.Roots {
		if bytes.Equal(root.Raw, der) {
			return root, v.certDates(root, "root")
		}
	}
	return nil, ErrUnknownRoot
}

// certificate parses der and checks that parent issued it for the role.
func (v *verification) certificate(der []byte, parent *x509.Certificate, want role) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", want.inMessages, ErrCertificate, err)
	}
	if err := checkCertificate(c, parent, want); err != nil {
		return nil, fmt.Errorf("%s: %w", want.inMessages, err)
	}
	v.noteSimulation(c)
	return c, v.certDates(c, want.inMessages)
}

func checkCertificate(c, parent *x509.Certificate, want role) error {
	key, ok := c.PublicKey.(*ecdsa.PublicKey)
	switch {
	case !ok || key.Curve != elliptic.P256():
		return ErrCertKey
	case c.SignatureAlgorithm != x509.ECDSAWithSHA256:
		return fmt.Errorf("%w: %v", ErrCertAlgorithm, c.SignatureAlgorithm)
	case !bytes.Equal(c.RawIssuer, parent.RawSubject):
		return fmt.Errorf("%w: %v", ErrCertIssuer, c.Issuer)
	case !verifiesASN1(parent, c.RawTBSCertificate, c.Signature):
		return ErrCertSignature
	case len(c.UnhandledCriticalExtensions) > 0:
		return fmt.Errorf("%w: %v", ErrCertExtension, c.UnhandledCriticalExtensions[0])
	case want.isCA && !(c.BasicConstraintsValid && c.IsCA):
		return ErrCertNotCA
	case !want.isCA && c.IsCA:
		return ErrCertIsCA
	case c.KeyUsage&want.usage != want.usage:
		return ErrCertKeyUsage
	case !strings.Contains(c.Subject.CommonName, want.name):
		return fmt.Errorf("%w: %q", ErrCertRole, c.Subject.CommonName)
	}
	return nil
}

// certDates holds a certificate to its own dates, and lets them bound the
// result. No grace extends them.
func (v *verification) certDates(c *x509.Certificate, what string) error {
	switch {
	case v.o.Now.Before(c.NotBefore):
		return fmt.Errorf("%s: %w: from %s", what, ErrCertNotYetValid, c.NotBefore.Format(time.RFC3339))
	case v.o.Now.After(c.NotAfter):
		return fmt.Errorf("%s: %w: on %s", what, ErrCertExpired, c.NotAfter.Format(time.RFC3339))
	}
	earliest(&v.result.CertsExpire, c.NotAfter)
	return nil
}

func (v *verification) noteSimulation(c *x509.Certificate) {
	if slices.Contains(c.Subject.Organization, SimulationOrganization) || slices.Contains(c.Issuer.Organization, SimulationOrganization) {
		v.result.Simulated = true
	}
}

// refuseSimulation is the second of the layers that keep simulated fleets out;
// the first is that their root is not among the given ones.
func (v *verification) refuseSimulation() error {
	if v.result.Simulated && !v.o.AllowSim {
		return ErrSimulated
	}
	return nil
}

// pckChain checks the chain in the quote: PCK certificate, CA, root.
func (v *verification) pckChain() error {
	ders, err := v.quote.Certificates()
	if err != nil {
		return err
	}
	if v.root, err = v.findRoot(ders[2]); err != nil {
		return err
	}
	v.noteSimulation(v.root)
	if v.ca, err = v.certificate(ders[1], v.root, pckCA); err != nil {
		return err
	}
	if v.pck, err = v.certificate(ders[0], v.ca, pckLeaf); err != nil {
		return err
	}
	return v.refuseSimulation()
}

// signerChain checks the chain of a signed document, TCB signing certificate
// and root, and returns the signer. It must end in the root of the quote.
func (v *verification) signerChain(chain []byte) (*x509.Certificate, error) {
	if v.signer != nil && bytes.Equal(chain, v.signerChainRead) {
		return v.signer, nil // both documents of Intel have the same
	}
	ders, err := quote.DecodeChain(chain, 2)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(ders[1], v.root.Raw) {
		return nil, ErrUnknownRoot
	}
	signer, err := v.certificate(ders[0], v.root, tcbSigner)
	if err != nil {
		return nil, err
	}
	if err := v.refuseSimulation(); err != nil {
		return nil, err
	}
	if revokes(v.rootCRL, signer.SerialNumber) {
		return nil, ErrTCBSignerRevoked
	}
	v.signer, v.signerChainRead = signer, chain
	return signer, nil
}

// verifiesASN1 checks a signature in DER by a certificate's P-256 key.
func verifiesASN1(by *x509.Certificate, message, signature []byte) bool {
	key, ok := by.PublicKey.(*ecdsa.PublicKey)
	sum := sha256.Sum256(message)
	return ok && key.Curve == elliptic.P256() && ecdsa.VerifyASN1(key, sum[:], signature)
}

// verifiesRaw checks a signature r || s.
func verifiesRaw(key *ecdsa.PublicKey, message []byte, signature *[64]byte) bool {
	sum := sha256.Sum256(message)
	r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
	return ecdsa.Verify(key, sum[:], r, s)
}
