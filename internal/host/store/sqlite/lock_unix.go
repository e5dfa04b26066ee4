//go:build darwin || freebsd || linux

package sqlite

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lock takes the lock of the database at path for this process, or for this
// Open if the process has it open already. The lock ends with the process,
// however it ends. SQLite's own locks would let two managers take turns; but a
// second one has its own writer, caches and replay checks, and is a mistake.
func lock(path string) (*os.File, error) {
	name := path + ".lock"
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("%w: another process holds %s; stop it, or give this one a database of its own", ErrLocked, name)
	}
	return nil, fmt.Errorf("lock %s: %w", name, err)
}
