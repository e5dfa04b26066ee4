package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/harden"
	"github.com/ehsm-kms/ehsm/internal/harden/fence"
	"github.com/ehsm-kms/ehsm/internal/host/store/postgres"
)

// shut hides the process's memory and takes the system calls that it never makes,
// before it listens to strangers.
func shut() (harden.Report, error) {
	hidden, err := harden.Hide()
	if err != nil {
		return hidden, err
	}
	filtered, err := harden.Filter(harden.Calls{Sockets: true})
	return harden.Join(hidden, filtered), err
}

// fenceIn takes all files that it does not need once everything is open, and says
// what was taken now and before.
func fenceIn(settings config.KMS, before harden.Report, stderr io.Writer) error {
	paths, err := needed(settings)
	if err != nil {
		return err
	}
	closed, err := fence.Files(paths)
	if err != nil {
		return err
	}
	fmt.Fprintf(stderr, "ehsm-kms: %s\n", harden.Join(before, closed))
	return nil
}

// needed are the files of the manager: its own directories, and what finds and
// trusts other services. Certificates, keys and passwords have been read.
func needed(settings config.KMS) (fence.Paths, error) {
	p := fence.Paths{Write: []string{settings.Audit}, Read: fence.Network()}
	if !postgres.IsURL(settings.Database) {
		file, err := filepath.EvalSymlinks(settings.Database) // the log lies beside the file itself
		if err != nil {
			return p, fmt.Errorf("find the database: %w", err)
		}
		p.Write = append(p.Write, filepath.Dir(file))
	}
	if c := settings.Collateral; c.Source != config.CollateralNone {
		p.Write = append(p.Write, c.Dir)
		if c.Source == config.CollateralBundle {
			p.Read = append(p.Read, filepath.Dir(c.Bundle)) // it is read again, and may be replaced
		}
	}
	return p, nil
}
