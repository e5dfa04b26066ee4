package provision

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

// memberKept is for how long a member that is away is remembered.
const memberKept = 24 * time.Hour

// Members is who takes part in the domain, as far as a program knows: its own
// peers, as their channels have judged them, and those of whom they tell. It is for
// operators and decides nothing. It is safe for concurrent use.
type Members struct {
	self *Self

	mu       sync.Mutex
	known    map[overview.ID]*member
	revision uint64 // rises with what is worth telling at once
	newest   uint32 // version of the DomainKey that a peer has said it has
}

// A member is known by its own channel, or because another one told of it.
type member struct {
	overview.Member
	source overview.ID // who told; the own instance: its channel
	seen   time.Time
}

// NewMembers returns the list of the program self, which is not in it.
func NewMembers(self *Self) *Members {
	return &Members{self: self, known: map[overview.ID]*member{}}
}

// An attendance is a peer for as long as its channel is open.
type attendance struct {
	all     *Members
	peer    channel.Peer
	address string
	report  Report
	rewrap  overview.Rewrap // of a core
	id      overview.ID     // zero until the peer has told it
}

// arrive begins the attendance of a peer, which came from an address.
func (a *Members) arrive(p channel.Peer, address string) *attendance {
	return &attendance{all: a, peer: p, address: overview.Clean(address, overview.MaxText)}
}

// addressOf is where a peer came from, empty for a socket of the same machine.
func addressOf(conn net.Conn) string {
	if a := conn.RemoteAddr(); a.Network() != "unix" {
		return a.String()
	}
	return ""
}

// heard takes note of a heartbeat, and of how the peer is judged now.
func (at *attendance) heard(p channel.Peer, r Report) {
	at.peer, at.report = p, r
	at.all.mu.Lock()
	defer at.all.mu.Unlock()
	at.all.newest = max(at.all.newest, r.Keys)
	if at.id != (overview.ID{}) {
		at.enter()
	}
}

// told takes what a peer says of itself, first, and of those behind it. Errors:
// ErrMessage for what it has no say in.
func (at *attendance) told(p channel.Peer, list []overview.Member) error {
	if err := mayTell(p.Role, list); err != nil { // check: members-told
		return err
	}
	at.peer, at.id, at.rewrap = p, list[0].Instance, list[0].Rewrap
	at.report.Manifest, at.report.Keys, at.report.Lease = list[0].Manifest, list[0].DomainKey, time.Duration(list[0].LeaseSeconds)*time.Second
	at.all.mu.Lock()
	defer at.all.mu.Unlock()
	if at.id == at.all.self.instance { // check: members-own
		return fmt.Errorf("%w: a peer has the own instance id", ErrMessage)
	}
	own := at.enter()
	at.all.take(own, list[1:])
	return nil
}

// mayTell says whether a role may tell of a list: a core of itself, a dkeycache of
// its cores, a dkeyserver of all. Errors: ErrMessage.
func mayTell(r channel.Role, list []overview.Member) error {
	if len(list) == 0 || list[0].Role != string(r) || list[0].Instance == (overview.ID{}) {
		return fmt.Errorf("%w: members without the one that tells", ErrMessage)
	}
	for i := range list[1:] {
		m := &list[1+i]
		if m.Instance == (overview.ID{}) || r == channel.Core || r == channel.DKeyCache && m.Role != string(channel.Core) {
			return fmt.Errorf("%w: a %s tells of a %s", ErrMessage, r, m.Role)
		}
	}
	return nil
}

// enter writes the peer down. What its evidence says is as the channel has judged
// it, whatever the peer says. The caller must hold the lock.
func (at *attendance) enter() *member {
	m := memberOf(at.peer)
	m.Instance, m.Via, m.State, m.Address = at.id, at.all.self.instance, overview.Connected, at.address
	m.Rewrap = at.rewrap
	m.Manifest, m.DomainKey, m.LeaseSeconds = at.report.Manifest, at.report.Keys, wholeSeconds(at.report.Lease)
	return at.all.put(m, at.all.self.instance, time.Now())
}

