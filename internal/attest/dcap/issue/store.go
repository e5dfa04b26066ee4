package issue

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
)

// ErrStored is wrapped by the errors of ParseFleet and ParseMachine.
var ErrStored = errors.New("stored simulated platform is malformed")

const (
	certType = "CERTIFICATE"
	keyType  = "PRIVATE KEY"
)

// Marshal returns the fleet with its private keys in PEM, for a file that only
// its maker may read.
func (f *Fleet) Marshal() ([]byte, error) {
	var out []byte
	for _, a := range []*Authority{f.Root, f.PCKCA, f.TCBSigner} {
		b, err := a.marshal()
		if err != nil {
			return nil, fmt.Errorf("encode fleet: %w", err)
		}
		out = append(out, b...)
	}
	return out, nil
}

// ParseFleet reads what Marshal wrote. Errors wrap ErrStored.
func ParseFleet(b []byte) (*Fleet, error) {
	f := &Fleet{}
	for _, at := range []**Authority{&f.Root, &f.PCKCA, &f.TCBSigner} {
		var err error
		if *at, b, err = parseAuthority(b); err != nil {
			return nil, fmt.Errorf("fleet: %w", err)
		}
	}
	if len(bytes.TrimSpace(b)) > 0 {
		return nil, fmt.Errorf("fleet: %w: more than three authorities", ErrStored)
	}
	for _, a := range []*Authority{f.PCKCA, f.TCBSigner} {
		if err := a.Cert.CheckSignatureFrom(f.Root.Cert); err != nil {
			return nil, fmt.Errorf("fleet: %w: %w", ErrStored, err)
		}
	}
	return f, nil
}

// Marshal returns the machine in PEM: its PCK with the private key, and the
// certificates above. The quoting enclave is not kept: a parsed machine has a
// fresh attestation key.
func (m *Machine) Marshal() ([]byte, error) {
	ders, err := quote.DecodeChain(m.Chain, 3)
	if err != nil {
		return nil, fmt.Errorf("encode machine: %w", err)
	}
	b, err := m.PCK.marshal()
	if err != nil {
		return nil, fmt.Errorf("encode machine: %w", err)
	}
	return append(b, quote.EncodeChain(ders[1:]...)...), nil
}

// ParseMachine reads what Marshal wrote and certifies a new quoting enclave.
// Errors wrap ErrStored.
func ParseMachine(b []byte) (*Machine, error) {
	pck, rest, err := parseAuthority(b)
	if err != nil {
		return nil, fmt.Errorf("machine: %w", err)
	}
	above, err := quote.DecodeChain(rest, 2)
	if err != nil {
		return nil, fmt.Errorf("machine: %w: %w", ErrStored, err)
	}
	return NewMachine(pck, quote.EncodeChain(pck.Cert.Raw, above[0], above[1]))
}

func (a *Authority) marshal() ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(a.Key)
	if err != nil {
		return nil, err
	}
	out := pem.EncodeToMemory(&pem.Block{Type: certType, Bytes: a.Cert.Raw})
	return append(out, pem.EncodeToMemory(&pem.Block{Type: keyType, Bytes: key})...), nil
}

func parseAuthority(b []byte) (*Authority, []byte, error) {
	certDER, b, err := nextBlock(b, certType)
	if err != nil {
		return nil, nil, err
	}
	keyDER, b, err := nextBlock(b, keyType)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(certDER)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrStored, err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyDER)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrStored, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, nil, fmt.Errorf("%w: the key is not that of %s", ErrStored, cert.Subject.CommonName)
	}
	return &Authority{Cert: cert, Key: key}, b, nil
}

func nextBlock(b []byte, want string) (der, rest []byte, err error) {
	block, rest := pem.Decode(b)
	if block == nil || block.Type != want {
		return nil, nil, fmt.Errorf("%w: want a block of type %s", ErrStored, want)
	}
	return block.Bytes, rest, nil
}
