package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim/daemon"
)

// simulator serves a simulated machine and returns its socket.
func simulator(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sim-*") // short: paths of sockets are limited
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
	return ln.Addr().String()
}

// The third layer that keeps a simulated platform out of production: every start
// says what it is.
func TestSimulatorSaysWhatItIs(t *testing.T) {
	env := map[string]string{"EHSM_CORE_SIM": simulator(t), "EHSM_CORE_DOMAIN": t.TempDir()}
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), nil, func(k string) string { return env[k] }, &stdout, &stderr, false); code != 1 {
		t.Errorf("an empty domain: got %d", code)
	}
	for _, text := range []string{
		"simulated TEE: keys are not protected by hardware", "platform sim: measurement ", "development signer", "product 1, version 1", "genesis.json",
	} {
		if !strings.Contains(stderr.String(), text) {
			t.Errorf("no %q in %s", text, &stderr)
		}
	}
}
