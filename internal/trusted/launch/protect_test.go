package launch

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ehsm-kms/ehsm/internal/harden"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

// testProgram is a core's, for its name.
var testProgram = Program{Name: "ehsm-core", Prefix: "EHSM_CORE_", Product: tee.ProductCore, SVN: 1}

const cageEnv = "EHSM_TEST_CAGE_OF"

// TestCage looks at what each platform takes from the process, in child processes.
func TestCage(t *testing.T) {
	if platform, ok := os.LookupEnv(cageEnv); ok {
		cagedProcess(t, platform)
		return
	}
	if !harden.Probe().Seccomp {
		t.Skip("seccomp is missing: it takes Linux with CONFIG_SECCOMP_FILTER")
	}
	for _, row := range []struct {
		platform       string
		caged, sockets bool
	}{
		{"sim", true, true},
		{"tsm", true, false},
		{"gramine", false, true},
		{"ego", false, true},
	} {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestCage$", "-test.v")
		cmd.Env = append(os.Environ(), cageEnv+"="+row.platform)
		out, err := cmd.CombinedOutput()
		exit, ok := errors.AsType[*exec.ExitError](err)
		killed := ok && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGSYS
		said := bytes.Contains(out, []byte("ehsm-core: confined: no core dumps, no debuggers, no new privileges, no other programs"))
		hidden := bytes.Contains(out, []byte("dumpable 0"))
		sockets := bytes.Contains(out, []byte("socket: <nil>"))
		if killed != row.caged || said != row.caged || hidden != row.caged || sockets != row.sockets {
			t.Errorf("%s: %v, killed %v, said %v, hidden %v, sockets %v: %s", row.platform, err, killed, said, hidden, sockets, out)
		}
	}
}

// cagedProcess tells what it can do, and ends by executing a program if it can.
func cagedProcess(t *testing.T, platform string) {
	c := testProgram.NewCage(platform, true, false)
	if err := c.Hide(); err != nil {
		t.Fatal(err)
	}
	if err := c.Shut(os.Stdout); err != nil {
		t.Fatal(err)
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	_, socket := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	os.Stdout.WriteString(strings.Join([]string{"", "dumpable " + string(rune('0'+dumpable)), "socket: " + text(socket), text(err), ""}, "\n"))
	syscall.Exec("/nonexistent", nil, nil)
}

func text(err error) string {
	if err == nil {
		return "<nil>"
	}
	return err.Error()
}

// TestHomeOfKeys has the memory of each platform.
func TestHomeOfKeys(t *testing.T) {
	for platform, ordinary := range map[string]bool{"sim": false, "tsm": false, "gramine": true, "ego": true} {
		var stderr bytes.Buffer
		home, err := testProgram.OpenHome(platform, &stderr)
		if err != nil {
			t.Fatal(err)
		}
		testProgram.DescribeHome(home, &stderr)
		if got := strings.Contains(stderr.String(), "keys in ordinary memory"); got != ordinary {
			t.Errorf("%s: %s", platform, &stderr)
		}
		home.Close()
	}
}
