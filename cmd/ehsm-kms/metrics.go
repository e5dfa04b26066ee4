package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/metrics"
)

// listenMetrics returns what serves /metrics on an address until its context
// ends.
func listenMetrics(address string, m *metrics.Metrics, stderr io.Writer) (func(context.Context), error) {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %q for metrics: %w", address, err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", m.Handler())
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
