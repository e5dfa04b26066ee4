package provision

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel/local"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/facts"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// start is when the tests take place.
var start = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func clock() time.Time { return start }

var (
	signerSeed   = bytes.Repeat([]byte{7}, 32)
	strangerSeed = bytes.Repeat([]byte{8}, 32)
)

// machines are two of one fleet, made once: nothing changes them. Those of another
// process are where a benchmark says.
var machines = sync.OnceValues(func() ([2]*sim.Processor, error) {
	var all [2]*sim.Processor
	dir, shared := os.LookupEnv(benchMachines)
	if !shared {
		var err error
		if dir, err = os.MkdirTemp("", "provision"); err != nil {
			return all, err
		}
		defer os.RemoveAll(dir)
	}
	for i, name := range []string{"one", "two"} {
		o := sim.Options{Fleet: filepath.Join(dir, "fleet"), Now: start.AddDate(-1, 0, 0)}
		var err error
		if all[i], err = sim.OpenProcessor(filepath.Join(dir, name), o); err != nil {
			return all, err
		}
	}
	return all, nil
})

func machine(t testing.TB, i int) *sim.Processor {
	t.Helper()
	all, err := machines()
	if err != nil {
		t.Fatal(err)
	}
	return all[i]
}

func ppid(t testing.TB, i int) manifest.PPID {
	return manifest.PPID(machine(t, i).Terms(start).Platform.PPID)
}

