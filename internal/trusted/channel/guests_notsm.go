//go:build !tsm

package channel

import (
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel/internal/session"
)

// guestKinds are none: the verifiers of guests bring what no program for enclaves
// should link.
func guestKinds() []attest.Kind { return nil }

func (q quotes) judgeGuest(e attest.Evidence, _ session.Claim) (session.Verdict, error) {
	return session.Verdict{}, fmt.Errorf("%w: %v; build with -tags tsm", attest.ErrNoVerifier, e.Kind)
}
