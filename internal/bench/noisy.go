package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/ehsm-kms/ehsm/client/ehsm"
)

// NoisyOptions say what a noisy tenant does beside a quiet one. The zero value,
// completed with Program, measures `ehsm dev` over TLS.
type NoisyOptions struct {
	Program string   // as in Options
	Environ []string // as in Options
	Split   bool     // as in Options

	// Limit is the number of requests a second that the domain allows an app.
	// Zero: there is no limit.
	Limit int

	// Operations are the ones that make noise, of OperationNames. Nil: encrypt,
	// sign-rsa2048, createkey-rsa2048.
	Operations []string

	// Conns is the number of the noisy tenant's connections, 1 to 1024. Zero: 64.
	Conns int

	// Rate is how many requests a second, Encrypt of 32 bytes, the quiet tenant
	// sends, at most 1000. Zero: 200.
	Rate int

	// Duration of a round, at most 10 minutes. Zero: 2 s.
	Duration time.Duration

	// Rounds of each condition, at most 100. Zero: 5.
	Rounds int

	// Progress is told what is measured next. Nil: nobody.
	Progress io.Writer

	settle time.Duration // as in Options
}

func (o *NoisyOptions) complete() error {
	if o.Operations == nil {
		o.Operations = []string{"encrypt", "sign-rsa2048", "createkey-rsa2048"}
	}
	for _, v := range []struct {
		n      *int
		normal int
	}{{&o.Conns, 64}, {&o.Rate, 200}, {&o.Rounds, 5}} {
		if *v.n == 0 {
			*v.n = v.normal
		}
	}
	if o.Duration == 0 {
		o.Duration = 2 * time.Second
	}
	if o.settle == 0 {
		o.settle = time.Second
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	for _, name := range o.Operations {
		if _, err := findOperation(name); err != nil {
			return err
		}
	}
	switch {
	case len(o.Operations) == 0:
		return errors.New("want at least one operation that makes noise")
	case o.Conns < 1 || o.Conns > maxConns:
		return fmt.Errorf("connections are %d, want 1 to %d", o.Conns, maxConns)
	case o.Rate < 1 || o.Rate > 1000:
		return fmt.Errorf("the quiet tenant's requests are %d a second, want 1 to 1000", o.Rate)
	case o.Limit < 0:
		return fmt.Errorf("limit is %d, want at least 0", o.Limit)
	case o.Limit > 0 && o.Limit < 2*o.Rate:
		return fmt.Errorf("limit is %d, want at least twice the quiet tenant's %d requests a second", o.Limit, o.Rate)
	case o.Duration < time.Millisecond || o.Duration > maxDuration:
		return fmt.Errorf("duration is %v, want 1ms to %v", o.Duration, maxDuration)
	case o.Rounds < 1 || o.Rounds > maxRounds:
		return fmt.Errorf("rounds are %d, want 1 to %d", o.Rounds, maxRounds)
	}
	return nil
}

// A NoisyReport is what the quiet tenant had of the noise.
type NoisyReport struct {
	Head
	Rate   int     `json:"rate"`  // of the quiet tenant, requests a second
	Conns  int     `json:"conns"` // of the noisy one
	Limit  int     `json:"limit"` // requests a second of an app, 0: none
	Noises []Noise `json:"noises"`
}

// A Noise is what an operation does to others. Latencies are of all rounds together,
// ratios the medians over the rounds of the quiet tenant's p50 and p99.
//
// The noise is made in turns at another service on the same machine, which shares
// nothing with the quiet tenant's but the processors, and at the same service. Ratio
// compares the second with silence, and Share with the first: what the noise does
// because the service is one.
type Noise struct {
	Operation string `json:"operation"`

	Alone  Latency `json:"alone"`
	Beside Latency `json:"beside"`
	With   Latency `json:"with"`

	RatioP50 float64 `json:"ratioP50"`
	RatioP99 float64 `json:"ratioP99"`
	ShareP50 float64 `json:"shareP50"`
	ShareP99 float64 `json:"shareP99"`

	Served  float64 `json:"served"`  // requests of the noise a second, at the same service
	Refused float64 `json:"refused"` // with code 429, a second
	Load    float64 `json:"load"`    // processors that the service used meanwhile
}

// Noisy measures how long the requests of a quiet tenant take while another tenant
// floods the service, and while it does not. It ends what it starts and removes its
// data before it returns.
func Noisy(ctx context.Context, o NoisyOptions) (_ *NoisyReport, err error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOptions, err)
	}
	n := noisyRun{NoisyOptions: o}
	defer func() { err = errors.Join(err, n.close()) }()
	if err := n.start(ctx); err != nil {
		return nil, err
	}
	report := &NoisyReport{Head: newHead(Options{Split: o.Split}), Rate: o.Rate, Conns: o.Conns, Limit: o.Limit}
	for _, op := range o.Operations {
		fmt.Fprintf(o.Progress, "noise: %s on %d connections\n", op, o.Conns)
		noise, err := n.measure(ctx, op)
		if err != nil {
			return nil, fmt.Errorf("noise of %s: %w", op, err)
		}
		report.Noises = append(report.Noises, noise)
	}
	return report, nil
}

// noisyRun is a measurement with what it has started: the service, and another one
// that the quiet tenant has nothing to do with.
type noisyRun struct {
	NoisyOptions
	starters [2]*starter
	services [2]*service
	quiet    *quiet
}

const (
	same  = iota // index of the quiet tenant's service
	other        // of the other one
)

