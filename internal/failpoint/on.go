//go:build failpoints

package failpoint

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"
)

// Variable is the environment variable that names the file.
const Variable = "EHSM_FAILPOINTS"

// Hit does what the file says of a point. detail is what the point is about, such
// as the name of a file or a role. Errors: syscall.ENOSPC.
func Hit(point, detail string) error {
	for told := false; ; told = true {
		action := asked(point, detail)
		if action != "" && !told {
			fmt.Fprintf(os.Stderr, "failpoint: %s %s %s\n", point, detail, action)
		}
		switch action {
		case "kill":
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until the signal arrives
		case "full":
			return &fs.PathError{Op: "write", Path: detail, Err: syscall.ENOSPC}
		case "block":
			time.Sleep(5 * time.Millisecond) // the file has no other way to say when
		default:
			return nil
		}
	}
}

// asked is the action of the first line for a point.
func asked(point, detail string) string {
	b, err := os.ReadFile(os.Getenv(Variable))
	if err != nil {
		return "" // no file, no failure
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == point && (f[1] == "*" || f[1] == detail) {
			return f[2]
		}
	}
	return ""
}
