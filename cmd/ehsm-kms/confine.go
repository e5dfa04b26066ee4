package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/harden/fence"
	"github.com/ehsm-kms/ehsm/internal/host/store/postgres"
)

// confine takes from the process what it does not need once everything is open,
// and says what it has taken.
func confine(settings config.KMS, stderr io.Writer) error {
	paths, err := needed(settings)
	if err != nil {
		return err
	}
	report, err := fence.Confine(paths)
	if err != nil {
		return err
	}
	fmt.Fprintf(stderr, "ehsm-kms: %s\n", report)
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
