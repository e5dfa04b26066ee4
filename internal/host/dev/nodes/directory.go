package nodes

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/host/dev"
)

// What a directory holds, beside node1, node2 and so on.
const (
	binDir       = "bin"        // the programs that the machines run, signed
	fleetDir     = "fleet"      // the root of all machines
	signerFile   = "signer"     // the key that has signed the programs
	databaseFile = "database"   // URL of the PostgreSQL that was named
	postgresDir  = "postgres"   // the PostgreSQL that was not named
	draftFile    = "draft.json" // what the genesis is made of
	pidFile      = "dev.pid"    // of the running ehsm dev; it is also the lock
)

// What the directory of a node holds, beside NAME.log and NAME.pid of each program.
const (
	machineDir     = "machine"        // the simulated machine
	domainDir      = "domain"         // of its dkeyserver
	auditDir       = "audit"          // the trail
	ownDir         = "collateral"     // what the manager remembers
	collateralFile = "collateral.bin" // of the machine
	teeSocket      = "tee.sock"
	cacheSocket    = "cache.sock"
	coreSocket     = "core.sock"
)

// maxSocket is the longest path of a unix socket, in bytes.
const maxSocket = 107

// longestSocket is that of a directory.
var longestSocket = filepath.Join("node1", domainDir, config.DoorFile)

// ErrDirectory is returned for a directory in which no domain of nodes can be.
var ErrDirectory = errors.New("this directory cannot be used")

// Exists reports whether dir has a domain of nodes, perhaps one that was not
// completed.
func Exists(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, "node1"))
	return err == nil
}

// checkDirectory finds out whether a domain of nodes can be, or is, in dir.
func checkDirectory(dir string, nodes int) error {
	if nodes < 1 || nodes > Most {
		return fmt.Errorf("%w: %d nodes, want 1 to %d", ErrDirectory, nodes, Most)
	}
	if path := filepath.Join(dir, longestSocket); len(path) > maxSocket {
		return fmt.Errorf("%w: sockets below %s would have names of %d bytes, and %d are allowed", ErrDirectory, dir, len(path), maxSocket)
	}
	for _, name := range []string{dev.DomainDir, dev.StoreFile} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return fmt.Errorf("%w: %s has a domain of one process, which has no nodes", ErrDirectory, dir)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	return checkLost(dir)
}

// checkLost refuses a directory whose records nobody could open any more. A domain
// is made before its database, so one without the other was not made here.
func checkLost(dir string) error {
	there := func(name string) bool {
		_, err := os.Lstat(filepath.Join(dir, name))
		return !errors.Is(err, fs.ErrNotExist)
	}
	domain := filepath.Join("node1", domainDir)
	var gone string
	switch {
	case !there(domain) && (there(databaseFile) || there(postgresDir)):
		gone = domain
	case there(domain):
		for _, name := range []string{filepath.Join("node1", machineDir), fleetDir, signerFile} {
			if !there(name) {
				gone = name
			}
		}
	}
	if gone == "" {
		return nil
	}
	return fmt.Errorf("%w: %s is gone, and without it no record opens; restore it from a backup, or choose an empty directory", dev.ErrLost, filepath.Join(dir, gone))
}

// lock makes sure that one process alone runs what is in dir.
func lock(dir string) (*os.File, error) {
	path := filepath.Join(dir, pidFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		other, _ := os.ReadFile(path)
		f.Close()
		return nil, fmt.Errorf("%w: process %s runs the domain in %s", ErrDirectory, bytes.TrimSpace(other), dir)
	}
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// unlock gives the directory back.
func unlock(f *os.File) error {
	os.Remove(f.Name())
	return f.Close()
}
