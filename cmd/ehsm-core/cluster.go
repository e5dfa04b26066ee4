package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel/local"
	"github.com/ehsm-kms/ehsm/internal/trusted/core"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/facts"
	"github.com/ehsm-kms/ehsm/internal/trusted/launch"
	"github.com/ehsm-kms/ehsm/internal/trusted/provision"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/serve"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

// cacheHeartbeat is how often the core asks the dkeycache for what is new: for a
// manifest, or that the DomainKey is no longer its.
const cacheHeartbeat = time.Second

// failedPause is for how long a core whose log of negative facts is of no use still
// says so, before it starts again.
const failedPause = 5 * time.Second

// A member is a core whose DomainKey comes from the node's dkeycache.
type member struct {
	settings config.Core
	platform tee.Platform
	known    *provision.Known
	holder   *provision.Holder
	stderr   io.Writer
	log      *slog.Logger
	heads    *facts.Reader // of the log of negative facts
}

// join serves the domain of the node's dkeycache whenever it has the DomainKey.
// Nobody is listened to in the meantime, so that the manager knows.
func join(ctx context.Context, settings config.Core, p tee.Platform, cage *launch.Cage, stderr io.Writer) error {
	if err := cage.Shut(stderr); err != nil {
		return err
	}
	m := &member{
		settings: settings, platform: p, stderr: stderr, heads: facts.NewReader(), log: slog.New(slog.NewTextHandler(stderr, nil)),
		known:  provision.NewKnown(genesis.ID(settings.DomainID), time.Now),
		holder: provision.NewHolder(func() (*secret.Home, error) { return program.OpenHome(settings.Platform, stderr) }),
	}
	fmt.Fprintf(stderr, "ehsm-core: waits for the DomainKey from %s\n", settings.DKeyCache)
	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	client := m.client()
	beside.Go(func() { client.Run(ctx) })
	defer m.holder.Release()
	for {
		keys, lost, err := m.holder.Wait(ctx)
		if err != nil {
			return nil // ctx has ended
		}
		if err := m.serve(ctx, client, keys, lost); err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// client is that of the dkeycache.
func (m *member) client() *provision.Client {
	own := channel.Config{}
	if a, ok := m.platform.(tee.Attester); ok && m.settings.Collateral != "" {
		own.Attester, own.Collateral = a, provision.CollateralFile(m.settings.Collateral)
	}
	dialer := new(net.Dialer)
	return &provision.Client{
		Role: channel.Core, Holder: m.holder, Domain: m.known, Channel: own, Servers: []string{m.settings.DKeyCache},
		Dial: func(ctx context.Context, server string) (net.Conn, error) {
			network, address, err := config.ParseAddress(server)
			if err != nil {
				return nil, err
			}
			return dialer.DialContext(ctx, network, address)
		},
		Join: func(ctx context.Context, conn net.Conn, cfg *channel.Config) (*channel.Conn, error) {
			return local.Client(ctx, conn, m.platform, cfg)
		},
		Self: provision.NewSelf(channel.Core, m.platform, own.Attester), Leased: true, Every: cacheHeartbeat, Log: m.log,
		Heads: m.heads,
	}
}

// serve runs one core until ctx ends or its keys are lost. Newer manifests and
// versions of the DomainKey it takes over as it runs. One that cannot be in force
// here ends it: requests under way are answered first.
func (m *member) serve(ctx context.Context, client *provision.Client, keys *domainkey.Keyring, lost <-chan struct{}) error {
	d := m.known.Get()
	changed, state := d.Changed(), d.State()
	home, err := program.OpenHome(m.settings.Platform, m.stderr)
	if err != nil {
		return err
	}
	defer home.Close() // after everything that uses keys
	program.DescribeHome(home, m.stderr)
	c, err := newCore(m.settings, core.Config{
		Platform: m.platform, Keys: keys, Home: home, Settings: state.Settings, Manifest: state.Version, Date: d.Floor(), Clock: d.Now,
		Administrator: state.Administrator, Custodians: state.Custodians,
		Wanted: client.Want, Heard: func(p wire.Progress) { client.Self.Rewrapped(overview.Rewrap(p)) },
	})
	if err != nil {
		return err
	}
	m.heads.Attach(c.Log())
	ln, err := serve.Listen(m.settings.Listen)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- answer(ctx, m.settings, ln, c, state, m.stderr) }()
	for err == nil {
		select {
		case err = <-done:
			return err
		case <-lost:
			cancel()
			err = <-done
			m.log.Error("serves no longer", "why", fmt.Sprint(m.holder.Release()))
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		case <-c.Log().Failed():
			m.log.Error("starts again, to be shown another log of negative facts", "why", fmt.Sprint(c.Log().Ready()))
			m.pause(ctx, failedPause)
			cancel()
			if err = <-done; errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		case <-changed:
			changed = d.Changed() // before it is read, or one would be missed
			err = m.update(c, d)
		}
	}
	cancel()
	return errors.Join(err, <-done)
}

// pause waits, or for the end of ctx.
func (m *member) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// update has a core take the newest manifest.
func (m *member) update(c *core.Core, d *provision.Domain) error {
	state := d.State()
	if i, err := c.Info(context.Background()); err != nil || i.Manifest >= state.Version {
		return err
	}
	if err := c.Update(state, d.Floor()); err != nil {
		return fmt.Errorf("manifest %d cannot be in force here: %w", state.Version, err)
	}
	serving(m.stderr, state, m.settings.Listen)
	return nil
}
