package nodes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
)

// Names of the programs.
const (
	programTEE    = "ehsm-simtee"
	programServer = "ehsm-dkeyserver"
	programCache  = "ehsm-dkeycache"
	programCore   = "ehsm-core"
	programKMS    = "ehsm-kms"
)

// ErrPrograms is returned where programs are missing.
var ErrPrograms = errors.New("programs are missing")

func checkPrograms(dir string) error {
	var missing []string
	for _, name := range []string{programTEE, programServer, programCache, programCore, programKMS} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o100 == 0 {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: %s must be in %s, beside ehsm", ErrPrograms, strings.Join(missing, ", "), dir)
	}
	return nil
}

// svn is the security version of the programs.
const svn = 1

// copyPrograms puts the programs of TEEs, signed, into a directory: what runs stays
// the same when the originals are built again, and one signer admits all builds.
func copyPrograms(from, to, signer string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	if _, err := os.Lstat(signer); errors.Is(err, fs.ErrNotExist) {
		if err := sim.NewSigner(signer); err != nil {
			return err
		}
	}
	for i, name := range teePrograms() {
		b, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return fmt.Errorf("copy programs: %w", err)
		}
		path := filepath.Join(to, name)
		if err := replace(path, b, 0o700); err != nil {
			return fmt.Errorf("copy programs: %w", err)
		}
		if _, err := sim.SignFile(path, signer, uint16(i+1), svn, false); err != nil {
			return fmt.Errorf("sign %s: %w", path, err)
		}
	}
	return nil
}

// teePrograms are those that a manifest admits, the product number one less than
// each in the order.
func teePrograms() []string { return []string{programCore, programCache, programServer} }

// replace writes a file as a whole.
func replace(path string, b []byte, mode fs.FileMode) error {
	next := path + ".new"
	if err := os.WriteFile(next, b, mode); err != nil {
		return err
	}
	return os.Rename(next, path)
}
