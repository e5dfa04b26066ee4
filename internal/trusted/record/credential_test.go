package record

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

const manyCredentials = "app with credentials"

// appByLayout is a second implementation of layout 2, docs/formats.md#app-v2.
func appByLayout(a App) []byte {
	number := func(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }
	count := func(n int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }
	text := func(s string) []byte { return join(binary.BigEndian.AppendUint16(nil, uint16(len(s))), []byte(s)) }
	truth := func(b bool) []byte { return map[bool][]byte{false: {0}, true: {1}}[b] }
	out := join([]byte{2, byte(a.State)}, truth(a.Exposed), number(a.Created), number(a.Modified), count(int(a.Generation)),
		number(a.GenerationAt), a.DefaultKey[:], text(a.Name), count(len(a.Credentials)))
	for _, c := range a.Credentials {
		out = join(out, c.ID[:], []byte{byte(c.Kind), byte(c.Role)}, truth(c.RequireAction), number(c.Created), number(c.Expires), number(c.Ends),
			c.Policy[:], text(c.Description), count(len(c.PublicKey)), c.PublicKey)
	}
	return out
}

func TestAppLayout2(t *testing.T) {
	r := sample(t, manyCredentials)
	attributes, _ := openByLayout(t, rings(t)[oneVersion], r.Sealed)
	if !bytes.Equal(appByLayout(r.app()), attributes) {
		t.Errorf("attributes by layout: got %x, want %x", appByLayout(r.app()), attributes)
	}
}

// keyPairs makes credentials without material.
func keyPairs(n int) (all []Credential) {
	for i := range n {
		all = append(all, Credential{
			ID: wire.UUID{15: byte(i + 1)}, Kind: Ed25519, Role: Owner, Description: strings.Repeat("~", MaxText),
			PublicKey: bytes.Repeat([]byte{byte(i + 1)}, 32),
		})
	}
	return all
}

// TestBadCredentials has apps that must not be sealed, and are refused where they
// were.
func TestBadCredentials(t *testing.T) {
	ring := rings(t)[oneVersion]
	r := sample(t, manyCredentials)
	const first, second, pair, point = 0, 1, 2, 3
	for _, row := range []struct {
		name   string
		change func(a *App)
		cause  string
	}{
		{"no credential", func(a *App) { a.Credentials = nil }, "0 credentials"},
		{"too many", func(a *App) { a.Credentials = keyPairs(MaxCredentials + 1) }, "17"},
		{"too many API keys", func(a *App) {
			for i := range MaxAPIKeys - 1 {
				c := a.Credentials[first]
				c.ID = wire.UUID{byte(i + 1)}
				a.Credentials = append(a.Credentials, c)
			}
		}, "5 API keys"},
		{"no kind", func(a *App) { a.Credentials[pair].Kind = 0 }, "kind 0"},
		{"unknown kind", func(a *App) { a.Credentials[pair].Kind = 4 }, "kind 4"},
		{"no role", func(a *App) { a.Credentials[second].Role = 0 }, "role 0"},
		{"unknown role", func(a *App) { a.Credentials[second].Role = 3 }, "role 3"},
		{"expiry before 1970", func(a *App) { a.Credentials[second].Expires = -1 }, "before 1970"},
		{"end before 1970", func(a *App) { a.Credentials[second].Ends = -1 }, "before 1970"},
		{"long description", func(a *App) { a.Credentials[pair].Description = strings.Repeat("x", MaxText+1) }, "up to 64 bytes"},
		{"line feed in a description", func(a *App) { a.Credentials[pair].Description = "a\nb" }, "printable"},
		{"umlaut in a description", func(a *App) { a.Credentials[pair].Description = "\u00e4" }, "printable"},
		{"long name", func(a *App) { a.Name = strings.Repeat("x", MaxText+1) }, "up to 64 bytes"},
		{"escape in a name", func(a *App) { a.Name = "\x1b[2J" }, "printable"},
		{"one id twice", func(a *App) { a.Credentials[point].ID = a.Credentials[pair].ID }, "there are two"},
		{"key pair of id zero", func(a *App) { a.Credentials[pair].ID = wire.UUID{} }, "without an id"},
		{"one public key twice", func(a *App) {
			c := a.Credentials[pair]
			c.ID, c.Role = wire.UUID{9}, Owner
			a.Credentials = append(a.Credentials, c)
		}, "another one has its public key"},
		{"API key with a public key", func(a *App) { a.Credentials[second].PublicKey = a.Credentials[pair].PublicKey }, "with a public key"},
		{"Ed25519 without a key", func(a *App) { a.Credentials[pair].PublicKey = nil }, "0 bytes"},
		{"Ed25519 with a short key", func(a *App) { a.Credentials[pair].PublicKey = a.Credentials[pair].PublicKey[1:] }, "31 bytes"},
		{"Ed25519 with a point of P-256", func(a *App) { a.Credentials[pair].PublicKey = a.Credentials[point].PublicKey }, "65 bytes"},
		{"P-256 with a key of Ed25519", func(a *App) { a.Credentials[point].PublicKey = a.Credentials[pair].PublicKey }, "invalid uncompressed"},
		{"P-256 off the curve", func(a *App) {
			key := bytes.Clone(a.Credentials[point].PublicKey)
			key[64] ^= 1
			a.Credentials[point].PublicKey = key
		}, "curve"},
		{"P-256 compressed", func(a *App) {
			key := a.Credentials[point].PublicKey
			a.Credentials[point].PublicKey = join([]byte{2 + key[64]&1}, key[1:33])
		}, "invalid uncompressed"},
		{"P-256 at infinity", func(a *App) { a.Credentials[point].PublicKey = []byte{0} }, "invalid uncompressed"},
	} {
		a := r.app()
		a.Credentials = slices.Clone(a.Credentials)
		row.change(&a)
		var keys []secret.Bytes
		var material []byte
		for range a.apiKeys() {
			keys, material = append(keys, secret.New([]byte("key"))), append(material, "\x03key"...)
		}
		if sealed, err := SealApp(ring.Keyring, r.header(), a, keys); err == nil || sealed != nil || !strings.Contains(err.Error(), row.cause) {
			t.Errorf("%s: seal: got %d bytes, %v, want %q", row.name, len(sealed), err, row.cause)
		}
		sealed := sealByLayout(t, ring, r.header(), 1, make([]byte, saltSize), appByLayout(a), material)
		refused(t, row.name, ring.Keyring, r.header(), sealed, "")
	}
}

