package provision

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

// answered opens the channel of a dkeycache to a dkeyserver that gives one answer to
// everything.
func answered(t *testing.T, a *realm, answer message) *session {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := newProgram(t, 0, channel.DKeyServer, a.knowing(t), NewHolder(heap))
	cache := newProgram(t, 1, channel.DKeyCache, a.knowing(t), NewHolder(heap))
	config := func(p *program, peers []channel.Role) *channel.Config {
		cfg := p.channel(t)
		cfg.Role, cfg.PeerRoles, cfg.Domain, cfg.Policy = p.role, peers, a.last.Domain, p.known.Get()
		return &cfg
	}
	theirs := config(server, clients(channel.DKeyServer))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() {
		cancel()
		ln.Close()
		<-done
	})
	go func() {
		defer close(done)
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		ch, err := channel.Server(ctx, conn, theirs)
		if err != nil {
			return
		}
		defer ch.Close()
		for {
			if _, err := ch.Receive(ctx); err != nil {
				return
			}
			if ch.Send(ctx, answer.append(nil)) != nil {
				return
			}
		}
	}()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ch, err := channel.Client(t.Context(), conn, config(cache, servers(channel.DKeyCache)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ch.Close() })
	return &session{Client: cache.client(t, ln.Addr().String()), domain: cache.known.Get(), ch: ch}
}

// TestWrongAnswers has a server answer something else than was asked for.
func TestWrongAnswers(t *testing.T) {
	a := newRealm(t)
	for name, row := range map[string]struct {
		answer message
		ask    func(context.Context, *session) error
	}{
		"a report instead of manifests": {message{kind: status, report: Report{Floor: start}}, func(ctx context.Context, s *session) error { return s.getManifests(ctx, 1) }},
		"manifests instead of keys":     {message{kind: manifests}, func(ctx context.Context, s *session) error { return s.fetch(ctx, Report{Keys: 1}) }},
		"manifests instead of heads":    {message{kind: manifests}, func(ctx context.Context, s *session) error { return s.tellHeads(ctx) }},
		"a report instead of members":   {message{kind: status, report: Report{Floor: start}}, func(ctx context.Context, s *session) error { return s.tell(ctx, time.Minute) }},
		"manifests instead of a report": {message{kind: manifests}, func(ctx context.Context, s *session) error {
			_, err := s.status(ctx, message{kind: heartbeat})
			return err
		}},
	} {
		if err := row.ask(t.Context(), answered(t, a, row.answer)); !errors.Is(err, ErrMessage) {
			t.Errorf("%s: got %v, want ErrMessage", name, err)
		}
	}
}

// TestHeadsUnknown asks a server about a log that it knows nothing of.
func TestHeadsUnknown(t *testing.T) {
	if _, err := new(Server).hearHeads(channel.Peer{}, message{}.heads); !errors.Is(err, ErrMessage) {
		t.Errorf("got %v, want ErrMessage", err)
	}
}

// TestManifestLimits has more and larger manifests than a program takes.
func TestManifestLimits(t *testing.T) {
	a := newRealm(t)
	for name, files := range map[string][][]byte{"none": nil, "one too many": make([][]byte, maxChain+1)} {
		if _, err := OpenDomain(a.last.Domain, files, clock); !errors.Is(err, ErrMessage) {
			t.Errorf("%s: got %v, want ErrMessage", name, err)
		}
	}
	d := a.open(t)
	if _, err := d.Add([][]byte{a.follow(t, a.last, nil), make([]byte, maxManifest+1)}); !errors.Is(err, ErrMessage) {
		t.Errorf("a large one: got %v, want ErrMessage", err)
	}
	d.mu.Lock()
	first := d.files[0]
	for len(d.files) < maxChain {
		d.files, d.states = append(d.files, first), append(d.states, d.states[0])
	}
	d.mu.Unlock()
	if _, err := d.Add([][]byte{a.follow(t, a.last, nil)}); !errors.Is(err, ErrMessage) {
		t.Errorf("after %d others: got %v, want ErrMessage", maxChain, err)
	}
}

// TestMembersFull has a domain of more programs than are remembered, all of them
// there: the newest is left out, with all that it tells of.
func TestMembersFull(t *testing.T) {
	a := listOf(255)
	root := []overview.Member{says(channel.DKeyServer, 1)}
	for i := range overview.MaxMembers - 2 {
		m := says(channel.Core, 2)
		m.Instance[1], m.Instance[2] = byte(i>>8), byte(i)
		root = append(root, m)
	}
	if err := a.arrive(quoted(channel.DKeyServer, 1), "").told(quoted(channel.DKeyServer, 1), root); err != nil {
		t.Fatal(err)
	}
	before := len(a.list(overview.ID{}))
	late := a.arrive(quoted(channel.DKeyCache, 2), "")
	if err := late.told(quoted(channel.DKeyCache, 2), []overview.Member{says(channel.DKeyCache, 3), says(channel.Core, 4)}); err != nil {
		t.Fatal(err)
	}
	if got := len(a.list(overview.ID{})); before != overview.MaxMembers-1 || got != before {
		t.Errorf("got %d members, then %d, want %d", before, got, overview.MaxMembers-1)
	}
	if err := a.arrive(quoted(channel.DKeyServer, 1), "").told(quoted(channel.DKeyServer, 1), []overview.Member{says(channel.DKeyServer, 255)}); !errors.Is(err, ErrMessage) {
		t.Errorf("a peer with the own instance: got %v, want ErrMessage", err)
	}
}
