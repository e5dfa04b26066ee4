//go:build !tsm

package provision

import (
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/attest"
)

// guestMachine refuses: a program without the build tag tsm runs in no guest.
func guestMachine(e attest.Evidence) (attest.Machine, error) {
	return attest.Machine{}, fmt.Errorf("%w: %v", attest.ErrNoVerifier, e.Kind)
}
