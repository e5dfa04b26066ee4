package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/internal/bench"
)

func newBench(a *app) *cobra.Command {
	var o bench.Options
	var targets bool
	var nodes []string
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure what a request costs the service",
		Long: `bench starts a service and the ceiling server on this machine, both on loopback,
and loads them in turns. The ceiling server does the least a service on the same
HTTP stack can do: TLS 1.3, an HMAC check, JSON, one AES-256-GCM. The figures to
compare are the server's CPU time per request and its ratio to the ceiling.

With --url or --profile it loads a service that runs already, which must be yours:
a tenant and keys stay there. Name its processes with --pid to measure their CPU
time. CPU time and memory are measured on Linux only.

With --nodes it loads a service of several nodes: one of them alone, then two, and
so on. They must have one certificate; --pid names the processes of all of them.`,
		Example: `  ehsm bench
  ehsm bench --op encrypt,createkey --size 32,4096 --conns 16 --duration 1s
  ehsm bench --targets --rounds 7
  ehsm bench --split
  ehsm bench --profile dev --pid 4711 --output json
  ehsm bench --nodes https://10.0.0.1:9000,https://10.0.0.2:9000 --conns 64`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if targets {
				o.Operations, o.Conns = bench.TargetOperations(), []int{16}
			}
			return a.bench(cmd, o, nodes)
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&o.Operations, "op", []string{"encrypt", "decrypt", "datakey"}, "`operations`: "+strings.Join(bench.OperationNames(), ", "))
	flags.IntSliceVar(&o.Sizes, "size", []int{32}, "`bytes` of plaintext to encrypt and decrypt")
	flags.IntSliceVar(&o.Conns, "conns", []int{16, 1}, "`numbers` of connections")
	flags.DurationVar(&o.Duration, "duration", 3*time.Second, "`time` of a round")
	flags.IntVar(&o.Count, "count", 0, "`requests` of a round, instead of --duration")
	flags.IntVar(&o.Rounds, "rounds", 3, "`rounds` of each server, of which medians are taken")
	flags.BoolVar(&targets, "targets", false, "measure the operations with targets of their own on 16 connections, and say which are met")
	cmd.MarkFlagsMutuallyExclusive("targets", "op")
	cmd.MarkFlagsMutuallyExclusive("targets", "conns")
	flags.BoolVar(&o.Split, "split", false, "load ehsm-core and ehsm-kms, which are beside this program, instead of ehsm dev")
	flags.BoolVar(&o.HTTP, "http", false, "without TLS")
	flags.IntSliceVar(&o.PIDs, "pid", nil, "`process ids` of the service at --url or --nodes")
	flags.StringSliceVar(&nodes, "nodes", nil, "`URLs` of the nodes of a service that runs already")
	cmd.AddCommand(newBenchFill(a), newBenchNoisy(a))
	return cmd
}

func (a *app) bench(cmd *cobra.Command, o bench.Options, nodes []string) (err error) {
	if len(nodes) > 0 {
		if a.url != "" {
			return usageError{errors.New("--url is one service and --nodes are several, want one of the two")}
		}
		a.url, o.Nodes = nodes[0], nodes[1:]
	}
	if o.Program, err = os.Executable(); err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if a.url != "" || a.profile != "" {
		if o.Service, err = a.settings(); err != nil {
			return err
		}
	}
	o.Environ = os.Environ()
	o.Progress = progressLines{a}
	report, err := bench.Run(cmd.Context(), o)
	switch {
	case errors.Is(err, bench.ErrOptions):
		return usageError{err}
	case report == nil:
		return err
	}
	var text bytes.Buffer
	if writeErr := report.WriteText(&text); writeErr != nil {
		return writeErr
	}
	return errors.Join(a.emit(report, text.String()), err)
}

// progressLines prints lines to stderr as warnings are.
type progressLines struct{ a *app }

func (p progressLines) Write(b []byte) (int, error) {
	p.a.warn("%s", bytes.TrimSpace(b))
	return len(b), nil
}

// newBenchCeiling is what bench starts beside the service.
func newBenchCeiling(a *app) *cobra.Command {
	var plain bool
	cmd := &cobra.Command{
		Use:    "bench-ceiling",
		Short:  "Serve the ceiling server of bench",
		Hidden: true,
		Args:   args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return bench.ServeCeiling(cmd.Context(), plain, a.stdout)
		},
	}
	cmd.Flags().BoolVar(&plain, "http", false, "without TLS")
	return cmd
}
