package relay

import (
	"context"
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

var errNoCollateral = errors.New("no source of collateral is configured")

// collate answers the core's question for collateral. If there is none the core
// hears that, and refuses the quote with a text of its own.
func (x *exchange) collate(ctx context.Context, q *wire.CollateralQuery) {
	x.call.Collated, x.call.Collateral = true, nil
	source := x.relay.opts.Collateral
	if source == nil {
		x.trouble = errNoCollateral
		return
	}
	ctx, cancel := context.WithTimeout(ctx, x.relay.opts.CollateralTimeout)
	defer cancel()
	if !x.collated {
		select {
		case x.relay.collaterals <- struct{}{}:
			x.collated = true
		case <-ctx.Done():
			x.trouble = fmt.Errorf("wait for a turn at the source of collateral: %w", ctx.Err())
			return
		}
	}
	b, err := source.Encoded(ctx, q.FMSPC, q.CA)
	switch {
	case err != nil:
		x.trouble = fmt.Errorf("collateral for FMSPC %x, %s CA: %w", q.FMSPC, q.CA, err)
	case len(b) > wire.MaxCollateral:
		x.trouble = fmt.Errorf("collateral for FMSPC %x, %s CA: %d bytes, limit %d", q.FMSPC, q.CA, len(b), wire.MaxCollateral)
	default:
		x.call.Collateral, x.trouble = b, nil
	}
}
