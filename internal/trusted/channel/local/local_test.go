package local_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel/local"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
)

var (
	theDomain = [32]byte{'d', 'o', 'm', 'a', 'i', 'n'}
	signer    = [32]byte{7}
	stranger  = [32]byte{8}
	now       = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
)

// machines are two of one fleet.
var machines = sync.OnceValues(func() (all [2]*sim.Processor, err error) {
	dir, err := os.MkdirTemp("", "local")
	if err != nil {
		return all, err
	}
	defer os.RemoveAll(dir)
	for n, name := range []string{"one", "two"} {
		o := sim.Options{Fleet: filepath.Join(dir, "fleet"), Now: now.AddDate(-1, 0, 0)}
		if all[n], err = sim.OpenProcessor(filepath.Join(dir, name), o); err != nil {
			return all, err
		}
	}
	return all, nil
})

// load runs a program of a role on a machine.
func load(t testing.TB, machine int, role channel.Role, seed [32]byte, svn uint16, debug bool) *sim.Machine {
	t.Helper()
	all, err := machines()
	if err != nil {
		t.Fatal(err)
	}
	measurement := sha256.Sum256([]byte(role))
	s, err := sim.Sign(secret.Copy(seed[:]), measurement, role.Product(), svn, debug)
	if err != nil {
		t.Fatal(err)
	}
	m, err := all[machine].Load(sim.Program{Measurement: measurement, Signature: &s}, role.Product(), svn)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

type policy map[channel.Role]*validate.Policy

func (policy) Now() time.Time                            { return now }
func (p policy) Accepts(r channel.Role) *validate.Policy { return p[r] }
func (policy) Admitted(verify.Platform) bool             { return false }
func (policy) Manifest() uint64                          { return 1 }
func (policy) Roots() []*x509.Certificate {
	all, _ := machines()
	return []*x509.Certificate{all[0].Root()}
}

// An end is one side of a scene.
type end struct {
	platform tee.Platform
	cfg      channel.Config
	policy   policy
}

// A scene is a core, which calls, and the dkeycache of its node.
type scene struct{ core, cache end }

func newScene(t testing.TB) *scene {
	s := new(scene)
	for _, e := range []struct {
		at          *end
		role, peers channel.Role
	}{{&s.core, channel.Core, channel.DKeyCache}, {&s.cache, channel.DKeyCache, channel.Core}} {
		m := load(t, 0, e.role, signer, 2, false)
		e.at.platform = m
		e.at.policy = policy{e.peers: {AllowSim: true, Enclaves: []validate.Enclave{{Name: "it", MRSigner: m.Identity().Signer, ISVProdID: e.peers.Product(), MinISVSVN: 2}}}}
		e.at.cfg = channel.Config{Role: e.role, PeerRoles: []channel.Role{e.peers}, Domain: theDomain, Policy: e.at.policy}
	}
	return s
}

// play runs both ends, over a connection that the middle may have its hands in.
func (s *scene) play(middle func(a, b net.Conn)) (core, cache *channel.Conn, coreErr, cacheErr error) {
	a, b := net.Pipe()
	if middle != nil {
		am, bm := b, net.Conn(nil)
		bm, b = net.Pipe()
		go middle(am, bm)
	}
	var ends sync.WaitGroup
	ends.Go(func() { cache, cacheErr = local.Server(context.Background(), b, s.cache.platform, &s.cache.cfg) })
	core, coreErr = local.Client(context.Background(), a, s.core.platform, &s.core.cfg)
	ends.Wait()
	return core, cache, coreErr, cacheErr
}

func closeAll(all ...*channel.Conn) {
	var closing sync.WaitGroup
	for _, c := range all {
		if c != nil {
			closing.Go(func() { c.Close() })
		}
	}
	closing.Wait()
}

func TestLocal(t *testing.T) {
	s := newScene(t)
	core, cache, err1, err2 := s.play(nil)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	defer closeAll(core, cache)
	p := core.Peer()
	if p.Role != channel.DKeyCache || p.Identity != s.cache.platform.Identity() || p.Quote != nil || !p.Until.IsZero() || p.Decision.Enclave != "it" {
		t.Errorf("Peer: got %+v", p)
	}
	dk := secret.Copy(make([]byte, 32))
	sealed, err := cache.Seal("dk", dk)
	if err != nil {
		t.Fatal(err)
	}
	go cache.Send(t.Context(), sealed)
	m, err := core.Receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := core.Open("dk", m); err != nil || !got.Equal(dk) {
		t.Errorf("Open: %v", err)
	}
	if err := core.Reattest(t.Context()); err != nil {
		t.Errorf("Reattest by the core: %v", err)
	}
	if err := cache.Reattest(t.Context()); err != nil {
		t.Errorf("Reattest by the dkeycache: %v", err)
	}
}

// A liar is a program of a machine that makes reports as it likes. The platform
// still signs them.
type liar struct {
	*sim.Machine
	target func() ([]byte, error)
	report func(target []byte, reportData [64]byte) ([]byte, error)
}

func (l liar) Target() ([]byte, error) {
	if l.target != nil {
		return l.target()
	}
	return l.Machine.Target()
}

func (l liar) Report(target []byte, d [64]byte) ([]byte, error) {
	if l.report != nil {
		return l.report(target, d)
	}
	return l.Machine.Report(target, d)
}

// remoteOnly is a platform without local reports.
type remoteOnly struct{ tee.Platform }

func (s *scene) with(f func(l *liar)) {
	l := liar{Machine: s.core.platform.(*sim.Machine)}
	f(&l)
	s.core.platform = l
}

// refusals are what the core does wrong, and what the dkeycache then finds.
var refusals = []struct {
	name   string
	change func(*testing.T, *scene)
	want   error
}{
	{"another machine", func(t *testing.T, s *scene) { s.core.platform = load(t, 1, channel.Core, signer, 2, false) }, tee.ErrEvidence},
	{"a debug build", func(t *testing.T, s *scene) { s.core.platform = load(t, 0, channel.Core, signer, 2, true) }, validate.ErrDebug},
	{"a build of a stranger", func(t *testing.T, s *scene) { s.core.platform = load(t, 0, channel.Core, stranger, 2, false) }, validate.ErrEnclave},
	{"a build that is too old", func(t *testing.T, s *scene) { s.core.platform = load(t, 0, channel.Core, signer, 1, false) }, validate.ErrSVN},
	{"a program of another role", func(t *testing.T, s *scene) { s.core.platform = load(t, 0, channel.DKeyServer, signer, 2, false) }, validate.ErrEnclave},
	{"a program of another role that a careless policy admits", func(t *testing.T, s *scene) {
		s.core.platform = load(t, 0, channel.DKeyServer, signer, 2, false)
		s.cache.policy[channel.Core].Enclaves[0].MREnclave = s.core.platform.Identity().Measurement
	}, channel.ErrEvidence},
	{"another domain", func(_ *testing.T, s *scene) { s.core.cfg.Domain = [32]byte{1} }, channel.ErrPeer},
	{"a role that is not wanted", func(_ *testing.T, s *scene) { s.core.cfg.Role = channel.DKeyServer }, channel.ErrPeer},
	{"a role without a policy", func(_ *testing.T, s *scene) { delete(s.cache.policy, channel.Core) }, channel.ErrEvidence},
	{"an empty policy", func(_ *testing.T, s *scene) { s.cache.policy[channel.Core] = &validate.Policy{AllowSim: true} }, validate.ErrEnclave},
	{"a simulated platform", func(_ *testing.T, s *scene) { s.cache.policy[channel.Core].AllowSim = false }, validate.ErrSimulated},
	{"a report for something else", func(_ *testing.T, s *scene) {
		s.with(func(l *liar) {
			l.report = func(target []byte, _ [64]byte) ([]byte, error) { return l.Machine.Report(target, [64]byte{}) }
		})
	}, local.ErrReportData},
	{"a report with the label of quotes", func(_ *testing.T, s *scene) {
		s.with(func(l *liar) {
			l.report = func(target []byte, _ [64]byte) ([]byte, error) {
				return l.Machine.Report(target, attest.ReportData(attest.UseChannel, theDomain, []byte("core")))
			}
		})
	}, local.ErrReportData},
	{"a report for another program", func(t *testing.T, s *scene) {
		other, _ := load(t, 0, channel.DKeyServer, signer, 2, false).Target()
		s.with(func(l *liar) {
			l.report = func(_ []byte, d [64]byte) ([]byte, error) { return l.Machine.Report(other, d) }
		})
	}, tee.ErrEvidence},
	{"a quote", func(_ *testing.T, s *scene) {
		s.with(func(l *liar) {
			l.report = func(_ []byte, d [64]byte) ([]byte, error) {
				e, err := l.Machine.Evidence(context.Background(), d)
				return e.Append(nil), err
			}
		})
	}, tee.ErrEvidence},
	{"a report cut short", func(_ *testing.T, s *scene) {
		s.with(func(l *liar) {
			l.report = func(target []byte, d [64]byte) ([]byte, error) {
				b, err := l.Machine.Report(target, d)
				return b[:len(b)-1], err
			}
		})
	}, tee.ErrEvidence},
	{"a forged report", func(_ *testing.T, s *scene) {
		s.with(func(l *liar) {
			l.report = func(target []byte, d [64]byte) ([]byte, error) {
				b, err := l.Machine.Report(target, d)
				b[len(b)-1] ^= 1
				return b, err
			}
		})
	}, tee.ErrEvidence},
	{"no report", func(_ *testing.T, s *scene) {
		s.with(func(l *liar) { l.report = func([]byte, [64]byte) ([]byte, error) { return nil, nil } })
	}, tee.ErrEvidence},
	{"no target", func(_ *testing.T, s *scene) {
		s.with(func(l *liar) { l.target = func() ([]byte, error) { return nil, nil } })
	}, tee.ErrEvidence},
	{"a target over the limit", func(_ *testing.T, s *scene) {
		s.with(func(l *liar) { l.target = func() ([]byte, error) { return make([]byte, 1025), nil } })
	}, channel.ErrProtocol},
	{"the remote protocol", func(t *testing.T, s *scene) {
		s.core.cfg.Attester = s.core.platform.(*sim.Machine)
		s.core.platform = remoteOnly{s.core.platform}
	}, channel.ErrTLS},
}

func TestRefusals(t *testing.T) {
	for _, row := range refusals {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t)
				row.change(t, s)
				core, cache, coreErr, cacheErr := s.play(nil)
				if !errors.Is(cacheErr, row.want) || coreErr == nil || core != nil || cache != nil {
					t.Errorf("got %v, want %v; the core: %v", cacheErr, row.want, coreErr)
				}
			})
		})
	}
}

