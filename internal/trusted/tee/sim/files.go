package sim

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
)

// Files of a simulated machine; all have mode 0600.
const (
	machineFile = "machine.secret" // 32 bytes, the processor's fuse key
	pckFile     = "pck.pem"        // PCK certificate, its key, the certificates above
	fleetFile   = "fleet.pem"      // in the fleet's directory: its three authorities

	// SignerFile is the Ed25519 seed, 32 bytes, of the development signer.
	SignerFile = "signer.seed"
	// FleetDir is where a machine keeps its fleet unless Options say otherwise.
	FleetDir = "fleet"
)

const (
	seedSize = 32
	maxPEM   = 64 << 10 // bytes; a fleet has less than 4 KiB
)

// create makes the keys of a new machine if dir is missing or empty.
func create(dir string) error {
	names, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(names) > 0 {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	// Built aside and renamed, so that a crash leaves no half machine.
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".sim-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	for _, name := range []string{machineFile, SignerFile} {
		seed := make([]byte, seedSize)
		rand.Read(seed) // never fails
		if err := writeSynced(filepath.Join(tmp, name), seed); err != nil {
			return err
		}
	}
	if err := syncDir(tmp); err != nil {
		return err
	}
	// os.Rename replaces no directory, and Remove none that has files: another
	// process has then made the machine in the meantime.
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return notIf(err, syscall.ENOTEMPTY)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return notIf(err, fs.ErrExist, syscall.ENOTEMPTY)
	}
	return syncDir(filepath.Dir(dir)) // or a crash could lose it, with all it sealed
}

// notIf returns err unless it is one of the others.
func notIf(err error, others ...error) error {
	for _, other := range others {
		if errors.Is(err, other) {
			return nil
		}
	}
	return err
}

// writeNew makes a file that is not there yet, whole or not at all. A file that
// another process has made in the meantime stays.
func writeNew(path string, b []byte) error {
	dir := filepath.Dir(path)
	tmp, err := os.MkdirTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	aside := filepath.Join(tmp, filepath.Base(path))
	if err := writeSynced(aside, b); err != nil {
		return err
	}
	if err := os.Link(aside, path); err != nil {
		return notIf(err, fs.ErrExist)
	}
	return syncDir(dir)
}

// replace writes a public file whole, in place of an older one.
func replace(path string, b []byte) error {
	dir := filepath.Dir(path)
	tmp, err := os.MkdirTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	aside := filepath.Join(tmp, filepath.Base(path))
	if err := writeSynced(aside, b); err != nil {
		return err
	}
	if err := os.Chmod(aside, 0o644); err != nil {
		return err
	}
	if err := os.Rename(aside, path); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return err
	}
	return f.Sync()
}

// readPrivate reads a file that only its owner may read.
func readPrivate(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s may be read by others: chmod 600 it", path)
	}
	return readAtMost(f, path, limit)
}

func readSeed(path string) (secret.Bytes, error) {
	b, err := readPrivate(path, seedSize+1)
	if err != nil {
		return secret.Bytes{}, err
	}
	if len(b) != seedSize {
		return secret.Bytes{}, fmt.Errorf("%s has %d bytes, want %d", path, len(b), seedSize)
	}
	return secret.New(b), nil
}
