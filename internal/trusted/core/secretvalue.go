package core

import (
	"encoding/binary"
	"math"

	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// valueLabel separates values of secrets from all else that a CMK encrypts.
const valueLabel = "ehsm/secret-value/v1\x00"

// sealedValue is one version of a secret. Its value stays encrypted under the
// CMK until a request asks for it.
type sealedValue struct {
	record.SecretVersion
	ciphertext []byte
}

func (c *Core) openValue(h record.Header, sealed []byte) (sealedValue, error) {
	v, ciphertext, err := record.OpenSecretVersion(c.keys, h, sealed)
	return sealedValue{v, ciphertext}, err
}

func valueRecord(s *cached[record.Secret], number uint32) wire.RecordID {
	return wire.RecordID{Type: wire.SecretVersion, Tenant: s.id.Tenant, ID: s.value.Incarnation, Version: number}
}

// loadValue returns a version of a secret, nil if the store has none.
func (x *request) loadValue(s *cached[record.Secret], number uint32) (*cached[sealedValue], error) {
	return load(x, x.core.values, valueRecord(s, number), x.core.openValue)
}

func (x *request) keyOf(s *record.Secret) wire.RecordID {
	return wire.RecordID{Type: wire.Key, Tenant: x.tenant, ID: s.Key}
}

// loadKeyOf returns the key of a secret for use now.
func (x *request) loadKeyOf(id wire.UUID, protects bool) (*cached[record.Key], error) {
	k, err := x.loadKeyRecord(wire.RecordID{Type: wire.Key, Tenant: x.tenant, ID: id})
	switch {
	case err != nil:
		return nil, err
	case k == nil && id == x.app.value.DefaultKey:
		return nil, errNoDefaultKey()
	case k == nil:
		return nil, errKeyID()
	}
	return k, x.permits(&k.value, protects)
}

// valueContext is the additional data of a value: what it is the value of. SM4
// keys bind it as well.
func valueContext(tenant wire.UUID, name string, number uint32) []byte {
	b := make([]byte, 0, len(valueLabel)+len(tenant)+4+len(name)+4)
	b = append(append(b, valueLabel...), tenant[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(name)))
	b = append(b, name...)
	return binary.BigEndian.AppendUint32(b, number)
}

// writeValue encrypts the request's secretData as the next version of a secret
// and adds it to the writes.
func (x *request) writeValue(s *record.Secret, k *cached[record.Key]) error {
	if s.Current == math.MaxUint32 {
		return errInternal("versions are used up")
	}
	cipher, err := x.symmetric(k, k.value.Primary)
	if err != nil {
		return err
	}
	if cipher == nil {
		return errServer("primary version")
	}
	s.Current++
	x.keyVersion = s.Current
	plaintext := []byte(x.payload.text("secretData"))
	defer clear(plaintext)
	ciphertext, err := cipher.Encrypt(nil, plaintext, valueContext(x.tenant, s.Name, s.Current))
	if err != nil {
		return errServer("encryption")
	}
	id := wire.RecordID{Type: wire.SecretVersion, Tenant: x.tenant, ID: s.Incarnation, Version: s.Current}
	v := record.SecretVersion{Created: x.millis(), Key: k.id.ID, KeyVersion: k.value.Primary}
	sealed, err := record.SealSecretVersion(x.core.keys, record.Header{ID: id, Revision: 1}, v, ciphertext)
	if err != nil {
		return errInternal("seal secret version")
	}
	x.write(wire.Write{ID: id, Revision: 1, Sealed: sealed})
	return nil
}

// getSecretValue discloses the current version of a secret, or the one asked for.
func (x *request) getSecretValue() (result, error) {
	name := x.payload.text("secretName")
	s, err := x.loadSecret()
	if err != nil {
		return result{}, err
	}
	none := bad("Can't find the "+name+"'s value.", "no such secret")
	if s == nil {
		return result{}, none
	}
	if s.value.Planned != 0 { // check: secret-deleted-value
		return result{}, none
	}
	number := s.value.Current
	if asked := x.payload.integer("versionId"); asked > int(number) {
		return result{message: textSuccessful}, nil
	} else if asked != 0 {
		number = uint32(asked)
	}
	v, plaintext, err := x.openSecretValue(s, number)
	if err != nil {
		return result{}, err
	}
	defer clear(plaintext)
	o := object{}.text("secretName", name).text("secretData", string(plaintext)).
		integer("versionId", int64(number)).integer("createTime", v.value.Created)
	return result{textSuccessful, o.end()}, nil
}

// openSecretValue decrypts a version that the secret has.
func (x *request) openSecretValue(s *cached[record.Secret], number uint32) (*cached[sealedValue], []byte, error) {
	if err := x.require(valueRecord(s, number), x.keyOf(&s.value)); err != nil {
		return nil, nil, err
	}
	v, err := x.loadValue(s, number)
	if err != nil {
		return nil, nil, err
	}
	if v == nil {
		return nil, nil, errInternal("secret version is missing")
	}
	k, err := x.loadKeyOf(v.value.Key, false)
	if err != nil {
		return nil, nil, err
	}
	cipher, err := x.symmetric(k, v.value.KeyVersion)
	if err != nil {
		return nil, nil, err
	}
	x.keyVersion = number
	if cipher == nil {
		return nil, nil, errInternal("key version of a secret")
	}
	plaintext, err := cipher.Decrypt(nil, v.value.ciphertext, valueContext(x.tenant, s.value.Name, number))
	if err != nil {
		return nil, nil, errInternal("secret value does not open")
	}
	return v, plaintext, nil
}