// leave ends the attendance: removed says that the peer was told that it is no
// longer admitted, and so are those of whom it told.
func (at *attendance) leave(removed bool) {
	a, state := at.all, overview.Left
	if removed {
		state = overview.Removed
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, m := range a.known {
		own := id == at.id && m.source == a.self.instance
		if (own || m.source == at.id) && m.State == overview.Connected {
			m.State = state
			a.revision++
		}
	}
}

// take writes down those of whom a peer tells. The caller must hold a.mu.
func (a *Members) take(from *member, list []overview.Member) {
	if from == nil { // check: members-full
		return // there are too many
	}
	now, source := time.Now(), from.Instance
	told := map[overview.ID]bool{}
	for _, m := range list {
		told[m.Instance] = true
		seen := now.Add(-time.Duration(m.SeenSeconds) * time.Second)
		have := a.known[m.Instance]
		switch {
		case m.Instance == a.self.instance:
			continue
		case have != nil && have.source != source && (have.State == overview.Connected || !seen.After(have.seen)):
			continue // known from nearer by, or from somebody who heard of it later
		case from.Role == string(channel.DKeyCache):
			m.Via = source
			if m.Evidence == overview.ByReport { // of this machine
				m.Platform, m.Machine, m.PPID, m.Serial = from.Platform, from.Machine, from.PPID, from.Serial
			}
		}
		a.put(m, source, seen)
	}
	for id, m := range a.known {
		if m.source == source && !told[id] && m.State == overview.Connected {
			m.State = overview.Left
			a.revision++
		}
	}
}

// put replaces a member. nil: there are too many. The caller must hold a.mu.
func (a *Members) put(m overview.Member, source overview.ID, seen time.Time) *member {
	have := a.known[m.Instance]
	if have == nil {
		if !a.room() { // check: members-room
			return nil
		}
		have = &member{}
		a.known[m.Instance] = have
	}
	if have.State != m.State || have.Rewrap != m.Rewrap || have.Manifest != m.Manifest || have.DomainKey != m.DomainKey || have.source != source {
		a.revision++
	}
	have.Member, have.source, have.seen = m, source, seen
	return have
}

// room reports whether one more can be remembered. Where there are too many, the
// one that is away and was heard of first makes room. The caller must hold a.mu.
func (a *Members) room() bool {
	if len(a.known) < overview.MaxMembers-1 { // and oneself
		return true
	}
	var oldest *member
	for _, m := range a.known {
		if m.State != overview.Connected && (oldest == nil || m.seen.Before(oldest.seen)) {
			oldest = m
		}
	}
	if oldest == nil {
		return false
	}
	delete(a.known, oldest.Instance)
	return true
}

// list returns the members in a fixed order, but for those that a source has told.
// Those that have been away for too long are forgotten.
func (a *Members) list(without overview.ID) []overview.Member {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	var all []overview.Member
	for id, m := range a.known {
		if m.State != overview.Connected && now.Sub(m.seen) > memberKept {
			delete(a.known, id)
			continue
		}
		if m.source == without || id == without {
			continue
		}
		out := m.Member
		out.SeenSeconds = wholeSeconds(now.Sub(m.seen))
		all = append(all, out)
	}
	slices.SortFunc(all, compareMembers)
	return all
}

// compareMembers has dkeyservers first and cores last, by machine.
func compareMembers(a, b overview.Member) int {
	rank := func(m overview.Member) int { return -slices.Index(manifest.Roles(), m.Role) }
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Machine, b.Machine), slices.Compare(a.PPID[:], b.PPID[:]), slices.Compare(a.Instance[:], b.Instance[:]))
}

// state is the number of changes that were worth telling at once.
func (a *Members) state() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.revision
}

// wholeSeconds rounds up, so that what is told of by several is not made younger.
func wholeSeconds(d time.Duration) uint32 {
	s := math.Ceil(d.Seconds())
	return uint32(min(max(s, 0), math.MaxUint32))
}

// member is what the program says of itself: nobody has judged it here.
func (s *Self) member(ctx context.Context, d *Domain, h *Holder) overview.Member {
	id, r := s.platform.Identity(), report(d, h)
	m := overview.Member{
		Instance: s.instance, Via: s.instance, Role: string(s.role), State: overview.Connected, Evidence: overview.ByItself,
		Platform: kindOfTEE(s.platform.Name(), s.platform.Simulated()), MREnclave: id.Measurement, MRSigner: id.Signer,
		Product: id.Product, SVN: id.SVN, Debug: id.Debug, Manifest: r.Manifest, DomainKey: r.Keys, LeaseSeconds: wholeSeconds(r.Lease),
	}
	if r := s.rewrap.Load(); r != nil {
		m.Rewrap = *r
	}
	if own, err := s.own(ctx, d); err == nil && own != nil {
		m.PPID, m.Serial = manifest.PPID(own.PPID), own.Serial
		m.Machine = machineName(d.State(), m.PPID, m.Serial)
	}
	return m
}

// machineName is what a manifest calls a machine; empty if it does not name it.
func machineName(s *manifest.State, ppid manifest.PPID, serial string) string {
	for _, p := range s.Settings.Platforms {
		if p.PPID != (manifest.PPID{}) && p.PPID == ppid || p.Serial != "" && p.Serial == serial {
			return p.Name
		}
	}
	return ""
}
