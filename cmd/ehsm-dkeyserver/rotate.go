package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/failpoint"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/provision"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// errBehind is returned where others of the domain have a version of the DomainKey
// that this root lacks: it was restored from a copy older than a rotation. Another
// key of that number would part the domain.
var errBehind = errors.New("others have a version of the DomainKey that this root has not; set it up as a worker")

// patience is for how long a root that has got a DomainKey older than its manifests
// waits for others to say what they have, before it takes itself for one that was
// ended in the middle of a rotation. dkeycaches come again every 2 s.
const patience = 5 * time.Second

// rotate has the DomainKey be what the manifest asks for: a root makes versions,
// and every dkeyserver forgets.
func (s *server) rotate(d *provision.Domain) error {
	state := d.State()
	if s.settings.Role == config.RoleRoot {
		if err := s.makeVersions(d); err != nil {
			return err
		}
	}
	if s.holder.Settle(&state.Settings) {
		s.unsealed = true
		s.log.Info("versions of the DomainKey are forgotten", "versions", state.Settings.DomainKey.Forgotten)
	}
	if !s.unsealed {
		return nil
	}
	err := s.holder.Use(s.keep)
	if err != nil && !errors.Is(err, provision.ErrNoKeys) {
		return fmt.Errorf("seal without what is forgotten: %w", err)
	}
	s.unsealed = false
	return nil
}

// notice takes note of when there came to be a DomainKey: err is that of its use.
func (s *server) notice(state *manifest.State, err error) {
	switch {
	case err != nil:
		s.has = time.Time{}
	case s.has.IsZero():
		s.has, s.asked = time.Now(), state.Settings.DomainKeyVersion()
	}
}

// behind refuses to make versions where others have got further. Errors: errBehind,
// provision.ErrNoKeys.
func (s *server) behind(others uint32) error {
	return s.holder.Use(func(k *domainkey.Keyring) error {
		if others > k.Newest() { // check: root-behind
			return errBehind
		}
		return nil
	})
}

// makeVersions makes the versions that are asked for: they are sealed, and in the
// escrow, before anybody gets them.
func (s *server) makeVersions(d *provision.Domain) error {
	state, due := d.State(), false
	err := s.holder.Use(func(k *domainkey.Keyring) error {
		due = k.Newest() < state.Settings.DomainKeyVersion()
		return nil
	})
	s.notice(state, err)
	if err == nil {
		err = s.behind(s.members.Newest())
	}
	if errors.Is(err, provision.ErrNoKeys) || err == nil && !due {
		return nil
	}
	if err != nil {
		return err
	}
	if state.Settings.DomainKeyVersion() == s.asked && time.Since(s.has) < patience { // check: root-patience
		return nil // at the next look
	}
	s.rotating.Lock()
	defer s.rotating.Unlock()
	err = s.holder.Fill(func(home *secret.Home) (next *domainkey.Keyring, err error) {
		err = s.holder.Use(func(k *domainkey.Keyring) error {
			next, err = k.Rotate(s.settings.Domain, s.platform, home, &state.Settings, s.alsoEscrow(state))
			return err
		})
		return next, err
	})
	if err != nil {
		return err
	}
	s.log.Info("the DomainKey has a new version", "version", state.Settings.DomainKeyVersion())
	return failpoint.Hit("rotate.filled", "root")
}

// alsoEscrow is what keeps a new version beside the seal: the escrow, nil in a domain
// without custodians.
func (s *server) alsoEscrow(state *manifest.State) func(*domainkey.Keyring) error {
	if state.Recovery == nil {
		return nil
	}
	return func(k *domainkey.Keyring) error { return s.writeEscrow(k, state, time.Now()) }
}
