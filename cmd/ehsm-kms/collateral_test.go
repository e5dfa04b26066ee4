package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/host/collateral"
	"github.com/ehsm-kms/ehsm/internal/host/collateral/collateraltest"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

func TestCollateralSource(t *testing.T) {
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk")
	if err := os.WriteFile(junk, []byte("<html>"), 0o600); err != nil {
		t.Fatal(err)
	}
	pccs := collateraltest.NewServer(t, collateraltest.PCCS)
	for name, row := range map[string]struct {
		settings config.Collateral
		says     string
	}{
		"none":      {config.Collateral{Source: "none"}, "has no source of collateral: VerifyQuote will be refused"},
		"Intel's":   {config.Collateral{Source: "pcs"}, "from https://api.trustedservices.intel.com\n"},
		"another":   {config.Collateral{Source: "pcs", URL: "https://pcs.example"}, "from https://pcs.example\n"},
		"one's own": {config.Collateral{Source: "pccs", URL: pccs.URL, CAFile: pccs.CAFile()}, "from " + pccs.URL + "\n"},
		"a file":    {config.Collateral{Source: "bundle", Bundle: "../../internal/attest/dcap/testdata/phala/sgx_quote_collateral.json"}, "sgx_quote_collateral.json\n"},
	} {
		row.settings.Dir = filepath.Join(dir, "cache")
		var stderr bytes.Buffer
		f, err := openCollateral(row.settings, slog.New(slog.DiscardHandler), &stderr)
		if err != nil || (f == nil) != (name == "none") || !strings.Contains(stderr.String(), row.says) {
			t.Errorf("%s: got %v, %v, %q", name, f, err, &stderr)
		}
		if f != nil {
			f.Close()
		}
	}
	for name, row := range map[string]struct {
		settings config.Collateral
		want     error
	}{
		"plain HTTP":     {config.Collateral{Source: "pccs", URL: "http://localhost:8081"}, collateral.ErrSettings},
		"key file gone":  {config.Collateral{Source: "pcs", APIKeyFile: filepath.Join(dir, "none")}, os.ErrNotExist},
		"file gone":      {config.Collateral{Source: "bundle", Bundle: filepath.Join(dir, "none")}, os.ErrNotExist},
		"file is a page": {config.Collateral{Source: "bundle", Bundle: junk}, collateral.ErrBundle},
		"no directory":   {config.Collateral{Source: "pcs", Dir: junk}, nil},
	} {
		var stderr bytes.Buffer
		f, err := openCollateral(row.settings, slog.New(slog.DiscardHandler), &stderr)
		if err == nil || row.want != nil && !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, %v, want %v", name, f, err, row.want)
		}
	}
}

// An attestedCore gives evidence of a simulated machine.
type attestedCore struct {
	echoCore
	quote []byte
}

func (c *attestedCore) Call(ctx context.Context, call *wire.Call) (*wire.Answer, error) {
	a, err := c.echoCore.Call(ctx, call)
	if err != nil || call.Action != api.GetEvidence {
		return a, err
	}
	result, err := json.Marshal(api.GetEvidenceResult{Evidence: attest.Evidence{Kind: attest.SGXQuote3, Quote: c.quote}.Append(nil)})
	a.Audit = wire.Audit{}
	a.Reply = append(append([]byte(`{"code":200,"message":"success!","result":`), result...), '}')
	return a, err
}

// TestOwnCollateral starts the manager with a PCCS: it finds out what its core's
// evidence needs and serves it.
func TestOwnCollateral(t *testing.T) {
	fleet, err := issue.NewFleet(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	platform := issue.NewPlatform()
	machine, err := fleet.NewMachine(platform, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	q, err := machine.Quote(quote.Report{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := fleet.Collateral(issue.Terms{Platform: platform, Issued: time.Now(), Next: time.Now().Add(24 * time.Hour), Evaluation: 20})
	if err != nil {
		t.Fatal(err)
	}
	pccs := collateraltest.NewServer(t, collateraltest.PCCS)
	pccs.Offer(t, c)
	core := &attestedCore{echoCore{info: wire.Info{Instance: wire.NewUUID()}}, q}
	get := startKMS(t, core, map[string]string{
		"EHSM_KMS_COLLATERAL": "pccs", "EHSM_KMS_COLLATERAL_URL": pccs.URL, "EHSM_KMS_COLLATERAL_CA_FILE": pccs.CAFile(),
	})
	status, body := get("/attestation/collateral")
	for deadline := time.Now().Add(20 * time.Second); status == http.StatusServiceUnavailable && time.Now().Before(deadline); {
		status, body = get("/attestation/collateral")
	}
	got, err := verify.DecodeCollateralJSON(body)
	if status != 200 || err != nil {
		t.Fatalf("got %d %.200s, %v", status, body, err)
	}
	if _, err := verify.Verify(q, got, verify.Options{Roots: []*x509.Certificate{fleet.Root.Cert}, Now: time.Now(), AllowSim: true}); err != nil {
		t.Errorf("what was served does not verify the evidence: %v", err)
	}
}

// startKMS runs the manager with a core until the test ends, and returns a
// function that gets a path from it.
func startKMS(t *testing.T, core wire.Core, settings map[string]string) (get func(path string) (int, []byte)) {
	t.Helper()
	dir := t.TempDir()
	certFile, keyFile, roots := certificate(t, dir)
	addr, _ := listen(t, "unix:"+filepath.Join(dir, "core.sock"), core)
	env := map[string]string{
		"EHSM_KMS_LISTEN": "127.0.0.1:0", "EHSM_KMS_CORE": addr, "EHSM_KMS_COLLATERAL_DIR": filepath.Join(dir, "collateral"),
		"EHSM_KMS_DATABASE": filepath.Join(dir, "ehsm.db"), "EHSM_KMS_AUDIT": filepath.Join(dir, "audit"),
		"EHSM_KMS_TLS_CERT": certFile, "EHSM_KMS_TLS_KEY": keyFile,
	}
	says, stderr := io.Pipe()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, nil, func(name string) string {
			if value := settings[name]; value != "" {
				return value
			}
			return env[name]
		}, io.Discard, stderr, false)
		stderr.Close()
	}()
	lines := bufio.NewScanner(says)
	var url string
	for url == "" && lines.Scan() {
		_, url, _ = strings.Cut(lines.Text(), "ehsm-kms: serves ")
	}
	go io.Copy(io.Discard, says)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	t.Cleanup(func() {
		client.CloseIdleConnections()
		stop()
		if c := <-code; c != 0 {
			t.Errorf("exit code %d after an orderly end", c)
		}
	})
	return func(path string) (int, []byte) {
		resp, err := client.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, body
	}
}
