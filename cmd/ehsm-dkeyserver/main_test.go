package main

import (
	"bytes"
	"context"
	"crypto"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim/daemon"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

// A bench is a simulated machine with a place for a domain.
type bench struct {
	dir string
	env map[string]string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	return newBenchOf(t, sim.Options{})
}

func newBenchOf(t *testing.T, o sim.Options) *bench {
	t.Helper()
	dir, err := os.MkdirTemp("", "dks-*") // short: paths of sockets are limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p, err := sim.OpenProcessor(filepath.Join(dir, "sim"), o)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := daemon.Listen(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- daemon.Serve(ctx, ln, p, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &bench{dir, map[string]string{
		"EHSM_DKEYSERVER_SIM": ln.Addr().String(), "EHSM_DKEYSERVER_DOMAIN": filepath.Join(dir, "domain"),
		"EHSM_DKEYSERVER_COLLATERAL": filepath.Join(dir, "collateral"), "EHSM_DKEYSERVER_LISTEN": "127.0.0.1:0",
	}}
}

func (b *bench) run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second) // or one that serves by mistake would do so for ever
	defer stop()
	var out, errs bytes.Buffer
	code = run(ctx, args, func(name string) string { return b.env[name] }, &out, &errs, false)
	return code, out.String(), errs.String()
}

