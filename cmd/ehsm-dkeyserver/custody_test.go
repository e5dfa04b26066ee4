package main

import (
	"crypto"
	"crypto/hpke"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/provision"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
	"github.com/ehsm-kms/ehsm/internal/wire/escrow"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// custodians writes the draft of a domain with one custodian.
func (b *bench) custodians(t *testing.T) (path string, operator crypto.Signer) {
	t.Helper()
	d, operator, err := manifest.ThrowAway(manifest.Defaults(manifest.Development))
	if err != nil {
		t.Fatal(err)
	}
	d.Custodians = newQuorum(t, "dave")
	text, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(b.dir, "custodians.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, operator
}

// newQuorum is one custodian, whose private key is forgotten.
func newQuorum(t *testing.T, name string) *manifest.Quorum {
	t.Helper()
	return &manifest.Quorum{Threshold: 1, Members: []manifest.Person{{Name: name, Key: newCustodianKey(t)}}}
}

func (b *bench) refuses(t *testing.T, name, says string, args ...string) {
	t.Helper()
	if code, _, stderr := b.run(t, args...); code != 1 || !strings.Contains(stderr, says) {
		t.Errorf("%s: got %d, %s, want 1 with %q", name, code, stderr, says)
	}
}

// TestCustodians has drafts and manifests with custodians, and without.
func TestCustodians(t *testing.T) {
	b := newBench(t)
	with, operator := b.custodians(t)
	without, _ := b.draft(t, manifest.Defaults(manifest.Development))
	b.refuses(t, "no custodians", errNoCustodians.Error(), "init", without)
	b.refuses(t, "custodians who get nothing", errCustodians.Error(), "init", "--no-recovery", with)
	if _, err := os.Stat(b.file("")); err == nil {
		t.Fatal("a domain is there")
	}
	if code, _, stderr := b.run(t, "init", with); code != 0 {
		t.Fatal(stderr)
	}
	b.genesis(t, operator)
	b.refuses(t, "a domain that is there", errExists.Error(), "restore", "backup")

	state := b.opened(t).known.Get().State()
	next := func(edit func(*manifest.Manifest)) string {
		m, err := state.Follow(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		edit(m)
		text, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(b.dir, "next.json")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	b.refuses(t, "the custodians of before", errSameCustodians.Error(), "recovery", next(func(*manifest.Manifest) {}))
	b.refuses(t, "no custodians any more", errUnwanted.Error(), "recovery", next(func(m *manifest.Manifest) { m.Statement.Custodians, m.Statement.Recovery = nil, nil }))
	b.refuses(t, "signed already", errSigned.Error(), "recovery", next(func(m *manifest.Manifest) {
		m.Statement.Custodians, m.Statement.Recovery = newQuorum(t, "erin"), nil
		if err := m.Sign(operator); err != nil {
			t.Fatal(err)
		}
	}))
	path := next(func(m *manifest.Manifest) { m.Statement.Custodians, m.Statement.Recovery = newQuorum(t, "erin"), nil })
	if code, _, stderr := b.run(t, "recovery", path); code != 0 || !strings.Contains(stderr, "for custodian erin: ") {
		t.Errorf("got %d, %s", code, stderr)
	}
}

// TestWithoutSealKey has a domain on a machine without seal keys: it is in escrow.
func TestWithoutSealKey(t *testing.T) {
	b := newBenchOf(t, sim.Options{NoSealKey: true})
	without, _ := b.draft(t, manifest.Defaults(manifest.Development))
	b.refuses(t, "nobody could give it again", "name custodians, who give it again at each start", "init", "--no-recovery", without)
	with, operator := b.custodians(t)
	code, id, stderr := b.run(t, "init", with)
	if code != 0 {
		t.Fatal(stderr)
	}
	if code, again, stderr := b.run(t, "init", with); code != 0 || again != id || !strings.Contains(stderr, "was made already") {
		t.Errorf("again: got %d, %s%s", code, again, stderr)
	}
	kept, err := os.ReadFile(b.file(escrow.File))
	if err != nil {
		t.Fatal(err)
	}
	changed := append([]byte(nil), kept...)
	changed[len(changed)-1] ^= 1
	if err := os.WriteFile(b.file(escrow.File), changed, 0o600); err != nil {
		t.Fatal(err)
	}
	b.refuses(t, "an escrow of nobody", "move the directory away and run init again", "init", with)
	if err := os.WriteFile(b.file(escrow.File), kept, 0o600); err != nil {
		t.Fatal(err)
	}
	b.genesis(t, operator)

	s := b.opened(t)
	if err := s.holder.Use(func(*domainkey.Keyring) error { return nil }); !errors.Is(err, provision.ErrNoKeys) {
		t.Errorf("got %v, want ErrNoKeys", err)
	}
	state := *s.known.Get().State()
	state.Settings.AllowSim = false
	if err := s.awaited(&state); !errors.Is(err, domainkey.ErrSimulated) {
		t.Errorf("where simulation is excluded: got %v", err)
	}
	if err := os.Remove(b.file(escrow.File)); err != nil {
		t.Fatal(err)
	}
	b.refuses(t, "nobody can give it", errNobody.Error(), "serve")
	b.env["EHSM_DKEYSERVER_PEERS"] = "127.0.0.1:1"
	b.opened(t)
}

func newCustodianKey(t *testing.T) []byte {
	t.Helper()
	key, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key.PublicKey().Bytes()
}
