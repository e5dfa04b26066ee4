package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// ofEachType names one released record of each type.
var ofEachType = []string{"new app", "app with key pairs alone", "AES key, version 1", "import session, opaque key pair of 600 bytes", "secret", "secret, version 1", "quote policy", "policy"}

// refused fails unless the record is refused with ErrOpen, a text with cause,
// and nothing of the record returned.
func refused(t *testing.T, name string, keys *domainkey.Keyring, h Header, sealed []byte, cause string) {
	t.Helper()
	attributes, material, err := openAny(keys, h, sealed)
	if !errors.Is(err, ErrOpen) || !strings.Contains(fmt.Sprint(err), cause) {
		t.Errorf("%s: got %v, want ErrOpen with %q", name, err, cause)
	}
	if material.Len() != 0 || !empty(attributes) {
		t.Errorf("%s: returns %+v and %d bytes of material", name, attributes, material.Len())
	}
}

func empty(attributes any) bool {
	switch a := attributes.(type) {
	case App:
		return reflect.ValueOf(a).IsZero()
	case Key:
		return a.Spec == 0 && a.State == 0 && a.Versions == nil
	case KeyVersion:
		return a == KeyVersion{}
	case ImportSession:
		return a == ImportSession{}
	case Secret:
		return a == Secret{}
	case SecretVersion:
		return a == SecretVersion{}
	case QuotePolicy:
		return a == QuotePolicy{}
	case Token:
		return a == Token{}
	case Policy:
		return reflect.DeepEqual(a, Policy{})
	}
	return false
}

func TestEveryBitFlipped(t *testing.T) {
	keys := rings(t)[oneVersion].Keyring
	for _, name := range ofEachType {
		r := sample(t, name)
		for i := range len(r.Sealed) * 8 {
			changed := bytes.Clone(r.Sealed)
			changed[i/8] ^= 1 << (i % 8)
			what := fmt.Sprintf("%s: bit %d of byte %d flipped", name, i%8, i/8)
			refused(t, what, keys, r.header(), changed, "")
			// Opened as what it now says to be, only the encryption is left to refuse.
			if p, err := split(changed); err == nil {
				if a, m, err := open(keys, p.Header, changed); !errors.Is(err, ErrOpen) || a != nil || m.Len() != 0 {
					t.Errorf("%s and asked for by its new name: got %v, want ErrOpen", what, err)
				}
			}
		}
	}
}

func TestEveryLength(t *testing.T) {
	keys := rings(t)[oneVersion].Keyring
	for _, name := range ofEachType {
		r := sample(t, name)
		for n := range r.Sealed {
			refused(t, fmt.Sprintf("%s: cut to %d bytes", name, n), keys, r.header(), r.Sealed[:n], "")
			refused(t, fmt.Sprintf("%s: without the first %d bytes", name, n+1), keys, r.header(), r.Sealed[n+1:], "")
		}
		for n := 1; n <= 64; n++ {
			refused(t, fmt.Sprintf("%s: %d zeros more", name, n), keys, r.header(), join(r.Sealed, make([]byte, n)), "")
		}
		refused(t, name+": twice", keys, r.header(), join(r.Sealed, r.Sealed), "")
	}
}

