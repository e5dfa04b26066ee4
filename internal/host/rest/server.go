package rest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// Limits bound what clients may take of a server. Zero fields take their
// defaults.
type Limits struct {
	HeaderTimeout   time.Duration // for the header of a request; default 5 s
	BodyTimeout     time.Duration // for the body after it; default 15 s
	WriteTimeout    time.Duration // from the header to the end of the reply; default 60 s
	IdleTimeout     time.Duration // between requests of a connection; default 2 min
	ShutdownTimeout time.Duration // for requests in flight when the server stops; default 15 s
	MaxHeaderBytes  int           // of a request's header; default 8192
	MaxConnections  int           // open at once, further ones are closed; default 4096
}

func (l Limits) withDefaults() Limits {
	for _, d := range []struct {
		v      *time.Duration
		normal time.Duration
	}{
		{&l.HeaderTimeout, 5 * time.Second},
		{&l.BodyTimeout, 15 * time.Second},
		{&l.WriteTimeout, time.Minute},
		{&l.IdleTimeout, 2 * time.Minute},
		{&l.ShutdownTimeout, 15 * time.Second},
	} {
		if *d.v <= 0 {
			*d.v = d.normal
		}
	}
	if l.MaxHeaderBytes <= 0 {
		l.MaxHeaderBytes = 8 << 10
	}
	if l.MaxConnections <= 0 {
		l.MaxConnections = 4096
	}
	return l
}

// Serve serves h on ln until ctx ends, then lets the requests in flight finish.
// It closes ln. With a nil config it serves plain HTTP, which is for development
// only. It returns nil after an orderly end.
func Serve(ctx context.Context, ln net.Listener, config *tls.Config, h http.Handler, l Limits, log *slog.Logger) error {
	l = l.withDefaults()
	srv := newServer(h, l, log)
	served := make(chan error, 1)
	go func() {
		if config == nil {
			served <- srv.Serve(ln)
			return
		}
		srv.TLSConfig = config.Clone()
		srv.TLSConfig.MinVersion = max(srv.TLSConfig.MinVersion, tls.VersionTLS12)
		srv.TLSConfig.NextProtos = []string{"http/1.1"}
		served <- srv.ServeTLS(ln, "", "")
	}()
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.ShutdownTimeout)
	defer cancel()
	err := srv.Shutdown(end)
	if err != nil {
		err = fmt.Errorf("wait for requests in flight: %w", errors.Join(err, srv.Close()))
	}
	<-served
	return err
}

// newServer returns a server for HTTP/1.1 only. The existing clients never
// negotiate HTTP/2, and it doubles the CPU time of a request.
func newServer(h http.Handler, l Limits, log *slog.Logger) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	var open atomic.Int64
	return &http.Server{
		Handler:           h,
		Protocols:         &protocols,
		ReadHeaderTimeout: l.HeaderTimeout,
		ReadTimeout:       l.HeaderTimeout + l.BodyTimeout,
		WriteTimeout:      l.WriteTimeout,
		IdleTimeout:       l.IdleTimeout,
		MaxHeaderBytes:    l.MaxHeaderBytes,
		// What it logs is what strangers cause: broken handshakes and the like.
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnState: func(c net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				if open.Add(1) > int64(l.MaxConnections) {
					c.Close()
				}
			case http.StateClosed, http.StateHijacked:
				open.Add(-1)
			}
		},
	}
}