// TestBadAppBytes has what no App can say.
func TestBadAppBytes(t *testing.T) {
	ring := rings(t)[oneVersion]
	r := sample(t, manyCredentials)
	attributes, material := openByLayout(t, ring, r.Sealed)
	first := App{State: Active, Created: 7, Credentials: []Credential{FirstCredential(7)}}
	const atRequired = 47 + 2 + len("payments") + 4 + 16 + 2
	for _, row := range []struct {
		name                 string
		attributes, material []byte
		cause                string
	}{
		{"layout 1 in layout 2", appByLayout(first), []byte("\x03key"), "layout 1 in layout 2"},
		{"cut short", attributes[:len(attributes)-1], material, "malformed"},
		{"a byte more", join(attributes, []byte{0}), material, "1 trailing bytes"},
		{"required twice", set(atRequired, 2)(bytes.Clone(attributes)), material, "boolean is 2"},
		{"no material", attributes, nil, "texts of API keys"},
		{"material cut short", attributes, material[:len(material)-1], "texts of API keys"},
		{"material of one key", attributes, material[:33], "texts of API keys"},
		{"material with a byte more", attributes, join(material, []byte{0}), "trailing bytes"},
		{"material with a key more", attributes, join(material, material[:33]), "trailing bytes"},
		{"empty text", attributes, join([]byte{0}, material[33:]), "without a text"},
	} {
		sealed := sealByLayout(t, ring, r.header(), 1, make([]byte, saltSize), row.attributes, row.material)
		refused(t, row.name, ring.Keyring, r.header(), sealed, row.cause)
	}
	good := sealByLayout(t, ring, r.header(), 1, make([]byte, saltSize), attributes, material)
	if _, _, err := OpenApp(ring.Keyring, r.header(), good); err != nil {
		t.Errorf("unchanged: %v", err)
	}
}

// TestTextsOfAPIKeys has apps that are sealed with other texts than they have
// credentials for.
func TestTextsOfAPIKeys(t *testing.T) {
	keys := rings(t)[oneVersion].Keyring
	r := sample(t, manyCredentials)
	text := func(n int) secret.Bytes { return secret.New(bytes.Repeat([]byte{'k'}, n)) }
	for _, row := range []struct {
		name  string
		texts []secret.Bytes
		cause string
	}{
		{"none", nil, "0 texts of API keys, want 2"},
		{"one", []secret.Bytes{text(32)}, "1 texts"},
		{"three", []secret.Bytes{text(32), text(32), text(32)}, "3 texts"},
		{"an empty one", []secret.Bytes{text(32), text(0)}, "API key of 0 bytes"},
		{"a long one", []secret.Bytes{text(256), text(32)}, "API key of 256 bytes"},
	} {
		if _, err := SealApp(keys, r.header(), r.app(), row.texts); err == nil || !strings.Contains(err.Error(), row.cause) {
			t.Errorf("%s: got %v, want %q", row.name, err, row.cause)
		}
	}
	sealed, err := SealApp(keys, r.header(), r.app(), []secret.Bytes{text(255), text(1)})
	if err != nil {
		t.Fatal(err)
	}
	a, got, err := OpenApp(keys, r.header(), sealed)
	if err != nil || !reflect.DeepEqual(a, r.app()) || len(got) != 2 || !got[0].Equal(text(255)) || !got[1].Equal(text(1)) {
		t.Errorf("OpenApp: got %+v and %d texts, %v", a, len(got), err)
	}
}

func TestEnded(t *testing.T) {
	for _, row := range []struct {
		expires, ends, now int64
		want               bool
	}{
		{0, 0, 1 << 60, false}, {100, 0, 99, false}, {100, 0, 100, true}, {100, 0, 101, true},
		{0, 100, 99, false}, {0, 100, 100, true}, {200, 100, 100, true}, {100, 200, 100, true}, {100, 200, 99, false},
	} {
		c := Credential{Expires: row.expires, Ends: row.ends}
		if got := c.Ended(row.now); got != row.want {
			t.Errorf("expires %d, ends %d, now %d: got %v", row.expires, row.ends, row.now, got)
		}
	}
}
