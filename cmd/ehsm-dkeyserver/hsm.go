package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/hsmroot"
	"github.com/ehsm-kms/ehsm/internal/trusted/launch"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/hsm"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

var (
	errLabel = errors.New("no label of a key in an HSM")
	errLost  = errors.New("the new bundle has other keys than the old one")
)

// sealing returns what the DomainKey is sealed by: p, with the HSM where settings
// name one.
func sealing(settings config.DKeyServer, p tee.Platform) (tee.Platform, error) {
	if settings.HSM == "" {
		return p, nil
	}
	module, err := hsmroot.NewSocket(settings.HSM)
	if err != nil {
		return nil, err
	}
	return hsmroot.New(p, module), nil
}

// noProtection is said at every start of a dkeyserver with an HSM on a machine that
// does not keep its host out.
const noProtection = "hsmWithoutTEE: no protection against this host: who has this machine has the DomainKey"

// unprotected reports whether noProtection is to be said.
func unprotected(p tee.Platform, t *manifest.Terms) bool {
	return t.Root == manifest.HSM && (p.Simulated() || p.Identity().Debug)
}

func warnOfHSM(stderr io.Writer, p tee.Platform, t *manifest.Terms) {
	if unprotected(p, t) {
		fmt.Fprintf(stderr, "ehsm-dkeyserver: warning: %s\n", noProtection)
	}
}

// rewrap writes the bundle anew, wrapped with the key label of the HSM. It holds the
// address of the server meanwhile, as a server that runs beside it could write a
// bundle with a newer DomainKey, which this one would replace.
func rewrap(ctx context.Context, label string, getenv func(string) string, stdout, stderr io.Writer, confined bool) error {
	if !hsm.ValidLabel(label) { // check: rewrap-label
		return fmt.Errorf("%w: %q", errLabel, label)
	}
	settings, p, cage, err := launch.Begin(ctx, program, config.LoadDKeyServer, launch.Process{Getenv: getenv, Stderr: stderr, Confined: confined})
	if err != nil {
		return err
	}
	sealed, err := sealing(settings, p)
	if err != nil {
		return err
	}
	root, ok := sealed.(*hsmroot.Platform)
	if !ok {
		return fmt.Errorf("%w: EHSM_DKEYSERVER_HSM is not set", config.ErrSetting)
	}
	ln, err := net.Listen("tcp", settings.Listen)
	if err != nil {
		return fmt.Errorf("end ehsm-dkeyserver serve first; the address is held until this is done: %w", err)
	}
	defer ln.Close()
	if err := cage.Shut(stderr); err != nil {
		return err
	}
	if err := move(settings, root, root.To(label), stderr); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s is wrapped with the key %s now\n", domainkey.BundleFile, label)
	return nil
}

// move seals by to what from opens, and looks that nothing was lost.
func move(settings config.DKeyServer, from, to *hsmroot.Platform, stderr io.Writer) error {
	open := func(p tee.Platform) (*domainkey.Keyring, func() error, error) {
		home, err := program.OpenHome(settings.Platform, stderr)
		if err != nil {
			return nil, nil, err
		}
		k, s, err := domainkey.Open(settings.Domain, p, home)
		if err != nil {
			home.Close()
			return nil, nil, err
		}
		warnOfHSM(stderr, p, &s.Terms)
		return k, home.Close, nil
	}
	old, closeOld, err := open(from)
	if err != nil {
		return err
	}
	defer closeOld()
	if err := old.Seal(settings.Domain, to); err != nil {
		return err
	}
	again, closeAgain, err := open(to)
	if err != nil {
		return err
	}
	defer closeAgain()
	if !again.Extends(old) || again.Newest() != old.Newest() { // check+: rewrap-keys: opening the new bundle finds what was altered; this is for a mistake of ours
		return errLost
	}
	for v := range old.Newest() { // Extends takes versions that one of them lacks for forgotten
		if again.Holds(v+1) != old.Holds(v+1) { // check+: rewrap-versions: likewise
			return errLost
		}
	}
	return nil
}
