package domainkey

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// A RecoveryKey is what a domain gets whose DomainKey custodians can have restored;
// package recovery makes it.
type RecoveryKey interface {
	// Public is what goes into the genesis.
	Public() *manifest.Recovery
	// Shares returns files for the directory of the domain whose genesis has
	// version 1.
	Shares(domain genesis.ID, version uint64) (map[string][]byte, error)
	// Escrow returns keys, encrypted to the recovery key, and the name of the file.
	Escrow(keys *Keyring, s *manifest.State, now time.Time) (name string, file []byte, err error)
}

// CreateRecoverable is Create for a domain with custodians, for whom r was made. On a
// platform without seal keys there is the escrow in place of the bundle, unless the
// domain wants an HSM: custodians open it at each start.
func CreateRecoverable(dir string, p tee.Platform, d *manifest.Draft, r RecoveryKey, now time.Time, operators ...crypto.Signer) error {
	return createDomain(dir, p, d, r, now, operators)
}

// Restore makes the domain directory dir, which must not exist, of files, which are
// public and which the caller has verified, and the bundle of k for this program on this machine. Errors:
// ErrSimulated, ErrRoot, tee.ErrNoSealKey.
func (k *Keyring) Restore(dir string, p tee.Platform, s *manifest.State, files map[string][]byte) error {
	dir = filepath.Clean(dir)
	if err := admit(p, &s.Terms); err != nil {
		return err
	}
	if err := absent(dir); err != nil {
		return err
	}
	bundle, err := k.sealed(p)
	if err != nil {
		return err
	}
	all := map[string][]byte{BundleFile: bundle}
	for name, b := range files {
		all[name] = b
	}
	return writeDomain(dir, all)
}

// Publish makes the domain directory dir, which must not exist, of files, which are
// public and which the caller has verified, on a platform that keeps no bundle.
// Errors: ErrSimulated.
func Publish(dir string, p tee.Platform, s *manifest.State, files map[string][]byte) error {
	dir = filepath.Clean(dir)
	if err := Protected(p, &s.Terms); err != nil { // check: publish-protected
		return err
	}
	if err := absent(dir); err != nil {
		return err
	}
	return writeDomain(dir, files)
}

// escrowed returns the escrow of a domain that is being made and whose DomainKey
// this platform cannot keep. Errors: ErrRoot, tee.ErrNoSealKey, those of r.
func escrowed(root manifest.Root, genesisFile []byte, r RecoveryKey, versions []secret.Bytes, signing secret.Bytes, now time.Time) (name string, file []byte, err error) {
	switch {
	case r == nil:
		return "", nil, fmt.Errorf("%w, or name custodians, who give it again at each start", cannotSeal(tee.ErrNoSealKey))
	case root != manifest.Seal: // check: escrowed-root
		return "", nil, fmt.Errorf("%w: its root is %s, and %w", ErrRoot, root, tee.ErrNoSealKey)
	}
	state, err := manifest.Trust(genesisFile) // that was just made
	if err != nil {
		return "", nil, err
	}
	home := secret.NewHeap()
	defer home.Close()
	var keys *Keyring
	secret.Do(func() { keys, err = newKeyring(home, state.Domain, versions, signing) })
	if err != nil {
		return "", nil, err
	}
	return r.Escrow(keys, state, now)
}

// sealed returns the bundle of k.
func (k *Keyring) sealed(p tee.Platform) (bundle []byte, err error) {
	secret.Do(func() {
		k.Hold()
		defer k.Release()
		bundle, err = seal(p, k.domain, k.set.Load().versions, k.signing)
	})
	return bundle, err
}

// absent refuses a directory that exists.
func absent(dir string) error {
	switch _, err := os.Lstat(dir); {
	case err == nil:
		return fmt.Errorf("create a domain in %s: it exists already", dir)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("create a domain: %w", err)
	}
	return nil
}

// ManifestFile is the name of a manifest in a domain directory. Version 1 is the
// genesis.
func ManifestFile(version uint64) string { return nameOf(version) }

// WriteFile puts a public file into dir, in place of an older one, as a whole or not
// at all.
func WriteFile(dir, name string, b []byte) error { return replaceFile(dir, name, b) }
