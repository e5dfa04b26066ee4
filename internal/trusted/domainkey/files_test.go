package domainkey

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

func TestCreate(t *testing.T) {
	dir := create(t, node())
	first, g, err := Open(dir, node(), secret.NewHeap())
	if err != nil {
		t.Fatal(err)
	}
	if want := time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC); !g.Date.Equal(want) || g.Format != manifest.Format || g.Version != 1 || !g.Settings.AllowSim || g.Domain != first.Domain() {
		t.Errorf("Create: genesis is %+v", g)
	}
	if first.Current() != 1 || first.Domain() == (genesis.ID{}) || first.set.Load().versions[0].Equal(secret.New(make([]byte, KeySize))) {
		t.Error("Create: no DomainKey in the keyring")
	}
	message := []byte("test label\x00message")
	if !ed25519.Verify(g.DomainKey, message, first.Sign(message)) {
		t.Error("Sign: the genesis' key does not verify")
	}
	if !same(first, open(t, dir, node())) {
		t.Error("a second start has other keys")
	}
	if same(first, open(t, create(t, node()), node())) {
		t.Error("two domains have the same keys")
	}
}

func TestCreateModes(t *testing.T) {
	dir := create(t, node())
	for name, want := range map[string]fs.FileMode{".": 0o700, GenesisFile: 0o600, BundleFile: 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s: mode is %o, want %o", name, got, want)
		}
	}
	left, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(left) != 1 {
		t.Errorf("beside the domain: got %v, %v, want nothing", left, err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 2 {
		t.Errorf("in the domain: got %v, %v, want 2 files", files, err)
	}
}

// TestCreateHidesKeys looks for keys in the clear in what the host stores.
func TestCreateHidesKeys(t *testing.T) {
	dir := create(t, node())
	k := open(t, dir, node())
	for _, name := range []string{GenesisFile, BundleFile} {
		b := get(t, dir, name)
		for _, s := range []secret.Bytes{k.signing, k.set.Load().versions[0], k.set.Load().derived[RecordWrapping][0]} {
			if bytes.Contains(b, s.Expose()) {
				t.Errorf("%s holds a key in the clear", name)
			}
		}
	}
}

func TestCreateBesideLeftovers(t *testing.T) {
	parent := t.TempDir()
	left := filepath.Join(parent, ".domain-123")
	if err := os.Mkdir(left, 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, left, GenesisFile, []byte("half"))
	dir := parent + "/domain/" // a slash at the end names the same directory
	if err := createIn(dir, node()); err != nil {
		t.Fatalf("Create: %v", err)
	}
	open(t, dir, node())
	if string(get(t, left, GenesisFile)) != "half" {
		t.Error("Create: changed another directory")
	}
}

func TestCreateRefusals(t *testing.T) {
	parent := t.TempDir()
	put(t, parent, "file", nil)
	real := node()
	real.simulated = false
	debug := real
	debug.id.Debug = true
	badWindow := settings()
	badWindow.RequestWindow = 0
	for _, row := range []struct {
		name, dir string
		p         tee.Platform
		s         manifest.Settings
		want      error // nil: any
		text      string
	}{
		{"simulated platform", "a", node(), protected(), ErrSimulated, ""},
		{"TEE in debug mode", "a", debug, protected(), ErrSimulated, "debug"},
		{"no window", "a", real, badWindow, manifest.ErrInvalid, ""},
		{"zero seal key", "a", answering{real, make([]byte, 32)}, protected(), tee.ErrKeyRequest, "zero key"},
		{"zero seal key of 16 bytes", "a", answering{real, make([]byte, 16)}, protected(), tee.ErrKeyRequest, ""},
		{"seal key of 16 bytes", "a", answering{real, bytes.Repeat([]byte{1}, 16)}, protected(), tee.ErrKeyRequest, "returned 16 bytes, want 32"},
		{"no seal key", "a", answering{real, nil}, protected(), tee.ErrKeyRequest, ""},
		{"no parent", "missing/a", real, protected(), fs.ErrNotExist, ""},
		{"parent is a file", "file/a", real, protected(), nil, "not a directory"},
	} {
		err := createWith(filepath.Join(parent, row.dir), row.p, row.s)
		if err == nil || row.want != nil && !errors.Is(err, row.want) || !strings.Contains(err.Error(), row.text) {
			t.Errorf("%s: got %v, want %v with %q", row.name, err, row.want, row.text)
		}
		if left, err := os.ReadDir(parent); err != nil || len(left) != 1 {
			t.Errorf("%s: left %v behind, %v", row.name, left, err)
		}
	}
}

func TestCreateOverwritesNothing(t *testing.T) {
	for name, prepare := range map[string]func(dir string) error{
		"domain":          func(dir string) error { return createIn(dir, node()) },
		"empty directory": func(dir string) error { return os.Mkdir(dir, 0o700) },
		"file":            func(dir string) error { return os.WriteFile(dir, []byte("x"), 0o600) },
		"dangling link":   func(dir string) error { return os.Symlink("nowhere", dir) },
		"genesis alone": func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, GenesisFile), []byte("x"), 0o600))
		},
	} {
		dir := filepath.Join(t.TempDir(), "domain")
		if err := prepare(dir); err != nil {
			t.Fatal(err)
		}
		before := snapshot(t, filepath.Dir(dir))
		if err := createIn(dir, node()); err == nil || !strings.Contains(err.Error(), "exists already") {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
		if after := snapshot(t, filepath.Dir(dir)); after != before {
			t.Errorf("%s: Create changed %s to %s", name, before, after)
		}
	}
}

