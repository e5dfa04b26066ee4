// Package bench measures what a request costs the server: its CPU time per
// request, user and system, of all its processes, and the ratio of that to what
// the ceiling server needs (package ceiling), measured in the same run with
// alternating rounds. Requests per second depend on the load generator, which
// shares the machine's processors; CPU time per request and the ratio do so far
// less.
//
// The load is a closed loop over keep-alive connections. Every request is signed
// freshly, with a nonce of its own and its action under the signature.
package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

// ErrOptions is wrapped by the errors for options that make no sense.
var ErrOptions = errors.New("wrong options")

// ErrFailed is returned, beside the report, when a request of a measured round
// failed.
var ErrFailed = errors.New("requests failed")

// Limits of the options.
const (
	maxConns    = 1024
	maxDuration = 10 * time.Minute
	maxRounds   = 100
	maxNodes    = 64
	maxPID      = 1 << 22 // of Linux on 64 bits
)

// Options say what to measure. The zero value, completed with Program, measures
// `ehsm dev` over TLS.
type Options struct {
	// Program is the executable with the commands dev and bench-ceiling.
	// It is required.
	Program string

	// Environ is the environment of the servers that are started; settings of
	// ehsm in it have no effect.
	Environ []string

	// Service is the service to measure and, if it has credentials, the tenant.
	// Without credentials a tenant is enrolled. Without a URL a service is
	// started, on loopback.
	Service ehsm.Config

	// Nodes are the URLs of further nodes of the service at the URL, which are
	// authenticated as it is. Each row is then measured with the first node alone,
	// with two of them, and so on; the connections are spread over them evenly.
	Nodes []string

	// PIDs are the processes of the service at the URL and of its further nodes, on
	// this machine. Without them its CPU time is not measured.
	PIDs []int

	// Split starts ehsm-core and ehsm-kms, which are beside Program, instead of
	// `ehsm dev`.
	Split bool

	// HTTP is without TLS.
	HTTP bool

	// Operations are names of OperationNames. Nil: encrypt, decrypt, datakey.
	Operations []string

	// Sizes are of the plaintext, in bytes, 1 to api.MaxPlaintext. Nil: 32.
	Sizes []int

	// Conns are numbers of connections, 1 to 1024. Nil: 16 and 1.
	Conns []int

	// Duration of a round, at most 10 minutes. Zero: 3 s.
	Duration time.Duration

	// Count ends a round after that many requests instead. Zero: by Duration.
	Count int

	// Rounds of each server per row, at most 100. Zero: 3.
	Rounds int

	// Progress is told what is measured next, and warnings. Nil: nobody.
	Progress io.Writer

	// settle is how long a started server is left alone before its idle memory
	// is read. Zero: 1 s.
	settle time.Duration
}

