package primitive

import (
	"crypto/rand"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
)

// NewMaterial draws fresh key material for s. It is MaterialLen random bytes for
// symmetric keys and HMAC; PKCS#1 RSAPrivateKey in DER for RSA; and for EC and
// SM2 the private scalar followed by the uncompressed public point, both of
// fixed length. RSA takes from tenths of a second to seconds. It returns
// ErrUsage for an invalid spec.
func NewMaterial(s Spec) (secret.Bytes, error) {
	b, err := newMaterial(s)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("new material of %s: %w", s, err)
	}
	return secret.New(b), nil
}

func newMaterial(s Spec) ([]byte, error) {
	switch s.family() {
	case familyAES, familySM4, familyHMAC:
		b := make([]byte, s.MaterialLen())
		rand.Read(b)
		return b, nil
	case familyRSA:
		return newRSA(specs[s].bits)
	case familyEC:
		if s == ECP256K {
			return newK256()
		}
		return newEC(curveOf(s))
	case familySM2:
		return newSM2()
	}
	return nil, ErrUsage
}
