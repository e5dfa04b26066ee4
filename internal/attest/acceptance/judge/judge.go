// Package judge says whether an acceptance report is good: what the program in
// the TEE found, what the host saw, whether genuine evidence covers both, and what
// to do about what failed. It needs nothing of the machine that the report is of.
//
// It holds no secrets and does no I/O.
package judge

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/acceptance"
	"github.com/ehsm-kms/ehsm/internal/attest/acceptance/speed"
)

// Options say under which conditions a report is judged.
type Options struct {
	// Roots are the trust anchors; nil means those of Intel, and of AMD.
	Roots []*x509.Certificate
	// Now is the time at which the evidence must be genuine.
	Now time.Time
	// Collateral is what the evidence is verified with, instead of that in the
	// report: JSON or a bundle for SGX and TDX, PEM for SEV-SNP.
	Collateral []byte
	// Policy says what is wanted, in the file format of one kind of TEE. Empty:
	// that is not asked.
	Policy []byte
	// AllowSim accepts a simulated platform, which nothing protects.
	AllowSim bool
	// MinRatio is the least throughput in the TEE, as a part of that outside.
	MinRatio float64
}

// A Line is one check of a report.
type Line struct {
	Check   string             `json:"check"`
	Outcome acceptance.Outcome `json:"outcome"`
	Detail  string             `json:"detail"`
	Hint    string             `json:"hint,omitempty"` // what to do about it
}

// Names of the checks that are made here, beside those of the runs.
const (
	Devices  = "devices"
	Start    = "start" // for whoever starts the core; no report has it
	Bound    = "report"
	Genuine  = "genuine"
	Same     = "same-program"
	Hardware = "hardware"
	Wanted   = "wanted"
	Nonce    = "nonce"
)

// Failed reports whether a line says that something failed.
func Failed(lines []Line) bool {
	return slices.ContainsFunc(lines, func(l Line) bool { return l.Outcome == acceptance.Fail })
}

// Report judges a report. Every check has a line, whatever fails before it.
func Report(r *acceptance.Report, o Options) []Line {
	if len(o.Collateral) == 0 {
		o.Collateral = r.Host.Collateral
	}
	lines := []Line{DeviceLine(&r.Host, r.First.Result.Platform.Name)}
	for _, name := range []acceptance.Name{acceptance.Identity, acceptance.Randomness, acceptance.Evidence} {
		lines = append(lines, both(r, name))
	}
	lines = append(lines, line(Bound, "both runs are signed, and the second covers all of the report", r.CheckBinding()))
	lines = append(lines, evidenceLines(r, o)...)
	lines = append(lines, sameProgram(r), hardware(r, o), both(r, acceptance.SealKeys), restart(r),
		both(r, acceptance.LocalReport), clock(r), one(&r.First, acceptance.Memory), throughput(r, o))
	return lines
}

// line makes a line of a check that has no third outcome.
func line(check, detail string, err error) Line {
	if err != nil {
		return Line{check, acceptance.Fail, err.Error(), hint(check, err)}
	}
	return Line{check, acceptance.Pass, detail, ""}
}

// one is the line of a check of one run.
func one(s *acceptance.Statement, name acceptance.Name) Line {
	c, ok := s.Result.Check(name)
	if !ok {
		return Line{string(name), acceptance.Fail, "the program did not do this check", hintOther}
	}
	l := Line{Check: string(name), Outcome: c.Outcome, Detail: c.Detail}
	if c.Outcome == acceptance.NotAvailable && !optional(name, s.Result.Platform.Name) {
		l.Outcome = acceptance.Fail // only some platforms may lack it
	}
	if l.Outcome == acceptance.Fail {
		l.Hint = hint(string(name), nil)
	}
	return l
}

// optional reports whether a platform may do without what a check is about.
func optional(name acceptance.Name, platform string) bool {
	switch name {
	case acceptance.LocalReport:
		return platform != "ego" && platform != "sim"
	case acceptance.SealKeys, acceptance.Restart:
		return platform == "tdx" || platform == "snp"
	}
	return false
}

// both is the line of a check that both runs did: the worse of the two.
func both(r *acceptance.Report, name acceptance.Name) Line {
	first, second := one(&r.First, name), one(&r.Second, name)
	if second.Outcome == acceptance.Fail || first.Outcome == second.Outcome {
		return second
	}
	if first.Outcome != acceptance.Fail {
		first.Outcome = acceptance.Fail
		first.Hint = hint(string(name), nil)
		first.Detail = fmt.Sprintf("the first run says: %s; the second: %s", first.Detail, second.Detail)
	}
	return first
}

// evidenceLines says whether the evidence is genuine, and wanted.
func evidenceLines(r *acceptance.Report, o Options) []Line {
	wanted := Line{Wanted, acceptance.NotAvailable, "no policy was given, so it was not asked", ""}
	first, err := genuine(&r.First, o)
	var second *claims
	if err != nil {
		err = fmt.Errorf("first run: %w", err)
	} else if second, err = genuine(&r.Second, o); err != nil {
		err = fmt.Errorf("second run: %w", err)
	} else if first.machine != second.machine {
		err = fmt.Errorf("the runs are of two machines, %s and %s", first.machine, second.machine)
	}
	if err != nil {
		if len(o.Policy) > 0 {
			wanted = Line{Wanted, acceptance.Fail, "not shown to be genuine", ""}
		}
		return []Line{line(Genuine, "", err), wanted}
	}
	if len(o.Policy) > 0 {
		err := second.wanted(o.Policy)
		if err == nil {
			err = first.wanted(o.Policy)
		}
		wanted = line(Wanted, "the policy accepts program, machine and TCB", err)
	}
	return []Line{line(Genuine, fmt.Sprintf("%v at %s, machine %s, %s", second.kind, o.Now.UTC().Format(time.RFC3339), second.machine, second.text), nil), wanted}
}