// TestWrongName asks for a genuine record under a name or revision that is not
// its own.
func TestWrongName(t *testing.T) {
	all := rings(t)
	keys := all[oneVersion].Keyring
	for _, row := range []struct {
		name, record string
		keys         *domainkey.Keyring
		ask          func(h *Header)
		cause        string
	}{
		{"other tenant's app", "new app", keys, func(h *Header) { h.ID.Tenant[0] ^= 1; h.ID.ID[0] ^= 1 }, "want"},
		{"other tenant", "AES key", keys, func(h *Header) { h.ID.Tenant[15] ^= 1 }, "want"},
		{"other key", "AES key", keys, func(h *Header) { h.ID.ID[15] ^= 1 }, "want"},
		{"tenant and key swapped", "AES key", keys, func(h *Header) { h.ID.Tenant, h.ID.ID = h.ID.ID, h.ID.Tenant }, "want"},
		{"older revision", "AES key", keys, func(h *Header) { h.Revision++ }, "revision 1, want"},
		{"newer revision", "AES key", keys, func(h *Header) { h.Revision-- }, "want"},
		{"far revision", "AES key", keys, func(h *Header) { h.Revision |= 1 << 63 }, "want"},
		{"key with a version", "AES key", keys, func(h *Header) { h.ID.Version = 1 }, "want"},
		{"other version", "AES key, version 1", keys, func(h *Header) { h.ID.Version = 2 }, "want"},
		{"other tenant's version", "AES key, version 1", keys, func(h *Header) { h.ID.Tenant = wire.UUID{1} }, "want"},
		{"other key's version", "AES key, version 1", keys, func(h *Header) { h.ID.ID = wire.UUID{1} }, "want"},
		{"version's older revision", "AES key, version 1", keys, func(h *Header) { h.Revision++ }, "want"},
		{"key as app", "AES key", keys, func(h *Header) { h.ID.Type = wire.App }, "want app"},
		{"key as version", "AES key", keys, func(h *Header) { h.ID.Type = wire.KeyVersion }, "want key version"},
		{"version as key", "AES key, version 1", keys, func(h *Header) { h.ID.Type = wire.Key }, "want key"},
		{"app as key", "new app", keys, func(h *Header) { h.ID.Type = wire.Key }, "want key"},
		{"other secret", "secret", keys, func(h *Header) { h.ID.ID[0] ^= 1 }, "want"},
		{"other tenant's secret", "secret", keys, func(h *Header) { h.ID.Tenant[0] ^= 1 }, "want"},
		{"secret's older revision", "secret", keys, func(h *Header) { h.Revision++ }, "want"},
		{"secret as its version", "secret", keys, func(h *Header) { h.ID.Type = wire.SecretVersion }, "want secret version"},
		{"other incarnation's version", "secret, version 1", keys, func(h *Header) { h.ID.ID[0] ^= 1 }, "want"},
		{"other version of a secret", "secret, version 1", keys, func(h *Header) { h.ID.Version++ }, "want"},
		{"secret version as key version", "secret, version 1", keys, func(h *Header) { h.ID.Type = wire.KeyVersion }, "want key version"},
		{"other tenant's quote policy", "quote policy", keys, func(h *Header) { h.ID.Tenant[0] ^= 1 }, "want"},
		{"other quote policy", "quote policy", keys, func(h *Header) { h.ID.ID[0] ^= 1 }, "want"},
		{"quote policy as a key", "quote policy", keys, func(h *Header) { h.ID.Type = wire.Key }, "want key"},
		{"other domain with the same keys", "AES key", all[otherDomain].Keyring, func(*Header) {}, "another domain"},
		{"other domain's version", "AES key, version 1", all[otherDomain].Keyring, func(*Header) {}, "another domain"},
		{"DomainKey version not held", "expired and deleted key of two versions, newer DomainKey", keys, func(*Header) {}, "not held"},
	} {
		r := sample(t, row.record)
		h := r.header()
		row.ask(&h)
		refused(t, row.name, row.keys, h, r.Sealed, row.cause)
	}
}

// TestWrongType asks each Open function for records of the other types.
func TestWrongType(t *testing.T) {
	keys := rings(t)[oneVersion].Keyring
	functions := map[wire.RecordType]func(h Header, sealed []byte) error{
		wire.App:           func(h Header, b []byte) error { _, _, err := OpenApp(keys, h, b); return err },
		wire.Key:           func(h Header, b []byte) error { _, err := OpenKey(keys, h, b); return err },
		wire.KeyVersion:    func(h Header, b []byte) error { _, _, err := OpenKeyVersion(keys, h, b); return err },
		wire.Secret:        func(h Header, b []byte) error { _, err := OpenSecret(keys, h, b); return err },
		wire.SecretVersion: func(h Header, b []byte) error { _, _, err := OpenSecretVersion(keys, h, b); return err },
		wire.QuotePolicy:   func(h Header, b []byte) error { _, err := OpenQuotePolicy(keys, h, b); return err },
		wire.Policy:        func(h Header, b []byte) error { _, err := OpenPolicy(keys, h, b); return err },
		wire.Token:         func(h Header, b []byte) error { _, err := OpenToken(keys, h, b); return err },
	}
	for _, name := range ofEachType {
		r := sample(t, name)
		for typ, f := range functions {
			err := f(r.header(), r.Sealed)
			if typ != r.Type && (!errors.Is(err, ErrOpen) || !strings.Contains(err.Error(), "is no "+typ.String())) {
				t.Errorf("%s opened as %s: got %v, want ErrOpen", name, typ, err)
			}
		}
	}
}

