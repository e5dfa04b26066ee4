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

func newBenchNoisy(a *app) *cobra.Command {
	var o bench.NoisyOptions
	cmd := &cobra.Command{
		Use:   "noisy",
		Short: "Measure what a noisy tenant does to a quiet one",
		Long: `noisy starts two services on this machine. A quiet tenant of the first sends a few
requests a second, at fixed times. Three conditions take turns: silence; a noisy
tenant floods the other service, so that the two share the processors only; a noisy
tenant floods the same service. The clients of the flood are a process of their own
with the lowest priority.

The table has the quiet tenant's latencies in each, and the medians of their ratios
over the rounds: same/alone is all that the noise does, same/other what it does
because the service is one.`,
		Example: `  ehsm bench noisy
  ehsm bench noisy --op sign-rsa2048 --split
  ehsm bench noisy --limit 1000`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Program, err = os.Executable(); err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			o.Environ, o.Progress = os.Environ(), progressLines{a}
			report, err := bench.Noisy(cmd.Context(), o)
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
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&o.Operations, "op", []string{"encrypt", "sign-rsa2048", "createkey-rsa2048"},
		"`operations` of the noisy tenant: "+strings.Join(bench.OperationNames(), ", "))
	flags.IntVar(&o.Conns, "conns", 64, "`number` of its connections")
	flags.IntVar(&o.Rate, "rate", 200, "`requests` a second of the quiet tenant")
	flags.IntVar(&o.Limit, "limit", 0, "`requests` a second that the domain allows an app; any number without it")
	flags.DurationVar(&o.Duration, "duration", 2*time.Second, "`time` of a round")
	flags.IntVar(&o.Rounds, "rounds", 5, "`rounds` of each condition")
	flags.BoolVar(&o.Split, "split", false, "load ehsm-core and ehsm-kms, which are beside this program, instead of ehsm dev")
	return cmd
}

// newBenchNoise is what bench noisy starts for the flood.
func newBenchNoise(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "bench-noise",
		Short:  "Make the noise of bench noisy",
		Hidden: true,
		Args:   args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return bench.ServeNoise(cmd.Context(), a.stdin, a.stdout)
		},
	}
}
