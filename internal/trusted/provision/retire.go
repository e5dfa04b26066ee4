package provision

import (
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

// retireAfter is for how long nobody must need a version of the DomainKey before
// nodes drop it. Import tokens, which are in no store, live for a day.
const retireAfter = 25 * time.Hour

// needed is the least version of the DomainKey that somebody of the domain needs:
// every core has been told by its manager that no record needs an older one, and
// everybody who has a DomainKey, or had one within a lease, has that version. 0: that
// is not known. It rests on the word of hosts, so it decides only what nodes hold.
func (a *Members) needed(now time.Time, lease time.Duration) uint32 {
	a.mu.Lock()
	defer a.mu.Unlock()
	least, cores := ^uint32(0), 0
	for _, m := range a.known {
		if m.DomainKey == 0 || m.State != overview.Connected && now.Sub(m.seen) > lease {
			continue
		}
		least = min(least, m.DomainKey)
		if m.Role == string(channel.Core) {
			cores++
			if m.Rewrap.Refused > 0 { // nobody knows what they are
				return 0
			}
			least = min(least, m.Rewrap.Done)
		}
	}
	if cores == 0 {
		return 0
	}
	return least
}

// A retirement is what a client's server says of the versions that are needed.
type retirement struct {
	least   uint32
	since   time.Time
	lacking bool // there is one that is needed and not held
}

// heed does what follows from the server's word, at time now: it drops versions that
// nobody has needed for long enough, and has those fetched that are needed again,
// as for records of a backup.
func (c *Client) heed(server overview.Member, s *manifest.Settings, now time.Time) {
	r, least := &c.retirement, server.Rewrap.Done
	if c.Role == channel.DKeyCache { // its cores hear of it
		if told := c.Self.rewrap.Load(); told == nil || told.Done != least {
			c.Self.Rewrapped(overview.Rewrap{Done: least})
		}
	}
	if least != r.least {
		r.least, r.since = least, now
	}
	if least > 0 && now.Sub(r.since) >= retireAfter && c.Holder.retire(least) {
		c.Log.Info("versions of the DomainKey that nobody needs are dropped", "least", least)
	}
	r.lacking = least > 0 && c.Holder.lacks(least, s)
}

// retire drops versions below one. It reports whether there were any.
func (h *Holder) retire(least uint32) (dropped bool) {
	h.Use(func(k *domainkey.Keyring) error {
		dropped = k.Retire(least)
		return nil
	})
	return dropped
}

// lacks reports whether a version from least on is neither held nor forgotten.
func (h *Holder) lacks(least uint32, s *manifest.Settings) (lacking bool) {
	h.Use(func(k *domainkey.Keyring) error {
		lacking = k.Lacks(least, s)
		return nil
	})
	return lacking
}