// TestCoreJudgesTheCache shows that the other side judges too.
func TestCoreJudgesTheCache(t *testing.T) {
	for name, m := range map[string]*sim.Machine{
		"another machine":    load(t, 1, channel.DKeyCache, signer, 2, false),
		"a debug build":      load(t, 0, channel.DKeyCache, signer, 2, true),
		"another role":       load(t, 0, channel.DKeyServer, signer, 2, false),
		"a stranger's build": load(t, 0, channel.DKeyCache, stranger, 2, false),
		"a build too old":    load(t, 0, channel.DKeyCache, signer, 1, false),
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newScene(t)
			s.cache.platform = m
			_, _, coreErr, cacheErr := s.play(nil)
			if coreErr == nil || cacheErr == nil {
				t.Errorf("%s: got %v and %v, want two errors", name, coreErr, cacheErr)
			}
			if name != "another machine" && !errors.Is(coreErr, channel.ErrEvidence) {
				t.Errorf("%s: got %v, want ErrEvidence", name, coreErr)
			}
		})
	}
}

// TestRelayed ends TLS on both sides and relays the reports between two programs
// of one machine.
func TestRelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		_, _, coreErr, cacheErr := s.play(func(a, b net.Conn) {
			x, y := tls.Server(a, middleTLS(t)), tls.Client(b, middleTLS(t))
			go func() { io.Copy(y, x); y.Close(); b.Close() }()
			io.Copy(x, y)
			x.Close()
			a.Close()
		})
		if !errors.Is(cacheErr, local.ErrReportData) || coreErr == nil {
			t.Errorf("got %v and %v, want both to refuse", coreErr, cacheErr)
		}
	})
}