// TestWriteDomainLosesRace is Create when another one finished after it looked.
func TestWriteDomainLosesRace(t *testing.T) {
	dir := create(t, node())
	before := snapshot(t, filepath.Dir(dir))
	if err := writeDomain(dir, map[string][]byte{BundleFile: nil}); err == nil {
		t.Error("writeDomain replaces a domain")
	}
	if after := snapshot(t, filepath.Dir(dir)); after != before {
		t.Errorf("writeDomain changed %s to %s", before, after)
	}
}

// snapshot is everything below dir, names and contents, as text.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		out.WriteString(path + " " + d.Type().String() + "\n")
		if d.Type().IsRegular() {
			out.Write(get(t, "", path))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestOtherCode opens a bundle on machines and with code that differ from its
// maker's in one respect.
func TestOtherCode(t *testing.T) {
	dir := create(t, node())
	maker := open(t, dir, node())
	for _, row := range []struct {
		name   string
		change func(*machine)
		opens  bool
	}{
		{"rebuilt binary", func(m *machine) { m.id.Measurement = [32]byte{9} }, true},
		{"newer version", func(m *machine) { m.id.SVN++ }, true},
		{"older version", func(m *machine) { m.id.SVN-- }, false},
		{"other machine", func(m *machine) { m.fuse++ }, false},
		{"other signer", func(m *machine) { m.id.Signer[31] ^= 1 }, false},
		{"other product", func(m *machine) { m.id.Product++ }, false},
		{"debug mode", func(m *machine) { m.id.Debug = true }, false},
	} {
		m := node()
		row.change(&m)
		if !row.opens {
			refused(t, row.name, dir, m, ErrSeal)
			continue
		}
		if k := open(t, dir, m); !same(k, maker) {
			t.Errorf("%s: opens with other keys", row.name)
		}
	}
}

func TestOpenOnSimulator(t *testing.T) {
	simDir := filepath.Join(t.TempDir(), "sim")
	start := func(dir string, svn uint16) *sim.Machine {
		m, err := sim.Open(dir, tee.ProductCore, svn)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	dir := create(t, start(simDir, 2))
	if !same(open(t, dir, start(simDir, 2)), open(t, dir, start(simDir, 3))) {
		t.Error("a newer version opens other keys")
	}
	refused(t, "lower version", dir, start(simDir, 1), tee.ErrKeyRequest)
	refused(t, "other machine", dir, start(filepath.Join(t.TempDir(), "sim"), 2), ErrSeal)
}

func TestPlatformsThatProtectNothing(t *testing.T) {
	real := node()
	real.simulated = false
	dir := filepath.Join(t.TempDir(), "domain")
	if err := createWith(dir, real, protected()); err != nil {
		t.Fatal(err)
	}
	open(t, dir, real)
	debug := real
	debug.id.Debug = true
	refused(t, "simulated", dir, node(), ErrSimulated)
	refused(t, "debug mode", dir, debug, ErrSimulated)
	refused(t, "zero key", dir, answering{real, make([]byte, 32)}, tee.ErrKeyRequest)
	refused(t, "zero key of 16 bytes", dir, answering{real, make([]byte, 16)}, tee.ErrKeyRequest)
}

func TestOpenRefusals(t *testing.T) {
	other := create(t, node())
	for _, row := range []struct {
		name   string
		change func(t *testing.T, dir string)
		want   error
	}{
		{"no directory", func(t *testing.T, dir string) { remove(t, dir, "") }, fs.ErrNotExist},
		{"no genesis", func(t *testing.T, dir string) { remove(t, dir, GenesisFile) }, fs.ErrNotExist},
		{"no bundle", func(t *testing.T, dir string) { remove(t, dir, BundleFile) }, ErrSeal},
		{"empty genesis", func(t *testing.T, dir string) { put(t, dir, GenesisFile, nil) }, manifest.ErrInvalid},
		{"empty bundle", func(t *testing.T, dir string) { put(t, dir, BundleFile, nil) }, ErrSeal},
		{"bundle of another domain", func(t *testing.T, dir string) { put(t, dir, BundleFile, get(t, other, BundleFile)) }, ErrSeal},
		{"genesis of another domain", func(t *testing.T, dir string) { put(t, dir, GenesisFile, get(t, other, GenesisFile)) }, ErrSeal},
		{"genesis with a space more", func(t *testing.T, dir string) { edit(t, dir, "{\n", "{ \n") }, manifest.ErrInvalid},
		{"genesis that opens enrollment", func(t *testing.T, dir string) { edit(t, dir, `"enrollment": "closed"`, `"enrollment": "open"`) }, manifest.ErrSignature},
		{"genesis with a longer window", func(t *testing.T, dir string) { edit(t, dir, `Seconds": 600`, `Seconds": 3600`) }, manifest.ErrSignature},
		{"genesis with an earlier date", func(t *testing.T, dir string) { edit(t, dir, `"2026`, `"2025`) }, manifest.ErrSignature},
		{"genesis without simulation", func(t *testing.T, dir string) { edit(t, dir, `"allowSim": true`, `"allowSim": false`) }, manifest.ErrSignature},
		{"genesis too long", func(t *testing.T, dir string) { put(t, dir, GenesisFile, make([]byte, maxBundle+2)) }, manifest.ErrInvalid},
		{"bundle too long", func(t *testing.T, dir string) { put(t, dir, BundleFile, make([]byte, maxBundle+2)) }, ErrSeal},
	} {
		dir := create(t, node())
		row.change(t, dir)
		refused(t, row.name, dir, node(), row.want)
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

// edit replaces text in the genesis.
func edit(t *testing.T, dir, old, new string) {
	t.Helper()
	b := get(t, dir, GenesisFile)
	if !bytes.Contains(b, []byte(old)) {
		t.Fatalf("genesis has no %q", old)
	}
	put(t, dir, GenesisFile, bytes.Replace(b, []byte(old), []byte(new), 1))
}
