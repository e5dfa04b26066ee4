package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim/remote"
)

// daemonStart is how long the program waits for a daemon that is started beside
// it.
const daemonStart = 10 * time.Second

// errMeasured is returned where the host's settings lead to another platform than
// the measured ones.
var errMeasured = errors.New("the measured configuration has another value")

// openSim has ehsm-simtee measure this program.
func openSim(ctx context.Context, socket string, stderr io.Writer) (*remote.Machine, error) {
	fmt.Fprintln(stderr, "ehsm-core: simulated TEE: keys are not protected by hardware, only by file permissions")
	if info, err := os.Stat(socket); err == nil && info.IsDir() {
		return nil, fmt.Errorf("%w: EHSM_CORE_SIM is the directory %s; run ehsm-simtee serve --dir on it, and name its socket", tee.ErrNoPlatform, socket)
	}
	limit, cancel := context.WithTimeout(ctx, daemonStart)
	defer cancel()
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		m, err := remote.Dial(ctx, socket, tee.ProductCore, svn)
		if !errors.Is(err, tee.ErrNoPlatform) {
			return m, err
		}
		select {
		case <-limit.Done():
			return nil, err
		case <-time.After(wait):
		}
	}
}

// A configured platform has measured settings that the host cannot override.
type configured interface{ Environment() map[string]string }

// measured reads the settings again, with those that platform p has measured
// before those of the host. Which platform it is was the host's to say, so these
// two cannot be among them with other values.
func measured(p tee.Platform, settings config.Core, getenv func(string) string) (config.Core, error) {
	c, ok := p.(configured)
	if !ok {
		return settings, nil // an enclave's environment is fixed by its run-time
	}
	environment := c.Environment()
	again, err := config.LoadCore(func(name string) string {
		if value, ok := environment[name]; ok {
			return value
		}
		return getenv(name)
	})
	if err != nil {
		return again, fmt.Errorf("measured configuration: %w", err)
	}
	if again.Platform != settings.Platform || again.Sim != settings.Sim {
		return again, fmt.Errorf("%w: platform %s, %s", errMeasured, again.Platform, again.Sim)
	}
	return again, nil
}

// signedBy says who signed the program, for the line at start.
func signedBy(p tee.Platform) string {
	if d, ok := p.(interface{ DevelopmentSigner() bool }); ok && d.DevelopmentSigner() {
		return " (the machine's development signer: nobody signed this program)"
	}
	return ""
}
