package acceptance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ehsm-kms/ehsm/internal/attest/acceptance"
)

// ErrDomain says that a directory with an acceptance request has more in it.
var ErrDomain = errors.New("an acceptance request lies beside other files; remove it to serve the domain")

// RunAsked runs an acceptance if the domain directory dir holds a request for
// one, writes the statement to out as one line, and reports whether it was asked.
//
// Thus what is measured and accepted is the program that serves: no argument,
// variable or manifest is another. The request needs no permission, for the host
// can keep a core from serving anyway. A run opens no domain, and refuses a
// directory that has one. Errors: ErrDomain, acceptance.ErrMalformed, those of Run.
func RunAsked(ctx context.Context, c Config, dir string, out io.Writer) (asked bool, err error) {
	b, err := readRequest(filepath.Join(dir, acceptance.RequestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return true, fmt.Errorf("read the acceptance request: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return true, fmt.Errorf("read the directory of the acceptance request: %w", err)
	}
	if len(entries) != 1 {
		return true, fmt.Errorf("%w: %s", ErrDomain, dir)
	}
	q, err := acceptance.DecodeRequest(b)
	if err != nil {
		return true, fmt.Errorf("acceptance request: %w", err)
	}
	s, err := Run(ctx, c, q)
	if err != nil {
		return true, fmt.Errorf("acceptance: %w", err)
	}
	if _, err := fmt.Fprintf(out, "%s\n", s.Encode()); err != nil {
		return true, fmt.Errorf("write the statement: %w", err)
	}
	return true, nil
}

func readRequest(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, acceptance.MaxRequest+1))
}
