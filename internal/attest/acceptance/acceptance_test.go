package acceptance

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/acceptance/speed"
)

var nonce = Hex(bytes.Repeat([]byte{7}, NonceSize))

func resultOf(nonce []byte) Result {
	return Result{
		Nonce: nonce, Version: "0.1.0", Go: "go1.26.8", Processors: 2,
		Started: time.Date(2026, 3, 1, 2, 3, 4, 5, time.UTC), Finished: time.Date(2026, 3, 1, 2, 3, 5, 0, time.UTC),
		Platform: Platform{Name: "sim", Simulated: true, Measurement: bytes.Repeat([]byte{1}, 32), Signer: bytes.Repeat([]byte{2}, 32), Product: 1, SVN: 1},
		Checks:   []Check{NewCheck(Identity, Pass, "<&> \xff"), NewCheck(LocalReport, NotAvailable, "none")},
		Seals:    []Seal{{Policy: 1, SVN: 1, KeyID: bytes.Repeat([]byte{3}, 32), Sealed: Hex{1, 2}}},
	}
}

// attester answers with the REPORTDATA as the quote.
type attester struct{ err error }

func (a attester) Evidence(_ context.Context, d [64]byte) (attest.Evidence, error) {
	return attest.Evidence{Kind: attest.SGXQuote3, Quote: d[:]}, a.err
}