// load runs the program of a role on a machine.
func load(t testing.TB, i int, r channel.Role, seed []byte) *sim.Machine {
	t.Helper()
	measurement := sha256.Sum256([]byte(r))
	s, err := sim.Sign(secret.Copy(seed), measurement, r.Product(), 1, false)
	if err != nil {
		t.Fatal(err)
	}
	m, err := machine(t, i).Load(sim.Program{Measurement: measurement, Signature: &s}, r.Product(), 1)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A realm is a domain with its operator.
type realm struct {
	dir      string
	operator crypto.Signer
	files    [][]byte
	last     *manifest.State
}

var roles = []channel.Role{channel.Core, channel.DKeyCache, channel.DKeyServer}

// newRealm makes a domain that admits the signed programs of all roles on both
// machines.
func newRealm(t testing.TB) *realm {
	t.Helper()
	s := manifest.Defaults(manifest.Development)
	s.AllowSim, s.SimRoot = true, machine(t, 0).Root().Raw
	for _, r := range roles {
		s.Code = append(s.Code, manifest.Code{Role: string(r), MRSigner: load(t, 0, r, signerSeed).Identity().Signer, Product: r.Product(), MinSVN: 1})
	}
	s.Platforms = []manifest.Platform{{Name: "one", PPID: ppid(t, 0)}, {Name: "two", PPID: ppid(t, 1)}}
	draft, operator, err := manifest.ThrowAway(s)
	if err != nil {
		t.Fatal(err)
	}
	a := &realm{dir: filepath.Join(t.TempDir(), "domain"), operator: operator}
	if err := domainkey.Create(a.dir, load(t, 0, channel.DKeyServer, signerSeed), draft, start.AddDate(0, -1, 0), operator); err != nil {
		t.Fatal(err)
	}
	if a.files, err = domainkey.Files(a.dir); err != nil {
		t.Fatal(err)
	}
	if a.last, err = manifest.Open(a.files[0]); err != nil {
		t.Fatal(err)
	}
	return a
}

// follow signs a manifest that follows s.
func (a *realm) follow(t testing.TB, s *manifest.State, edit func(*manifest.Statement)) []byte {
	t.Helper()
	m, err := s.Follow(start)
	if err != nil {
		t.Fatal(err)
	}
	m.Statement.Date = s.Date
	m.Statement.Settings.Code = append([]manifest.Code(nil), s.Settings.Code...)
	m.Statement.Settings.Platforms = append([]manifest.Platform(nil), s.Settings.Platforms...)
	if edit != nil {
		edit(&m.Statement)
	}
	if err := m.Sign(a.operator); err != nil {
		t.Fatal(err)
	}
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// next makes the realm's next manifest.
func (a *realm) next(t testing.TB, edit func(*manifest.Statement)) []byte {
	t.Helper()
	b := a.follow(t, a.last, edit)
	var err error
	if a.last, err = a.last.Next(b, start); err != nil {
		t.Fatal(err)
	}
	a.files = append(a.files, b)
	return b
}

func (a *realm) open(t testing.TB) *Domain {
	t.Helper()
	d, err := OpenDomain(a.last.Domain, a.files, clock)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func heap() (*secret.Home, error) { return secret.NewHeap(), nil }

// rooted is a Holder with the realm's key.
func (a *realm) rooted(t testing.TB) *Holder {
	t.Helper()
	h := NewHolder(heap)
	err := h.Fill(func(home *secret.Home) (*domainkey.Keyring, error) {
		return domainkey.Unseal(a.dir, load(t, 0, channel.DKeyServer, signerSeed), home, a.last)
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// A program is one that takes part.
type program struct {
	role    channel.Role
	machine *sim.Machine
	holder  *Holder
	known   *Known
	log     *slog.Logger
	waiting *Waiting
	self    *Self
	members *Members
	heads   Heads

	connections int // of its server; 0: the default
}

func newProgram(t testing.TB, i int, r channel.Role, known *Known, h *Holder) *program {
	p := &program{role: r, machine: load(t, i, r, signerSeed), holder: h, known: known, log: slog.New(slog.DiscardHandler), waiting: NewWaiting()}
	p.self = NewSelf(r, p.machine, p.machine)
	if r == channel.Core {
		p.self = NewSelf(r, p.machine, nil)
	}
	p.members = NewMembers(p.self)
	p.heads = facts.NewAnchor(facts.Head{})
	return p
}

// knowing is a Known that has learned of a realm.
func (a *realm) knowing(t testing.TB) *Known {
	t.Helper()
	k := NewKnown(a.last.Domain, clock)
	if _, err := k.Learn(a.files); err != nil {
		t.Fatal(err)
	}
	return k
}

func (p *program) channel(t testing.TB) channel.Config {
	t.Helper()
	c, err := p.machine.Collateral(start)
	if err != nil {
		t.Fatal(err)
	}
	encoded := c.Append(nil)
	return channel.Config{Attester: p.machine, Collateral: func(context.Context) ([]byte, error) { return encoded, nil }}
}

// serve starts the program's server and returns its address.
func (p *program) serve(t testing.TB) string {
	t.Helper()
	return p.serveWith(t, func(*Server) {})
}

// serveWith is serve with a server that edit has changed.
func (p *program) serveWith(t testing.TB, edit func(*Server)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	s := &Server{Role: p.role, Holder: p.holder, Domain: p.known.Get, Channel: p.channel(t), Log: p.log, Waiting: p.waiting, Join: channel.Server, Self: p.self, Members: p.members, Connections: p.connections, Heads: p.heads}
	if p.role == channel.DKeyCache {
		s.Join = func(ctx context.Context, conn net.Conn, cfg *channel.Config) (*channel.Conn, error) {
			return local.Server(ctx, conn, p.machine, cfg)
		}
	}
	edit(s)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// client is the program's, of servers.
func (p *program) client(t testing.TB, servers ...string) *Client {
	c := &Client{
		Role: p.role, Holder: p.holder, Domain: p.known, Channel: p.channel(t), Join: channel.Client, Servers: servers,
		Dial: func(ctx context.Context, server string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", server)
		},
		Self: p.self, Members: p.members, Leased: true, Every: 20 * time.Millisecond, Log: p.log, Heads: p.heads,
	}
	if p.role == channel.Core {
		c.Channel.Attester = nil
		c.Join = func(ctx context.Context, conn net.Conn, cfg *channel.Config) (*channel.Conn, error) {
			return local.Client(ctx, conn, p.machine, cfg)
		}
	}
	return c
}

// join runs the program's client until the test ends.
func (p *program) join(t testing.TB, servers ...string) {
	t.Helper()
	c := p.client(t, servers...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		c.Run(ctx)
		close(done)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// has waits for the keys and checks that they are the realm's.
func (p *program) has(t testing.TB, a *realm) (lost <-chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	k, lost, err := p.holder.Wait(ctx)
	if err != nil {
		t.Fatalf("%s has no DomainKey: %v", p.role, err)
	}
	if k.Domain() != genesis.ID(a.last.Domain) {
		t.Errorf("%s has that of %s", p.role, k.Domain())
	}
	return lost
}

// await waits for a condition, of which events tell.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("waited for: %s", what)
		}
	}
}
