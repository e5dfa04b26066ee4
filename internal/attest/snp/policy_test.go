package snp

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// The published report is genuine, and of a guest that nobody should want.
func TestPublishedReportIsOfADebugGuest(t *testing.T) {
	p, r := accepting(t)
	r.Report.Policy |= policyDebug
	if published, err := Parse(read(t, "attestation.bin")); err != nil || published.Policy != r.Report.Policy {
		t.Errorf("policy %#x, %v", published.Policy, err)
	}
	if _, err := Check(p, r, r.Report.ReportData, newScene(t).o.Now); !errors.Is(err, ErrDebug) {
		t.Errorf("got %v", err)
	}
}

// accepting returns a verified report, without its debug bit, and a policy that
// wants it.
func accepting(t *testing.T) (*Policy, *Result) {
	t.Helper()
	r, err := newScene(t).verify()
	if err != nil {
		t.Fatal(err)
	}
	r.Report.Policy &^= policyDebug
	return &Policy{
		Guests: []Guest{{"core", r.Report.Measurement}}, Chips: []Chip{{"node 1", r.Report.ChipID}},
		MinTCB: r.Report.ReportedTCB, WithoutCRL: true,
	}, r
}

func TestCheck(t *testing.T) {
	now := newScene(t).o.Now
	p, r := accepting(t)
	if d, err := Check(p, r, r.Report.ReportData, now); err != nil || d != (Decision{"core", "node 1"}) {
		t.Fatalf("got %v, %v", d, err)
	}
	for _, row := range []struct {
		name  string
		spoil func(*Policy, *Result)
		want  error
	}{
		{"zero policy", func(p *Policy, _ *Result) { *p = Policy{} }, ErrEmptyPolicy},
		{"no guest", func(p *Policy, _ *Result) { p.Guests = nil }, ErrEmptyPolicy},
		{"no chip", func(p *Policy, _ *Result) { p.Chips = nil }, ErrEmptyPolicy},
		{"no TCB", func(p *Policy, _ *Result) { p.MinTCB = TCB{} }, ErrEmptyPolicy},
		{"nothing verified", func(_ *Policy, r *Result) { *r = Result{} }, ErrNotVerified},
		{"other report data", func(_ *Policy, r *Result) { r.Report.ReportData[63] ^= 1 }, ErrReportData},
		{"debug", func(_ *Policy, r *Result) { r.Report.Policy |= policyDebug }, ErrDebug},
		{"migration", func(_ *Policy, r *Result) { r.Report.Policy |= policyMigration }, ErrMigratable},
		{"VMPL 1", func(_ *Policy, r *Result) { r.Report.VMPL = 1 }, ErrVMPL},
		{"other guest", func(_ *Policy, r *Result) { r.Report.Measurement[0] ^= 1 }, ErrGuest},
		{"other chip", func(_ *Policy, r *Result) { r.Report.ChipID[0] ^= 1 }, ErrChip},
		{"bootloader too old", func(p *Policy, _ *Result) { p.MinTCB.Bootloader++ }, ErrTCBMinimum},
		{"TEE too old", func(p *Policy, _ *Result) { p.MinTCB.TEE++ }, ErrTCBMinimum},
		{"SNP too old", func(p *Policy, _ *Result) { p.MinTCB.SNP++ }, ErrTCBMinimum},
		{"microcode too old", func(p *Policy, _ *Result) { p.MinTCB.Microcode++ }, ErrTCBMinimum},
		{"no CRL", func(p *Policy, _ *Result) { p.WithoutCRL = false }, ErrUnrevocable},
		{"certificate expired", func(_ *Policy, r *Result) { r.CertsExpire = now.Add(-time.Second) }, ErrExpired},
		{"CRL expired", func(_ *Policy, r *Result) { r.Revocation, r.CRLExpires = true, now.Add(-time.Second) }, ErrExpired},
		{"clock turned back", func(_ *Policy, r *Result) { r.LatestIssue = now.Add(time.Second) }, ErrBeforeIssued},
	} {
		p, r := accepting(t)
		want := r.Report.ReportData
		row.spoil(p, r)
		if d, err := Check(p, r, want, now); !errors.Is(err, row.want) || d != (Decision{}) {
			t.Errorf("%s: got %v, %v, want %v", row.name, d, err, row.want)
		}
	}
	p, r = accepting(t)
	p.Chips, p.AnyChip = nil, true
	if d, err := Check(p, r, r.Report.ReportData, now); err != nil || d.Chip != "" {
		t.Errorf("any chip: got %v, %v", d, err)
	}
}

