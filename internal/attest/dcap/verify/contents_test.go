package verify_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/attest/strictjson"
)

func TestQueryOf(t *testing.T) {
	for name, row := range map[string]struct {
		quote     []byte
		fmspc, ca string
	}{
		"processor CA": {read(t, "phala/sgx_quote"), "00a067110000", verify.CAProcessor},
		"platform CA":  {readHex(t, "automata/quotev3.hex"), "00606a000000", verify.CAPlatform},
		"simulation":   {newScene(t).quote, "0053494d0000", verify.CAPlatform},
	} {
		q, err := verify.QueryOf(row.quote)
		if err != nil || hex.EncodeToString(q.FMSPC[:]) != row.fmspc || q.CA != row.ca {
			t.Errorf("%s: got %x %q, %v, want %s %s", name, q.FMSPC, q.CA, err, row.fmspc, row.ca)
		}
	}
}

func TestQueryOfRefuses(t *testing.T) {
	s := newScene(t)
	template := issue.CATemplate(now)
	template.Subject.CommonName = "Simulated SGX PCK Other CA"
	other, err := s.fleet.Root.Issue(template)
	s.must(err)
	s.fleet.PCKCA = other
	machine, err := s.fleet.NewMachine(s.platform, now)
	s.must(err)
	otherCA, err := machine.Quote(s.report)
	s.must(err)
	for name, row := range map[string]struct {
		quote []byte
		want  error
	}{
		"empty":      {nil, quote.ErrTruncated},
		"TDX":        {read(t, "phala/tdx_quote"), quote.ErrTDX},
		"no chain":   {read(t, "oasis/quote_v3_ecdsa_p256_eppid.bin"), quote.ErrCertType},
		"unknown CA": {otherCA, verify.ErrCA},
	} {
		if q, err := verify.QueryOf(row.quote); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, %v, want %v", name, q, err, row.want)
		}
	}
}

func TestContents(t *testing.T) {
	c := phalaCollateral(t)
	got, err := c.Contents()
	if err != nil {
		t.Fatal(err)
	}
	if hex.EncodeToString(got.FMSPC[:]) != "00a067110000" || got.CA != verify.CAProcessor || got.PCEID != [2]byte{} || got.Simulated {
		t.Errorf("got %+v", got)
	}
	if got.TCBInfo.Evaluation != 17 || got.QEIdentity.Evaluation != 17 || got.RootCRL.Number == nil || got.PCKCRL.Number == nil {
		t.Errorf("got %+v", got)
	}
	if want := at(t, "2025-07-19T10:01:18Z"); !got.Expires().Equal(want) {
		t.Errorf("Expires: got %v, want %v", got.Expires(), want)
	}
	s := newScene(t)
	if got, err := s.collateral.Contents(); err != nil || !got.Simulated || got.CA != verify.CAPlatform || got.TCBInfo.Evaluation != 20 {
		t.Errorf("simulation: got %+v, %v", got, err)
	}
	s.collateral.PCKCRLIssuerChain = nil
	if _, err := s.collateral.Contents(); err != nil {
		t.Errorf("without the PCK CRL's issuer chain: %v", err)
	}
}

func TestContentsRefuses(t *testing.T) {
	page := []byte("<html><body>502 Bad Gateway</body></html>")
	for name, row := range map[string]struct {
		change func(c *verify.Collateral)
		want   error
	}{
		"no TCB info":             {func(c *verify.Collateral) { c.TCBInfo = nil }, verify.ErrDocumentMissing},
		"no QE identity":          {func(c *verify.Collateral) { c.QEIdentity = nil }, verify.ErrDocumentMissing},
		"no root CRL":             {func(c *verify.Collateral) { c.RootCRL = nil }, verify.ErrRootCRLMissing},
		"no PCK CRL":              {func(c *verify.Collateral) { c.PCKCRL = nil }, verify.ErrPCKCRLMissing},
		"page as TCB info":        {func(c *verify.Collateral) { c.TCBInfo = page }, strictjson.ErrSyntax},
		"page as QE identity":     {func(c *verify.Collateral) { c.QEIdentity = page }, strictjson.ErrSyntax},
		"page as root CRL":        {func(c *verify.Collateral) { c.RootCRL = page }, verify.ErrCRL},
		"page as PCK CRL":         {func(c *verify.Collateral) { c.PCKCRL = page }, verify.ErrCRL},
		"page as a chain":         {func(c *verify.Collateral) { c.TCBInfoIssuerChain = page }, quote.ErrPEM},
		"page as another chain":   {func(c *verify.Collateral) { c.QEIdentityIssuerChain = page }, quote.ErrPEM},
		"page as the CRL's":       {func(c *verify.Collateral) { c.PCKCRLIssuerChain = page }, quote.ErrPEM},
		"documents exchanged":     {func(c *verify.Collateral) { c.TCBInfo, c.QEIdentity = c.QEIdentity, c.TCBInfo }, verify.ErrDocumentVersion},
		"root CRL as PCK CRL":     {func(c *verify.Collateral) { c.PCKCRL = c.RootCRL }, verify.ErrCA},
		"chain of one":            {func(c *verify.Collateral) { c.TCBInfoIssuerChain = c.TCBInfoIssuerChain[:len(c.TCBInfoIssuerChain)/2] }, quote.ErrPEM},
		"chain of no certificate": {func(c *verify.Collateral) { c.TCBInfoIssuerChain = quote.EncodeChain([]byte{1}, []byte{2}) }, verify.ErrCertificate},
	} {
		c := phalaCollateral(t)
		row.change(&c)
		if got, err := c.Contents(); !errors.Is(err, row.want) {
			t.Errorf("%s: got %+v, %v, want %v", name, got, err, row.want)
		}
	}
}

func TestEncodeJSON(t *testing.T) {
	for name, c := range map[string]verify.Collateral{"phala": phalaCollateral(t), "automata": automataCollateral(t)} {
		b, err := c.EncodeJSON()
		if err != nil {
			t.Fatal(err)
		}
		back, err := verify.DecodeCollateralJSON(b)
		if err != nil || !bytes.Equal(back.Append(nil), c.Append(nil)) {
			t.Errorf("%s: does not decode to what was encoded: %v", name, err)
		}
	}
	c := phalaCollateral(t)
	c.TCBInfo = []byte("\xff")
	if b, err := c.EncodeJSON(); !errors.Is(err, verify.ErrBundle) {
		t.Errorf("not UTF-8: got %s, %v", b, err)
	}
}
