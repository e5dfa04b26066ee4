package provision

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/failpoint"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
)

// Join makes an attested channel of a connection: channel.Client and Server, or
// those of package local.
type Join func(context.Context, net.Conn, *channel.Config) (*channel.Conn, error)

// A Server hands out the DomainKey that its Holder has: it is a dkeyserver or a
// dkeycache.
type Server struct {
	Role   channel.Role
	Holder *Holder
	Self   *Self
	// Domain returns the domain, nil as long as it is not known.
	Domain func() *Domain
	// Channel has what is the same for all channels; the rest is filled in.
	Channel channel.Config
	Join    Join
	Log     *slog.Logger
	// Waiting takes the machines that the manifest does not admit. nil: nobody.
	Waiting *Waiting
	// Members takes who is there. nil: a list that nobody reads.
	Members *Members
	// Heads takes what clients know of the log of negative facts. nil: they cannot be
	// asked about it.
	Heads Heads
	// Hurry, if not nil, is called when a client wants a version of the DomainKey that
	// is not here. It must not block.
	Hurry func()
	// Connections is how many may be open; the oldest whose peer is not attested yet
	// makes room for the newest. Default 1024.
	Connections int

	said said // of machines that wait
}

// Serve answers who connects to ln until ctx ends; then it closes ln and all
// connections, and returns nil.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	most := s.Connections
	if most <= 0 {
		most = 1024
	}
	if s.Members == nil {
		s.Members = NewMembers(s.Self)
	}
	room, limit := newCrowd(most), &channel.Limit{}
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
		if !room.enter(conn) {
			conn.Close()
			continue
		}
		open.Go(func() {
			defer room.leave(conn)
			s.serve(ctx, conn, limit, room)
		})
	}
}

// serve is the life of a connection.
func (s *Server) serve(ctx context.Context, conn net.Conn, limit *channel.Limit, room *crowd) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	d, err := s.introduce(conn)
	if err != nil {
		return // it has shown nothing that is worth a line in the log
	}
	cfg := s.Channel
	cfg.Role, cfg.PeerRoles, cfg.Domain, cfg.Policy, cfg.Limit = s.Role, clients(s.Role), d.State().Domain, d, limit
	changed := d.Changed()
	c, err := s.Join(ctx, conn, &cfg)
	if err != nil {
		s.refuse(d, conn, err)
		return
	}
	defer c.Close()
	room.member(conn)
	p := c.Peer()
	if failpoint.Hit("provision.joined", string(s.Role)) != nil {
		return
	}
	d.remember(p)
	s.Log.Info("peer joined", "role", p.Role, "from", conn.RemoteAddr().String(), "measurement", fmt.Sprintf("%x", p.Identity.Measurement), "platform", platformName(p))
	warnOfGrace(s.Log, p, d.Now())
	at := s.Members.arrive(p, addressOf(conn))
	err = s.answerAll(ctx, d, c, changed, at)
	at.leave(errors.Is(err, ErrRemoved) || d.admits(p.Role, p.Identity, machineOf(p)) != nil)
	if ctx.Err() == nil {
		s.Log.Info("peer left", "role", p.Role, "platform", platformName(p), "why", err.Error())
	}
}

// errAnswered ends a connection on which there is no more to come.
var errAnswered = errors.New("the state was asked for")

// introduce answers what comes before a channel, and returns when it is to begin.
func (s *Server) introduce(conn net.Conn) (*Domain, error) {
	conn.SetDeadline(time.Now().Add(answerTime))
	for range 2 {
		var ask [1]byte
		if _, err := io.ReadFull(conn, ask[:]); err != nil {
			return nil, err
		}
		d := s.Domain()
		switch {
		case ask[0] == askManifests:
			var files [][]byte
			if d != nil {
				files = d.After(0)
			}
			if _, err := conn.Write(encodeChain(files)); err != nil {
				return nil, err
			}
		case ask[0] == openChannel && d != nil:
			return d, conn.SetDeadline(time.Time{})
		case ask[0] == askState && s.Role == channel.DKeyCache:
			_, err := conn.Write(state(d, s.Holder).encode())
			return nil, errors.Join(err, errAnswered)
		default:
			return nil, ErrMessage
		}
	}
	return nil, ErrMessage
}

// refuse notes who was not let in. A machine that is not admitted comes again and
// again, and is worth a line now and then; everything else may be an attack. Chips of
// AMD are named in the log only.
func (s *Server) refuse(d *Domain, conn net.Conn, err error) {
	from := conn.RemoteAddr().String()
	x, waits := errors.AsType[*channel.Stranger](err)
	if !waits || s.said.news(x.Machine.String(), err.Error()) {
		s.Log.Warn("peer refused", "from", from, "why", err.Error())
	}
	if waits && s.Waiting != nil && x.Machine.PPID != [16]byte{} {
		s.Waiting.Add(verify.Platform{PPID: x.Machine.PPID, Serial: x.Machine.Serial}, from, d.Now())
	}
}

