package ehsm

import (
	"cmp"
	"context"
	"fmt"

	"github.com/ehsm-kms/ehsm/api"
)

// AsymmetricEncrypt encrypts under an RSA or SM2 key: up to k-66 bytes under an
// RSA modulus of k bytes with api.OAEP, k-11 with api.PKCS1, and api.MaxSM2 under
// SM2. Without padding it is api.OAEP; SM2 ignores it.
func (c *Client) AsymmetricEncrypt(ctx context.Context, keyID string, plaintext []byte, padding api.PaddingMode) (ciphertext []byte, err error) {
	var res api.EncryptResult
	err = c.call(ctx, api.AsymmetricEncrypt, true,
		api.AsymmetricEncryptRequest{KeyID: keyID, Plaintext: plaintext, PaddingMode: cmp.Or(padding, api.OAEP)}, &res)
	if err == nil && len(res.Ciphertext) == 0 {
		err = missing(api.AsymmetricEncrypt, "ciphertext")
	}
	return res.Ciphertext, err
}

// AsymmetricDecrypt opens what was encrypted to the key's public half, with the
// same padding; without one it is api.OAEP. IsDecryptionFailed is true for the
// error if it does not open, whatever the cause. The service limits failures of
// api.PKCS1.
func (c *Client) AsymmetricDecrypt(ctx context.Context, keyID string, ciphertext []byte, padding api.PaddingMode) (plaintext []byte, err error) {
	var res api.DecryptResult
	err = c.call(ctx, api.AsymmetricDecrypt, true,
		api.AsymmetricDecryptRequest{KeyID: keyID, Ciphertext: ciphertext, PaddingMode: cmp.Or(padding, api.OAEP)}, &res)
	if err == nil && res.Plaintext == nil {
		err = missing(api.AsymmetricDecrypt, "plaintext")
	}
	return res.Plaintext, err
}

// SignatureOptions choose among the signatures that a key makes. The zero value
// is right for every kind of key: SHA-256, SM3 for SM2; PSS for RSA.
type SignatureOptions struct {
	// Digest hashes the message. RSA keys have no api.SM3, HMAC keys only
	// api.SHA256; SM2 keys sign with api.SM3 always, and verify with no other.
	Digest api.DigestMode
	// Padding is api.PSS or api.PKCS1 of RSA keys. Others ignore it.
	Padding api.PaddingMode
}

func (o SignatureOptions) request(keyID string, message []byte, kind api.MessageType) api.SignRequest {
	return api.SignRequest{
		KeyID: keyID, Message: message, MessageType: kind,
		DigestMode: o.Digest, PaddingMode: cmp.Or(o.Padding, api.PSS),
	}
}

// SignMessage signs 1 to api.MaxMessage bytes, which the core hashes. For longer
// messages hash them and use SignDigest, or a Signer. Format of the signature:
// api.SignResult.
func (c *Client) SignMessage(ctx context.Context, keyID string, message []byte, o SignatureOptions) (signature []byte, err error) {
	return c.signature(ctx, o.request(keyID, message, api.RawMessage))
}

// SignDigest is SignMessage for a message of which the caller has the digest, of
// exactly the size of o.Digest. It is for RSA and EC keys only: HMAC keys refuse,
// and SM2 keys take the digest for the message.
func (c *Client) SignDigest(ctx context.Context, keyID string, digest []byte, o SignatureOptions) (signature []byte, err error) {
	return c.signature(ctx, o.request(keyID, digest, api.DigestMessage))
}

func (c *Client) signature(ctx context.Context, req api.SignRequest) ([]byte, error) {
	var res api.SignResult
	err := c.call(ctx, api.Sign, true, req, &res)
	if err == nil && len(res.Signature) == 0 {
		err = missing(api.Sign, "signature")
	}
	return res.Signature, err
}

// VerifyMessage reports whether signature is one of the key over a message of 1
// to api.MaxMessage bytes. A false one is no error, but an RSA signature of the
// wrong length is.
func (c *Client) VerifyMessage(ctx context.Context, keyID string, message, signature []byte, o SignatureOptions) (bool, error) {
	return c.verify(ctx, api.VerifyRequest{SignRequest: o.request(keyID, message, api.RawMessage), Signature: signature})
}

// VerifyDigest is VerifyMessage for what SignDigest signed.
func (c *Client) VerifyDigest(ctx context.Context, keyID string, digest, signature []byte, o SignatureOptions) (bool, error) {
	return c.verify(ctx, api.VerifyRequest{SignRequest: o.request(keyID, digest, api.DigestMessage), Signature: signature})
}

func (c *Client) verify(ctx context.Context, req api.VerifyRequest) (bool, error) {
	var res struct {
		Result *bool `json:"result"`
	}
	err := c.call(ctx, api.Verify, true, req, &res)
	if err == nil && res.Result == nil {
		err = missing(api.Verify, "result")
	}
	if err != nil {
		return false, err
	}
	return *res.Result, nil
}

// An ExportTarget is whom a data key is exported to: exactly one of KeyID and
// PublicKey.
type ExportTarget struct {
	KeyID     string          // an RSA or SM2 key of the tenant that encrypts
	PublicKey string          // PEM of an RSA key of at least 2048 bits, or of SM2
	Padding   api.PaddingMode // of RSA: api.OAEP, also if it is "", or api.PKCS1
}

// ExportDataKey has the core open a data key that keyID encrypts, with the aad it
// was made with, and encrypt it to another key. The core is the only one to see
// it. It must fit: see AsymmetricEncrypt.
func (c *Client) ExportDataKey(ctx context.Context, keyID string, dataKey, aad []byte, to ExportTarget) (exported []byte, err error) {
	if (to.KeyID == "") == (to.PublicKey == "") {
		return nil, fmt.Errorf("%s: want one of key id and public key as the target", api.ExportDataKey)
	}
	var res api.ExportDataKeyResult
	err = c.call(ctx, api.ExportDataKey, true, api.ExportDataKeyRequest{
		KeyID: keyID, DataKey: dataKey, AAD: aad,
		UKeyID: to.KeyID, UPubKey: to.PublicKey, PaddingMode: to.Padding,
	}, &res)
	if err == nil && len(res.NewDataKey) == 0 {
		err = missing(api.ExportDataKey, "newdatakey")
	}
	return res.NewDataKey, err
}
