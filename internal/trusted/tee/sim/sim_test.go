package sim

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/teetest"
)

func open(t *testing.T, dir string, product, svn uint16) *Machine {
	t.Helper()
	m, err := Open(dir, product, svn)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func sealKey(t *testing.T, m *Machine, q tee.KeyRequest) string {
	t.Helper()
	k, err := m.SealKey(q)
	if err != nil {
		t.Fatal(err)
	}
	return string(k.Expose())
}

func TestSealKeysAreBound(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sim")
	m := open(t, dir, 1, 2)
	q := tee.KeyRequest{Policy: tee.BindSigner, SVN: 2, KeyID: [32]byte{1}}
	key := sealKey(t, m, q)
	if key == string(make([]byte, 32)) {
		t.Fatal("the seal key is zero")
	}
	if again := sealKey(t, open(t, dir, 1, 2), q); again != key {
		t.Error("a second start gets another key")
	}
	if newer := sealKey(t, open(t, dir, 1, 3), q); newer != key {
		t.Error("a newer version does not open an older seal")
	}
	others := map[string]string{
		"other machine":  sealKey(t, open(t, filepath.Join(t.TempDir(), "sim"), 1, 2), q),
		"other product":  sealKey(t, open(t, dir, 2, 2), q),
		"other key id":   sealKey(t, m, tee.KeyRequest{Policy: tee.BindSigner, SVN: 2}),
		"older version":  sealKey(t, m, tee.KeyRequest{Policy: tee.BindSigner, SVN: 1, KeyID: q.KeyID}),
		"measured code":  sealKey(t, m, tee.KeyRequest{Policy: tee.BindMeasured, SVN: 2, KeyID: q.KeyID}),
		"debug identity": sealKey(t, &Machine{p: m.p, id: func() tee.Identity { id := m.id; id.Debug = true; return id }()}, q),
	}
	for name, k := range others {
		if k == key {
			t.Errorf("%s gets the same key", name)
		}
	}
}

func TestNewMachine(t *testing.T) {
	q := tee.KeyRequest{Policy: tee.BindSigner, SVN: 1}
	for name, path := range map[string]string{
		"no directory": "/sim", "no parents": "/a/b/sim", "empty directory": "/empty", "slash at the end": "/sim/",
	} {
		parent := t.TempDir()
		if err := os.Mkdir(filepath.Join(parent, "empty"), 0o700); err != nil {
			t.Fatal(err)
		}
		dir := parent + path
		first := sealKey(t, open(t, dir, 1, 1), q)
		if second := sealKey(t, open(t, dir, 1, 1), q); second != first {
			t.Errorf("%s: a second start gets another key", name)
		}
		for file, want := range map[string]os.FileMode{".": 0o700, machineFile: 0o600, SignerFile: 0o600, pckFile: 0o600, FleetDir + "/" + fleetFile: 0o600} {
			info, err := os.Stat(filepath.Join(dir, file))
			if err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: %s has mode %v, %v, want %o", name, file, info.Mode(), err, want)
			}
		}
		if left, err := filepath.Glob(filepath.Join(filepath.Dir(filepath.Clean(dir)), ".sim-*")); err != nil || len(left) != 0 {
			t.Errorf("%s: left %v behind, %v", name, left, err)
		}
	}
}

func TestRefusedRequests(t *testing.T) {
	m := open(t, filepath.Join(t.TempDir(), "sim"), 1, 2)
	for name, q := range map[string]tee.KeyRequest{
		"higher version": {Policy: tee.BindSigner, SVN: 3},
		"no policy":      {SVN: 2},
		"unknown policy": {Policy: 9, SVN: 2},
		"foreign info":   {Policy: tee.BindSigner, SVN: 2, Info: []byte{1}},
	} {
		if _, err := m.SealKey(q); !errors.Is(err, tee.ErrKeyRequest) {
			t.Errorf("%s: got %v, want ErrKeyRequest", name, err)
		}
	}
}

func TestDamagedMachineIsNeverReplaced(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"secret lost":  func(d string) error { return os.Remove(filepath.Join(d, machineFile)) },
		"signer lost":  func(d string) error { return os.Remove(filepath.Join(d, SignerFile)) },
		"secret short": func(d string) error { return os.Truncate(filepath.Join(d, machineFile), 31) },
		"secret open":  func(d string) error { return os.Chmod(filepath.Join(d, machineFile), 0o644) },
		"not a folder": func(d string) error { os.RemoveAll(d); return os.WriteFile(d, nil, 0o600) },
	} {
		dir := filepath.Join(t.TempDir(), "sim")
		open(t, dir, 1, 1)
		if err := damage(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, 1, 1); err == nil {
			t.Errorf("%s: the machine opens", name)
		}
	}
}

func TestSuite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sim")
	teetest.Run(t, func() (tee.Platform, error) { return Open(dir, 1, 2) })
	t.Run("without seal keys", func(t *testing.T) {
		teetest.Run(t, func() (tee.Platform, error) { return OpenWith(dir, 1, 2, Options{NoSealKey: true}) })
	})
}