func middleTLS(t *testing.T) *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(2)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{local.Protocol},
		InsecureSkipVerify: true, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13,
	}
}

// TestWithoutLocalReports runs the remote protocol on a platform that has none.
func TestWithoutLocalReports(t *testing.T) {
	s := newScene(t)
	for _, e := range []*end{&s.core, &s.cache} {
		m := e.platform.(*sim.Machine)
		collateral, err := m.Collateral(now)
		if err != nil {
			t.Fatal(err)
		}
		e.platform, e.cfg.Attester = remoteOnly{m}, m
		e.cfg.Collateral = func(context.Context) ([]byte, error) { return collateral.Append(nil), nil }
		for _, p := range e.policy {
			p.AnyPlatform = true
		}
	}
	core, cache, err1, err2 := s.play(nil)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	defer closeAll(core, cache)
	if core.Peer().Quote == nil {
		t.Error("Peer has no quote")
	}
}

func TestNoAttester(t *testing.T) {
	s := newScene(t)
	s.core.platform, s.cache.platform = remoteOnly{s.core.platform}, remoteOnly{s.cache.platform}
	if _, _, err1, err2 := s.play(nil); !errors.Is(err1, channel.ErrConfig) || !errors.Is(err2, channel.ErrConfig) {
		t.Errorf("got %v and %v, want ErrConfig", err1, err2)
	}
}
