package main

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/host/relay"
	"github.com/ehsm-kms/ehsm/internal/host/rest"
)

// errWaits is logged for what is asked of a manager that waits.
var errWaits = errors.New("the manager waits for it")

// A front answers as soon as the program listens: that it lives and is not ready, and
// code 500 to requests, as long as it waits for the core and the database. A client
// that connects meanwhile goes to another node rather than hang.
type front struct {
	handler atomic.Pointer[rest.Handler]
	stop    context.CancelFunc
	done    chan struct{} // closed when err is set
	err     error
}

// open starts to answer on ln, until ctx ends or close is called.
func open(ctx context.Context, ln net.Listener, config *tls.Config, settings config.KMS, log *slog.Logger) *front {
	ctx, stop := context.WithCancel(ctx)
	f := &front{stop: stop, done: make(chan struct{})}
	waits := func(context.Context) error { return errWaits }
	f.serve(rest.New(unready{}, []rest.Check{{Name: "core", Probe: waits}, {Name: "store", Probe: waits}}, rest.Options{MaxBody: settings.MaxBody, MaxBatchBody: settings.MaxBatchBody, Log: log}))
	go func() {
		f.err = rest.Serve(ctx, ln, config, f, limits(settings), log)
		close(f.done)
	}()
	return f
}

// serve has h answer from now on.
func (f *front) serve(h *rest.Handler) { f.handler.Store(h) }

// ServeHTTP implements http.Handler.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) { f.handler.Load().ServeHTTP(w, r) }

// wait returns when the server has ended.
func (f *front) wait() error {
	<-f.done
	return f.err
}

// close ends the server, if it has not ended.
func (f *front) close() {
	f.stop()
	<-f.done
}

// unready is the relay of a manager that has no core yet.
type unready struct{}

// Do implements rest.Relay.
func (unready) Do(context.Context, relay.Request) (relay.Reply, error) {
	return relay.Internal(), errWaits
}
