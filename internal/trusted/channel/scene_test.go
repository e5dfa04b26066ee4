package channel_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
)

// A world is two machines of one fleet, a third of another, and the signers.
type world struct {
	one, two, foreign *sim.Processor
	now               time.Time
}

var (
	theDomain    = [32]byte{'d', 'o', 'm', 'a', 'i', 'n'}
	otherDomain  = [32]byte{'o', 't', 'h', 'e', 'r'}
	signerSeed   = bytes.Repeat([]byte{7}, 32)
	strangerSeed = bytes.Repeat([]byte{8}, 32)
)

// theWorld is made once: nothing changes it.
var theWorld = sync.OnceValues(func() (*world, error) {
	dir, err := os.MkdirTemp("", "channel")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	w := &world{now: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)}
	for _, m := range []struct {
		at          **sim.Processor
		name, fleet string
	}{{&w.one, "one", "fleet"}, {&w.two, "two", "fleet"}, {&w.foreign, "three", "foreign"}} {
		o := sim.Options{Fleet: filepath.Join(dir, m.fleet), Now: w.now.AddDate(-1, 0, 0)}
		if *m.at, err = sim.OpenProcessor(filepath.Join(dir, m.name), o); err != nil {
			return nil, err
		}
	}
	return w, nil
})

func newWorld(t testing.TB) *world {
	t.Helper()
	w, err := theWorld()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// A build is a program of a role.
type build struct {
	role  channel.Role
	seed  []byte // default signerSeed
	svn   uint16 // default 2
	debug bool
}

// load runs a build on a machine.
func load(t testing.TB, p *sim.Processor, b build) *sim.Machine {
	t.Helper()
	if b.seed == nil {
		b.seed = signerSeed
	}
	if b.svn == 0 {
		b.svn = 2
	}
	measurement := sha256.Sum256([]byte(b.role))
	s, err := sim.Sign(secret.Copy(b.seed), measurement, b.role.Product(), b.svn, b.debug)
	if err != nil {
		t.Fatal(err)
	}
	m, err := p.Load(sim.Program{Measurement: measurement, Signature: &s}, b.role.Product(), b.svn)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// policy is a manifest's worth of it.
type policy struct {
	now      time.Time
	roots    []*x509.Certificate
	accepts  map[channel.Role]*validate.Policy
	admitted bool
	manifest atomic.Uint64

	mu sync.Mutex
}

func (p *policy) Now() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

func (p *policy) set(f func(*policy)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

func (p *policy) Roots() []*x509.Certificate { return p.roots }

func (p *policy) Accepts(r channel.Role) *validate.Policy {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepts[r]
}
func (p *policy) Admitted(verify.Platform) bool { return p.admitted }
func (p *policy) Manifest() uint64              { return p.manifest.Load() }

func platformOf(t testing.TB, p *sim.Processor, now time.Time) verify.Platform {
	return p.Terms(now).Platform
}

// newPolicy accepts the signed programs of all roles on both machines.
func newPolicy(t testing.TB, w *world) *policy {
	p := &policy{now: w.now, roots: []*x509.Certificate{w.one.Root()}, accepts: map[channel.Role]*validate.Policy{}}
	for _, r := range []channel.Role{channel.Core, channel.DKeyCache, channel.DKeyServer} {
		p.accepts[r] = &validate.Policy{
			AllowSim: true,
			Enclaves: []validate.Enclave{{Name: string(r), MRSigner: load(t, w.one, build{role: r}).Identity().Signer, ISVProdID: r.Product(), MinISVSVN: 2}},
			Platforms: []validate.Platform{
				{Name: "one", PPID: platformOf(t, w.one, w.now).PPID}, {Name: "two", PPID: platformOf(t, w.two, w.now).PPID},
			},
		}
	}
	p.manifest.Store(1)
	return p
}

func encoded(t testing.TB, p *sim.Processor, terms issue.Terms) []byte {
	t.Helper()
	c, err := p.Issue(terms)
	if err != nil {
		t.Fatal(err)
	}
	return c.Append(nil)
}

// config is that of a program of a role on a machine.
func config(t testing.TB, w *world, p *sim.Processor, role channel.Role, peers ...channel.Role) (*channel.Config, *policy) {
	t.Helper()
	pol := newPolicy(t, w)
	collateral := encoded(t, p, p.Terms(w.now))
	return &channel.Config{
		Role: role, PeerRoles: peers, Domain: theDomain, Policy: pol, Attester: load(t, p, build{role: role}),
		Collateral: func(context.Context) ([]byte, error) { return collateral, nil },
	}, pol
}

// A result is how a handshake ended.
type result struct {
	conn *channel.Conn
	err  error
}

// handshake runs both sides over a pipe and returns how each ended.
func handshake(ctx context.Context, client, server *channel.Config) (c, s result) {
	a, b := net.Pipe()
	done := make(chan result)
	go func() {
		conn, err := channel.Server(ctx, b, server)
		done <- result{conn, err}
	}()
	c.conn, c.err = channel.Client(ctx, a, client)
	return c, <-done
}

// join is handshake for those that must succeed.
func join(t testing.TB, client, server *channel.Config) (c, s *channel.Conn) {
	t.Helper()
	rc, rs := handshake(t.Context(), client, server)
	if rc.err != nil || rs.err != nil {
		t.Fatalf("handshake: client %v, server %v", rc.err, rs.err)
	}
	t.Cleanup(func() {
		go rs.conn.Close()
		rc.conn.Close()
		rs.conn.Close()
	})
	return rc.conn, rs.conn
}