func sameProgram(r *acceptance.Report) Line {
	a, b := &r.First.Result, &r.Second.Result
	same := a.Platform.Name == b.Platform.Name && a.Platform.Simulated == b.Platform.Simulated && a.Platform.Debug == b.Platform.Debug &&
		a.Platform.Product == b.Platform.Product && a.Platform.SVN == b.Platform.SVN && a.Version == b.Version && a.Go == b.Go &&
		bytes.Equal(a.Platform.Measurement, b.Platform.Measurement) && bytes.Equal(a.Platform.Signer, b.Platform.Signer)
	var err error
	if !same {
		err = fmt.Errorf("the program is another after a restart: measurement %x, then %x", []byte(a.Platform.Measurement), []byte(b.Platform.Measurement))
	}
	return line(Same, fmt.Sprintf("ehsm-core %s, %s, signer %x, in both runs", a.Version, a.Go, []byte(a.Platform.Signer)), err)
}

func hardware(r *acceptance.Report, o Options) Line {
	p := &r.First.Result.Platform
	switch {
	case !p.Simulated && !r.Second.Result.Platform.Simulated:
		return Line{Hardware, acceptance.Pass, "platform " + p.Name, ""}
	case o.AllowSim:
		return Line{Hardware, acceptance.NotAvailable, "simulated: no hardware protects anything", ""}
	}
	return Line{Hardware, acceptance.Fail, "simulated: no hardware protects anything", hint(Hardware, nil)}
}

// restart says whether the second run opened exactly what the first sealed.
func restart(r *acceptance.Report) Line {
	first, second := &r.First.Result, &r.Second.Result
	if c, ok := first.Check(acceptance.SealKeys); ok && c.Outcome == acceptance.NotAvailable && optional(acceptance.SealKeys, first.Platform.Name) {
		return Line{string(acceptance.Restart), acceptance.NotAvailable, c.Detail, ""}
	}
	l := one(&r.Second, acceptance.Restart)
	if l.Outcome != acceptance.Pass {
		return l
	}
	var made []acceptance.Hex
	for _, s := range first.Seals {
		made = append(made, s.KeyID)
	}
	if len(made) == 0 || !slices.EqualFunc(made, second.Opened, func(a, b acceptance.Hex) bool { return bytes.Equal(a, b) }) {
		return line(string(acceptance.Restart), "", fmt.Errorf("the second run opened %d seals, and not the %d of the first", len(second.Opened), len(made)))
	}
	return l
}

// clock looks at each run's own check, and at the order of all times.
func clock(r *acceptance.Report) Line {
	l := both(r, acceptance.Clock)
	if l.Outcome != acceptance.Pass {
		return l
	}
	const slack = 2 * time.Second // the host may round
	times := []time.Time{r.First.Result.Started, r.First.Result.Finished, r.Host.Time, r.Second.Result.Started, r.Second.Result.Finished}
	for i := 1; i < len(times); i++ {
		if times[i].Before(times[i-1].Add(-slack)) {
			return line(string(acceptance.Clock), "", fmt.Errorf("times of the runs and of the host are not in order: %s after %s",
				times[i].Format(time.RFC3339), times[i-1].Format(time.RFC3339)))
		}
	}
	return l
}

// A Comparison is the throughput of an operation in the TEE and outside.
type Comparison struct {
	Inside  speed.Rate `json:"inside"`
	Outside uint64     `json:"outsidePerSecond"`
	Ratio   float64    `json:"ratio"`
}

// Compare returns what was measured both in the first run and outside, with the
// same number of threads.
func Compare(r *acceptance.Report) []Comparison {
	var out []Comparison
	for _, in := range r.First.Result.Throughput {
		for _, outside := range r.Host.Outside {
			if outside.Operation == in.Operation && outside.Threads == in.Threads && outside.PerSecond > 0 {
				out = append(out, Comparison{in, outside.PerSecond, float64(in.PerSecond) / float64(outside.PerSecond)})
			}
		}
	}
	return out
}

func throughput(r *acceptance.Report, o Options) Line {
	l := one(&r.First, acceptance.Throughput)
	if l.Outcome != acceptance.Pass {
		return l
	}
	all := Compare(r)
	for _, name := range speed.Names() {
		if !slices.ContainsFunc(all, func(c Comparison) bool { return c.Inside.Operation == name && c.Inside.PerSecond > 0 }) {
			return line(string(acceptance.Throughput), "", fmt.Errorf("%s was not measured both in the TEE and outside", name))
		}
	}
	least := slices.MinFunc(all, func(a, b Comparison) int {
		switch {
		case a.Ratio < b.Ratio:
			return -1
		case a.Ratio > b.Ratio:
			return 1
		}
		return 0
	})
	text := fmt.Sprintf("least: %s on %d threads, %.2f of what is reached outside", least.Inside.Operation, least.Inside.Threads, least.Ratio)
	if least.Ratio < o.MinRatio {
		return line(string(acceptance.Throughput), "", fmt.Errorf("%s, less than %.2f", text, o.MinRatio))
	}
	l.Detail = text
	return l
}

// NonceLine says whether a report answers a nonce, and is thus not an old one.
func NonceLine(r *acceptance.Report, nonce []byte) Line {
	var err error
	if !bytes.Equal(r.Nonce, nonce) {
		err = fmt.Errorf("the report answers %x", []byte(r.Nonce))
	}
	return line(Nonce, "the report answers it", err)
}
