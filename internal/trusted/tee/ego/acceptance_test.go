package ego

import (
	"testing"

	"github.com/ehsm-kms/ehsm/internal/attest/acceptance"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/teetest"
)

func openAny(f *runtimeFake) (*Enclave, error) {
	return open(f, f.report.ISVProdID, f.report.ISVSVN, func() error { return nil })
}

func TestAcceptance(t *testing.T) {
	f := newFake()
	teetest.Accept(t, func() (tee.Platform, error) { return openAny(f) })
}

// TestAcceptanceOfBrokenEnclaves breaks the run-time once the program has started.
func TestAcceptanceOfBrokenEnclaves(t *testing.T) {
	for _, row := range []struct {
		name  string
		check acceptance.Name
		brk   func(*runtimeFake)
	}{
		{"no quoting enclave", acceptance.Evidence, func(f *runtimeFake) { f.fail = "remote" }},
		{"quotes of another enclave", acceptance.Evidence, func(f *runtimeFake) {
			f.mangleQuote = func(q *quote.Quote) { q.Report.MREnclave[0]++ }
		}},
		{"keys of zeros", acceptance.SealKeys, func(f *runtimeFake) {
			f.mangle = func(what string, b []byte) []byte {
				if what == "key" {
					clear(b)
				}
				return b
			}
		}},
		{"no new keys", acceptance.SealKeys, func(f *runtimeFake) { f.fail = "new key" }},
		{"no keys again", acceptance.SealKeys, func(f *runtimeFake) { f.fail = "key" }},
		{"other keys after a restart", acceptance.Restart, func(f *runtimeFake) { f.fuse++ }},
		{"no local reports", acceptance.LocalReport, func(f *runtimeFake) { f.fail = "local" }},
		{"local reports refused", acceptance.LocalReport, func(f *runtimeFake) { f.fail = "verify" }},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := newFake()
			p, err := openAny(f)
			if err != nil {
				t.Fatal(err)
			}
			seals := teetest.Statement(t, p).Result.Seals
			row.brk(f)
			teetest.Broken(t, p, row.check, seals...)
		})
	}
}
