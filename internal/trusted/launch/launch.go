// Package launch is how every program in a TEE starts: it opens the platform that
// is asked for, takes what is measured before what the host says, finds memory for
// keys, and takes from the process what it does not need.
//
// It trusts the platform to measure. It hides nothing.
package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/gramine"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim/remote"
)

// daemonStart is how long a program waits for a daemon that is started beside it.
const daemonStart = 10 * time.Second

// A Program is what was built.
type Program struct {
	Name    string // of the executable, such as "ehsm-core"
	Prefix  string // of its settings, such as "EHSM_CORE_"
	Product uint16 // ISVPRODID, its role
	SVN     uint16 // ISVSVN; an enclave must be signed with it
}

// Open opens the TEE with a name. One that is not there is an error, never another
// one. Which ones a program has depends on its build tags; the files platform_*.go
// say so, and trusted-deps*.txt list what each brings. socket is that of
// ehsm-simtee, for the platform sim. It says on stderr what was found. Errors:
// tee.ErrNoPlatform, and those of the platform.
func (p Program) Open(ctx context.Context, name, socket string, stderr io.Writer) (tee.Platform, error) {
	t, err := p.open(ctx, name, socket, stderr)
	if err != nil {
		return nil, err
	}
	id := t.Identity()
	fmt.Fprintf(stderr, "%s: platform %s: measurement %x, signer %x%s, product %d, version %d\n",
		p.Name, t.Name(), id.Measurement, id.Signer, signedBy(t), id.Product, id.SVN)
	if id.Debug {
		fmt.Fprintf(stderr, "%s: debug TEE: the host can read all keys\n", p.Name)
	}
	return t, nil
}

func (p Program) open(ctx context.Context, name, socket string, stderr io.Writer) (tee.Platform, error) {
	switch name {
	case "sim":
		return p.openSim(ctx, socket, stderr)
	case "gramine":
		// Not a setting: a host that chose the directory would choose the keys.
		return gramine.Open(gramine.Dir(gramine.DefaultDir), p.Product, p.SVN)
	case "ego":
		return p.openEGo()
	case "tsm":
		return p.openTSM()
	}
	return nil, fmt.Errorf("%w: %q is none of sim, gramine, ego, tsm", tee.ErrNoPlatform, name)
}

// openSim has ehsm-simtee measure this program.
func (p Program) openSim(ctx context.Context, socket string, stderr io.Writer) (*remote.Machine, error) {
	fmt.Fprintf(stderr, "%s: simulated TEE: keys are not protected by hardware, only by file permissions\n", p.Name)
	if info, err := os.Stat(socket); err == nil && info.IsDir() {
		return nil, fmt.Errorf("%w: %sSIM is the directory %s; run ehsm-simtee serve --dir on it, and name its socket", tee.ErrNoPlatform, p.Prefix, socket)
	}
	limit, cancel := context.WithTimeout(ctx, daemonStart)
	defer cancel()
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		m, err := remote.Dial(ctx, socket, p.Product, p.SVN)
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

// signedBy says who signed the program, for the line at start.
func signedBy(t tee.Platform) string {
	if d, ok := t.(interface{ DevelopmentSigner() bool }); ok && d.DevelopmentSigner() {
		return " (the machine's development signer: nobody signed this program)"
	}
	return ""
}

// A configured platform has measured settings that the host cannot override.
type configured interface{ Environment() map[string]string }

// Measured returns a getenv that has the settings that t has measured before those
// of the host. ok is false where there are none: an enclave's environment is fixed
// by its run-time.
func Measured(t tee.Platform, getenv func(string) string) (measured func(string) string, ok bool) {
	c, ok := t.(configured)
	if !ok {
		return getenv, false
	}
	environment := c.Environment()
	return func(name string) string {
		if value, ok := environment[name]; ok {
			return value
		}
		return getenv(name)
	}, true
}
