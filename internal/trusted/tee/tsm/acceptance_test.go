//go:build tsm

package tsm

import (
	"errors"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/attest/acceptance"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/teetest"
)

func TestAcceptance(t *testing.T) {
	for name, g := range map[string]*guest{"TDX v4": tdx4(t), "TDX v5": tdx5(t)} {
		t.Run(name, func(t *testing.T) {
			teetest.Accept(t, func() (tee.Platform, error) { return g.open() }, acceptance.SealKeys, acceptance.LocalReport)
		})
	}
}

// TestAcceptanceOfADebugGuest has the published SEV-SNP report, whose guest the
// host may read.
func TestAcceptanceOfADebugGuest(t *testing.T) {
	teetest.Broken(t, start(t, snp(t)), acceptance.Identity)
}

func TestAcceptanceOfBrokenGuests(t *testing.T) {
	for name, brk := range map[string]func(*guest){
		"no quoting service":     func(g *guest) { g.err = errors.New("input/output error") },
		"stale reports":          func(g *guest) { g.stale = true },
		"somebody else's writes": func(g *guest) { g.races.Store(1 << 20) },
	} {
		t.Run(name, func(t *testing.T) {
			g := tdx4(t)
			p := start(t, g)
			brk(g)
			teetest.Broken(t, p, acceptance.Evidence)
		})
	}
}
