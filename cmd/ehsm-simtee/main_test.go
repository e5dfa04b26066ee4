package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim/remote"
)

func command(t *testing.T, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run(env{t.Context(), &out, &errs, false}, args); code != want {
		t.Errorf("%q: got exit code %d, want %d: %s", args, code, want, &errs)
	}
	return out.String(), errs.String()
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in %s", part, text)
		}
	}
}

func executable(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("an executable"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUsage(t *testing.T) {
	for name, args := range map[string][]string{
		"nothing":          nil,
		"unknown":          {"start"},
		"unknown flag":     {"measure", "--color", "x"},
		"no program":       {"measure"},
		"two programs":     {"measure", "a", "b"},
		"unknown output":   {"measure", "--output", "xml", "a"},
		"no socket":        {"serve", "--dir", "d"},
		"no machine":       {"serve", "--socket", "s"},
		"no key":           {"sign", "--product", "1", "--svn", "1", "a"},
		"no product":       {"sign", "--key", "k", "--svn", "1", "a"},
		"no version":       {"sign", "--key", "k", "--product", "1", "a"},
		"product too big":  {"sign", "--key", "k", "--product", "65536", "--svn", "1", "a"},
		"negative version": {"sign", "--key", "k", "--product", "1", "--svn", "-1", "a"},
		"no directory":     {"collateral"},
	} {
		stdout, stderr := command(t, 2, args...)
		if stdout != "" || !strings.Contains(stderr, "hint: ehsm-simtee --help") {
			t.Errorf("%s: got %s%s", name, stdout, stderr)
		}
	}
	for _, args := range [][]string{{"--help"}, {"serve", "-h"}} {
		stdout, _ := command(t, 0, args...)
		contains(t, stdout, "It protects nothing", "serve", "sign", "measure", "collateral")
	}
	stdout, _ := command(t, 0, "--version")
	contains(t, stdout, "ehsm-simtee ")
}

func TestSignAndMeasure(t *testing.T) {
	path := executable(t)
	key := filepath.Join(t.TempDir(), "key")
	stdout, _ := command(t, 0, "measure", path)
	contains(t, stdout, "MRENCLAVE: 1a2cbd01c42efd9c", "development signer")
	stdout, _ = command(t, 0, "measure", path, "--output", "json")
	contains(t, stdout, `"development_signer":true`, `"mrenclave":"1a2cbd01c42efd9c`)

	command(t, 1, "sign", "--key", key, "--product", "7", "--svn", "3", path) // there is no key
	stdout, _ = command(t, 0, "sign", path, "--key", key, "--new-key", "--product", "7", "--svn", "3", "--debug")
	contains(t, stdout, "MRENCLAVE: 1a2cbd01c42efd9c", "product:   7\n", "SVN:       3\n", "debug:     yes")
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %v, %v", info.Mode(), err)
	}
	command(t, 1, "sign", path, "--key", key, "--new-key", "--product", "7", "--svn", "3") // the key exists
	command(t, 0, "sign", path, "--key", key, "--product", "7", "--svn", "4")
	stdout, _ = command(t, 0, "measure", path, "--output", "json")
	var got measured
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	if got.Product != 7 || got.SVN != 4 || got.Debug || got.Development || len(got.MRSigner) != 64 {
		t.Errorf("got %+v", got)
	}
	if err := os.WriteFile(path, []byte("built again"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, stderr := command(t, 1, "measure", path)
	contains(t, stderr, "sign it again")
	command(t, 1, "measure", path+"-not-there")
}

// TestServe starts the daemon as the program does: it says at once what it is,
// and its quotes verify with the collateral and the root that it writes.
func TestServe(t *testing.T) {
	dir, err := os.MkdirTemp("", "sim-*") // short: paths of sockets are limited
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	machine, socket := filepath.Join(dir, "sim"), filepath.Join(dir, "s")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	ended := make(chan int)
	go func() {
		code := run(env{ctx, io.Discard, w, false}, []string{"serve", "--dir", machine, "--socket", socket})
		w.Close()
		ended <- code
	}()
	said := make([]byte, 0, 4096)
	for !bytes.Contains(said, []byte("serves ")) {
		n, err := r.Read(said[len(said):cap(said)])
		if err != nil {
			t.Fatalf("%v after %s", err, said)
		}
		said = said[:len(said)+n]
	}
	go io.Copy(io.Discard, r)
	contains(t, string(said), "simulated TEE: nothing is protected by hardware")
	m, err := remote.Dial(ctx, socket, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	e, err := m.Evidence(ctx, [64]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	_, stderr := command(t, 0, "collateral", "--dir", machine, "--out", filepath.Join(dir, "c"))
	contains(t, stderr, "root.pem", "simulated")
	if err := verifies(dir, e.Quote); err != nil {
		t.Error(err)
	}
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("serve ends with %d", code)
	}
	command(t, 1, "collateral", "--dir", filepath.Join(dir, "not-there"))
	if _, err := os.Stat(filepath.Join(dir, "not-there")); err == nil {
		t.Error("collateral makes a machine")
	}
	_, stderr = command(t, 1, "serve", "--dir", machine, "--socket", filepath.Join(dir, "not", "there"))
	contains(t, stderr, "listen on ")
}

func verifies(dir string, quote []byte) error {
	bundle, err := os.ReadFile(filepath.Join(dir, "c"))
	if err != nil {
		return err
	}
	c, err := verify.DecodeCollateral(bundle)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(dir, rootFile))
	if err != nil {
		return err
	}
	block, _ := pem.Decode(text)
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	r, err := verify.Verify(quote, c, verify.Options{Roots: []*x509.Certificate{root}, Now: time.Now(), AllowSim: true})
	if err == nil && !r.Simulated {
		err = fmt.Errorf("the quote is not marked as simulated")
	}
	return err
}

func TestMachinesOfOneFleet(t *testing.T) {
	dir := t.TempDir()
	fleet := filepath.Join(dir, "fleet")
	roots := map[string]bool{}
	for _, name := range []string{"a", "b"} {
		p, err := sim.OpenProcessor(filepath.Join(dir, name), sim.Options{Fleet: fleet})
		if err != nil {
			t.Fatal(err)
		}
		roots[string(p.Root().Raw)] = true
		command(t, 0, "collateral", "--dir", filepath.Join(dir, name), "--fleet", fleet, "--out", filepath.Join(dir, name+".bin"))
	}
	if len(roots) != 1 {
		t.Errorf("got %d roots, want 1", len(roots))
	}
	_, stderr := command(t, 1, "collateral", "--dir", filepath.Join(dir, "a"))
	contains(t, stderr, "fleet.pem: no such file") // its own fleet is another one
}
