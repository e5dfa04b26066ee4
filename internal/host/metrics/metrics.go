// Package metrics shows what a manager does, for Prometheus. One table declares
// every metric; docs/metrics.md is made of it.
//
// Labels have few values, all known here: no name that a client chooses becomes
// one. Nothing tells tenants apart.
package metrics

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ehsm-kms/ehsm/api"
)

// other stands for actions that there are not.
const other = "other"

// Outcomes of requests.
const (
	ok      = "ok"
	refused = "refused" // by the core or before it: code 4xx
	busy    = "busy"    // code 429
	failed  = "failed"  // code 5xx, or no reply
)

// Metrics are those of one process, in a registry of their own. The methods are
// safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry
	actions  map[string]*series
	other    *series
}

// series are the metrics of one action. They are looked up once, as a lookup by
// label costs more than counting.
type series struct {
	outcome map[string]prometheus.Counter
	seconds prometheus.Observer
}

// New returns metrics of requests and of what the sources tell when they are
// asked for.
func New(s Sources) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), actions: map[string]*series{}}
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{Name: requestsTotal.Name, Help: requestsTotal.Help}, requestsTotal.Labels)
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: requestSeconds.Name, Help: requestSeconds.Help, Buckets: buckets(),
	}, requestSeconds.Labels)
	m.registry.MustRegister(requests, seconds, newCollector(s),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	one := func(action string) *series {
		x := &series{outcome: map[string]prometheus.Counter{}, seconds: seconds.WithLabelValues(action)}
		for _, o := range []string{ok, refused, busy, failed} {
			x.outcome[o] = requests.WithLabelValues(action, o)
		}
		return x
	}
	for _, a := range api.Actions() {
		m.actions[a] = one(a)
	}
	m.other = one(other)
	return m
}

// buckets are upper bounds in seconds: a cached operation takes well below a
// millisecond, an RSA key seconds.
func buckets() []float64 {
	return []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
}

// Observe counts a request that was answered with the code of the envelope,
// after a time.
func (m *Metrics) Observe(action string, code int, took time.Duration) {
	x, known := m.actions[action]
	if !known {
		x = m.other
	}
	x.outcome[outcome(code)].Inc()
	x.seconds.Observe(took.Seconds())
}

func outcome(code int) string {
	switch {
	case code == http.StatusTooManyRequests:
		return busy
	case code >= 400 && code < 500:
		return refused
	case code >= 200 && code < 300:
		return ok
	}
	return failed
}

// Handler serves the metrics in the formats of Prometheus.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// flag is 1 for true.
func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// text is a bool as a label.
func text(b bool) string { return strconv.FormatBool(b) }
