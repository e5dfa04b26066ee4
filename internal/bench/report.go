package bench

import (
	"cmp"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// foreignLimit is the share of the processors above which a run is called
// disturbed.
const foreignLimit = 0.1

// Head says what was measured, where and when.
type Head struct {
	Date      string `json:"date"`   // RFC 3339, UTC
	Commit    string `json:"commit"` // "" in a build outside a repository
	Go        string `json:"go"`
	CPUs      int    `json:"cpus"` // that server and load generator share
	Service   string `json:"service"`
	Transport string `json:"transport"` // "TLS" or "http"
}

// Report is what a run found; it encodes as JSON. Times are microseconds, sizes bytes; zero stands
// for what was not measured.
type Report struct {
	Head
	FirstStart  float64 `json:"firstStart"`  // to ready, on an empty directory
	SecondStart float64 `json:"secondStart"` // to ready, on the directory of the first
	IdleBytes   int64   `json:"idleBytes"`   // in RAM before the first request
	LoadedBytes int64   `json:"loadedBytes"` // in RAM, the most after a round

	// Foreign is the share of the processors, 0 to 1, that other programs used
	// in the worst round. CPU times suffer from it: caches are shared.
	Foreign float64 `json:"foreign"`

	Rows []Row `json:"rows"`
}

// addForeign takes what other programs used during a round, unless that is too
// short for ticks of 10 ms.
func (r *Report) addForeign(s *sample) {
	if s.elapsed > 200*time.Millisecond {
		r.Foreign = max(r.Foreign, s.foreign.Seconds()/s.elapsed.Seconds()/float64(r.CPUs))
	}
}

// Row is one operation on a number of connections. Of CPU and Ratio it has the
// medians over the rounds, the quantiles are of all rounds together.
type Row struct {
	Operation string `json:"operation"`
	Size      int    `json:"size"` // bytes of the plaintext
	Conns     int    `json:"conns"`
	Nodes     int    `json:"nodes,omitempty"` // that the connections were spread over; 0: the service is one

	Rate       float64 `json:"rate"`       // requests per second
	CPU        float64 `json:"cpu"`        // of the server per request
	CeilingCPU float64 `json:"ceilingCpu"` // of the ceiling server per request
	Ratio      float64 `json:"ratio"`      // CPU to CeilingCPU of the same round

	// Of the cryptography alone on all processors, and what CPU is above it, in
	// the same rounds; where that is what the operation is about.
	PrimitiveCPU float64 `json:"primitiveCpu,omitempty"`
	Above        float64 `json:"above,omitempty"`

	Latency        Latency `json:"latency"`
	CeilingLatency Latency `json:"ceilingLatency"`

	Requests uint64  `json:"requests"` // to the service, of all rounds
	Errors   int     `json:"errors"`   // of both servers; not counted as requests
	Error    string  `json:"error,omitempty"`
	Rounds   []Round `json:"rounds"`

	latency, ceilingLatency histogram
}

// Latency is from sending a request to having its answer.
type Latency struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
}

// Round is one pair of rounds.
type Round struct {
	Rate       float64 `json:"rate"`
	CPU        float64 `json:"cpu"`
	CeilingCPU float64 `json:"ceilingCpu"`
	Ratio      float64 `json:"ratio"`

	PrimitiveCPU float64 `json:"primitiveCpu,omitempty"`
}

func newReport(o Options) *Report { return &Report{Head: newHead(o)} }

func newHead(o Options) Head {
	r := Head{
		Date:    time.Now().UTC().Format(time.RFC3339),
		Go:      runtime.Version(),
		CPUs:    runtime.NumCPU(),
		Service: "ehsm dev",
	}
	switch {
	case o.Service.URL != "":
		r.Service = o.Service.URL
	case o.Split:
		r.Service = "ehsm-core and ehsm-kms"
	}
	r.Transport = "TLS"
	if o.HTTP || strings.HasPrefix(o.Service.URL, "http:") {
		r.Transport = "http"
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				r.Commit = s.Value[:min(12, len(s.Value))]
			case s.Key == "vcs.modified" && s.Value == "true":
				r.Commit += "+"
			}
		}
	}
	return r
}

func (r *Report) setService(s *service) {
	r.FirstStart, r.SecondStart, r.IdleBytes = micros(s.first), micros(s.second), s.idle
}

// err returns ErrFailed with the first failure, if there is any.
func (r *Report) err() error {
	for _, row := range r.Rows {
		if row.Errors > 0 {
			return fmt.Errorf("%w: %s on %d connections: %s", ErrFailed, row.Operation, row.Conns, row.Error)
		}
	}
	return nil
}

func newRow(op operation, size, conns int) Row {
	return Row{Operation: op.name, Size: size, Conns: conns}
}

