package provision

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// TestProvisioning has the DomainKey go from root to worker to dkeycache to core,
// which know nothing but the domain id.
func TestProvisioning(t *testing.T) {
	a := newRealm(t)
	root := newProgram(t, 0, channel.DKeyServer, a.knowing(t), a.rooted(t))
	worker := newProgram(t, 1, channel.DKeyServer, NewKnown(a.last.Domain, clock), NewHolder(heap))
	cache := newProgram(t, 1, channel.DKeyCache, NewKnown(a.last.Domain, clock), NewHolder(heap))
	core := newProgram(t, 1, channel.Core, NewKnown([32]byte{}, clock), NewHolder(heap))
	// In the wrong order: each waits for the one before it.
	core.join(t, cache.serve(t))
	cache.join(t, worker.serve(t))
	worker.join(t, root.serve(t))
	for _, p := range []*program{worker, cache, core} {
		p.has(t, a)
	}
	// A newer manifest at the root reaches all.
	b := a.next(t, func(s *manifest.Statement) { s.Settings.RequestWindow = 100 })
	if newer, err := root.known.Get().Add([][]byte{b}); err != nil || !newer {
		t.Fatal(err)
	}
	await(t, "manifest 2 at the core", func() bool { return core.known.Get().Manifest() == 2 })
	// And one at the core reaches the root.
	b = a.next(t, func(s *manifest.Statement) { s.Settings.RequestWindow = 200 })
	if _, err := core.known.Get().Add([][]byte{b}); err != nil {
		t.Fatal(err)
	}
	await(t, "manifest 3 at the root", func() bool { return root.known.Get().Manifest() == 3 })
	// Dates of signed objects travel, too.
	root.known.Get().Raise(start.AddDate(0, 0, 3))
	await(t, "date at the core", func() bool { return core.known.Get().Now().Equal(start.AddDate(0, 0, 3)) })
}

// TestRemoval takes a role, or a machine, out of the domain: those who are connected
// lose the DomainKey.
func TestRemoval(t *testing.T) {
	without := func(role channel.Role) func(*manifest.Statement) {
		return func(s *manifest.Statement) {
			code := s.Settings.Code[:0]
			for _, c := range s.Settings.Code {
				if c.Role != string(role) {
					code = append(code, c)
				}
			}
			s.Settings.Code = code
		}
	}
	for _, row := range []struct {
		name        string
		edit        func(*manifest.Statement)
		cache, core bool // lose it
	}{
		{"the machine", func(s *manifest.Statement) { s.Settings.Platforms = s.Settings.Platforms[:1] }, true, true},
		{"dkeycaches", without(channel.DKeyCache), true, true},
		{"cores", without(channel.Core), false, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := newRealm(t)
			root := newProgram(t, 0, channel.DKeyServer, a.knowing(t), a.rooted(t))
			cache := newProgram(t, 1, channel.DKeyCache, NewKnown(a.last.Domain, clock), NewHolder(heap))
			core := newProgram(t, 1, channel.Core, NewKnown(a.last.Domain, clock), NewHolder(heap))
			cache.join(t, root.serve(t))
			core.join(t, cache.serve(t))
			lostByCache, lostByCore := cache.has(t, a), core.has(t, a)
			if _, err := root.known.Get().Add([][]byte{a.next(t, row.edit)}); err != nil {
				t.Fatal(err)
			}
			if row.cache {
				closed(t, "the dkeycache keeps the DomainKey", lostByCache)
				err := cache.holder.Use(func(*domainkey.Keyring) error { return nil })
				if !errors.Is(err, ErrNoKeys) || !errors.Is(err, ErrRemoved) {
					t.Errorf("the dkeycache: got %v", err)
				}
			}
			if row.core {
				closed(t, "the core keeps the DomainKey", lostByCore)
				if err := core.holder.Release(); !errors.Is(err, ErrRemoved) {
					t.Errorf("the core: got %v", err)
				}
			}
		})
	}
}

func closed(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(20 * time.Second):
		t.Fatal(what)
	}
}

