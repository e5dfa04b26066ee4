package core

import (
	"errors"

	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
)

// maxSignature is the size of the longest signature there is, RSA-4096, in bytes.
const maxSignature = 512

// newPaddings returns the paddings that a new key is to admit: those of the
// member padding_modes, or all that fit its usage. Apps of attested enrollment, which
// no client of old has, get PKCS#1 v1.5 for encryption only if they ask for it.
func (x *request) newPaddings(spec primitive.Spec, usage record.Usage) (primitive.PaddingSet, error) {
	var fit, asked primitive.PaddingSet
	switch {
	case spec.RSA() && usage == record.EncryptDecrypt:
		fit = primitive.EncryptionPaddings
	case spec.RSA():
		fit = primitive.SignaturePaddings
	}
	if fit = x.core.admitted(fit); spec.RSA() && fit == 0 {
		return 0, errServer("every padding is switched off")
	}
	for _, name := range x.payload.names("padding_modes") {
		p, _ := primitive.ParsePadding(name) // validated
		for _, bit := range []primitive.PaddingSet{primitive.AllowPKCS1, primitive.AllowPSS, primitive.AllowOAEP} {
			if bit.Has(p) {
				asked |= bit
			}
		}
	}
	if asked == 0 && usage == record.EncryptDecrypt && !x.app.value.Exposed { // check: oaep-default
		fit &= primitive.AllowOAEP
		if spec.RSA() && fit == 0 {
			return 0, errServer("OAEP is switched off")
		}
	}
	if asked == 0 {
		return fit, nil
	}
	if asked&^fit != 0 { // check: paddings-fit
		return 0, errServer("paddings do not fit the key")
	}
	return asked, nil
}

// padding returns the padding that a request names. Only RSA keys have a choice,
// and must be given one; other keys ignore the member.
func (x *request) padding(spec primitive.Spec) (primitive.Padding, error) {
	if !spec.RSA() {
		return primitive.PaddingNone, nil
	}
	name := x.payload.text("padding_mode")
	if name == "" {
		return 0, errEmpty("padding_mode")
	}
	p, _ := primitive.ParsePadding(name) // validated
	if x.core.paddingOff(p) {            // check: padding-off
		return 0, errServer("padding is switched off")
	}
	return p, nil
}

// private returns the primary version of an asymmetric or HMAC key, for a
// usage and, with RSA, for a padding.
func (x *request) private(k *cached[record.Key], usage record.Usage, p primitive.Padding) (*primitive.Private, error) {
	return x.privateVersion(k, usage, p, k.value.Primary)
}

func (x *request) privateVersion(k *cached[record.Key], usage record.Usage, p primitive.Padding, number uint32) (*primitive.Private, error) {
	if k.value.Spec.Symmetric() { // check: private-kind
		return nil, errServer("key type")
	}
	if k.value.Usage != usage { // check: private-usage
		return nil, errServer("key usage")
	}
	if k.value.Spec.RSA() && !k.value.Paddings.Has(p) { // check: padding-set
		return nil, errServer("padding not admitted")
	}
	v, err := x.loadVersion(k, number)
	if err == nil && v == nil {
		err = errServer("version without material")
	}
	if err != nil {
		return nil, err
	}
	return v.private, nil
}

