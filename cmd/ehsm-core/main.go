// Command ehsm-core is the trusted service. It runs in a TEE, holds the keys,
// and answers one manager over a local stream. Its import block is evidence:
// no web server, no database.
package main

import (
	"context"
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
	"github.com/ehsm-kms/ehsm/internal/trusted/acceptance"
	"github.com/ehsm-kms/ehsm/internal/trusted/core"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/facts"
	"github.com/ehsm-kms/ehsm/internal/trusted/launch"
	"github.com/ehsm-kms/ehsm/internal/trusted/serve"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// svn is the security version of this program, which seal keys are bound to. An
// enclave must be signed with it.
const svn = 1

// program is what seal keys and the domain's manifest know this program by.
var program = launch.Program{Name: "ehsm-core", Prefix: "EHSM_CORE_", Product: tee.ProductCore, SVN: svn}

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
	config.TuneCollector(ctx, getenv, 400)
	settings, err := config.LoadCore(getenv)
	if err == nil {
		err = start(ctx, settings, getenv, stdout, stderr, confined)
	}
	if err != nil {
		fmt.Fprintln(stderr, "ehsm-core:", strings.ReplaceAll(err.Error(), "\n", "\nehsm-core: ")) // several settings may be wrong
		return 1
	}
	return 0
}

func usage(args []string, stdout, stderr io.Writer) int {
	switch args[0] {
	case "--help", "-h", "help":
		fmt.Fprintf(stdout, "ehsm-core serves the keys of a domain to the manager, ehsm-kms.\n\n"+
			"Outside of enclaves it keeps the domain's keys in memory that the kernel shows to\nnobody (it needs 48 KiB of RLIMIT_MEMLOCK), dumps no core, and can start no\nprograms; at start it says what it has got.\n\nSettings, all from the environment:\n%s", config.DescribeCore())
		return 0
	case "--version", "version":
		fmt.Fprintln(stdout, "ehsm-core", api.Version, api.Commit())
		return 0
	}
	fmt.Fprintf(stderr, "ehsm-core: unknown argument %q\nehsm-core: hint: ehsm-core --help\n", args[0])
	return 2
}

func start(ctx context.Context, settings config.Core, getenv func(string) string, stdout, stderr io.Writer, confined bool) error {
	cage := program.NewCage(settings.Platform, confined, settings.DKeyCache != "")
	p, err := program.Open(ctx, settings.Platform, settings.Sim, stderr)
	if err != nil {
		return err
	}
	if err := cage.Hide(); err != nil {
		return err
	}
	if settings, err = launch.Settle(p, settings, config.LoadCore, getenv); err != nil {
		return err
	}
	if asked, err := acceptance.RunAsked(ctx, acceptance.Config{
		Platform: p, Product: program.Product, SVN: program.SVN, Version: api.Version, Entropy: tee.CheckEntropy, Now: time.Now,
	}, settings.Domain, stdout); asked {
		return err
	}
	if settings.DKeyCache != "" {
		return join(ctx, settings, p, cage, stderr)
	}
	return alone(ctx, settings, p, cage, stderr)
}

// alone serves a domain whose key is sealed on this machine.
func alone(ctx context.Context, settings config.Core, p tee.Platform, cage *launch.Cage, stderr io.Writer) error {
	home, err := program.OpenHome(settings.Platform, stderr)
	if err != nil {
		return err
	}
	defer home.Close() // after everything that uses keys
	program.DescribeHome(home, stderr)
	keys, state, err := domainkey.Open(settings.Domain, p, home)
	if err != nil {
		return err
	}
	// Nobody else has this key, so the only node of its domain makes the versions.
	if keys, err = keys.Rotate(settings.Domain, p, home, &state.Settings, nil); err != nil {
		return err
	}
	if keys.Settle(&state.Settings) {
		if err := keys.Seal(settings.Domain, p); err != nil {
			return fmt.Errorf("seal without what is forgotten: %w", err)
		}
	}
	c, err := newCore(settings, core.Config{
		Platform: p, Keys: keys, Home: home, Settings: state.Settings, Manifest: state.Version, Date: state.Date, Administrator: state.Administrator, Custodians: state.Custodians,
	})
	if err != nil {
		return err
	}
	head, err := facts.ReadHead(settings.Domain)
	if err != nil {
		return err
	}
	if err := c.Log().Hear(facts.Statement{Head: head}); err != nil {
		return err
	}
	ln, err := serve.Listen(settings.Listen)
	if err != nil {
		return err
	}
	if err := cage.Shut(stderr); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	beside.Go(func() {
		facts.Follow(ctx, c.Log(), settings.Domain, func(err error) { fmt.Fprintln(stderr, "ehsm-core:", err) })
	})
	return answer(ctx, settings, ln, c, state, stderr)
}

// newCore makes a core of what the caller knows and of the host's sizes.
func newCore(settings config.Core, cfg core.Config) (*core.Core, error) {
	cfg.Version, cfg.GitSHA, cfg.WholeNode = api.Version, api.Commit(), settings.WholeNode
	cfg.Limits = core.Limits{
		Apps: settings.Apps, Keys: settings.Keys, ReplaysPerTenant: settings.ReplaysPerTenant,
		Replays: settings.Replays, Seen: settings.Seen, Facts: settings.Facts, Pending: settings.Pending,
	}
	return core.New(cfg)
}

// serving tells what is served, and under which manifest.
func serving(stderr io.Writer, state *manifest.State, listen string) {
	fmt.Fprintf(stderr, "ehsm-core: serves domain %s under manifest %d on %s\n", state.Domain, state.Version, listen)
	if state.Settings.PlainEnrollment() {
		fmt.Fprintln(stderr, "ehsm-core: WARNING: open enrollment: anybody can become a tenant, and the host sees the API key")
	}
}

// answer serves the manager until ctx ends.
func answer(ctx context.Context, settings config.Core, ln net.Listener, c *core.Core, state *manifest.State, stderr io.Writer) error {
	serving(stderr, state, settings.Listen)
	return serve.Serve(ctx, ln, c, serve.Options{
		Workers: settings.Workers, Log: slog.New(slog.NewTextHandler(stderr, nil)), Expensive: wire.Expensive, Slow: wire.Slow,
	})
}
