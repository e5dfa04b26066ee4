package ehsm

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/ehsm-kms/ehsm/api"
)

// A KeyPair is a credential whose private half only its holder has, so that no
// secret is shared with the service.
type KeyPair struct {
	// ID is what CreateCredential returned for the public half.
	ID string

	// Signer has the private half: Ed25519, or ECDSA on P-256. It may be in an HSM.
	Signer crypto.Signer

	// ReplyKey returns the Ed25519 key that an instance of the core signs its replies
	// with. It must come from evidence that was verified, as ReplyKeys of package
	// attested has it: of the service itself it proves nothing. The client asks for
	// each reply. It may be called by many goroutines.
	ReplyKey func(ctx context.Context, instance string) (ed25519.PublicKey, error)
}

// WithKeyPair returns a client for a key pair that shares the connections of c.
func (c *Client) WithKeyPair(appID string, p KeyPair) (*Client, error) {
	id, err := hex.DecodeString(strings.ReplaceAll(p.ID, "-", ""))
	switch {
	case appID == "":
		return nil, ErrNoCredentials
	case err != nil || len(id) != 16 || len(p.ID) != keyIDSize:
		return nil, fmt.Errorf("credential id is %q, want a UUID", p.ID)
	case p.Signer == nil || p.ReplyKey == nil:
		return nil, errors.New("key pair without Signer or ReplyKey")
	}
	if _, _, err := encodePublicKey(p.Signer.Public()); err != nil {
		return nil, err
	}
	other := *c
	other.appID, other.apiKey, other.pair, other.session = appID, APIKey{}, &keyPair{p, [16]byte(id)}, nil
	return &other, nil
}

type keyPair struct {
	KeyPair
	id [16]byte
}

// sign signs the canonical string of a request.
func (p *keyPair) sign(message []byte) ([]byte, error) {
	public, ok := p.Signer.Public().(*ecdsa.PublicKey)
	if !ok {
		return p.Signer.Sign(rand.Reader, message, crypto.Hash(0))
	}
	digest := sha256.Sum256(message)
	der, err := p.Signer.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	return rawSignature(public.Curve, der)
}

// rawSignature turns an ECDSA signature in ASN.1 into r and s, of which the core
// takes only the lower one of two.
func rawSignature(curve elliptic.Curve, der []byte) ([]byte, error) {
	var sig struct{ R, S *big.Int }
	order := curve.Params().N
	rest, err := asn1.Unmarshal(der, &sig)
	if err != nil || len(rest) > 0 || sig.R.Sign() <= 0 || sig.S.Sign() <= 0 || sig.R.Cmp(order) >= 0 || sig.S.Cmp(order) >= 0 {
		return nil, errors.New("signer gives no signature in ASN.1")
	}
	if sig.S.Cmp(new(big.Int).Rsh(order, 1)) > 0 {
		sig.S.Sub(order, sig.S)
	}
	out := make([]byte, 64)
	sig.R.FillBytes(out[:32])
	sig.S.FillBytes(out[32:])
	return out, nil
}

// verify checks the signature of a reply.
func (p *keyPair) verify(ctx context.Context, request *[32]byte, action string, body []byte, header string) error {
	instance, signature, ok := api.ParsePairReplySignature(header)
	if !ok {
		return ErrReplySignature
	}
	key, err := p.ReplyKey(ctx, instance)
	if err != nil {
		return fmt.Errorf("%w: key of instance %q: %w", ErrReplySignature, instance, err)
	}
	message := api.PairReplyMessage(&p.id, request, action, body)
	if len(key) != ed25519.PublicKeySize || message == nil || !ed25519.Verify(key, message, signature) {
		return ErrReplySignature
	}
	return nil
}
