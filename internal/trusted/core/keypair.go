package core

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/big"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// pairSign is the size of a signature of a key pair of any kind, in bytes: that of
// P-256 is r and s in 32 bytes each.
const pairSign = 64

// A publicKey is the public half of a credential, of one of both kinds.
type publicKey struct {
	ed25519 ed25519.PublicKey
	p256    *ecdsa.PublicKey
}

func newPublicKey(c *record.Credential) (k publicKey, err error) {
	switch c.Kind {
	case record.Ed25519:
		k.ed25519 = ed25519.PublicKey(c.PublicKey)
	case record.P256:
		k.p256, err = ecdsa.ParseUncompressedPublicKey(elliptic.P256(), c.PublicKey)
	}
	return k, err
}

// verify checks a signature over a message.
func (k *publicKey) verify(message []byte, sign *[pairSign]byte) bool {
	if k.ed25519 != nil {
		return ed25519.Verify(k.ed25519, message, sign[:])
	}
	r, s := new(big.Int).SetBytes(sign[:32]), new(big.Int).SetBytes(sign[32:])
	digest := sha256.Sum256(message)
	ok := ecdsa.Verify(k.p256, digest[:], r, s)
	// Of a signature anybody makes a second one, with n - s.
	if s.Cmp(new(big.Int).Rsh(elliptic.P256().Params().N, 1)) > 0 { // check: low-s
		return false
	}
	return ok
}

// strangerPairs are public keys, one of each kind, whose private halves nobody has.
func strangerPairs() ([]*openCredential, error) {
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the stand-in for key pairs: %w", err)
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the stand-in for key pairs: %w", err)
	}
	return []*openCredential{
		{Credential: record.Credential{Kind: record.Ed25519}, public: publicKey{ed25519: ed}},
		{Credential: record.Credential{Kind: record.P256}, public: publicKey{p256: &p256.PublicKey}},
	}, nil
}

// verifyPair returns the key pair of the app that the request names and is signed
// with, and the form that its signature covers, or nil. A refusal costs one
// verification of each kind, whether there is such a credential and of which kind.
func (x *request) verifyPair(app *openApp, e *envelope) (*openCredential, canon.Form) {
	var sign [pairSign + 2]byte
	size := base64.StdEncoding.EncodedLen(pairSign)
	n, err := base64.StdEncoding.Strict().Decode(sign[:], []byte(cut(e.sign, size)))
	wellFormed := err == nil && n == pairSign && len(e.sign) == size
	buf, _ := x.core.buffers.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	defer x.core.buffers.Put(buf)
	named := e.login
	if named == nil {
		named = x.named(app, e.credential)
	}
	for _, c := range x.pairsToTry(named) {
		for form := range e.body.Forms() {
			*buf = e.body.AppendCanonical((*buf)[:0], form)
			if !c.public.verify(*buf, (*[pairSign]byte)(sign[:])) { // check: pair-signature
				continue
			}
			if !wellFormed { // check: pair-sign-encoding
				return nil, 0
			}
			x.mac = sha256.Sum256(*buf)
			return c, form
		}
	}
	return nil, 0
}

// named returns the key pair of an app with an id, nil if there is none in force.
func (x *request) named(app *openApp, text string) *openCredential {
	id, err := wire.ParseUUID(text)
	if err != nil {
		return nil
	}
	for _, c := range app.credentials {
		if c.ID != id || c.Kind == record.APIKey {
			continue
		}
		if c.Ended(x.millis()) { // check: pair-expired
			return nil
		}
		return c
	}
	return nil
}

// pairsToTry are one key of each kind, c first if there is one.
func (x *request) pairsToTry(c *openCredential) []*openCredential {
	pairs := x.core.pairs
	if c == nil {
		return pairs
	}
	all := append(make([]*openCredential, 0, len(pairs)), c)
	for _, p := range pairs {
		if p.Kind != c.Kind {
			all = append(all, p)
		}
	}
	return all
}

// pairTag names a request of a key pair in replay entries: the digest of its
// canonical string is in x.mac. Signatures have no part in it, as the holder of the
// key can make many of one request.
func (x *request) pairTag() wire.Tag {
	sum := sha256.Sum256(append(append(make([]byte, 0, 48), x.credential.ID[:]...), x.mac[:]...))
	return wire.Tag(sum[:16])
}

// A replyKey signs what is said to holders of key pairs, with whom no secret is
// shared. It lives as long as the core; evidence binds its public half.
type replyKey struct {
	public  ed25519.PublicKey
	private ed25519.PrivateKey // on the heap: crypto/ed25519 takes no other, and keeps an expanded copy
}

func newReplyKey() (k replyKey, err error) {
	secret.Do(func() { k.public, k.private, err = ed25519.GenerateKey(rand.Reader) })
	if err != nil {
		err = fmt.Errorf("make the instance's reply key: %w", err)
	}
	return k, err
}

func (k *replyKey) sign(message []byte) (sign []byte) {
	secret.Do(func() { sign = ed25519.Sign(k.private, message) })
	return sign
}

// signPair returns the reply signature for a request of a key pair.
func (x *request) signPair(body []byte) string {
	message := api.PairReplyMessage((*[16]byte)(&x.credential.ID), &x.mac, x.call.Action, body)
	if message == nil {
		return ""
	}
	return api.PairReplySignature(x.core.info.Instance.String(), x.core.reply.sign(message))
}
