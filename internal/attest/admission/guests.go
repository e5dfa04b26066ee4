package admission

import (
	"slices"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// Guests are the confidential guests that are accepted in a role, in the words of
// the manifest: only programs with their verifiers make policies of them. Which
// machines a TDX guest may be on is in the validate.Policy of the role.
type Guests struct {
	TDX []manifest.TDXGuest
	SNP []manifest.SNPGuest
	// Chips are the admitted processors of AMD, or AnyChip admits all.
	Chips   []manifest.Platform
	AnyChip bool
	// MinTCB is what the firmware of chips must reach.
	MinTCB manifest.SNPTCB
	// AMD says that reports under AMD's root keys are genuine.
	AMD bool
}

// GuestsOf returns the guests that a domain's settings accept in a role; nil: none.
func GuestsOf(s *manifest.Settings, role string) *Guests {
	g := &Guests{AnyChip: s.AnyPlatform, MinTCB: s.SNPMinTCB, AMD: slices.Contains(s.TrustRoots, manifest.AMDSNP)}
	for _, c := range s.Code {
		switch {
		case c.Role != role:
		case c.TDX != manifest.TDXGuest{}:
			g.TDX = append(g.TDX, c.TDX)
		case c.SNP != manifest.SNPGuest{}:
			g.SNP = append(g.SNP, c.SNP)
		}
	}
	if len(g.TDX)+len(g.SNP) == 0 {
		return nil
	}
	for _, p := range s.Platforms {
		if p.Chip != (manifest.ChipID{}) {
			g.Chips = append(g.Chips, p)
		}
	}
	return g
}

// Has reports that a guest with a measurement, of attest.TDXMeasurement or
// attest.SNPMeasurement, is accepted. g may be nil.
func (g *Guests) Has(measurement [32]byte) bool {
	if g == nil {
		return false
	}
	return slices.ContainsFunc(g.TDX, func(x manifest.TDXGuest) bool {
		var rtmr [4][48]byte
		for i, r := range x.RTMR() {
			rtmr[i] = r
		}
		return attest.TDXMeasurement(x.MRTD, x.MRConfigID, rtmr) == measurement
	}) || slices.ContainsFunc(g.SNP, func(x manifest.SNPGuest) bool {
		return attest.SNPMeasurement(x.Measurement, x.HostData) == measurement
	})
}
