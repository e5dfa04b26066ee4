package record

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

func TestReleasedRecordsOpen(t *testing.T) {
	all := rings(t)
	for _, r := range releasedRecords(t) {
		got, material, err := openAny(all[r.Keyring].Keyring, r.header(), r.Sealed)
		if err != nil {
			t.Errorf("%s: %v", r.Name, err)
			continue
		}
		want := r.attributes()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", r.Name, got, want)
		}
		if r.Secret == nil && !bytes.Equal(material.Expose(), r.Material) {
			t.Errorf("%s: got material %x, want %x", r.Name, material.Expose(), r.Material)
		}
	}
}

// TestOlderDomainKeyOpens has records of version 1 read by a node of version 2.
func TestOlderDomainKeyOpens(t *testing.T) {
	newer := rings(t)[twoVersions].Keyring
	for _, r := range releasedRecords(t) {
		if r.Keyring != oneVersion {
			continue
		}
		if _, _, err := openAny(newer, r.header(), r.Sealed); err != nil {
			t.Errorf("%s: %v", r.Name, err)
		}
	}
}

// TestSealByLayout compares what this package seals, byte for byte, with a
// second implementation of the layout that is given the same salt.
func TestSealByLayout(t *testing.T) {
	all := rings(t)
	for _, r := range releasedRecords(t) {
		keys := all[r.Keyring]
		sealed, err := r.seal(keys.Keyring)
		if err != nil {
			t.Errorf("%s: %v", r.Name, err)
			continue
		}
		// The attributes are those of the released record: they have no salt.
		wantAttributes, _ := openByLayout(t, keys, r.Sealed)
		want := sealByLayout(t, keys, r.header(), keys.Current(), sealed[atSalt:atLength], wantAttributes, r.Material)
		if !bytes.Equal(sealed, want) {
			t.Errorf("%s: sealed %x, want %x", r.Name, sealed, want)
		}
		if _, material := openByLayout(t, keys, sealed); !bytes.Equal(material, r.Material) {
			t.Errorf("%s: material by layout is %x, want %x", r.Name, material, r.Material)
		}
	}
}

func TestSaltsAreFresh(t *testing.T) {
	keys := rings(t)[oneVersion].Keyring
	r := sample(t, "AES key, version 1")
	salts, boxes := map[string]bool{}, map[string]bool{}
	const n = 64
	for range n {
		sealed, err := r.seal(keys)
		if err != nil {
			t.Fatal(err)
		}
		salts[string(sealed[atSalt:atLength])] = true
		boxes[string(sealed[len(sealed)-len(r.Material)-tagSize:])] = true
	}
	if len(salts) != n || len(boxes) != n {
		t.Errorf("%d salts and %d ciphertexts in %d records of one key", len(salts), len(boxes), n)
	}
}

// TestMaterialIsHidden looks for the material in what the host stores.
func TestMaterialIsHidden(t *testing.T) {
	all := rings(t)
	for _, r := range releasedRecords(t) {
		if len(r.Material) < 16 {
			continue
		}
		sealed, err := r.seal(all[r.Keyring].Keyring)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(sealed, r.Material[:16]) {
			t.Errorf("%s: sealed record shows its material", r.Name)
		}
	}
}

// TestReleasedDigests pairs key records with the versions they state.
func TestReleasedDigests(t *testing.T) {
	pairs := 0
	for _, k := range releasedRecords(t) {
		if k.Key == nil {
			continue
		}
		for _, r := range releasedRecords(t) {
			if r.KeyVersion == nil || !bytes.Equal(k.ID, r.ID) {
				continue
			}
			key := k.key()
			stated, ok := key.Version(r.Version)
			if !ok {
				continue
			}
			pairs++
			if got := VersionDigest(r.header().ID, *r.KeyVersion, secret.New(r.Material)); got != stated.Digest {
				t.Errorf("%s in %s: digest is %x, want %x", r.Name, k.Name, got, stated.Digest)
			}
		}
	}
	if pairs < 3 {
		t.Errorf("testdata/records.json has %d pairs, want at least 3", pairs)
	}
}

