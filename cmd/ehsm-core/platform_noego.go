//go:build !ego

package main

import (
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

func openEGo() (tee.Platform, error) {
	return nil, fmt.Errorf("%w: ego is not built into this program; build it with -tags ego", tee.ErrNoPlatform)
}
