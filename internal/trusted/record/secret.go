package record

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// Secret is a tenant's secret without its values. Name and description are the
// record's material, so that the host's database does not show them.
//
// The record's ID follows from the name. When a secret is gone its record stays,
// with nothing but the time in it, so that no older state can come back; a new
// secret of the same name is a new incarnation in the same record.
type Secret struct {
	State    State  // Active, or Destroyed: then all else but Modified is zero
	Created  int64  // Unix milliseconds
	Modified int64  // Unix milliseconds
	Current  uint32 // number of the current version; versions are 1..Current
	// Planned is when the secret is gone, in Unix milliseconds; 0: its owner has
	// not asked for its deletion. Until then it can be restored.
	Planned     int64
	Incarnation wire.UUID // ID of the records of its versions
	Key         wire.UUID // CMK that encrypts its values
	Interval    string    // rotation interval as its owner gave it, "" for none
	Rotated     int64     // Unix milliseconds of the last new version, 0: the first is current
	Name        string
	Description string
}

// SecretVersion is one value of a secret. The value is encrypted under a CMK;
// the ciphertext is the record's material.
type SecretVersion struct {
	Created    int64     // Unix milliseconds
	Key        wire.UUID // CMK of the ciphertext
	KeyVersion uint32    // version of the CMK
}

const (
	secretV1        = 1
	secretVersionV1 = 1
	maxSecretName   = 3 * 64   // bytes of 64 UTF-16 units
	maxDescription  = 3 * 4096 // bytes of 4096 UTF-16 units
	maxInterval     = 5        // bytes, as in "8760h"
)

func (s *Secret) validate() error {
	switch {
	case s.State == Destroyed:
		if *s != (Secret{State: Destroyed, Modified: s.Modified}) {
			return errors.New("a destroyed secret has attributes")
		}
		return nil
	case s.State != Active:
		return fmt.Errorf("a secret has no state %d", s.State)
	case s.Current == 0:
		return errors.New("secret has no version")
	case s.Incarnation == (wire.UUID{}):
		return errors.New("secret has no incarnation")
	case s.Key == (wire.UUID{}):
		return errors.New("secret has no key")
	case s.Name == "":
		return errors.New("secret has no name")
	case len(s.Name) > maxSecretName:
		return fmt.Errorf("name of %d bytes, limit %d", len(s.Name), maxSecretName)
	case len(s.Description) > maxDescription:
		return fmt.Errorf("description of %d bytes, limit %d", len(s.Description), maxDescription)
	case len(s.Interval) > maxInterval:
		return fmt.Errorf("interval of %d bytes, limit %d", len(s.Interval), maxInterval)
	}
	return nil
}

func (v SecretVersion) validate() error {
	if v.Key == (wire.UUID{}) || v.KeyVersion == 0 {
		return errors.New("secret version has no key")
	}
	return nil
}

// SealSecret seals a secret's record. It refuses what OpenSecret would refuse.
func SealSecret(keys *domainkey.Keyring, h Header, s Secret) ([]byte, error) {
	if err := sealable(h, wire.Secret, s.validate()); err != nil {
		return nil, err
	}
	b := []byte{secretV1, byte(s.State)}
	b = appendInt64s(b, s.Created, s.Modified)
	b = binary.BigEndian.AppendUint32(b, s.Current)
	b = appendInt64s(b, s.Planned)
	b = append(append(b, s.Incarnation[:]...), s.Key[:]...)
	b = pack.AppendString(b, s.Interval)
	b = appendInt64s(b, s.Rotated)
	material := pack.AppendString(pack.AppendString(nil, s.Name), s.Description)
	return seal(keys, h, b, secret.New(material))
}

// OpenSecret opens a secret's record. Errors: ErrOpen.
func OpenSecret(keys *domainkey.Keyring, h Header, sealed []byte) (Secret, error) {
	var s Secret
	if h.ID.Type != wire.Secret {
		return s, fmt.Errorf("%w: %s is no secret", ErrOpen, h.ID)
	}
	attributes, material, err := open(keys, h, sealed)
	if err != nil {
		return s, err
	}
	r := version(attributes, secretV1)
	s.State = State(r.Uint8())
	s.Created, s.Modified = r.Int64(), r.Int64()
	s.Current, s.Planned = r.Uint32(), r.Int64()
	r.Array(s.Incarnation[:])
	r.Array(s.Key[:])
	s.Interval = r.String(maxInterval)
	s.Rotated = r.Int64()
	m := pack.NewReader(material.Expose())
	s.Name, s.Description = m.String(maxSecretName), m.String(maxDescription)
	err = m.Close()
	if err == nil {
		err = s.validate()
	}
	if err := finish(r, err); err != nil {
		return Secret{}, err
	}
	return s, nil
}

// SealSecretVersion seals one value of a secret, which is encrypted already. It
// refuses a version that names no key, as OpenSecretVersion does.
func SealSecretVersion(keys *domainkey.Keyring, h Header, v SecretVersion, ciphertext []byte) ([]byte, error) {
	if err := sealable(h, wire.SecretVersion, v.validate()); err != nil {
		return nil, err
	}
	b := appendInt64s([]byte{secretVersionV1}, v.Created)
	b = append(b, v.Key[:]...)
	b = binary.BigEndian.AppendUint32(b, v.KeyVersion)
	return seal(keys, h, b, secret.New(ciphertext))
}

// OpenSecretVersion opens one value of a secret and returns its ciphertext,
// which the caller owns. Errors: ErrOpen.
func OpenSecretVersion(keys *domainkey.Keyring, h Header, sealed []byte) (SecretVersion, []byte, error) {
	var v SecretVersion
	if h.ID.Type != wire.SecretVersion {
		return v, nil, fmt.Errorf("%w: %s is no secret version", ErrOpen, h.ID)
	}
	attributes, ciphertext, err := open(keys, h, sealed)
	if err != nil {
		return v, nil, err
	}
	r := version(attributes, secretVersionV1)
	v.Created = r.Int64()
	r.Array(v.Key[:])
	v.KeyVersion = r.Uint32()
	if err := finish(r, v.validate()); err != nil {
		return SecretVersion{}, nil, err
	}
	return v, ciphertext.Expose(), nil
}
