package gramine

import (
	"context"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/gramine/graminetest"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/teetest"
)

// openFake opens d on a machine with good randomness, whatever this one has.
func openFake(d FileSystem, svn uint16) (*Device, error) {
	return open(d, tee.ProductCore, svn, func() error { return nil })
}

func start(t testing.TB, d *graminetest.Device) *Device {
	t.Helper()
	p, err := openFake(d, 1)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSuite(t *testing.T) {
	d := graminetest.New()
	teetest.Run(t, func() (tee.Platform, error) { return openFake(d, 1) })
}

// TestHardware runs where Gramine's device is; docs/hardware.md says how.
func TestHardware(t *testing.T) {
	if _, err := os.Stat(filepath.Join(DefaultDir, typeFile)); err != nil {
		t.Skip("needs TEE hardware, under gramine-sgx: ", err)
	}
	teetest.Run(t, func() (tee.Platform, error) { return Open(Dir(DefaultDir), tee.ProductCore, 1) })
}

func TestEvidence(t *testing.T) {
	e, err := start(t, graminetest.New()).Evidence(t.Context(), [64]byte{1, 2})
	if err != nil || e.Kind != attest.SGXQuote3 {
		t.Fatalf("Evidence: got %v, %v", e.Kind, err)
	}
	q, err := quote.Parse(e.Quote)
	if err != nil || q.Report.ReportData != [64]byte{1, 2} || q.Report.MREnclave != [32]byte{4} {
		t.Errorf("Evidence: got %+v, %v", q, err)
	}
}

// TestNoPlatform has what is no enclave under Gramine with attestation.
func TestNoPlatform(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*graminetest.Device)
		text   string
	}{
		{"gramine-direct", func(d *graminetest.Device) { d.Direct = true }, "not gramine-direct"},
		{"type none", func(d *graminetest.Device) { d.Type = "none" }, `sgx.remote_attestation = "dcap"`},
		{"type epid", func(d *graminetest.Device) { d.Type = "epid" }, `is "epid"`},
		{"empty type", func(d *graminetest.Device) { d.Type = "" }, `is ""`},
		{"type with a line feed", func(d *graminetest.Device) { d.Type = "dcap\n" }, `is "dcap\n"`},
		{"unreadable type", func(d *graminetest.Device) { d.Fail = map[string]graminetest.Step{typeFile: graminetest.OnOpen} }, "injected"},
		{"half a type", func(d *graminetest.Device) { d.Fail = map[string]graminetest.Step{typeFile: graminetest.OnRead} }, "injected"},
	} {
		d := graminetest.New()
		row.change(d)
		p, err := openFake(d, 1)
		if p != nil || !errors.Is(err, tee.ErrNoPlatform) || !strings.Contains(err.Error(), row.text) {
			t.Errorf("%s: got %v, want ErrNoPlatform with %q", row.name, err, row.text)
		}
	}
}

// TestRefusedDevices has devices that do not say the truth, or not all of it.
func TestRefusedDevices(t *testing.T) {
	content := func(name string, b []byte) func(*graminetest.Device) {
		return func(d *graminetest.Device) { d.Content = map[string][]byte{name: b} }
	}
	fail := func(name string, step graminetest.Step) func(*graminetest.Device) {
		return func(d *graminetest.Device) { d.Fail = map[string]graminetest.Step{name: step} }
	}
	reserved := graminetest.New().Report.Append(nil)
	reserved[20] = 1
	for _, row := range []struct {
		name   string
		change func(*graminetest.Device)
		want   error
	}{
		{"stale report", func(d *graminetest.Device) { d.Stale = true }, tee.ErrEvidence},
		{"short writes", func(d *graminetest.Device) { d.ShortOnce = true }, nil},
		{"short report", content(reportFile, make([]byte, reportSize-1)), tee.ErrEvidence},
		{"long report", content(reportFile, make([]byte, reportSize+1)), tee.ErrEvidence},
		{"empty report", content(reportFile, nil), tee.ErrEvidence},
		{"zero report", content(reportFile, make([]byte, reportSize)), tee.ErrEvidence},
		{"endless report", content(reportFile, make([]byte, maxFile+1)), nil},
		{"reserved bytes set", content(reportFile, append(reserved, make([]byte, 48)...)), tee.ErrEvidence},
		{"short target info", content(myTargetInfoFile, make([]byte, 511)), tee.ErrEvidence},
		{"no target info", fail(myTargetInfoFile, graminetest.OnOpen), graminetest.ErrInjected},
		{"half a target info", fail(myTargetInfoFile, graminetest.OnRead), graminetest.ErrInjected},
		{"target info not written", fail(targetInfoFile, graminetest.OnWrite), graminetest.ErrInjected},
		{"target info not kept", fail(targetInfoFile, graminetest.OnClose), graminetest.ErrInjected},
		{"report data not written", fail(reportDataFile, graminetest.OnWrite), graminetest.ErrInjected},
		{"report data not kept", fail(reportDataFile, graminetest.OnClose), graminetest.ErrInjected},
		{"half a report", fail(reportFile, graminetest.OnRead), graminetest.ErrInjected},
		{"other product", func(d *graminetest.Device) { d.Report.ISVProdID = 2 }, tee.ErrIdentity},
		{"other version", func(d *graminetest.Device) { d.Report.ISVSVN = 2 }, tee.ErrIdentity},
		{"zero key", content(signerKeyFile, make([]byte, 16)), tee.ErrKeyRequest},
		{"key not set", content(signerKeyFile, nil), tee.ErrKeyRequest},
		{"short key", content(signerKeyFile, []byte{1, 2, 3}), tee.ErrKeyRequest},
		{"long key", content(signerKeyFile, append([]byte{1}, make([]byte, 31)...)), tee.ErrKeyRequest},
		{"no key", fail(signerKeyFile, graminetest.OnOpen), tee.ErrKeyRequest},
		{"half a key", fail(signerKeyFile, graminetest.OnRead), tee.ErrKeyRequest},
	} {
		d := graminetest.New()
		row.change(d)
		if p, err := openFake(d, 1); p != nil || err == nil || row.want != nil && !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
	}
}