// complete fills in the defaults and checks the options as a whole.
func (o *Options) complete() error {
	if o.Operations == nil {
		o.Operations = []string{"encrypt", "decrypt", "datakey"}
	}
	if o.Sizes == nil {
		o.Sizes = []int{32}
	}
	if o.Conns == nil {
		o.Conns = []int{16, 1}
	}
	if o.Duration == 0 {
		o.Duration = 3 * time.Second
	}
	if o.Rounds == 0 {
		o.Rounds = 3
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
	outside := func(limit int) func(int) bool { return func(n int) bool { return n < 1 || n > limit } }
	switch {
	case slices.ContainsFunc(o.Sizes, outside(api.MaxPlaintext)):
		return fmt.Errorf("sizes are %v, want 1 to %d bytes", o.Sizes, api.MaxPlaintext)
	case slices.ContainsFunc(o.Conns, outside(maxConns)):
		return fmt.Errorf("numbers of connections are %v, want 1 to %d", o.Conns, maxConns)
	case o.Duration < time.Millisecond || o.Duration > maxDuration:
		return fmt.Errorf("duration is %v, want 1ms to %v", o.Duration, maxDuration)
	case o.Rounds < 1 || o.Rounds > maxRounds:
		return fmt.Errorf("rounds are %d, want 1 to %d", o.Rounds, maxRounds)
	case slices.ContainsFunc(o.PIDs, outside(maxPID)):
		return fmt.Errorf("process ids are %v, want 1 to %d", o.PIDs, maxPID)
	case o.Count < 0:
		return fmt.Errorf("count is %d, want at least 0", o.Count)
	case o.Service.URL == "" && (len(o.PIDs) > 0 || o.Service.CAFile+o.Service.Fingerprint+o.Service.AppID != ""):
		return errors.New("process ids, certificate and credentials are those of a service at a URL, and there is none")
	case o.Service.URL == "" && len(o.Nodes) > 0:
		return errors.New("further nodes are those of a service at a URL, and there is none")
	case len(o.Nodes) >= maxNodes:
		return fmt.Errorf("nodes are %d, want at most %d", len(o.Nodes)+1, maxNodes)
	case len(o.Nodes) > 0 && slices.Min(o.Conns) <= len(o.Nodes):
		return fmt.Errorf("numbers of connections are %v, want at least one for each of %d nodes", o.Conns, len(o.Nodes)+1)
	case o.Service.URL != "" && (o.Split || o.HTTP):
		return errors.New("the service at the URL is started already: split and http have no effect on it")
	case o.Split && o.HTTP:
		return errors.New("ehsm-kms speaks TLS only: want split or http, not both")
	}
	return nil
}

// run is one measurement with everything that it has started.
type run struct {
	Options
	service *service
	native  endpoint
	nodes   []endpoint // native and the further ones
	ceiling endpoint
	pids    []int // of the ceiling server
	tenant  *tenant
	report  *Report
}

// Run measures. It ends its servers and removes their data before it returns,
// also when ctx ends. The report is complete unless err is other than ErrFailed.
func Run(ctx context.Context, o Options) (report *Report, err error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOptions, err)
	}
	start, err := newStarter(o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, start.close()) }()
	r := &run{Options: o, report: newReport(o)}
	if r.service, err = r.startService(ctx, start); err != nil {
		return nil, err
	}
	defer r.service.stop()
	ceiling, err := start.ceiling(ctx, r.native.tls == nil)
	if err != nil {
		return nil, err
	}
	defer ceiling.stop()
	r.pids = []int{ceiling.pid}
	if r.ceiling, err = newEndpoint(ehsm.Config{URL: ceiling.url, Insecure: true}); err != nil {
		return nil, err
	}
	if err := r.enroll(ctx); err != nil {
		return nil, fmt.Errorf("prepare the service: %w", err)
	}
	if err := r.rows(ctx); err != nil {
		return nil, err
	}
	r.report.setService(r.service)
	return r.report, r.report.err()
}

// startService starts the service to measure, or takes the one at the URL.
func (r *run) startService(ctx context.Context, start *starter) (sv *service, err error) {
	switch {
	case r.Service.URL != "":
		sv = &service{url: r.Service.URL, pids: r.PIDs}
	case r.Split:
		fmt.Fprintln(r.Progress, "starting ehsm-core and ehsm-kms")
		sv, err = start.split(ctx)
	default:
		fmt.Fprintln(r.Progress, "starting ehsm dev, twice")
		sv, err = start.dev(ctx, r.HTTP)
	}
	if err != nil {
		return nil, err
	}
	if r.Service.URL == "" {
		r.Service.URL, r.Service.Insecure = sv.url, true // any certificate, and nothing but loopback
	}
	if r.nodes, err = newEndpoints(r.Service, r.Nodes); err != nil {
		sv.stop()
		return sv, err
	}
	r.native = r.nodes[0]
	return sv, nil
}

// enroll makes the tenant whose requests are measured.
func (r *run) enroll(ctx context.Context) (err error) {
	if !r.native.loopback() {
		fmt.Fprintf(r.Progress, "warning: %s is not on this machine: it will be under full load, and the keys that are made stay there\n", r.native.host)
	}
	r.tenant, err = newTenant(ctx, r.Service)
	return err
}

// rows measures all rows of the report.
func (r *run) rows(ctx context.Context) error {
	for _, name := range r.Operations {
		op, err := findOperation(name)
		if err != nil {
			return err
		}
		sizes := r.Sizes
		if !op.sized {
			sizes = []int{dataKeyLen}
		}
		for _, size := range sizes {
			for _, conns := range r.Conns {
				if err := r.rowsOnNodes(ctx, op, size, conns); err != nil {
					return fmt.Errorf("%s, %d bytes, %d connections: %w", op.name, size, conns, err)
				}
			}
		}
	}
	return nil
}

