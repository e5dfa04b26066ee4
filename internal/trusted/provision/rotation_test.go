package provision

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// rotate has a root hold another version, as ehsm-dkeyserver makes it.
func (p *program) rotate(t testing.TB) {
	t.Helper()
	err := p.holder.Fill(func(home *secret.Home) (next *domainkey.Keyring, err error) {
		err = p.holder.Use(func(k *domainkey.Keyring) error {
			next, err = k.Next(home)
			return err
		})
		return next, err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// holds waits until a program holds exactly some versions.
func (p *program) holds(t testing.TB, newest uint32, versions ...uint32) {
	t.Helper()
	await(t, string(p.role)+" holds the versions", func() bool {
		ok := p.holder.version() == newest
		p.holder.Use(func(k *domainkey.Keyring) error {
			for v := uint32(1); v <= newest; v++ {
				want := false
				for _, w := range versions {
					want = want || w == v
				}
				ok = ok && k.Holds(v) == want
			}
			return nil
		})
		return ok
	})
}

// TestRotation has a version reach worker, dkeycache and core while they use their
// keys, twice in a row, and what is forgotten leave all but the core, which
// decides by itself when it is done with it.
func TestRotation(t *testing.T) {
	a := newRealm(t)
	root := newProgram(t, 0, channel.DKeyServer, a.knowing(t), a.rooted(t))
	at := root.serve(t)
	worker := newProgram(t, 1, channel.DKeyServer, a.knowing(t), NewHolder(heap))
	worker.join(t, at)
	cache := newProgram(t, 1, channel.DKeyCache, a.knowing(t), NewHolder(heap))
	cache.join(t, at)
	core := newProgram(t, 1, channel.Core, NewKnown(a.last.Domain, clock), NewHolder(heap))
	core.join(t, cache.serve(t))
	others := []*program{worker, cache, core}
	var lost []<-chan struct{}
	for _, p := range others {
		lost = append(lost, p.has(t, a))
	}
	keys, _, err := core.holder.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for n := uint32(2); n <= 3; n++ {
		b := a.next(t, func(s *manifest.Statement) { s.Settings.DomainKey = manifest.DomainKey{Version: n} })
		if _, err := root.known.Get().Add([][]byte{b}); err != nil {
			t.Fatal(err)
		}
		root.rotate(t)
	}
	for _, p := range others {
		p.holds(t, 3, 1, 2, 3)
	}
	b := a.next(t, func(s *manifest.Statement) { s.Settings.DomainKey.Forgotten = []uint32{1} })
	if _, err := root.known.Get().Add([][]byte{b}); err != nil {
		t.Fatal(err)
	}
	worker.holds(t, 3, 2, 3)
	cache.holds(t, 3, 2, 3)
	await(t, "the core has the manifest", func() bool { return core.known.Get().Manifest() == a.last.Version })
	if !keys.Holds(1) || keys.Newest() != 3 || keys.Current() != 1 {
		t.Errorf("the core's keys: newest %d, current %d, holds the first: %v", keys.Newest(), keys.Current(), keys.Holds(1))
	}
	for i, l := range lost {
		if isClosed(l) {
			t.Errorf("%s has lost its keys on the way", others[i].role)
		}
	}
	if got := root.members.Newest(); got != 3 {
		t.Errorf("the root hears of version %d", got)
	}
}

// TestWant has a core hear of a version from a record, long before the next
// heartbeats.
func TestWant(t *testing.T) {
	a := newRealm(t)
	root := newProgram(t, 0, channel.DKeyServer, a.knowing(t), a.rooted(t))
	at := root.serve(t)
	cache := newProgram(t, 1, channel.DKeyCache, a.knowing(t), NewHolder(heap))
	up := cache.client(t, at)
	core := newProgram(t, 1, channel.Core, a.knowing(t), NewHolder(heap))
	down := core.client(t, cache.serveWith(t, func(s *Server) { s.Hurry = up.Hurry }))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{}, 2)
	for _, c := range []*Client{up, down} {
		c.Every = time.Hour
		go func() {
			c.Run(ctx)
			done <- struct{}{}
		}()
	}
	defer func() { cancel(); <-done; <-done }()
	core.has(t, a)
	root.rotate(t)
	down.Want(2)
	core.holds(t, 2, 1, 2)
	// One that nobody has is asked for a while, and then no longer.
	down.Want(9)
	if !down.haste.wants(2) || down.haste.wants(9) {
		t.Error("what is wanted is not what was asked for")
	}
	down.haste.until.Store(time.Now().UnixNano())
	if down.haste.wants(2) {
		t.Error("it is wanted for good")
	}
}

// TestFillForeign offers a holder keys that do not continue its own.
func TestFillForeign(t *testing.T) {
	a := newRealm(t)
	one, two := newProgram(t, 0, channel.DKeyServer, a.knowing(t), a.rooted(t)), newProgram(t, 0, channel.DKeyServer, a.knowing(t), a.rooted(t))
	one.rotate(t)
	two.rotate(t)
	var other *domainkey.Keyring
	two.holder.Use(func(k *domainkey.Keyring) error { other = k; return nil })
	err := one.holder.Fill(func(home *secret.Home) (*domainkey.Keyring, error) { return other.Next(home) })
	if !errors.Is(err, ErrForeignKeys) || one.holder.version() != 2 {
		t.Errorf("got %v, version %d", err, one.holder.version())
	}
}

func TestHolderSettle(t *testing.T) {
	a := newRealm(t)
	p := newProgram(t, 0, channel.DKeyServer, a.knowing(t), a.rooted(t))
	forgetting := &manifest.Settings{DomainKey: manifest.DomainKey{Version: 2, Forgotten: []uint32{1}}}
	if p.holder.Settle(forgetting) {
		t.Error("forgets before it has the new version")
	}
	p.rotate(t)
	if !p.holder.Settle(forgetting) || p.holder.Settle(forgetting) {
		t.Error("does not forget once")
	}
	p.holds(t, 2, 2)
	if NewHolder(heap).Settle(forgetting) {
		t.Error("forgets without keys")
	}
}