func TestRefusedQuotes(t *testing.T) {
	mangle := func(f func(*quote.Quote)) func(*graminetest.Device) {
		return func(d *graminetest.Device) { d.MangleQuote = f }
	}
	for _, row := range []struct {
		name   string
		change func(*graminetest.Device)
		want   error
	}{
		{"stale", func(d *graminetest.Device) { d.Stale = true }, tee.ErrEvidence},
		{"of another enclave", mangle(func(q *quote.Quote) { q.Report.MREnclave[0]++ }), tee.ErrEvidence},
		{"of another signer", mangle(func(q *quote.Quote) { q.Report.MRSigner[0]++ }), tee.ErrEvidence},
		{"of another product", mangle(func(q *quote.Quote) { q.Report.ISVProdID++ }), tee.ErrEvidence},
		{"of another version", mangle(func(q *quote.Quote) { q.Report.ISVSVN-- }), tee.ErrEvidence},
		{"of a debug enclave", mangle(func(q *quote.Quote) { q.Report.Attributes.Flags |= quote.FlagDebug }), tee.ErrEvidence},
		{"one bit of REPORTDATA", mangle(func(q *quote.Quote) { q.Report.ReportData[63] ^= 1 }), tee.ErrEvidence},
		{"empty", func(d *graminetest.Device) { d.Content = map[string][]byte{quoteFile: nil} }, tee.ErrEvidence},
		{"zeros", func(d *graminetest.Device) { d.Content = map[string][]byte{quoteFile: make([]byte, 4000)} }, tee.ErrEvidence},
		{"endless", func(d *graminetest.Device) { d.Content = map[string][]byte{quoteFile: make([]byte, maxFile+1)} }, nil},
		{"half", func(d *graminetest.Device) { d.Fail = map[string]graminetest.Step{quoteFile: graminetest.OnRead} }, graminetest.ErrInjected},
		{"no AESM", func(d *graminetest.Device) { d.Fail = map[string]graminetest.Step{quoteFile: graminetest.OnOpen} }, graminetest.ErrInjected},
		{"report data not kept", func(d *graminetest.Device) { d.Fail = map[string]graminetest.Step{reportDataFile: graminetest.OnClose} }, graminetest.ErrInjected},
		{"short write", func(d *graminetest.Device) { d.ShortOnce = true }, nil},
	} {
		d := graminetest.New()
		p := start(t, d)
		if _, err := p.Evidence(t.Context(), [64]byte{7}); err != nil {
			t.Fatal(err)
		}
		row.change(d)
		if e, err := p.Evidence(t.Context(), [64]byte{8}); err == nil || e.Quote != nil || row.want != nil && !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
		*d = *graminetest.New() // it must recover
		if _, err := p.Evidence(t.Context(), [64]byte{9}); err != nil {
			t.Errorf("%s: afterwards: %v", row.name, err)
		}
	}
}

