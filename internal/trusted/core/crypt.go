package core

import (
	"crypto/rand"

	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
)

// usableKey returns a key by the member keyid for use now. Protecting new data
// also needs a key that has not expired.
func (x *request) usableKey(protects bool) (*cached[record.Key], error) {
	return x.usableKeyOf("keyid", protects)
}

// usableKeyOf is usableKey for the key that another member names.
func (x *request) usableKeyOf(member string, protects bool) (*cached[record.Key], error) {
	k, err := x.loadKey(x.payload.text(member))
	if err == nil && k == nil {
		err = errKeyID()
	}
	if err == nil {
		err = x.permits(&k.value, protects)
	}
	return k, err
}

// permits refuses a key that its state keeps from being used now.
func (x *request) permits(k *record.Key, protects bool) error {
	switch {
	case onHold(k.State): // check: key-state
		return errDisabled()
	case protects && x.expired(k): // check: expiry
		return errExpired()
	}
	return nil
}

// onHold reports whether a key in a state may not even process what it has
// protected. There is no policy that frees a compromised key, and a destroyed
// one has no material.
func onHold(s record.State) bool {
	return s == record.Suspended || s == record.Compromised || s == record.Destroyed
}

func (x *request) expired(k *record.Key) bool {
	return k.State == record.Deactivated || k.Expires != 0 && x.millis() >= k.Expires
}

// symmetric returns a version of a key for encryption. Only AES and SM4 keys
// with the right usage and with material have one.
func (x *request) symmetric(k *cached[record.Key], version uint32) (*primitive.Symmetric, error) {
	if err := ciphers(&k.value); err != nil {
		return nil, err
	}
	v, err := x.loadVersion(k, version)
	if err != nil || v == nil {
		return nil, err
	}
	return v.symmetric, nil
}

// ciphers refuses a key that is not for symmetric encryption, or has no material.
func ciphers(k *record.Key) error {
	if !k.Spec.Symmetric() {
		return errServer("key type")
	}
	if k.Usage != record.EncryptDecrypt { // check: usage
		return errServer("key usage")
	}
	if k.State == record.PreActivation || k.Primary == 0 {
		return errServer("key has no material")
	}
	return nil
}

// protect encrypts plaintext under the primary version of the request's key.
func (x *request) protect(plaintext []byte) ([]byte, error) {
	k, err := x.usableKey(true)
	if err != nil {
		return nil, err
	}
	s, err := x.protecting(k)
	if err != nil {
		return nil, err
	}
	ciphertext, err := s.Encrypt(nil, plaintext, x.additionalData(k))
	if err != nil {
		return nil, errServer("encryption")
	}
	return ciphertext, nil
}

// additionalData is the member aad, which SM4 keys ignore.
func (x *request) additionalData(k *cached[record.Key]) []byte {
	if ignoresAdditionalData(k.value.Spec) {
		return nil
	}
	return x.payload.bytes("aad")
}

func ignoresAdditionalData(s primitive.Spec) bool {
	return s == primitive.SM4CTR || s == primitive.SM4CBC
}

func (x *request) encrypt() (result, error) {
	ciphertext, err := x.protect(x.payload.bytes("plaintext"))
	if err != nil {
		return result{}, err
	}
	return result{textSuccess, object{}.base64("ciphertext", ciphertext).end()}, nil
}

func (x *request) decrypt() (result, error) {
	plaintext, err := x.unprotect(x.payload.bytes("ciphertext"))
	if err != nil {
		return result{}, err
	}
	defer clear(plaintext)
	return result{textSuccess, object{}.base64("plaintext", plaintext).end()}, nil
}

// unprotect opens a ciphertext under the version of the request's key that it
// names. Whatever is wrong with it, the refusal is the same.
func (x *request) unprotect(ciphertext []byte) ([]byte, error) {
	k, err := x.usableKey(false)
	if err != nil {
		return nil, err
	}
	return x.openWith(k, ciphertext)
}

func (x *request) openWith(k *cached[record.Key], ciphertext []byte) ([]byte, error) {
	return x.openAs(k, ciphertext, x.additionalData(k))
}

// openAs is openWith for other additional data than the member aad.
func (x *request) openAs(k *cached[record.Key], ciphertext, aad []byte) ([]byte, error) {
	_, version, ok := primitive.PeekVersion(ciphertext)
	if !ok {
		version = k.value.Primary
	}
	if version < k.value.LeastDecrypt { // check: least-decrypt
		return nil, errVersion("version below the least for decryption")
	}
	s, err := x.symmetric(k, version)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, errDecryption()
	}
	plaintext, err := s.Decrypt(nil, ciphertext, aad)
	if err != nil {
		return nil, errDecryption()
	}
	return plaintext, nil
}

func (x *request) generateDataKey() (result, error) {
	plaintext, ciphertext, err := x.newDataKey()
	if err != nil {
		return result{}, err
	}
	defer clear(plaintext)
	return result{textSuccess, object{}.base64("plaintext", plaintext).base64("ciphertext", ciphertext).end()}, nil
}

func (x *request) generateDataKeyBlind() (result, error) {
	plaintext, ciphertext, err := x.newDataKey()
	if err != nil {
		return result{}, err
	}
	clear(plaintext)
	return result{textSuccess, object{}.base64("ciphertext", ciphertext).end()}, nil
}

func (x *request) newDataKey() (plaintext, ciphertext []byte, err error) {
	plaintext = make([]byte, x.payload.integer("keylen"))
	rand.Read(plaintext) // never fails
	ciphertext, err = x.protect(plaintext)
	return plaintext, ciphertext, err
}
