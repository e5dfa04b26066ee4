package collateraltest_test

import (
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/host/collateral/collateraltest"
)

// recorded is collateral of a processor CA's platform.
func recorded(t *testing.T) verify.Collateral {
	t.Helper()
	b, err := os.ReadFile("../../../attest/dcap/testdata/phala/sgx_quote_collateral.json")
	if err != nil {
		t.Fatal(err)
	}
	c, err := verify.DecodeCollateralJSON(b)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestServesWhatIsDocumented holds the server to the tables of Intel's
// documentation: paths, parameters, status codes, content types and headers.
func TestServesWhatIsDocumented(t *testing.T) {
	c := recorded(t)
	const tcb, identity, crl = collateraltest.TCBInfo, collateraltest.QEIdentity, collateraltest.PCKCRL
	isJSON := func(body []byte) bool { return json.Valid(body) }
	isHex := func(body []byte) bool { _, err := hex.DecodeString(string(body)); return err == nil }
	isDER := func(body []byte) bool { return body[0] == 0x30 && !isHex(body) }
	isPEM := func(body []byte) bool { b, _ := pem.Decode(body); return b != nil && b.Type == "X509 CRL" }
	for name, row := range map[string]struct {
		flavour     collateraltest.Flavour
		path        string
		status      int
		contentType string
		chain       string // name of the header, as documented
		is          func([]byte) bool
	}{
		"PCS, TCB info":            {collateraltest.PCS, tcb + "?fmspc=00A067110000", 200, "application/json", "TCB-Info-Issuer-Chain", isJSON},
		"PCS, TCB info, early":     {collateraltest.PCS, tcb + "?fmspc=00a067110000&update=early", 200, "application/json", "TCB-Info-Issuer-Chain", isJSON},
		"PCS, unknown FMSPC":       {collateraltest.PCS, tcb + "?fmspc=000000000000", 404, "", "", nil},
		"PCS, FMSPC too short":     {collateraltest.PCS, tcb + "?fmspc=00", 400, "", "", nil},
		"PCS, unknown update":      {collateraltest.PCS, tcb + "?fmspc=00A067110000&update=never", 400, "", "", nil},
		"PCS, QE identity":         {collateraltest.PCS, identity, 200, "application/json", "SGX-Enclave-Identity-Issuer-Chain", isJSON},
		"PCS, PCK CRL in PEM":      {collateraltest.PCS, crl + "?ca=processor", 200, "application/x-pem-file", "SGX-PCK-CRL-Issuer-Chain", isPEM},
		"PCS, PCK CRL in DER":      {collateraltest.PCS, crl + "?ca=processor&encoding=der", 200, "application/pkix-crl", "SGX-PCK-CRL-Issuer-Chain", isDER},
		"PCS, unknown CA":          {collateraltest.PCS, crl + "?ca=root", 400, "", "", nil},
		"PCS, no root CRL there":   {collateraltest.PCS, collateraltest.RootCRL, 404, "", "", nil},
		"Intel's root CRL":         {collateraltest.PCS, collateraltest.IntelCRL, 200, "application/pkix-crl", "", isDER},
		"PCCS, TCB info":           {collateraltest.PCCS, tcb + "?fmspc=00A067110000", 200, "application/json", "TCB-Info-Issuer-Chain", isJSON},
		"PCCS, no cache data":      {collateraltest.PCCS, tcb + "?fmspc=000000000000", 404, "", "", nil},
		"PCCS, QE identity":        {collateraltest.PCCS, identity, 200, "application/json", "SGX-Enclave-Identity-Issuer-Chain", isJSON},
		"PCCS, PCK CRL in hex":     {collateraltest.PCCS, crl + "?ca=processor", 200, "application/x-pem-file", "SGX-PCK-CRL-Issuer-Chain", isHex},
		"PCCS, PCK CRL in DER":     {collateraltest.PCCS, crl + "?ca=processor&encoding=der", 200, "application/pkix-crl", "SGX-PCK-CRL-Issuer-Chain", isDER},
		"PCCS, root CRL in hex":    {collateraltest.PCCS, collateraltest.RootCRL, 200, "application/pkix-crl", "", isHex},
		"PCCS, not the other host": {collateraltest.PCCS, collateraltest.IntelCRL, 404, "", "", nil},
	} {
		s := collateraltest.NewServer(t, row.flavour)
		s.Offer(t, c)
		resp, err := s.Client().Get(s.URL + row.path)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != row.status || resp.Header.Get("Content-Type") != row.contentType {
			t.Errorf("%s: got %d, type %q, %v", name, resp.StatusCode, resp.Header.Get("Content-Type"), err)
		}
		if row.is != nil && !row.is(body) {
			t.Errorf("%s: body %.40q is of another kind", name, body)
		}
		checkChain(t, name, resp.Header, row.chain)
	}
}

// checkChain looks for exactly the one header, which must be percent-encoded PEM.
func checkChain(t *testing.T, name string, h http.Header, want string) {
	t.Helper()
	for key, values := range h {
		if strings.HasSuffix(key, "Issuer-Chain") && key != http.CanonicalHeaderKey(want) {
			t.Errorf("%s: has header %s: %q", name, key, values)
		}
	}
	if want == "" {
		return
	}
	text := h.Get(want)
	plain, err := url.PathUnescape(text)
	if err != nil || strings.ContainsAny(text, " +/=\n") || strings.Count(plain, "-----BEGIN CERTIFICATE-----\n") != 2 {
		t.Errorf("%s: %s is %.60q", name, want, text)
	}
}