// TestSplicedRecords has parts of genuine records put together, with the names
// changed to what is asked for.
func TestSplicedRecords(t *testing.T) {
	all := rings(t)
	keys := all[twoVersions]
	a, b := sample(t, "AES key, version 1"), sample(t, "AES key, version 2, older DomainKey")
	key, app := sample(t, "AES key"), sample(t, "new app")
	boxOf := func(r releasedRecord) int { return len(r.Sealed) - len(r.Material) - tagSize }
	relabel := func(at int, with []byte) []byte {
		c := bytes.Clone(a.Sealed)
		copy(c[at:], with)
		return c
	}
	for _, row := range []struct {
		name   string
		sealed []byte
	}{
		{"box of another version", join(a.Sealed[:boxOf(a)], b.Sealed[boxOf(b):])},
		{"box of an app", join(a.Sealed[:boxOf(a)], app.Sealed[boxOf(app):])},
		{"salt and box of another version", join(a.Sealed[:atSalt], b.Sealed[atSalt:atLength], a.Sealed[atLength:boxOf(a)], b.Sealed[boxOf(b):])},
		{"attributes of another version", join(a.Sealed[:atLength], b.Sealed[atLength:boxOf(b)], a.Sealed[boxOf(a):])},
		{"all but the name of another version", join(a.Sealed[:atDKVersion], b.Sealed[atDKVersion:])},
		{"all but the name of a key", join(a.Sealed[:atDKVersion], key.Sealed[atDKVersion:])},
		{"a byte of material as attribute", shiftLength(a.Sealed, 1)},
		{"a byte of attributes as material", shiftLength(a.Sealed, -1)},
		{"no attributes", shiftLength(a.Sealed, -12)},
		{"all but the tag as attributes", shiftLength(a.Sealed, len(a.Material))},
		{"other DomainKey version", relabel(atDKVersion, []byte{0, 0, 0, 2})},
		{"DomainKey version 0", relabel(atDKVersion, []byte{0, 0, 0, 0})},
		{"DomainKey version not held", relabel(atDKVersion, []byte{0, 0, 0, 3})},
		{"DomainKey version far off", relabel(atDKVersion, []byte{255, 255, 255, 255})},
		{"tag of zeros", relabel(len(a.Sealed)-tagSize, make([]byte, tagSize))},
		{"tag of another", relabel(len(a.Sealed)-tagSize, b.Sealed[len(b.Sealed)-tagSize:])},
	} {
		refused(t, row.name, keys.Keyring, a.header(), row.sealed, "")
	}
	// A record of one domain relabelled for another that has the same DomainKey.
	moved := relabel(atDomain, all[otherDomain].domain)
	refused(t, "relabelled for another domain", all[otherDomain].Keyring, a.header(), moved, "")
}

// shiftLength moves the border between attributes and box by n bytes.
func shiftLength(sealed []byte, n int) []byte {
	c := bytes.Clone(sealed)
	binary.BigEndian.PutUint32(c[atLength:], uint32(int(binary.BigEndian.Uint32(c[atLength:]))+n))
	return c
}

// TestRelabelledByLayout has records sealed under the right keys whose header
// differs from what was authenticated: what GCM's additional data is for.
func TestRelabelledByLayout(t *testing.T) {
	r := rings(t)[twoVersions]
	v := sample(t, "AES key, version 1")
	attributes, _ := openByLayout(t, r, v.Sealed)
	salt := bytes.Repeat([]byte{5}, saltSize)
	genuine := sealByLayout(t, r, v.header(), 2, salt, attributes, v.Material)
	if _, _, err := openAny(r.Keyring, v.header(), genuine); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(h *Header){
		"type":          func(h *Header) { h.ID.Type = wire.App },
		"tenant":        func(h *Header) { h.ID.Tenant[3] ^= 4 },
		"id":            func(h *Header) { h.ID.ID[3] ^= 4 },
		"key version":   func(h *Header) { h.ID.Version++ },
		"revision":      func(h *Header) { h.Revision++ },
		"tenant and id": func(h *Header) { h.ID.Tenant, h.ID.ID = h.ID.ID, h.ID.Tenant },
	} {
		h := v.header()
		change(&h)
		other := sealByLayout(t, r, h, 2, salt, attributes, v.Material)
		refused(t, "header with another "+name, r.Keyring, v.header(), join(genuine[:atAttributes], other[atAttributes:]), "")
	}
}