func state(t testing.TB, r Result, a attest.Attester) *Statement {
	t.Helper()
	s, err := State(t.Context(), r, a)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func report(t testing.TB) *Report {
	t.Helper()
	r := &Report{Format: ReportFormat, Nonce: nonce, First: *state(t, resultOf(nonce), attester{}), Host: Host{
		Time: time.Date(2026, 3, 1, 2, 0, 0, 0, time.UTC), Command: []string{"ehsm-core"}, Model: "<cpu>", Flags: []string{"sgx"},
		Devices: []Device{{"/dev/sgx_enclave", DeviceUsable}, {"/dev/sgx_provision", DeviceAbsent}},
		Outside: []speed.Rate{{Operation: "p256-sign", Threads: 1, PerSecond: 9}}, Collateral: []byte{1},
	}}
	r.Second = *state(t, resultOf(r.SecondNonce()), attester{})
	return r
}

// Known answers made from the documented layout by another program.
func TestKnownAnswers(t *testing.T) {
	s := &Statement{Format: StatementFormat, Result: resultOf(nonce), Key: bytes.Repeat([]byte{4}, 32)}
	data := s.ReportData()
	const wantResult = `{"nonce":"0707070707070707070707070707070707070707070707070707070707070707","version":"0.1.0","go":"go1.26.8","processors":2,` +
		`"started":"2026-03-01T02:03:04.000000005Z","finished":"2026-03-01T02:03:05Z",` +
		`"platform":{"name":"sim","simulated":true,"measurement":"0101010101010101010101010101010101010101010101010101010101010101",` +
		`"signer":"0202020202020202020202020202020202020202020202020202020202020202","product":1,"svn":1,"debug":false},` +
		`"checks":[{"check":"identity","outcome":"pass","detail":"\u003c\u0026\u003e ?"},{"check":"local-report","outcome":"not available","detail":"none"}],` +
		`"seals":[{"policy":1,"svn":1,"keyID":"0303030303030303030303030303030303030303030303030303030303030303","sealed":"0102"}]}`
	if got := string(encode(s.Result)); got != wantResult {
		t.Errorf("result: got %s", got)
	}
	const wantData = "489357ec26855260fae8426e5c701eadd0624853b869ef92f06531e07a698b79555d946c6802c4af33757cc1934ed1279a0f2335315fafe154c42bb8e91ae13f"
	if got := hex.EncodeToString(data[:]); got != wantData {
		t.Errorf("ReportData: got %s, want %s", got, wantData)
	}
	r := &Report{Nonce: nonce, First: *s}
	const wantNonce = "7d1e5dcc9af925bdbfca59c295ec8bb08506a940d1f85a0a76648dd789a68259"
	if got := hex.EncodeToString(r.SecondNonce()); got != wantNonce {
		t.Errorf("SecondNonce: got %s, want %s\nover %s and %s", got, wantNonce, encode(r.First), encode(r.Host))
	}
}

func TestRoundTrip(t *testing.T) {
	r := report(t)
	got, err := DecodeReport(r.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Encode(), r.Encode()) {
		t.Error("a report changes when it is read and written")
	}
	if err := got.CheckBinding(); err != nil {
		t.Errorf("CheckBinding: %v", err)
	}
	d := got.Second.ReportData()
	if !bytes.Equal(got.Second.Evidence, d[:]) {
		t.Error("the evidence of a report that was read is over something else")
	}
	if !got.Host.Has("/dev/sgx_enclave") || got.Host.Has("/dev/sgx_provision") || got.Host.Has("/dev/tdx_guest") {
		t.Error("devices are mixed up")
	}
}

func TestStatementsWithoutEvidence(t *testing.T) {
	for name, a := range map[string]attest.Attester{"none": nil, "failed": attester{errors.New("no AESM")}} {
		s := state(t, resultOf(nonce), a)
		if s.Problem == "" || s.Kind != "" || s.Evidence != nil || s.CheckSignature() != nil {
			t.Errorf("%s: got %+v", name, s)
		}
	}
}

// TestTrialIsNoStatement: what the check of evidence asks for vouches for no
// result, whatever the result is.
func TestTrialIsNoStatement(t *testing.T) {
	a, b := TrialReportData(nonce), TrialReportData(nonce)
	if s := state(t, resultOf(nonce), nil); a == b || a == s.ReportData() {
		t.Error("trials repeat, or are statements")
	}
}

// TestChangedReports changes one thing of a report; it must be found without the
// evidence, or change what the evidence must bind.
func TestChangedReports(t *testing.T) {
	other := report(t)
	for _, row := range []struct {
		name   string
		change func(*Report)
		want   error // nil: found by the evidence only
	}{
		{"outcome", func(r *Report) { r.First.Result.Checks[0].Outcome = Fail }, ErrSignature},
		{"detail", func(r *Report) { r.Second.Result.Checks[0].Detail += "." }, ErrSignature},
		{"check removed", func(r *Report) { r.Second.Result.Checks = r.Second.Result.Checks[:1] }, ErrSignature},
		{"measurement", func(r *Report) { r.Second.Result.Platform.Measurement[0]++ }, ErrSignature},
		{"debug", func(r *Report) { r.First.Result.Platform.Debug = true }, ErrSignature},
		{"signature", func(r *Report) { r.First.Signature[0]++ }, ErrSignature},
		{"no signature", func(r *Report) { r.First.Signature = nil }, ErrSignature},
		{"key", func(r *Report) { r.Second.Key[0]++ }, ErrSignature},
		{"no key", func(r *Report) { r.Second.Key = nil }, ErrSignature},
		{"nonce", func(r *Report) { r.Nonce = bytes.Repeat([]byte{8}, NonceSize) }, ErrBinding},
		{"kernel", func(r *Report) { r.Host.Kernel = "6.9" }, ErrBinding},
		{"device", func(r *Report) { r.Host.Devices[1].State = DeviceUsable }, ErrBinding},
		{"speed outside", func(r *Report) { r.Host.Outside[0].PerSecond-- }, ErrBinding},
		{"collateral", func(r *Report) { r.Host.Collateral[0]++ }, ErrBinding},
		{"log", func(r *Report) { r.Host.Log = "x" }, ErrBinding},
		{"evidence of the first run", func(r *Report) { r.First.Evidence[0]++ }, ErrBinding},
		{"first run of another report", func(r *Report) { r.First = other.First }, ErrBinding},
		{"second run of another report", func(r *Report) { r.Second = other.Second }, ErrBinding},
		{"runs exchanged", func(r *Report) { r.First, r.Second = r.Second, r.First }, ErrBinding},
		{"one run twice", func(r *Report) { r.Second = r.First }, ErrBinding},
		{"signed anew", func(r *Report) { r.Second = *state(t, r.Second.Result, nil) }, nil},
	} {
		r := report(t)
		before := r.Second.ReportData()
		row.change(r)
		if err := r.CheckBinding(); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
		if row.want == nil && r.Second.ReportData() == before {
			t.Errorf("%s: the evidence covers it", row.name)
		}
	}
}

func TestMalformedReports(t *testing.T) {
	good := string(report(t).Encode())
	replace := func(old, new string) []byte {
		if !strings.Contains(good, old) {
			t.Fatalf("the report has no %q", old)
		}
		return []byte(strings.Replace(good, old, new, 1))
	}
	for name, b := range map[string][]byte{
		"empty":             nil,
		"cut":               []byte(good[:len(good)-3]),
		"bytes follow":      []byte(good + "{}"),
		"other format":      replace(ReportFormat, "ehsm-acceptance-report/v2"),
		"statement format":  replace(StatementFormat, "ehsm-acceptance-statement/v2"),
		"short nonce":       replace(`"nonce": "07`, `"nonce": "`),
		"upper case":        replace(`"keyID": "0303`, `"keyID": "030A`),
		"no hex":            replace(`"keyID": "0303`, `"keyID": "03xx`),
		"unknown member":    replace(`"nonce"`, `"note": 1, "nonce"`),
		"member twice":      replace(`"microcode": ""`, `"microcode": "", "microcode": ""`),
		"member missing":    replace(`"microcode": "",`, ``),
		"member renamed":    replace(`"microcode"`, `"Microcode"`),
		"number as a float": replace(`"processors": 2`, `"processors": 2.0`),
		"unknown outcome":   replace(`"outcome": "pass"`, `"outcome": "passed"`),
		"check twice":       replace(`"check": "local-report"`, `"check": "identity"`),
		"other escapes":     replace(`\u003ccpu`, `<cpu`),
		"too long":          append([]byte(good), bytes.Repeat([]byte(" "), MaxReport)...),
	} {
		if _, err := DecodeReport(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
}

func FuzzDecodeReport(f *testing.F) {
	r := report(f)
	f.Add(r.Encode())
	f.Add(encode(r))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeReport(b)
		if err != nil {
			return
		}
		again, err := DecodeReport(r.Encode())
		if err != nil || !bytes.Equal(again.SecondNonce(), r.SecondNonce()) || again.First.ReportData() != r.First.ReportData() {
			t.Errorf("a report is another when it is read again: %v", err)
		}
	})
}

func FuzzDecodeStatement(f *testing.F) {
	f.Add(state(f, resultOf(nonce), attester{}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeStatement(b)
		if err == nil && !bytes.Equal(s.Encode(), b) && !bytes.ContainsAny(b, " \t\r\n") {
			t.Error("a statement does not re-encode to the bytes it came from")
		}
	})
}

func FuzzDecodeRequest(f *testing.F) {
	f.Add(encode(Request{Format: RequestFormat, Nonce: nonce, Each: time.Second, Memory: 1, Seals: resultOf(nonce).Seals}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := DecodeRequest(b); err == nil && (q.Each > MaxEach || q.Memory > MaxMemory || len(q.Nonce) != NonceSize) {
			t.Errorf("got %+v", q)
		}
	})
}
