package main

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/internal/bench"
)

func newBenchFill(a *app) *cobra.Command {
	o := bench.FillOptions{}
	cmd := &cobra.Command{
		Use:   "fill",
		Short: "Put many tenants and keys into a service",
		Long: `fill enrolls tenants at a service of yours and has them create AES keys, to see
how the service does with many: run "ehsm bench --profile ..." before and after.

The credentials are thrown away, so the keys can never be used or deleted. Do it
on a service that you can throw away as well. A million keys in 10,000 tenants
take some minutes and about 1 GB of disk.`,
		Example: `  ehsm bench fill --profile test --tenants 100 --keys 10000
  ehsm bench fill --profile test --tenants 10000 --keys 1000000 --conns 64`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Service, err = a.settings(); err != nil {
				return err
			}
			var done func()
			o.Progress, done = a.fillProgress(o.Keys)
			r, err := bench.Fill(cmd.Context(), o)
			done()
			if errors.Is(err, bench.ErrOptions) {
				return usageError{err}
			}
			text := fmt.Sprintf("%d keys in %d tenants, %.0f s, %.0f keys/s\n", r.Keys, r.Tenants, r.Seconds, r.Rate)
			return errors.Join(a.emit(r, text), err)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&o.Tenants, "tenants", 100, "`number` of tenants to enroll")
	flags.IntVar(&o.Keys, "keys", 10000, "`number` of keys to create in all of them together")
	flags.IntVar(&o.Conns, "conns", 32, "`number` of connections")
	return cmd
}

// fillProgress shows how many keys there are: a bar on a terminal, else a line
// now and then.
func (a *app) fillProgress(keys int) (tell func(int), done func()) {
	if isTerminal(a.stderr) {
		bar := progressbar.NewOptions(keys, progressbar.OptionSetWriter(a.stderr),
			progressbar.OptionSetDescription("ehsm: create keys"), progressbar.OptionShowCount(), progressbar.OptionShowIts(),
			progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
		return func(n int) { bar.Set(n) }, func() { bar.Finish() }
	}
	var mu sync.Mutex
	said := time.Now()
	return func(n int) {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(said) >= 10*time.Second {
			said = time.Now()
			a.warn("%d of %d keys", n, keys)
		}
	}, func() {}
}
