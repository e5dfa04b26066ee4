// Package dev runs the whole of the service in one process, on the simulated
// platform with SQLite: `ehsm dev`, and the servers of users' tests. It alone
// joins the trusted and the untrusted tree; nothing a production node runs
// imports it.
package dev

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/host/auditsink"
	"github.com/ehsm-kms/ehsm/internal/host/metrics"
	"github.com/ehsm-kms/ehsm/internal/host/relay"
	"github.com/ehsm-kms/ehsm/internal/host/rest"
	"github.com/ehsm-kms/ehsm/internal/host/store/sqlite"
	"github.com/ehsm-kms/ehsm/internal/trusted/core"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/facts"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// What a data directory holds.
const (
	SimDir    = "sim"     // the simulated machine: its secret opens the DomainKey
	DomainDir = "domain"  // genesis and sealed DomainKey
	StoreFile = "ehsm.db" // sealed records
	AuditDir  = "audit"   // the audit trail
	TLSDir    = "tls"     // the server's certificate and key
)

// coreSVN is the security version of the core, which seal keys are bound to.
const coreSVN = 1

// Options say where a server keeps its data and how it is reached.
type Options struct {
	Dir       string // data directory; made at first start
	Listen    string // host:port; port 0 takes a free one
	PlainHTTP bool   // no TLS; only on loopback
	Log       *slog.Logger
	Limits    core.Limits
	Rate      int // requests a second that an app may make, and twice as many at once; 0: any number. Of the first start
	// Administrator is the domain's first one, whom its genesis names. Of the first
	// start; without a key nobody has it.
	Administrator manifest.Person
	// Custodians can give an app another owner. Of the first start; they have no shares
	// of the DomainKey.
	Custodians *manifest.Quorum
	Locked     bool             // keys in the memory that the kernel protects best, ordinary memory with a warning where it has none
	Clock      func() time.Time // the host's clock; nil: time.Now
}

// ErrNotLoopback is returned for plain HTTP on an address that others reach.
var ErrNotLoopback = errors.New("plain HTTP is for loopback addresses only")

// Server is a running service.
type Server struct {
	Info  wire.Info
	First bool // the data directory was made by this start

	KeyMemory string // what the domain's keys lie in, for people

	url         string
	fingerprint string
	cancel      context.CancelFunc
	done        chan struct{}
	err         error
}

// Start starts the service and returns when it accepts requests. It runs until
// ctx ends or Close is called.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	var stack closers
	s, err := start(ctx, o, &stack)
	if err != nil {
		stack.close()
		return nil, err
	}
	return s, nil
}

// clock is the host's clock.
func (o Options) clock() func() time.Time {
	if o.Clock != nil {
		return o.Clock
	}
	return time.Now
}

// closers are what to undo, last first.
type closers []func() error

func (c *closers) add(f func() error) { *c = append(*c, f) }

func (c *closers) close() (err error) {
	for i := len(*c) - 1; i >= 0; i-- {
		err = errors.Join(err, (*c)[i]())
	}
	return err
}

func start(ctx context.Context, o Options, stack *closers) (*Server, error) {
	ln, err := listen(o)
	if err != nil {
		return nil, err
	}
	stack.add(func() error { ln.Close(); return nil }) // closed before by an orderly end
	// The domain comes first: a store without one would look like a lost key.
	first, err := firstStart(o.Dir)
	if err != nil {
		return nil, err
	}
	home, err := openHome(o)
	if err != nil {
		return nil, err
	}
	stack.add(home.Close)
	machine, err := sim.Open(filepath.Join(o.Dir, SimDir), tee.ProductCore, coreSVN)
	if err != nil {
		return nil, err
	}
	c, err := openCore(o, machine, first, home)
	if err != nil {
		return nil, err
	}
	if err := knowHead(o, c); err != nil {
		return nil, err
	}
	db, err := sqlite.Open(ctx, filepath.Join(o.Dir, StoreFile), sqlite.Options{})
	if err != nil {
		return nil, err
	}
	stack.add(db.Close)
	sink, err := auditsink.Open(filepath.Join(o.Dir, AuditDir), auditsink.Options{})
	if err != nil {
		return nil, err
	}
	stack.add(sink.Close)
	s := &Server{First: first, KeyMemory: home.Memory().String(), done: make(chan struct{})}
	s.Info, _ = c.Info(ctx) // in-process it cannot fail
	var config *tls.Config
	scheme := "http"
	if !o.PlainHTTP {
		scheme = "https"
		if config, s.fingerprint, err = certificate(filepath.Join(o.Dir, TLSDir), ln.Addr()); err != nil {
			return nil, err
		}
	}
	s.url = scheme + "://" + ln.Addr().String()
	source := machineSource{machine, o.clock()}
	r := relay.New(c, db, sink, relay.Options{Log: o.Log, Collateral: source})
	if err := r.ShowFacts(ctx); err != nil {
		return nil, fmt.Errorf("%w; %s", err, olderStore)
	}
	m := metrics.New(metrics.Sources{
		Version: api.Version, Store: db.Stats, Audit: sink.Stats, Relay: r.Stats,
		Core: func() (wire.Info, bool) { return s.Info, true }, Meter: c,
	})
	h := rest.New(r, checks(r, db, sink), rest.Options{Log: o.Log, Collateral: source, Observe: m.Observe, Metrics: m.Handler()})
	s.run(ctx, stack, func(ctx context.Context) error { return rest.Serve(ctx, ln, config, h, rest.Limits{}, o.Log) },
		func(ctx context.Context) {
			var wg sync.WaitGroup
			wg.Go(func() { keepHead(ctx, o, c) })
			r.Run(ctx, db)
			wg.Wait()
		})
	return s, nil
}

