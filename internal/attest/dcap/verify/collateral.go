package verify

import (
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// Limits of the parts of collateral, in bytes. Intel's documents have less than
// 20 KiB; its longest PCK CRL grows with the machines revoked.
const (
	MaxChain    = 16 << 10
	MaxCRL      = 1 << 20
	MaxDocument = 256 << 10
	MaxBundle   = 4 << 20 // of any encoding of all of it
)

// ErrBundle is wrapped by the errors of the decoders of collateral.
var ErrBundle = errors.New("collateral is malformed")

// Collateral is what Intel says of a platform, as it was fetched: RFC 9334 calls
// it endorsements. Who carries it is not trusted; all of it is signed. Chains
// are PEM with the issuer's certificate first and the root last.
type Collateral struct {
	PCKCRLIssuerChain []byte // optional: the quote has it too; checked if it is there
	RootCRL           []byte // DER
	PCKCRL            []byte // DER, of the CA that issued the platform's PCK certificate

	TCBInfoIssuerChain []byte
	TCBInfo            []byte   // the object `tcbInfo` as Intel served it, byte for byte
	TCBInfoSignature   [64]byte // r || s over TCBInfo

	QEIdentityIssuerChain []byte
	QEIdentity            []byte   // the object `enclaveIdentity`, byte for byte
	QEIdentitySignature   [64]byte // r || s over QEIdentity
}

const bundleV1 = 1

// Append appends the bundle encoding of c. Layout: docs/formats.md#collateral-v1.
func (c *Collateral) Append(dst []byte) []byte {
	dst = append(dst, bundleV1)
	dst = pack.AppendBytes(dst, c.PCKCRLIssuerChain)
	dst = pack.AppendBytes(dst, c.RootCRL)
	dst = pack.AppendBytes(dst, c.PCKCRL)
	dst = pack.AppendBytes(dst, c.TCBInfoIssuerChain)
	dst = pack.AppendBytes(dst, c.TCBInfo)
	dst = append(dst, c.TCBInfoSignature[:]...)
	dst = pack.AppendBytes(dst, c.QEIdentityIssuerChain)
	dst = pack.AppendBytes(dst, c.QEIdentity)
	return append(dst, c.QEIdentitySignature[:]...)
}

// DecodeCollateral reads what Append wrote, and nothing else. The collateral
// shares memory with b. Errors wrap ErrBundle.
func DecodeCollateral(b []byte) (Collateral, error) {
	r := pack.NewReader(b)
	if v := r.Uint8(); r.Err() == nil && v != bundleV1 {
		r.Fail("format %d is unknown", v)
	}
	c := Collateral{
		PCKCRLIssuerChain:  r.Bytes(MaxChain),
		RootCRL:            r.Bytes(MaxCRL),
		PCKCRL:             r.Bytes(MaxCRL),
		TCBInfoIssuerChain: r.Bytes(MaxChain),
		TCBInfo:            r.Bytes(MaxDocument),
	}
	r.Array(c.TCBInfoSignature[:])
	c.QEIdentityIssuerChain = r.Bytes(MaxChain)
	c.QEIdentity = r.Bytes(MaxDocument)
	r.Array(c.QEIdentitySignature[:])
	if err := r.Close(); err != nil {
		return Collateral{}, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	return c, nil
}
