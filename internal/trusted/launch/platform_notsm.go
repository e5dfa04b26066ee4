//go:build !tsm

package launch

import (
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

func (p Program) openTSM() (tee.Platform, error) {
	return nil, fmt.Errorf("%w: tsm is not built into this program; build it with -tags tsm", tee.ErrNoPlatform)
}
