package guests

import (
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/admission"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/guesttest"
	"github.com/ehsm-kms/ehsm/internal/attest/restoration"
	"github.com/ehsm-kms/ehsm/internal/attest/snp"
	"github.com/ehsm-kms/ehsm/internal/attest/tdx"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

var now = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// A scene is a guest that restores, as a custodian sees it.
type scene struct {
	tdx *guesttest.TDX
	snp *guesttest.SNP
	g   restoration.Guest
}

func newScene(t *testing.T, m *guesttest.TDX, c *guesttest.SNP) *scene {
	t.Helper()
	s := &scene{tdx: m, snp: c}
	r := guesttest.Guest([64]byte{})
	measurement, hostData := guesttest.Measured()
	settings := manifest.Defaults(manifest.Production)
	settings.TrustRoots = append(settings.TrustRoots, manifest.AMDSNP)
	settings.SNPMinTCB = manifest.SNPTCB{Bootloader: 3, SNP: 8, Microcode: 115}
	settings.Code = []manifest.Code{
		{Role: manifest.RoleDKeyServer, TDX: manifest.TDXGuest{MRTD: r.MRTD, RTMR0: r.RTMR[0], RTMR1: r.RTMR[1], RTMR2: r.RTMR[2], RTMR3: r.RTMR[3], MRConfigID: r.MRConfigID}},
		{Role: manifest.RoleDKeyServer, SNP: manifest.SNPGuest{Measurement: measurement, HostData: hostData}},
	}
	settings.Platforms = []manifest.Platform{{Name: "node 1", PPID: m.Terms.Platform.PPID}, {Name: "node 2", Chip: c.ID}}
	s.g = restoration.Guest{Settings: &settings, Roots: []*x509.Certificate{m.Root, c.Root}, Now: now, ReportData: [64]byte{7}}
	return s
}

// intel has the guest of TDX make the evidence, amd that of SEV-SNP.
func (s *scene) intel(t *testing.T, change func(*tdx.Report)) {
	t.Helper()
	body := guesttest.Guest(s.g.ReportData)
	if change != nil {
		change(&body)
	}
	q, err := s.tdx.Quote(body)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.tdx.Collateral()
	if err != nil {
		t.Fatal(err)
	}
	s.g.Evidence, s.g.Collateral = attest.Evidence{Kind: attest.TDXQuote4, Quote: q}, c.Append(nil)
}

func (s *scene) amd(t *testing.T, change func([]byte)) {
	t.Helper()
	r, err := s.snp.Report(s.g.ReportData, change)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.snp.Collateral()
	if err != nil {
		t.Fatal(err)
	}
	s.g.Evidence, s.g.Collateral = attest.Evidence{Kind: attest.SNPReport, Quote: r}, c.Append(nil)
}

// TestRestoring has guests that restore a DomainKey, and what custodians release
// nothing to.
func TestRestoring(t *testing.T) {
	m, err := guesttest.NewTDX(now)
	if err != nil {
		t.Fatal(err)
	}
	c, err := guesttest.NewSNP(now)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name           string
		change         func(*scene)
		wantTDX, wants error // nil: it is released to
	}{
		{"as it should be", func(*scene) {}, nil, nil},
		{"for another request", func(s *scene) { s.g.ReportData[0]++ }, validate.ErrReportData, snp.ErrReportData},
		{"machine that is not admitted", func(s *scene) {
			s.g.Settings.Platforms = []manifest.Platform{{Name: "other", Serial: "0a"}, {Name: "chip", Chip: manifest.ChipID{9}}}
		}, validate.ErrPlatform, snp.ErrChip},
		{"guests of another role", func(s *scene) {
			for i := range s.g.Settings.Code {
				s.g.Settings.Code[i].Role = manifest.RoleDKeyCache
			}
		}, validate.ErrEnclave, validate.ErrEnclave},
		{"guests of another kind alone", func(s *scene) {
			s.g.Settings.Code[0].TDX = manifest.TDXGuest{MRTD: manifest.Register{1}}
			s.g.Settings.Code[1].SNP = manifest.SNPGuest{Measurement: manifest.Register{1}}
		}, tdx.ErrGuest, snp.ErrGuest},
		{"other host data, other RTMR3", func(s *scene) {
			s.g.Settings.Code[0].TDX.RTMR3[0]++
			s.g.Settings.Code[1].SNP.HostData[0]++
		}, tdx.ErrGuest, snp.ErrGuest},
	} {
		for _, kind := range []struct {
			name   string
			prove  func(*scene)
			want   error
			number string
		}{
			{"TDX", func(s *scene) { s.intel(t, nil) }, row.wantTDX, "PPID "},
			{"SEV-SNP", func(s *scene) { s.amd(t, nil) }, row.wants, "chip id "},
		} {
			s := newScene(t, m, c)
			kind.prove(s)
			row.change(s)
			s.g.Policy, err = admission.Policy(s.g.Settings, restoration.Role)
			if errors.Is(err, admission.ErrNobody) {
				s.g.Policy, err = &validate.Policy{AnyPlatform: true}, nil
			}
			if err != nil {
				t.Fatal(err)
			}
			found, err := Restoring(s.g)
			if !errors.Is(err, kind.want) || (err == nil) != (found != nil) {
				t.Errorf("%s, %s: got %+v, %v, want %v", row.name, kind.name, found, err, kind.want)
			}
			if err == nil && (!strings.HasPrefix(found.Number, kind.number) || !strings.HasPrefix(found.Machine, "node ") || found.Simulated) {
				t.Errorf("%s, %s: got %+v", row.name, kind.name, found)
			}
		}
	}
}

// TestKindsAreTold has evidence that says that it is of another kind.
func TestKindsAreTold(t *testing.T) {
	m, err := guesttest.NewTDX(now)
	if err != nil {
		t.Fatal(err)
	}
	c, err := guesttest.NewSNP(now)
	if err != nil {
		t.Fatal(err)
	}
	s := newScene(t, m, c)
	s.intel(t, nil)
	if s.g.Policy, err = admission.Policy(s.g.Settings, restoration.Role); err != nil {
		t.Fatal(err)
	}
	s.g.Evidence.Kind = attest.TDXQuote5
	if _, err := Restoring(s.g); !errors.Is(err, ErrKind) {
		t.Errorf("got %v, want ErrKind", err)
	}
	s.g.Evidence.Kind = attest.SNPReport
	if _, err := Restoring(s.g); err == nil {
		t.Error("a quote of TDX passes for a report")
	}
	s.intel(t, nil)
	for name, b := range map[string][]byte{"none": nil, "cut": s.g.Collateral[:100]} {
		g := s.g
		g.Collateral = b
		if _, err := Restoring(g); err == nil {
			t.Errorf("collateral: %s: no error", name)
		}
	}
}
