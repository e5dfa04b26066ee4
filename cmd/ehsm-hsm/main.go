// Command ehsm-hsm is the sidecar of a hardware security module: it has the HSM,
// through its PKCS#11 library, wrap and unwrap one half of the seal keys of
// dkeyservers. It is a program of the host. Built without the tag pkcs11 it only
// says so.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/harden"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr, true))
}

const help = `ehsm-hsm has a hardware security module wrap and unwrap for ehsm-dkeyserver, in
a domain whose root is hsm. It sees one half of a key; the other is in the TEE.

  ehsm-hsm init-key LABEL
        Make a key in the token: AES-256, which never leaves it.
  ehsm-hsm check
        Look at the token and the keys of EHSM_HSM_KEYS, and try the first.
  ehsm-hsm serve
        Serve dkeyservers. The token may be missing, pulled or replaced: what
        comes meanwhile is refused. What the HSM says is in the log, and whoever
        asks learns only that it refuses.

The PIN is in a file that its owner alone can read. One that the token has refused
is not tried again until the file changes, as tokens count.

Settings, all from the environment:
`

// run does what args say. Confined, the process is hidden from others of its user
// for good, which is no life for one that runs tests.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer, confined bool) int {
	if len(args) == 0 {
		args = []string{"serve"}
	}
	var err error
	switch {
	case args[0] == "--help" || args[0] == "-h" || args[0] == "help":
		fmt.Fprint(stdout, help, config.DescribeHSM())
		return 0
	case args[0] == "--version" || args[0] == "version":
		fmt.Fprintln(stdout, "ehsm-hsm", api.Version, api.Commit())
		return 0
	case args[0] == "init-key" && len(args) == 2:
		err = with(getenv, confined, func(s config.HSM) error { return initKey(s, args[1], stdout) })
	case args[0] == "check" && len(args) == 1:
		err = with(getenv, confined, func(s config.HSM) error { return check(s, stdout) })
	case args[0] == "serve" && len(args) == 1:
		err = with(getenv, confined, func(s config.HSM) error { return serve(ctx, s, stderr) })
	default:
		fmt.Fprintf(stderr, "ehsm-hsm: unknown arguments %q\nehsm-hsm: hint: ehsm-hsm --help\n", args)
		return 2
	}
	if err != nil {
		fmt.Fprintf(stderr, "ehsm-hsm: %v\n", err)
		return 1
	}
	return 0
}

// with calls f with the settings, in a process that dumps no core with the PIN and
// that no other of its user debugs. System calls are not filtered: nobody knows
// which ones the library of an HSM makes.
func with(getenv func(string) string, confined bool, f func(config.HSM) error) error {
	settings, err := config.LoadHSM(getenv)
	if err != nil {
		return err
	}
	if confined {
		if _, err := harden.Hide(); err != nil {
			return err
		}
	}
	return f(settings)
}
