package nodes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// openDomain makes the domain if there is none, and finds out which nodes it admits.
func (s *Site) openDomain(ctx context.Context) error {
	dir := s.Nodes[0].path(domainDir)
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := s.makeDomain(ctx); err != nil {
			return fmt.Errorf("make the domain: %w", err)
		}
	}
	state, err := inForce(dir)
	if errors.Is(err, manifest.ErrQuorum) { // this start, or one that was cut off here
		if err = s.signGenesis(filepath.Join(dir, manifest.GenesisFile)); err != nil {
			return fmt.Errorf("sign the genesis: %w", err)
		}
		s.First = true
		s.o.Say("made a domain: node-1 has the root dkeyserver, and the operator has signed the genesis")
		state, err = inForce(dir)
	}
	if err != nil {
		return fmt.Errorf("domain in %s: %w", dir, err)
	}
	s.admitted(state)
	return nil
}

// admitted notes which nodes a domain admits. The worker may know of a later manifest
// than the root, which was perhaps not there when it was submitted.
func (s *Site) admitted(state *manifest.State) {
	if len(s.Nodes) > 1 {
		if worker, err := inForce(s.Nodes[1].path(domainDir)); err == nil && worker.Domain == state.Domain && worker.Version > state.Version {
			state = worker
		}
	}
	s.Domain, s.Manifest = state.Domain.String(), state.Version
	for _, n := range s.Nodes {
		n.Admitted = state.Settings.AnyPlatform ||
			slices.ContainsFunc(state.Settings.Platforms, func(p manifest.Platform) bool { return p.PPID == n.Number })
	}
}

// makeDomain has the first machine make a domain.
func (s *Site) makeDomain(ctx context.Context) error {
	draft, err := s.draft()
	if err != nil {
		return err
	}
	b, err := draft.Encode()
	if err != nil {
		return err
	}
	path := filepath.Join(s.o.Dir, draftFile)
	if err := replace(path, b, 0o600); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin(), programServer), "init", path)
	cmd.Env = slices.Concat(s.o.Environ, s.serverSettings(0))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ehsm-dkeyserver init: %w\n%s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// draft is that of a domain for development, with the machines that there are.
func (s *Site) draft() (*manifest.Draft, error) {
	people, err := s.o.People()
	if err != nil {
		return nil, err
	}
	machine, err := s.processor(s.Nodes[0])
	if err != nil {
		return nil, err
	}
	core, err := sim.MeasureFile(filepath.Join(s.bin(), programCore))
	if err != nil {
		return nil, err
	}
	settings := manifest.Defaults(manifest.Development)
	settings.SimRoot = machine.Root().Raw
	for i, role := range []string{manifest.RoleCore, manifest.RoleDKeyCache, manifest.RoleDKeyServer} { // as in teePrograms
		settings.Code = append(settings.Code, manifest.Code{Role: role, MRSigner: sim.SignerID(core.Signature.Signer), Product: uint16(i + 1), MinSVN: svn})
	}
	for _, n := range s.Nodes {
		settings.Platforms = append(settings.Platforms, manifest.Platform{Name: n.Name, PPID: n.Number})
	}
	return &manifest.Draft{Format: manifest.DraftFormat, Terms: manifest.Terms{
		Root: manifest.Seal, Administrator: people.Administrator, Settings: settings,
		Operators:  manifest.Quorum{Threshold: 1, Members: []manifest.Person{people.Operator}},
		Custodians: &manifest.Quorum{Threshold: 2, Members: people.Custodians},
	}}, nil
}

// signGenesis has the one operator sign.
func (s *Site) signGenesis(path string) error {
	people, err := s.o.People()
	if err != nil {
		return err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	m, err := manifest.Parse(b)
	if err != nil {
		return err
	}
	if err := m.Sign(people.Key); err != nil {
		return err
	}
	if b, err = m.Encode(); err != nil {
		return err
	}
	return replace(path, b, 0o600)
}

// inForce is the last manifest in the directory of a dkeyserver.
func inForce(dir string) (*manifest.State, error) {
	files, err := domainkey.Files(dir)
	if err != nil {
		return nil, err
	}
	state, err := manifest.Open(files[0])
	for _, f := range files[1:] {
		if err != nil {
			break
		}
		state, err = state.Next(f, time.Time{})
	}
	return state, err
}
