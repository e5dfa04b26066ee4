package coreclient

import (
	"context"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// Hear implements wire.Listener.
func (c *Client) Hear(ctx context.Context, p wire.Progress) error {
	s := c.pick(nil)
	if s == nil {
		return ErrUnreachable
	}
	_, err := s.roundTrip(ctx, wire.OpProgress, p)
	return err
}
