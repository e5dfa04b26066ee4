package admission

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

func settings() *manifest.Settings {
	s := manifest.Defaults(manifest.Production)
	s.Code = []manifest.Code{
		{Role: manifest.RoleCore, MRSigner: manifest.Hash{1}, Product: 1, MinSVN: 5},
		{Role: manifest.RoleDKeyServer, MRSigner: manifest.Hash{1}, Product: 3},
		{Role: manifest.RoleDKeyServer, MREnclave: manifest.Hash{9}},
	}
	s.Platforms = []manifest.Platform{{Name: "one", PPID: manifest.PPID{1}}, {Name: "two", Serial: "0a"}}
	s.Accept = []genesis.Acceptance{{Status: "OutOfDate", Advisory: "INTEL-SA-00615", Reason: "why"}}
	s.MinEvaluation, s.CollateralGrace = 17, 12
	return &s
}

// TestPolicy has the whole of what becomes of settings.
func TestPolicy(t *testing.T) {
	got, err := Policy(settings(), manifest.RoleDKeyServer)
	want := &validate.Policy{
		Enclaves: []validate.Enclave{
			{Name: "dkeyserver", MRSigner: [32]byte{1}, ISVProdID: 3}, {Name: "dkeyserver", MREnclave: [32]byte{9}},
		},
		Platforms:        []validate.Platform{{Name: "one", PPID: [16]byte{1}}, {Name: "two", Serial: "0a"}},
		Accepted:         []validate.Acceptance{{Status: verify.OutOfDate, Advisory: "INTEL-SA-00615", Reason: "why"}},
		MinTCBEvaluation: 17, TCBGrace: 30 * 24 * time.Hour, CollateralGrace: 12 * time.Hour,
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	s := settings()
	s.Platforms, s.AnyPlatform, s.AllowSim = nil, true, true
	if got, err := Policy(s, manifest.RoleCore); err != nil || !got.AnyPlatform || !got.AllowSim || got.AllowDebug || len(got.Enclaves) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestPolicyRefusals(t *testing.T) {
	for _, row := range []struct {
		name, role string
		change     func(*manifest.Settings)
		nobody     bool
	}{
		{"role without code", manifest.RoleDKeyCache, nil, true},
		{"no role", "", nil, true},
		{"unknown role", "manager", nil, true},
		{"no code", manifest.RoleCore, func(s *manifest.Settings) { s.Code = nil }, true},
		{"no platforms", manifest.RoleCore, func(s *manifest.Settings) { s.Platforms = nil }, true},
		{"unknown status", manifest.RoleCore, func(s *manifest.Settings) { s.Accept[0].Status = "Fine" }, false},
	} {
		s := settings()
		if row.change != nil {
			row.change(s)
		}
		if _, err := Policy(s, row.role); err == nil || errors.Is(err, ErrNobody) != row.nobody {
			t.Errorf("%s: got %v", row.name, err)
		}
	}
}

// TestCode has reports of programs judged in roles that are theirs or not.
func TestCode(t *testing.T) {
	for _, row := range []struct {
		name, role string
		report     quote.Report
		want       error
	}{
		{"core", "core", quote.Report{MRSigner: [32]byte{1}, ISVProdID: 1, ISVSVN: 5}, nil},
		{"newer core", "core", quote.Report{MRSigner: [32]byte{1}, ISVProdID: 1, ISVSVN: 6}, nil},
		{"dkeyserver by measurement", "dkeyserver", quote.Report{MREnclave: [32]byte{9}, MRSigner: [32]byte{7}}, nil},
		{"older core", "core", quote.Report{MRSigner: [32]byte{1}, ISVProdID: 1, ISVSVN: 4}, validate.ErrSVN},
		{"core as dkeyserver", "dkeyserver", quote.Report{MRSigner: [32]byte{1}, ISVProdID: 1, ISVSVN: 5}, validate.ErrEnclave},
		{"dkeyserver as core", "core", quote.Report{MRSigner: [32]byte{1}, ISVProdID: 3, ISVSVN: 5}, validate.ErrEnclave},
		{"other signer", "core", quote.Report{MRSigner: [32]byte{2}, ISVProdID: 1, ISVSVN: 5}, validate.ErrEnclave},
		{"debug mode", "core", quote.Report{MRSigner: [32]byte{1}, ISVProdID: 1, ISVSVN: 5, Attributes: quote.Attributes{Flags: 2}}, validate.ErrDebug},
	} {
		p, err := Policy(settings(), row.role)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.CheckEnclave(&row.report); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
	}
}

func TestRoots(t *testing.T) {
	fleet, err := issue.NewFleet(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	sim, intel := fleet.Root.Cert.Raw, verify.IntelRoot().Raw
	for _, row := range []struct {
		name     string
		names    []string
		allowSim bool
		simRoot  []byte
		want     [][]byte // nil: ErrRoot
	}{
		{"Intel's", []string{manifest.IntelSGX}, false, nil, [][]byte{intel}},
		{"both", []string{manifest.IntelSGX}, true, sim, [][]byte{intel, sim}},
		{"simulated only", nil, true, sim, [][]byte{sim}},
		{"simulation without a root", nil, true, nil, [][]byte{}},
		{"unknown", []string{"acme"}, false, nil, nil},
		{"simulation not allowed", []string{manifest.IntelSGX}, false, sim, nil},
		{"not marked", nil, true, intel, nil},
		{"no certificate", nil, true, []byte("root"), nil},
	} {
		roots, err := Roots(&manifest.Settings{TrustRoots: row.names, AllowSim: row.allowSim, SimRoot: row.simRoot})
		if (row.want == nil) != errors.Is(err, ErrRoot) || len(roots) != len(row.want) {
			t.Errorf("%s: got %d roots, %v", row.name, len(roots), err)
			continue
		}
		for i, r := range roots {
			if !bytes.Equal(r.Raw, row.want[i]) {
				t.Errorf("%s: root %d is of %v", row.name, i, r.Subject)
			}
		}
	}
}
