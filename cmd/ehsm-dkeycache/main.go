// Command ehsm-dkeycache has the DomainKey for the cores of its machine: from
// attested dkeyservers of the domain, in memory only, for as long as a lease lasts.
// It runs in a TEE. Its import block is evidence: no web server, no database.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel/local"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/facts"
	"github.com/ehsm-kms/ehsm/internal/trusted/launch"
	"github.com/ehsm-kms/ehsm/internal/trusted/provision"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/serve"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
)

// program is what the domain's manifest knows this program by. An enclave must be
// signed so.
var program = launch.Program{Name: "ehsm-dkeycache", Prefix: "EHSM_DKEYCACHE_", Product: tee.ProductDKeyCache, SVN: 1}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr, true))
}

const help = `ehsm-dkeycache has the DomainKey for the cores of its machine: there is one on
each node. It runs in a TEE, gets the DomainKey from ehsm-dkeyserver, keeps it in
memory only, and hands it to each ehsm-core with EHSM_CORE_DKEYCACHE that the
domain's manifest admits. When no dkeyserver can be reached it goes on for the
lease of the manifest. The order in which programs start does not matter.

  ehsm-dkeycache
        Serve the cores of this machine.
  ehsm-dkeycache status
        Ask the one that runs at EHSM_DKEYCACHE_LISTEN how far it is, print it,
        and end with 0 if it has the DomainKey and with 1 if it has not: for
        probes. It needs no TEE and no other setting.

Outside of enclaves it keeps keys in memory that the kernel shows to nobody, dumps
no core, and can start no programs; at start it says what it has got.

Settings, all from the environment:
`

// run serves until ctx ends. Confined, the process can do nothing else afterwards,
// which is no life for one that runs tests.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer, confined bool) int {
	if len(args) > 0 {
		switch args[0] {
		case "--help", "-h", "help":
			fmt.Fprint(stdout, help, config.DescribeDKeyCache())
			return 0
		case "--version", "version":
			fmt.Fprintln(stdout, "ehsm-dkeycache", api.Version, api.Commit())
			return 0
		case "status":
			return status(ctx, getenv, stdout, stderr)
		}
		fmt.Fprintf(stderr, "ehsm-dkeycache: unknown argument %q\nehsm-dkeycache: hint: ehsm-dkeycache --help\n", args[0])
		return 2
	}
	config.TuneCollector(ctx, getenv, 200)
	if err := start(ctx, getenv, stderr, confined); err != nil {
		fmt.Fprintf(stderr, "ehsm-dkeycache: %v\n", err)
		return 1
	}
	return 0
}

func start(ctx context.Context, getenv func(string) string, stderr io.Writer, confined bool) error {
	settings, p, cage, err := launch.Begin(ctx, program, config.LoadDKeyCache, launch.Process{Getenv: getenv, Stderr: stderr, Confined: confined})
	if err != nil {
		return err
	}
	c, err := newCache(settings, p, stderr)
	if err != nil {
		return err
	}
	ln, err := serve.Listen(settings.Listen)
	if err != nil {
		return err
	}
	defer ln.Close()
	if err := cage.Shut(stderr); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "ehsm-dkeycache: serves domain %s on %s\n", genesis.ID(settings.DomainID), settings.Listen)
	return c.run(ctx, ln)
}

// A cache is the running program.
type cache struct {
	holder *provision.Holder
	log    *slog.Logger
	client *provision.Client // of the dkeyservers
	server *provision.Server // of the cores
}

func newCache(settings config.DKeyCache, p tee.Platform, stderr io.Writer) (*cache, error) {
	attester, ok := p.(tee.Attester)
	if !ok {
		return nil, fmt.Errorf("%w: platform %s makes no quotes", tee.ErrNoPlatform, p.Name())
	}
	known := provision.NewKnown(genesis.ID(settings.DomainID), time.Now)
	c := &cache{
		holder: provision.NewHolder(func() (*secret.Home, error) { return program.OpenHome(settings.Platform, stderr) }),
		log:    slog.New(slog.NewTextHandler(stderr, nil)),
	}
	own := channel.Config{Attester: attester, Collateral: provision.CollateralFile(settings.Collateral)}
	self := provision.NewSelf(channel.DKeyCache, p, attester)
	members := provision.NewMembers(self)
	dialer, heads := new(net.Dialer), facts.NewAnchor(facts.Head{})
	c.client = &provision.Client{
		Role: channel.DKeyCache, Holder: c.holder, Domain: known, Channel: own, Join: channel.Client,
		Dial: func(ctx context.Context, server string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", server)
		},
		Servers: settings.Servers, Self: self, Members: members, Leased: true, Every: settings.Heartbeat, Keep: c.keep, Log: c.log,
		Heads: heads,
	}
	c.server = &provision.Server{
		Role: channel.DKeyCache, Holder: c.holder, Self: self, Members: members, Domain: known.Get, Channel: own, Log: c.log, Connections: settings.Connections,
		Hurry: c.client.Hurry, Heads: heads,
		Join: func(ctx context.Context, conn net.Conn, cfg *channel.Config) (*channel.Conn, error) {
			return local.Server(ctx, conn, p, cfg)
		},
	}
	return c, nil
}

// keep says that there is a DomainKey; it is kept nowhere else.
func (c *cache) keep(k *domainkey.Keyring) error {
	c.log.Info("has the DomainKey", "domain", k.Domain().String(), "versions", k.Newest())
	return nil
}

// run serves until ctx ends.
func (c *cache) run(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	beside.Go(func() {
		c.holder.Forget(ctx, func(why error) { c.log.Error("the DomainKey is gone", "why", why.Error()) })
	})
	beside.Go(func() { c.client.Run(ctx) })
	return c.server.Serve(ctx, ln)
}
