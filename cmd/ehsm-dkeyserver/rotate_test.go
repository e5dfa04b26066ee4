package main

import (
	"crypto"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// opened is a server as it starts.
func (b *bench) opened(t *testing.T) *server {
	t.Helper()
	settings, err := config.LoadDKeyServer(func(name string) string { return b.env[name] })
	if err != nil {
		t.Fatal(err)
	}
	p, err := program.Open(t.Context(), settings.Platform, settings.Sim, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	s, err := open(settings, p, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.holder.Release() })
	return s
}

// decide has an operator sign what follows, puts it into the directory, and has s
// take it.
func (b *bench) decide(t *testing.T, s *server, operator crypto.Signer, k manifest.DomainKey) {
	t.Helper()
	m, err := s.known.Get().State().Follow(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	m.Statement.Settings.DomainKey = k
	if err := m.Sign(operator); err != nil {
		t.Fatal(err)
	}
	text, err := m.Encode()
	if err == nil {
		err = domainkey.WriteManifest(s.settings.Domain, m.Statement.Version, text)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.read(s.known.Get())
	if got := s.known.Get().Manifest(); got != m.Statement.Version {
		t.Fatalf("manifest %d is in force, want %d", got, m.Statement.Version)
	}
}

// kept is what is sealed in the directory.
func (s *server) kept(t *testing.T) *domainkey.Keyring {
	t.Helper()
	k, err := domainkey.Unseal(s.settings.Domain, s.platform, secret.NewHeap(), s.known.Get().State())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestRotate has a root do what manifests ask for, over restarts.
func TestRotate(t *testing.T) {
	b := newBench(t)
	path, operator := b.draft(t, manifest.Defaults(manifest.Development))
	if code, _, stderr := b.run(t, "init", "--no-recovery", path); code != 0 {
		t.Fatal(stderr)
	}
	b.genesis(t, operator)
	s := b.opened(t)
	d := s.known.Get()
	first := s.kept(t)
	if err := s.rotate(d); err != nil || s.kept(t).Newest() != 1 {
		t.Errorf("nothing asked for: %v", err)
	}
	b.decide(t, s, operator, manifest.DomainKey{Version: 2})
	if err := s.rotate(d); err != nil || s.kept(t).Newest() != 2 || !s.kept(t).Extends(first) {
		t.Errorf("version 2: %v", err)
	}
	two := s.kept(t)
	b.decide(t, s, operator, manifest.DomainKey{Version: 2, Forgotten: []uint32{1}})
	if err := s.rotate(d); err != nil || s.unsealed || s.kept(t).Holds(1) || !s.kept(t).Extends(two) {
		t.Errorf("forgotten: %v, still sealed %v", err, s.kept(t).Holds(1))
	}
	// It was killed before it could seal what is left.
	if err := two.Seal(s.settings.Domain, s.platform); err != nil {
		t.Fatal(err)
	}
	s = b.opened(t)
	if err := s.rotate(s.known.Get()); err != nil || s.kept(t).Holds(1) {
		t.Errorf("after a restart: %v, still sealed %v", err, s.kept(t).Holds(1))
	}
	// It was killed before it could make what it was asked for. It listens first.
	b.decide(t, s, operator, manifest.DomainKey{Version: 3, Forgotten: []uint32{1}})
	s = b.opened(t)
	d = s.known.Get()
	if err := s.rotate(d); err != nil || s.kept(t).Newest() != 2 {
		t.Errorf("it does not listen to others: %v", err)
	}
	s.has = s.has.Add(-patience)
	if err := s.rotate(d); err != nil || s.kept(t).Newest() != 3 {
		t.Errorf("after it has listened: %v", err)
	}
}

// TestBehind has a root that others are ahead of make nothing.
func TestBehind(t *testing.T) {
	b := newBench(t)
	path, operator := b.draft(t, manifest.Defaults(manifest.Development))
	if code, _, stderr := b.run(t, "init", "--no-recovery", path); code != 0 {
		t.Fatal(stderr)
	}
	b.genesis(t, operator)
	s := b.opened(t)
	b.decide(t, s, operator, manifest.DomainKey{Version: 2})
	if err := s.behind(2); !errors.Is(err, errBehind) {
		t.Errorf("others have version 2: got %v", err)
	}
	if err := s.behind(1); err != nil {
		t.Errorf("others have version 1: got %v", err)
	}
}
