//go:build ego

package launch

import (
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/ego"
)

func (p Program) openEGo() (tee.Platform, error) { return ego.Open(p.Product, p.SVN) }
