package sim

import (
	"bytes"
	"crypto/x509"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func openWith(t *testing.T, dir string, o Options) *Machine {
	t.Helper()
	o.Now = now
	m, err := OpenWith(dir, 1, 2, o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// judge has a machine's quote verified under terms that change alters.
func judge(t *testing.T, m *Machine, o verify.Options, change func(*issue.Terms)) (verify.Result, error) {
	t.Helper()
	terms := m.Processor().Terms(now)
	if change != nil {
		change(&terms)
	}
	c, err := m.Processor().Issue(terms)
	if err != nil {
		t.Fatal(err)
	}
	e, err := m.Evidence(t.Context(), [64]byte{1, 63: 2})
	if err != nil {
		t.Fatal(err)
	}
	if o.Now.IsZero() {
		o.Now = now
	}
	return verify.Verify(e.Quote, c, o)
}

func trusting(m *Machine) verify.Options {
	return verify.Options{Roots: []*x509.Certificate{m.Root()}, AllowSim: true}
}

func TestEvidenceVerifies(t *testing.T) {
	m := openWith(t, filepath.Join(t.TempDir(), "sim"), Options{})
	r, err := judge(t, m, trusting(m), nil)
	if err != nil {
		t.Fatal(err)
	}
	id := m.Identity()
	if r.Report.MREnclave != id.Measurement || r.Report.MRSigner != id.Signer || r.Report.ISVProdID != 1 || r.Report.ISVSVN != 2 ||
		r.Report.Attributes.Debug() || r.Report.ReportData != [64]byte{1, 63: 2} {
		t.Errorf("the quote says %+v, the identity is %+v", r.Report, id)
	}
	if r.Status != verify.UpToDate || !r.Simulated || r.Stale || r.Platform.Serial == "" || r.Expires != now.Add(collateralLife) {
		t.Errorf("got %+v", r)
	}
	c, err := m.Collateral(now)
	if err != nil {
		t.Fatal(err)
	}
	e, err := m.Evidence(t.Context(), [64]byte{})
	if err != nil {
		t.Fatal(err)
	}
	o := trusting(m)
	o.Now = now.Add(collateralLife)
	if _, err := verify.Verify(e.Quote, c, o); err != nil {
		t.Errorf("on the last day of the collateral: %v", err)
	}
	debug := *m
	debug.id.Debug = true
	if r, err := judge(t, &debug, trusting(m), nil); err != nil || !r.Report.Attributes.Debug() {
		t.Errorf("a debug program: got debug %t, %v", r.Report.Attributes.Debug(), err)
	}
}

// The first two layers that keep a simulated platform out of production: its
// root is nobody's root, and its subjects are refused.
func TestProductionRefusesEvidence(t *testing.T) {
	m := openWith(t, filepath.Join(t.TempDir(), "sim"), Options{})
	stranger := openWith(t, filepath.Join(t.TempDir(), "sim"), Options{})
	intel := []*x509.Certificate{verify.IntelRoot()}
	for name, row := range map[string]struct {
		o    verify.Options
		want error
	}{
		"no root":                         {verify.Options{}, verify.ErrNoRoot},
		"Intel's root":                    {verify.Options{Roots: intel}, verify.ErrUnknownRoot},
		"Intel's root, simulation allows": {verify.Options{Roots: intel, AllowSim: true}, verify.ErrUnknownRoot},
		"its root, simulation not":        {verify.Options{Roots: []*x509.Certificate{m.Root()}}, verify.ErrSimulated},
		"another fleet's":                 {trusting(stranger), verify.ErrUnknownRoot},
	} {
		if _, err := judge(t, m, row.o, nil); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", name, err, row.want)
		}
	}
}

func TestEveryStatusCanBeIssued(t *testing.T) {
	m := openWith(t, filepath.Join(t.TempDir(), "sim"), Options{})
	for s := verify.UpToDate; s < verify.Revoked; s++ {
		r, err := judge(t, m, trusting(m), func(t *issue.Terms) { t.Status, t.Advisories = s, []string{"INTEL-SA-00001"} })
		if err != nil || r.Status != s || len(r.Advisories) != 1 {
			t.Errorf("%v: got %v, %v", s, r.Status, err)
		}
	}
	serial, ok := new(big.Int).SetString(m.p.platform.Serial, 16)
	if !ok {
		t.Fatal("no serial number")
	}
	for name, row := range map[string]struct {
		change func(*issue.Terms)
		after  time.Duration
		want   error
	}{
		"platform revoked":   {func(t *issue.Terms) { t.Status = verify.Revoked }, 0, verify.ErrPlatformRevoked},
		"QE revoked":         {func(t *issue.Terms) { t.QEStatus = verify.Revoked }, 0, verify.ErrQERevoked},
		"PCK revoked":        {func(t *issue.Terms) { t.RevokedPCKs = []*big.Int{serial} }, 0, verify.ErrPCKRevoked},
		"CA revoked":         {func(t *issue.Terms) { t.RevokedCAs = []*big.Int{m.p.fleet.PCKCA.Cert.SerialNumber} }, 0, verify.ErrIntermediateRevoked},
		"collateral expired": {nil, collateralLife + time.Second, verify.ErrCRLExpired},
		"not yet issued":     {nil, -time.Second, verify.ErrCRLNotYetValid},
		"other platform":     {func(t *issue.Terms) { t.Platform.FMSPC[0]++ }, 0, verify.ErrFMSPC},
		"platform too old":   {func(t *issue.Terms) { t.Platform.PCESVN++ }, 0, verify.ErrNoTCBLevel},
	} {
		o := trusting(m)
		o.Now = now.Add(row.after)
		if _, err := judge(t, m, o, row.change); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", name, err, row.want)
		}
	}
}

func TestMachinesShareAFleet(t *testing.T) {
	fleet := filepath.Join(t.TempDir(), "fleet")
	first := openWith(t, filepath.Join(t.TempDir(), "a"), Options{Fleet: fleet})
	second := openWith(t, filepath.Join(t.TempDir(), "b"), Options{Fleet: fleet})
	if !first.Root().Equal(second.Root()) {
		t.Fatal("two machines of one fleet have two roots")
	}
	if first.p.platform.PPID == second.p.platform.PPID || first.p.platform.Serial == second.p.platform.Serial {
		t.Error("two machines are one platform")
	}
	c, err := first.Collateral(now)
	if err != nil {
		t.Fatal(err)
	}
	e, err := second.Evidence(t.Context(), [64]byte{})
	if err != nil {
		t.Fatal(err)
	}
	o := trusting(first)
	o.Now = now
	if _, err := verify.Verify(e.Quote, c, o); err != nil {
		t.Errorf("collateral of one for the other: %v", err)
	}
	if _, err := os.Stat(filepath.Join(fleet, "fleet.pem")); err != nil {
		t.Error(err)
	}
}

// What only attestation needs may be lost; what is there is never replaced.
func TestLostAndDamagedCertificates(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sim")
	machine := openWith(t, dir, Options{})
	pck, fleet := filepath.Join(dir, pckFile), filepath.Join(dir, FleetDir, fleetFile)
	if again := openWith(t, dir, Options{}); again.p.platform != machine.p.platform || !again.Root().Equal(machine.Root()) {
		t.Error("a second start is another platform")
	}
	kept := map[string][]byte{pck: read(t, pck), fleet: read(t, fleet)}
	elsewhere := filepath.Join(t.TempDir(), "other")
	strangers := filepath.Join(t.TempDir(), "sim")
	stranger := openWith(t, strangers, Options{Fleet: elsewhere})
	forged := *stranger.p.quoter // a leaf of another CA below this fleet's certificates
	forged.Chain = quote.EncodeChain(forged.PCK.Cert.Raw, machine.p.fleet.PCKCA.Cert.Raw, machine.p.fleet.Root.Cert.Raw)
	forgedPCK, err := forged.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	mixed := *machine.p.quoter // its own leaf below another fleet's certificates
	mixed.Chain = quote.EncodeChain(mixed.PCK.Cert.Raw, stranger.p.fleet.PCKCA.Cert.Raw, stranger.p.fleet.Root.Cert.Raw)
	mixedPCK, err := mixed.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		damage func() error
		o      Options
	}{
		"fleet lost":        {func() error { return os.Remove(fleet) }, Options{}},
		"fleet empty":       {func() error { return os.Truncate(fleet, 0) }, Options{}},
		"fleet cut":         {func() error { return os.Truncate(fleet, 1000) }, Options{}},
		"fleet open":        {func() error { return os.Chmod(fleet, 0o640) }, Options{}},
		"fleet of another":  {func() error { return nil }, Options{Fleet: elsewhere}},
		"no fleet there":    {func() error { return nil }, Options{Fleet: filepath.Join(elsewhere, "not")}},
		"PCK empty":         {func() error { return os.Truncate(pck, 0) }, Options{}},
		"PCK cut":           {func() error { return os.Truncate(pck, 500) }, Options{}},
		"PCK open":          {func() error { return os.Chmod(pck, 0o604) }, Options{}},
		"PCK too long":      {func() error { return os.Truncate(pck, maxPEM+1) }, Options{}},
		"PCK a directory":   {func() error { return errors.Join(os.Remove(pck), os.Mkdir(pck, 0o700)) }, Options{}},
		"PCK of another CA": {func() error { return os.WriteFile(pck, forgedPCK, 0o600) }, Options{}},
		"mixed chain":       {func() error { return os.WriteFile(pck, mixedPCK, 0o600) }, Options{}},
		"PCK of a stranger": {func() error { return os.WriteFile(pck, read(t, filepath.Join(strangers, pckFile)), 0o600) }, Options{}},
		"fleet a directory": {func() error { return errors.Join(os.Remove(fleet), os.Mkdir(fleet, 0o700)) }, Options{}},
	} {
		if err := row.damage(); err != nil {
			t.Fatal(err)
		}
		row.o.Now = now
		if _, err := OpenWith(dir, 1, 2, row.o); err == nil {
			t.Errorf("%s: the machine opens", name)
		}
		for path, b := range kept {
			if err := errors.Join(os.RemoveAll(path), os.WriteFile(path, b, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Remove(pck); err != nil {
		t.Fatal(err)
	}
	newcomer := openWith(t, dir, Options{})
	if newcomer.p.platform.PPID == machine.p.platform.PPID || !newcomer.Root().Equal(machine.Root()) || !newcomer.p.fuse.Equal(machine.p.fuse) {
		t.Error("a lost PCK: want another platform of the same fleet with the same fuse key")
	}
	if err := os.RemoveAll(filepath.Join(dir, FleetDir)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenWith(dir, 1, 2, Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a lost fleet: got %v, want ErrNotExist", err)
	}
	if _, err := os.Lstat(fleet); err == nil {
		t.Error("a lost fleet: the machine makes another one")
	}
	if err := os.Remove(pck); err != nil {
		t.Fatal(err)
	}
	fresh := openWith(t, dir, Options{})
	if fresh.Root().Equal(machine.Root()) || !fresh.p.fuse.Equal(machine.p.fuse) {
		t.Error("both lost: want another fleet with the same fuse key")
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Eight start at once on a directory that is not there: they agree.
func TestParallelFirstStarts(t *testing.T) {
	for range 4 {
		dir := filepath.Join(t.TempDir(), "sim")
		opened := make(chan *Machine)
		for range 8 {
			go func() {
				m, err := Open(dir, 1, 1)
				if err != nil {
					t.Error(err)
				}
				opened <- m
			}()
		}
		var first *Machine
		for range 8 {
			m := <-opened
			if m == nil {
				continue
			}
			if first == nil {
				first = m
			}
			if !m.p.fuse.Equal(first.p.fuse) || !m.Root().Equal(first.Root()) || m.p.platform != first.p.platform || !bytes.Equal(m.p.signer, first.p.signer) {
				t.Error("two starts made two machines")
			}
		}
		for _, pattern := range []string{filepath.Dir(dir) + "/.sim-*", dir + "/.new-*", dir + "/fleet/.new-*"} {
			if left, err := filepath.Glob(pattern); err != nil || len(left) != 0 {
				t.Errorf("left %v behind, %v", left, err)
			}
		}
	}
}