// TestRefusedPrograms has clients that get nothing, and what the server says.
func TestRefusedPrograms(t *testing.T) {
	a, other := newRealm(t), newRealm(t)
	for _, row := range []struct {
		name string
		role channel.Role // that asks
		at   channel.Role // that is asked
		edit func(*testing.T, *Client)
		want error
	}{
		{"other domain wanted", channel.DKeyCache, channel.DKeyServer, func(_ *testing.T, c *Client) { c.Domain = NewKnown(other.last.Domain, clock) }, ErrDomain},
		{"known domain is another", channel.DKeyCache, channel.DKeyServer, func(t *testing.T, c *Client) { c.Domain = other.knowing(t) }, ErrDomain},
		{"core of another domain", channel.Core, channel.DKeyCache, func(_ *testing.T, c *Client) { c.Domain = NewKnown(other.last.Domain, clock) }, ErrDomain},
		{"dkeycache of a stranger", channel.DKeyCache, channel.DKeyServer, func(t *testing.T, c *Client) {
			m := load(t, 1, channel.DKeyCache, strangerSeed)
			c.Channel.Attester = m
		}, channel.ErrRefused},
		{"stranger that knows itself", channel.DKeyCache, channel.DKeyServer, func(t *testing.T, c *Client) {
			m := load(t, 1, channel.DKeyCache, strangerSeed)
			c.Self = NewSelf(c.Role, m, m)
		}, ErrRemoved},
		{"core as dkeycache", channel.DKeyCache, channel.DKeyServer, func(t *testing.T, c *Client) { c.Channel.Attester = load(t, 1, channel.Core, signerSeed) }, channel.ErrRefused},
		{"core at a dkeyserver", channel.Core, channel.DKeyServer, nil, nil},
		{"dkeycache at a dkeycache", channel.DKeyCache, channel.DKeyCache, nil, nil},
		{"core on another machine", channel.Core, channel.DKeyCache, func(t *testing.T, c *Client) {
			p := newProgram(t, 0, channel.Core, nil, nil)
			c.Join, c.Self = p.client(t).Join, NewSelf(c.Role, p.machine, nil)
		}, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			server := newProgram(t, 1, row.at, a.knowing(t), a.rooted(t))
			p := newProgram(t, 1, row.role, NewKnown(a.last.Domain, clock), NewHolder(heap))
			c := p.client(t, server.serve(t))
			if row.edit != nil {
				row.edit(t, c)
			}
			err := c.stay(t.Context(), c.Servers[0])
			if err == nil || row.want != nil && !errors.Is(err, row.want) {
				t.Errorf("got %v, want %v", err, row.want)
			}
			if p.holder.version() != 0 {
				t.Error("it has the DomainKey")
			}
		})
	}
}

// TestRemovedServer has a dkeyserver that keeps a DomainKey on its disk, and whose
// machine is taken out: it hands nothing out, even to those that are admitted.
func TestRemovedServer(t *testing.T) {
	a := newRealm(t)
	h := a.rooted(t)
	s, holder := talk(t, a, h)
	if missing, err := s.beat(t.Context()); err != nil || missing {
		t.Fatalf("got %v, %v", missing, err)
	}
	b := a.next(t, func(s *manifest.Statement) { s.Settings.Platforms = s.Settings.Platforms[1:] })
	s.status(t.Context(), message{kind: putManifests, files: [][]byte{b}}) // the answer may be too late
	if m, err := s.ask(t.Context(), message{kind: getKeys}); err == nil {
		t.Errorf("it answers %+v", m)
	}
	await(t, "its DomainKey lost", func() bool { return errors.Is(use(h), ErrRemoved) })
	if err := use(holder); err != nil {
		t.Errorf("the client lost its own: %v", err)
	}
}

