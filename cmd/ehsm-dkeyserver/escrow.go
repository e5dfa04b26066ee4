package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/provision"
	"github.com/ehsm-kms/ehsm/internal/trusted/recovery"
	"github.com/ehsm-kms/ehsm/internal/wire/escrow"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

// keepEscrow has the escrow in the domain's directory hold the whole DomainKey, for
// the recovery key in force, until ctx ends: it looks as often as for manifests.
func (s *server) keepEscrow(ctx context.Context) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	var said string // about an escrow that is not written
	for {
		err := s.escrow(time.Now())
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != said && text != "" {
			s.log.Error("the escrow is not written", "why", text)
		}
		said = text
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// escrow writes the escrow if the one that is there is not current. Without DomainKey
// or recovery key there is nothing to do.
func (s *server) escrow(now time.Time) error {
	d := s.known.Get()
	if d == nil || d.State().Recovery == nil {
		return nil
	}
	s.rotating.Lock()
	defer s.rotating.Unlock()
	err := s.holder.Use(func(k *domainkey.Keyring) error { return s.writeEscrow(k, d.State(), now) })
	if errors.Is(err, provision.ErrNoKeys) {
		return nil
	}
	return err
}

func (s *server) writeEscrow(k *domainkey.Keyring, state *manifest.State, now time.Time) error {
	have, err := readFile(filepath.Join(s.settings.Domain, escrow.File))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if recovery.Current(have, k, state) {
		return nil
	}
	b, err := recovery.Seal(k, state, now)
	if err != nil {
		return err
	}
	if err := domainkey.WriteFile(s.settings.Domain, escrow.File, b); err != nil {
		return err
	}
	s.log.Info("the escrow is written: make a new backup", "versions", k.Newest(), "custodians", state.Custodians.Threshold)
	return nil
}

// readFile reads a file of a recovery.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > escrow.MaxFile {
		return nil, &fs.PathError{Op: "read", Path: path, Err: escrow.ErrFile}
	}
	return os.ReadFile(path)
}

// recovery tells operators what the custodians could restore. An escrow that no TEE of
// the domain has signed is none.
func (s *server) recovery(state *manifest.State) *overview.Recovery {
	if state.Recovery == nil || state.Custodians == nil {
		return nil
	}
	r := &overview.Recovery{Threshold: state.Custodians.Threshold, Asked: s.custody.get()}
	for _, p := range state.Custodians.Members {
		r.Custodians = append(r.Custodians, p.Name)
	}
	b, err := readFile(filepath.Join(s.settings.Domain, escrow.File))
	if err != nil {
		return r
	}
	if e, err := escrow.ParseEscrow(b); err == nil && e.Verify(state) == nil {
		r.Written, r.Versions = e.Date, e.Versions
	}
	return r
}
