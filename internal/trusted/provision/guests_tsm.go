//go:build tsm

package provision

import (
	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/snp"
	"github.com/ehsm-kms/ehsm/internal/attest/tdx"
)

// guestMachine is machineIn for evidence of guests.
func guestMachine(e attest.Evidence) (attest.Machine, error) {
	if e.Kind == attest.SNPReport {
		r, err := snp.Parse(e.Quote)
		if err != nil {
			return attest.Machine{}, err
		}
		return attest.Machine{Chip: r.ChipID}, nil
	}
	q, err := tdx.Parse(e.Quote)
	if err != nil {
		return attest.Machine{}, err
	}
	return machineOfChain(q.Certificates())
}
