package main

import (
	"context"
	"fmt"
	"io"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/gramine"
)

// platform opens the TEE that is asked for. One that is not there is an error,
// never another one. Which ones the program has depends on its build tags; the
// files platform_*.go say so, and trusted-deps*.txt list what each brings.
func platform(ctx context.Context, settings config.Core, stderr io.Writer) (tee.Platform, error) {
	p, err := openPlatform(ctx, settings, stderr)
	if err != nil {
		return nil, err
	}
	id := p.Identity()
	fmt.Fprintf(stderr, "ehsm-core: platform %s: measurement %x, signer %x%s, product %d, version %d\n",
		p.Name(), id.Measurement, id.Signer, signedBy(p), id.Product, id.SVN)
	if id.Debug {
		fmt.Fprintln(stderr, "ehsm-core: debug TEE: the host can read all keys")
	}
	return p, nil
}

func openPlatform(ctx context.Context, settings config.Core, stderr io.Writer) (tee.Platform, error) {
	switch settings.Platform {
	case "sim":
		return openSim(ctx, settings.Sim, stderr)
	case "gramine":
		// Not a setting: a host that chose the directory would choose the keys.
		return gramine.Open(gramine.Dir(gramine.DefaultDir), tee.ProductCore, svn)
	case "ego":
		return openEGo()
	case "tsm":
		return openTSM()
	}
	return nil, fmt.Errorf("%w: %q is none of sim, gramine, ego, tsm", tee.ErrNoPlatform, settings.Platform)
}
