package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/hsmroot"
	"github.com/ehsm-kms/ehsm/internal/wire/hsm"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// mirror is a sidecar that wraps a key by turning its bytes over, and returns its
// address. What an HSM does is tested elsewhere.
func mirror(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "hsm")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			if m, err := hsm.Read(conn); err == nil {
				hsm.Write(conn, mirrored(m))
			}
			conn.Close()
		}
	}()
	return "unix:" + path
}

func mirrored(m *hsm.Message) *hsm.Message {
	a := &hsm.Message{Kind: hsm.Refused}
	switch {
	case m.Kind == hsm.Wrap && m.Label != "none":
		if m.Label == "" {
			m.Label = "first"
		}
		blob := make([]byte, hsm.KeySize)
		for i, b := range m.Key {
			blob[i] = ^b
		}
		a = &hsm.Message{Kind: hsm.WrapDone, Wrapped: hsm.Wrapped{Label: m.Label, Mechanism: hsm.GCM, Blob: blob}}
	case m.Kind == hsm.Unwrap:
		a = &hsm.Message{Kind: hsm.UnwrapKey}
		for i, b := range m.Wrapped.Blob {
			a.Key[i] = ^b
		}
	}
	return a
}

// hsmDraft is a draft of a domain with root hsm.
func (b *bench) hsmDraft(t *testing.T) (path string, sign func()) {
	t.Helper()
	s := manifest.Defaults(manifest.Development)
	s.HSMWithoutTEE = true
	d, operator, err := manifest.ThrowAway(s)
	if err != nil {
		t.Fatal(err)
	}
	d.Root = manifest.HSM
	text, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(b.dir, "hsm.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, func() {
		genesis := b.file(manifest.GenesisFile)
		text, err := os.ReadFile(genesis)
		if err != nil {
			t.Fatal(err)
		}
		m, err := manifest.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Sign(operator); err != nil {
			t.Fatal(err)
		}
		if text, err = m.Encode(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(genesis, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRewrap moves a bundle from key to key, and is refused.
func TestRewrap(t *testing.T) {
	b := newBench(t)
	draft, sign := b.hsmDraft(t)
	rewrap := func(name, label string, want int, says string) {
		t.Helper()
		if code, stdout, stderr := b.run(t, "hsm", "rewrap", "--to", label); code != want || !strings.Contains(stdout+stderr, says) {
			t.Errorf("%s: got %d, %q, %q, want %d with %q", name, code, stdout, stderr, want, says)
		}
	}
	rewrap("no HSM", "second", 1, "EHSM_DKEYSERVER_HSM is not set")
	if code, _, stderr := b.run(t, "init", "--no-recovery", draft); code != 1 || !strings.Contains(stderr, "its root is hsm, and this program has none") {
		t.Errorf("init without an HSM: got %d, %q", code, stderr)
	}
	b.env["EHSM_DKEYSERVER_HSM"] = mirror(t, b.dir)
	rewrap("no domain", "second", 1, "read the genesis")
	if code, _, stderr := b.run(t, "init", "--no-recovery", draft); code != 0 || !strings.Contains(stderr, noProtection) {
		t.Fatalf("init: got %d, %q", code, stderr)
	}
	sign()
	bundle := func() string {
		t.Helper()
		text, err := os.ReadFile(b.file("domainkey.sealed"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	first := bundle()
	if !strings.Contains(first, "first") {
		t.Error("the bundle is not wrapped with the first key")
	}
	rewrap("no label", "", 1, errLabel.Error())
	rewrap("a label of two lines", "a\nb", 1, errLabel.Error())
	rewrap("a key that is not there", "none", 1, hsmroot.ErrHSM.Error())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.env["EHSM_DKEYSERVER_LISTEN"] = ln.Addr().String()
	rewrap("beside a server", "second", 1, "end ehsm-dkeyserver serve first")
	ln.Close()
	if bundle() != first {
		t.Error("a refusal has changed the bundle")
	}
	rewrap("a key", "second", 0, "wrapped with the key second now")
	if now := bundle(); now == first || !strings.Contains(now, "second") || strings.Contains(now, "first") {
		t.Error("the bundle is not wrapped with the second key")
	}
	rewrap("the same key", "second", 0, "wrapped with the key second now") // with fresh bytes
}
