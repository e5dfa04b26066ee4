package admission

import (
	"errors"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// TestGuestsOf has a manifest with guests, an enclave, and machines of both makers.
func TestGuestsOf(t *testing.T) {
	image := manifest.TDXGuest{MRTD: manifest.Register{1}, RTMR0: manifest.Register{2}, RTMR3: manifest.Register{3}, MRConfigID: manifest.Register{4}}
	s := &manifest.Settings{
		TrustRoots: []string{manifest.IntelSGX, manifest.AMDSNP}, SNPMinTCB: manifest.SNPTCB{SNP: 8},
		Code: []manifest.Code{
			{Role: "core", TDX: image}, {Role: "dkeycache", TDX: image},
			{Role: "core", SNP: manifest.SNPGuest{Measurement: manifest.Register{5}, HostData: manifest.Hash{6}}},
			{Role: "dkeyserver", MREnclave: manifest.Hash{7}},
		},
		Platforms: []manifest.Platform{{Name: "one", PPID: manifest.PPID{8}}, {Name: "chip", Chip: manifest.ChipID{9}}},
	}
	if g := GuestsOf(s, "dkeyserver"); g != nil || g.Has([32]byte{7}) {
		t.Errorf("a role of enclaves: got %+v", g)
	}
	g := GuestsOf(s, "core")
	if g == nil || len(g.TDX) != 1 || len(g.SNP) != 1 || len(g.Chips) != 1 || g.Chips[0].Name != "chip" || g.AnyChip || !g.AMD || g.MinTCB.SNP != 8 {
		t.Fatalf("core: got %+v", g)
	}
	tdx := attest.TDXMeasurement([48]byte{1}, [48]byte{4}, [4][48]byte{{2}, {}, {}, {3}})
	snp := attest.SNPMeasurement([48]byte{5}, [32]byte{6})
	for name, row := range map[string]struct {
		role        string
		measurement [32]byte
		want        bool
	}{
		"TDX":                            {"core", tdx, true},
		"TDX in its other role":          {"dkeycache", tdx, true},
		"TDX in no role of its":          {"dkeyserver", tdx, false},
		"TDX with registers exchanged":   {"core", attest.TDXMeasurement([48]byte{1}, [48]byte{4}, [4][48]byte{{3}, {}, {}, {2}}), false},
		"TDX with another configuration": {"core", attest.TDXMeasurement([48]byte{1}, [48]byte{}, [4][48]byte{{2}, {}, {}, {3}}), false},
		"SEV-SNP":                        {"core", snp, true},
		"SEV-SNP in another role":        {"dkeycache", snp, false},
		"SEV-SNP without host data":      {"core", attest.SNPMeasurement([48]byte{5}, [32]byte{}), false},
		"an enclave":                     {"dkeyserver", [32]byte{7}, false},
	} {
		if got := GuestsOf(s, row.role).Has(row.measurement); got != row.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
	p, err := Policy(s, "core")
	if err != nil || len(p.Enclaves) != 0 || len(p.Platforms) != 1 || p.Platforms[0].Name != "one" {
		t.Errorf("Policy of guests: got %+v, %v", p, err)
	}
	if p, err := Policy(s, "dkeyserver"); err != nil || len(p.Enclaves) != 1 || len(p.Platforms) != 1 {
		t.Errorf("Policy of enclaves: got %+v, %v", p, err)
	}
	if roots, err := Roots(s); err != nil || len(roots) != 1 {
		t.Errorf("Roots: got %d, %v: those of AMD are for reports", len(roots), err)
	}
	s.Platforms = nil
	if _, err := Policy(s, "core"); !errors.Is(err, ErrNobody) {
		t.Errorf("no machines: got %v", err)
	}
	s.TrustRoots, s.AnyPlatform = nil, true
	if g := GuestsOf(s, "core"); g.AMD || !g.AnyChip {
		t.Errorf("any machine, no root of AMD: got %+v", g)
	}
}
