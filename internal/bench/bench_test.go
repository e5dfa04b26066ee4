package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

// testOptions measure the fake service in service_test.go, very shortly.
func testOptions(t *testing.T) Options {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", t.TempDir())
	// A program with the race detector else waits a second before it ends.
	environ := append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	return Options{Program: program, Environ: environ, Count: 40, Rounds: 2, Conns: []int{3, 1}, settle: time.Millisecond}
}

// checkNothingLeft fails the test if a run left something behind.
func checkNothingLeft(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(os.TempDir())
	if err != nil || len(entries) > 0 {
		t.Errorf("temporary directory after Run: %v, %v, want nothing", entries, err)
	}
}

func TestRun(t *testing.T) {
	for _, tt := range []struct {
		transport string
		plain     bool
	}{{"TLS", false}, {"http", true}} {
		t.Run(tt.transport, func(t *testing.T) {
			o := testOptions(t)
			o.HTTP = tt.plain
			o.Operations = []string{"encrypt", "decrypt", "datakey", "createkey"} // what the small service of this test has
			report, err := Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			checkNothingLeft(t)
			if report.Transport != tt.transport || report.SecondStart == 0 || len(report.Rows) != 8 {
				t.Errorf("Run: got %s, second start %v, %d rows", report.Transport, report.SecondStart, len(report.Rows))
			}
			if runtime.GOOS == "linux" && (report.IdleBytes == 0 || report.LoadedBytes == 0) {
				t.Errorf("Run: got %d and %d bytes in RAM", report.IdleBytes, report.LoadedBytes)
			}
			for _, row := range report.Rows {
				checkRow(t, row)
			}
			checkWrites(t, report)
		})
	}
}

func checkRow(t *testing.T, row Row) {
	t.Helper()
	if row.Requests != 80 || row.Errors != 0 || row.Rate == 0 || len(row.Rounds) != 2 {
		t.Errorf("row %s: got %d requests, %d errors, rate %v, %d rounds", row.Operation, row.Requests, row.Errors, row.Rate, len(row.Rounds))
	}
	if l := row.Latency; l.P50 == 0 || l.P95 < l.P50 || l.P99 < l.P95 || row.CeilingLatency.P50 == 0 {
		t.Errorf("row %s: got latencies %v and %v", row.Operation, l, row.CeilingLatency)
	}
	if runtime.GOOS == "linux" && (row.CPU == 0 || row.CeilingCPU == 0 || row.Ratio == 0) {
		t.Errorf("row %s: got CPU %v, ceiling %v, ratio %v", row.Operation, row.CPU, row.CeilingCPU, row.Ratio)
	}
}

func checkWrites(t *testing.T, report *Report) {
	t.Helper()
	var text bytes.Buffer
	if err := report.WriteText(&text); err != nil || strings.Count(text.String(), "createkey") != 2 {
		t.Errorf("WriteText: got %v\n%s", err, &text)
	}
	var again Report
	data, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &again); err != nil || len(again.Rows) != len(report.Rows) || again.Rows[0].CPU != report.Rows[0].CPU {
		t.Errorf("Marshal: got %v\n%s", err, data)
	}
}

// Core and manager are links to the test binary, and both are measured.
func TestRunSplit(t *testing.T) {
	o := testOptions(t)
	dir := t.TempDir()
	for _, name := range []string{"ehsm", "ehsm-simtee", "ehsm-core", "ehsm-kms"} {
		if err := os.Symlink(o.Program, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	o.Program, o.Split = filepath.Join(dir, "ehsm"), true
	o.Operations = []string{"encrypt"}
	report, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	checkNothingLeft(t)
	if report.Service != "ehsm-core and ehsm-kms" || report.SecondStart == 0 || len(report.Rows) != 2 {
		t.Errorf("Run: got %+v", report)
	}
	for _, row := range report.Rows {
		checkRow(t, row)
	}
}

// A run with one refused request fails, and still reports.
func TestRunFailsOnRefusals(t *testing.T) {
	o := testOptions(t)
	o.Operations, o.Conns = []string{"encrypt"}, []int{2}
	o.Environ = append(o.Environ, "REFUSE_AFTER=70") // in the first measured round
	report, err := Run(t.Context(), o)
	if !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), api.MessageKeyDisabled) {
		t.Fatalf("Run: got %v, want %v", err, ErrFailed)
	}
	if row := report.Rows[0]; row.Errors == 0 || len(row.Rounds) != 1 || row.Requests == 0 {
		t.Errorf("Run: got %d errors, %d requests in %d rounds", row.Errors, row.Requests, len(row.Rounds))
	}
	checkNothingLeft(t)
}

