package record

import (
	"encoding/binary"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// State is a key state of NIST SP 800-57 Part 1 Rev. 5, section 7.
// The zero value is invalid, so a forgotten field cannot mean "active".
type State uint8

const (
	_             State = iota
	PreActivation       // waiting for imported material
	Active              // may protect and process
	Suspended           // on hold (DisableKey); may be made active again
	Deactivated         // may process what it already protected
	Compromised         // may process only under an explicit policy
	Destroyed           // material gone, metadata kept
)

// Usage is what a key may be used for.
type Usage uint8

const (
	_              Usage = iota
	EncryptDecrypt       // EH_KEYUSAGE_ENCRYPT_DECRYPT
	SignVerify           // EH_KEYUSAGE_SIGN_VERIFY
)

// Origin is where a key's material comes from.
type Origin uint8

const (
	_        Origin = iota
	Internal        // made in the core
	External        // imported by its owner
)

// App is a tenant. Its material are the texts of its API keys.
type App struct {
	Name string // given at enrollment, up to MaxText bytes of printable ASCII; may be empty

	State        State // Active, Suspended, or Destroyed: then it has no credentials
	Exposed      bool  // the host could see the API key at enrollment
	Created      int64 // Unix milliseconds
	Modified     int64 // Unix milliseconds
	Generation   uint32
	GenerationAt int64 // Unix milliseconds of the last change of Generation, 0: never
	// DefaultKey is the key for secrets that name no other; zero: there is none.
	DefaultKey wire.UUID
	// Credentials are 1 to MaxCredentials unless it is destroyed, of which up to MaxAPIKeys are API keys;
	// none has the id or the public key of another.
	Credentials []Credential
}

// Key is a CMK without its material.
type Key struct {
	Spec   primitive.Spec
	Usage  Usage
	Origin Origin
	State  State
	// Paddings are those that an RSA key admits; it has at least one. Keys of
	// other specs have none.
	Paddings primitive.PaddingSet
	// Default marks the app's DefaultKey. Only its secrets use it: it is not
	// listed, not named by requests, and not deleted with all others.
	Default  bool
	Created  int64 // Unix milliseconds
	Modified int64 // Unix milliseconds
	Expires  int64 // Unix milliseconds, 0: never
	// Deleted is when the owner asked for deletion, in Unix milliseconds; 0: he
	// did not. A deleted key is unusable and not listed.
	Deleted int64
	// Generation is the app's generation when the key was made or restored. A
	// key of an earlier generation than its app's was deleted with all others.
	Generation uint32
	Primary    uint32 // number of the version that protects new data, 0: none yet
	Versions   []Version
}

// Version is a key's statement about one of its versions.
type Version struct {
	Number  uint32 // 1..n, ascending
	State   State
	Created int64    // Unix milliseconds
	Digest  [32]byte // commitment to the material, see VersionDigest
}

// KeyVersion is the record of one version's material.
type KeyVersion struct {
	Spec    primitive.Spec
	Usage   Usage
	Origin  Origin
	Created int64 // Unix milliseconds
}

const (
	appV1        = 1 // one API key, the owner's
	appV2        = 2
	keyV1        = 1
	keyVersionV1 = 1
	maxVersions  = 1000
	versionSize  = 4 + 1 + 8 + 32
)

// Version returns the statement about a version.
func (k *Key) Version(number uint32) (Version, bool) {
	for _, v := range k.Versions {
		if v.Number == number {
			return v, true
		}
	}
	return Version{}, false
}

// SealApp seals an app record with the texts of its API keys, in the order of
// their credentials; they stay the caller's. It refuses what OpenApp would refuse.
// The layout is the lowest that says it all: releases from before there were
// credentials read the apps that have none but their first.
func SealApp(keys *domainkey.Keyring, h Header, a App, apiKeys []secret.Bytes) ([]byte, error) {
	if err := sealable(h, wire.App, a.validate()); err != nil {
		return nil, err
	}
	material, err := a.joinKeys(apiKeys)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", h.ID, err)
	}
	defer material.Zero()
	layout := byte(appV2)
	if a.first() {
		layout = appV1
	}
	b := []byte{layout, byte(a.State)}
	b = pack.AppendBool(b, a.Exposed)
	b = appendInt64s(b, a.Created, a.Modified)
	b = binary.BigEndian.AppendUint32(b, a.Generation)
	b = appendInt64s(b, a.GenerationAt)
	b = append(b, a.DefaultKey[:]...)
	if layout == appV2 {
		b = a.appendCredentials(b)
	}
	return seal(keys, h, b, material)
}

// OpenApp opens an app record of any layout. It returns the texts of the API keys
// too, in the order of their credentials. Errors: ErrOpen.
func OpenApp(keys *domainkey.Keyring, h Header, sealed []byte) (App, []secret.Bytes, error) {
	if h.ID.Type != wire.App { // check+: app-type: the core asks for apps by their type
		return App{}, nil, fmt.Errorf("%w: %s is no app", ErrOpen, h.ID)
	}
	attributes, material, err := open(keys, h, sealed)
	if err != nil {
		return App{}, nil, err
	}
	a, layout, err := readApp(attributes)
	var texts []secret.Bytes
	if err == nil {
		texts, err = a.splitKeys(material, layout)
	}
	if err != nil {
		material.Zero()
		return App{}, nil, fmt.Errorf("%w: %w", ErrOpen, err)
	}
	return a, texts, nil
}

