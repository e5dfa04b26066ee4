package launch

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

// ErrMeasured says that the host's settings lead to another platform than those
// that the platform has measured.
var ErrMeasured = errors.New("the measured configuration has another value")

// A Placed is settings that say where a program runs, such as config.DKeyCache.
type Placed interface {
	// TEE returns the name of the platform, and the socket of ehsm-simtee.
	TEE() (platform, socket string)
}

// A Process is what surrounds the program.
type Process struct {
	Getenv func(string) string
	Stderr io.Writer
	// Confined says that the process can do nothing else afterwards, which is no
	// life for one that runs tests.
	Confined bool
}

// Begin is what a program that connects to others does before it has keys: it
// loads the host's settings, opens the platform that they name, hides the process,
// and reads the settings again with those that were measured. The caller shuts the
// cage when all is open. Errors: those of load, Program.Open and Settle.
func Begin[S Placed](ctx context.Context, program Program, load func(getenv func(string) string) (S, error), p Process) (settings S, t tee.Platform, cage *Cage, err error) {
	if settings, err = load(p.Getenv); err != nil {
		return settings, nil, nil, err
	}
	platform, socket := settings.TEE()
	cage = program.NewCage(platform, p.Confined, true)
	if t, err = program.Open(ctx, platform, socket, p.Stderr); err != nil {
		return settings, nil, nil, err
	}
	if err = cage.Hide(); err != nil {
		return settings, nil, nil, err
	}
	settings, err = Settle(t, settings, load, p.Getenv)
	return settings, t, cage, err
}

// Settle reads settings again, with those that platform t has measured before those
// of the host. Which platform it is was the host's to say, so what says so cannot be
// among the measured ones with other values. Errors: ErrMeasured, and those of load.
func Settle[S Placed](t tee.Platform, host S, load func(getenv func(string) string) (S, error), getenv func(string) string) (S, error) {
	measured, ok := Measured(t, getenv)
	if !ok {
		return host, nil
	}
	again, err := load(measured)
	if err != nil {
		return again, fmt.Errorf("measured configuration: %w", err)
	}
	platform, socket := host.TEE()
	if p, s := again.TEE(); p != platform || s != socket {
		return again, fmt.Errorf("%w: platform %s, %s", ErrMeasured, p, s)
	}
	return again, nil
}
