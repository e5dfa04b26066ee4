package acceptance

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/acceptance"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
)

// platform is all that a platform may have. Its parts are replaced to break it.
type platform interface {
	tee.Platform
	tee.Attester
	tee.LocalReporter
}

func machine(t *testing.T, dir string) platform {
	t.Helper()
	m, err := sim.Open(dir, tee.ProductCore, 1)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func configOf(p tee.Platform) Config {
	return Config{
		Platform: p, Product: tee.ProductCore, SVN: 1, Version: "test",
		Entropy: func() error { return nil }, Now: time.Now,
	}
}

func request(seals ...acceptance.Seal) *acceptance.Request {
	return &acceptance.Request{
		Format: acceptance.RequestFormat, Nonce: bytes.Repeat([]byte{7}, acceptance.NonceSize),
		Each: time.Microsecond, Memory: 1, Seals: seals,
	}
}

func mustRun(t *testing.T, c Config, q *acceptance.Request) *acceptance.Statement {
	t.Helper()
	s, err := Run(t.Context(), c, q)
	if err != nil {
		t.Fatal(err)
	}
	again, err := acceptance.DecodeStatement(s.Encode())
	if err != nil {
		t.Fatalf("a statement does not decode: %v", err)
	}
	return again
}

func outcome(s *acceptance.Statement, name acceptance.Name) acceptance.Check {
	c, _ := s.Result.Check(name)
	return c
}

func TestGoodPlatform(t *testing.T) {
	dir := t.TempDir() + "/sim"
	first := mustRun(t, configOf(machine(t, dir)), request())
	second := mustRun(t, configOf(machine(t, dir)), request(first.Result.Seals...))
	if len(first.Result.Seals) != 2 || len(second.Result.Opened) != 2 || len(second.Result.Throughput) == 0 {
		t.Errorf("got %d seals, %d opened, %d rates", len(first.Result.Seals), len(second.Result.Opened), len(second.Result.Throughput))
	}
	if c := outcome(first, acceptance.Restart); c.Outcome != "" {
		t.Errorf("the first run opened seals of none before: %+v", c)
	}
	for _, s := range []*acceptance.Statement{first, second} {
		if err := s.CheckSignature(); err != nil || s.Kind != "SGX quote v3" && s.Kind == "" || len(s.Evidence) == 0 {
			t.Errorf("statement: %v, evidence %q: %s", err, s.Kind, s.Problem)
		}
		for _, c := range s.Result.Checks {
			if c.Outcome != acceptance.Pass {
				t.Errorf("%s: got %s, %s", c.Name, c.Outcome, c.Detail)
			}
		}
	}
	if len(second.Result.Checks) != 9 {
		t.Errorf("the second run has %d checks, want 9", len(second.Result.Checks))
	}
}

// bare has nothing that a platform may lack.
type bare struct{ tee.Platform }

func (bare) SealKey(tee.KeyRequest) (secret.Bytes, error) { return secret.Bytes{}, tee.ErrNoSealKey }

func TestBarePlatform(t *testing.T) {
	s := mustRun(t, configOf(bare{machine(t, t.TempDir()+"/sim")}), request())
	for _, name := range []acceptance.Name{acceptance.Evidence, acceptance.SealKeys, acceptance.LocalReport} {
		if c := outcome(s, name); c.Outcome != acceptance.NotAvailable {
			t.Errorf("%s: got %+v, want not available", name, c)
		}
	}
	if s.Problem == "" || s.Kind != "" || len(s.Evidence) > 0 {
		t.Errorf("evidence out of nothing: %+v", s)
	}
}

// broken is a platform with parts replaced.
type broken struct {
	platform
	identity tee.Identity
	seal     func(tee.KeyRequest) (secret.Bytes, error)
	evidence func(context.Context, [64]byte) (attest.Evidence, error)
	target   func() ([]byte, error)
	report   func([]byte, [64]byte) ([]byte, error)
	verify   func([]byte) (tee.Identity, [64]byte, error)
}

func (b *broken) Identity() tee.Identity                                { return b.identity }
func (b *broken) SealKey(q tee.KeyRequest) (secret.Bytes, error)        { return b.seal(q) }
func (b *broken) Target() ([]byte, error)                               { return b.target() }
func (b *broken) Report(t []byte, d [64]byte) ([]byte, error)           { return b.report(t, d) }
func (b *broken) VerifyReport(r []byte) (tee.Identity, [64]byte, error) { return b.verify(r) }
func (b *broken) Evidence(ctx context.Context, d [64]byte) (attest.Evidence, error) {
	return b.evidence(ctx, d)
}

var errBroken = errors.New("it is broken")

func fixedKey(b byte) secret.Bytes { return secret.New(append(bytes.Repeat([]byte{b}, 31), 0)) }

// TestBrokenPlatforms breaks one thing at a time; the check that is about it must
// say so, and no other.
func TestBrokenPlatforms(t *testing.T) {
	good := machine(t, t.TempDir()+"/sim")
	sealed := mustRun(t, configOf(good), request()).Result.Seals
	// unless answers requests that differ from an honest one in one thing as if
	// they did not.
	unless := func(change func(*tee.KeyRequest)) func(*broken, *Config) {
		return func(b *broken, _ *Config) {
			b.seal = func(q tee.KeyRequest) (secret.Bytes, error) { change(&q); return good.SealKey(q) }
		}
	}
	for _, row := range []struct {
		name  string
		check acceptance.Name
		text  string
		brk   func(*broken, *Config)
	}{
		{"zero measurement", acceptance.Identity, "measurement is zero", func(b *broken, _ *Config) { b.identity.Measurement = [32]byte{} }},
		{"debug", acceptance.Identity, "debug TEE", func(b *broken, _ *Config) { b.identity.Debug = true }},
		{"other product", acceptance.Identity, "this program is product 2", func(_ *broken, c *Config) { c.Product = 2 }},
		{"other version", acceptance.Identity, "signed as product", func(_ *broken, c *Config) { c.SVN = 2 }},
		{"randomness", acceptance.Randomness, "cannot be trusted", func(_ *broken, c *Config) { c.Entropy = func() error { return tee.ErrEntropy } }},
		{"no quoting enclave", acceptance.Evidence, "it is broken", func(b *broken, _ *Config) {
			b.evidence = func(context.Context, [64]byte) (attest.Evidence, error) { return attest.Evidence{}, errBroken }
		}},
		{"recorded evidence", acceptance.Evidence, "the same", func(b *broken, _ *Config) {
			b.evidence = func(ctx context.Context, _ [64]byte) (attest.Evidence, error) {
				return attest.Evidence{Kind: attest.SGXQuote3, Quote: []byte("recorded")}, nil
			}
		}},
		{"empty evidence", acceptance.Evidence, "the same", func(b *broken, _ *Config) {
			b.evidence = func(context.Context, [64]byte) (attest.Evidence, error) { return attest.Evidence{}, nil }
		}},
		{"zero key", acceptance.SealKeys, "all are the same", func(b *broken, _ *Config) {
			b.seal = func(tee.KeyRequest) (secret.Bytes, error) { return secret.New(make([]byte, 32)), nil }
		}},
		{"short key", acceptance.SealKeys, "has not 32 bytes", func(b *broken, _ *Config) {
			b.seal = func(tee.KeyRequest) (secret.Bytes, error) { return secret.New([]byte{1, 2, 3}), nil }
		}},
		{"one key for all", acceptance.SealKeys, "gives the same key", func(b *broken, _ *Config) {
			b.seal = func(tee.KeyRequest) (secret.Bytes, error) { return fixedKey(9), nil }
		}},
		{"never the same key", acceptance.SealKeys, "another key for the same request", func(b *broken, _ *Config) {
			var n byte
			b.seal = func(tee.KeyRequest) (secret.Bytes, error) { n++; return fixedKey(n), nil }
		}},
		{"no key the second time", acceptance.SealKeys, "ask for the key again", func(b *broken, _ *Config) {
			var n int
			b.seal = func(q tee.KeyRequest) (secret.Bytes, error) {
				if n++; n > 1 {
					return secret.Bytes{}, errBroken
				}
				return good.SealKey(q)
			}
		}},
		{"KEYID ignored", acceptance.SealKeys, "another KEYID", unless(func(q *tee.KeyRequest) { q.KeyID[0] &^= 1 })},
		{"policy ignored", acceptance.SealKeys, "the other policy", unless(func(q *tee.KeyRequest) {
			if q.Policy != 0 {
				q.Policy = tee.BindSigner
			}
		})},
		{"lower version ignored", acceptance.SealKeys, "a lower version", unless(func(q *tee.KeyRequest) {
			if q.SVN == 0 && q.Policy != 0 {
				q.SVN = 1
			}
		})},
		{"higher version given", acceptance.SealKeys, "a higher version", func(b *broken, _ *Config) {
			b.seal = func(q tee.KeyRequest) (secret.Bytes, error) {
				if q.SVN > 1 {
					return fixedKey(1), nil
				}
				return good.SealKey(q)
			}
		}},
		{"keys without a policy", acceptance.SealKeys, "without a policy", func(b *broken, _ *Config) {
			b.seal = func(q tee.KeyRequest) (secret.Bytes, error) {
				if q.Policy == 0 {
					return fixedKey(1), nil
				}
				return good.SealKey(q)
			}
		}},
		{"other keys after a restart", acceptance.Restart, "does not open", func(b *broken, _ *Config) {
			b.seal = func(q tee.KeyRequest) (secret.Bytes, error) {
				if string(q.KeyID[:]) == string(sealed[0].KeyID) {
					q.KeyID[1] ^= 1
				}
				return good.SealKey(q)
			}
		}},
		{"no keys after a restart", acceptance.Restart, "it is broken", func(b *broken, _ *Config) {
			b.seal = func(q tee.KeyRequest) (secret.Bytes, error) {
				if string(q.KeyID[:]) == string(sealed[1].KeyID) {
					return secret.Bytes{}, errBroken
				}
				return good.SealKey(q)
			}
		}},
		{"no target", acceptance.LocalReport, "it is broken", func(b *broken, _ *Config) {
			b.target = func() ([]byte, error) { return nil, errBroken }
		}},
		{"no report", acceptance.LocalReport, "it is broken", func(b *broken, _ *Config) {
			b.report = func([]byte, [64]byte) ([]byte, error) { return nil, errBroken }
		}},
		{"report refused", acceptance.LocalReport, "it is broken", func(b *broken, _ *Config) {
			b.verify = func([]byte) (tee.Identity, [64]byte, error) { return tee.Identity{}, [64]byte{}, errBroken }
		}},
		{"report over other data", acceptance.LocalReport, "binds other data", func(b *broken, _ *Config) {
			b.report = func(target []byte, _ [64]byte) ([]byte, error) { return good.Report(target, [64]byte{1}) }
		}},
		{"report of another program", acceptance.LocalReport, "names another program", func(b *broken, _ *Config) {
			b.verify = func(r []byte) (tee.Identity, [64]byte, error) {
				id, data, err := good.VerifyReport(r)
				id.Measurement[0] ^= 1
				return id, data, err
			}
		}},
		{"report not authentic", acceptance.LocalReport, "another byte 0 is accepted", func(b *broken, _ *Config) {
			var data [64]byte
			b.report = func(target []byte, d [64]byte) ([]byte, error) { data = d; return good.Report(target, d) }
			b.verify = func([]byte) (tee.Identity, [64]byte, error) { return good.Identity(), data, nil }
		}},
		{"clock stands", acceptance.Clock, "stood still", func(_ *broken, c *Config) {
			now := time.Now()
			c.Now = func() time.Time { return now }
		}},
		{"clock goes back", acceptance.Clock, "went back", func(_ *broken, c *Config) {
			now := time.Now().Round(0)
			c.Now = func() time.Time { now = now.Add(-time.Second); return now }
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := &broken{
				platform: good, identity: good.Identity(), seal: good.SealKey, evidence: good.Evidence,
				target: good.Target, report: good.Report, verify: good.VerifyReport,
			}
			c := configOf(b)
			row.brk(b, &c)
			q := request(sealed...)
			q.Each = 0 // takes long, and no platform takes part in it
			s := mustRun(t, c, q)
			for _, got := range s.Result.Checks {
				want := acceptance.Pass
				if got.Name == row.check {
					want = acceptance.Fail
				}
				// What comes back as another program is one for local reports too,
				// and keys that never are the same are none after a restart.
				related := got.Name == acceptance.LocalReport && row.check == acceptance.Identity || got.Name == acceptance.Restart && row.check == acceptance.SealKeys
				if got.Outcome != want && !related {
					t.Errorf("%s: got %s, %s", got.Name, got.Outcome, got.Detail)
				}
			}
			if c := outcome(s, row.check); !strings.Contains(c.Detail, row.text) {
				t.Errorf("%s: got %q, want %q", row.check, c.Detail, row.text)
			}
		})
	}
}

func TestFinalEvidenceFails(t *testing.T) {
	good := machine(t, t.TempDir()+"/sim")
	b := &broken{
		platform: good, identity: good.Identity(), seal: good.SealKey,
		target: good.Target, report: good.Report, verify: good.VerifyReport,
	}
	var n int
	b.evidence = func(ctx context.Context, d [64]byte) (attest.Evidence, error) {
		if n++; n > 2 {
			return attest.Evidence{}, errBroken
		}
		return good.Evidence(ctx, d)
	}
	s := mustRun(t, configOf(b), request())
	if s.Problem != errBroken.Error() || s.Kind != "" || len(s.Evidence) > 0 {
		t.Errorf("got %q, %q", s.Kind, s.Problem)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s, err := Run(ctx, configOf(machine(t, t.TempDir()+"/sim")), request()); s != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("Run: got %v, want Canceled", err)
	}
}

// TestKnownSeal keeps what is sealed: a run after an update of the program opens
// it. The value is of another implementation of HKDF and AES-GCM, in Python.
func TestKnownSeal(t *testing.T) {
	aead, err := sealCipher(secret.New(bytes.Repeat([]byte{5}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	got := hex.EncodeToString(aead.Seal(nil, make([]byte, 12), []byte(sealText), []byte(sealLabel)))
	const want = "e0871edb31fb913906b6e7d8bbfc9a6f7f3e3f12967f9bc72ef54150e364c738f386115c5e0fde88c63f36916f79bd618b32c678"
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestNoKeysInStatements looks for every seal key that a run gets.
func TestNoKeysInStatements(t *testing.T) {
	good := machine(t, t.TempDir()+"/sim")
	var keys []string
	b := &broken{
		platform: good, identity: good.Identity(), evidence: good.Evidence,
		target: good.Target, report: good.Report, verify: good.VerifyReport,
		seal: func(q tee.KeyRequest) (secret.Bytes, error) {
			k, err := good.SealKey(q)
			if err == nil {
				keys = append(keys, string(k.Expose()))
			}
			return k, err
		},
	}
	encoded := mustRun(t, configOf(b), request()).Encode()
	if len(keys) == 0 {
		t.Fatal("no key was asked for")
	}
	for _, k := range keys {
		if bytes.Contains(encoded, []byte(hex.EncodeToString([]byte(k)))) {
			t.Error("a statement holds a seal key")
		}
	}
}