func (n *noisyRun) start(ctx context.Context) error {
	for i := range n.services {
		s, err := newStarter(Options{Program: n.Program, Environ: n.Environ, settle: n.settle})
		if err != nil {
			return err
		}
		n.starters[i], s.limit = s, n.Limit
		if n.Split {
			n.services[i], err = s.split(ctx)
		} else {
			n.services[i], err = s.dev(ctx, false)
		}
		if err != nil {
			return err
		}
	}
	cfg := ehsm.Config{URL: n.services[same].url, Insecure: true}
	e, err := newEndpoint(cfg)
	if err != nil {
		return err
	}
	r := run{service: n.services[same]}
	if r.tenant, err = newTenant(ctx, cfg); err != nil {
		return fmt.Errorf("prepare the quiet tenant: %w", err)
	}
	op, err := findOperation("encrypt")
	if err != nil {
		return err
	}
	n.quiet = &quiet{rate: n.Rate}
	n.quiet.side, err = r.nativeSide(ctx, op, dataKeyLen, quietConns, []endpoint{e})
	return err
}

func (n *noisyRun) close() (err error) {
	if n.quiet != nil && n.quiet.side != nil {
		n.quiet.side.close()
	}
	for i, s := range n.services {
		if s != nil {
			s.stop()
		}
		if n.starters[i] != nil {
			err = errors.Join(err, n.starters[i].close())
		}
	}
	return err
}

// measure runs the rounds of one operation: silence, noise beside, noise with.
func (n *noisyRun) measure(ctx context.Context, op string) (Noise, error) {
	result := Noise{Operation: op}
	var noises [2]*noise
	for i, s := range n.services {
		job := noiseJob{URL: s.url, Operation: op, Size: dataKeyLen, Conns: n.Conns}
		noise, err := startNoise(ctx, n.starters[i], job)
		if err != nil {
			return result, err
		}
		defer noise.close()
		noises[i] = noise
	}
	var t tally
	for range n.Rounds {
		for c, noise := range []*noise{nil, noises[other], noises[same]} {
			if err := n.round(ctx, &t, c, noise); err != nil {
				return result, err
			}
		}
	}
	t.finish(&result)
	return result, nil
}

// The conditions of a round.
const (
	alone = iota
	beside
	with
	conditions
)

// tally collects the rounds of an operation.
type tally struct {
	latency  [conditions]histogram
	p50, p99 [conditions][]float64

	served, refused, seconds, cpu float64 // with the noise at the same service
}

// noiseLead is how long a noise is made before the quiet tenant's round begins, so
// that its queue is as long as it gets.
const noiseLead = 300 * time.Millisecond

func (n *noisyRun) round(ctx context.Context, t *tally, condition int, noise *noise) error {
	if noise != nil {
		if err := noise.begin(); err != nil {
			return err
		}
		if err := sleep(ctx, noiseLead); err != nil {
			return err
		}
	}
	s, err := n.quiet.round(ctx, n.Duration)
	var count noiseCount
	if noise != nil {
		var endErr error
		count, endErr = noise.end()
		err = errors.Join(err, endErr)
	}
	if err != nil {
		return err
	}
	t.latency[condition].merge(&s.latency)
	t.p50[condition] = append(t.p50[condition], micros(s.latency.quantile(0.5)))
	t.p99[condition] = append(t.p99[condition], micros(s.latency.quantile(0.99)))
	if condition == with {
		t.served += float64(count.Requests)
		t.refused += float64(count.Refused)
		t.seconds += count.Seconds
		t.cpu += s.cpu.Seconds() / s.elapsed.Seconds() / float64(n.Rounds)
	}
	return nil
}

func (t *tally) finish(r *Noise) {
	r.Alone, r.Beside, r.With = quantiles(&t.latency[alone]), quantiles(&t.latency[beside]), quantiles(&t.latency[with])
	r.RatioP50, r.RatioP99 = medianRatio(t.p50[with], t.p50[alone]), medianRatio(t.p99[with], t.p99[alone])
	r.ShareP50, r.ShareP99 = medianRatio(t.p50[with], t.p50[beside]), medianRatio(t.p99[with], t.p99[beside])
	r.Served, r.Refused, r.Load = t.served/t.seconds, t.refused/t.seconds, t.cpu
}

// medianRatio is the median of the ratios of two series, round by round.
func medianRatio(a, b []float64) float64 {
	ratios := make([]float64, len(a))
	for i := range a {
		ratios[i] = a[i] / b[i]
	}
	slices.Sort(ratios)
	return ratios[len(ratios)/2]
}

// WriteText writes the report as a table for people.
func (r *NoisyReport) WriteText(w io.Writer) error {
	r.writeHead(w)
	fmt.Fprintf(w, "quiet tenant: %d Encrypt a second; noisy tenant: %d connections, closed loop, lowest priority; limit: %s\n\n", r.Rate, r.Conns, limitText(r.Limit))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "noise\talone p50 us\tp99\tother service p50\tp99\tsame service p50\tp99\tsame/alone p50\tp99\tsame/other p50\tp99\tserved/s\trefused/s\tprocessors\t")
	for _, n := range r.Noises {
		fmt.Fprintf(t, "%s\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.2f\t%.2f\t%.2f\t%.2f\t%.0f\t%.0f\t%.2f\t\n", n.Operation, n.Alone.P50, n.Alone.P99,
			n.Beside.P50, n.Beside.P99, n.With.P50, n.With.P99, n.RatioP50, n.RatioP99, n.ShareP50, n.ShareP99, n.Served, n.Refused, n.Load)
	}
	return t.Flush()
}

func limitText(n int) string {
	if n == 0 {
		return "none"
	}
	return fmt.Sprintf("%d requests a second", n)
}
