package tdx

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"crypto/x509"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

const quotes = "../dcap/testdata" // its README names the sources

func read(t testing.TB, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func collateral(t testing.TB, name string) verify.Collateral {
	t.Helper()
	c, err := verify.DecodeCollateralJSON(read(t, "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func at(t testing.TB, text string) time.Time {
	t.Helper()
	now, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return now
}

func options(now time.Time) verify.Options {
	return verify.Options{Roots: []*x509.Certificate{verify.IntelRoot()}, Now: now}
}

// The verdicts that independent verifiers gave, too.
func TestVerdicts(t *testing.T) {
	genuine := at(t, "2025-06-21T00:00:00Z")
	r, err := Verify(read(t, quotes, "phala/tdx_quote"), collateral(t, "tdx_quote_collateral.json"), options(genuine))
	if err != nil {
		t.Fatalf("tdx_quote: %v", err)
	}
	if r.Status != verify.UpToDate || len(r.Advisories) != 0 || r.TCBEvaluation != 17 || r.Simulated ||
		hex.EncodeToString(r.Platform.FMSPC[:]) != "b0c06f000000" || !r.OutOfDateSince.IsZero() {
		t.Errorf("tdx_quote: got %v %v, evaluation %d, FMSPC %x", r.Status, r.Advisories, r.TCBEvaluation, r.Platform.FMSPC)
	}
	const mrtd = "91eb2b44d141d4ece09f0c75c2c53d247a3c68edd7fafe8a3520c942a604a407de03ae6dc5f87f27428b2538873118b7"
	if got := hex.EncodeToString(r.Quote.Report.MRTD[:]); got != mrtd {
		t.Errorf("tdx_quote: MRTD %s, want %s", got, mrtd)
	}
	if r.LatestIssue.After(genuine) || !r.Expires.After(genuine) || !r.CertsExpire.After(genuine) {
		t.Errorf("tdx_quote: issued %v, expires %v, certificates %v", r.LatestIssue, r.Expires, r.CertsExpire)
	}

	_, err = Verify(read(t, quotes, "phala/tdx_quote_outdated"), collateral(t, "tdx_quote_outdated_collateral.json"), options(at(t, "2026-02-20T00:00:00Z")))
	refusal(t, "tdx_quote_outdated", err, verify.StepTCBLevel, verify.ErrNoTCBLevel)
}

func refusal(t *testing.T, name string, err error, step verify.Step, want error) {
	t.Helper()
	var e *verify.Error
	if !errors.As(err, &e) || e.Step != step || !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v in step %v", name, err, want, step)
	}
}

func TestParseVectors(t *testing.T) {
	digits := bytes.TrimSpace(read(t, quotes, "automata/quotev4.hex"))
	v4, err := hex.DecodeString(string(bytes.TrimPrefix(digits, []byte("0x"))))
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		raw     []byte
		version uint16
		tdx15   bool
		mrtd    string
	}{
		"automata v4, padded": {v4, 4, false, "935be7742dd89c6a4df6dba8353d89041ae0f052beef993b1e7f4524d3bc57650df20e5582158352e1240b3f1fed55d8"},
		"automata v5":         {read(t, quotes, "automata/quotev5.dat"), 5, true, "157768a71a6a31f5561978c4cde665809d22976ef5dead2952839b7b3ea23b6c2931c9148fe1d117c99faefac18bb73b"},
		"oasis v4":            {read(t, quotes, "oasis/quote_v4_tdx_ecdsa_p256.bin"), 4, false, "91eb2b44d141d4ece09f0c75c2c53d247a3c68edd7fafe8a3520c942a604a407de03ae6dc5f87f27428b2538873118b7"},
		"phala v5":            {read(t, quotes, "phala/tdx_quote_outdated"), 5, true, "273828c46252fcbdd8ad2dd907130222b03466d52a2911d70c1a5950895d6bd1ae451d382d5a9b1b4c0ed0e5ae9a3dbd"},
	} {
		q, err := Parse(row.raw)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if q.Version != row.version || q.Report.TDX15 != row.tdx15 || hex.EncodeToString(q.Report.MRTD[:]) != row.mrtd {
			t.Errorf("%s: version %d, TDX 1.5 %t, MRTD %x", name, q.Version, q.Report.TDX15, q.Report.MRTD)
		}
		if q.Report.Debug() || q.Report.Migratable() || q.Report.Attributes != 1<<28 {
			t.Errorf("%s: attributes %#x", name, q.Report.Attributes)
		}
	}
}
