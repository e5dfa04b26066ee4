package auditsink

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// syncData makes the content of a file durable, and of what is known about the
// file as much as is needed to read it: its length, if that has changed, but not
// its times.
func syncData(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		switch err {
		case nil:
			return nil
		case unix.EINTR:
			continue
		}
		return fmt.Errorf("fdatasync %s: %w", f.Name(), err)
	}
}
