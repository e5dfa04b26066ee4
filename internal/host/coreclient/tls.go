package coreclient

import (
	"context"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// Vouch implements wire.Voucher.
func (c *Client) Vouch(ctx context.Context, k wire.TLSKey) (wire.TLSStatement, error) {
	s := c.pick(nil)
	if s == nil {
		return nil, ErrUnreachable
	}
	f, err := s.roundTrip(ctx, wire.OpTLS, k)
	if err != nil {
		return nil, err
	}
	return wire.DecodeTLSStatement(f.Payload)
}
