//go:build tsm

package launch

import (
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/tsm"
)

func (p Program) openTSM() (tee.Platform, error) {
	client, err := tsm.Client()
	if err != nil {
		return nil, err
	}
	return tsm.Open(client, p.Product, p.SVN)
}
