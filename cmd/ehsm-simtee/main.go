// Command ehsm-simtee is the simulated TEE: it measures the programs that connect
// to its socket and is their processor, signs programs, and issues collateral
// about its machines. Nothing of it is protected by hardware.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/ehsm-kms/ehsm/api"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(env{ctx, os.Stdout, os.Stderr, true}, os.Args[1:]))
}

const help = `ehsm-simtee is a simulated TEE, for machines without one. It protects nothing.

  ehsm-simtee serve --dir DIR --socket PATH [--fleet DIR] [--no-seal-key]
        Be the processor of the programs that connect, such as ehsm-core with
        EHSM_CORE_SIM=PATH. DIR is the machine; it is made if it is missing.
        Machines that share the directory of --fleet have one root. Once it
        serves, it can start no programs and make no sockets. With --no-seal-key
        it gives no seal keys, as TDX and SEV-SNP do not.
  ehsm-simtee sign --key FILE --product N --svn N [--debug] [--new-key] PROGRAM
        Write PROGRAM.sigsim, which says who signed it and as what. FILE holds
        32 bytes; --new-key makes it. PROGRAM.env, lines of NAME=VALUE, is
        measured with the program.
  ehsm-simtee measure [--output json] PROGRAM
        Print what the machine measures of PROGRAM.
  ehsm-simtee collateral --dir DIR [--fleet DIR] [--out FILE]
        Write collateral about the machine, valid for 30 days, and beside it
        root.pem. FILE is collateral.bin by default.
`

// errUsage is wrapped by the errors of those who called it wrongly.
var errUsage = errors.New("usage")

// env is what the commands are given.
type env struct {
	ctx            context.Context
	stdout, stderr io.Writer
	confined       bool // serve confines the process for good, which tests could not do with
}

func run(e env, args []string) int {
	err := dispatch(e, args)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(e.stdout, help)
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintf(e.stderr, "ehsm-simtee: %v\nehsm-simtee: hint: ehsm-simtee --help\n", err)
		return 2
	}
	fmt.Fprintf(e.stderr, "ehsm-simtee: %v\n", err)
	return 1
}

func dispatch(e env, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: no command", errUsage)
	}
	switch args[0] {
	case "serve":
		return serve(e, args[1:])
	case "sign":
		return sign(e, args[1:])
	case "measure":
		return measure(e, args[1:])
	case "collateral":
		return collateral(e, args[1:])
	case "--help", "-h", "help":
		fmt.Fprint(e.stdout, help)
		return nil
	case "--version", "version":
		fmt.Fprintln(e.stdout, "ehsm-simtee", api.Version, api.Commit())
		return nil
	}
	return fmt.Errorf("%w: unknown command %q", errUsage, args[0])
}

// newFlags makes the flags of a command, whose errors are ours to print.
func newFlags(name string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	return f
}

// parse reads flags before, between and after the operands, of which there must
// be want, and the named flags, which must be set.
func parse(f *flag.FlagSet, args []string, want int, required ...string) ([]string, error) {
	var operands []string
	for {
		if err := f.Parse(args); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", errUsage, f.Name(), err)
		}
		if f.NArg() == 0 {
			break
		}
		operands, args = append(operands, f.Arg(0)), f.Args()[1:]
	}
	if len(operands) != want {
		return nil, fmt.Errorf("%w: %s: %d operands, want %d", errUsage, f.Name(), len(operands), want)
	}
	set := map[string]bool{}
	f.Visit(func(f *flag.Flag) { set[f.Name] = true })
	for _, name := range required {
		if !set[name] {
			return nil, fmt.Errorf("%w: %s: no --%s", errUsage, f.Name(), name)
		}
	}
	return operands, nil
}

// number is a flag of 16 bits.
type number uint16

func (n *number) String() string { return fmt.Sprint(uint16(*n)) }

// Set implements flag.Value.
func (n *number) Set(text string) error {
	v, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return errors.New("want a number from 0 to 65535")
	}
	*n = number(v)
	return nil
}
