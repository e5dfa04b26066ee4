package attested

import (
	"context"

	"github.com/ehsm-kms/ehsm/client/ehsm"
)

// Sealed returns a client of the same service and credentials that seals its requests
// to the core that v has verified, see ehsm.Client.Sealed. The service is verified
// with the first request, and again whenever it has another key, at least once a day.
// What Verify refuses makes requests fail with ehsm.ErrSealed and the *Error.
//
// A Verifier that accepts any domain or program seals to whatever answers.
func (v *Verifier) Sealed(c *ehsm.Client) *ehsm.Client {
	return c.Sealed(func(ctx context.Context, plain *ehsm.Client) (ehsm.SealingKey, error) {
		r, err := v.Verify(ctx, plain)
		if err != nil {
			return ehsm.SealingKey{}, err
		}
		return ehsm.SealingKey{Domain: r.DomainID, PublicKey: r.HPKEPublicKey}, nil
	})
}
