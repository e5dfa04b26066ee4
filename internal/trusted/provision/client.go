package provision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/ehsm-kms/ehsm/internal/failpoint"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/facts"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
)

// Waits between two attempts to reach a server.
const (
	firstWait = 50 * time.Millisecond
	longWait  = 2 * time.Second
)

// A Client keeps the Holder of its program filled from a server: a core from its
// dkeycache, a dkeycache or a worker from the dkeyservers.
type Client struct {
	Role   channel.Role
	Holder *Holder
	Domain *Known
	// Channel has what is the same for all channels; the rest is filled in.
	Channel channel.Config
	Join    Join
	// Dial connects to a server; Servers are their addresses, best first.
	Dial    func(ctx context.Context, server string) (net.Conn, error)
	Servers []string
	Self    *Self
	// Leased says that the keys are only held for as long as the server grants.
	Leased bool
	// Every is the time between heartbeats. Default: Heartbeat.
	Every time.Duration
	// Keep, if not nil, is told of keys that were fetched, again at each heartbeat
	// until it returns nil.
	Keep func(*domainkey.Keyring) error
	Log  *slog.Logger
	// Members, if not nil, is of whom the server is told; a dkeyserver's takes those
	// of whom the server tells.
	Members *Members
	// Heads, if not nil, is told what the server knows of the log of negative facts.
	Heads Heads

	haste      haste
	retirement retirement
	said       said    // of servers
	telling    telling // on the channel that is open
	unkept     bool    // keys that were fetched are not kept yet
}

// A Known is the domain of a program, once it knows it. It is safe for concurrent
// use.
type Known struct {
	pin   genesis.ID
	clock func() time.Time

	mu     sync.Mutex
	domain *Domain
}

// NewKnown returns a Known for the domain with the id pin, or, where that is zero,
// for the first that is learned of. clock is the host's.
func NewKnown(pin genesis.ID, clock func() time.Time) *Known {
	return &Known{pin: pin, clock: clock}
}

// Get returns the domain, nil as long as it is not known.
func (k *Known) Get() *Domain {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.domain
}

// Learn takes the manifests of the domain, the genesis first; of a known domain,
// those that are new. Errors: ErrDomain, and those of OpenDomain and Domain.Add.
func (k *Known) Learn(files [][]byte) (*Domain, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.domain == nil {
		d, err := OpenDomain(k.pin, files, k.clock)
		if err != nil {
			return nil, err
		}
		k.domain = d
		return d, nil
	}
	if len(files) > 0 && !containsFile(k.domain.After(0)[:1], files[0]) { // check: same-genesis
		return nil, fmt.Errorf("%w: its genesis is not that of %s", ErrDomain, k.domain.State().Domain)
	}
	_, err := k.domain.Add(files)
	return k.domain, err
}

// Run stays with a server until ctx ends; when one fails, with the next.
func (c *Client) Run(ctx context.Context) {
	wait := firstWait
	for n := 0; ctx.Err() == nil; n++ {
		server := c.Servers[n%len(c.Servers)]
		began := time.Now()
		err := c.stay(ctx, server)
		if ctx.Err() != nil {
			return
		}
		if text := err.Error(); c.said.news(server, text) {
			c.Log.Warn("server not usable", "server", server, "why", text)
		}
		if time.Since(began) > answerTime {
			wait = firstWait // it had worked
		}
		if n%len(c.Servers) == len(c.Servers)-1 {
			pause(ctx, wait/2+rand.N(wait/2))
			wait = min(2*wait, longWait)
		}
	}
}

