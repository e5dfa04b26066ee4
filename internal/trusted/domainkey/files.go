package domainkey

import (
	"crypto"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ehsm-kms/ehsm/internal/failpoint"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// Names of the files of a domain directory.
const (
	GenesisFile = manifest.GenesisFile
	BundleFile  = "domainkey.sealed"
)

// ErrSimulated is returned where a platform that protects nothing meets a domain
// that does not allow it: a simulated one, or a TEE in debug mode.
var ErrSimulated = errors.New("this domain does not allow simulated platforms")

// Create makes a domain of a single node in dir, which must not exist: its
// DomainKey, its signing key, the sealed bundle, and the genesis that completes
// d. operators sign the genesis at once, those of a domain that nobody means to
// keep; otherwise people do, and Open refuses the domain until they have. Errors:
// ErrSimulated, ErrRoot, tee.ErrNoSealKey, manifest.ErrInvalid.
func Create(dir string, p tee.Platform, d *manifest.Draft, now time.Time, operators ...crypto.Signer) error {
	return createDomain(dir, p, d, nil, now, operators)
}

// createDomain is Create, with a recovery key unless r is nil.
func createDomain(dir string, p tee.Platform, d *manifest.Draft, r RecoveryKey, now time.Time, operators []crypto.Signer) error {
	dir = filepath.Clean(dir) // "domain/" would be its own parent
	if err := admit(p, &d.Terms); err != nil {
		return err
	}
	if err := absent(dir); err != nil {
		return err
	}
	versions, signing := generate()
	defer func() {
		for _, key := range append(versions, signing) {
			key.Zero()
		}
	}()
	var public *manifest.Recovery
	if r != nil {
		public = r.Public()
	}
	m := d.Complete(publicKey(signing), public, now)
	for _, o := range operators {
		if err := m.Sign(o); err != nil {
			return err
		}
	}
	encoded, err := m.Encode()
	if err != nil {
		return err
	}
	name, secured := BundleFile, []byte(nil)
	if tee.Seals(p) {
		secret.Do(func() { secured, err = seal(p, genesis.ID(m.Hash()), versions, signing) })
	} else {
		name, secured, err = escrowed(d.Root, encoded, r, versions, signing, now)
	}
	if err != nil {
		return err
	}
	files := map[string][]byte{}
	if r != nil {
		if files, err = r.Shares(genesis.ID(m.Hash()), m.Statement.Version); err != nil {
			return err
		}
	}
	files[GenesisFile], files[name] = encoded, secured
	return writeDomain(dir, files)
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
		if err := failpoint.Hit("create.write", name); err != nil {
			return err
		}
		if err := writeSynced(filepath.Join(tmp, name), b); err != nil {
			return err
		}
	}
	if err := syncDir(tmp); err != nil {
		return err
	}
	if err := failpoint.Hit("create.rename", filepath.Base(dir)); err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	if err := failpoint.Hit("create.renamed", filepath.Base(dir)); err != nil {
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
// long as they are used, and returns what its last manifest says. It never makes a
// new key: a missing, foreign or damaged file is an error. Errors: ErrSeal,
// ErrSimulated, ErrRoot, manifest.ErrFiles, those of manifest.Open and Next, tee.ErrNoSealKey,
// secret.ErrMemory, fs.ErrNotExist for a missing file.
func Open(dir string, p tee.Platform, home *secret.Home) (*Keyring, *manifest.State, error) {
	state, err := readState(dir)
	if err != nil {
		return nil, nil, err
	}
	if err := admit(p, &state.Terms); err != nil {
		return nil, nil, err
	}
	// No platform gives a key for this request; one without keys says so before
	// the operator looks for a bundle that cannot exist.
	if _, err := p.SealKey(tee.KeyRequest{}); errors.Is(err, tee.ErrNoSealKey) {
		return nil, nil, cannotSeal(err)
	}
	bundle, err := readLimited(filepath.Join(dir, BundleFile))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: restore %s from a backup of this machine: %w", ErrSeal, BundleFile, err)
	}
	var keys *Keyring
	secret.Do(func() { keys, err = unseal(home, p, state.DomainKey, state.Domain, bundle) })
	if err != nil {
		return nil, nil, fmt.Errorf("open %s: %w", filepath.Join(dir, BundleFile), err)
	}
	keys.root = state.Root
	return keys, state, nil
}