// draft writes a draft and returns its path and its operator.
func (b *bench) draft(t *testing.T, s manifest.Settings) (string, crypto.Signer) {
	t.Helper()
	d, operator, err := manifest.ThrowAway(s)
	if err != nil {
		t.Fatal(err)
	}
	text, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(b.dir, "draft.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, operator
}

func (b *bench) file(name string) string { return filepath.Join(b.dir, "domain", name) }

func (b *bench) genesis(t *testing.T, operators ...crypto.Signer) *manifest.Manifest {
	t.Helper()
	text, err := os.ReadFile(b.file(manifest.GenesisFile))
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range operators {
		if err := m.Sign(o); err != nil {
			t.Fatal(err)
		}
		if text, err = m.Encode(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(b.file(manifest.GenesisFile), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func TestUsage(t *testing.T) {
	b := new(bench)
	for _, row := range []struct {
		args string
		code int
		says string
	}{
		{"--help", 0, "EHSM_DKEYSERVER_ROLE"}, {"help", 0, "ehsm-dkeyserver init [--no-recovery] DRAFT"}, {"--version", 0, "ehsm-dkeyserver"},
		{"init", 2, "hint: ehsm-dkeyserver --help"}, {"init a b", 2, "hint"}, {"serve x", 2, "hint"}, {"start", 2, "hint"},
		{"serve", 1, "EHSM_DKEYSERVER_SIM"}, {"init x", 1, "EHSM_DKEYSERVER_COLLATERAL"}, {"init --no-recovery", 2, "hint"}, {"init --recovery x", 2, "hint"}, {"recovery", 2, "hint"}, {"restore", 2, "hint"}, {"recovery a b", 2, "hint"}, {"", 1, "EHSM_DKEYSERVER_SIM"},
	} {
		code, stdout, stderr := b.run(t, strings.Fields(row.args)...)
		if code != row.code || !strings.Contains(stdout+stderr, row.says) {
			t.Errorf("%q: got %d, %s%s", row.args, code, stdout, stderr)
		}
	}
}

func TestInit(t *testing.T) {
	b := newBench(t)
	path, operator := b.draft(t, manifest.Defaults(manifest.Development))
	code, stdout, stderr := b.run(t, "init", "--no-recovery", path)
	if code != 0 || !strings.Contains(stderr, "1 of 1 operators sign") {
		t.Fatalf("got %d, %s", code, stderr)
	}
	if id := b.genesis(t).Hash().String(); strings.TrimSpace(stdout) != id {
		t.Errorf("printed %s, the domain is %s", stdout, id)
	}
	sealed, err := os.ReadFile(b.file(domainkey.BundleFile))
	if err != nil {
		t.Fatal(err)
	}
	// One that was killed before it could print the id goes on.
	if code, again, stderr := b.run(t, "init", "--no-recovery", path); code != 0 || again != stdout || !strings.Contains(stderr, "was made already; 1 of 1") {
		t.Errorf("again: got %d, %s%s", code, again, stderr)
	}
	b.refusesInit(t, "another draft", "not of this draft; name another directory", nil)
	b.refusesInit(t, "a genesis that does not read", "does not read", map[string]string{manifest.GenesisFile: "{}"}, path)
	b.refusesInit(t, "a DomainKey that does not open", "move the directory away and run init again", map[string]string{domainkey.BundleFile: "x"}, path)
	if now, err := os.ReadFile(b.file(domainkey.BundleFile)); err != nil || !bytes.Equal(now, sealed) {
		t.Errorf("the DomainKey has changed: %v", err)
	}
	if code, _, stderr := b.run(t, "serve"); code != 1 || !strings.Contains(stderr, manifest.ErrQuorum.Error()) {
		t.Errorf("a genesis that nobody signed: got %d, %s", code, stderr)
	}
	b.genesis(t, operator)
	b.refusesInit(t, "a domain that serves", "which has been signed; ehsm-dkeyserver serve", nil, path)
	for _, row := range []struct {
		name, says string
		change     func()
	}{
		{"other domain", "another domain", func() { b.env["EHSM_DKEYSERVER_DOMAIN_ID"] = strings.Repeat("ab", 32) }},
		{"lost DomainKey", "no such file", func() { os.Remove(b.file(domainkey.BundleFile)) }},
		{"lost genesis", "no such file", func() { os.Remove(b.file(manifest.GenesisFile)) }},
		{"worker of no domain", "EHSM_DKEYSERVER_DOMAIN_ID", func() { b.env["EHSM_DKEYSERVER_ROLE"], b.env["EHSM_DKEYSERVER_PEERS"] = "worker", "127.0.0.1:1" }},
		{"worker without peers", "EHSM_DKEYSERVER_PEERS", func() { b.env["EHSM_DKEYSERVER_PEERS"] = "" }},
		{"root with peers", "takes nothing from others", func() { b.env["EHSM_DKEYSERVER_ROLE"], b.env["EHSM_DKEYSERVER_PEERS"] = "root", "127.0.0.1:1" }},
	} {
		row.change()
		if code, _, stderr := b.run(t, "serve"); code != 1 || !strings.Contains(stderr, row.says) {
			t.Errorf("%s: got %d, %s", row.name, code, stderr)
		}
		delete(b.env, "EHSM_DKEYSERVER_DOMAIN_ID")
	}
}

// refusesInit runs init where a domain is, with other contents of some files, and
// of another draft unless one is given.
func (b *bench) refusesInit(t *testing.T, name, says string, files map[string]string, draft ...string) {
	t.Helper()
	if len(draft) == 0 {
		other := newDraft(t, manifest.Defaults(manifest.Development))
		draft = []string{filepath.Join(b.dir, "other.json")}
		if err := os.WriteFile(draft[0], other, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for file, text := range files {
		was, err := os.ReadFile(b.file(file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(b.file(file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		defer os.WriteFile(b.file(file), was, 0o600)
	}
	code, stdout, stderr := b.run(t, "init", "--no-recovery", draft[0])
	if code != 1 || stdout != "" || !strings.Contains(stderr, "a domain exists already") || !strings.Contains(stderr, says) {
		t.Errorf("%s: got %d, %s%s", name, code, stdout, stderr)
	}
}

func newDraft(t *testing.T, s manifest.Settings) []byte {
	t.Helper()
	d, _, err := manifest.ThrowAway(s)
	if err != nil {
		t.Fatal(err)
	}
	text, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestLeftovers has what an init has left that was killed, and a waiting list and
// halves of files from an earlier life.
func TestLeftovers(t *testing.T) {
	b := newBench(t)
	path, operator := b.draft(t, manifest.Defaults(manifest.Development))
	if err := os.Mkdir(filepath.Join(b.dir, ".domain-1"), 0o700); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := b.run(t, "init", "--no-recovery", path); code != 0 || !strings.Contains(stderr, ".domain-1 is of an init that was ended") {
		t.Errorf("init: got %d, %s", code, stderr)
	}
	b.genesis(t, operator)
	if err := os.MkdirAll(b.file(".new-1/half"), 0o700); err != nil {
		t.Fatal(err)
	}
	waiting := `[{"ppid": "` + strings.Repeat("ab", 16) + `", "pckSerial": "0a", "first": "2026-01-01T00:00:00Z", "last": "` + time.Now().UTC().Format(time.RFC3339) + `", "times": 1}]`
	if err := os.WriteFile(b.file(WaitingFile), []byte(waiting), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		waiting, says string
		wait          int
	}{{waiting, "", 1}, {"junk", "the list of waiting machines is begun anew", 0}} {
		if err := os.WriteFile(b.file(WaitingFile), []byte(row.waiting), 0o600); err != nil {
			t.Fatal(err)
		}
		stderr := b.serves(t, func(s *overview.Status) {
			if len(s.Waiting) != row.wait || s.Key.Version != 1 {
				t.Errorf("got %+v", s)
			}
		})
		if !strings.Contains(stderr, row.says) {
			t.Errorf("it said %s", stderr)
		}
	}
	if _, err := os.Stat(b.file(".new-1")); err == nil {
		t.Error("half a file is still there")
	}
	if info, err := os.Stat(b.file(config.DoorFile)); err == nil {
		t.Errorf("the door is still there: %v", info.Mode())
	}
}

// serves starts the server, has look see its status, ends it, and returns what it
// said.
func (b *bench) serves(t *testing.T, look func(*overview.Status)) (stderr string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	said, done := make(chan struct{}), make(chan int)
	var out strings.Builder
	errs := lines(func(line []byte) {
		out.Write(line)
		if strings.Contains(string(line), "serves as") {
			close(said)
		}
	})
	go func() {
		done <- run(ctx, []string{"serve"}, func(name string) string { return b.env[name] }, io.Discard, errs, false)
	}()
	defer func() {
		cancel()
		if code := <-done; code != 0 {
			t.Errorf("serve ends with %d: %s", code, out.String())
		}
		stderr = out.String()
	}()
	select {
	case <-said:
	case <-time.After(20 * time.Second):
		t.Fatal("it does not serve")
	}
	if info, err := os.Stat(b.file(config.DoorFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the door: %v, %v", info, err)
	}
	conn, err := net.Dial("unix", b.file(config.DoorFile))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := overview.WriteFrame(conn, overview.NewDoorRequest(overview.AskStatus, nil).Encode()); err != nil {
		t.Fatal(err)
	}
	answer, err := overview.ReadFrame(conn, overview.MaxAnswer)
	if err != nil {
		t.Fatal(err)
	}
	a, err := overview.ParseDoorAnswer(answer)
	if err != nil {
		t.Fatal(err)
	}
	s, err := overview.ParseStatus(a.Payload)
	if err != nil {
		t.Fatal(err)
	}
	look(s)
	return ""
}

// lines is a writer, for one program at a time.
type lines func([]byte)

func (f lines) Write(b []byte) (int, error) { f(b); return len(b), nil }

func TestInitRefusals(t *testing.T) {
	b := newBench(t)
	good, _ := b.draft(t, manifest.Defaults(manifest.Development))
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	edited := filepath.Join(b.dir, "edited.json")
	if err := os.WriteFile(edited, append(text, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	production := manifest.Defaults(manifest.Production)
	strict, _ := b.draft(t, production)
	for name, row := range map[string]struct{ path, says string }{
		"no draft":                          {filepath.Join(b.dir, "none"), "read the draft"},
		"edited draft":                      {edited, "invalid manifest"},
		"production on a simulated machine": {strict, domainkey.ErrSimulated.Error()},
	} {
		if code, _, stderr := b.run(t, "init", "--no-recovery", row.path); code != 1 || !strings.Contains(stderr, row.says) {
			t.Errorf("%s: got %d, %s", name, code, stderr)
		}
		if _, err := os.Stat(filepath.Join(b.dir, "domain")); err == nil {
			t.Errorf("%s: a domain is there", name)
		}
	}
}