// pause waits, or for the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// stay keeps one server for as long as it works.
func (c *Client) stay(ctx context.Context, server string) error {
	limit, stop := context.WithTimeout(ctx, answerTime)
	defer stop()
	conn, err := c.Dial(limit, server)
	if err != nil {
		return err
	}
	defer conn.Close()
	d, err := c.meet(conn)
	if err != nil {
		return err
	}
	// One that is not admitted tries nevertheless: a dkeyserver lists machines that
	// wait for admission.
	removed := c.self(ctx, d)
	cfg := c.Channel
	cfg.Role, cfg.PeerRoles, cfg.Domain, cfg.Policy = c.Role, servers(c.Role), d.State().Domain, d
	changed := d.Changed()
	ch, err := c.Join(limit, conn, &cfg)
	if err != nil && removed != nil {
		return fmt.Errorf("%w; %w", removed, err)
	}
	if err != nil {
		return err
	}
	defer ch.Close()
	if removed != nil {
		return removed
	}
	d.remember(ch.Peer())
	c.said.forget(server)
	c.Log.Info("joined", "server", server, "domain", d.State().Domain.String(), "platform", platformName(ch.Peer()))
	warnOfGrace(c.Log, ch.Peer(), d.Now())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go keepAttested(ctx, d, ch, changed, c.Log)
	c.telling.begin(c, ch, server)
	defer c.telling.end()
	s := &session{Client: c, domain: d, ch: ch}
	return s.run(ctx)
}

// meet learns the manifests of the server's domain and has it begin a channel.
func (c *Client) meet(conn net.Conn) (*Domain, error) {
	conn.SetDeadline(time.Now().Add(answerTime))
	files, err := askForManifests(conn)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%w: the server does not know its domain yet", ErrNoKeys)
	}
	d, err := c.Domain.Learn(files)
	if d == nil || errors.Is(err, ErrDomain) { // check: met-another-domain
		return nil, err
	}
	if err != nil { // it may be behind, or ahead on another way: the channel tells
		c.Log.Warn("manifests of the server", "why", err.Error())
	}
	if _, err := conn.Write([]byte{openChannel}); err != nil {
		return nil, err
	}
	return d, conn.SetDeadline(time.Time{})
}

// self has the keys lost if the manifest does not admit this program, or this
// machine. Errors: ErrRemoved.
func (c *Client) self(ctx context.Context, d *Domain) error {
	err := c.Self.admitted(ctx, d)
	if errors.Is(err, ErrRemoved) { // check: self-removed
		c.Holder.Lose(err)
	}
	return err
}

// A session is a channel to a server, from the client's end.
type session struct {
	*Client
	domain *Domain
	ch     *channel.Conn

	told    facts.Statement // by the server, of the log of negative facts
	trouble string          // with that log, as logged last
}

