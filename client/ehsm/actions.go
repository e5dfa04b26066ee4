package ehsm

import (
	"context"
	"fmt"

	"github.com/ehsm-kms/ehsm/api"
)

// CreateKey makes a key and returns its id. An RSA key can be held to some of the
// paddings of its usage; without any it admits all.
func (c *Client) CreateKey(ctx context.Context, spec api.KeySpec, usage api.KeyUsage, origin api.Origin, paddings ...api.PaddingMode) (keyID string, err error) {
	var res api.CreateKeyResult
	err = c.call(ctx, api.CreateKey, false, api.CreateKeyRequest{KeySpec: spec, KeyUsage: usage, Origin: origin, PaddingModes: paddings}, &res)
	if err == nil && res.KeyID == "" {
		err = missing(api.CreateKey, "keyid")
	}
	return res.KeyID, err
}

// Encrypt encrypts 1 to api.MaxPlaintext bytes under a symmetric key. For more,
// or none, use an Envelope. Aad may be nil; the SM4 specs ignore it.
func (c *Client) Encrypt(ctx context.Context, keyID string, plaintext, aad []byte) (ciphertext []byte, err error) {
	var res api.EncryptResult
	err = c.call(ctx, api.Encrypt, true, api.EncryptRequest{KeyID: keyID, Plaintext: plaintext, AAD: aad}, &res)
	if err == nil && len(res.Ciphertext) == 0 {
		err = missing(api.Encrypt, "ciphertext")
	}
	return res.Ciphertext, err
}

// Decrypt opens what Encrypt or the data key actions returned. IsDecryptionFailed
// is true for the error if it does not open, whatever the cause. The caller may
// zero the plaintext; no copy is kept by this package.
func (c *Client) Decrypt(ctx context.Context, keyID string, ciphertext, aad []byte) (plaintext []byte, err error) {
	var res api.DecryptResult
	err = c.call(ctx, api.Decrypt, true, api.DecryptRequest{KeyID: keyID, Ciphertext: ciphertext, AAD: aad}, &res)
	if err == nil && res.Plaintext == nil {
		err = missing(api.Decrypt, "plaintext")
	}
	return res.Plaintext, err
}

// CiphertextKeyID returns the id of the key that a ciphertext of Encrypt or the
// data key actions names, false if the ciphertext is of no known format. Nothing
// is authenticated: it tells which key to try. Layout:
// docs/formats.md#ciphertext-v1.
func CiphertextKeyID(ciphertext []byte) (keyID string, ok bool) {
	const formatV1, start, end = 1, 1, 17
	if len(ciphertext) < end || ciphertext[0] != formatV1 {
		return "", false
	}
	id := ciphertext[start:end]
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[0:4], id[4:6], id[6:8], id[8:10], id[10:16]), true
}

// GenerateDataKey returns n random bytes, 1 to api.MaxDataKey, in plaintext and
// encrypted under a symmetric key. Decrypt opens the ciphertext. The caller owns
// the plaintext and zeroes it after use.
func (c *Client) GenerateDataKey(ctx context.Context, keyID string, n int, aad []byte) (plaintext, ciphertext []byte, err error) {
	var res api.DataKeyResult
	err = c.call(ctx, api.GenerateDataKey, true, api.DataKeyRequest{KeyID: keyID, KeyLen: n, AAD: aad}, &res)
	switch {
	case err != nil:
	case len(res.Plaintext) != n:
		err = fmt.Errorf("%s: %w: got %d bytes, want %d", api.GenerateDataKey, ErrReply, len(res.Plaintext), n)
	case len(res.Ciphertext) == 0:
		err = missing(api.GenerateDataKey, "ciphertext")
	}
	if err != nil {
		clear(res.Plaintext)
		return nil, nil, err
	}
	return res.Plaintext, res.Ciphertext, nil
}

// GenerateDataKeyWithoutPlaintext is GenerateDataKey without the plaintext, which
// then never leaves the core.
func (c *Client) GenerateDataKeyWithoutPlaintext(ctx context.Context, keyID string, n int, aad []byte) (ciphertext []byte, err error) {
	var res api.DataKeyResult
	err = c.call(ctx, api.GenerateDataKeyWithoutPlaintext, true, api.DataKeyRequest{KeyID: keyID, KeyLen: n, AAD: aad}, &res)
	if err == nil && len(res.Ciphertext) == 0 {
		err = missing(api.GenerateDataKeyWithoutPlaintext, "ciphertext")
	}
	return res.Ciphertext, err
}

// ListKeys returns the keys of the tenant, at most 10000, in no defined order.
// The host can leave keys out.
func (c *Client) ListKeys(ctx context.Context) ([]api.Key, error) {
	var res api.ListKeyResult
	err := c.call(ctx, api.ListKey, true, nil, &res)
	if err == nil && res.List == nil {
		err = missing(api.ListKey, "list")
	}
	return res.List, err
}

// EnableKey makes a disabled key usable again. It is no error if it is enabled.
func (c *Client) EnableKey(ctx context.Context, keyID string) error {
	return c.call(ctx, api.EnableKey, false, api.KeyRequest{KeyID: keyID}, &api.Empty{})
}

// DisableKey makes a key unusable until EnableKey. It is no error if it is
// disabled. Every node obeys within a second.
func (c *Client) DisableKey(ctx context.Context, keyID string) error {
	return c.call(ctx, api.DisableKey, false, api.KeyRequest{KeyID: keyID}, &api.Empty{})
}

// DeleteKey makes a key unusable at once and destroys it after the deletion
// window of the service. It is no error if the tenant has no such key.
func (c *Client) DeleteKey(ctx context.Context, keyID string) error {
	return c.call(ctx, api.DeleteKey, false, api.KeyRequest{KeyID: keyID}, &api.Empty{})
}

// DeleteAllKeys is DeleteKey for every key of the tenant.
func (c *Client) DeleteAllKeys(ctx context.Context) error {
	return c.call(ctx, api.DeleteAllKey, false, nil, &api.Empty{})
}

// Version returns what the server says about itself. Nothing authenticates it
// but TLS, and it needs no credentials.
func (c *Client) Version(ctx context.Context) (api.GetVersionResult, error) {
	var res api.GetVersionResult
	err := c.call(ctx, api.GetVersion, true, nil, &res)
	return res, err
}

// Enroll makes a new tenant where the operator allows anyone to. The manager, on
// the host, sees the API key pass. Use With to call for the new tenant. A failure
// of the connection may leave a tenant behind that nobody can use.
func (c *Client) Enroll(ctx context.Context) (Credentials, error) {
	var res api.EnrollResult
	if err := c.call(ctx, api.Enroll, false, nil, &res); err != nil {
		return Credentials{}, err
	}
	if res.AppID == "" || res.APIKey == "" {
		return Credentials{}, missing(api.Enroll, "appid or apikey")
	}
	return Credentials{AppID: res.AppID, APIKey: NewAPIKey(res.APIKey)}, nil
}

// missing is the error of a success without a member that the action gives.
func missing(action, member string) error {
	return fmt.Errorf("%s: %w: no %s", action, ErrReply, member)
}
