package domainkey

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// machine is a platform whose every part a test can change. It derives seal keys
// as hardware does.
type machine struct {
	fuse      byte // the CPU's secret
	id        tee.Identity
	simulated bool
}

// node is the machine that the tests of this package start from.
func node() machine {
	return machine{fuse: 1, id: tee.Identity{
		Measurement: [32]byte{1}, Signer: [32]byte{2}, Product: tee.ProductCore, SVN: 5,
	}, simulated: true}
}

func (m machine) Name() string           { return "test machine" }
func (m machine) Simulated() bool        { return m.simulated }
func (m machine) Identity() tee.Identity { return m.id }

func (m machine) SealKey(q tee.KeyRequest) (secret.Bytes, error) {
	if q.SVN > m.id.SVN {
		return secret.Bytes{}, fmt.Errorf("%w: version %d", tee.ErrKeyRequest, q.SVN)
	}
	bound := m.id.Signer
	if q.Policy == tee.BindMeasured {
		bound = m.id.Measurement
	}
	k := sha256.Sum256(fmt.Appendf(nil, "%d %d %x %d %d %x %t", m.fuse, q.Policy, bound, m.id.Product, q.SVN, q.KeyID, m.id.Debug))
	return secret.New(k[:]), nil
}

// informed is a machine that makes key requests with information of its own.
type informed struct {
	machine
	info []byte
}

func (m informed) NewSealKey(p tee.Policy) (tee.KeyRequest, secret.Bytes, error) {
	q := tee.KeyRequest{Policy: p, SVN: m.id.SVN, KeyID: [32]byte{3}, Info: m.info}
	key, err := m.SealKey(q)
	return q, key, err
}

func (m informed) SealKey(q tee.KeyRequest) (secret.Bytes, error) {
	if !bytes.Equal(q.Info, m.info) {
		return secret.Bytes{}, tee.ErrKeyRequest
	}
	return m.machine.SealKey(q)
}

// sealless is a machine without seal keys.
type sealless struct{ machine }

func (sealless) SealKey(tee.KeyRequest) (secret.Bytes, error) {
	return secret.Bytes{}, tee.ErrNoSealKey
}

// answering is a machine that answers every key request with one key.
type answering struct {
	machine
	key []byte
}

func (a answering) SealKey(tee.KeyRequest) (secret.Bytes, error) { return secret.Copy(a.key), nil }

// hexBytes is a byte string written in hexadecimal in a JSON file.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// Bundles of released versions. Add entries, never change one: a failure here
// means that a node cannot open its domain any more.
//
//go:embed testdata/bundles.json
var released []byte

type releasedBundle struct {
	Name, Genesis                                                string
	SealKey, KeyID, Info, SigningSeed, Bundle, Domain, PublicKey hexBytes
	Policy                                                       uint8
	SVN                                                          uint16
	DomainKeys, RecordWrapping                                   []hexBytes
}

func releasedBundles(t testing.TB) []releasedBundle {
	t.Helper()
	var file struct{ Bundles []releasedBundle }
	if err := json.Unmarshal(released, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Bundles) == 0 {
		t.Fatal("testdata/bundles.json has no bundles")
	}
	return file.Bundles
}

// platform gives the seal key of b for the request stored in b, and no other.
func (b releasedBundle) platform() tee.Platform { return recorded{node(), b} }

type recorded struct {
	machine
	b releasedBundle
}

func (r recorded) SealKey(q tee.KeyRequest) (secret.Bytes, error) {
	want := tee.KeyRequest{Policy: tee.Policy(r.b.Policy), SVN: r.b.SVN, KeyID: [32]byte(r.b.KeyID), Info: append([]byte{}, r.b.Info...)}
	if !reflect.DeepEqual(q, want) {
		return secret.Bytes{}, tee.ErrKeyRequest
	}
	return secret.Copy(r.b.SealKey), nil
}

// write writes b as a domain directory and returns its path.
func (b releasedBundle) write(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	put(t, dir, GenesisFile, []byte(b.Genesis))
	put(t, dir, BundleFile, b.Bundle)
	return dir
}

func put(t testing.TB, dir, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func get(t testing.TB, dir, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// settings are of a domain for simulated platforms.
func settings() manifest.Settings {
	s := manifest.Defaults(manifest.Development)
	s.Enrollment = manifest.EnrollmentClosed
	return s
}

// protected are settings of a domain for real ones only.
func protected() manifest.Settings { return manifest.Defaults(manifest.Production) }

// createWith makes a domain in dir, which nobody can change later.
func createWith(dir string, p tee.Platform, s manifest.Settings) error {
	d, operator, err := manifest.ThrowAway(s)
	if err != nil {
		return err
	}
	return Create(dir, p, d, now, operator)
}

func createIn(dir string, p tee.Platform) error { return createWith(dir, p, settings()) }

var now = time.Date(2026, 1, 2, 3, 4, 5, 678, time.FixedZone("", 3600))

// create makes a domain on p and returns its directory.
func create(t testing.TB, p tee.Platform) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "domain")
	if err := createIn(dir, p); err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t testing.TB, dir string, p tee.Platform) *Keyring {
	t.Helper()
	k, _, err := Open(dir, p, secret.NewHeap())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// same says whether two keyrings hold the same keys of the same domain.
func same(a, b *Keyring) bool {
	x, y := a.set.Load(), b.set.Load()
	if a.domain != b.domain || len(x.versions) != len(y.versions) || !a.signing.Equal(b.signing) {
		return false
	}
	for i := range x.versions {
		if !x.versions[i].Equal(y.versions[i]) || !x.derived[RecordWrapping][i].Equal(y.derived[RecordWrapping][i]) {
			return false
		}
	}
	return true
}

// refused fails unless opening dir on p gives want and no keyring.
func refused(t *testing.T, name, dir string, p tee.Platform, want error) {
	t.Helper()
	k, _, err := Open(dir, p, secret.NewHeap())
	if !errors.Is(err, want) || k != nil {
		t.Errorf("%s: got %v and keyring %v, want %v", name, err, k != nil, want)
	}
}
