package rest

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// A Check probes something that requests need.
type Check struct {
	Name  string // shown by /readyz
	Probe func(context.Context) error
}

const probeTimeout = 2 * time.Second

// readiness runs checks for /readyz. It shows names and verdicts to everybody,
// causes only to the log, and those only when a verdict changes.
type readiness struct {
	checks []Check
	log    *slog.Logger

	mu      sync.Mutex
	failing map[string]bool

	asking        sync.Mutex
	running, next *round // nil: none
}

// A round is one run of the checks, for all who asked before it began.
type round struct {
	done   chan struct{} // closed when the verdict is there
	status int
	body   []byte
}

func newReadiness(checks []Check, log *slog.Logger) *readiness {
	return &readiness{checks: checks, log: log, failing: map[string]bool{}}
}

// check returns a verdict that is no older than the call. Anybody may ask, so
// one round at a time serves all who wait for it.
func (r *readiness) check(ctx context.Context) (status int, body []byte) {
	r.asking.Lock()
	if x := r.next; x != nil {
		r.asking.Unlock()
		<-x.done
		return x.status, x.body
	}
	x, before := &round{done: make(chan struct{})}, r.running
	r.next = x
	r.asking.Unlock()
	if before != nil {
		<-before.done
	}
	r.asking.Lock()
	r.next, r.running = nil, x
	r.asking.Unlock()
	// Not for one caller alone: who goes away must not leave a verdict behind.
	x.status, x.body = r.probe(context.WithoutCancel(ctx))
	close(x.done)
	r.asking.Lock()
	defer r.asking.Unlock()
	if r.running == x {
		r.running = nil
	}
	return x.status, x.body
}

// probe asks everything and returns HTTP status 200 if all is well, else 503,
// with {"ready":bool,"checks":{name:"ok"|"failing"}}.
func (r *readiness) probe(ctx context.Context) (status int, body []byte) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	errs := make([]error, len(r.checks))
	var wg sync.WaitGroup
	for i, c := range r.checks {
		wg.Go(func() { errs[i] = c.Probe(ctx) })
	}
	wg.Wait()
	verdicts := make(map[string]string, len(errs))
	status = http.StatusOK
	for i, c := range r.checks {
		verdicts[c.Name] = "ok"
		if errs[i] != nil {
			verdicts[c.Name] = "failing"
			status = http.StatusServiceUnavailable
		}
		r.note(ctx, c.Name, errs[i])
	}
	body, _ = json.Marshal(map[string]any{"ready": status == http.StatusOK, "checks": verdicts}) // cannot fail: strings and a bool
	return status, body
}

// note logs a verdict that differs from the one before.
func (r *readiness) note(ctx context.Context, name string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err != nil && !r.failing[name]:
		r.log.ErrorContext(ctx, "not ready", "check", name, "err", err)
	case err == nil && r.failing[name]:
		r.log.InfoContext(ctx, "ready again", "check", name)
	}
	r.failing[name] = err != nil
}
