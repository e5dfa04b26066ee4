package metrics

import (
	"fmt"
	"strings"
)

// A Metric is one row of the table.
type Metric struct {
	Name   string
	Kind   string // counter, gauge or histogram
	Labels []string
	Help   string
}

// The metrics of requests, which are counted as they happen.
var (
	requestsTotal = Metric{"ehsm_requests_total", "counter", []string{"action", "outcome"},
		"Requests answered. Outcome: ok, refused (the client's fault), busy (code 429), failed (ours)."}
	requestSeconds = Metric{"ehsm_request_seconds", "histogram", []string{"action"},
		"Time from the end of the header of a request to its reply, in seconds."}
)

// Table lists all metrics of this package, in the order of the documentation.
// Beside them there are those of the Go run-time (go_) and of the process
// (process_), CPU seconds among them.
func Table() []Metric {
	rows := []Metric{requestsTotal, requestSeconds}
	for _, r := range readings() {
		rows = append(rows, r.Metric)
	}
	return rows
}

// Markdown is the table for the documentation.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| metric | kind | labels | meaning |\n|---|---|---|---|\n")
	for _, m := range Table() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, m.Kind, strings.Join(m.Labels, ", "), m.Help)
	}
	return b.String()
}
