package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/facts"
	"github.com/ehsm-kms/ehsm/internal/trusted/launch"
	"github.com/ehsm-kms/ehsm/internal/trusted/provision"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
)

// A server is the running program.
type server struct {
	settings config.DKeyServer
	platform tee.Platform // seals the DomainKey
	known    *provision.Known
	holder   *provision.Holder
	channel  channel.Config
	self     *provision.Self
	members  *provision.Members
	heads    *facts.Kept // of the log of negative facts
	has      time.Time   // since when it has the DomainKey, as watch sees it; zero: it has none
	asked    uint32      // version of the DomainKey that the manifests asked for then
	custody  custody
	waiting  *provision.Waiting
	writing  sync.Mutex // of manifests to the directory
	rotating sync.Mutex // held from when the escrow has a new DomainKey until the holder has it
	unsealed bool       // what is sealed has versions that are forgotten; for watch
	log      *slog.Logger
	stderr   io.Writer

	waitingCount int    // that are written
	waitingSaid  string // about a list that is not
}

func serve(ctx context.Context, getenv func(string) string, stderr io.Writer, confined bool) error {
	settings, p, cage, err := launch.Begin(ctx, program, config.LoadDKeyServer, launch.Process{Getenv: getenv, Stderr: stderr, Confined: confined})
	if err != nil {
		return err
	}
	s, err := open(settings, p, stderr)
	if err != nil {
		return err
	}
	defer s.holder.Release()
	ln, err := net.Listen("tcp", settings.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer ln.Close()
	door, err := s.openDoor()
	if err != nil {
		return err
	}
	if door != nil {
		defer door.Close()
	}
	s.sweep()
	if err := cage.Shut(stderr); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "ehsm-dkeyserver: serves as %s on %s\n", settings.Role, ln.Addr())
	return s.run(ctx, ln, door)
}

// open finds out what is in the domain's directory.
func open(settings config.DKeyServer, p tee.Platform, stderr io.Writer) (*server, error) {
	attester, ok := p.(tee.Attester)
	if !ok {
		return nil, fmt.Errorf("%w: platform %s makes no quotes", tee.ErrNoPlatform, p.Name())
	}
	if settings.Role == config.RoleRoot && len(settings.Peers) > 0 && tee.Seals(p) { // check: root-takes-nothing
		return nil, fmt.Errorf("%w: EHSM_DKEYSERVER_PEERS is set, but a root on a platform with seal keys takes nothing from others", config.ErrSetting)
	}
	sealed, err := sealing(settings, p)
	if err != nil {
		return nil, err
	}
	s := &server{
		settings: settings, platform: sealed, stderr: stderr,
		known:   provision.NewKnown(genesis.ID(settings.DomainID), time.Now),
		holder:  provision.NewHolder(func() (*secret.Home, error) { return program.OpenHome(settings.Platform, stderr) }),
		channel: channel.Config{Attester: attester, Collateral: provision.CollateralFile(settings.Collateral)},
		self:    provision.NewSelf(channel.DKeyServer, p, attester),
		waiting: provision.NewWaiting(),
		log:     slog.New(slog.NewTextHandler(stderr, nil)),
	}
	s.members = provision.NewMembers(s.self)
	if s.heads, err = facts.OpenKept(settings.Domain); err != nil {
		return nil, err
	}
	s.readWaiting()
	files, err := domainkey.Files(settings.Domain)
	switch {
	case errors.Is(err, fs.ErrNotExist) && settings.Role == config.RoleWorker:
		if settings.DomainID == [32]byte{} {
			return nil, fmt.Errorf("%w: EHSM_DKEYSERVER_DOMAIN_ID is not set, and there is no genesis in %s", config.ErrSetting, settings.Domain)
		}
		return s, os.MkdirAll(settings.Domain, 0o700)
	case err != nil:
		return nil, err
	}
	d, err := s.known.Learn(files[:1])
	if err != nil {
		return nil, fmt.Errorf("genesis in %s: %w", settings.Domain, err)
	}
	s.add(d, files[1:])
	warnOfHSM(stderr, p, &d.State().Terms)
	if !tee.Seals(p) {
		return s, s.awaited(d.State())
	}
	err = s.holder.Fill(func(home *secret.Home) (*domainkey.Keyring, error) {
		return domainkey.Unseal(settings.Domain, sealed, home, d.State())
	})
	s.notice(d.State(), err)
	if err != nil && settings.Role == config.RoleWorker {
		s.log.Info("no DomainKey here yet", "why", err.Error())
		err = nil
	}
	return s, err
}

// add takes those of some manifests that follow.
func (s *server) add(d *provision.Domain, files [][]byte) {
	for _, f := range files {
		newer, err := d.Add([][]byte{f})
		if err != nil {
			s.log.Warn("manifest refused", "in", s.settings.Domain, "why", err.Error())
		}
		if newer {
			s.log.Info("manifest in force", "version", d.Manifest())
		}
	}
}

// run serves until ctx ends.
func (s *server) run(ctx context.Context, ln, door net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	beside.Go(func() { s.watch(ctx) })
	beside.Go(func() { s.keepEscrow(ctx) })
	if door != nil {
		beside.Go(func() { s.answerOperators(ctx, door) })
	}
	beside.Go(func() {
		s.holder.Forget(ctx, func(why error) { s.log.Error("the DomainKey is gone", "why", why.Error()) })
	})
	var hurry func()
	if !tee.Seals(s.platform) {
		beside.Go(func() { s.askCustodians(ctx) })
	}
	if len(s.settings.Peers) > 0 {
		c := s.client()
		hurry = c.Hurry
		beside.Go(func() { c.Run(ctx) })
	}
	return (&provision.Server{
		Role: channel.DKeyServer, Holder: s.holder, Self: s.self, Domain: s.known.Get, Channel: s.channel, Join: channel.Server,
		Log: s.log, Waiting: s.waiting, Members: s.members, Connections: s.settings.Connections, Hurry: hurry, Heads: s.heads,
	}).Serve(ctx, ln)
}

// client is of the other dkeyservers: a worker's, or that of a root without seal key.
func (s *server) client() *provision.Client {
	dialer := new(net.Dialer)
	return &provision.Client{
		Role: channel.DKeyServer, Holder: s.holder, Domain: s.known, Channel: s.channel, Join: channel.Client,
		Dial: func(ctx context.Context, server string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", server)
		},
		Servers: s.settings.Peers, Self: s.self, Every: s.settings.Heartbeat, Keep: s.keep, Log: s.log,
		Members: s.members, Heads: s.heads,
	}
}

// keep seals a DomainKey that came from another dkeyserver. Without a seal key, or
// without the HSM that the domain has for its root, it is fetched again at each start.
func (s *server) keep(k *domainkey.Keyring) error {
	err := k.Seal(s.settings.Domain, s.platform)
	if errors.Is(err, tee.ErrNoSealKey) || errors.Is(err, domainkey.ErrRoot) {
		s.log.Warn("the DomainKey is kept in memory only", "why", err.Error())
		return nil
	}
	if err == nil {
		s.log.Info("has the DomainKey", "versions", k.Newest())
		if d := s.known.Get(); d != nil && unprotected(s.platform, &d.State().Terms) {
			s.log.Warn(noProtection)
		}
	}
	return err
}