// checks are what /readyz asks.
func checks(r *relay.Relay, db *sqlite.Store, sink *auditsink.Sink) []rest.Check {
	return []rest.Check{
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

// olderStore is what to do about a store that has less than the core knows of.
const olderStore = "is the database from a backup? docs/threat-model.md#rollback has what to do"

// knowHead tells the core how far the log of negative facts goes at least.
func knowHead(o Options, c *core.Core) error {
	head, err := facts.ReadHead(filepath.Join(o.Dir, DomainDir))
	if err != nil {
		return err
	}
	return c.Log().Hear(facts.Statement{Head: head})
}

// keepHead keeps beside the DomainKey how far that log goes, until ctx ends.
func keepHead(ctx context.Context, o Options, c *core.Core) {
	facts.Follow(ctx, c.Log(), filepath.Join(o.Dir, DomainDir), func(err error) {
		o.Log.Error("head of the log of negative facts", "err", err)
	})
}

// run serves until ctx ends or Close is called. Background work ends after the
// last request, and what is open is closed after that.
func (s *Server) run(ctx context.Context, stack *closers, serve func(context.Context) error, background func(context.Context)) {
	ctx, s.cancel = context.WithCancel(ctx)
	behind, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { background(behind) })
	go func() {
		err := serve(ctx)
		stop()
		wg.Wait()
		s.err = errors.Join(err, stack.close())
		close(s.done)
	}()
}

// URL is where the service listens, without a path.
func (s *Server) URL() string { return s.url }

// Fingerprint is the SHA-256 of the server's certificate in hex, "" over plain
// HTTP.
func (s *Server) Fingerprint() string { return s.fingerprint }

// Wait returns when the server has ended, with the reason if it was not asked to.
func (s *Server) Wait() error {
	<-s.done
	return s.err
}

// Close stops the server: requests in flight finish, then everything is closed.
func (s *Server) Close() error {
	s.cancel()
	return s.Wait()
}

func listen(o Options) (net.Listener, error) {
	if o.PlainHTTP {
		host, _, err := net.SplitHostPort(o.Listen)
		if err != nil {
			return nil, fmt.Errorf("listen on %q: %w", o.Listen, err)
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return nil, ErrNotLoopback
		}
	}
	ln, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w", o.Listen, err)
	}
	return ln, nil
}

// firstStart reports whether dir has no domain yet. A directory that has lost
// its domain or its machine is refused: a new DomainKey would open none of its
// records.
func firstStart(dir string) (bool, error) {
	domain, err := exists(dir, DomainDir)
	if err != nil {
		return false, err
	}
	machine, err := exists(dir, SimDir)
	if err != nil {
		return false, err
	}
	records, err := exists(dir, StoreFile)
	if err != nil {
		return false, err
	}
	switch {
	case domain && !machine:
		return false, lost(dir, SimDir)
	case !domain && records:
		return false, lost(dir, DomainDir)
	}
	return !domain, nil
}

func exists(dir, name string) (bool, error) {
	_, err := os.Lstat(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// ErrLost is returned for a data directory whose keys are gone.
var ErrLost = errors.New("the keys of this data directory are missing")

func lost(dir, name string) error {
	return fmt.Errorf("%w: %s is gone, and without it no record opens; restore it from a backup, or choose an empty directory", ErrLost, filepath.Join(dir, name))
}

// openHome returns where the domain's keys lie.
func openHome(o Options) (*secret.Home, error) {
	if !o.Locked {
		return secret.NewHeap(), nil
	}
	home, err := secret.NewLocked()
	if errors.Is(err, secret.ErrMemory) {
		o.Log.Warn("keys are in ordinary memory", "err", err)
		return secret.NewHeap(), nil // simulated keys are in a file anyway
	}
	return home, err
}

// createDomain makes a domain for development, which takes the machine's quotes for
// genuine. It is thrown away with its directory, so nobody keeps an operator's key
// to change it.
func createDomain(dir string, machine *sim.Machine, o Options) error {
	s := manifest.Defaults(manifest.Development)
	s.SimRoot = machine.Root().Raw
	s.Limits.RequestsPerSecond, s.Limits.Burst = o.Rate, 2*o.Rate
	draft, operator, err := manifest.ThrowAway(s)
	if err != nil {
		return err
	}
	if len(o.Administrator.Key) > 0 {
		draft.Administrator = o.Administrator
	}
	draft.Custodians = o.Custodians
	return domainkey.Create(dir, machine, draft, o.clock()(), operator)
}

// openCore opens the domain, at first start after making it. A crash in between
// leaves a machine without a domain, which the next start completes.
func openCore(o Options, machine *sim.Machine, first bool, home *secret.Home) (*core.Core, error) {
	domain := filepath.Join(o.Dir, DomainDir)
	if first {
		if err := createDomain(domain, machine, o); err != nil {
			return nil, fmt.Errorf("make the domain: %w", err)
		}
	}
	keys, state, err := domainkey.Open(domain, machine, home)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(state.Settings.SimRoot, machine.Root().Raw) {
		o.Log.Warn("VerifyQuote refuses this machine's own quotes: the domain was made without simulated quotes, or for another fleet")
	}
	return core.New(core.Config{
		Platform: machine, Keys: keys, Home: home, Settings: state.Settings, Manifest: state.Version, Date: state.Date, Limits: o.Limits, Clock: o.Clock,
		Administrator: state.Administrator, Custodians: state.Custodians,
		Version: api.Version, GitSHA: api.Commit(),
	})
}
