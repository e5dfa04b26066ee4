package main

import (
	"bytes"
	"context"
	"crypto"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim/daemon"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// A bench is a simulated machine with a place for a domain.
type bench struct {
	dir string
	env map[string]string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	dir, err := os.MkdirTemp("", "dks-*") // short: paths of sockets are limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p, err := sim.OpenProcessor(filepath.Join(dir, "sim"), sim.Options{})
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
	var out, errs bytes.Buffer
	code = run(t.Context(), args, func(name string) string { return b.env[name] }, &out, &errs, false)
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
	if code, _, stderr := b.run(t, "init", "--no-recovery", path); code != 1 || !strings.Contains(stderr, "exists already") {
		t.Errorf("again: got %d, %s", code, stderr)
	}
	if now, err := os.ReadFile(b.file(domainkey.BundleFile)); err != nil || !bytes.Equal(now, sealed) {
		t.Errorf("the DomainKey has changed: %v", err)
	}
	if code, _, stderr := b.run(t, "serve"); code != 1 || !strings.Contains(stderr, manifest.ErrQuorum.Error()) {
		t.Errorf("a genesis that nobody signed: got %d, %s", code, stderr)
	}
	b.genesis(t, operator)
	for _, row := range []struct {
		name, says string
		change     func()
	}{
		{"other domain", "another domain", func() { b.env["EHSM_DKEYSERVER_DOMAIN_ID"] = strings.Repeat("ab", 32) }},
		{"lost DomainKey", "no such file", func() { os.Remove(b.file(domainkey.BundleFile)) }},
		{"lost genesis", "no such file", func() { os.Remove(b.file(manifest.GenesisFile)) }},
		{"worker of no domain", "EHSM_DKEYSERVER_DOMAIN_ID", func() { b.env["EHSM_DKEYSERVER_ROLE"], b.env["EHSM_DKEYSERVER_PEERS"] = "worker", "127.0.0.1:1" }},
		{"worker without peers", "EHSM_DKEYSERVER_PEERS", func() { b.env["EHSM_DKEYSERVER_PEERS"] = "" }},
		{"root with peers", "a root takes nothing", func() { b.env["EHSM_DKEYSERVER_ROLE"], b.env["EHSM_DKEYSERVER_PEERS"] = "root", "127.0.0.1:1" }},
	} {
		row.change()
		if code, _, stderr := b.run(t, "serve"); code != 1 || !strings.Contains(stderr, row.says) {
			t.Errorf("%s: got %d, %s", row.name, code, stderr)
		}
		delete(b.env, "EHSM_DKEYSERVER_DOMAIN_ID")
	}
}

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
