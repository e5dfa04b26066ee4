package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/failpoint"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/recovery"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/escrow"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// noRecovery is the flag of init for a domain whose DomainKey is lost with its
// machines.
const noRecovery = "--no-recovery"

var (
	errNoCustodians = errors.New("the draft has no custodians: if all machines are lost, so is every key; name custodians, or give " + noRecovery)
	errCustodians   = errors.New("the draft has custodians; without " + noRecovery + " they get shares of a recovery key")
)

// initArgs returns the draft among the arguments after init, "" where they are wrong.
func initArgs(args []string) (path string, without bool) {
	switch {
	case len(args) == 1:
		path = args[0]
	case len(args) == 2 && args[0] == noRecovery:
		path, without = args[1], true
	}
	if strings.HasPrefix(path, "-") {
		path = ""
	}
	return path, without
}

// initialize makes the domain of a draft, with a recovery key for its custodians.
func initialize(ctx context.Context, path string, without bool, getenv func(string) string, stdout, stderr io.Writer) error {
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
	switch {
	case draft.Custodians == nil && !without: // check: init-custodians
		return errNoCustodians
	case draft.Custodians != nil && without: // check: init-no-recovery
		return errCustodians
	}
	p, err := program.Open(ctx, settings.Platform, settings.Sim, stderr)
	if err != nil {
		return err
	}
	warnOfHSM(stderr, p, &draft.Terms)
	if p, err = sealing(settings, p); err != nil {
		return err
	}
	again, err := made(settings.Domain, p, draft)
	if err == nil && !again {
		tellLeftovers(stderr, settings.Domain)
		err = create(settings.Domain, p, draft)
	}
	if err != nil {
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
	how := "made a domain"
	if again {
		how = "the domain of this draft was made already"
	}
	fmt.Fprintf(stderr, "ehsm-dkeyserver: %s; %d of %d operators sign %s next\n", how, m.Statement.Operators.Threshold, len(m.Statement.Operators.Members), genesis)
	if q := m.Statement.Custodians; q != nil {
		tellShares(stderr, settings.Domain, q, m.Statement.Version)
	}
	return nil
}

// create makes the domain of a draft in dir.
func create(dir string, p tee.Platform, draft *manifest.Draft) error {
	if draft.Custodians == nil {
		return domainkey.Create(dir, p, draft, time.Now())
	}
	key, err := recovery.Make(draft.Custodians)
	if err != nil {
		return err
	}
	defer key.Forget()
	return domainkey.CreateRecoverable(dir, p, draft, key, time.Now())
}

// tellShares says whose share is where.
func tellShares(stderr io.Writer, dir string, q *manifest.Quorum, version uint64) {
	for _, p := range q.Members {
		fmt.Fprintf(stderr, "ehsm-dkeyserver: for custodian %s: %s\n", p.Name, filepath.Join(dir, escrow.ShareFile(p.Name, version)))
	}
	fmt.Fprintf(stderr, "ehsm-dkeyserver: %d of these %d shares restore the DomainKey; each custodian keeps a copy and tries it: ehsm domain custodian check\n",
		q.Threshold, len(q.Members))
}
