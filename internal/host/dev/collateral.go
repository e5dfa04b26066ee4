package dev

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
)

var errOtherPlatform = errors.New("this server knows the collateral of its own simulated machine only")

// A machineSource states collateral about the simulated machine, in place of
// Intel's services.
type machineSource struct {
	machine *sim.Machine
	now     func() time.Time
}

// Encoded implements relay.Collateral.
func (s machineSource) Encoded(_ context.Context, fmspc [6]byte, _ string) ([]byte, error) {
	now := s.now()
	if own := s.machine.Processor().Terms(now).Platform.FMSPC; fmspc != own {
		return nil, fmt.Errorf("%w: FMSPC %x, want %x", errOtherPlatform, fmspc, own)
	}
	c, err := s.machine.Collateral(now)
	if err != nil {
		return nil, fmt.Errorf("state collateral: %w", err)
	}
	return c.Append(nil), nil
}

// JSON implements rest.Collateral.
func (s machineSource) JSON(context.Context) (body []byte, expires time.Time, err error) {
	c, err := s.machine.Collateral(s.now())
	if err != nil {
		return nil, expires, fmt.Errorf("state collateral: %w", err)
	}
	contents, err := c.Contents()
	if err != nil {
		return nil, expires, fmt.Errorf("state collateral: %w", err)
	}
	body, err = c.EncodeJSON()
	return body, contents.Expires(), err
}
