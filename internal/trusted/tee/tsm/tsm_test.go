//go:build tsm

package tsm

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-configfs-tsm/configfs/configfsi"
	"github.com/google/go-configfs-tsm/configfs/faketsm"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/teetest"
)

// guest is a fake kernel of a guest. What it answers are quotes and reports of
// real machines with other REPORTDATA.
type guest struct {
	provider string
	template []byte
	at       int // of REPORTDATA in template

	err   error        // of reading outblob
	stale bool         // outblob answers another question
	races atomic.Int32 // reads that somebody else writes into

	privilege string // what was last written
}

func tdxGuest(t testing.TB, vector string, at int) *guest {
	return &guest{provider: "tdx_guest\n", template: vectors(t)[vector], at: at}
}

func tdx4(t testing.TB) *guest { return tdxGuest(t, "tdx_quote", headerSize+tdDataOffset) }
func tdx5(t testing.TB) *guest { return tdxGuest(t, "tdx_quote_outdated", headerSize+6+tdDataOffset) }

func snp(t testing.TB) *guest {
	return &guest{provider: "sev_guest\n", template: vectors(t)["snp_report.bin"], at: snpDataOffset}
}

func (g *guest) client() configfsi.Client {
	return &faketsm.Client{Subsystems: map[string]configfsi.Client{"report": &faketsm.ReportSubsystem{
		MakeEntry: func() *faketsm.ReportEntry {
			in := map[string]*faketsm.ReportAttributeState{"inblob": {}}
			if g.provider == "sev_guest\n" {
				in["privlevel"] = &faketsm.ReportAttributeState{}
			}
			// Another generation, or the fake has no provider before a write.
			return &faketsm.ReportEntry{InAttrs: in, ReadGeneration: 1 << 40}
		},
		ReadAttr: g.read,
		CheckInAttr: func(e *faketsm.ReportEntry, attr string, b []byte) error {
			if _, ok := e.InAttrs[attr]; !ok {
				return fs.ErrNotExist
			}
			if attr == "privlevel" {
				g.privilege = string(b)
			}
			return nil
		},
		Random:  rand.Reader,
		Entries: map[string]*faketsm.ReportEntry{},
	}}}
}

func (g *guest) read(e *faketsm.ReportEntry, attr string) ([]byte, error) {
	switch attr {
	case "provider":
		return []byte(g.provider), nil
	case "outblob":
		if g.err != nil {
			return nil, g.err
		}
		if g.races.Add(-1) >= 0 {
			e.WriteGeneration++
		}
		b := bytes.Clone(g.template)
		if !g.stale && len(b) >= g.at+64 {
			copy(b[g.at:], e.InAttrs["inblob"].Value)
		}
		return b, nil
	}
	return nil, fs.ErrNotExist
}

func (g *guest) open() (*Guest, error) {
	return open(g.client(), 1, 2, func() error { return nil })
}

