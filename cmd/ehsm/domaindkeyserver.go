package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"
)

// dkeyserverName is the program that makes, restores and keeps the DomainKey.
const dkeyserverName = "ehsm-dkeyserver"

// A dkeyserver is ehsm-dkeyserver of this machine, run for one command in its TEE. Its
// settings are in the environment.
type dkeyserver struct {
	app     *app
	program string // path; empty: beside this program, or in the PATH
}

func (c *dkeyserver) flag(f *pflag.FlagSet) {
	f.StringVar(&c.program, "dkeyserver", "", "`path` of ehsm-dkeyserver")
}

// directory is where the program has its domain.
func (c *dkeyserver) directory() string {
	return cmp.Or(c.app.getenv("EHSM_DKEYSERVER_DOMAIN"), "/var/lib/ehsm/domain")
}

// find looks for the program: where the flag says, beside this one, in the PATH.
func (c *dkeyserver) find() (string, error) {
	if c.program != "" {
		return exec.LookPath(c.program)
	}
	if self, err := os.Executable(); err == nil {
		if path, err := exec.LookPath(filepath.Join(filepath.Dir(self), dkeyserverName)); err == nil {
			return path, nil
		}
	}
	return exec.LookPath(dkeyserverName)
}

// do runs a command, its name first, and returns what it prints; what it says goes
// to standard error. When ctx ends the program is asked to end. elsewhere says how to
// do without it, again what to do once it failed.
func (c *dkeyserver) do(ctx context.Context, command []string, elsewhere, again string) (string, error) {
	path, err := c.find()
	if err != nil {
		return "", withHint(fmt.Errorf("find ehsm-dkeyserver: %w", err), "--dkeyserver names it; "+elsewhere+": "+strings.Join(quoteAll(command), " "))
	}
	cmd := exec.CommandContext(ctx, path, command[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, c.app.stderr
	if err := cmd.Run(); err != nil {
		return "", withHint(fmt.Errorf("%s: %w", strings.Join(command[:2], " "), err), again)
	}
	return out.String(), nil
}

func quoteAll(args []string) []string {
	all := slices.Clone(args)
	for i, s := range all {
		all[i] = quoteArg(s)
	}
	return all
}
