package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/failpoint"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// initialize makes the domain of a draft.
func initialize(ctx context.Context, path string, getenv func(string) string, stdout, stderr io.Writer) error {
	settings, err := config.LoadDKeyServer(getenv)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the draft: %w", err)
	}
	draft, err := manifest.ParseDraft(b)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	p, err := program.Open(ctx, settings.Platform, settings.Sim, stderr)
	if err != nil {
		return err
	}
	warnOfHSM(stderr, p, &draft.Terms)
	if p, err = sealing(settings, p); err != nil {
		return err
	}
	if err := domainkey.Create(settings.Domain, p, draft, time.Now()); err != nil {
		return err
	}
	if err := failpoint.Hit("init.made", "domain"); err != nil {
		return err
	}
	genesis := filepath.Join(settings.Domain, domainkey.GenesisFile)
	if b, err = os.ReadFile(genesis); err != nil {
		return fmt.Errorf("read the genesis: %w", err)
	}
	m, err := manifest.Parse(b)
	if err != nil {
		return fmt.Errorf("read the genesis: %w", err)
	}
	fmt.Fprintf(stdout, "%s\n", m.Hash())
	fmt.Fprintf(stderr, "ehsm-dkeyserver: made a domain; %d of %d operators sign %s next\n",
		m.Statement.Operators.Threshold, len(m.Statement.Operators.Members), genesis)
	return nil
}
