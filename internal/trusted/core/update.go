package core

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// spreadMicros is for how long a core that holds a new version of the DomainKey
// still wraps records under the one before, in microseconds: the others fetch it in
// that time, so that none meets a record that it cannot open. A dkeycache asks
// every 5 s and a core every second.
const spreadMicros = 15_000_000

// ErrManifest is returned for a manifest that cannot take the place of the one in
// force.
var ErrManifest = errors.New("manifest does not take the place of the one in force")

// terms are what a manifest decides for a core. They are replaced as a whole; a
// request that is under way may have read some of them before.
type terms struct {
	settings   manifest.Settings
	version    uint64 // of the manifest
	window     int64  // milliseconds
	judge      *judge
	custodians *manifest.Quorum // nil: there are none
}

func newTerms(s *manifest.Settings, version uint64, floors *floors) (*terms, error) {
	t := &terms{settings: *s, version: version, window: s.Window().Milliseconds()}
	var err error
	t.judge, err = newJudge(&t.settings, floors)
	return t, err
}

// Update puts a newer manifest of the domain into force, which the caller has
// verified, and date, the latest of the signed objects that are known. Requests go
// on: what the core remembers of replays, revisions, failures and its audit chain
// stays, and so does its HPKE key. After an error the manifest of before is in
// force, and the caller should have the core end. Errors: ErrManifest,
// domainkey.ErrSimulated.
func (c *Core) Update(s *manifest.State, date time.Time) error {
	c.updating.Lock()
	defer c.updating.Unlock()
	was := c.terms.Load()
	switch {
	case s.Domain != c.keys.Domain(): // check: update-domain
		return fmt.Errorf("%w: it is of domain %s", ErrManifest, s.Domain)
	case s.Version <= was.version: // check: update-newer
		return fmt.Errorf("%w: version %d after %d", ErrManifest, s.Version, was.version)
	case c.info.Simulated && !s.Settings.AllowSim: // check: update-simulation
		return domainkey.ErrSimulated
	}
	next, err := newTerms(&s.Settings, s.Version, c.floors)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrManifest, err)
	}
	next.custodians = s.Custodians
	c.clock.raise(date)
	c.replays.resize(next.window, c.clock.micros()/1000)
	if s.Settings.DomainKeyVersion() != was.settings.DomainKeyVersion() {
		c.rotation.since.Store(0)
	}
	c.terms.Store(next)
	c.keys.Settle(&next.settings)
	return nil
}

// A rotation is how far the core has got with a new version of the DomainKey.
type rotation struct {
	since  atomic.Int64 // Unix microseconds, when it was first held; 0: it is not
	wanted func(version uint32)
}

// reach brings the core to the version of the DomainKey that the manifest makes the
// current one, and at least to floor, below which the store takes no records. It
// returns a need if that is not held; a floor of 0 never fails.
func (c *Core) reach(floor uint32, now int64) error {
	current := c.keys.Current()
	if floor > current {
		if err := c.lacks(floor); err != nil {
			return err
		}
		c.advance(floor)
		return nil
	}
	target := c.terms.Load().settings.DomainKeyVersion()
	switch {
	case target <= current:
	case !c.keys.Holds(target):
		c.rotation.wanted(target) // meanwhile the one before does
	case c.rotation.since.CompareAndSwap(0, now):
	case now-c.rotation.since.Load() >= spreadMicros:
		c.advance(target)
	}
	return nil
}

// advance makes a version that is held the current one.
func (c *Core) advance(version uint32) {
	if c.keys.Advance(version) != nil {
		return // another request was first, with a later one
	}
	c.keys.Settle(&c.terms.Load().settings)
}

// lacks has a version fetched that is later than those held, and returns a need. Of
// others it says nothing: a version that is not held any more never comes back.
func (c *Core) lacks(version uint32) error {
	if version <= c.keys.Newest() {
		return nil
	}
	c.rotation.wanted(version)
	return &needError{version: version}
}

// unopened is why a record did not open: it is wrapped under a version that is still
// to come, or not genuine.
func (c *Core) unopened(sealed []byte, err error) error {
	if errors.Is(err, domainkey.ErrNoVersion) {
		wrapped, _ := wire.SealedVersions(sealed)
		if need := c.lacks(wrapped); need != nil {
			return need
		}
	}
	return errInternal("record does not open")
}
