package provision

import (
	"context"
	"fmt"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

// A telling is what a client has told its server of members, on one channel.
type telling struct {
	server *attendance // of the server itself, for a dkeyserver's list
	when   time.Time
	what   news
}

// news is what is worth telling at once; the rest is told with it, or later.
type news struct {
	members, manifest uint64
	keys              uint32
	rewrap            *overview.Rewrap
}

// begin starts a telling on a channel.
func (t *telling) begin(c *Client, ch *channel.Conn, server string) {
	*t = telling{}
	if c.Members != nil && c.Role == channel.DKeyServer {
		t.server = c.Members.arrive(ch.Peer(), server)
	}
}

// end says that the channel is no longer there.
func (t *telling) end() {
	if t.server != nil {
		t.server.leave(false)
	}
}

// tell says who this program is and of whom it knows, where there is news, and now
// and then.
func (s *session) tell(ctx context.Context, every time.Duration) error {
	t := &s.telling
	now := news{manifest: s.domain.Manifest(), keys: s.Holder.version(), rewrap: s.Self.rewrap.Load()}
	if s.Members != nil {
		now.members = s.Members.state()
	}
	if !t.when.IsZero() && now == t.what && time.Since(t.when) < 3*every {
		return nil
	}
	list := []overview.Member{s.Self.member(ctx, s.domain, s.Holder)}
	if s.Members != nil {
		var server overview.ID
		if t.server != nil {
			server = t.server.id
		}
		list = append(list, s.Members.list(server)...)
	}
	m, err := s.ask(ctx, message{kind: tellMembers, members: fittingMembers(list)})
	if err != nil {
		return err
	}
	if m.kind != members { // check: answer-members
		return fmt.Errorf("%w: kind %d, want members", ErrMessage, m.kind)
	}
	t.when, t.what = time.Now(), now
	if s.Leased && len(m.members) > 0 {
		s.heed(m.members[0], &s.domain.State().Settings, t.when)
	}
	if t.server == nil {
		return nil
	}
	return t.server.told(s.ch.Peer(), m.members)
}

// tellBack is the answer to what a peer tells: the server itself, and to another
// dkeyserver all of whom it knows.
func (s *Server) tellBack(ctx context.Context, d *Domain, at *attendance, p channel.Peer, told []overview.Member) (message, error) {
	if err := at.told(p, told); err != nil {
		return message{}, err
	}
	list := []overview.Member{s.Self.member(ctx, d, s.Holder)}
	if s.Role == channel.DKeyServer {
		list[0].Rewrap.Done = s.Members.needed(time.Now(), time.Duration(d.State().Settings.Lease)*time.Hour)
	}
	if p.Role == channel.DKeyServer {
		list = append(list, s.Members.list(at.id)...)
	}
	return message{kind: members, members: fittingMembers(list)}, nil
}
