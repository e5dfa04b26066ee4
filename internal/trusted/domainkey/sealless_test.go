package domainkey

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// noCustodian has nobody who gets a share; package recovery has real ones.
type noCustodian struct{ keys []byte }

func (*noCustodian) Public() *manifest.Recovery { return nil }

func (*noCustodian) Shares(genesis.ID, uint64) (map[string][]byte, error) {
	return map[string][]byte{"share": {1}}, nil
}

func (n *noCustodian) Escrow(k *Keyring, _ *manifest.State, _ time.Time) (string, []byte, error) {
	n.keys = append([]byte(nil), k.Export().Expose()...)
	return "escrow", []byte{2}, nil
}

// sealedNowhere is a machine without seal keys that has an HSM.
type sealedNowhere struct{ sealless }

func (sealedNowhere) Root() manifest.Root { return manifest.HSM }

// TestCreateWithoutSealKeys makes domains whose DomainKey is in an escrow only.
func TestCreateWithoutSealKeys(t *testing.T) {
	for _, row := range []struct {
		name string
		p    tee.Platform
		root manifest.Root
		want error
	}{
		{"custodians alone", sealless{node()}, manifest.Seal, nil},
		{"simulated where it must not be", sealless{node()}, manifest.Seal, ErrSimulated},
		{"an HSM that would keep nothing", sealedNowhere{sealless{real()}}, manifest.HSM, ErrRoot},
		{"without the HSM", sealless{real()}, manifest.HSM, ErrRoot},
	} {
		s := settings()
		s.AllowSim = row.want == nil
		d, operator, err := manifest.ThrowAway(s)
		if err != nil {
			t.Fatal(err)
		}
		d.Root = row.root
		dir, n := filepath.Join(t.TempDir(), "domain"), new(noCustodian)
		if err := CreateRecoverable(dir, row.p, d, n, now, operator); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
		if row.want != nil {
			if _, err := os.Lstat(dir); err == nil {
				t.Errorf("%s: something was left behind", row.name)
			}
			continue
		}
		if _, err := os.Lstat(filepath.Join(dir, BundleFile)); err == nil {
			t.Errorf("%s: there is a bundle", row.name)
		}
		state, err := manifest.Open(get(t, dir, GenesisFile))
		if err != nil || string(get(t, dir, "escrow")) != "\x02" || string(get(t, dir, "share")) != "\x01" {
			t.Fatalf("%s: %v", row.name, err)
		}
		if k, err := Import(secret.NewHeap(), state, secret.New(n.keys)); err != nil || k.Newest() != 1 {
			t.Errorf("%s: what was put in escrow: %v", row.name, err)
		}
	}
}

// TestPublish makes directories without a DomainKey, and refuses to where its host
// would be given it.
func TestPublish(t *testing.T) {
	terms := func(root manifest.Root, allowSim bool) *manifest.State {
		s := new(manifest.State)
		s.Root, s.Settings.AllowSim = root, allowSim
		return s
	}
	for _, row := range []struct {
		name string
		p    tee.Platform
		s    *manifest.State
		want error
	}{
		{"a TEE", sealless{real()}, terms(manifest.Seal, false), nil},
		{"a TEE, of a domain with an HSM elsewhere", sealless{real()}, terms(manifest.HSM, false), nil},
		{"simulated, allowed", sealless{node()}, terms(manifest.Seal, true), nil},
		{"simulated", sealless{node()}, terms(manifest.Seal, false), ErrSimulated},
		{"debugged", sealless{debugged()}, terms(manifest.Seal, false), ErrSimulated},
		{"simulated, of a domain with an HSM", sealless{node()}, terms(manifest.HSM, true), ErrSimulated},
	} {
		dir := filepath.Join(t.TempDir(), "domain")
		err := Publish(dir, row.p, row.s, map[string][]byte{"file": {7}})
		if !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
		if _, err := os.Lstat(dir); (err == nil) != (row.want == nil) {
			t.Errorf("%s: the directory: %v", row.name, err)
		}
		if row.want == nil && Publish(dir, row.p, row.s, nil) == nil {
			t.Errorf("%s: a directory that exists is written over", row.name)
		}
	}
}
