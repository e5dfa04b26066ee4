// Package e2e tests the programs as their users meet them: over HTTPS, with
// requests made from the written contract. It signs with code of its own, so
// that two wrong halves cannot agree with each other.
//
// The whole suite is a function of the target: `ehsm dev`, or `ehsm-kms` with
// `ehsm-core`, measured by `ehsm-simtee`, behind a unix socket or loopback TCP.
//
// Environment:
//
//	EHSM_E2E_BIN  a directory with programs to test instead of building them
//	EHSM_LONG     more rounds of what is random
package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/host/store/postgres/pgtest"
)

// bin is the directory of the programs under test, and failBin that of those that
// failing builds. Only TestMain sets them.
var bin, failBin string

// atOnce is how many tests run beside each other, unless -parallel says
// otherwise: more than there are processors, because most of them wait.
const atOnce = "8"

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	set := false
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == "test.parallel" })
	if !set {
		flag.Set("test.parallel", atOnce) // cannot fail: the flag exists
	}
	var err error
	if failBin, err = os.MkdirTemp("", "ehsm-e2e-fail-*"); err != nil {
		fmt.Fprintln(os.Stderr, "make a directory for the programs:", err)
		return 1
	}
	defer os.RemoveAll(failBin)
	if bin = os.Getenv("EHSM_E2E_BIN"); bin != "" {
		return pgtest.Main(m)
	}
	dir, err := os.MkdirTemp("", "ehsm-e2e-bin-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, "make a directory for the programs:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-o", dir+string(filepath.Separator),
		"./cmd/ehsm", "./cmd/ehsm-simtee", "./cmd/ehsm-core", "./cmd/ehsm-kms",
		"./cmd/ehsm-dkeycache", "./cmd/ehsm-dkeyserver")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the programs: %v\n%s", err, out)
		return 1
	}
	bin = dir
	return pgtest.Main(m)
}

// rounds is how often a random test repeats itself: few times in the gate, many
// with EHSM_LONG.
func rounds(gate, long int) int {
	if os.Getenv("EHSM_LONG") != "" {
		return long
	}
	return gate
}