func start(t testing.TB, g *guest) *Guest {
	t.Helper()
	p, err := g.open()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSuite(t *testing.T) {
	for name, g := range map[string]*guest{"TDX v4": tdx4(t), "TDX v5": tdx5(t), "SEV-SNP": snp(t)} {
		t.Run(name, func(t *testing.T) {
			teetest.Run(t, func() (tee.Platform, error) { return g.open() })
		})
	}
}

// TestHardware runs in a confidential guest; docs/hardware.md says how.
func TestHardware(t *testing.T) {
	client, err := Client()
	if err != nil {
		t.Skip("needs TEE hardware, a confidential guest: ", err)
	}
	teetest.Run(t, func() (tee.Platform, error) { return Open(client, tee.ProductCore, 1) })
}

func TestEvidenceKinds(t *testing.T) {
	for _, row := range []struct {
		guest *guest
		kind  attest.Kind
		name  string
	}{{tdx4(t), attest.TDXQuote4, "tdx"}, {tdx5(t), attest.TDXQuote5, "tdx"}, {snp(t), attest.SNPReport, "snp"}} {
		p := start(t, row.guest)
		e, err := p.Evidence(t.Context(), [64]byte{1, 2, 3})
		if err != nil || e.Kind != row.kind || p.Name() != row.name {
			t.Errorf("Evidence: got %v of %s, %v, want %v of %s", e.Kind, p.Name(), err, row.kind, row.name)
		}
	}
	g := snp(t)
	start(t, g)
	if g.privilege != "0" {
		t.Errorf("SEV-SNP: asked for privilege level %q, want 0", g.privilege)
	}
}

func TestNoPlatform(t *testing.T) {
	for name, provider := range map[string]string{
		"fake": "fake\n", "empty": "", "arm": "arm_cca_guest\n", "two line feeds": "tdx_guest\n\n", "prefix": "tdx_guest2\n",
	} {
		g := tdx4(t)
		g.provider = provider
		if p, err := g.open(); p != nil || !errors.Is(err, tee.ErrNoPlatform) {
			t.Errorf("%s: got %v, want ErrNoPlatform", name, err)
		}
	}
	none := &faketsm.Client{Subsystems: map[string]configfsi.Client{}}
	if p, err := Open(none, 1, 1); p != nil || !errors.Is(err, tee.ErrNoPlatform) {
		t.Errorf("no report subsystem: got %v, want ErrNoPlatform", err)
	}
}

func TestRefusedAnswers(t *testing.T) {
	failure := errors.New("quoting service is away")
	for _, row := range []struct {
		name   string
		change func(*guest)
		want   error
	}{
		{"stale", func(g *guest) { g.stale = true }, tee.ErrEvidence},
		{"empty", func(g *guest) { g.template = nil }, tee.ErrEvidence},
		{"cut", func(g *guest) { g.template = g.template[:1000] }, tee.ErrEvidence},
		{"of another TEE", func(g *guest) { g.template, g.at = vectors(t)["snp_report.bin"], snpDataOffset }, tee.ErrEvidence},
		{"error of the kernel", func(g *guest) { g.err = failure }, nil},
		{"races without end", func(g *guest) { g.races.Store(1000) }, tee.ErrEvidence},
		{"as many races as attempts", func(g *guest) { g.races.Store(attempts) }, tee.ErrEvidence},
		{"another provider", func(g *guest) { g.provider = "sev_guest\n" }, tee.ErrEvidence},
	} {
		g := tdx4(t)
		p := start(t, g)
		row.change(g)
		e, err := p.Evidence(t.Context(), [64]byte{5})
		if err == nil || e.Quote != nil || row.want != nil && !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
	}
}

// TestRace has somebody else write into the entry, but not for ever.
func TestRace(t *testing.T) {
	g := tdx4(t)
	p := start(t, g)
	g.races.Store(attempts - 1)
	if _, err := p.Evidence(t.Context(), [64]byte{6}); err != nil {
		t.Errorf("Evidence: %v", err)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := start(t, tdx4(t)).Evidence(ctx, [64]byte{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Evidence: got %v, want Canceled", err)
	}
}

func TestIdentity(t *testing.T) {
	g := tdx4(t)
	id := start(t, g).Identity()
	if id.Product != 1 || id.SVN != 2 || id.Debug || id.Signer != [32]byte{} {
		t.Errorf("Identity: got %+v", id)
	}
	g.template[headerSize+attributesOffset] |= 1
	if !start(t, g).Identity().Debug {
		t.Error("a debuggable guest does not show")
	}
}

func TestBadRandomness(t *testing.T) {
	p, err := open(tdx4(t).client(), 1, 1, func() error { return tee.ErrEntropy })
	if p != nil || !errors.Is(err, tee.ErrEntropy) {
		t.Errorf("got %v, want ErrEntropy", err)
	}
}

func TestNoSealKeySaysWhy(t *testing.T) {
	_, err := start(t, snp(t)).SealKey(tee.KeyRequest{Policy: tee.BindSigner})
	if !errors.Is(err, tee.ErrNoSealKey) || !strings.Contains(err.Error(), "snp") {
		t.Errorf("SealKey: got %v, want ErrNoSealKey", err)
	}
}