func TestEvidenceOfACancelledCaller(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := start(t, graminetest.New()).Evidence(ctx, [64]byte{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Evidence: got %v, want Canceled", err)
	}
}

func TestBadRandomness(t *testing.T) {
	p, err := open(graminetest.New(), 1, 1, func() error { return tee.ErrEntropy })
	if p != nil || !errors.Is(err, tee.ErrEntropy) {
		t.Errorf("got %v, want ErrEntropy", err)
	}
}

// TestUpdates says what an update does to what was sealed before.
func TestUpdates(t *testing.T) {
	before := start(t, graminetest.New())
	for _, row := range []struct {
		name   string
		change func(*graminetest.Device)
		svn    uint16
		opens  bool
		text   string
	}{
		{"rebuilt", func(d *graminetest.Device) { d.Report.MREnclave[0]++ }, 1, true, ""},
		{"newer microcode", func(d *graminetest.Device) { d.Report.CPUSVN[0]++ }, 1, false, "provision the DomainKey again"},
		{"older microcode", func(d *graminetest.Device) { d.Report.CPUSVN[0]-- }, 1, false, "provision the DomainKey again"},
		{"newer version", func(d *graminetest.Device) { d.Report.ISVSVN = 2 }, 2, false, "provision the DomainKey again"},
		{"older version", func(d *graminetest.Device) { d.Report.ISVSVN = 0 }, 0, false, "sealed by version 1, this is 0"},
		{"other machine", func(d *graminetest.Device) { d.Fuse++ }, 1, false, ""},
		{"other signer", func(d *graminetest.Device) { d.Report.MRSigner[0]++ }, 1, false, ""},
		{"debug", func(d *graminetest.Device) { d.Report.Attributes.Flags |= quote.FlagDebug }, 1, false, ""},
	} {
		q, key, err := before.NewSealKey(tee.BindSigner)
		if err != nil {
			t.Fatal(err)
		}
		d := graminetest.New()
		row.change(d)
		after, err := openFake(d, row.svn)
		if err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		got, err := after.SealKey(q)
		if same := err == nil && got.Equal(key); same != row.opens {
			t.Errorf("%s: opens %t, want %t", row.name, same, row.opens)
		}
		if row.text != "" && (!errors.Is(err, tee.ErrKeyRequest) || !strings.Contains(err.Error(), row.text)) {
			t.Errorf("%s: got %v, want ErrKeyRequest with %q", row.name, err, row.text)
		}
	}
}

// TestConcurrentEvidence is for the race detector: the fake locks nothing.
func TestConcurrentEvidence(t *testing.T) {
	p := start(t, graminetest.New())
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 20 {
				if _, err := p.Evidence(t.Context(), [64]byte{byte(i), byte(j)}); err != nil {
					t.Errorf("Evidence: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestDir reads a directory of plain files, which is no device: the report in it
// answers no question.
func TestDir(t *testing.T) {
	if err := Detect(Dir(filepath.Join(t.TempDir(), "none"))); !errors.Is(err, tee.ErrNoPlatform) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: got %v, want ErrNoPlatform", err)
	}
	dir := t.TempDir()
	put := func(name string, b []byte) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(typeFile, []byte("dcap"))
	if err := Detect(Dir(dir)); err != nil {
		t.Fatal(err)
	}
	if _, err := openFake(Dir(dir), 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no more than a type: got %v, want ErrNotExist", err)
	}
	put(myTargetInfoFile, make([]byte, targetInfoSize))
	if _, err := openFake(Dir(dir), 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("target_info must not be created: got %v, want ErrNotExist", err)
	}
	put(targetInfoFile, nil)
	put(reportDataFile, nil)
	put(signerKeyFile, []byte("0123456789abcdef"))
	report := graminetest.New().Report
	put(reportFile, append(report.Append(nil), make([]byte, 48)...))
	if _, err := openFake(Dir(dir), 1); !errors.Is(err, tee.ErrEvidence) {
		t.Errorf("a recorded report: got %v, want ErrEvidence", err)
	}
}

// TestKnownSealKey keeps the derivation: another result loses every sealed
// DomainKey. The answer is of another implementation of HKDF, in Python.
func TestKnownSealKey(t *testing.T) {
	d := graminetest.New()
	d.Content = map[string][]byte{signerKeyFile: []byte("0123456789abcdef")}
	q := tee.KeyRequest{Policy: tee.BindSigner, SVN: 1, KeyID: [32]byte{9}, Info: append([]byte{1}, d.Report.CPUSVN[:]...)}
	const want = "e6641976e0b3430d1e6c251143e28e9d33b6e59e567f09f1c39ee8179b7de324"
	k, err := start(t, d).SealKey(q)
	if got := hex.EncodeToString(k.Expose()); err != nil || got != want {
		t.Errorf("SealKey: got %s, %v, want %s", got, err, want)
	}
}
