package speed

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/hpke"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
)

// A worker makes the function that one goroutine calls again and again.
type worker func() func() error

type operation struct {
	name    string
	batch   int // calls between two looks at the clock
	prepare func() (worker, error)
}

// operations is the table of what is measured; sizes are in bytes.
func operations() []operation {
	return []operation{
		{"random-32", 64, random},
		{"aes-256-gcm-32", 64, encrypt(32)},
		{"aes-256-gcm-4096", 16, encrypt(4096)},
		{"hmac-sha256-64", 64, mac},
		{"p256-sign", 4, sign},
		{"p256-verify", 4, verify},
		{"rsa-2048-sign", 1, signRSA},
		{"hpke-open", 1, open},
	}
}

var errWrong = errors.New("the result is wrong")

func random() (worker, error) {
	return func() func() error {
		b := make([]byte, 32)
		return func() error { _, err := rand.Read(b); return err }
	}, nil
}

func encrypt(size int) func() (worker, error) {
	return func() (worker, error) {
		block, err := aes.NewCipher(bytesOf(32))
		if err != nil {
			return nil, err
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return nil, err
		}
		return func() func() error {
			plaintext, nonce := bytesOf(size), make([]byte, aead.NonceSize())
			out := make([]byte, 0, size+aead.Overhead())
			var n uint64
			return func() error {
				n++
				binary.BigEndian.PutUint64(nonce, n)
				aead.Seal(out, nonce, plaintext, nil)
				return nil
			}
		}, nil
	}
}

func mac() (worker, error) {
	key := bytesOf(32)
	return func() func() error {
		h, message, out := hmac.New(sha256.New, key), bytesOf(64), make([]byte, 0, 32)
		return func() error {
			h.Reset()
			h.Write(message)
			h.Sum(out)
			return nil
		}
	}, nil
}

func sign() (worker, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	digest := bytesOf(32)
	return func() func() error {
		return func() error { _, err := ecdsa.SignASN1(rand.Reader, key, digest); return err }
	}, err
}

func verify() (worker, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	digest := bytesOf(32)
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest)
	return func() func() error {
		return func() error {
			if !ecdsa.VerifyASN1(&key.PublicKey, digest, signature) {
				return errWrong
			}
			return nil
		}
	}, err
}

func signRSA() (worker, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	digest := bytesOf(32)
	return func() func() error {
		return func() error { _, err := rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest, nil); return err }
	}, err
}

// open is what a core does with each sealed request.
func open() (worker, error) {
	key, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		return nil, err
	}
	kdf, aead := hpke.HKDFSHA256(), hpke.AES256GCM()
	sealed, err := hpke.Seal(key.PublicKey(), kdf, aead, nil, bytesOf(64))
	return func() func() error {
		return func() error { _, err := hpke.Open(key, kdf, aead, nil, sealed); return err }
	}, err
}

func bytesOf(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}
