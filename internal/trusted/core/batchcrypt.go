package core

import (
	"encoding/base64"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// batchEncrypt is Encrypt, or AsymmetricEncrypt, of each plaintext.
func (x *request) batchEncrypt() (result, error) {
	k, err := x.usableKey(true)
	if err != nil {
		return result{}, err
	}
	plaintexts := x.texts("plaintexts")
	aad, err := x.batchAAD(k, plaintexts.len())
	if err != nil {
		return result{}, err
	}
	if k.value.Spec.Asymmetric() {
		return x.batchAsymmetricEncrypt(plaintexts)
	}
	s, err := x.protecting(k)
	if err != nil {
		return result{}, err
	}
	longest, total := plaintexts.size()
	n := plaintexts.len()
	plaintext, ciphertext := make([]byte, 0, longest), make([]byte, 0, longest+primitive.MaxOverhead)
	defer func() { clear(plaintext[:cap(plaintext)]) }()
	b := x.newBatch("ciphertexts", encodedSize(n, total+n*primitive.MaxOverhead))
	for i := range n {
		err := b.item(func(dst []byte) ([]byte, error) {
			plaintext = plaintexts.decode(plaintext[:0], i)
			ciphertext, err := s.Encrypt(ciphertext[:0], plaintext, aad.of(i))
			if err != nil {
				return nil, errServer("encryption")
			}
			return appendBase64(dst, ciphertext), nil
		})
		if err != nil {
			return result{}, err
		}
	}
	return b.end()
}

// batchAAD is the additional data of the items, none where the key's spec ignores it.
// Keys of other kinds than symmetric have none, and more is refused than ignored.
func (x *request) batchAAD(k *cached[record.Key], items int) (additional, error) {
	aad, err := x.additionalOf("aad", "aads", items)
	switch {
	case err != nil:
		return aad, err
	case ignoresAdditionalData(k.value.Spec):
		return additional{}, nil
	case !k.value.Spec.Symmetric() && !aad.none():
		return aad, errServer("additional data and an asymmetric key")
	}
	return aad, nil
}

// protecting returns the version of a key that protects new data.
func (x *request) protecting(k *cached[record.Key]) (*primitive.Symmetric, error) {
	number, err := x.protectingVersion(k)
	if err != nil {
		return nil, err
	}
	s, err := x.symmetric(k, number)
	if err == nil && s == nil {
		err = errServer("version without material")
	}
	return s, err
}

// batchDecrypt is Decrypt, or AsymmetricDecrypt, of each ciphertext.
func (x *request) batchDecrypt() (result, error) {
	k, err := x.usableKey(false)
	if err != nil {
		return result{}, err
	}
	ciphertexts := x.texts("ciphertexts")
	aad, err := x.batchAAD(k, ciphertexts.len())
	if err != nil {
		return result{}, err
	}
	if k.value.Spec.Asymmetric() {
		return x.batchAsymmetricDecrypt(ciphertexts)
	}
	o, err := x.opener(k, ciphertexts)
	if err != nil {
		return result{}, err
	}
	defer o.close()
	_, total := ciphertexts.size()
	b := x.newBatch("plaintexts", encodedSize(ciphertexts.len(), total))
	for i := range ciphertexts.len() {
		err := b.item(func(dst []byte) ([]byte, error) {
			plaintext, err := o.open(i, aad.of(i))
			if err != nil {
				return nil, err
			}
			return appendBase64(dst, plaintext), nil
		})
		if err != nil {
			return result{}, err
		}
	}
	return b.end()
}

// An opener decrypts the ciphertexts of a batch with the versions of a symmetric key
// that they name.
type opener struct {
	ciphertexts           texts
	primary               uint32
	versions              []openerVersion
	ciphertext, plaintext []byte // of one item
}

type openerVersion struct {
	number uint32
	key    *primitive.Symmetric
}

// opener loads all versions that ciphertexts name and the key has, so that none is
// missing half-way.
func (x *request) opener(k *cached[record.Key], ciphertexts texts) (*opener, error) {
	if err := ciphers(&k.value); err != nil {
		return nil, err
	}
	o := &opener{ciphertexts: ciphertexts, primary: k.value.Primary}
	var ids []wire.RecordID
	for i := range ciphertexts.len() {
		number := o.versionOf(ciphertexts.value.Elem(i).Text())
		if stated, ok := k.value.Version(number); !ok || stated.State != record.Active || o.find(number) != nil {
			continue
		}
		if number < k.value.LeastDecrypt { // check: batch-least-decrypt
			continue // its items fail
		}
		if len(o.versions) == api.MaxBatchVersions { // check: batch-versions
			return nil, bad(api.MessageBatchVersions, "too many key versions")
		}
		o.versions = append(o.versions, openerVersion{number: number})
		ids = append(ids, wire.RecordID{Type: wire.KeyVersion, Tenant: k.id.Tenant, ID: k.id.ID, Version: number})
	}
	if err := x.require(ids...); err != nil {
		return nil, err
	}
	for i := range o.versions {
		v := &o.versions[i]
		var err error
		if v.key, err = x.symmetric(k, v.number); err != nil {
			return nil, err
		}
	}
	if len(o.versions) > 1 {
		x.keyVersion = 0 // no single one was used
	}
	longest, _ := ciphertexts.size()
	o.ciphertext, o.plaintext = make([]byte, 0, longest), make([]byte, 0, longest)
	return o, nil
}

// versionOf reads the version that a ciphertext in base64 names. One that does not open
// anyway may be said to name the wrong one.
func (o *opener) versionOf(text string) uint32 {
	var head [21]byte // format, key id and version
	size := base64.StdEncoding.EncodedLen(len(head))
	if len(text) < size {
		return o.primary
	}
	n, _ := base64.StdEncoding.Decode(head[:], []byte(text[:size])) // validated
	if _, version, ok := primitive.PeekHeader(head[:n]); ok {
		return version
	}
	return o.primary
}

// find returns a version, nil if the key has none of that number that is of use.
func (o *opener) find(number uint32) *openerVersion {
	for i := range o.versions {
		if o.versions[i].number == number {
			return &o.versions[i]
		}
	}
	return nil
}

// open returns the plaintext of item i until the next call. Whatever is wrong with it,
// the refusal is the same.
func (o *opener) open(i int, aad []byte) ([]byte, error) {
	v := o.find(o.versionOf(o.ciphertexts.value.Elem(i).Text()))
	if v == nil || v.key == nil {
		return nil, errDecryption()
	}
	o.ciphertext = o.ciphertexts.decode(o.ciphertext[:0], i)
	plaintext, err := v.key.Decrypt(o.plaintext[:0], o.ciphertext, aad)
	if err != nil {
		return nil, errDecryption()
	}
	return plaintext, nil
}

// close forgets the plaintexts.
func (o *opener) close() { clear(o.plaintext[:cap(o.plaintext)]) }
