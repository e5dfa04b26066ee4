package record

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	_ "embed"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"reflect"
	"slices"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// Records of released versions that were wrapped anew, under version 2. Add entries,
// never change one.
//
//go:embed testdata/rewrapped.json
var rewrapped []byte

var addRewrapped = flag.Bool("add-rewrapped", false, "write testdata/rewrapped.json by the layout")

type rewrappedRecord struct {
	Of     string // name in records.json
	Sealed hexBytes
}

func rewrappedRecords(t testing.TB) []rewrappedRecord {
	t.Helper()
	var file struct{ Records []rewrappedRecord }
	if err := json.Unmarshal(rewrapped, &file); err != nil {
		t.Fatal(err)
	}
	return file.Records
}

// rewrapByLayout wraps a released record under the newest version with the standard
// library alone, docs/formats.md#sealed-record-v2.
func rewrapByLayout(t testing.TB, r ring, sealed []byte) []byte {
	t.Helper()
	attributes, material := openByLayout(t, r, sealed)
	version := uint32(len(r.domainKeys))
	head := bytes.Clone(sealed[:atSalt])
	head[atFormat] = 2
	binary.BigEndian.PutUint32(head[atDKVersion:], version)
	state := join(sealed[len(sealed)-16:], sealed[atDKVersion:atSalt], binary.BigEndian.AppendUint32(nil, uint32(len(attributes))), attributes)
	key, err := hkdf.Expand(sha256.New, r.domainKeys[version-1], "ehsm/rewrap-salt/v1\x00"+string(r.domain), 32)
	if err != nil {
		t.Fatal(err)
	}
	m := hmac.New(sha256.New, key)
	m.Write(join(head, state, material))
	salt := m.Sum(nil)
	out := join(head, salt, state)
	aead, nonce := wrappingByLayout(t, r, version, salt)
	return append(out, aead.Seal(nil, nonce, material, out)...)
}

// TestRewrapByLayout compares with a second implementation, and with bytes of
// released versions.
func TestRewrapByLayout(t *testing.T) {
	keys := rings(t)[twoVersions]
	var all []rewrappedRecord
	for _, r := range releasedRecords(t) {
		if r.Keyring != oneVersion {
			continue
		}
		want := rewrapByLayout(t, keys, r.Sealed)
		all = append(all, rewrappedRecord{r.Name, want})
		got, err := Rewrap(keys.Keyring, r.header(), r.Sealed)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %x, %v, want %x", r.Name, got, err, want)
		}
	}
	if *addRewrapped {
		b, _ := json.MarshalIndent(map[string]any{"records": texts(all)}, "", "  ")
		if err := os.WriteFile("testdata/rewrapped.json", append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, known := range rewrappedRecords(t) {
		i := slices.IndexFunc(all, func(r rewrappedRecord) bool { return r.Of == known.Of })
		if i < 0 || !bytes.Equal(all[i].Sealed, known.Sealed) {
			t.Errorf("%s: it is not wrapped as it was by released versions", known.Of)
		}
	}
}

func texts(records []rewrappedRecord) (list []map[string]string) {
	for _, r := range records {
		list = append(list, map[string]string{"of": r.Of, "sealed": hex.EncodeToString(r.Sealed)})
	}
	return list
}

// TestRewrappedRecordsOpen has what released versions wrapped anew, and that it is
// the state it was.
func TestRewrappedRecordsOpen(t *testing.T) {
	keys := rings(t)[twoVersions].Keyring
	if len(rewrappedRecords(t)) == 0 {
		t.Fatal("testdata/rewrapped.json has no records")
	}
	for _, w := range rewrappedRecords(t) {
		r := sample(t, w.Of)
		got, material, err := openAny(keys, r.header(), w.Sealed)
		if err != nil || !reflect.DeepEqual(got, r.attributes()) || r.Secret == nil && !bytes.Equal(material.Expose(), r.Material) {
			t.Errorf("%s: got %+v, %v", w.Of, got, err)
		}
		if wire.SealedTag(w.Sealed) != wire.SealedTag(r.Sealed) {
			t.Errorf("%s: the state has another tag than before", w.Of)
		}
		if wrapped, made := wire.SealedVersions(w.Sealed); wrapped != 2 || made != 1 {
			t.Errorf("%s: wrapped under %d, made under %d, want 2 and 1", w.Of, wrapped, made)
		}
	}
}

// TestRewrapWays wraps a state from 1 to 3 at once and over 2: the bytes are the
// same, or two nodes would make two states of one.
func TestRewrapWays(t *testing.T) {
	two := rings(t)[twoVersions].Keyring
	three, err := two.Next(secret.NewHeap())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range releasedRecords(t) {
		if r.Keyring != oneVersion {
			continue
		}
		over, err := Rewrap(two, r.header(), r.Sealed)
		if err != nil {
			t.Fatal(err)
		}
		a, err := Rewrap(three, r.header(), over)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Rewrap(three, r.header(), r.Sealed)
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: two ways give %x and %x, %v", r.Name, a, b, err)
		}
		if wrapped, made := wire.SealedVersions(a); wrapped != 3 || made != 1 || wire.SealedTag(a) != wire.SealedTag(r.Sealed) {
			t.Errorf("%s: wrapped under %d, made under %d", r.Name, wrapped, made)
		}
	}
}