func TestParsePolicy(t *testing.T) {
	measurement, chip := strings.Repeat("a1", 48), strings.Repeat("b2", 64)
	guest, min := fmt.Sprintf(`{"name":"core","measurement":%q}`, measurement), `{"bootloader":2,"tee":0,"snp":5,"microcode":68}`
	file := func(guests, rest string) string {
		return `{"format":"ehsm-snp-policy/v1","guests":[` + guests + `],` + rest + `}`
	}
	good := file(guest, `"chips":[{"name":"n","chip_id":"`+chip+`"}],"min_tcb":`+min)
	p, err := ParsePolicy([]byte(good))
	if err != nil || hex.EncodeToString(p.Guests[0].Measurement[:]) != measurement || p.MinTCB != (TCB{2, 0, 5, 68}) || p.WithoutCRL || len(p.Warnings()) != 0 {
		t.Fatalf("got %+v, %v", p, err)
	}
	for name, bad := range map[string]string{
		"empty":            ``,
		"other format":     strings.Replace(good, "snp", "sgx", 1),
		"unknown member":   file(guest, `"any_chip":true,"allow_debug":true,"min_tcb":`+min),
		"member twice":     file(guest, `"any_chip":true,"any_chip":true,"min_tcb":`+min),
		"no guests":        file("", `"any_chip":true,"min_tcb":`+min),
		"guest twice":      file(guest+","+guest, `"any_chip":true,"min_tcb":`+min),
		"guest of zeros":   file(`{"name":"z","measurement":"`+strings.Repeat("00", 48)+`"}`, `"any_chip":true,"min_tcb":`+min),
		"guest no name":    file(`{"name":"","measurement":"`+measurement+`"}`, `"any_chip":true,"min_tcb":`+min),
		"short digest":     file(`{"name":"z","measurement":"a1"}`, `"any_chip":true,"min_tcb":`+min),
		"no chips":         file(guest, `"min_tcb":`+min),
		"chips and any":    file(guest, `"any_chip":true,"chips":[{"name":"n","chip_id":"`+chip+`"}],"min_tcb":`+min),
		"chip of zeros":    file(guest, `"chips":[{"name":"n","chip_id":"`+strings.Repeat("0", 128)+`"}],"min_tcb":`+min),
		"no TCB":           file(guest, `"any_chip":true`),
		"TCB of zeros":     file(guest, `"any_chip":true,"min_tcb":{"bootloader":0,"tee":0,"snp":0,"microcode":0}`),
		"TCB lacks a part": file(guest, `"any_chip":true,"min_tcb":{"bootloader":1,"tee":0,"snp":0}`),
		"TCB of 256":       file(guest, `"any_chip":true,"min_tcb":{"bootloader":256,"tee":0,"snp":0,"microcode":0}`),
	} {
		if p, err := ParsePolicy([]byte(bad)); !errors.Is(err, ErrPolicy) || p != nil {
			t.Errorf("%s: got %v, %v", name, p, err)
		}
	}
	p, err = ParsePolicy([]byte(file(guest, `"any_chip":true,"without_crl":true,"min_tcb":`+min)))
	if err != nil || len(p.Warnings()) != 2 {
		t.Errorf("got %v, %v, want two warnings", p, err)
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte(`{"format":"ehsm-snp-policy/v1","guests":[],"any_chip":true,"min_tcb":{"bootloader":1,"tee":0,"snp":0,"microcode":0}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := ParsePolicy(b); err == nil && (len(p.Guests) == 0 || p.MinTCB == (TCB{})) {
			t.Errorf("policy accepts nothing: %+v", p)
		}
	})
}
