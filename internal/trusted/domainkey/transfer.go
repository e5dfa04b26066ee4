package domainkey

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/ehsm-kms/ehsm/internal/failpoint"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// Files returns the genesis and the later manifests that are in dir, in the order
// of their names and not verified. Errors: manifest.ErrFiles, fs.ErrNotExist where there is
// no genesis.
func Files(dir string) ([][]byte, error) {
	first, err := readLimited(filepath.Join(dir, GenesisFile))
	if err != nil {
		return nil, fmt.Errorf("read the genesis: %w", err)
	}
	versions, err := listManifests(dir)
	if err != nil {
		return nil, err
	}
	files := [][]byte{first}
	for _, version := range versions {
		b, err := readLimited(filepath.Join(dir, manifest.FileName(version)))
		if err != nil {
			return nil, fmt.Errorf("read a manifest: %w", err)
		}
		files = append(files, b)
	}
	return files, nil
}

// WriteManifest puts a manifest, which the caller has verified, into dir, in place
// of one of the same version. Version 1 is the genesis.
func WriteManifest(dir string, version uint64, file []byte) error {
	return replaceFile(dir, nameOf(version), file)
}

// ReadManifest reads what WriteManifest wrote. Nothing is verified. Errors:
// fs.ErrNotExist.
func ReadManifest(dir string, version uint64) ([]byte, error) {
	return readLimited(filepath.Join(dir, nameOf(version)))
}

func nameOf(version uint64) string {
	if version == 1 {
		return GenesisFile
	}
	return manifest.FileName(version)
}

// Unseal opens the bundle in dir, which must be of the domain of s, with its keys
// in home, which must stay open as long as they are used. Errors: ErrSeal,
// ErrSimulated, ErrRoot, secret.ErrMemory; fs.ErrNotExist where there is no bundle.
func Unseal(dir string, p tee.Platform, home *secret.Home, s *manifest.State) (*Keyring, error) {
	if err := admit(p, &s.Terms); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, BundleFile)
	bundle, err := readLimited(path)
	if err != nil {
		return nil, fmt.Errorf("read the DomainKey: %w", err)
	}
	var keys *Keyring
	secret.Do(func() { keys, err = unseal(home, p, s.DomainKey, s.Domain, bundle) })
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	keys.root = s.Root
	return keys, nil
}

// Seal writes the bundle of k to dir, in place of an older one, for this program
// on this machine. p must keep it as the domain asks for. Errors: ErrRoot,
// tee.ErrNoSealKey.
func (k *Keyring) Seal(dir string, p tee.Platform) error {
	if err := kept(p, k.root); err != nil { // check: seal-root
		return err
	}
	var bundle []byte
	var err error
	secret.Do(func() {
		k.Hold()
		defer k.Release()
		bundle, err = seal(p, k.domain, k.set.Load().versions, k.signing)
	})
	if err != nil {
		return err
	}
	return replaceFile(dir, BundleFile, bundle)
}

// replaceFile writes a file to a temporary directory first, so that it is there
// as a whole or not at all.
func replaceFile(dir, name string, b []byte) error {
	tmp, err := os.MkdirTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	written := filepath.Join(tmp, name)
	if err := failpoint.Hit("replace.write", name); err != nil {
		return err
	}
	if err := writeSynced(written, b); err != nil {
		return err
	}
	if err := failpoint.Hit("replace.rename", name); err != nil {
		return err
	}
	if err := os.Rename(written, filepath.Join(dir, name)); err != nil {
		return err
	}
	if err := failpoint.Hit("replace.renamed", name); err != nil {
		return err
	}
	return syncDir(dir)
}

// Export returns the keys for another TEE of the domain: signing seed, number of
// versions in four bytes, versions; of one that is not held zeros. The caller zeroes
// it; package provision seals it for an attested peer, and nothing else may be done
// with it.
func (k *Keyring) Export() secret.Bytes {
	k.Hold()
	defer k.Release()
	return secret.New(appendKeys(nil, k.signing, k.set.Load().versions))
}

// Import reads what Export returned, into home, and zeroes it. What the manifest of
// s says is forgotten it leaves out. The signing key
// must be the one that the genesis of the domain names. Errors: ErrSeal,
// secret.ErrMemory.
func Import(home *secret.Home, s *manifest.State, exported secret.Bytes) (keys *Keyring, err error) {
	secret.Do(func() { keys, err = parseBundle(home, s.DomainKey, s.Domain, exported.Expose()) })
	if err != nil {
		return nil, err
	}
	keys.root = s.Root
	keys.Settle(&s.Settings) // whoever exported them may be behind
	return keys, nil
}
