package domainkey

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
)

// parts returns a released bundle with the domain key and id of its genesis.
func parts(t testing.TB) (releasedBundle, ed25519.PublicKey, genesis.ID) {
	t.Helper()
	b := releasedBundles(t)[1]
	g, id, err := genesis.Parse([]byte(b.Genesis))
	if err != nil {
		t.Fatal(err)
	}
	return b, g.DomainKey, id
}

// anyKey gives the seal key of b whatever the request says, so that what binds
// the request is the additional data alone.
func anyKey(b releasedBundle) tee.Platform { return answering{node(), b.SealKey} }

func TestChangedBundles(t *testing.T) {
	b, public, id := parts(t)
	if _, err := unseal(secret.NewHeap(), anyKey(b), public, id, b.Bundle); err != nil {
		t.Fatal(err)
	}
	for _, p := range []tee.Platform{b.platform(), anyKey(b)} {
		for i := range len(b.Bundle) * 8 {
			changed := bytes.Clone(b.Bundle)
			changed[i/8] ^= 1 << (i % 8)
			if k, err := unseal(secret.NewHeap(), p, public, id, changed); !errors.Is(err, ErrSeal) || k != nil {
				t.Errorf("bit %d of byte %d flipped: got %v, want ErrSeal", i%8, i/8, err)
			}
		}
		for n := range b.Bundle {
			if _, err := unseal(secret.NewHeap(), p, public, id, b.Bundle[:n]); !errors.Is(err, ErrSeal) {
				t.Errorf("cut to %d bytes: got %v, want ErrSeal", n, err)
			}
		}
		for n := 1; n <= 64; n++ {
			long := append(bytes.Clone(b.Bundle), make([]byte, n)...)
			if _, err := unseal(secret.NewHeap(), p, public, id, long); !errors.Is(err, ErrSeal) {
				t.Errorf("%d bytes longer: got %v, want ErrSeal", n, err)
			}
		}
	}
}

// TestForeignBundles has properly sealed bundles that do not belong here.
func TestForeignBundles(t *testing.T) {
	_, public, id := parts(t)
	dk := []secret.Bytes{secret.New(bytes.Repeat([]byte{1}, KeySize))}
	signing := secret.New(releasedBundles(t)[1].SigningSeed)
	sealed := func(domain genesis.ID, versions []secret.Bytes, signing secret.Bytes) []byte {
		b, err := seal(node(), domain, versions, signing)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if _, err := unseal(secret.NewHeap(), node(), public, id, sealed(id, dk, signing)); err != nil {
		t.Fatal(err)
	}
	otherID := id
	otherID[31] ^= 1
	for _, row := range []struct {
		name   string
		bundle []byte
		text   string
	}{
		{"for another domain", sealed(otherID, dk, signing), "sealed for domain"},
		{"with another signing key", sealed(id, dk, secret.New(make([]byte, ed25519.SeedSize))), "not the one the genesis names"},
		{"without a version", sealed(id, nil, signing), "no version"},
		{"with a short version", sealed(id, []secret.Bytes{secret.New(make([]byte, KeySize-1))}, signing), "malformed"},
		{"with a long version", sealed(id, []secret.Bytes{secret.New(make([]byte, KeySize+1))}, signing), "malformed"},
		{"with a short signing key", sealed(id, dk, secret.New(make([]byte, ed25519.SeedSize-1))), "malformed"},
		{"of another format", append([]byte{2}, sealed(id, dk, signing)[1:]...), "format 2"},
		{"over the limit", make([]byte, maxBundle+1), "limit"},
	} {
		k, err := unseal(secret.NewHeap(), node(), public, id, row.bundle)
		if !errors.Is(err, ErrSeal) || k != nil || !strings.Contains(err.Error(), row.text) {
			t.Errorf("%s: got %v, want ErrSeal with %q", row.name, err, row.text)
		}
	}
}

// TestKeyInfo has platforms that need more than the request to find their key.
func TestKeyInfo(t *testing.T) {
	for _, info := range [][]byte{{1}, make([]byte, tee.MaxKeyInfo)} {
		m := informed{node(), info}
		dir := create(t, m)
		open(t, dir, m)
		refused(t, "other information", dir, informed{node(), []byte{2}}, tee.ErrKeyRequest)
		if !bytes.Contains(get(t, dir, BundleFile), info) {
			t.Error("the bundle does not hold the key information")
		}
	}
	if err := createIn(filepath.Join(t.TempDir(), "domain"), informed{node(), make([]byte, tee.MaxKeyInfo+1)}); !errors.Is(err, tee.ErrKeyRequest) {
		t.Errorf("information over the limit: got %v, want ErrKeyRequest", err)
	}
}

func TestPlatformsThatCannotSeal(t *testing.T) {
	const text = "cannot seal; provision the DomainKey"
	dir := filepath.Join(t.TempDir(), "domain")
	if err := createIn(dir, sealless{node()}); !errors.Is(err, tee.ErrNoSealKey) || !strings.Contains(err.Error(), text) {
		t.Errorf("Create: got %v, want ErrNoSealKey with %q", err, text)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Create left something behind: %v", err)
	}
	for _, name := range []string{"with a bundle", "without a bundle"} {
		dir := create(t, node())
		if name == "without a bundle" {
			remove(t, dir, BundleFile)
		}
		k, _, err := Open(dir, sealless{node()}, secret.NewHeap())
		if k != nil || !errors.Is(err, tee.ErrNoSealKey) || !strings.Contains(err.Error(), text) {
			t.Errorf("Open %s: got %v, want ErrNoSealKey with %q", name, err, text)
		}
	}
}

// FuzzUnseal opens hostile bundles with a fixed seal key.
func FuzzUnseal(f *testing.F) {
	b, public, id := parts(f)
	f.Add([]byte(b.Bundle))
	f.Add([]byte(b.Bundle[:72]))
	f.Add(append(append([]byte{}, b.Bundle[:36]...), 0, 0, 4, 1))
	f.Add([]byte{bundleV1})
	f.Fuzz(func(t *testing.T, bundle []byte) {
		k, err := unseal(secret.NewHeap(), anyKey(b), public, id, bundle)
		switch {
		case err == nil && !bytes.Equal(bundle, b.Bundle):
			t.Error("opens a bundle that was never sealed")
		case err != nil && (k != nil || !errors.Is(err, ErrSeal)):
			t.Errorf("got a keyring %v and error %v", k != nil, err)
		}
	})
}

// FuzzParseBundle decodes what is inside the seal.
func FuzzParseBundle(f *testing.F) {
	b, public, id := parts(f)
	plain := append(bytes.Clone(b.SigningSeed), 0, 0, 0, 1)
	f.Add(append(plain, make([]byte, KeySize)...))
	f.Add(append(plain[:len(plain):len(plain)], make([]byte, KeySize+1)...))
	f.Add(plain)
	f.Fuzz(func(t *testing.T, plain []byte) {
		k, err := parseBundle(secret.NewHeap(), public, id, bytes.Clone(plain))
		if err != nil {
			return
		}
		again := binary.BigEndian.AppendUint32(bytes.Clone(k.signing.Expose()), k.Current())
		for _, dk := range k.set.Load().versions {
			again = append(again, dk.Expose()...)
		}
		if !bytes.Equal(again, plain) {
			t.Errorf("two encodings of one bundle: %x and %x", plain, again)
		}
	})
}
