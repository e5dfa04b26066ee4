package tdx

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// accepting returns a verified quote, and a policy that wants it.
func accepting(t *testing.T) (*Policy, *Result) {
	t.Helper()
	s := newScene(t)
	r, err := s.verify()
	check(t, err)
	return &Policy{
		Guests:   []Guest{{"core", s.report.MRTD, s.report.RTMR, s.report.MRConfigID}},
		Machines: validate.Policy{Platforms: []validate.Platform{{Name: "node 1", PPID: r.Platform.PPID}}},
	}, r
}

func TestCheck(t *testing.T) {
	p, r := accepting(t)
	d, err := Check(p, r, validate.Input{ReportData: r.Quote.Report.ReportData, Now: sceneNow})
	if err != nil || d.Enclave != "core" || d.Platform != "node 1" {
		t.Fatalf("got %v, %v", d, err)
	}
	other := func(f func(*Report)) func(*Policy, *Result) { return func(_ *Policy, r *Result) { f(&r.Quote.Report) } }
	for _, row := range []struct {
		name  string
		spoil func(*Policy, *Result)
		want  error
	}{
		{"zero policy", func(p *Policy, _ *Result) { *p = Policy{} }, ErrEmptyPolicy},
		{"no guest", func(p *Policy, _ *Result) { p.Guests = nil }, ErrEmptyPolicy},
		{"no machine", func(p *Policy, _ *Result) { p.Machines.Platforms = nil }, validate.ErrEmptyPolicy},
		{"nothing verified", func(_ *Policy, r *Result) { *r = Result{} }, ErrNotVerified},
		{"no status", func(_ *Policy, r *Result) { r.Status = 0 }, validate.ErrNotVerified},
		{"other report data", other(func(r *Report) { r.ReportData[63] ^= 1 }), validate.ErrReportData},
		{"debug", other(func(r *Report) { r.Attributes |= 1 }), ErrDebug},
		{"reserved bit that makes it untrusted", other(func(r *Report) { r.Attributes |= 1 << 7 }), ErrDebug},
		{"migratable", other(func(r *Report) { r.Attributes |= attributeMigratable }), ErrMigratable},
		{"other MRTD", other(func(r *Report) { r.MRTD[0] ^= 1 }), ErrGuest},
		{"other RTMR0", other(func(r *Report) { r.RTMR[0][0] ^= 1 }), ErrGuest},
		{"other RTMR1", other(func(r *Report) { r.RTMR[1][1] ^= 1 }), ErrGuest},
		{"other RTMR2", other(func(r *Report) { r.RTMR[2][2] ^= 1 }), ErrGuest},
		{"other RTMR3", other(func(r *Report) { r.RTMR[3][47] ^= 1 }), ErrGuest},
		{"other MRCONFIGID", other(func(r *Report) { r.MRConfigID[0] ^= 1 }), ErrGuest},
		{"other machine", func(_ *Policy, r *Result) { r.Platform.PPID[0] ^= 1 }, validate.ErrPlatform},
		{"out of date", func(_ *Policy, r *Result) { r.Status, r.OutOfDateSince = verify.OutOfDate, sceneNow }, validate.ErrStatus},
		{"old evaluation", func(p *Policy, _ *Result) { p.Machines.MinTCBEvaluation = 21 }, validate.ErrEvaluation},
		{"collateral expired", func(_ *Policy, r *Result) { r.Expires = sceneNow.Add(-time.Second) }, validate.ErrStale},
		{"certificate expired", func(_ *Policy, r *Result) { r.CertsExpire = sceneNow.Add(-time.Second) }, validate.ErrCertificate},
		{"clock turned back", func(_ *Policy, r *Result) { r.LatestIssue = sceneNow.Add(time.Second) }, validate.ErrTime},
	} {
		p, r := accepting(t)
		want := r.Quote.Report.ReportData
		row.spoil(p, r)
		if d, err := Check(p, r, validate.Input{ReportData: want, Now: sceneNow}); !errors.Is(err, row.want) || d != (validate.Decision{}) {
			t.Errorf("%s: got %v, %v, want %v", row.name, d, err, row.want)
		}
	}
}

func TestParsePolicy(t *testing.T) {
	guest := func(name, mrtd string) string {
		g := fmt.Sprintf(`{"name":%q,"mrtd":%q,"mrconfigid":"%096d"`, name, mrtd, 0)
		for i := range 4 {
			g += fmt.Sprintf(`,"rtmr%d":"%096d"`, i, i)
		}
		return g + "}"
	}
	mrtd := strings.Repeat("ab", 48)
	file := func(guests, rest string) string {
		return `{"format":"ehsm-tdx-policy/v1","guests":[` + guests + `]` + rest + `}`
	}
	const anyPlatform = `,"any_platform":true`
	p, err := ParsePolicy([]byte(file(guest("core", mrtd), anyPlatform)))
	if err != nil || len(p.Guests) != 1 || p.Guests[0].RTMR[3][47] != 3 || p.Guests[0].MRTD[0] != 0xab || p.Machines.TCBGrace != validate.DefaultTCBGrace || len(p.Warnings()) != 1 {
		t.Fatalf("got %+v, %v", p, err)
	}
	for name, bad := range map[string]string{
		"empty":                ``,
		"other format":         strings.Replace(file(guest("core", mrtd), anyPlatform), "tdx", "sgx", 1),
		"debug cannot be said": file(guest("core", mrtd), anyPlatform+`,"allow_debug":true`),
		"nor simulation":       file(guest("core", mrtd), anyPlatform+`,"allow_sim":true`),
		"enclaves":             file(guest("core", mrtd), anyPlatform+`,"enclaves":[]`),
		"member twice":         file(guest("core", mrtd), anyPlatform+anyPlatform),
		"no guests":            file("", anyPlatform),
		"guest twice":          file(guest("a", mrtd)+","+guest("b", mrtd), anyPlatform),
		"guest without a name": file(guest("", mrtd), anyPlatform),
		"long name":            file(guest(strings.Repeat("n", maxText+1), mrtd), anyPlatform),
		"MRTD of zeros":        file(guest("a", strings.Repeat("0", 96)), anyPlatform),
		"short MRTD":           file(guest("a", "ab"), anyPlatform),
		"no RTMR3":             file(strings.Replace(guest("a", mrtd), "rtmr3", "rtmr4", 1), anyPlatform),
		"no MRCONFIGID":        file(strings.Replace(guest("a", mrtd), "mrconfigid", "config", 1), anyPlatform),
		"no platforms":         file(guest("a", mrtd), ""),
		"accepts Revoked":      file(guest("a", mrtd), anyPlatform+`,"accept":[{"status":"Revoked","advisory":"A","reason":"r"}]`),
	} {
		if p, err := ParsePolicy([]byte(bad)); !errors.Is(err, ErrPolicy) || p != nil {
			t.Errorf("%s: got %v, %v", name, p, err)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte(`{"format":"ehsm-tdx-policy/v1","guests":[],"any_platform":true}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := ParsePolicy(b); err == nil && (len(p.Guests) == 0 || len(p.Machines.Platforms) == 0 && !p.Machines.AnyPlatform) {
			t.Errorf("policy accepts nothing: %+v", p)
		}
	})
}