// answerAll answers requests until the channel ends, and returns why it did.
func (s *Server) answerAll(ctx context.Context, d *Domain, c *channel.Conn, changed <-chan struct{}, at *attendance) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go keepAttested(ctx, d, c, changed, s.Log)
	for {
		waiting, stop := context.WithTimeoutCause(ctx, silence, channel.ErrTimeout)
		b, err := c.Receive(waiting)
		stop()
		if err != nil {
			return err
		}
		m, err := decode(b)
		if err != nil {
			return err
		}
		p := c.Peer()
		last := s.admits(ctx, d, p)
		if last != nil && !errors.Is(last, ErrRemoved) {
			return last // of the platform: nobody has been taken out
		}
		var answer message
		if last != nil { // check: peer-removed
			answer = message{kind: refused, reason: removed}
		} else if answer, err = s.answer(ctx, d, c, m, at); err != nil {
			return err
		}
		sending, stop := context.WithTimeoutCause(ctx, answerTime, channel.ErrTimeout)
		err = c.Send(sending, answer.append(nil))
		stop()
		if err != nil || last != nil {
			return errors.Join(last, err)
		}
	}
}

// admits says whether a peer is still served: it must be admitted, and so must this
// program. Cores are taken out with the dkeycache of their machine and are told so;
// the clients of a dkeyserver are not, and look for another one. Errors: ErrRemoved
// if the peer is taken out.
func (s *Server) admits(ctx context.Context, d *Domain, p channel.Peer) error {
	_, err := s.Holder.current()
	if !errors.Is(err, ErrRemoved) { // as a dkeyserver has said
		err = s.Self.admitted(ctx, d)
	}
	if err != nil && !errors.Is(err, ErrRemoved) {
		return err
	}
	if err != nil { // check: server-admitted
		s.Holder.Lose(err)
		if s.Role == channel.DKeyServer {
			return fmt.Errorf("this dkeyserver is not admitted: %v", err) // not the peer
		}
		return err
	}
	return d.admits(p.Role, p.Identity, machineOf(p))
}

// answer executes one request.
func (s *Server) answer(ctx context.Context, d *Domain, c *channel.Conn, m message, at *attendance) (message, error) {
	switch m.kind {
	case heartbeat:
		d.Raise(m.report.Floor)
		at.heard(c.Peer(), m.report)
	case tellMembers:
		return s.tellBack(ctx, d, at, c.Peer(), m.members)
	case tellHeads:
		return s.hearHeads(c.Peer(), m.heads)
	case getKeys:
		if s.Hurry != nil {
			s.Hurry()
		}
		return s.sealed(c)
	case getManifests:
		return message{kind: manifests, files: fitting(d.After(m.after))}, nil
	case putManifests:
		newer, err := d.Add(m.files)
		if err != nil {
			s.Log.Warn("manifest of a peer refused", "role", c.Peer().Role, "why", err.Error())
		}
		if newer {
			s.Log.Info("newer manifest from a peer", "version", d.Manifest())
			if err := failpoint.Hit("provision.manifest", string(s.Role)); err != nil {
				return message{}, err
			}
		}
	default:
		return message{}, fmt.Errorf("%w: kind %d is no request", ErrMessage, m.kind)
	}
	return message{kind: status, report: report(d, s.Holder)}, nil
}

// sealed is the answer to getKeys.
func (s *Server) sealed(c *channel.Conn) (message, error) {
	m := message{kind: keys}
	if err := failpoint.Hit("provision.hand", string(s.Role)); err != nil {
		return m, err
	}
	err := s.Holder.Use(func(k *domainkey.Keyring) (err error) {
		exported := k.Export()
		defer exported.Zero()
		m.sealed, err = c.Seal(keysLabel, exported)
		return err
	})
	if errors.Is(err, ErrNoKeys) {
		return message{kind: refused, reason: notYet}, nil
	}
	return m, err
}

// report is what a program has.
func report(d *Domain, h *Holder) Report {
	state := d.State()
	r := Report{Manifest: state.Version, Keys: h.version(), Floor: d.Floor().Truncate(time.Second)}
	if r.Keys > 0 {
		r.Lease = h.left(time.Duration(state.Settings.Lease) * time.Hour).Truncate(time.Second)
	}
	return r
}

// keepAttested has the peer prove itself again, now and then and for each new
// manifest, until the channel or ctx ends. changed is closed by the first that is
// newer than the one under which the peer was attested.
func keepAttested(ctx context.Context, d *Domain, c *channel.Conn, changed <-chan struct{}, log *slog.Logger) {
	for {
		t := time.NewTimer(attestEvery)
		select {
		case <-changed:
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
		changed = d.Changed()
		if ctx.Err() != nil || c.Reattest(ctx) != nil {
			return
		}
		d.remember(c.Peer())
		warnOfGrace(log, c.Peer(), d.Now())
	}
}

// machineOf is the machine of a peer, nil on a local channel, where it is the own.
func machineOf(p channel.Peer) *attest.Machine {
	if p.Kind == 0 {
		return nil
	}
	return &p.Machine
}

func platformName(p channel.Peer) string {
	switch {
	case p.Decision.Platform != "":
		return p.Decision.Platform
	case p.Kind == 0:
		return "this machine"
	case p.Machine.Chip != [64]byte{}:
		return fmt.Sprintf("%x", p.Machine.Chip)
	}
	return fmt.Sprintf("%x", p.Machine.PPID)
}
