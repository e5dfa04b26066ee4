package coreclient

import (
	"context"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// Rewrap implements wire.Rewrapper.
func (c *Client) Rewrap(ctx context.Context, w *wire.Rewrap) (*wire.Answer, error) {
	return c.ask(ctx, wire.OpRewrap, w)
}
