package fence

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	"github.com/landlock-lsm/go-landlock/landlock/syscall"

	"github.com/ehsm-kms/ehsm/internal/harden"
)

// Rights below a directory, and of one file. None allows to execute, to make
// devices, or to link in from elsewhere.
const (
	readFile  = landlock.AccessFSSet(syscall.AccessFSReadFile)
	readDir   = readFile | syscall.AccessFSReadDir
	writeTree = readDir | syscall.AccessFSWriteFile | syscall.AccessFSTruncate |
		syscall.AccessFSMakeReg | syscall.AccessFSMakeDir | syscall.AccessFSMakeSock |
		syscall.AccessFSRemoveFile | syscall.AccessFSRemoveDir
)

// restrict closes off all files but p.
func restrict(p Paths) (harden.Report, error) {
	if harden.Probe().Landlock == 0 {
		return harden.Report{Missing: []string{"closed off files (this kernel has no landlock)"}}, nil
	}
	rules := make([]landlock.Rule, 0, len(p.Write)+len(p.Read)+len(clock))
	for _, path := range p.Write {
		rules = append(rules, landlock.PathAccess(writeTree, path))
	}
	for _, path := range append(clock[:], p.Read...) {
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return harden.Report{}, fmt.Errorf("close off files: %w", err)
		case info.IsDir():
			rules = append(rules, landlock.PathAccess(readDir, path))
		default:
			rules = append(rules, landlock.PathAccess(readFile, path))
		}
	}
	// Version 5 is about files only. What earlier kernels do not know of it stays
	// open there: truncating files before 6.2, device controls before 6.10.
	if err := landlock.V5.BestEffort().RestrictPaths(rules...); err != nil {
		return harden.Report{}, fmt.Errorf("close off files: %w", err)
	}
	return harden.Report{Applied: []string{"files closed off but for " + strings.Join(p.Write, ", ")}}, nil
}
