package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"time"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/launch"
	"github.com/ehsm-kms/ehsm/internal/trusted/recovery"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

var (
	errSameCustodians = errors.New("the manifest has the custodians of the one in force, who hold their shares")
	errUnwanted       = errors.New("the manifest has no custodians to make a recovery key for")
	errSigned         = errors.New("the manifest is signed already, for another recovery key")
)

// newRecovery makes the recovery key of a manifest that has other custodians than the one
// in force, and is still to be signed.
func newRecovery(ctx context.Context, path string, getenv func(string) string, stderr io.Writer, confined bool) error {
	settings, p, cage, err := launch.Begin(ctx, program, config.LoadDKeyServer, launch.Process{Getenv: getenv, Stderr: stderr, Confined: confined})
	if err != nil {
		return err
	}
	attester, ok := p.(tee.Attester)
	if !ok {
		return fmt.Errorf("%w: platform %s makes no quotes", tee.ErrNoPlatform, p.Name())
	}
	if p, err = sealing(settings, p); err != nil {
		return err
	}
	if err := cage.Shut(stderr); err != nil {
		return err
	}
	m, err := unsigned(path)
	if err != nil {
		return err
	}
	home, err := program.OpenHome(settings.Platform, stderr)
	if err != nil {
		return err
	}
	defer home.Close()
	keys, state, err := openKeys(ctx, settings, attester, p, home, stderr)
	if err != nil {
		return err
	}
	if err := complete(settings.Domain, m, state, keys); err != nil {
		return err
	}
	b, err := m.Encode()
	if err != nil {
		return err
	}
	if err := domainkey.WriteFile(filepath.Dir(path), filepath.Base(path), b); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "ehsm-dkeyserver: made a recovery key; %d of %d operators sign %s next\n", state.Operators.Threshold, len(state.Operators.Members), path)
	tellShares(stderr, settings.Domain, m.Statement.Custodians, m.Statement.Version)
	return nil
}

// unsigned reads a manifest that nobody has signed.
func unsigned(path string) (*manifest.Manifest, error) {
	b, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the manifest: %w", err)
	}
	m, err := manifest.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(m.Signatures) > 0 { // check: recovery-unsigned
		return nil, fmt.Errorf("%s: %w", path, errSigned)
	}
	return m, nil
}

// complete gives m a recovery key, and puts the shares into dir. m must follow s.
func complete(dir string, m *manifest.Manifest, s *manifest.State, keys *domainkey.Keyring) error {
	n := &m.Statement
	switch {
	case n.Custodians == nil:
		return errUnwanted
	case s.Recovery != nil && reflect.DeepEqual(n.Custodians, s.Custodians): // check: recovery-others
		return errSameCustodians
	}
	key, err := recovery.Make(n.Custodians)
	if err != nil {
		return err
	}
	defer key.Forget()
	n.Recovery = key.Endorsed(keys)
	if err := s.Leads(m, time.Now()); err != nil {
		return err
	}
	files, err := key.Shares(s.Domain, n.Version)
	if err != nil {
		return err
	}
	for name, b := range files {
		if err := domainkey.WriteFile(dir, name, b); err != nil {
			return err
		}
	}
	return nil
}
