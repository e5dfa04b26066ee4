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
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
)

// ErrDomain says that an acceptance request lies where a domain is.
var ErrDomain = errors.New("an acceptance request lies in the directory of a domain; remove it to serve the domain")

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
	for _, name := range []string{domainkey.GenesisFile, domainkey.BundleFile} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return true, fmt.Errorf("%w: %s has %s", ErrDomain, dir, name)
		}
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
