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

const (
	probeTimeout = 2 * time.Second
	// probeAge is how long a verdict serves others who ask: anybody may.
	probeAge = 250 * time.Millisecond
)

// readiness runs checks for /readyz. It shows names and verdicts to everybody,
// causes only to the log, and those only when a verdict changes.
type readiness struct {
	checks []Check
	log    *slog.Logger

	mu      sync.Mutex
	failing map[string]bool

	asking sync.Mutex // held while the checks run
	at     time.Time  // of the last verdict
	status int
	body   []byte
}

func newReadiness(checks []Check, log *slog.Logger) *readiness {
	return &readiness{checks: checks, log: log, failing: map[string]bool{}}
}

// check returns the verdict of this moment, or one that is hardly older.
func (r *readiness) check(ctx context.Context) (status int, body []byte) {
	r.asking.Lock()
	defer r.asking.Unlock()
	if r.at.IsZero() || time.Since(r.at) > probeAge {
		// Not for one caller alone: who goes away must not leave a verdict behind.
		r.status, r.body = r.probe(context.WithoutCancel(ctx))
		r.at = time.Now()
	}
	return r.status, r.body
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