func TestRunRefused(t *testing.T) {
	tests := []struct {
		name    string
		environ []string
		change  func(*Options)
		want    string
	}{
		{"while it warms up", []string{"REFUSE_AFTER=10"}, nil, api.MessageKeyDisabled},
		{"before", []string{"REFUSE_AFTER=1"}, nil, api.MessageKeyDisabled},
		{"no such program", nil, func(o *Options) { o.Program += "-not" }, "no such file"},
		{"unknown operation", nil, func(o *Options) { o.Operations = []string{"explode"} }, "want one of encrypt, decrypt"},
		{"no size", nil, func(o *Options) { o.Sizes = []int{0} }, "want 1 to 6144 bytes"},
		{"too large", nil, func(o *Options) { o.Sizes = []int{32, 6145} }, "want 1 to 6144 bytes"},
		{"no connections", nil, func(o *Options) { o.Conns = []int{0} }, "want 1 to 1024"},
		{"too many connections", nil, func(o *Options) { o.Conns = []int{1025} }, "want 1 to 1024"},
		{"negative duration", nil, func(o *Options) { o.Duration = -1 }, "want 1ms to"},
		{"too many rounds", nil, func(o *Options) { o.Rounds = 101 }, "want 1 to 100"},
		{"negative count", nil, func(o *Options) { o.Count = -1 }, "want at least 0"},
		{"insecure far away", nil, func(o *Options) { o.Service = plainService("http://192.0.2.1:1") }, "loopback"},
		{"credentials without URL", nil, func(o *Options) { o.Service.AppID = "a" }, "there is none"},
		{"nodes without URL", nil, func(o *Options) { o.Nodes = []string{"http://127.0.0.1:1"} }, "there is none"},
		{"too many nodes", nil, func(o *Options) { o.Service.URL, o.Nodes = "http://127.0.0.1:1", make([]string, maxNodes) }, "want at most 64"},
		{"node without port", nil, func(o *Options) {
			o.Service, o.Nodes, o.Conns = plainService(serve(t)), []string{"http://127.0.0.1"}, []int{2}
		}, "want one with a port"},
		{"process without URL", nil, func(o *Options) { o.PIDs = []int{1} }, "there is none"},
		{"split beside nothing", nil, func(o *Options) { o.Split = true }, "ehsm-simtee: no such file"},
		{"split without TLS", nil, func(o *Options) { o.Split, o.HTTP = true, true }, "TLS only"},
		{"split with URL", nil, func(o *Options) { o.Service.URL, o.Split = "https://127.0.0.1:1", true }, "started already"},
		{"transport of a URL", nil, func(o *Options) { o.Service.URL, o.HTTP = "https://127.0.0.1:1", true }, "started already"},
		{"URL without port", nil, func(o *Options) { o.Service.URL = "https://127.0.0.1" }, "with a port"},
		{"fingerprint", nil, func(o *Options) { o.Service.URL, o.Service.Fingerprint = "https://127.0.0.1:1", "12" }, "64 hex digits"},
		{"nobody there", nil, func(o *Options) { o.Service = plainService("http://127.0.0.1:1") }, "connection refused"},
		{"no such process", nil, func(o *Options) { o.Service, o.PIDs = plainService(serve(t)), []int{maxPID} }, "read CPU time"},
		{"process 0", nil, func(o *Options) { o.Service.URL, o.PIDs = "http://127.0.0.1:1", []int{0} }, "want 1 to"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.name == "no such process" && runtime.GOOS != "linux" {
				t.Skip("needs Linux")
			}
			o := testOptions(t)
			o.Environ = append(o.Environ, tt.environ...)
			if tt.change != nil {
				tt.change(&o)
			}
			report, err := Run(t.Context(), o)
			if err == nil || errors.Is(err, ErrFailed) || report != nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Run: got %v, want %q", err, tt.want)
			}
			checkNothingLeft(t)
		})
	}
}

func plainService(url string) ehsm.Config { return ehsm.Config{URL: url, Insecure: true} }

// serve serves the fake service in this process.
func serve(t *testing.T) (url string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(serveOn(t.Context(), ln, newFake()))
	return "http://" + ln.Addr().String()
}

func TestRunAtURL(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := newFake()
	t.Cleanup(serveOn(t.Context(), ln, f))
	o := testOptions(t)
	o.Operations, o.Service.URL = []string{"encrypt"}, "http://"+ln.Addr().String()
	o.Service.Insecure = true
	o.Service.AppID, o.Service.APIKey = fakeAppID, ehsm.NewAPIKey(f.apiKey)
	report, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if report.Service != o.Service.URL || report.Transport != "http" || report.IdleBytes != 0 || report.Rows[0].CPU != 0 || report.Rows[0].Requests != 80 {
		t.Errorf("Run: got %+v", report)
	}
	if f.enrolled.Load() != 0 {
		t.Error("Run: enrolled although it was given credentials")
	}
	checkNothingLeft(t)
}

// A run that is interrupted ends its servers and removes their data, wherever
// it is.
func TestRunInterrupted(t *testing.T) {
	for _, at := range []string{"starting", "encrypt", "decrypt"} {
		t.Run(at, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			o := testOptions(t)
			o.Progress = writerFunc(func(b []byte) (int, error) {
				if strings.HasPrefix(string(b), at) {
					cancel()
				}
				return len(b), nil
			})
			report, err := Run(ctx, o)
			if !errors.Is(err, context.Canceled) || report != nil {
				t.Errorf("Run: got %v, want %v", err, context.Canceled)
			}
			checkNothingLeft(t)
		})
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