// TestWaitingList has a machine that the manifest does not admit.
func TestWaitingList(t *testing.T) {
	a := newRealm(t)
	a.next(t, func(s *manifest.Statement) { s.Settings.Platforms = s.Settings.Platforms[:1] })
	server := newProgram(t, 0, channel.DKeyServer, a.knowing(t), a.rooted(t))
	cache := newProgram(t, 1, channel.DKeyCache, a.knowing(t), NewHolder(heap))
	c := cache.client(t, server.serve(t))
	if err := c.stay(t.Context(), c.Servers[0]); !errors.Is(err, ErrRemoved) {
		t.Errorf("a machine that knows: got %v, want ErrRemoved", err)
	}
	for range 2 { // one that does not know, or does not care
		conn, err := c.Dial(t.Context(), c.Servers[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte{openChannel}); err != nil {
			t.Fatal(err)
		}
		cfg := c.Channel
		cfg.Role, cfg.PeerRoles, cfg.Domain, cfg.Policy = channel.DKeyCache, servers(channel.DKeyCache), a.last.Domain, cache.known.Get()
		if _, err := channel.Client(t.Context(), conn, &cfg); err == nil {
			t.Fatal("it was let in")
		}
	}
	await(t, "three refusals", func() bool { all := server.waiting.List(); return len(all) == 1 && all[0].Times == 3 })
	if m := server.waiting.List()[0]; m.PPID != ppid(t, 1) || !strings.HasPrefix(m.From, "127.0.0.1:") || m.Serial == "" || !m.First.Equal(start) {
		t.Errorf("got %+v", m)
	}
	var written []byte
	if err := server.waiting.Save(start, func(b []byte) error { written = b; return nil }); err != nil || !strings.Contains(string(written), ppid(t, 1).String()) {
		t.Errorf("written is %s, %v", written, err)
	}
}

// TestStrangers has connections that are no clients: the server goes on.
func TestStrangers(t *testing.T) {
	a := newRealm(t)
	server := newProgram(t, 0, channel.DKeyServer, a.knowing(t), a.rooted(t))
	address := server.serve(t)
	for _, sent := range []string{"", "\x00", "\x03", "GET / HTTP/1.1\r\n\r\n", "\x01", "\x01\x01\x01", "\x02", "\x02\x16\x03\x01", "\x01\x01\x02"} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conn.Write([]byte(sent))
		defer conn.Close() // half of a handshake stays open
	}
	cache := newProgram(t, 1, channel.DKeyCache, NewKnown(a.last.Domain, clock), NewHolder(heap))
	cache.join(t, address)
	cache.has(t, a)
}

// talk opens a channel as a dkeycache that says what it likes.
func talk(t *testing.T, a *realm, h *Holder) (*session, *Holder) {
	t.Helper()
	server := newProgram(t, 0, channel.DKeyServer, a.knowing(t), h)
	cache := newProgram(t, 1, channel.DKeyCache, a.knowing(t), NewHolder(heap))
	c := cache.client(t, server.serve(t))
	conn, err := c.Dial(t.Context(), c.Servers[0])
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.meet(conn)
	if err != nil {
		t.Fatal(err)
	}
	cfg := c.Channel
	cfg.Role, cfg.PeerRoles, cfg.Domain, cfg.Policy = c.Role, servers(c.Role), a.last.Domain, d
	ch, err := channel.Client(t.Context(), conn, &cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ch.Close() })
	return &session{Client: c, domain: d, ch: ch}, cache.holder
}

// TestMalformedRequests end the channel, and nothing else.
func TestMalformedRequests(t *testing.T) {
	a := newRealm(t)
	for name, sent := range map[string][]byte{
		"no message":           {9, 9, 9},
		"an answer":            (&message{kind: status}).append(nil),
		"keys":                 (&message{kind: keys, sealed: []byte{1}}).append(nil),
		"a refusal":            (&message{kind: refused, reason: removed}).append(nil),
		"a heartbeat and more": append((&message{kind: heartbeat, report: sample}).append(nil), 0),
	} {
		s, _ := talk(t, a, a.rooted(t))
		if err := s.ch.Send(t.Context(), sent); err != nil {
			t.Fatal(err)
		}
		if b, err := s.ch.Receive(t.Context()); err == nil {
			t.Errorf("%s: got %x", name, b)
		}
	}
}

