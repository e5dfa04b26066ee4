package recovery

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/escrow"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// given has two custodians give a session the DomainKey.
func given(t *testing.T, a *realm, s *Session) *domainkey.Keyring {
	t.Helper()
	for _, p := range a.custodians[:2] {
		if err := s.Add(release(t, p, a.share(t, p.name, 1), s.Request())); err != nil {
			t.Fatal(err)
		}
	}
	k, err := s.Keys(secret.NewHeap())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestInMemory restores on a machine without seal keys, which keeps nothing: it has
// the directory of a backup, and at each start custodians give it the DomainKey.
func TestInMemory(t *testing.T) {
	a := newRealm(t)
	o := a.options(t)
	o.InMemory, o.Platform = true, sealless{o.Platform}
	s := begin(t, o)
	dir := filepath.Join(t.TempDir(), "restored")
	if err := s.Publish(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, domainkey.BundleFile)); err == nil {
		t.Error("there is a bundle")
	}
	if err := s.Publish(dir); err == nil {
		t.Error("a directory that exists is written over")
	}
	backup, err := escrow.ParseBackup(o.Backup)
	if err != nil {
		t.Fatal(err)
	}
	e, err := os.ReadFile(filepath.Join(dir, escrow.File))
	if err != nil || !bytes.Equal(e, backup.Escrow) {
		t.Errorf("the directory has another escrow than the backup: %v", err)
	}
	if o.Backup = (&escrow.Backup{Manifests: a.files, Escrow: e}).Encode(); err != nil {
		t.Fatal(err)
	}
	maker := keys(t, a.dir, 0)
	for start := range 2 {
		s := begin(t, o)
		k := given(t, a, s)
		if !k.Extends(maker) || k.Newest() != maker.Newest() {
			t.Errorf("start %d: another DomainKey", start+1)
		}
		if err := s.Write(filepath.Join(t.TempDir(), "kept"), k, o.Now); !errors.Is(err, tee.ErrNoSealKey) {
			t.Errorf("start %d: it is kept: %v", start+1, err)
		}
	}
}

// TestMadeWithoutSealKeys makes a domain on a machine without seal keys: what is left
// is the escrow, for its custodians.
func TestMadeWithoutSealKeys(t *testing.T) {
	a := newRealm(t)
	p := sealless{dkeyserver(t, 0)}
	draft, operator, err := manifest.ThrowAway(a.last.Settings)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "domain")
	if err := domainkey.Create(dir, p, draft, start, operator); !errors.Is(err, tee.ErrNoSealKey) {
		t.Errorf("without custodians: got %v, want ErrNoSealKey", err)
	}
	draft.Custodians = quorum(2, a.custodians...)
	key, err := Make(draft.Custodians)
	if err != nil {
		t.Fatal(err)
	}
	defer key.Forget()
	hsm := *draft
	hsm.Root, hsm.Settings.HSMWithoutTEE = manifest.HSM, true
	if err := domainkey.CreateRecoverable(dir, rooted{p}, &hsm, key, start, operator); !errors.Is(err, domainkey.ErrRoot) {
		t.Errorf("with root hsm: got %v", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Fatal("a domain is there that nobody can open")
	}
	if err := domainkey.CreateRecoverable(dir, p, draft, key, start, operator); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, domainkey.BundleFile)); err == nil {
		t.Error("there is a bundle")
	}
	a.dir, a.operator = dir, operator
	if a.files, err = domainkey.Files(dir); err != nil {
		t.Fatal(err)
	}
	if a.last, err = manifest.Open(a.files[0]); err != nil {
		t.Fatal(err)
	}
	e, err := os.ReadFile(filepath.Join(dir, escrow.File))
	if err != nil {
		t.Fatal(err)
	}
	s := begin(t, Options{
		Attester: dkeyserver(t, 0), Platform: p, InMemory: true, Backup: (&escrow.Backup{Manifests: a.files, Escrow: e}).Encode(),
		Collateral: collateral(t, 0), Domain: a.last.Domain, Now: start,
	})
	k := given(t, a, s)
	if !Current(e, k, a.last) {
		t.Error("the escrow does not hold what it gives")
	}
	rotates(t, a, p, k)
}

// rotated are the settings of a manifest that asks for version 2.
func rotated(s *manifest.State) *manifest.Settings {
	next := s.Settings
	next.DomainKey.Version = 2
	return &next
}

// rotates makes the next version where nothing but the escrow keeps it.
func rotates(t *testing.T, a *realm, p tee.Platform, k *domainkey.Keyring) {
	t.Helper()
	if _, err := k.Rotate(a.dir, p, secret.NewHeap(), rotated(a.last), nil); !errors.Is(err, tee.ErrNoSealKey) {
		t.Errorf("a version that nothing keeps: got %v, want ErrNoSealKey", err)
	}
	full := errors.New("disk full")
	if _, err := k.Rotate(a.dir, p, secret.NewHeap(), rotated(a.last), func(*domainkey.Keyring) error { return full }); !errors.Is(err, full) {
		t.Errorf("an escrow that is not written: got %v", err)
	}
	var kept uint32
	next, err := k.Rotate(a.dir, p, secret.NewHeap(), rotated(a.last), func(k *domainkey.Keyring) error {
		kept = k.Newest()
		return nil
	})
	if err != nil || next.Newest() != 2 || kept != 2 {
		t.Errorf("got version %d, kept %d, %v", next.Newest(), kept, err)
	}
}

// rooted is a platform whose keys would take an HSM.
type rooted struct{ tee.Platform }

func (rooted) Root() manifest.Root { return manifest.HSM }
