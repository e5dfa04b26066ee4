package dev

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/client/ehsm"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// tenant enrolls at a server.
func tenant(t *testing.T, s *Server) (*ehsm.Client, ehsm.Credentials) {
	t.Helper()
	anonymous, err := ehsm.New(ehsm.Config{URL: s.URL(), Fingerprint: s.Fingerprint()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(anonymous.Close)
	cred, err := anonymous.Enroll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return anonymous.With(cred), cred
}

func TestOwnQuotes(t *testing.T) {
	dir := t.TempDir()
	s := start1(t, dir)
	c, cred := tenant(t, s)
	made, err := c.GenerateQuote(t.Context(), []byte("challenge"))
	if err != nil || made.DomainID != hex.EncodeToString(s.Info.Domain[:]) || string(made.HPKEPublicKey) != string(s.Info.HPKEKey[:]) {
		t.Fatalf("GenerateQuote: got domain %s, %v", made.DomainID, err)
	}
	verdict, err := c.VerifyQuote(t.Context(), made.Quote, "")
	if err != nil {
		t.Fatal(err)
	}
	policy, err := c.UploadQuotePolicy(t.Context(), mustHash(t, verdict.MREnclave), mustHash(t, verdict.MRSigner))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// A quote of the start before is genuine in the next one, and the policy is there.
	s = start1(t, dir)
	defer s.Close()
	c2, err := ehsm.New(ehsm.Config{URL: s.URL(), Fingerprint: s.Fingerprint()})
	if err != nil {
		t.Fatal(err)
	}
	defer c2.Close()
	if _, err := c2.With(cred).VerifyQuote(t.Context(), made.Quote, policy); err != nil {
		t.Errorf("VerifyQuote after a restart: %v", err)
	}
	other := start1(t, t.TempDir())
	defer other.Close()
	stranger, _ := tenant(t, other)
	if _, err := stranger.VerifyQuote(t.Context(), made.Quote, ""); !ehsm.IsQuoteRefused(err) {
		t.Errorf("VerifyQuote at another machine: got %v, want a refusal", err)
	}
}

func mustHash(t *testing.T, text string) (h [32]byte) {
	t.Helper()
	if n, err := hex.Decode(h[:], []byte(text)); err != nil || n != len(h) {
		t.Fatalf("%q is no hash", text)
	}
	return h
}

// TestDirectoryOfAnEarlierVersion has a domain that was made before domains named
// a simulated root: it serves on, and says what does not work.
func TestDirectoryOfAnEarlierVersion(t *testing.T) {
	dir := t.TempDir()
	machine, err := sim.Open(filepath.Join(dir, SimDir), tee.ProductCore, coreSVN)
	if err != nil {
		t.Fatal(err)
	}
	draft, operator, err := manifest.ThrowAway(manifest.Defaults(manifest.Development))
	if err != nil {
		t.Fatal(err)
	}
	if err := domainkey.Create(filepath.Join(dir, DomainDir), machine, draft, time.Now(), operator); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	s, err := Start(context.Background(), Options{Dir: dir, Listen: "127.0.0.1:0", Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	c, _ := tenant(t, s)
	made, err := c.GenerateQuote(t.Context(), []byte("challenge"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.VerifyQuote(t.Context(), made.Quote, ""); !ehsm.IsQuoteRefused(err) {
		t.Errorf("VerifyQuote: got %v, want a refusal", err)
	}
	if err := errors.Join(s.Close(), s.Wait()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "VerifyQuote refuses this machine's own quotes") {
		t.Errorf("the log has %s", log.String())
	}
}