func TestVersionDigest(t *testing.T) {
	id := wire.RecordID{Type: wire.KeyVersion, Tenant: wire.UUID{1}, ID: wire.UUID{2}, Version: 3}
	v := KeyVersion{Spec: primitive.AESGCM256, Usage: EncryptDecrypt, Origin: Internal, Created: 5}
	material := bytes.Repeat([]byte{6}, 32)
	base := VersionDigest(id, v, secret.New(material))
	const want = "eedf0c8182ac384dc0953fa315775a539c4aa012f38fa36ea932c31e006ffa65"
	if got := hex.EncodeToString(base[:]); got != want {
		t.Errorf("VersionDigest: got %s, want %s", got, want)
	}
	seen := map[[32]byte]string{base: "the base"}
	for _, row := range []struct {
		name   string
		change func(id *wire.RecordID, v *KeyVersion, material []byte)
	}{
		{"other tenant", func(id *wire.RecordID, _ *KeyVersion, _ []byte) { id.Tenant[15] ^= 1 }},
		{"other key", func(id *wire.RecordID, _ *KeyVersion, _ []byte) { id.ID[15] ^= 1 }},
		{"tenant and key swapped", func(id *wire.RecordID, _ *KeyVersion, _ []byte) { id.Tenant, id.ID = id.ID, id.Tenant }},
		{"other version", func(id *wire.RecordID, _ *KeyVersion, _ []byte) { id.Version++ }},
		{"version shifted by a byte", func(id *wire.RecordID, _ *KeyVersion, _ []byte) { id.Version <<= 8 }},
		{"other spec", func(_ *wire.RecordID, v *KeyVersion, _ []byte) { v.Spec = primitive.HMAC }},
		{"other usage", func(_ *wire.RecordID, v *KeyVersion, _ []byte) { v.Usage = SignVerify }},
		{"other origin", func(_ *wire.RecordID, v *KeyVersion, _ []byte) { v.Origin = External }},
		{"first bit of the material", func(_ *wire.RecordID, _ *KeyVersion, m []byte) { m[0] ^= 0x80 }},
		{"last bit of the material", func(_ *wire.RecordID, _ *KeyVersion, m []byte) { m[31] ^= 1 }},
	} {
		id, v, m := id, v, bytes.Clone(material)
		row.change(&id, &v, m)
		got := VersionDigest(id, v, secret.New(m))
		if other, ok := seen[got]; ok {
			t.Errorf("%s: digest is that of %s", row.name, other)
		}
		seen[got] = row.name
	}
	if got := VersionDigest(id, v, secret.New(material[:31])); seen[got] != "" {
		t.Error("shorter material: digest is known")
	}
}

func TestVersionLookup(t *testing.T) {
	k := Key{Versions: []Version{{Number: 1, State: Active}, {Number: 3, State: Destroyed}}}
	if v, ok := k.Version(3); !ok || v.State != Destroyed {
		t.Errorf("Version(3): got %+v, %v", v, ok)
	}
	for _, number := range []uint32{0, 2, 4} {
		if v, ok := k.Version(number); ok || v != (Version{}) {
			t.Errorf("Version(%d): got %+v, %v, want none", number, v, ok)
		}
	}
}

// TestManyVersions has as many versions as a key may have.
func TestManyVersions(t *testing.T) {
	keys := rings(t)[oneVersion].Keyring
	r := sample(t, "AES key")
	k := r.key()
	k.Versions = nil
	for i := range MaxVersions {
		k.Versions = append(k.Versions, Version{Number: uint32(i + 1), State: Deactivated})
	}
	sealed := mustSealKey(t, keys, r.header(), k)
	got, err := OpenKey(keys, r.header(), sealed)
	if err != nil || !reflect.DeepEqual(got, k) {
		t.Errorf("OpenKey: got %d versions, %v", len(got.Versions), err)
	}
}

func mustSealKey(t testing.TB, keys *domainkey.Keyring, h Header, k Key) []byte {
	t.Helper()
	sealed, err := SealKey(keys, h, k)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func BenchmarkOpenKey(b *testing.B) {
	keys := rings(b)[oneVersion].Keyring
	r := sample(b, "AES key")
	ten := r.key()
	for len(ten.Versions) < 10 {
		ten.Versions = append(ten.Versions, Version{Number: uint32(len(ten.Versions) + 1), State: Active})
	}
	for name, sealed := range map[string][]byte{"1 version": r.Sealed, "10 versions": mustSealKey(b, keys, r.header(), ten)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := OpenKey(keys, r.header(), sealed); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpenKeyVersion(b *testing.B) {
	keys := rings(b)[oneVersion].Keyring
	r := sample(b, "AES key, version 1")
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := OpenKeyVersion(keys, r.header(), r.Sealed); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSealKey(b *testing.B) {
	keys := rings(b)[oneVersion].Keyring
	r := sample(b, "AES key")
	k := r.key()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := SealKey(keys, r.header(), k); err != nil {
			b.Fatal(err)
		}
	}
}
