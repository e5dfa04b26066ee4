package provision

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

const (
	doorGuests = 16               // connections at a time
	doorTime   = 15 * time.Second // for a request and for its answer
)

// A Door answers the operators of a dkeyserver's machine, who see all of the domain
// and bring manifests. Whoever comes in gets nothing that is secret and changes
// nothing that operators have not signed: no security rests on who that is.
type Door struct {
	// Domain returns the domain, nil as long as it is not known.
	Domain  func() *Domain
	Holder  *Holder // its keys sign what is said
	Self    *Self
	Members *Members
	Waiting *Waiting
	Server  overview.Server // who answers
	// Facts says how far the log of negative facts goes; nil: nothing.
	Facts func() *overview.Facts
	// Recovery says what custodians could restore of a domain; nil: nothing.
	Recovery func(*manifest.State) *overview.Recovery
	// Keep writes the domain's manifests to the disk.
	Keep func(*Domain) error
	Log  *slog.Logger
}

// Serve answers who connects to ln until ctx ends; then it closes ln and all
// connections, and returns nil.
func (d *Door) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	room := make(chan struct{}, doorGuests)
	var open sync.WaitGroup
	defer open.Wait()
	defer cancel()
	for {
		conn, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			pause(ctx, 10*time.Millisecond) // too many files, say
			continue
		}
		select {
		case room <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		open.Go(func() {
			defer func() { <-room }()
			d.guest(ctx, conn)
		})
	}
}

// guest answers the requests of a connection.
func (d *Door) guest(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	for {
		conn.SetDeadline(time.Now().Add(doorTime))
		b, err := overview.ReadFrame(conn, overview.MaxRequest)
		if err != nil {
			if !errors.Is(err, io.EOF) && ctx.Err() == nil {
				d.Log.Warn("request at the door refused", "why", err.Error())
			}
			return
		}
		q, err := overview.ParseDoorRequest(b)
		if err != nil {
			d.Log.Warn("request at the door refused", "why", err.Error())
			return
		}
		a := d.answer(ctx, q)
		conn.SetDeadline(time.Now().Add(doorTime))
		if err := overview.WriteFrame(conn, a.Encode()); err != nil {
			return
		}
	}
}

// answer executes a request and signs what comes of it, if the keys are here.
func (d *Door) answer(ctx context.Context, q *overview.DoorRequest) *overview.DoorAnswer {
	a := &overview.DoorAnswer{}
	payload, err := d.execute(ctx, q)
	if err == nil && len(payload) > overview.MaxPayload {
		err = fmt.Errorf("the answer has %d bytes, limit %d", len(payload), overview.MaxPayload)
	}
	if a.Payload = payload; err != nil {
		a.Refused, a.Payload = true, []byte(overview.Cut(err.Error()))
	}
	err = d.Holder.Use(func(k *domainkey.Keyring) error {
		a.Signature = k.Sign(a.SignedText(q))
		return nil
	})
	if err != nil && !errors.Is(err, ErrNoKeys) {
		d.Log.Error("an answer at the door is not signed", "why", err.Error())
	}
	return a
}

func (d *Door) execute(ctx context.Context, q *overview.DoorRequest) ([]byte, error) {
	domain := d.Domain()
	if domain == nil {
		return nil, errors.New("this dkeyserver does not know its domain yet; it waits for its peers")
	}
	switch q.Kind {
	case overview.AskStatus:
		if len(q.Body) != 0 {
			return nil, fmt.Errorf("%w: %d trailing bytes", overview.ErrDoor, len(q.Body))
		}
		return d.status(ctx, domain).Encode()
	case overview.AskManifests:
		if len(q.Body) != 8 {
			return nil, fmt.Errorf("%w: version of %d bytes", overview.ErrDoor, len(q.Body))
		}
		return overview.AppendManifests(nil, domain.After(binary.BigEndian.Uint64(q.Body))), nil
	case overview.Submit:
		s, err := d.submit(domain, q.Body)
		if err != nil {
			return nil, err
		}
		return s.Encode()
	}
	return nil, fmt.Errorf("request %d is unknown to this release, %s", q.Kind, d.Server.Release)
}

