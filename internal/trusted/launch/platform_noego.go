//go:build !ego

package launch

import (
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

func (p Program) openEGo() (tee.Platform, error) {
	return nil, fmt.Errorf("%w: ego is not built into this program; build it with -tags ego", tee.ErrNoPlatform)
}