// add takes the results of one round of each server, and of the primitive if
// that is not 0.
func (r *Row) add(service, ceiling *sample, primitive float64) {
	round := Round{
		Rate:       float64(service.requests) / service.elapsed.Seconds(),
		CPU:        service.perRequest(),
		CeilingCPU: ceiling.perRequest(),

		PrimitiveCPU: primitive,
	}
	if round.CeilingCPU > 0 {
		round.Ratio = round.CPU / round.CeilingCPU
	}
	r.Rounds = append(r.Rounds, round)
	r.Requests += service.requests
	r.latency.merge(&service.latency)
	r.ceilingLatency.merge(&ceiling.latency)
	r.Errors += service.errors + ceiling.errors
	switch {
	case service.firstErr != nil:
		r.Error = service.firstErr.Error()
	case ceiling.firstErr != nil:
		r.Error = "ceiling server: " + ceiling.firstErr.Error()
	}
}

// finish computes the row from its rounds.
func (r *Row) finish() {
	r.Rate = r.median(func(x Round) float64 { return x.Rate })
	r.CPU = r.median(func(x Round) float64 { return x.CPU })
	r.CeilingCPU = r.median(func(x Round) float64 { return x.CeilingCPU })
	r.Ratio = r.median(func(x Round) float64 { return x.Ratio })
	if r.PrimitiveCPU = r.median(func(x Round) float64 { return x.PrimitiveCPU }); r.PrimitiveCPU > 0 {
		r.Above = r.median(func(x Round) float64 { return x.CPU - x.PrimitiveCPU })
	}
	r.Latency, r.CeilingLatency = quantiles(&r.latency), quantiles(&r.ceilingLatency)
}

// median of an even number of rounds is the higher one of the two in the middle.
func (r *Row) median(of func(Round) float64) float64 {
	var values []float64
	for _, round := range r.Rounds {
		values = append(values, of(round))
	}
	slices.Sort(values)
	if len(values) == 0 {
		return 0
	}
	return values[len(values)/2]
}

func quantiles(h *histogram) Latency {
	return Latency{micros(h.quantile(0.5)), micros(h.quantile(0.95)), micros(h.quantile(0.99))}
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func (r *Head) writeHead(w io.Writer) {
	fmt.Fprintf(w, "%s  commit %s  %s  %d CPUs shared with the load generator\n", r.Date, cmp.Or(r.Commit, "unknown"), r.Go, r.CPUs)
	fmt.Fprintf(w, "%s over %s\n", r.Service, r.Transport)
}

// WriteText writes the report as a table for people.
func (r *Report) WriteText(w io.Writer) error {
	r.writeHead(w)
	if r.SecondStart > 0 {
		fmt.Fprintf(w, "start to ready in ms: %.0f, the first time %s\n", r.SecondStart/1000, number(r.FirstStart/1000, 0))
	}
	if r.LoadedBytes > 0 {
		fmt.Fprintf(w, "memory in RAM: %s idle, %s under load\n", mebibytes(r.IdleBytes), mebibytes(r.LoadedBytes))
	}
	if r.Foreign > foreignLimit {
		fmt.Fprintf(w, "DISTURBED: other programs used up to %.0f %% of the processors; measure again on a quiet machine\n", 100*r.Foreign)
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "operation\tbytes\tconns\t"+r.nodesColumn("nodes")+"req/s\tCPU us\tceiling us\tratio\tp50 us\tp95 us\tp99 us\tceiling p50\tp99\terrors\t")
	for _, row := range r.Rows {
		fmt.Fprintf(t, "%s\t%d\t%d\t%s%.0f\t%s\t%s\t%s\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%d\t\n", row.Operation, row.Size, row.Conns, r.nodesColumn(strconv.Itoa(row.Nodes)), row.Rate,
			number(row.CPU, 1), number(row.CeilingCPU, 1), number(row.Ratio, 2),
			row.Latency.P50, row.Latency.P95, row.Latency.P99, row.CeilingLatency.P50, row.CeilingLatency.P99, row.Errors)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w, "\nCPU is the server's, user and system, per request; ratio is to the ceiling server in the same rounds.")
	for _, t := range r.targets() {
		if _, err := fmt.Fprintln(w, t); err != nil {
			return err
		}
	}
	return nil
}

// nodesColumn is a cell of the column for nodes, which there is if a service of
// several was measured.
func (r *Report) nodesColumn(text string) string {
	if len(r.Rows) == 0 || r.Rows[0].Nodes == 0 {
		return ""
	}
	return text + "\t"
}

// number shows a measured figure, or that there is none.
func number(v float64, decimals int) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.*f", decimals, v)
}

func mebibytes(n int64) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
