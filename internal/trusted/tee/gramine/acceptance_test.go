package gramine

import (
	"testing"

	"github.com/ehsm-kms/ehsm/internal/attest/acceptance"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/gramine/graminetest"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/teetest"
)

func TestAcceptance(t *testing.T) {
	d := graminetest.New()
	teetest.Accept(t, func() (tee.Platform, error) { return openFake(d, 1) }, acceptance.LocalReport)
}

// TestAcceptanceOfBrokenDevices breaks the device once the program has started.
func TestAcceptanceOfBrokenDevices(t *testing.T) {
	for _, row := range []struct {
		name  string
		check acceptance.Name
		brk   func(*graminetest.Device)
	}{
		{"no AESM", acceptance.Evidence, func(d *graminetest.Device) { d.Fail = map[string]graminetest.Step{quoteFile: graminetest.OnOpen} }},
		{"stale quotes", acceptance.Evidence, func(d *graminetest.Device) { d.Stale = true }},
		{"quotes of another enclave", acceptance.Evidence, func(d *graminetest.Device) {
			d.MangleQuote = func(q *quote.Quote) { q.Report.MREnclave[0]++ }
		}},
		{"keys of zeros", acceptance.SealKeys, func(d *graminetest.Device) {
			d.Content = map[string][]byte{signerKeyFile: make([]byte, 16)}
		}},
		{"no keys", acceptance.SealKeys, func(d *graminetest.Device) {
			d.Fail = map[string]graminetest.Step{measuredKeyFile: graminetest.OnOpen}
		}},
		{"other keys after a restart", acceptance.Restart, func(d *graminetest.Device) { d.Fuse++ }},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := graminetest.New()
			p := start(t, d)
			seals := teetest.Statement(t, p).Result.Seals
			row.brk(d)
			teetest.Broken(t, p, row.check, seals...)
		})
	}
}

func TestAcceptanceAfterMicrocode(t *testing.T) {
	seals := teetest.Statement(t, start(t, graminetest.New())).Result.Seals
	d := graminetest.New()
	d.Report.CPUSVN[0]++
	teetest.Broken(t, start(t, d), acceptance.Restart, seals...)
}
