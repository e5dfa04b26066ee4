package record

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	_ "embed"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// hexBytes is a byte string written in hexadecimal in a JSON file.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// Names of keyrings in the bundles of package domainkey. The second holds the
// version of the first and one more; the third has the keys of the first in
// another domain.
const (
	oneVersion  = "one version"
	twoVersions = "two versions"
	otherDomain = "other domain, same keys"
)

type ring struct {
	*domainkey.Keyring
	domain     []byte
	domainKeys []hexBytes
}

// fixedSeal is a platform that knows one seal key.
type fixedSeal []byte

func (fixedSeal) Name() string           { return "fixed" }
func (fixedSeal) Simulated() bool        { return true }
func (fixedSeal) Identity() tee.Identity { return tee.Identity{} }

func (k fixedSeal) SealKey(tee.KeyRequest) (secret.Bytes, error) { return secret.Copy(k), nil }

// rings opens the released bundles, so that records are sealed under keys that
// never change.
func rings(t testing.TB) map[string]ring {
	t.Helper()
	b, err := os.ReadFile("../domainkey/testdata/bundles.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Bundles []struct {
			Name, Genesis           string
			SealKey, Bundle, Domain hexBytes
			DomainKeys              []hexBytes
		}
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	all := map[string]ring{}
	for _, b := range file.Bundles {
		dir := t.TempDir()
		for name, content := range map[string][]byte{domainkey.GenesisFile: []byte(b.Genesis), domainkey.BundleFile: b.Bundle} {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		keys, _, err := domainkey.Open(dir, fixedSeal(b.SealKey), secret.NewHeap())
		if err != nil {
			t.Fatal(err)
		}
		all[b.Name] = ring{keys, b.Domain, b.DomainKeys}
	}
	return all
}

// Records of released versions. Add entries, never change one: a failure here
// means that stored records can no longer be opened.
//
//go:embed testdata/records.json
var released []byte

type releasedRecord struct {
	Name, Keyring    string
	Type             wire.RecordType
	Tenant, ID       hexBytes
	Version          uint32
	Revision         uint64
	DKVersion        uint32
	Material, Sealed hexBytes

	// One of these.
	App *App
	Key *struct {
		Spec                                primitive.Spec
		Usage                               Usage
		Origin                              Origin
		State                               State
		Paddings                            primitive.PaddingSet
		Default                             bool
		Created, Modified, Expires, Deleted int64
		Generation, Primary                 uint32
		Versions                            []struct {
			Number  uint32
			State   State
			Created int64
			Destroy int64
			Digest  hexBytes
		}
		Life // of layout 2
	}
	KeyVersion    *KeyVersion
	ImportSession *struct {
		Wrapping         primitive.Spec
		State            SessionState
		Session          hexBytes
		Created, Expires int64
		Failures         uint32
	}

	// Name and description are in the material.
	Secret *struct {
		State                               State
		Created, Modified, Planned, Rotated int64
		Current                             uint32
		Incarnation, Key                    hexBytes
		Interval, Name, Description         string
	}
	SecretVersion *struct {
		Created    int64
		Key        hexBytes
		KeyVersion uint32
	}
	QuotePolicy *struct {
		Created             int64
		MREnclave, MRSigner hexBytes
	}
	Token *struct {
		Hash             hexBytes
		Name             string
		Role             Role
		Uses, Used       uint32
		Revoked          bool
		Created, Expires int64
		By               hexBytes
	}
	Policy *struct {
		Created, Modified, Deleted int64
		Actions                    []string
		AllKeys                    bool
		Keys                       []hexBytes
		Description                string
	}
}

// Life is what keys have in layout 2.
type Life struct {
	Destroy                    int64
	Protected                  bool
	LeastEncrypt, LeastDecrypt uint32
	Period                     uint16
	Rotate                     int64
	Description                string
	Aliases                    []string
	Tags                       []Tag
}

func releasedRecords(t testing.TB) []releasedRecord {
	t.Helper()
	var file struct{ Records []releasedRecord }
	if err := json.Unmarshal(released, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Records) == 0 {
		t.Fatal("testdata/records.json has no records")
	}
	return file.Records
}

// sample returns one of the released records.
func sample(t testing.TB, name string) releasedRecord {
	t.Helper()
	all := releasedRecords(t)
	i := slices.IndexFunc(all, func(r releasedRecord) bool { return r.Name == name })
	if i < 0 {
		t.Fatalf("testdata/records.json has no record %q", name)
	}
	return all[i]
}

func (r releasedRecord) header() Header {
	return Header{wire.RecordID{Type: r.Type, Tenant: wire.UUID(r.Tenant), ID: wire.UUID(r.ID), Version: r.Version}, r.Revision}
}

// key is the key record as this package has it.
func (r releasedRecord) key() Key {
	k := Key{
		Spec: r.Key.Spec, Usage: r.Key.Usage, Origin: r.Key.Origin, State: r.Key.State, Paddings: r.Key.Paddings, Default: r.Key.Default,
		Created: r.Key.Created, Modified: r.Key.Modified, Expires: r.Key.Expires, Deleted: r.Key.Deleted,
		Generation: r.Key.Generation, Primary: r.Key.Primary, Destroy: r.Key.Destroy, Protected: r.Key.Protected,
		LeastEncrypt: r.Key.LeastEncrypt, LeastDecrypt: r.Key.LeastDecrypt, Period: r.Key.Period, Rotate: r.Key.Rotate,
		Description: r.Key.Description, Aliases: r.Key.Aliases, Tags: r.Key.Tags, Versions: []Version{},
	}
	for _, v := range r.Key.Versions {
		k.Versions = append(k.Versions, Version{v.Number, v.State, v.Created, v.Destroy, [32]byte(v.Digest)})
	}
	return k
}

// app is the app record as this package has it. Those of layout 1 say nothing of
// credentials.
func (r releasedRecord) app() App {
	a := *r.App
	if a.Credentials == nil {
		a.Credentials = []Credential{FirstCredential(a.Created)}
	}
	return a
}

// importSession is the import session as this package has it.
func (r releasedRecord) importSession() ImportSession {
	s := r.ImportSession
	return ImportSession{s.Wrapping, s.State, [16]byte(s.Session), s.Created, s.Expires, s.Failures}
}

// attributes is the record as this package has it.
func (r releasedRecord) attributes() any {
	switch {
	case r.App != nil:
		return r.app()
	case r.Key != nil:
		return r.key()
	case r.KeyVersion != nil:
		return *r.KeyVersion
	case r.ImportSession != nil:
		return r.importSession()
	case r.Secret != nil:
		s := r.Secret
		return Secret{
			State: s.State, Created: s.Created, Modified: s.Modified, Current: s.Current, Planned: s.Planned,
			Incarnation: wire.UUID(s.Incarnation), Key: wire.UUID(s.Key), Interval: s.Interval, Rotated: s.Rotated,
			Name: s.Name, Description: s.Description,
		}
	case r.QuotePolicy != nil:
		p := r.QuotePolicy
		return QuotePolicy{p.Created, [32]byte(p.MREnclave), [32]byte(p.MRSigner)}
	}
	if k := r.Token; k != nil {
		return Token{[32]byte(k.Hash), k.Name, k.Role, k.Uses, k.Used, k.Revoked, k.Created, k.Expires, wire.UUID(k.By)}
	}
	if p := r.Policy; p != nil {
		want := Policy{Created: p.Created, Modified: p.Modified, Deleted: p.Deleted, AllKeys: p.AllKeys, Description: p.Description}
		want.Actions = append(want.Actions, p.Actions...)
		for _, k := range p.Keys {
			want.Keys = append(want.Keys, wire.UUID(k))
		}
		return want
	}
	v := r.SecretVersion
	return SecretVersion{Created: v.Created, Key: wire.UUID(v.Key), KeyVersion: v.KeyVersion}
}

// seal seals what r holds with this package.
func (r releasedRecord) seal(keys *domainkey.Keyring) ([]byte, error) {
	h := r.header()
	return sealAny(keys, &h, r.attributes(), r.Material)
}

// openAny opens a record as the type that h names.
func openAny(keys *domainkey.Keyring, h Header, sealed []byte) (attributes any, material secret.Bytes, err error) {
	switch h.ID.Type {
	case wire.App:
		a, apiKeys, err := OpenApp(keys, h, sealed)
		if err != nil {
			return a, secret.Bytes{}, err
		}
		return a, joinByLayout(a, apiKeys), nil
	case wire.Key:
		k, err := OpenKey(keys, h, sealed)
		return k, secret.Bytes{}, err
	case wire.ImportSession:
		return anyOf(OpenImportSession(keys, h, sealed))
	case wire.Secret:
		s, err := OpenSecret(keys, h, sealed)
		return s, secret.Bytes{}, err
	case wire.SecretVersion:
		v, ciphertext, err := OpenSecretVersion(keys, h, sealed)
		return v, secret.New(ciphertext), err
	case wire.Token:
		a, err := OpenToken(keys, h, sealed)
		return a, secret.Bytes{}, err
	case wire.Policy:
		p, err := OpenPolicy(keys, h, sealed)
		return p, secret.Bytes{}, err
	case wire.QuotePolicy:
		p, err := OpenQuotePolicy(keys, h, sealed)
		return p, secret.Bytes{}, err
	}
	return anyOf(OpenKeyVersion(keys, h, sealed))
}

func anyOf[T any](v T, material secret.Bytes, err error) (any, secret.Bytes, error) {
	return v, material, err
}

// joinByLayout makes the material of an app of the texts of its API keys.
func joinByLayout(a App, apiKeys []secret.Bytes) secret.Bytes {
	if layout1(a) {
		return apiKeys[0]
	}
	var b []byte
	for _, k := range apiKeys {
		b = append(append(b, byte(k.Len())), k.Expose()...)
	}
	return secret.New(b)
}

// splitByLayout undoes joinByLayout.
func splitByLayout(a App, material []byte) (apiKeys []secret.Bytes) {
	if layout1(a) {
		return []secret.Bytes{secret.Copy(material)}
	}
	for len(material) > 0 {
		n := 1 + int(material[0])
		apiKeys = append(apiKeys, secret.Copy(material[1:n]))
		material = material[n:]
	}
	return apiKeys
}

func layout1(a App) bool {
	return a.Name == "" && reflect.DeepEqual(a.Credentials, []Credential{FirstCredential(a.Created)})
}

// Offsets in a sealed record, docs/formats.md#sealed-record-v1.
const (
	atFormat     = 0
	atType       = 1
	atDomain     = 2
	atTenant     = 34
	atID         = 50
	atVersion    = 66
	atRevision   = 70
	atDKVersion  = 78
	atSalt       = 82
	atLength     = 114
	atAttributes = 118
)

// sealByLayout builds a record with the standard library alone.
func sealByLayout(t testing.TB, r ring, h Header, dkVersion uint32, salt, attributes, material []byte) []byte {
	t.Helper()
	out := []byte{1, byte(h.ID.Type)}
	out = append(out, r.domain...)
	out = append(out, h.ID.Tenant[:]...)
	out = append(out, h.ID.ID[:]...)
	out = binary.BigEndian.AppendUint32(out, h.ID.Version)
	out = binary.BigEndian.AppendUint64(out, h.Revision)
	out = binary.BigEndian.AppendUint32(out, dkVersion)
	out = append(out, salt...)
	out = binary.BigEndian.AppendUint32(out, uint32(len(attributes)))
	out = append(out, attributes...)
	aead, nonce := wrappingByLayout(t, r, dkVersion, salt)
	return append(out, aead.Seal(nil, nonce, material, out)...)
}

// openByLayout opens a record with the standard library alone.
func openByLayout(t testing.TB, r ring, sealed []byte) (attributes, material []byte) {
	t.Helper()
	end := atAttributes + int(binary.BigEndian.Uint32(sealed[atLength:]))
	aead, nonce := wrappingByLayout(t, r, binary.BigEndian.Uint32(sealed[atDKVersion:]), sealed[atSalt:atLength])
	material, err := aead.Open(nil, nonce, sealed[end:], sealed[:end])
	if err != nil {
		t.Fatalf("by layout: %v", err)
	}
	return sealed[atAttributes:end], material
}

func wrappingByLayout(t testing.TB, r ring, dkVersion uint32, salt []byte) (cipher.AEAD, []byte) {
	t.Helper()
	purpose, err := hkdf.Expand(sha256.New, r.domainKeys[dkVersion-1], "ehsm/record-wrapping/v1\x00"+string(r.domain), 32)
	if err != nil {
		t.Fatal(err)
	}
	prk, err := hkdf.Extract(sha256.New, purpose, salt)
	if err != nil {
		t.Fatal(err)
	}
	okm, err := hkdf.Expand(sha256.New, prk, "ehsm/record/v1\x00", 44)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(okm[:32])
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return aead, okm[32:]
}

// join concatenates.
func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
