package core

import (
	"errors"

	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
)

// turn adds an item that is worked on in a turn of its own.
func (b *batch) turn(work func(dst []byte) ([]byte, error)) error {
	gate, tenant := b.x.core.batches, b.x.tenant
	return b.item(func(dst []byte) ([]byte, error) {
		if !gate.Enter(tenant) {
			return nil, errTooMany()
		}
		defer gate.Leave(tenant)
		return work(dst)
	})
}

// batchAsymmetricEncrypt is AsymmetricEncrypt of each plaintext.
func (x *request) batchAsymmetricEncrypt(plaintexts texts) (result, error) {
	_, keys, p, err := x.encryptionKey(true)
	if err != nil {
		return result{}, err
	}
	n := plaintexts.len()
	b := x.newBatch("ciphertexts", encodedSize(n, n*maxSignature))
	for i := range n {
		err := b.turn(func(dst []byte) ([]byte, error) {
			plaintext := plaintexts.decode(nil, i)
			defer clear(plaintext)
			ciphertext, err := keys[0].Encrypt(plaintext, p)
			if err != nil {
				return nil, errOperation(err)
			}
			return appendBase64(dst, ciphertext), nil
		})
		if err != nil {
			return result{}, err
		}
	}
	return b.end()
}

// batchAsymmetricDecrypt is AsymmetricDecrypt of each ciphertext: each failure under
// PKCS#1 v1.5 counts, and above the limit nothing is told of an item.
func (x *request) batchAsymmetricDecrypt(ciphertexts texts) (result, error) {
	k, keys, p, err := x.encryptionKey(false)
	if err != nil {
		return result{}, err
	}
	oracle := oracle(k, record.EncryptDecrypt, p)
	_, total := ciphertexts.size()
	b := x.newBatch("plaintexts", encodedSize(ciphertexts.len(), total))
	for i := range ciphertexts.len() {
		err := b.turn(func(dst []byte) ([]byte, error) {
			plaintext, err := keys.decrypt(ciphertexts.decode(nil, i), p)
			defer clear(plaintext)
			if oracle && !x.core.failures.settle(k.id, x.now, err != nil) { // check: batch-pkcs1-limit
				return nil, errFailures()
			}
			switch {
			case err == nil:
				return appendBase64(dst, plaintext), nil
			case !errors.Is(err, primitive.ErrDecrypt):
				return nil, errOperation(err)
			case oracle:
				return nil, errPKCS1()
			}
			return nil, errDecryption()
		})
		if err != nil {
			return result{}, err
		}
	}
	return b.end()
}

// batchSign is Sign of each message.
func (x *request) batchSign() (result, error) {
	s, err := x.signing(true)
	if err != nil {
		return result{}, err
	}
	messages := x.texts("messages")
	b := x.newBatch("signatures", encodedSize(messages.len(), messages.len()*maxSignature))
	for i := range messages.len() {
		err := b.turn(func(dst []byte) ([]byte, error) {
			signature, err := s.keys[0].Sign(messages.decode(nil, i), s.kind, s.digest, s.padding)
			if err != nil {
				return nil, errOperation(err)
			}
			return appendBase64(dst, signature), nil
		})
		if err != nil {
			return result{}, err
		}
	}
	return b.end()
}

// batchVerify is Verify of each message with its signature.
func (x *request) batchVerify() (result, error) {
	s, err := x.signing(false)
	if err != nil {
		return result{}, err
	}
	messages, signatures := x.texts("messages"), x.texts("signatures")
	if err := sameLength(messages, signatures, "signatures"); err != nil {
		return result{}, err
	}
	b := x.newBatch("results", messages.len()*len("false,"))
	for i := range messages.len() {
		err := b.turn(func(dst []byte) ([]byte, error) {
			signature := signatures.decode(nil, i)
			if len(signature) > maxSignature {
				return nil, errServer("signature length")
			}
			good, err := s.keys.verify(&s, messages.decode(nil, i), signature)
			switch {
			case err != nil:
				return nil, errOperation(err)
			case good:
				return append(dst, "true"...), nil
			}
			return append(dst, "false"...), nil
		})
		if err != nil {
			return result{}, err
		}
	}
	return b.end()
}