func readApp(attributes []byte) (App, uint8, error) {
	r := pack.NewReader(attributes)
	layout := r.Uint8()
	if r.Err() == nil && layout != appV1 && layout != appV2 {
		r.Fail("attribute layout %d is unknown", layout)
	}
	a := App{State: State(r.Uint8()), Exposed: r.Bool()}
	a.Created, a.Modified = r.Int64(), r.Int64()
	a.Generation = r.Uint32()
	a.GenerationAt = r.Int64()
	r.Array(a.DefaultKey[:])
	if layout == appV1 {
		a.Credentials = []Credential{FirstCredential(a.Created)}
	} else {
		a.readCredentials(r)
	}
	err := r.Close()
	if err == nil {
		err = a.validate()
	}
	return a, layout, err
}

// SealKey seals a key record. It has no material of its own. It refuses what
// OpenKey would refuse: an unknown spec, usage, origin or state, paddings that do
// not fit the spec, over 1000 versions, or versions out of order.
func SealKey(keys *domainkey.Keyring, h Header, k Key) ([]byte, error) {
	if err := sealable(h, wire.Key, k.validate()); err != nil {
		return nil, err
	}
	b := []byte{keyV1, byte(k.Spec), byte(k.Usage), byte(k.Origin), byte(k.State), byte(k.Paddings)}
	b = pack.AppendBool(b, k.Default)
	b = appendInt64s(b, k.Created, k.Modified, k.Expires, k.Deleted)
	b = binary.BigEndian.AppendUint32(b, k.Generation)
	b = binary.BigEndian.AppendUint32(b, k.Primary)
	b = binary.BigEndian.AppendUint32(b, uint32(len(k.Versions)))
	for _, v := range k.Versions {
		b = binary.BigEndian.AppendUint32(b, v.Number)
		b = append(b, byte(v.State))
		b = appendInt64s(b, v.Created)
		b = append(b, v.Digest[:]...)
	}
	return seal(keys, h, b, secret.Bytes{})
}

// OpenKey opens a key record. Errors: ErrOpen.
func OpenKey(keys *domainkey.Keyring, h Header, sealed []byte) (Key, error) {
	var k Key
	if h.ID.Type != wire.Key { // check+: key-type: other types have attributes that do not parse as these
		return k, fmt.Errorf("%w: %s is no key", ErrOpen, h.ID)
	}
	attributes, material, err := open(keys, h, sealed)
	if err != nil {
		return k, err
	}
	r := version(attributes, keyV1)
	k.Spec, k.Usage, k.Origin = primitive.Spec(r.Uint8()), Usage(r.Uint8()), Origin(r.Uint8())
	k.State, k.Paddings = State(r.Uint8()), primitive.PaddingSet(r.Uint8())
	k.Default = r.Bool()
	k.Created, k.Modified, k.Expires, k.Deleted = r.Int64(), r.Int64(), r.Int64(), r.Int64()
	k.Generation, k.Primary = r.Uint32(), r.Uint32()
	k.Versions = make([]Version, r.Count(maxVersions, versionSize))
	for i := range k.Versions {
		v := &k.Versions[i]
		v.Number, v.State, v.Created = r.Uint32(), State(r.Uint8()), r.Int64()
		r.Array(v.Digest[:])
	}
	if material.Len() != 0 {
		r.Fail("key record has material")
	}
	if err := finish(r, k.validate()); err != nil {
		material.Zero()
		return Key{}, err
	}
	return k, nil
}

// SealKeyVersion seals the material of one key version. It refuses an unknown
// spec, usage or origin, as OpenKeyVersion does.
func SealKeyVersion(keys *domainkey.Keyring, h Header, v KeyVersion, material secret.Bytes) ([]byte, error) {
	if err := sealable(h, wire.KeyVersion, v.validate()); err != nil {
		return nil, err
	}
	b := []byte{keyVersionV1, byte(v.Spec), byte(v.Usage), byte(v.Origin)}
	return seal(keys, h, appendInt64s(b, v.Created), material)
}

// OpenKeyVersion opens a key version. Errors: ErrOpen.
func OpenKeyVersion(keys *domainkey.Keyring, h Header, sealed []byte) (KeyVersion, secret.Bytes, error) {
	var v KeyVersion
	if h.ID.Type != wire.KeyVersion { // check+: version-type: the core asks for versions by their type
		return v, secret.Bytes{}, fmt.Errorf("%w: %s is no key version", ErrOpen, h.ID)
	}
	attributes, material, err := open(keys, h, sealed)
	if err != nil {
		return v, secret.Bytes{}, err
	}
	r := version(attributes, keyVersionV1)
	v.Spec, v.Usage, v.Origin = primitive.Spec(r.Uint8()), Usage(r.Uint8()), Origin(r.Uint8())
	v.Created = r.Int64()
	if err := finish(r, v.validate()); err != nil {
		material.Zero()
		return KeyVersion{}, secret.Bytes{}, err
	}
	return v, material, nil
}

func appendInt64s(dst []byte, values ...int64) []byte {
	for _, v := range values {
		dst = binary.BigEndian.AppendUint64(dst, uint64(v))
	}
	return dst
}

// version starts to read attributes of a known layout.
func version(attributes []byte, want uint8) *pack.Reader {
	r := pack.NewReader(attributes)
	if v := r.Uint8(); r.Err() == nil && v != want {
		r.Fail("attribute layout %d is unknown", v)
	}
	return r
}

// finish ends the reading of attributes; invalid is what validate said of them.
func finish(r *pack.Reader, invalid error) error {
	err := r.Close()
	if err == nil {
		err = invalid
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrOpen, err)
	}
	return nil
}
