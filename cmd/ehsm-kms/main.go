// Command ehsm-kms is the manager: it serves the REST API and keeps sealed
// records and the audit trail. It sees no key; the core, ehsm-core, is reached
// over a local stream.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/config/yamlfile"
	"github.com/ehsm-kms/ehsm/internal/harden"
	"github.com/ehsm-kms/ehsm/internal/host/auditsink"
	"github.com/ehsm-kms/ehsm/internal/host/collateral"
	"github.com/ehsm-kms/ehsm/internal/host/coreclient"
	"github.com/ehsm-kms/ehsm/internal/host/metrics"
	"github.com/ehsm-kms/ehsm/internal/host/relay"
	"github.com/ehsm-kms/ehsm/internal/host/rest"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr, true))
}

// run serves until ctx ends. Confined, the process can do nothing else afterwards,
// which is no life for one that runs tests.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer, confined bool) int {
	if len(args) > 0 {
		return usage(args, stdout, stderr)
	}
	config.TuneCollector(ctx, getenv, 1000) // its live data are a few MiB of rows
	settings, err := load(getenv)
	if err == nil {
		err = start(ctx, settings, stderr, confined)
	}
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(stderr, "ehsm-kms:", strings.ReplaceAll(err.Error(), "\n", "\nehsm-kms: ")) // several settings may be wrong
		return 1
	}
	return 0
}

// load reads the settings: the environment, and behind it the file, if one is
// named.
func load(getenv func(string) string) (config.KMS, error) {
	path := getenv(config.KMSFile)
	if path == "" {
		return config.LoadKMS(getenv)
	}
	values, err := yamlfile.Read(path, config.KMSKeys())
	if err != nil {
		return config.KMS{}, err
	}
	return config.LoadKMS(config.WithKMSFile(getenv, values))
}

func usage(args []string, stdout, stderr io.Writer) int {
	switch args[0] {
	case "--help", "-h", "help":
		fmt.Fprintf(stdout, "ehsm-kms serves the API of a domain, with the core, ehsm-core, behind it.\n\n"+
			"Once it serves, it can write to the directories of its settings only, start no\nprograms, and dumps no core.\n\n"+
			"Settings come from the environment or, where that has none, from the YAML file\nthat %s names; there they are in lower case without the\nprefix, as in listen: 0.0.0.0:9000\n\n%s", config.KMSFile, config.DescribeKMS())
		return 0
	case "--version", "version":
		fmt.Fprintln(stdout, "ehsm-kms", api.Version, api.Commit())
		return 0
	}
	fmt.Fprintf(stderr, "ehsm-kms: unknown argument %q\nehsm-kms: hint: ehsm-kms --help\n", args[0])
	return 2
}

func start(ctx context.Context, settings config.KMS, stderr io.Writer, confined bool) (err error) {
	log := slog.New(slog.NewTextHandler(stderr, nil))
	attested := newAttestedTLS(log)
	config, err := serverTLS(settings, attested)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", settings.Listen)
	if err != nil {
		return fmt.Errorf("listen on %q: %w", settings.Listen, err)
	}
	defer ln.Close()
	var taken harden.Report
	if confined {
		if taken, err = shut(); err != nil {
			return err
		}
	}
	f := open(ctx, ln, config, settings, log)
	defer f.close()
	fetcher, err := openCollateral(settings.Collateral, log, stderr)
	if err != nil {
		return err
	}
	if fetcher != nil {
		defer fetcher.Close()
	}
	core, err := dial(ctx, settings.Core, log, stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, core.Close()) }()
	if settings.TLSAttested {
		if err := attested.begin(ctx, core); err != nil {
			return err
		}
	}
	db, feed, err := openStore(ctx, settings, stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	sink, err := auditsink.Open(settings.Audit, auditsink.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sink.Close()) }()

	options := relay.Options{
		Concurrent: settings.Concurrent, CachedRows: settings.CachedRows,
		StoreTimeout: settings.StoreTimeout, StaleGrace: settings.StaleGrace, Log: log,
		RewrapShare: min(float64(settings.RewrapShare)/100, 1), Ahead: 16,
	}
	if feed != nil {
		options.Feed = feed
		defer feed.Close()
	}
	if fetcher != nil {
		options.Collateral = fetcher
	}
	r := relay.New(core, db, sink, options)
	core.OnRestart(func(i wire.Info) {
		log.Info("another core instance has taken over", "instance", i.Instance)
		r.ForgetCore()
		attested.restarted()
	})
	own := collateral.NewOwn(fetcher, rest.QuoteFrom(r), log)
	background := []func(context.Context){func(ctx context.Context) { r.Run(ctx, db) }, own.Run}
	if fetcher != nil {
		background = append(background, fetcher.Run)
	}
	if settings.TLSAttested {
		background = append(background, attested.run)
	}
	m := metrics.New(metrics.Sources{
		Version: api.Version, Store: db.Stats, Audit: sink.Stats, Relay: r.Stats, Core: core.Connected, Meter: core,
	})
	if settings.Metrics != "" {
		serve, err := listenMetrics(settings.Metrics, m, r.Exposed, stderr)
		if err != nil {
			return err
		}
		background = append(background, serve)
	}
	h := rest.New(r, checks(r, core, db, sink), rest.Options{
		MaxBody: settings.MaxBody, MaxBatchBody: settings.MaxBatchBody, Log: log, Collateral: own, Observe: m.Observe,
	})
	if confined {
		if err := fenceIn(settings, taken, stderr); err != nil {
			return err
		}
	}
	f.serve(h)
	fmt.Fprintf(stderr, "ehsm-kms: serves https://%s\n", ln.Addr())
	return serveUntilDone(ctx, f.wait, func(ctx context.Context) { together(ctx, background...) })
}

// serverTLS is with the certificate of the settings, or with one that the core vouches for.
func serverTLS(settings config.KMS, attested *attestedTLS) (*tls.Config, error) {
	if settings.TLSAttested {
		return attested.config(), nil
	}
	cert, key, err := settings.Certificate()
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("TLS certificate and key: %w", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}}, nil
}

func limits(settings config.KMS) rest.Limits {
	return rest.Limits{
		HeaderTimeout: settings.HeaderTimeout, BodyTimeout: settings.BodyTimeout, IdleTimeout: settings.IdleTimeout,
		ShutdownTimeout: settings.ShutdownTimeout, MaxConnections: settings.Connections,
	}
}

// serveUntilDone waits for the end of the server; the background work ends after the
// last request.
func serveUntilDone(ctx context.Context, server func() error, background func(context.Context)) error {
	behind, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { background(behind) })
	err := server()
	stop()
	wg.Wait()
	return err
}

// dial waits for the core, and says so.
func dial(ctx context.Context, addr string, log *slog.Logger, stderr io.Writer) (*coreclient.Client, error) {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		c, err := coreclient.Dial(ctx, addr, coreclient.Options{Log: log})
		if err == nil {
			return c, nil
		}
		fmt.Fprintf(stderr, "ehsm-kms: waits for the core on %s: %v\n", addr, err)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// checks are what /readyz asks.
func checks(r *relay.Relay, core *coreclient.Client, db database, sink *auditsink.Sink) []rest.Check {
	return []rest.Check{
		{Name: "core", Probe: func(ctx context.Context) error { _, err := core.Info(ctx); return err }},
		{Name: "store", Probe: db.Ping},
		{Name: "facts", Probe: r.FactsReady},
		{Name: "audit", Probe: func(context.Context) error {
			if sink.Stats().Failed {
				return auditsink.ErrSpool
			}
			return nil
		}},
	}
}
