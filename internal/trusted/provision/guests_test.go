//go:build tsm

package provision

import (
	"os"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/attest"
)

// TestGuestMachine reads published evidence of real machines.
func TestGuestMachine(t *testing.T) {
	for _, row := range []struct {
		file string
		kind attest.Kind
		chip bool
	}{
		{"dcap/testdata/phala/tdx_quote", attest.TDXQuote4, false},
		{"dcap/testdata/automata/quotev5.dat", attest.TDXQuote5, false},
		{"snp/testdata/attestation.bin", attest.SNPReport, true},
	} {
		b, err := os.ReadFile("../../attest/" + row.file)
		if err != nil {
			t.Fatal(err)
		}
		m, err := machineIn(attest.Evidence{Kind: row.kind, Quote: b})
		if err != nil || (m.Chip != [64]byte{}) != row.chip || (m.PPID != [16]byte{} && m.Serial != "") == row.chip {
			t.Errorf("%s: got %v, %v", row.file, m, err)
		}
		if _, err := machineIn(attest.Evidence{Kind: row.kind, Quote: b[:len(b)/2]}); err == nil {
			t.Errorf("%s, cut: no error", row.file)
		}
	}
}
