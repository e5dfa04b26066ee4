package recovery

import (
	"bytes"
	"crypto/hpke"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire/escrow"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// releasedDir has files of a domain as released versions have written them. Add
// directories, never change one: a failure here means that backups that people keep can
// no longer be restored.
const releasedDir = "../../wire/escrow/testdata/v1"

// releasedPeople are the custodians: their private keys are one byte, repeated.
var releasedPeople = []struct {
	name string
	seed byte
}{{"dave", 0x11}, {"erin", 0x22}, {"fay", 0x33}}

const sessionSeed = 0x44 // of the restoration that dave has answered

func keyOf(t testing.TB, seed byte) hpke.PrivateKey {
	t.Helper()
	key, err := hpke.MLKEM768X25519().NewPrivateKey(bytes.Repeat([]byte{seed}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func readReleased(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(releasedDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestReleased restores a DomainKey from a backup that a released version has written.
func TestReleased(t *testing.T) {
	if os.Getenv("MAKE_RELEASED") != "" {
		makeReleased(t)
	}
	backup, err := escrow.ParseBackup(readReleased(t, "domain.backup"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := backup.Verify(time.Time{})
	if err != nil || !bytes.Equal(backup.Manifests[0], readReleased(t, "genesis.json")) {
		t.Fatalf("another genesis, or %v", err)
	}
	state, shares := c.State(), map[uint8]secret.Bytes{}
	for i, p := range releasedPeople[:2] {
		value, err := escrow.OpenShare(keyOf(t, p.seed), c.Shares[i])
		if err != nil {
			t.Fatal(err)
		}
		shares[uint8(i+1)] = secret.New(value)
		if err := check(uint8(i+1), shares[uint8(i+1)], state.Recovery); err != nil {
			t.Errorf("share of %s: %v", p.name, err)
		}
	}
	a, err := escrow.ParseAnswer(readReleased(t, "dave.answer"))
	if err != nil {
		t.Fatal(err)
	}
	if value, err := escrow.Open(keyOf(t, sessionSeed), a.Info(), a.Sealed); err != nil || !bytes.Equal(value, shares[1].Expose()) {
		t.Errorf("the answer has another share: %v", err)
	}
	key, err := combine(2, shares)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := escrow.Open(key, c.Escrow.Info(), c.Escrow.Sealed)
	if err != nil {
		t.Fatal(err)
	}
	k, err := domainkey.Import(secret.NewHeap(), state, secret.New(plain))
	if err != nil {
		t.Fatal(err)
	}
	wrapping, err := k.Key(domainkey.RecordWrapping, 1)
	if want := bytes.TrimSpace(readReleased(t, "wrapping.hex")); err != nil || hex.EncodeToString(wrapping.Expose()) != string(want) {
		t.Errorf("the DomainKey gives another record wrapping key, want %s: %v", want, err)
	}
}

// makeReleased makes the files anew. Only for a new version of a format.
func makeReleased(t *testing.T) {
	d, operator, err := manifest.ThrowAway(manifest.Defaults(manifest.Development))
	if err != nil {
		t.Fatal(err)
	}
	d.Custodians = &manifest.Quorum{Threshold: 2}
	for _, p := range releasedPeople {
		d.Custodians.Members = append(d.Custodians.Members, manifest.Person{Name: p.name, Key: keyOf(t, p.seed).PublicKey().Bytes()})
	}
	made, err := Make(d.Custodians)
	if err != nil {
		t.Fatal(err)
	}
	a := &realm{dir: filepath.Join(t.TempDir(), "domain")}
	if err := domainkey.CreateRecoverable(a.dir, dkeyserver(t, 0), d, made, start, operator); err != nil {
		t.Fatal(err)
	}
	if a.files, err = domainkey.Files(a.dir); err != nil {
		t.Fatal(err)
	}
	if a.last, err = manifest.Open(a.files[0]); err != nil {
		t.Fatal(err)
	}
	k := keys(t, a.dir, 0)
	b, err := escrow.ParseBackup(a.backupOf(t, k))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range releasedPeople {
		b.Shares = append(b.Shares, a.share(t, p.name, 1).Encode())
	}
	request := &escrow.Request{Session: [1216]byte(keyOf(t, sessionSeed).PublicKey().Bytes())}
	wrapping, err := k.Key(domainkey.RecordWrapping, 1)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"genesis.json": a.files[0], "domain.backup": b.Encode(), "share-dave.sealed": b.Shares[0],
		"dave.answer":  release(t, &person{"dave", keyOf(t, 0x11)}, a.share(t, "dave", 1), request.Encode()),
		"wrapping.hex": []byte(hex.EncodeToString(wrapping.Expose()) + "\n"),
	} {
		if err := os.WriteFile(filepath.Join(releasedDir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
