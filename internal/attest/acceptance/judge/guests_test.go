package judge

import (
	"encoding/hex"
	"encoding/pem"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/acceptance"
)

// guestData are published quotes and reports; the README beside each names its
// source.
const guestData = "../../"

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(guestData + name)
	must(t, err)
	return b
}

// TestGuests has evidence of real confidential guests, which is genuine, and was
// not made for any acceptance run.
func TestGuests(t *testing.T) {
	snpChain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: read(t, "snp/testdata/vcek.testcer")})
	snpChain = append(snpChain, read(t, "snp/testdata/milan.testcer")...)
	for _, row := range []struct {
		name        string
		kind        attest.Kind
		evidence    []byte
		verify      func([]byte, Options) (*claims, error)
		o           Options
		measurement string // as package tee/tsm has it; computed in Python
		debug       bool
		policy      string // does not name this guest
	}{
		{
			"TDX", attest.TDXQuote4, read(t, "dcap/testdata/phala/tdx_quote"), domain,
			Options{Now: time.Date(2025, 6, 21, 0, 0, 0, 0, time.UTC), Collateral: read(t, "tdx/testdata/tdx_quote_collateral.json")},
			"48889453b4d1eb42713a62bdc180a9a451c014ea75b9c6b58879bcb4e8e0070c", false, `{"format":"ehsm-sgx-policy/v1"}`,
		},
		{
			"SEV-SNP", attest.SNPReport, read(t, "snp/testdata/attestation.bin"), guest,
			Options{Now: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), Collateral: snpChain},
			"7467e77ebd71c77052e471117d738c1e4cc82d2938882c5f01dc2cfaba2455a7", true, `{"format":"ehsm-sgx-policy/v1"}`,
		},
	} {
		c, err := row.verify(row.evidence, row.o)
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		if got := hex.EncodeToString(c.program.Measurement); got != row.measurement || c.machine == "" || c.text == "" || c.program.Debug != row.debug || c.simulated {
			t.Errorf("%s: got %s, %+v", row.name, got, c)
		}
		if err := c.wanted([]byte(row.policy)); err == nil {
			t.Errorf("%s: a policy for another TEE wants it", row.name)
		}
		s := &acceptance.Statement{Kind: row.kind.String(), Evidence: row.evidence}
		if _, err := genuine(s, row.o); !errors.Is(err, errReportData) {
			t.Errorf("%s: got %v, want errReportData", row.name, err)
		}
		row.o.Collateral = []byte("x")
		if _, err := genuine(s, row.o); err == nil || errors.Is(err, errReportData) {
			t.Errorf("%s: odd collateral: got %v", row.name, err)
		}
	}
}