// run exchanges heartbeats, and what they show to be new.
func (s *session) run(ctx context.Context) error {
	every := s.Every
	if every <= 0 {
		every = Heartbeat
	}
	for {
		changed, grown := s.domain.Changed(), s.headsChanged()
		missing, err := s.beat(ctx)
		if err == nil {
			err = s.tell(ctx, every)
		}
		if err != nil {
			return err
		}
		wait := every
		switch {
		case s.haste.wants(s.Holder.version()):
			wait = min(every, shortWait)
		case missing:
			wait = min(every, 500*time.Millisecond)
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-changed:
		case <-grown:
			pause(ctx, headPause)
		case <-s.haste.hurried():
			pause(ctx, shortWait) // whoever is in a hurry may be so for each request
		case <-ctx.Done():
		}
		t.Stop()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// beat is one heartbeat. It reports whether there are still no keys.
func (s *session) beat(ctx context.Context) (missing bool, err error) {
	r, err := s.status(ctx, message{kind: heartbeat, report: report(s.domain, s.Holder)})
	if err != nil {
		return false, err
	}
	s.domain.Raise(r.Floor)
	if r, err = s.exchange(ctx, r); err != nil {
		return false, err
	}
	if err := s.self(ctx, s.domain); err != nil {
		return false, err
	}
	if err := s.tellHeads(ctx); err != nil { // before the keys: who has them knows the heads
		return false, err
	}
	if err := s.fetch(ctx, r); err != nil {
		return false, err
	}
	if s.Role != channel.Core && s.Holder.Settle(&s.domain.State().Settings) {
		s.Log.Info("versions of the DomainKey are forgotten", "manifest", s.domain.Manifest())
		s.unkept = s.Keep != nil
	}
	s.keep()
	if s.Leased && r.Keys > 0 && s.Holder.version() > 0 {
		s.Holder.Extend(min(r.Lease, time.Duration(s.domain.State().Settings.Lease)*time.Hour))
	}
	return s.Holder.version() == 0, nil
}

// exchange has both sides on the higher manifest.
func (s *session) exchange(ctx context.Context, r Report) (Report, error) {
	own := s.domain.Manifest()
	switch {
	case r.Manifest > own:
		return r, s.getManifests(ctx, own)
	case r.Manifest < own:
		return s.status(ctx, message{kind: putManifests, files: fitting(s.domain.After(r.Manifest))})
	}
	return r, nil
}

// getManifests fetches what follows a version; where that does not follow, because
// operators have signed two ways on, all.
func (s *session) getManifests(ctx context.Context, after uint64) error {
	for _, after := range []uint64{after, 1} {
		m, err := s.ask(ctx, message{kind: getManifests, after: after})
		if err != nil {
			return err
		}
		if m.kind != manifests { // check: answer-manifests
			return fmt.Errorf("%w: kind %d, want manifests", ErrMessage, m.kind)
		}
		newer, err := s.domain.Add(m.files)
		if newer {
			s.Log.Info("newer manifest", "version", s.domain.Manifest())
			return failpoint.Hit("provision.manifest", string(s.Role))
		}
		if err != nil {
			s.Log.Warn("manifest of the server refused", "why", err.Error())
		}
	}
	return nil
}

// fetch gets the keys if the server has some that are not held.
func (s *session) fetch(ctx context.Context, r Report) error {
	held := s.Holder.version()
	again := r.Keys > 0 && s.retirement.lacking
	if r.Keys <= held && !s.haste.wants(held) && !again {
		return nil
	}
	m, err := s.ask(ctx, message{kind: getKeys})
	if err != nil || r.Keys <= held && !again { // the server hurries now
		return err
	}
	s.retirement.lacking = false // if the server lacks it too, it says so again
	if m.kind == refused {
		return nil // not yet
	}
	if m.kind != keys { // check: answer-keys
		return fmt.Errorf("%w: kind %d, want keys", ErrMessage, m.kind)
	}
	opened, err := s.ch.Open(keysLabel, m.sealed)
	if err != nil {
		return err
	}
	defer opened.Zero()
	if err := failpoint.Hit("provision.opened", string(s.Role)); err != nil {
		return err
	}
	err = s.Holder.Fill(func(home *secret.Home) (*domainkey.Keyring, error) {
		return domainkey.Import(home, s.domain.State(), opened)
	})
	if errors.Is(err, ErrNoKeys) {
		return nil // those that were lost are still in use
	}
	if err != nil {
		return err
	}
	s.unkept = s.Keep != nil
	return failpoint.Hit("provision.filled", string(s.Role))
}

// keep has keys that were fetched kept, again at each heartbeat until that works:
// they are held all the same, and asked for they are not again.
func (s *session) keep() {
	if !s.unkept {
		return
	}
	err := s.Holder.Use(s.Keep)
	if s.unkept = err != nil && !errors.Is(err, ErrNoKeys); s.unkept {
		s.Log.Error("the DomainKey is not kept", "why", err.Error())
	}
}

// status is ask for requests whose answer is a Report.
func (s *session) status(ctx context.Context, q message) (Report, error) {
	m, err := s.ask(ctx, q)
	if err == nil && m.kind != status { // check: answer-status
		err = fmt.Errorf("%w: kind %d, want status", ErrMessage, m.kind)
	}
	return m.report, err
}

// ask sends a request and returns its answer. Errors: ErrRemoved, ErrMessage, and
// those of the channel.
func (s *session) ask(ctx context.Context, q message) (message, error) {
	ctx, stop := context.WithTimeoutCause(ctx, answerTime, channel.ErrTimeout)
	defer stop()
	if err := s.ch.Send(ctx, q.append(nil)); err != nil {
		return message{}, err
	}
	b, err := s.ch.Receive(ctx)
	if err != nil {
		return message{}, err
	}
	m, err := decode(b)
	if err == nil && m.kind == refused && m.reason == removed { // check: told-removed
		err = fmt.Errorf("%w: the server says so", ErrRemoved)
		if s.ch.Peer().Manifest >= s.domain.Manifest() { // one that is behind does not decide
			s.Holder.Lose(err)
		}
	}
	return m, err
}