func TestUnknownFormats(t *testing.T) {
	keys := rings(t)[oneVersion].Keyring
	r := sample(t, "AES key, version 1")
	for _, format := range []byte{0, 3, 255} {
		changed := bytes.Clone(r.Sealed)
		changed[atFormat] = format
		refused(t, fmt.Sprintf("format %d", format), keys, r.header(), changed, fmt.Sprintf("format %d is unknown", format))
	}
	for _, typ := range []byte{0, 4, 255} {
		changed := bytes.Clone(r.Sealed)
		changed[atType] = typ
		refused(t, fmt.Sprintf("type %d", typ), keys, r.header(), changed, "want key version")
	}
	over := bytes.Clone(r.Sealed)
	binary.BigEndian.PutUint32(over[atLength:], maxAttributes+1)
	refused(t, "attributes over the limit", keys, r.header(), over, "over the limit")
	refused(t, "nothing", keys, r.header(), nil, "got 0 bytes")
	refused(t, "box shorter than a tag", keys, r.header(), r.Sealed[:atAttributes+12+tagSize-1], "want at least 16")
}

func TestSealLimits(t *testing.T) {
	keys := rings(t)[oneVersion].Keyring
	r := sample(t, "AES key, version 1")
	room := wire.MaxRecord - (atAttributes + 12 + tagSize)
	sealed, err := SealKeyVersion(keys, r.header(), *r.KeyVersion, secret.New(make([]byte, room)))
	if err != nil || len(sealed) != wire.MaxRecord {
		t.Fatalf("largest record: got %d bytes, %v, want %d", len(sealed), err, wire.MaxRecord)
	}
	if _, material, err := OpenKeyVersion(keys, r.header(), sealed); err != nil || material.Len() != room {
		t.Errorf("largest record: opens with %d bytes, %v", material.Len(), err)
	}
	if _, err := SealKeyVersion(keys, r.header(), *r.KeyVersion, secret.New(make([]byte, room+1))); err == nil {
		t.Error("record over the limit is sealed")
	}
	if _, err := seal(keys, r.header(), make([]byte, maxAttributes+1), secret.Bytes{}); err == nil {
		t.Error("attributes over the limit are sealed")
	}
	if _, err := seal(keys, r.header(), make([]byte, maxAttributes), secret.Bytes{}); err != nil {
		t.Errorf("largest attributes: %v", err)
	}
}

// FuzzOpen opens hostile records as what they say to be. Only a released record
// can be genuine.
func FuzzOpen(f *testing.F) {
	keys := rings(f)[twoVersions]
	genuine := map[string]bool{}
	for _, r := range releasedRecords(f) {
		f.Add([]byte(r.Sealed))
		genuine[string(r.Sealed)] = true
	}
	for _, r := range rewrappedRecords(f) {
		f.Add([]byte(r.Sealed))
		genuine[string(r.Sealed)] = true
	}
	f.Add([]byte{formatV1})
	f.Fuzz(func(t *testing.T, sealed []byte) {
		p, err := split(sealed)
		if err != nil {
			return
		}
		head := appendHeader(nil, keys.Keyring, p.format, p.Header, p.version, p.salt)
		copy(head[atDomain:], p.domain[:])
		rest := p.appendState(nil)
		if p.format == formatV1 {
			rest = rest[16+4:]
		}
		again := join(head, rest, p.box)
		if !bytes.Equal(again, sealed) {
			t.Errorf("record does not re-encode to the bytes it came from: %x and %x", again, sealed)
		}
		_, _, err = openAny(keys.Keyring, p.Header, sealed)
		if err == nil && !genuine[string(sealed)] {
			t.Error("opens a record that was never sealed")
		}
		if err != nil && !errors.Is(err, ErrOpen) {
			t.Errorf("got %v, want ErrOpen", err)
		}
	})
}
