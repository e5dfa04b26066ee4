package bench

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// three rounds of 1 s: 1000, 3000 and 2000 requests, of 30, 10 and 20 us.
func testRow(failed error) Row {
	row := newRow(operation{name: "encrypt"}, 32, 16)
	for _, n := range []uint64{1000, 3000, 2000} {
		a := sample{requests: n, elapsed: time.Second, cpu: 30 * time.Millisecond}
		b := sample{requests: 1000, elapsed: time.Second, cpu: 10 * time.Millisecond}
		if failed != nil {
			b.fail(failed)
		}
		a.latency.add(50)
		row.add(&a, &b, 0)
	}
	row.finish()
	return row
}

func TestRowMedians(t *testing.T) {
	row := testRow(nil)
	if row.Rate != 2000 || row.CPU != 15 || row.CeilingCPU != 10 || row.Ratio != 1.5 || row.Requests != 6000 || row.Latency.P99 != 0.05 {
		t.Errorf("row: got %+v", row)
	}
}

func TestReportErrors(t *testing.T) {
	r := Report{Rows: []Row{testRow(nil), testRow(errors.New("oops"))}}
	if err := r.err(); !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "encrypt on 16 connections: ceiling server: oops") {
		t.Errorf("err: got %v", err)
	}
	if r.Rows[1].Errors != 3 {
		t.Errorf("errors: got %d, want 3", r.Rows[1].Errors)
	}
	r.Rows = r.Rows[:1]
	if err := r.err(); err != nil {
		t.Errorf("err: got %v, want nil", err)
	}
}

func TestReportForeign(t *testing.T) {
	tests := []struct {
		name             string
		elapsed, foreign time.Duration
		want             float64
		disturbed        bool
	}{
		{"quiet", time.Second, 100 * time.Millisecond, 0.05, false},
		{"loaded", time.Second, time.Second, 0.5, true},
		{"too short to tell", 100 * time.Millisecond, 100 * time.Millisecond, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := Report{Head: Head{CPUs: 2}}
			r.addForeign(&sample{elapsed: tt.elapsed, foreign: tt.foreign})
			var text strings.Builder
			if err := r.WriteText(&text); err != nil {
				t.Fatal(err)
			}
			if got := strings.Contains(text.String(), "DISTURBED"); r.Foreign != tt.want || got != tt.disturbed {
				t.Errorf("report: got %v, disturbed %v:\n%s", r.Foreign, got, &text)
			}
		})
	}
}

// What was not measured is shown as that, not as 0.
func TestReportWithoutFigures(t *testing.T) {
	row := newRow(operation{name: "encrypt"}, 32, 1)
	row.finish()
	r := Report{Head: Head{Service: "https://kms.example:9000"}, Rows: []Row{row}}
	var text strings.Builder
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(text.String(), "\n")
	if got := strings.Fields(lines[4]); len(got) != 13 || got[4] != "-" || got[5] != "-" || got[6] != "-" {
		t.Errorf("WriteText: got\n%s", &text)
	}
	if strings.Contains(text.String(), "start to ready") || strings.Contains(text.String(), "memory") {
		t.Errorf("WriteText: got\n%s", &text)
	}
}
