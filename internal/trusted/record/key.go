package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// Limits of a key's record.
const (
	MaxVersions    = 1000
	MaxPeriod      = 2560 // days between two rotations
	MaxDescription = 1024 // bytes
	MaxAliases     = 8
	MaxAlias       = 64 // bytes
	MaxTags        = 50
	MaxTagName     = 64  // bytes
	MaxTagValue    = 256 // bytes
)

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
	// Destroy is when the material of a deleted key is to be destroyed, in Unix
	// milliseconds; 0: the domain's deletion window after Deleted.
	Destroy int64
	// Protected has the key refuse to be deleted.
	Protected bool
	// Generation is the app's generation when the key was made or restored. A
	// key of an earlier generation than its app's was deleted with all others.
	Generation uint32
	Primary    uint32 // number of the version that protects new data, 0: none yet
	// LeastEncrypt and LeastDecrypt are the lowest versions that may protect new
	// data, and process what is protected. 0: any.
	LeastEncrypt, LeastDecrypt uint32
	// Period is after how many days a version is followed by a new one, up to
	// MaxPeriod, 0: only when asked; Rotate when that is due next, in Unix
	// milliseconds, 0 without a Period.
	Period uint16
	Rotate int64

	Description string   // up to MaxDescription bytes of UTF-8
	Aliases     []string // other names of the key, up to MaxAliases, ascending
	Tags        []Tag    // up to MaxTags, ascending by name
	Versions    []Version
}

// Version is a key's statement about one of its versions.
type Version struct {
	Number  uint32 // 1..n, ascending
	State   State
	Created int64    // Unix milliseconds
	Destroy int64    // when its material is to be destroyed, Unix milliseconds; 0: not planned
	Digest  [32]byte // commitment to the material, see VersionDigest
}

// Version returns the statement about a version.
func (k *Key) Version(number uint32) (Version, bool) {
	for _, v := range k.Versions {
		if v.Number == number {
			return v, true
		}
	}
	return Version{}, false
}

// Tag is a name that the owner has given a key, with a value.
type Tag struct {
	Name  string // 1 to MaxTagName bytes of UTF-8
	Value string // up to MaxTagValue bytes of UTF-8
}

// The layouts of a key's attributes.
const (
	keyV1 = 1 // what keys have had from the first release on
	keyV2 = 2 // all
)

// Sizes in the encodings of a key's parts, in bytes.
const (
	versionV1Size = 4 + 1 + 8 + 32
	versionV2Size = versionV1Size + 8
	leastAlias    = 2 + 1
	leastTag      = 2 + 1 + 2
)

// layout is the lowest that says all of the key: earlier releases read the keys
// that have nothing they do not know.
func (k *Key) layout() byte {
	planned := slices.ContainsFunc(k.Versions, func(v Version) bool { return v.Destroy != 0 })
	if k.Destroy == 0 && !k.Protected && k.LeastEncrypt == 0 && k.LeastDecrypt == 0 && k.Period == 0 && k.Description == "" &&
		len(k.Aliases) == 0 && len(k.Tags) == 0 && !planned {
		return keyV1
	}
	return keyV2
}

// SealKey seals a key record. It has no material of its own. It refuses what
// OpenKey would refuse: an unknown spec, usage, origin or state, paddings that do
// not fit the spec, and lists that are too long or out of order.
func SealKey(keys *domainkey.Keyring, h Header, k Key) ([]byte, error) {
	if err := sealable(h, wire.Key, k.validate()); err != nil {
		return nil, err
	}
	layout := k.layout()
	b := []byte{layout, byte(k.Spec), byte(k.Usage), byte(k.Origin), byte(k.State), byte(k.Paddings)}
	b = pack.AppendBool(b, k.Default)
	b = appendInt64s(b, k.Created, k.Modified, k.Expires, k.Deleted)
	b = binary.BigEndian.AppendUint32(b, k.Generation)
	b = binary.BigEndian.AppendUint32(b, k.Primary)
	if layout == keyV2 {
		b = k.appendLife(b)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(k.Versions)))
	for _, v := range k.Versions {
		b = binary.BigEndian.AppendUint32(b, v.Number)
		b = append(b, byte(v.State))
		b = appendInt64s(b, v.Created)
		if layout == keyV2 {
			b = appendInt64s(b, v.Destroy)
		}
		b = append(b, v.Digest[:]...)
	}
	return seal(keys, h, b, secret.Bytes{})
}

// appendLife appends what layout 2 has before the versions.
func (k *Key) appendLife(b []byte) []byte {
	b = appendInt64s(b, k.Destroy)
	b = pack.AppendBool(b, k.Protected)
	b = binary.BigEndian.AppendUint32(b, k.LeastEncrypt)
	b = binary.BigEndian.AppendUint32(b, k.LeastDecrypt)
	b = binary.BigEndian.AppendUint16(b, k.Period)
	b = appendInt64s(b, k.Rotate)
	b = pack.AppendString(b, k.Description)
	b = binary.BigEndian.AppendUint32(b, uint32(len(k.Aliases)))
	for _, alias := range k.Aliases {
		b = pack.AppendString(b, alias)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(k.Tags)))
	for _, t := range k.Tags {
		b = pack.AppendString(pack.AppendString(b, t.Name), t.Value)
	}
	return b
}

// OpenKey opens a key record of any layout. Errors: ErrOpen.
func OpenKey(keys *domainkey.Keyring, h Header, sealed []byte) (Key, error) {
	if h.ID.Type != wire.Key { // check+: key-type: other types have attributes that do not parse as these
		return Key{}, fmt.Errorf("%w: %s is no key", ErrOpen, h.ID)
	}
	attributes, material, err := open(keys, h, sealed)
	if err != nil {
		return Key{}, err
	}
	r := pack.NewReader(attributes)
	k := readKey(r)
	if material.Len() != 0 {
		r.Fail("key record has material")
	}
	if err := finish(r, k.validate()); err != nil {
		material.Zero()
		return Key{}, err
	}
	return k, nil
}

