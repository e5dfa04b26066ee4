// Package sim is a simulated platform for machines without a TEE. It derives
// seal keys as strictly as hardware does, from a secret in a file: whoever can
// read that file has the keys. Only a domain whose genesis allows simulation
// accepts it.
//
// It trusts the directory it is given, and hides nothing from the host.
package sim

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

const (
	machineFile = "machine.secret" // 32 bytes, the CPU's fuse key
	signerFile  = "signer.seed"    // 32 bytes, Ed25519 seed of the development signer
	seedSize    = 32

	measurementLabel = "ehsm/sim-measurement/v1\x00"
	signerLabel      = "ehsm/sim-signer/v1\x00"
	sealLabel        = "ehsm/sim-seal/v1\x00"
)

// Machine is one simulated machine, running one program.
type Machine struct {
	root secret.Bytes
	id   tee.Identity
}

// Open opens the simulated machine in dir. Where dir is missing or empty it
// makes a new machine; one lost file of two is an error and never a machine with
// other keys. Files that others may read are refused.
func Open(dir string, product, svn uint16) (*Machine, error) {
	dir = filepath.Clean(dir) // "sim/" would be its own parent
	if err := create(dir); err != nil {
		return nil, fmt.Errorf("simulated machine %s: %w", dir, err)
	}
	root, err := readSeed(filepath.Join(dir, machineFile))
	if err != nil {
		return nil, fmt.Errorf("simulated machine: %w", err)
	}
	seed, err := readSeed(filepath.Join(dir, signerFile))
	if err != nil {
		return nil, fmt.Errorf("simulated machine: %w", err)
	}
	measurement, err := measure()
	if err != nil {
		return nil, fmt.Errorf("simulated machine: measure the program: %w", err)
	}
	signer := ed25519.NewKeyFromSeed(seed.Expose()).Public().(ed25519.PublicKey)
	seed.Zero()
	return &Machine{root: root, id: tee.Identity{
		Measurement: measurement,
		Signer:      sha256.Sum256(append([]byte(signerLabel), signer...)),
		Product:     product,
		SVN:         svn,
	}}, nil
}

// Name implements tee.Platform.
func (m *Machine) Name() string { return "sim" }

// Simulated implements tee.Platform.
func (m *Machine) Simulated() bool { return true }

// Identity implements tee.Platform.
func (m *Machine) Identity() tee.Identity { return m.id }

// SealKey implements tee.Platform.
func (m *Machine) SealKey(q tee.KeyRequest) (secret.Bytes, error) {
	if q.SVN > m.id.SVN {
		return secret.Bytes{}, fmt.Errorf("%w: sealed by version %d, this is %d", tee.ErrKeyRequest, q.SVN, m.id.SVN)
	}
	if len(q.Info) > 0 { // the simulator has none, and one request has one encoding
		return secret.Bytes{}, fmt.Errorf("%w: key information of another platform", tee.ErrKeyRequest)
	}
	info := []byte(sealLabel)
	info = append(info, byte(q.Policy))
	switch q.Policy {
	case tee.BindSigner:
		info = append(info, m.id.Signer[:]...)
	case tee.BindMeasured:
		info = append(info, m.id.Measurement[:]...)
	default:
		return secret.Bytes{}, fmt.Errorf("%w: policy %d is unknown", tee.ErrKeyRequest, q.Policy)
	}
	info = binary.BigEndian.AppendUint16(info, m.id.Product)
	info = binary.BigEndian.AppendUint16(info, q.SVN)
	if m.id.Debug {
		info = append(info, 1)
	}
	key, err := hkdf.Key(sha256.New, m.root.Expose(), q.KeyID[:], string(info), 32)
	return secret.New(key), err
}

// measure hashes the bytes of the running executable.
func measure() (sum [32]byte, err error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	io.WriteString(h, measurementLabel)
	if _, err := io.Copy(h, f); err != nil {
		return sum, err
	}
	h.Sum(sum[:0])
	return sum, nil
}

// create makes a new machine if dir is missing or empty.
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
	for _, name := range []string{machineFile, signerFile} {
		seed := make([]byte, seedSize)
		rand.Read(seed) // never fails
		if err := writeSynced(filepath.Join(tmp, name), seed); err != nil {
			return err
		}
	}
	if err := syncDir(tmp); err != nil {
		return err
	}
	// os.Rename replaces no directory, and Remove none that has files.
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir)) // or a crash could lose it, with all it sealed
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

func readSeed(path string) (secret.Bytes, error) {
	info, err := os.Stat(path)
	if err != nil {
		return secret.Bytes{}, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return secret.Bytes{}, fmt.Errorf("%s may be read by others: chmod 600 it", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return secret.Bytes{}, err
	}
	if len(b) != seedSize {
		return secret.Bytes{}, fmt.Errorf("%s has %d bytes, want %d", path, len(b), seedSize)
	}
	return secret.New(b), nil
}
