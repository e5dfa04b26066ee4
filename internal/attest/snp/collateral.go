package snp

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/google/go-sev-guest/verify/trust"
)

// MaxCollateral is the longest collateral that DecodeCollateral reads, in bytes.
const MaxCollateral = 1 << 20

// ErrCollateral is wrapped by the errors of DecodeCollateral.
var ErrCollateral = errors.New("collateral of a SEV-SNP report is malformed")

// Collateral is what AMD says of a chip, as its key distribution service hands
// it out. Who carries it is not trusted. All of it is DER.
type Collateral struct {
	VCEK []byte // certificate of the chip at one TCB
	ASK  []byte // AMD's signing key for the product
	ARK  []byte // AMD's root key for the product
	CRL  []byte // of the ARK; empty if there is none
}

// Append appends the one encoding of c that programs send to each other: what
// DecodeCollateral reads, in lines of 64 characters and with nothing between blocks.
// Layout: docs/formats.md#snp-collateral-v1.
func (c *Collateral) Append(dst []byte) []byte {
	for _, der := range [][]byte{c.VCEK, c.ASK, c.ARK} {
		dst = append(dst, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	if len(c.CRL) > 0 {
		dst = append(dst, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: c.CRL})...)
	}
	return dst
}

// DecodeCollateral reads PEM: the certificates VCEK, ASK and ARK in this order,
// and after them, optionally, one X509 CRL. Errors wrap ErrCollateral.
func DecodeCollateral(b []byte) (Collateral, error) {
	if len(b) > MaxCollateral {
		return Collateral{}, fmt.Errorf("%w: %d bytes, limit %d", ErrCollateral, len(b), MaxCollateral)
	}
	var c Collateral
	for _, part := range []struct {
		name, kind string
		der        *[]byte
		optional   bool
	}{
		{"VCEK", "CERTIFICATE", &c.VCEK, false}, {"ASK", "CERTIFICATE", &c.ASK, false},
		{"ARK", "CERTIFICATE", &c.ARK, false}, {"CRL", "X509 CRL", &c.CRL, true},
	} {
		b = bytes.TrimSpace(b)
		if part.optional && len(b) == 0 {
			break
		}
		block, rest := pem.Decode(b)
		if block == nil || block.Type != part.kind || len(block.Headers) > 0 || !bytes.HasPrefix(b, []byte("-----BEGIN ")) {
			return Collateral{}, fmt.Errorf("%w: want the %s as a PEM block %s", ErrCollateral, part.name, part.kind)
		}
		*part.der, b = block.Bytes, rest
	}
	if len(bytes.TrimSpace(b)) > 0 {
		return Collateral{}, fmt.Errorf("%w: %d bytes follow it", ErrCollateral, len(b))
	}
	return c, nil
}

// Roots returns AMD's root certificates of the products Milan and Genoa, as AMD
// publishes them at https://kdsintf.amd.com/vcek/v1/{product}/cert_chain.
func Roots() []*x509.Certificate {
	var roots []*x509.Certificate
	for _, chain := range [][]byte{trust.AskArkMilanVcekBytes, trust.AskArkGenoaVcekBytes} {
		_, rest := pem.Decode(chain)
		block, _ := pem.Decode(rest)
		root, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			panic(fmt.Sprintf("embedded root certificate: %v", err)) // a test reads them
		}
		roots = append(roots, root)
	}
	return roots
}