// privates returns the versions of an asymmetric or HMAC key that a request is to
// work with: the one that protects, or those to try what is protected with, the
// likeliest first. It is never empty.
func (x *request) privates(k *cached[record.Key], usage record.Usage, p primitive.Padding, protects bool) (privates, error) {
	// Each failure of PKCS#1 v1.5 tells something of a version, so only one is asked.
	numbers, err := x.versionsFor(k, protects, oracle(k, usage, p))
	if err != nil {
		return nil, err
	}
	keys := make(privates, len(numbers))
	for i, number := range numbers {
		if keys[i], err = x.privateVersion(k, usage, p, number); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// oracle reports whether failures to decrypt tell something of the plaintext.
func oracle(k *cached[record.Key], usage record.Usage, p primitive.Padding) bool {
	return usage == record.EncryptDecrypt && k.value.Spec.RSA() && p == primitive.PaddingPKCS1
}

// privates are versions of one key. What they have protected does not say which of
// them did.
type privates []*primitive.Private

// decrypt decrypts with the first version that can.
func (keys privates) decrypt(ciphertext []byte, p primitive.Padding) (plaintext []byte, err error) {
	for _, key := range keys {
		plaintext, err = key.Decrypt(ciphertext, p)
		if err == nil || !errors.Is(err, primitive.ErrDecrypt) {
			break
		}
	}
	return plaintext, err
}

// verify reports whether one of the versions has made the signature of a message.
func (keys privates) verify(s *signing, message, signature []byte) (good bool, err error) {
	for _, key := range keys {
		good, err = key.Verify(message, signature, s.kind, s.digest, s.padding)
		if good || err != nil {
			break
		}
	}
	return good, err
}

// encryptionKey returns what AsymmetricEncrypt and AsymmetricDecrypt work with.
func (x *request) encryptionKey(protects bool) (*cached[record.Key], privates, primitive.Padding, error) {
	k, err := x.usableKey(protects)
	if err != nil {
		return nil, nil, 0, err
	}
	p, err := x.padding(k.value.Spec)
	if err != nil {
		return nil, nil, 0, err
	}
	keys, err := x.privates(k, record.EncryptDecrypt, p, protects)
	return k, keys, p, err
}

func (x *request) asymmetricEncrypt() (result, error) {
	_, keys, p, err := x.encryptionKey(true)
	if err != nil {
		return result{}, err
	}
	ciphertext, err := keys[0].Encrypt(x.payload.bytes("plaintext"), p)
	if err != nil {
		return result{}, errOperation(err)
	}
	return result{textSuccess, object{}.base64("ciphertext", ciphertext).end()}, nil
}

func (x *request) asymmetricDecrypt() (result, error) {
	k, keys, p, err := x.encryptionKey(false)
	if err != nil {
		return result{}, err
	}
	oracle := oracle(k, record.EncryptDecrypt, p)
	plaintext, err := keys.decrypt(x.payload.bytes("ciphertext"), p)
	defer clear(plaintext)
	// Only now, so that of requests under way none is told above the limit.
	if oracle && !x.core.failures.settle(k.id, x.now, err != nil) { // check: pkcs1-limit
		return result{}, errFailures()
	}
	switch {
	case err == nil:
		return result{textSuccess, object{}.base64("plaintext", plaintext).end()}, nil
	case !errors.Is(err, primitive.ErrDecrypt):
		return result{}, errOperation(err)
	case oracle:
		return result{}, errPKCS1()
	}
	return result{}, errDecryption()
}

// A signing is what Sign and Verify work with.
type signing struct {
	keys    privates
	message []byte
	kind    primitive.MessageType
	digest  primitive.Digest
	padding primitive.Padding
}

func (x *request) signing(protects bool) (s signing, err error) {
	k, err := x.usableKey(protects)
	if err != nil {
		return s, err
	}
	name := x.payload.text("message_type")
	if name == "" {
		return s, errEmpty("message_type")
	}
	s.kind, _ = primitive.ParseMessageType(name) // validated
	if s.padding, err = x.padding(k.value.Spec); err != nil {
		return s, err
	}
	s.digest = k.value.Spec.DefaultDigest()
	if name := x.payload.text("digest_mode"); name != "" {
		s.digest, _ = primitive.ParseDigest(name) // validated
	}
	s.message = x.payload.bytes("message")
	s.keys, err = x.privates(k, record.SignVerify, s.padding, protects)
	return s, err
}

func (x *request) signMessage() (result, error) {
	s, err := x.signing(true)
	if err != nil {
		return result{}, err
	}
	signature, err := s.keys[0].Sign(s.message, s.kind, s.digest, s.padding)
	if err != nil {
		return result{}, errOperation(err)
	}
	return result{textSuccess, object{}.base64("signature", signature).end()}, nil
}

func (x *request) verifyMessage() (result, error) {
	s, err := x.signing(false)
	if err != nil {
		return result{}, err
	}
	signature := x.payload.bytes("signature")
	if len(signature) > maxSignature {
		return result{}, errServer("signature length")
	}
	good, err := s.keys.verify(&s, s.message, signature)
	if err != nil {
		return result{}, errOperation(err)
	}
	return result{textSuccess, object{}.boolean("result", good).end()}, nil
}

func (x *request) getPublicKey() (result, error) {
	k, err := x.usableKey(false)
	if err != nil {
		return result{}, err
	}
	if !k.value.Spec.Asymmetric() { // check: public-half
		return result{}, errServer("key type")
	}
	number := k.value.Primary
	if n := x.payload.integer(memberVersion); n != 0 {
		number = uint32(n)
	}
	v, err := x.loadVersion(k, number)
	if err == nil && v == nil {
		err = errVersion("no such version")
	}
	if err != nil {
		return result{}, err
	}
	text, err := v.private.PublicPEM()
	if err != nil {
		return result{}, errOperation(err)
	}
	return result{textSuccess, object{}.text("pubkey", text).text("keyid", k.id.ID.String()).end()}, nil
}

// errOperation is the answer to an operation that the key does not have, or not
// with these parameters. The texts of primitive stay inside.
func errOperation(err error) *refusal {
	switch {
	case errors.Is(err, primitive.ErrUsage):
		return errServer("operation does not fit the key")
	case errors.Is(err, primitive.ErrParameter):
		return errServer("parameter not allowed")
	}
	return errServer("operation failed")
}
