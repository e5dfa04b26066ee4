package domainkey

import (
	"crypto"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// owned makes a domain, of which the test has the operator's key.
func owned(t testing.TB) (dir string, operator crypto.Signer) {
	t.Helper()
	d, operator, err := manifest.ThrowAway(settings())
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(t.TempDir(), "domain")
	if err := Create(dir, node(), d, now, operator); err != nil {
		t.Fatal(err)
	}
	return dir, operator
}

// change adds a manifest to a domain directory, under its name.
func change(t testing.TB, dir string, operator crypto.Signer, edit func(*manifest.Statement)) {
	t.Helper()
	s, err := readState(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.Follow(now)
	if err != nil {
		t.Fatal(err)
	}
	edit(&m.Statement)
	if err := m.Sign(operator); err != nil {
		t.Fatal(err)
	}
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir, manifest.FileName(m.Statement.Version), b)
}

func TestLaterManifests(t *testing.T) {
	dir, operator := owned(t)
	maker := open(t, dir, node())
	for i := range 11 { // of which the tenth is not sorted as text is
		change(t, dir, operator, func(s *manifest.Statement) { s.Settings.RequestWindow = 100 + i })
	}
	k, state, err := Open(dir, node(), secret.NewHeap())
	if err != nil || state.Version != 12 || state.Settings.RequestWindow != 110 || !same(k, maker) {
		t.Errorf("got %+v, %v", state, err)
	}
	// A domain that no longer allows simulation does not open on it.
	change(t, dir, operator, func(s *manifest.Statement) { s.Settings.AllowSim = false })
	refused(t, "no longer allowed", dir, node(), ErrSimulated)
}

func TestManifestRefusals(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(t *testing.T, dir string, operator crypto.Signer)
		want   error
	}{
		{"of a stranger", func(t *testing.T, dir string, _ crypto.Signer) {
			_, stranger := owned(t)
			change(t, dir, stranger, func(*manifest.Statement) {})
		}, manifest.ErrSigner},
		{"of another domain", func(t *testing.T, dir string, _ crypto.Signer) {
			other, operator := owned(t)
			change(t, other, operator, func(*manifest.Statement) {})
			put(t, dir, manifest.FileName(2), get(t, other, manifest.FileName(2)))
		}, manifest.ErrDomain},
		{"left out", func(t *testing.T, dir string, operator crypto.Signer) {
			change(t, dir, operator, func(*manifest.Statement) {})
			change(t, dir, operator, func(*manifest.Statement) {})
			remove(t, dir, manifest.FileName(2))
		}, manifest.ErrPrevious},
		{"genesis again", func(t *testing.T, dir string, _ crypto.Signer) {
			put(t, dir, manifest.FileName(2), get(t, dir, GenesisFile))
		}, manifest.ErrDomain},
		{"under another version", func(t *testing.T, dir string, operator crypto.Signer) {
			change(t, dir, operator, func(*manifest.Statement) {})
			if err := os.Rename(filepath.Join(dir, manifest.FileName(2)), filepath.Join(dir, manifest.FileName(3))); err != nil {
				t.Fatal(err)
			}
		}, manifest.ErrFiles},
		{"without a number", func(t *testing.T, dir string, _ crypto.Signer) { put(t, dir, "manifest-new.json", nil) }, manifest.ErrFiles},
		{"empty", func(t *testing.T, dir string, _ crypto.Signer) { put(t, dir, manifest.FileName(2), nil) }, manifest.ErrInvalid},
		{"a directory", func(t *testing.T, dir string, _ crypto.Signer) {
			if err := os.Mkdir(filepath.Join(dir, manifest.FileName(2)), 0o700); err != nil {
				t.Fatal(err)
			}
		}, nil},
	} {
		dir, operator := owned(t)
		row.change(t, dir, operator)
		k, state, err := Open(dir, node(), secret.NewHeap())
		if err == nil || k != nil || state != nil || row.want != nil && !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
	}
}

// TestUnsignedGenesis has a domain whose operators are still to sign.
func TestUnsignedGenesis(t *testing.T) {
	d, operator, err := manifest.ThrowAway(settings())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "domain")
	if err := Create(dir, node(), d, now); err != nil {
		t.Fatal(err)
	}
	refused(t, "unsigned", dir, node(), manifest.ErrQuorum)
	m, err := manifest.Parse(get(t, dir, GenesisFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Sign(operator); err != nil {
		t.Fatal(err)
	}
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir, GenesisFile, b)
	open(t, dir, node())
	if strings.Contains(string(b), "simRoot") {
		t.Error("the genesis names a root that nobody asked for")
	}
}