// rowsOnNodes measures one operation with one node, with two, and so on.
func (r *run) rowsOnNodes(ctx context.Context, op operation, size, conns int) error {
	for n := range r.nodes {
		text := ""
		if len(r.nodes) > 1 {
			text = fmt.Sprintf(", %d of %d nodes", n+1, len(r.nodes))
		}
		fmt.Fprintf(r.Progress, "%s, %d bytes, %d connections%s\n", op.name, size, conns, text)
		row, err := r.row(ctx, op, size, conns, n+1)
		if err != nil {
			return err
		}
		r.report.Rows = append(r.report.Rows, row)
	}
	return nil
}

// row measures one operation in alternating rounds. It stops early when a
// request fails.
func (r *run) row(ctx context.Context, op operation, size, conns, nodes int) (row Row, err error) {
	native, err := r.nativeSide(ctx, op, size, conns, r.nodes[:nodes])
	if err != nil {
		return row, fmt.Errorf("connect to the service: %w", err)
	}
	defer native.close()
	least, err := r.ceilingSide(ctx, size, conns)
	if err != nil {
		return row, fmt.Errorf("connect to the ceiling server: %w", err)
	}
	defer least.close()
	l := limit{r.Duration, r.Count}
	warm := limit{min(r.Duration, time.Second), r.Count}
	for _, d := range []*side{native, least} {
		s, err := d.round(ctx, warm)
		if err = errors.Join(err, s.firstErr); err != nil {
			return row, fmt.Errorf("warm-up: %w", err)
		}
	}
	var once func() error
	if op.primitive != nil {
		if once, err = op.primitive(size); err != nil {
			return row, fmt.Errorf("primitive: %w", err)
		}
	}
	row = newRow(op, size, conns)
	if len(r.nodes) > 1 {
		row.Nodes = nodes
	}
	for range r.Rounds {
		a, err := native.round(ctx, l)
		if err != nil {
			return row, err
		}
		rss, err := residentSize(r.service.pids)
		if err != nil {
			return row, err
		}
		r.report.LoadedBytes = max(r.report.LoadedBytes, rss)
		b, err := least.round(ctx, l)
		if err != nil {
			return row, err
		}
		if len(r.service.pids) > 0 { // else the service is foreign as well
			r.report.addForeign(&a)
		}
		r.report.addForeign(&b)
		primitive := 0.0
		if once != nil && len(r.service.pids) > 0 {
			if primitive, err = primitiveCPU(once, l); err != nil {
				return row, err
			}
		}
		if row.add(&a, &b, primitive); row.Errors > 0 {
			break
		}
	}
	row.finish()
	return row, nil
}

func (r *run) nativeSide(ctx context.Context, op operation, size, conns int, nodes []endpoint) (*side, error) {
	var text []byte
	var p proof
	return newSide(ctx, nodes, r.service.pids, conns, func(e endpoint) (*worker, proof, error) {
		if text == nil || op.own {
			payload, q, err := op.prepare(ctx, r.tenant, size)
			if err != nil {
				return nil, nil, err
			}
			if text, err = json.Marshal(payload); err != nil {
				return nil, nil, err
			}
			p = q
		}
		s, err := newNativeSource(e.host, r.tenant.client, r.tenant.cred, op.action, text)
		return &worker{source: s, check: checkNative}, p, err
	})
}

func (r *run) ceilingSide(ctx context.Context, size, conns int) (*side, error) {
	plaintext := randomBytes(size)
	s, err := newCeilingSource(r.ceiling.host, plaintext)
	if err != nil {
		return nil, err
	}
	return newSide(ctx, []endpoint{r.ceiling}, r.pids, conns, func(endpoint) (*worker, proof, error) {
		return &worker{source: s}, proveCeiling(plaintext), nil
	})
}

// newSide opens the connections, to the nodes in turns, and proves one answer on
// each.
func newSide(ctx context.Context, nodes []endpoint, pids []int, conns int, newWorker func(endpoint) (*worker, proof, error)) (*side, error) {
	d := &side{pids: pids}
	for i := range conns {
		e := nodes[i%len(nodes)]
		w, p, err := newWorker(e)
		if err == nil {
			w.conn, err = e.dial(ctx)
		}
		if err != nil {
			d.close()
			return nil, err
		}
		d.workers = append(d.workers, w)
		body, err := w.once()
		if err == nil {
			err = p(ctx, body)
		}
		if err != nil {
			d.close()
			return nil, fmt.Errorf("first request: %w", err)
		}
	}
	return d, nil
}