func TestRewrapRefused(t *testing.T) {
	all := rings(t)
	one, two := all[oneVersion].Keyring, all[twoVersions].Keyring
	r := sample(t, "AES key, version 1")
	done, err := Rewrap(two, r.header(), r.Sealed)
	if err != nil {
		t.Fatal(err)
	}
	other := r.header()
	other.Revision++
	flipped := func(at int) []byte {
		b := bytes.Clone(done)
		b[at] ^= 1
		return b
	}
	for _, row := range []struct {
		name   string
		keys   *domainkey.Keyring
		h      Header
		sealed []byte
		want   error
	}{
		{"under the current version", one, r.header(), r.Sealed, ErrNotDue},
		{"wrapped anew already", two, r.header(), done, ErrNotDue},
		{"of a later version than is held", one, r.header(), done, domainkey.ErrNoVersion},
		{"another domain", all[otherDomain].Keyring, r.header(), r.Sealed, ErrOpen},
		{"asked for by another revision", two, other, r.Sealed, ErrOpen},
		{"format 1 made of format 2", two, r.header(), append([]byte{1}, done[1:]...), ErrOpen},
		{"format 2 made of format 1", two, r.header(), append([]byte{2}, r.Sealed[1:]...), ErrOpen},
		{"format 3", two, r.header(), append([]byte{3}, done[1:]...), ErrOpen},
		{"another tag of the state", two, r.header(), flipped(114), ErrOpen},
		{"another version that made it", two, r.header(), flipped(133), ErrOpen},
		{"nothing", two, r.header(), nil, ErrOpen},
		{"cut in the tag of the state", two, r.header(), done[:120], ErrOpen},
	} {
		if got, err := Rewrap(row.keys, row.h, row.sealed); got != nil || !errors.Is(err, row.want) {
			t.Errorf("%s: got %d bytes, %v, want %v", row.name, len(got), err, row.want)
		}
	}
}

// TestRewrappedEveryBit flips each bit of a record that was wrapped anew.
func TestRewrappedEveryBit(t *testing.T) {
	keys := rings(t)[twoVersions].Keyring
	r := sample(t, "AES key, version 1")
	sealed, err := Rewrap(keys, r.header(), r.Sealed)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(sealed) * 8 {
		changed := bytes.Clone(sealed)
		changed[i/8] ^= 1 << (i % 8)
		if _, _, err := openAny(keys, r.header(), changed); !errors.Is(err, ErrOpen) {
			t.Errorf("bit %d of byte %d flipped: got %v, want ErrOpen", i%8, i/8, err)
		}
	}
}

// FuzzRewrap looks for something that is not genuine and is wrapped anew.
func FuzzRewrap(f *testing.F) {
	keys := rings(f)[twoVersions].Keyring
	genuine := map[string]bool{}
	for _, r := range releasedRecords(f) {
		f.Add([]byte(r.Sealed))
		genuine[string(r.Sealed)] = true
	}
	f.Fuzz(func(t *testing.T, sealed []byte) {
		p, err := split(sealed)
		if err != nil {
			return
		}
		got, err := Rewrap(keys, p.Header, sealed)
		switch {
		case err != nil && got != nil:
			t.Error("an error and a record")
		case err != nil && !errors.Is(err, ErrOpen) && !errors.Is(err, ErrNotDue):
			t.Errorf("got %v", err)
		case err == nil && !genuine[string(sealed)]:
			t.Error("wraps what was never sealed")
		}
	})
}
