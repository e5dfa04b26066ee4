package domainkey

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
)

// Names of the files of a domain directory.
const (
	GenesisFile = "genesis.json"
	BundleFile  = "domainkey.sealed"
)

// ErrSimulated is returned where a platform that protects nothing meets a domain
// that does not allow it: a simulated one, or a TEE in debug mode.
var ErrSimulated = errors.New("this domain does not allow simulated platforms")

// Create makes a domain of a single node in dir, which must not exist: its
// DomainKey, its signing key, the sealed bundle and the genesis, whose format,
// creation time and domain key it fills in. Errors: ErrSimulated, tee.ErrNoSealKey.
func Create(dir string, p tee.Platform, g genesis.Genesis, now time.Time) error {
	dir = filepath.Clean(dir) // "domain/" would be its own parent
	if err := admit(p, g); err != nil {
		return err
	}
	switch _, err := os.Lstat(dir); {
	case err == nil:
		return fmt.Errorf("create a domain in %s: it exists already", dir)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("create a domain: %w", err)
	}
	versions, signing := generate()
	defer func() {
		for _, key := range append(versions, signing) {
			key.Zero()
		}
	}()
	g.Format, g.Created, g.DomainKey = genesis.Format, now.UTC().Truncate(time.Second), publicKey(signing)
	encoded, err := g.Encode()
	if err != nil {
		return err
	}
	_, domain, err := genesis.Parse(encoded)
	if err != nil {
		return err
	}
	var bundle []byte
	secret.Do(func() { bundle, err = seal(p, domain, versions, signing) })
	if err != nil {
		return err
	}
	return writeDomain(dir, map[string][]byte{GenesisFile: encoded, BundleFile: bundle})
}

// admit refuses a platform whose keys the host can read where the domain asks
// for better.
func admit(p tee.Platform, g genesis.Genesis) error {
	switch {
	case g.AllowSim:
		return nil
	case p.Simulated():
		return ErrSimulated
	case p.Identity().Debug:
		return fmt.Errorf("%w, nor TEEs in debug mode", ErrSimulated)
	}
	return nil
}

// writeDomain writes all files or none: they appear with the rename of their
// directory.
func writeDomain(dir string, files map[string][]byte) error {
	parent := filepath.Dir(dir)
	tmp, err := os.MkdirTemp(parent, ".domain-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	for name, b := range files {
		if err := writeSynced(filepath.Join(tmp, name), b); err != nil {
			return err
		}
	}
	if err := syncDir(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	return syncDir(parent)
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

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Open opens the domain in dir, with its keys in home, which must stay open as
// long as they are used. It never makes a new key: a missing, foreign or damaged
// file is an error. Errors: ErrSeal, ErrSimulated, genesis.ErrInvalid,
// tee.ErrNoSealKey, secret.ErrMemory, fs.ErrNotExist for a missing file.
func Open(dir string, p tee.Platform, home *secret.Home) (*Keyring, genesis.Genesis, error) {
	g, domain, err := readGenesis(dir)
	if err != nil {
		return nil, g, err
	}
	if err := admit(p, g); err != nil {
		return nil, g, err
	}
	// No platform gives a key for this request; one without keys says so before
	// the operator looks for a bundle that cannot exist.
	if _, err := p.SealKey(tee.KeyRequest{}); errors.Is(err, tee.ErrNoSealKey) {
		return nil, g, cannotSeal(err)
	}
	bundle, err := readLimited(filepath.Join(dir, BundleFile))
	if err != nil {
		return nil, g, fmt.Errorf("%w: restore %s from a backup of this machine: %w", ErrSeal, BundleFile, err)
	}
	var keys *Keyring
	secret.Do(func() { keys, err = unseal(home, p, g, domain, bundle) })
	if err != nil {
		return nil, g, fmt.Errorf("open %s: %w", filepath.Join(dir, BundleFile), err)
	}
	return keys, g, nil
}

func readGenesis(dir string) (genesis.Genesis, genesis.ID, error) {
	path := filepath.Join(dir, GenesisFile)
	b, err := readLimited(path)
	if err != nil {
		return genesis.Genesis{}, genesis.ID{}, fmt.Errorf("read the genesis: %w", err)
	}
	g, id, err := genesis.Parse(b)
	if err != nil {
		return g, id, fmt.Errorf("read %s: %w", path, err)
	}
	return g, id, nil
}

// readLimited reads a file of the host's into memory, and no more of it than
// shows that it is too long.
func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxBundle+1))
}