func readKey(r *pack.Reader) (k Key) {
	layout := r.Uint8()
	if layout != keyV1 && layout != keyV2 {
		r.Fail("attribute layout %d is unknown", layout)
	}
	k.Spec, k.Usage, k.Origin = primitive.Spec(r.Uint8()), Usage(r.Uint8()), Origin(r.Uint8())
	k.State, k.Paddings = State(r.Uint8()), primitive.PaddingSet(r.Uint8())
	k.Default = r.Bool()
	k.Created, k.Modified, k.Expires, k.Deleted = r.Int64(), r.Int64(), r.Int64(), r.Int64()
	k.Generation, k.Primary = r.Uint32(), r.Uint32()
	size := versionV1Size
	if layout == keyV2 {
		k.readLife(r)
		size = versionV2Size
	}
	k.Versions = make([]Version, r.Count(MaxVersions, size))
	for i := range k.Versions {
		v := &k.Versions[i]
		v.Number, v.State, v.Created = r.Uint32(), State(r.Uint8()), r.Int64()
		if layout == keyV2 {
			v.Destroy = r.Int64()
		}
		r.Array(v.Digest[:])
	}
	if r.Err() == nil && k.layout() != layout {
		r.Fail("key of layout %d in layout %d", k.layout(), layout)
	}
	return k
}

// readLife reads what appendLife writes.
func (k *Key) readLife(r *pack.Reader) {
	k.Destroy, k.Protected = r.Int64(), r.Bool()
	k.LeastEncrypt, k.LeastDecrypt = r.Uint32(), r.Uint32()
	k.Period, k.Rotate = r.Uint16(), r.Int64()
	k.Description = r.String(MaxDescription)
	for range r.Count(MaxAliases, leastAlias) {
		k.Aliases = append(k.Aliases, r.String(MaxAlias))
	}
	for range r.Count(MaxTags, leastTag) {
		k.Tags = append(k.Tags, Tag{r.String(MaxTagName), r.String(MaxTagValue)})
	}
}

func (k *Key) validate() error {
	if err := knownKind(k.Spec, k.Usage, k.Origin); err != nil {
		return err
	}
	if err := knownState(k.State); err != nil {
		return err
	}
	if !k.Paddings.Valid() || (k.Paddings != 0) != k.Spec.RSA() {
		return fmt.Errorf("padding set %#x does not fit spec %s", uint8(k.Paddings), k.Spec)
	}
	if err := k.validateLife(); err != nil {
		return err
	}
	return k.validateVersions()
}

func (k *Key) validateLife() error {
	switch {
	case k.Destroy < 0 || k.Rotate < 0:
		return errors.New("it ends or rotates before 1970")
	case k.Destroy != 0 && k.Deleted == 0:
		return errors.New("it is to be destroyed and is not deleted")
	case k.Period > MaxPeriod:
		return fmt.Errorf("rotation after %d days, limit %d", k.Period, MaxPeriod)
	case (k.Rotate != 0) != (k.Period != 0):
		return fmt.Errorf("next rotation at %d with a period of %d days", k.Rotate, k.Period)
	case len(k.Description) > MaxDescription || !utf8.ValidString(k.Description):
		return fmt.Errorf("description is not of up to %d bytes of UTF-8", MaxDescription)
	case len(k.Aliases) > MaxAliases:
		return fmt.Errorf("%d aliases, limit %d", len(k.Aliases), MaxAliases)
	case len(k.Tags) > MaxTags:
		return fmt.Errorf("%d tags, limit %d", len(k.Tags), MaxTags)
	}
	last := ""
	for _, alias := range k.Aliases {
		if !ValidAlias(alias) || alias <= last {
			return fmt.Errorf("alias %q is none or follows %q", alias, last)
		}
		last = alias
	}
	last = ""
	for _, t := range k.Tags {
		if err := t.validate(); err != nil {
			return err
		}
		if t.Name <= last {
			return fmt.Errorf("tag %q follows %q", t.Name, last)
		}
		last = t.Name
	}
	return nil
}

func (t *Tag) validate() error {
	if len(t.Name) < 1 || len(t.Name) > MaxTagName || !utf8.ValidString(t.Name) {
		return fmt.Errorf("name of a tag is not of 1 to %d bytes of UTF-8", MaxTagName)
	}
	if len(t.Value) > MaxTagValue || !utf8.ValidString(t.Value) {
		return fmt.Errorf("value of tag %q is not of up to %d bytes of UTF-8", t.Name, MaxTagValue)
	}
	return nil
}

// ValidAlias reports whether s is 1 to MaxAlias ASCII letters, digits and any of
// -_./ but no UUID, which would be an id.
func ValidAlias(s string) bool {
	if len(s) < 1 || len(s) > MaxAlias {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.', c == '/':
		default:
			return false
		}
	}
	_, err := wire.ParseUUID(s)
	return err != nil
}

func (k *Key) validateVersions() error {
	if len(k.Versions) > MaxVersions {
		return fmt.Errorf("%d versions, limit %d", len(k.Versions), MaxVersions)
	}
	last := uint32(0)
	for _, v := range k.Versions {
		if v.Number <= last {
			return fmt.Errorf("version %d follows version %d", v.Number, last)
		}
		if err := knownState(v.State); err != nil {
			return fmt.Errorf("version %d: %w", v.Number, err)
		}
		if v.Destroy < 0 {
			return fmt.Errorf("version %d is to be destroyed before 1970", v.Number)
		}
		last = v.Number
	}
	return nil
}
