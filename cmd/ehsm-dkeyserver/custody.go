package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/provision"
	"github.com/ehsm-kms/ehsm/internal/trusted/recovery"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/escrow"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

// errNobody says that nobody can give a dkeyserver the DomainKey.
var errNobody = errors.New("this platform has no seal key, and nobody can give it the DomainKey: it has neither an escrow for custodians nor EHSM_DKEYSERVER_PEERS")

// peersFirst is for how long other dkeyservers are waited for before custodians are
// asked.
const peersFirst = 2 * time.Second

// A custody is what a dkeyserver on a platform without seal keys waits for. It is
// safe for concurrent use; the zero value waits for nobody.
type custody struct {
	mu    sync.Mutex
	asked *overview.Asked
}

func (c *custody) set(a *overview.Asked) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = a
}

func (c *custody) get() *overview.Asked {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked
}

// awaited looks whether somebody can give the DomainKey to a dkeyserver that keeps
// none. Errors: domainkey.ErrSimulated, errNobody.
func (s *server) awaited(state *manifest.State) error {
	if err := domainkey.Protected(s.platform, &state.Terms); err != nil { // check: custody-protected
		return err
	}
	_, err := os.Stat(filepath.Join(s.settings.Domain, escrow.File))
	if (err != nil || state.Recovery == nil) && len(s.settings.Peers) == 0 { // check: custody-somebody
		return errNobody
	}
	s.log.Warn("no DomainKey here: this platform has no seal key, so that it is given again after each start", "custodians", state.Recovery != nil, "dkeyservers", len(s.settings.Peers))
	return nil
}

// askCustodians has the custodians give the DomainKey whenever it is not here, until
// ctx ends. Another dkeyserver may be faster.
func (s *server) askCustodians(ctx context.Context) {
	if len(s.settings.Peers) > 0 { // who may be faster than people
		first, stop := context.WithTimeout(ctx, peersFirst)
		s.holder.Wait(first)
		stop()
	}
	tick := time.NewTicker(look)
	defer tick.Stop()
	var said string // about custodians who are not asked
	for {
		err := s.given(ctx)
		if text := errorText(err); text != said {
			if said = text; text != "" {
				s.log.Warn("custodians are not asked for the DomainKey", "why", text)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// given asks the custodians once, and returns when the DomainKey is here, or when
// they have to be asked anew, as the manifest has changed.
func (s *server) given(ctx context.Context) error {
	d := s.known.Get()
	if d == nil || d.State().Recovery == nil || s.holds() {
		return nil
	}
	changed := d.Changed()
	files := d.After(0)
	session, err := beginHere(ctx, s.settings, s.channel.Attester, s.platform, files)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // until there is an escrow
	}
	if err != nil {
		return err
	}
	asking, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		defer stop()
		s.holder.Wait(asking) // with a DomainKey from elsewhere, or because we are done
	}()
	go func() {
		defer stop()
		select {
		case <-changed:
		case <-asking.Done():
		}
	}()
	defer s.custody.set(nil)
	c := newCollector(s.settings.Domain+restoreSuffix, session, s.stderr)
	c.told = func(have []string) { s.custody.set(&overview.Asked{Have: have, Dkeyservers: len(s.settings.Peers)}) }
	if err := c.collect(asking); err != nil {
		return s.interrupted(ctx, c, err)
	}
	err = s.holder.Fill(func(home *secret.Home) (*domainkey.Keyring, error) { return session.Keys(home) })
	if err != nil {
		return err
	}
	c.say("has the DomainKey, versions %v, from custodians; it is kept in memory only", session.Escrow().Versions)
	return c.clear()
}

func (s *server) holds() bool {
	return s.holder.Use(func(*domainkey.Keyring) error { return nil }) == nil
}

// interrupted says why custodians are no longer waited for.
func (s *server) interrupted(ctx context.Context, c *collector, err error) error {
	switch {
	case !errors.Is(err, context.Canceled):
		return err
	case ctx.Err() != nil:
		return c.clear() // nobody has the session's key any more
	case s.holds():
		c.say("has the DomainKey from another dkeyserver; custodians are not needed")
		return c.clear()
	}
	c.say("there is a newer manifest: custodians answer anew")
	return nil
}

// beginHere starts a restoration of what is in the domain's directory, in memory.
// Errors: those of recovery.Begin; fs.ErrNotExist where there is no escrow.
func beginHere(ctx context.Context, settings config.DKeyServer, attester tee.Attester, p tee.Platform, manifests [][]byte) (*recovery.Session, error) {
	e, err := readFile(filepath.Join(settings.Domain, escrow.File))
	if err != nil {
		return nil, err
	}
	o := recovery.Options{
		Attester: attester, Platform: p, InMemory: true, Now: time.Now(),
		Backup: (&escrow.Backup{Manifests: manifests, Escrow: e}).Encode(),
	}
	if o.Collateral, err = provision.CollateralFile(settings.Collateral)(ctx); err != nil {
		return nil, err
	}
	s, err := recovery.Begin(ctx, o)
	if errors.Is(err, escrow.ErrRecoveryKey) {
		err = fmt.Errorf("%w: it was ended before the escrow for new custodians was written; without %s those of before are asked", err, manifest.FileName(lastVersion(manifests)))
	}
	return s, err
}

// lastVersion is that of the last of some manifests.
func lastVersion(files [][]byte) uint64 {
	m, err := manifest.Parse(files[len(files)-1])
	if err != nil {
		return uint64(len(files))
	}
	return m.Statement.Version
}

// openKeys opens the DomainKey of the domain's directory: with the seal key, or,
// where the platform has none, with shares that custodians release to this process.
func openKeys(ctx context.Context, settings config.DKeyServer, attester tee.Attester, p tee.Platform, home *secret.Home, stderr io.Writer) (*domainkey.Keyring, *manifest.State, error) {
	if tee.Seals(p) {
		return domainkey.Open(settings.Domain, p, home)
	}
	files, err := domainkey.Files(settings.Domain)
	if err != nil {
		return nil, nil, err
	}
	session, err := beginHere(ctx, settings, attester, p, files)
	if err != nil {
		return nil, nil, err
	}
	c := newCollector(settings.Domain+recoverySuffix, session, stderr)
	if err := c.collect(ctx); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("without the custodians of now there is no key for others: %w", err), c.clear())
	}
	keys, err := session.Keys(home)
	return keys, session.Verdict().State(), errors.Join(err, c.clear())
}
