// Command ehsm-core is the trusted service. It runs in a TEE, holds the keys,
// and answers one manager over a local stream. Its import block is evidence:
// no web server, no database.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/trusted/acceptance"
	"github.com/ehsm-kms/ehsm/internal/trusted/core"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/serve"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

// svn is the security version of this program, which seal keys are bound to. An
// enclave must be signed with it.
const svn = 1

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
		err = start(ctx, settings, getenv, stdout, stderr, newCage(settings.Platform, confined))
	}
	if err != nil {
		fmt.Fprintf(stderr, "ehsm-core: %v\n", err)
		return 1
	}
	return 0
}

func usage(args []string, stdout, stderr io.Writer) int {
	switch args[0] {
	case "--help", "-h", "help":
		fmt.Fprintf(stdout, "ehsm-core serves the keys of a domain to the manager, ehsm-kms.\n\n"+
			"Outside of enclaves it keeps the domain's keys in memory that the kernel shows to\nnobody (it needs 16 KiB of RLIMIT_MEMLOCK), dumps no core, and can start no\nprograms; at start it says what it has got.\n\nSettings, all from the environment:\n%s", config.DescribeCore())
		return 0
	case "--version", "version":
		fmt.Fprintln(stdout, "ehsm-core", api.Version, api.Commit())
		return 0
	}
	fmt.Fprintf(stderr, "ehsm-core: unknown argument %q\nehsm-core: hint: ehsm-core --help\n", args[0])
	return 2
}

func start(ctx context.Context, settings config.Core, getenv func(string) string, stdout, stderr io.Writer, cage *cage) error {
	p, err := platform(ctx, settings, stderr)
	if err != nil {
		return err
	}
	if err := cage.hide(); err != nil {
		return err
	}
	if settings, err = measured(p, settings, getenv); err != nil {
		return err
	}
	if asked, err := acceptance.RunAsked(ctx, acceptance.Config{
		Platform: p, Product: tee.ProductCore, SVN: svn, Version: api.Version, Entropy: tee.CheckEntropy, Now: time.Now,
	}, settings.Domain, stdout); asked {
		return err
	}
	home, err := openHome(cage.platform, stderr)
	if err != nil {
		return err
	}
	defer home.Close() // after everything that uses keys
	keys, state, err := domainkey.Open(settings.Domain, p, home)
	if err != nil {
		return err
	}
	c, err := core.New(core.Config{
		Platform: p, Keys: keys, Home: home, Settings: state.Settings, Date: state.Date, Version: api.Version, GitSHA: api.Commit(),
		Limits: core.Limits{
			Apps: settings.Apps, Keys: settings.Keys, ReplaysPerTenant: settings.ReplaysPerTenant,
			Replays: settings.Replays, Seen: settings.Seen, Pending: settings.Pending,
		},
	})
	if err != nil {
		return err
	}
	ln, err := serve.Listen(settings.Listen)
	if err != nil {
		return err
	}
	if err := cage.shut(stderr); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "ehsm-core: serves domain %s under manifest %d on %s\n", keys.Domain(), state.Version, settings.Listen)
	return serve.Serve(ctx, ln, c, serve.Options{
		Workers: settings.Workers, Log: slog.New(slog.NewTextHandler(stderr, nil)), Expensive: core.Expensive, Slow: core.Slow,
	})
}
