package dev

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/host/collateral"
)

// TestOwnCollateral has a stranger verify the server with what the server serves,
// and nothing else but leave for simulated platforms.
func TestOwnCollateral(t *testing.T) {
	s := start1(t, t.TempDir())
	defer s.Close()
	fetch := func(path string) []byte {
		c := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
		resp, err := c.Get(s.URL() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s: HTTP %d, %.200s, %v", path, resp.StatusCode, b, err)
		}
		return b
	}
	c, err := verify.DecodeCollateralJSON(fetch("/attestation/collateral"))
	if err != nil {
		t.Fatal(err)
	}
	challenge := base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("c", 32)))
	q, err := collateral.QuoteIn(fetch("/ehsm?Action=GetEvidence&challenge=" + challenge))
	if err != nil {
		t.Fatal(err)
	}
	ders, err := quote.DecodeChain(c.TCBInfoIssuerChain, 2)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(ders[1])
	if err != nil {
		t.Fatal(err)
	}
	got, err := verify.Verify(q, c, verify.Options{Roots: []*x509.Certificate{root}, Now: time.Now(), AllowSim: true})
	if err != nil || got.Status != verify.UpToDate || !got.Simulated {
		t.Errorf("got %v, simulated %v, %v", got.Status, got.Simulated, err)
	}
	if _, err := verify.Verify(q, c, verify.Options{Roots: []*x509.Certificate{verify.IntelRoot()}, Now: time.Now()}); err == nil {
		t.Error("a simulated platform passes for Intel's")
	}
}
