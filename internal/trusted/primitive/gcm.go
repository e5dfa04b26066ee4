package primitive

import (
	"crypto/aes"
	"crypto/cipher"
)

// newGCM is AES-GCM with a 12-byte nonce and a 16-byte tag, NIST SP 800-38D.
func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// sealGCM appends ciphertext and tag to dst. key is 16, 24 or 32 bytes.
func sealGCM(dst, key, nonce, plaintext, aad []byte) ([]byte, error) {
	aead, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	return aead.Seal(dst, nonce, plaintext, aad), nil
}

// openGCM appends the plaintext of body, which ends in the tag, to dst.
func openGCM(dst, key, nonce, body, aad []byte) ([]byte, error) {
	aead, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	return aead.Open(dst, nonce, body, aad)
}