// TestRequests has the answer to each request.
func TestRequests(t *testing.T) {
	a := newRealm(t)
	empty := NewHolder(heap)
	s, _ := talk(t, a, empty)
	if m, err := s.ask(t.Context(), message{kind: getKeys}); err != nil || m.kind != refused || m.reason != notYet {
		t.Errorf("no keys yet: got %+v, %v", m, err)
	}
	if r, err := s.status(t.Context(), message{kind: heartbeat, report: sample}); err != nil || r.Keys != 0 || r.Lease != 0 || r.Manifest != 1 {
		t.Errorf("status without keys: got %+v, %v", r, err)
	}
	s, _ = talk(t, a, a.rooted(t))
	r, err := s.status(t.Context(), message{kind: heartbeat, report: sample})
	if want := time.Duration(a.last.Settings.Lease) * time.Hour; err != nil || r.Keys != 1 || r.Lease != want || r.Floor.Before(a.last.Date) {
		t.Errorf("status: got %+v, %v, want a lease of %v", r, err, want)
	}
	m, err := s.ask(t.Context(), message{kind: getKeys})
	if err != nil || m.kind != keys {
		t.Fatalf("keys: got %+v, %v", m, err)
	}
	if _, err := s.ch.Open("ehsm/provision-keys/v2", m.sealed); !errors.Is(err, channel.ErrOpen) {
		t.Errorf("keys under another label: got %v", err)
	}
	forged := newRealm(t)
	for name, file := range map[string][]byte{
		"junk":           []byte("junk"),
		"another domain": forged.next(t, nil),
		"old":            a.files[0],
	} {
		if r, err := s.status(t.Context(), message{kind: putManifests, files: [][]byte{file}}); err != nil || r.Manifest != 1 {
			t.Errorf("%s: got %+v, %v", name, r, err)
		}
	}
	if r, err := s.status(t.Context(), message{kind: putManifests, files: [][]byte{a.next(t, nil)}}); err != nil || r.Manifest != 2 {
		t.Errorf("a newer manifest: got %+v, %v", r, err)
	}
	if m, err := s.ask(t.Context(), message{kind: getManifests, after: 1}); err != nil || len(m.files) != 1 || string(m.files[0]) != string(a.files[1]) {
		t.Errorf("manifests: got %+v, %v", m, err)
	}
	if m, err := s.ask(t.Context(), message{kind: getManifests, after: 2}); err != nil || m.kind != manifests || len(m.files) != 0 {
		t.Errorf("no manifests: got %+v, %v", m, err)
	}
}

// TestForeignKeys has a server that gives a DomainKey other than the one held.
func TestForeignKeys(t *testing.T) {
	a, other := newRealm(t), newRealm(t)
	h := a.rooted(t)
	err := h.Fill(func(home *secret.Home) (*domainkey.Keyring, error) {
		return domainkey.Unseal(other.dir, load(t, 0, channel.DKeyServer, signerSeed), home, other.last)
	})
	if !errors.Is(err, ErrForeignKeys) {
		t.Errorf("got %v, want ErrForeignKeys", err)
	}
	// Even a server of the domain cannot give keys of another one.
	s, holder := talk(t, a, other.rooted(t))
	if err := s.fetch(t.Context(), Report{Keys: 1}); !errors.Is(err, domainkey.ErrSeal) || holder.version() != 0 {
		t.Errorf("got %v, want ErrSeal", err)
	}
}

// TestNextServer has the first server of the list away.
func TestNextServer(t *testing.T) {
	a := newRealm(t)
	server := newProgram(t, 0, channel.DKeyServer, a.knowing(t), a.rooted(t))
	cache := newProgram(t, 1, channel.DKeyCache, NewKnown(a.last.Domain, clock), NewHolder(heap))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	cache.join(t, ln.Addr().String(), server.serve(t))
	cache.has(t, a)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := NewHolder(heap).Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait: got %v", err)
	}
}
