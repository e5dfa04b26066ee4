package provision

import (
	"bytes"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
)

// TestCollateralOfChips has files of AMD's collateral in several forms, all of which
// are sent in one.
func TestCollateralOfChips(t *testing.T) {
	var want []byte
	for i, kind := range []string{"CERTIFICATE", "CERTIFICATE", "CERTIFICATE", "X509 CRL"} {
		want = append(want, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes.Repeat([]byte{byte(i)}, 100)})...)
	}
	for name, row := range map[string]struct {
		file []byte
		ok   bool
	}{
		"as it is sent":          {want, true},
		"blank lines":            {bytes.ReplaceAll(want, []byte("-----\n-----BEGIN"), []byte("-----\n\n-----BEGIN")), true},
		"as Windows writes it":   {bytes.ReplaceAll(want, []byte("\n"), []byte("\r\n")), true},
		"cut":                    {want[:len(want)-10], false},
		"text between blocks":    {bytes.ReplaceAll(want, []byte("-----\n-----BEGIN"), []byte("-----\nVCEK\n-----BEGIN")), false},
		"neither PEM nor binary": {[]byte("VCEK"), false},
	} {
		path := filepath.Join(t.TempDir(), "c")
		if err := os.WriteFile(path, row.file, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := CollateralFile(path)(t.Context())
		if (err == nil) != row.ok || row.ok && !bytes.Equal(got, want) {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}
