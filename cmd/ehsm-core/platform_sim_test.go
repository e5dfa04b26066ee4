package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
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

type fixedPlatform struct {
	tee.Platform
	environment map[string]string
}

func (p fixedPlatform) Environment() map[string]string { return p.environment }

func TestMeasuredSettingsWin(t *testing.T) {
	host := map[string]string{"EHSM_CORE_SIM": "/s", "EHSM_CORE_KEYS": "99", "EHSM_CORE_APPS": "98", "EHSM_CORE_SEEN": "2000"}
	getenv := func(name string) string { return host[name] }
	settings, err := config.LoadCore(getenv)
	if err != nil {
		t.Fatal(err)
	}
	got, err := measured(fixedPlatform{environment: map[string]string{"EHSM_CORE_KEYS": "100", "EHSM_CORE_SEEN": "", "EHSM_CORE_PLATFORM": "sim"}}, settings, getenv)
	if err != nil || got.Keys != 100 || got.Apps != 98 || got.Seen != 262144 {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := measured(fixedPlatform{}.Platform, settings, getenv); err != nil || got != settings {
		t.Errorf("a platform without measured settings: got %+v, %v", got, err)
	}
	for name, row := range map[string]struct {
		environment map[string]string
		want        error
	}{
		"another platform": {map[string]string{"EHSM_CORE_PLATFORM": "gramine"}, errMeasured},
		"another daemon":   {map[string]string{"EHSM_CORE_SIM": "/other"}, errMeasured},
		"no daemon":        {map[string]string{"EHSM_CORE_SIM": ""}, config.ErrSetting},
		"malformed":        {map[string]string{"EHSM_CORE_KEYS": "many"}, config.ErrSetting},
	} {
		if _, err := measured(fixedPlatform{environment: row.environment}, settings, getenv); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", name, err, row.want)
		}
	}
}
