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
	keyVersionV1 = 1
)

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
