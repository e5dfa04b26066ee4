package harden

import "testing"

func TestReports(t *testing.T) {
	for _, row := range []struct {
		name   string
		report Report
		want   string
	}{
		{"nothing", Report{}, "not confined"},
		{"all", Report{Applied: []string{"a", "b"}}, "confined: a, b"},
		{"some", Report{Applied: []string{"a"}, Missing: []string{"b", "c"}}, "confined: a; NOT: b, c"},
		{"none of it", Report{Missing: []string{"b"}}, "not confined; NOT: b"},
		{"joined", Join(Report{Applied: []string{"a"}, Missing: []string{"x"}}, Report{}, Report{Applied: []string{"b"}}), "confined: a, b; NOT: x"},
	} {
		if got := row.report.String(); got != row.want {
			t.Errorf("%s: got %q, want %q", row.name, got, row.want)
		}
	}
}
