package hsm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// maxPIN is the most bytes of a PIN.
const maxPIN = 255

// ErrPIN is returned for a file that is no PIN, or that others can read, and for a
// PIN that the token has refused.
var ErrPIN = errors.New("PIN")

// ReadPIN reads a PIN from a file: one line, with or without its end, of a file that
// belongs to this user or to root and that nobody else reads or writes. The caller
// clears it. Errors: ErrPIN, those of the system.
func ReadPIN(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO would wait
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPIN, err)
	}
	defer f.Close()
	info, err := f.Stat() // of what is open: the name may lead elsewhere by now
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPIN, err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%w: %s is no regular file", ErrPIN, path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%w: %s has mode %#o, others can read or write it; chmod 600 it", ErrPIN, path, info.Mode().Perm())
	case !ok || int(owner.Uid) != os.Geteuid() && owner.Uid != 0:
		return nil, fmt.Errorf("%w: %s belongs to another user", ErrPIN, path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxPIN+3))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPIN, err)
	}
	pin := bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if len(pin) == 0 || len(pin) > maxPIN || bytes.ContainsAny(pin, "\x00\r\n") {
		clear(b)
		return nil, fmt.Errorf("%w: %s has not one line of 1 to %d bytes", ErrPIN, path, maxPIN)
	}
	return pin, nil
}
