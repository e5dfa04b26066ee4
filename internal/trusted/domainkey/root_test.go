package domainkey

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// withHSM is a machine that says that its seal keys take an HSM.
type withHSM struct{ machine }

func (withHSM) Root() manifest.Root { return manifest.HSM }

// real is node with hardware that protects it.
func real() machine {
	m := node()
	m.simulated = false
	return m
}

// debugged is real in debug mode.
func debugged() machine {
	m := real()
	m.id.Debug = true
	return m
}

// creating returns what makes a domain with a root.
func creating(t *testing.T, root manifest.Root, withoutTEE, allowSim bool) func(dir string, p tee.Platform) error {
	t.Helper()
	s := settings()
	s.AllowSim, s.HSMWithoutTEE = allowSim, withoutTEE
	d, operator, err := manifest.ThrowAway(s)
	if err != nil {
		t.Fatal(err)
	}
	d.Root = root
	return func(dir string, p tee.Platform) error { return Create(dir, p, d, now, operator) }
}

// TestRoots has each kind of platform with each kind of domain: at Create, and where
// a domain that exists is opened, and where keys that came from elsewhere are sealed.
func TestRoots(t *testing.T) {
	for _, row := range []struct {
		name                 string
		p                    tee.Platform
		root                 manifest.Root
		withoutTEE, allowSim bool
		want                 error
	}{
		{"seal", node(), manifest.Seal, false, true, nil},
		{"seal, TEE", real(), manifest.Seal, false, false, nil},
		{"HSM, TEE", withHSM{real()}, manifest.HSM, false, false, nil},
		{"HSM, TEE, where none is needed", withHSM{real()}, manifest.HSM, true, true, nil},
		{"HSM without a TEE, allowed", withHSM{node()}, manifest.HSM, true, true, nil},
		{"HSM in a debug TEE, allowed", withHSM{debugged()}, manifest.HSM, true, true, nil},

		{"HSM without a TEE", withHSM{node()}, manifest.HSM, false, true, ErrSimulated},
		{"HSM without a TEE, simulation refused", withHSM{node()}, manifest.HSM, false, false, ErrSimulated},
		{"HSM in a debug TEE", withHSM{debugged()}, manifest.HSM, false, true, ErrSimulated},
		{"TEE without the HSM", real(), manifest.HSM, false, false, ErrRoot},
		{"neither TEE nor HSM", node(), manifest.HSM, true, true, ErrRoot},
		{"an HSM that nobody wants", withHSM{real()}, manifest.Seal, false, false, ErrRoot},
	} {
		dir := filepath.Join(t.TempDir(), "domain")
		create := creating(t, row.root, row.withoutTEE, row.allowSim)
		if err := create(dir, row.p); !errors.Is(err, row.want) {
			t.Errorf("%s: Create: got %v, want %v", row.name, err, row.want)
			continue
		}
		if row.want == nil {
			k, s, err := Open(dir, row.p, secret.NewHeap())
			if err != nil || k.Seal(dir, row.p) != nil || k.Restore(filepath.Join(t.TempDir(), "restored"), row.p, s, nil) != nil {
				t.Errorf("%s: Open, Seal and Restore: got %v", row.name, err)
			}
			continue
		}
		if _, err := os.Lstat(dir); err == nil {
			t.Errorf("%s: Create left something behind", row.name)
		}
		maker := tee.Platform(real())
		if row.root == manifest.HSM {
			maker = withHSM{real()}
		}
		if err := create(dir, maker); err != nil {
			t.Fatal(err)
		}
		k, s, err := Open(dir, maker, secret.NewHeap())
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := Open(dir, row.p, secret.NewHeap()); !errors.Is(err, row.want) {
			t.Errorf("%s: Open: got %v, want %v", row.name, err, row.want)
		}
		if _, err := Unseal(dir, row.p, secret.NewHeap(), s); !errors.Is(err, row.want) {
			t.Errorf("%s: Unseal: got %v, want %v", row.name, err, row.want)
		}
		copied, err := Import(secret.NewHeap(), s, k.Export())
		if err != nil {
			t.Fatal(err)
		}
		if err := copied.Restore(filepath.Join(t.TempDir(), "restored"), row.p, s, nil); !errors.Is(err, row.want) {
			t.Errorf("%s: Restore: got %v, want %v", row.name, err, row.want)
		}
		if err := copied.Seal(dir, row.p); row.want == ErrRoot && !errors.Is(err, ErrRoot) {
			t.Errorf("%s: Seal: got %v, want ErrRoot", row.name, err)
		}
	}
}

// TestKeyringWithoutRoot has one that somebody forgot to give a root: nothing seals
// it.
func TestKeyringWithoutRoot(t *testing.T) {
	k, err := newKeyring(secret.NewHeap(), [32]byte{1}, []secret.Bytes{secret.New(make([]byte, KeySize))}, secret.New(make([]byte, KeySize)))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []tee.Platform{node(), withHSM{node()}} {
		if err := k.Seal(t.TempDir(), p); !errors.Is(err, ErrRoot) {
			t.Errorf("Seal: got %v, want ErrRoot", err)
		}
	}
}
