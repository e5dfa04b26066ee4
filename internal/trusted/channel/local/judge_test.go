package local

import (
	"errors"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel/internal/session"
)

// TestCollateralIsRefused offers what nobody asks for on a local channel.
func TestCollateralIsRefused(t *testing.T) {
	_, err := reports{}.Judge(t.Context(), session.Claim{Collateral: []byte{1}})
	if !errors.Is(err, channel.ErrProtocol) {
		t.Errorf("got %v, want ErrProtocol", err)
	}
}
