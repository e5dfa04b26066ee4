package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/host/collateral"
)

// openCollateral returns the fetcher for the source of the settings, or nil for
// none, and says which it is.
func openCollateral(c config.Collateral, log *slog.Logger, stderr io.Writer) (*collateral.Fetcher, error) {
	source, name, err := collateralSource(c)
	if err != nil {
		return nil, err
	}
	if source == nil {
		fmt.Fprint(stderr, "ehsm-kms: has no source of collateral: VerifyQuote will be refused\n"+
			"ehsm-kms: hint: EHSM_KMS_COLLATERAL=pcs takes it from Intel; see ehsm-kms --help\n")
		return nil, nil
	}
	f, err := collateral.New(source, collateral.Options{Dir: c.Dir, Refresh: c.Refresh, Log: log})
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(stderr, "ehsm-kms: takes collateral from %s\n", name)
	return f, nil
}

// collateralSource returns the source of the settings, nil for none, and its name.
func collateralSource(c config.Collateral) (source collateral.Source, name string, err error) {
	o := collateral.ServiceOptions{URL: c.URL, APIKeyFile: c.APIKeyFile, CAFile: c.CAFile, Early: c.Early}
	switch c.Source {
	case config.CollateralPCS:
		if name = c.URL; name == "" {
			name = collateral.IntelPCS
		}
		source, err = collateral.NewPCS(o)
		return source, name, err
	case config.CollateralPCCS:
		source, err = collateral.NewPCCS(o)
		return source, c.URL, err
	case config.CollateralBundle:
		source, err = collateral.OpenBundle(c.Bundle)
		return source, c.Bundle, err
	}
	return nil, "", nil
}

// together runs background work until all of it has ended.
func together(ctx context.Context, work ...func(context.Context)) {
	var wg sync.WaitGroup
	for _, w := range work {
		wg.Go(func() { w(ctx) })
	}
	wg.Wait()
}
