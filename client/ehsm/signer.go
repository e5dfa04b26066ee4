package ehsm

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"

	"github.com/ehsm-kms/ehsm/api"
)

// A Signer signs with a key of the service. It is a crypto.Signer, so it can be
// the private key of x509.CreateCertificate and of a tls.Certificate.
type Signer struct {
	remote
}

// A Decrypter decrypts with an RSA key of the service. It is a crypto.Decrypter.
type Decrypter struct {
	remote
}

// remote is a private key in the core.
type remote struct {
	client *Client
	keyID  string
	public crypto.PublicKey
}

// Public returns the public half, an *rsa.PublicKey or *ecdsa.PublicKey. It was
// fetched when the signer or decrypter was made.
func (r *remote) Public() crypto.PublicKey { return r.public }

// KeyID returns the id of the key.
func (r *remote) KeyID() string { return r.keyID }

func (c *Client) remote(ctx context.Context, keyID string) (remote, error) {
	key, err := c.PublicKey(ctx, keyID)
	if err == nil && key.Key == nil {
		err = fmt.Errorf("key %s is of spec %s, for which crypto has no public key", keyID, key.Spec)
	}
	return remote{c, keyID, key.Key}, err
}

// Signer returns a signer for an RSA key, or an EC key on P-224, P-256, P-384 or
// P-521, of usage api.SignVerify. ctx is for fetching the public key; whoever
// signs has no context, so that the client's timeout bounds each signature.
func (c *Client) Signer(ctx context.Context, keyID string) (*Signer, error) {
	r, err := c.remote(ctx, keyID)
	if err != nil {
		return nil, err
	}
	return &Signer{r}, nil
}

// Sign implements crypto.Signer. The digest is one of SHA-224, SHA-256, SHA-384
// and SHA-512, as opts says. With *rsa.PSSOptions an RSA key signs with PSS and a
// salt as long as the digest, and refuses other lengths; else it signs with
// PKCS#1 v1.5. An EC key signs with ECDSA, in ASN.1. The reader is not used: the
// core has its own randomness.
func (s *Signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	o, err := s.options(digest, opts)
	if err != nil {
		return nil, fmt.Errorf("sign with key %s: %w", s.keyID, err)
	}
	return s.client.SignDigest(context.Background(), s.keyID, digest, o)
}

func (s *Signer) options(digest []byte, opts crypto.SignerOpts) (o SignatureOptions, err error) {
	if opts == nil {
		return o, errors.New("no options say which digest it is")
	}
	hash := opts.HashFunc()
	o.Digest = map[crypto.Hash]api.DigestMode{
		crypto.SHA224: api.SHA224, crypto.SHA256: api.SHA256, crypto.SHA384: api.SHA384, crypto.SHA512: api.SHA512,
	}[hash]
	if o.Digest == "" {
		return o, fmt.Errorf("digest is %v, want SHA-224, SHA-256, SHA-384 or SHA-512", hash)
	}
	if len(digest) != hash.Size() {
		return o, fmt.Errorf("digest has %d bytes, want %d for %v", len(digest), hash.Size(), hash)
	}
	pss, ok := opts.(*rsa.PSSOptions)
	switch {
	case !ok:
		o.Padding = api.PKCS1
		return o, nil
	case pss.SaltLength != rsa.PSSSaltLengthAuto && pss.SaltLength != rsa.PSSSaltLengthEqualsHash && pss.SaltLength != hash.Size():
		return o, fmt.Errorf("PSS salt of %d bytes, want %d", pss.SaltLength, hash.Size())
	}
	if _, ok := s.public.(*ecdsa.PublicKey); ok {
		return o, errors.New("options of PSS for an EC key")
	}
	o.Padding = api.PSS
	return o, nil
}

// Decrypter returns a decrypter for an RSA key of usage api.EncryptDecrypt. See
// Signer about ctx.
func (c *Client) Decrypter(ctx context.Context, keyID string) (*Decrypter, error) {
	r, err := c.remote(ctx, keyID)
	if err != nil {
		return nil, err
	}
	if _, ok := r.public.(*rsa.PublicKey); !ok {
		return nil, fmt.Errorf("key %s is %T, want an RSA key", keyID, r.public)
	}
	return &Decrypter{r}, nil
}

// Decrypt implements crypto.Decrypter. opts is *rsa.OAEPOptions with SHA-256 and
// no label; or nil or *rsa.PKCS1v15DecryptOptions without a session key length,
// as what hides the failure of a TLS key exchange cannot be done from here. The
// reader is not used.
func (d *Decrypter) Decrypt(_ io.Reader, ciphertext []byte, opts crypto.DecrypterOpts) ([]byte, error) {
	padding, err := paddingOf(opts)
	if err != nil {
		return nil, fmt.Errorf("decrypt with key %s: %w", d.keyID, err)
	}
	return d.client.AsymmetricDecrypt(context.Background(), d.keyID, ciphertext, padding)
}

func paddingOf(opts crypto.DecrypterOpts) (api.PaddingMode, error) {
	switch o := opts.(type) {
	case nil:
		return api.PKCS1, nil
	//lint:ignore SA1019 the API has this padding
	case *rsa.PKCS1v15DecryptOptions:
		if o.SessionKeyLen != 0 {
			return "", errors.New("session keys of PKCS#1 v1.5 are not supported")
		}
		return api.PKCS1, nil
	case *rsa.OAEPOptions:
		if o.Hash != crypto.SHA256 || o.MGFHash != 0 && o.MGFHash != crypto.SHA256 || len(o.Label) > 0 {
			return "", errors.New("want OAEP with SHA-256 for both hashes, and no label")
		}
		return api.OAEP, nil
	}
	return "", fmt.Errorf("options are %T, want those of crypto/rsa", opts)
}
