package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/metrics"
	"github.com/ehsm-kms/ehsm/internal/host/relay"
)

// An exposure tells what is to be replaced after a version of the DomainKey has
// leaked: relay.Relay.Exposed.
type exposure func(ctx context.Context, each func(relay.Exposed) error) error

// listenMetrics returns what serves /metrics and /compromised on an address until
// its context ends.
func listenMetrics(address string, m *metrics.Metrics, exposed exposure, stderr io.Writer) (func(context.Context), error) {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %q for metrics: %w", address, err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", m.Handler())
	mux.Handle("GET /compromised", exposed)
	server := &http.Server{
		Handler: mux, ReadTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 8 << 10,
	}
	fmt.Fprintf(stderr, "ehsm-kms: serves metrics on http://%s/metrics\n", ln.Addr())
	return func(ctx context.Context) {
		stop := context.AfterFunc(ctx, func() { server.Close() })
		defer stop()
		server.Serve(ln) // its error says that it was closed
	}, nil
}

// listTime is the longest that a list may take: it reads the whole store, slowly.
const listTime = time.Hour

// ServeHTTP writes a line for each: its kind, tenant, id, and the version of the
// DomainKey that it was made under. The last line is "end", so that a list which
// was broken off is seen.
func (e exposure) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(listTime)); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	b := bufio.NewWriter(w)
	err := e(r.Context(), func(x relay.Exposed) error {
		_, err := fmt.Fprintf(b, "%s\ttenant %s\tid %s\tmade under version %d\n", x.Kind, x.Tenant, x.ID, x.Made)
		return err
	})
	switch {
	case errors.Is(err, relay.ErrNoLeak):
		fmt.Fprintln(b, relay.ErrNoLeak)
	case err != nil:
		fmt.Fprintln(b, "broken off:", err)
	default:
		fmt.Fprintln(b, "end")
	}
	b.Flush() // who asked may have gone
}