// submit takes a manifest if it verifies. Errors: those of Domain.Add, and
// manifest.ErrVersion.
func (d *Door) submit(domain *Domain, file []byte) (*overview.Submitted, error) {
	newer, err := domain.Add([][]byte{bytes.Clone(file)})
	if errors.Is(err, manifest.ErrPrevious) { // of another domain, say
		_, err = domain.State().Next(file, domain.Now())
	}
	if err != nil {
		d.Log.Warn("manifest at the door refused", "why", err.Error())
		return nil, err
	}
	s := domain.State()
	if !newer {
		m, err := manifest.Parse(file)
		if err != nil || m.Hash() != s.Hash {
			return nil, fmt.Errorf("%w: version %d is in force", manifest.ErrVersion, s.Version)
		}
	}
	out := &overview.Submitted{Version: s.Version, Hash: s.Hash, New: newer}
	if newer {
		d.Log.Info("manifest in force", "version", s.Version, "from", "the door")
	}
	if err := d.Keep(domain); err != nil {
		out.Unwritten = overview.Cut(err.Error())
	}
	return out, nil
}

// status is what is known of the domain now.
func (d *Door) status(ctx context.Context, domain *Domain) *overview.Status {
	state := domain.State()
	s := &overview.Status{
		Format: overview.Format, At: whole(domain.Now()), Server: d.Server,
		Domain: overview.Domain{
			ID: manifest.Hash(state.Domain), Mode: state.Settings.Mode, Root: state.Root, AllowSim: state.Settings.AllowSim,
			AnyPlatform: state.Settings.AnyPlatform, HSMWithoutTEE: state.Settings.HSMWithoutTEE, LeaseHours: state.Settings.Lease,
		},
		Manifest: overview.Manifest{
			Version: state.Version, Date: state.Date, Hash: state.Hash, Signers: domain.signers(),
			Operators: names(&state.Operators), Threshold: state.Operators.Threshold, Since: whole(domain.taken()),
		},
		Key:      overview.Key{Version: d.Holder.version(), InMemory: !tee.Seals(d.Self.platform)},
		Machines: state.Settings.Platforms,
	}
	if _, why := d.Holder.current(); why != nil {
		s.Key.Lost = overview.Cut(why.Error())
	}
	s.Members = append([]overview.Member{d.Self.member(ctx, domain, d.Holder)}, d.Members.list(overview.ID{})...)
	for i := range s.Members {
		domain.revise(&s.Members[i])
	}
	if d.Facts != nil {
		s.Facts = d.Facts()
	}
	if d.Recovery != nil {
		s.Recovery = d.Recovery(state)
	}
	s.Waiting = d.Waiting.List()
	for i := range s.Waiting {
		s.Waiting[i].Was = domain.wasNamed(s.Waiting[i].PPID, s.Waiting[i].Serial)
	}
	return s
}

func names(q *manifest.Quorum) (all []string) {
	for _, p := range q.Members {
		all = append(all, p.Name)
	}
	return all
}

// revise has a member be as the newest manifest sees it: one that was away when it
// was removed was not told.
func (d *Domain) revise(m *overview.Member) {
	if name := machineName(d.State(), m.PPID, m.Serial); name != "" {
		m.Machine = name
	}
	id := tee.Identity{Measurement: m.MREnclave, Signer: m.MRSigner, Product: m.Product, SVN: m.SVN, Debug: m.Debug}
	var machine *attest.Machine
	if m.PPID != (manifest.PPID{}) {
		machine = &attest.Machine{PPID: m.PPID, Serial: m.Serial}
	}
	if m.State == overview.Left && d.admits(channel.Role(m.Role), id, machine) != nil {
		m.State = overview.Removed
	}
}

// signers names the operators whose signatures are on the newest manifest.
func (d *Domain) signers() (all []string) {
	d.mu.Lock()
	last := len(d.files) - 1
	file, operators := d.files[last], &d.states[max(last-1, 0)].Operators
	d.mu.Unlock()
	m, err := manifest.Parse(file)
	if err != nil {
		return nil // from before there were manifests
	}
	for _, sig := range m.Signatures {
		if p, ok := operators.Member(sig.Key); ok {
			all = append(all, p.Name)
		}
	}
	return all
}

// wasNamed is what the last manifest that had a machine called it; empty if none
// had.
func (d *Domain) wasNamed(ppid manifest.PPID, serial string) string {
	d.mu.Lock()
	states := d.states
	d.mu.Unlock()
	for i := len(states) - 1; i >= 0; i-- {
		if name := machineName(states[i], ppid, serial); name != "" {
			return name
		}
	}
	return ""
}

// Names reports whether the newest manifest admits a machine.
func (d *Domain) Names(ppid manifest.PPID, serial string) bool {
	s := d.State()
	return s.Settings.AnyPlatform || machineName(s, ppid, serial) != ""
}
