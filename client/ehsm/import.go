package ehsm

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"

	"github.com/ehsm-kms/ehsm/api"
)

// ImportParameters are what a key waits for its material with. They hold for 24
// hours, or until the next ones are asked for.
type ImportParameters struct {
	PublicKey *rsa.PublicKey // encrypts the material
	PEM       string         // the same
	Token     string         // names the session, opaque
}

// ParametersForImport opens an import session for a key of external origin.
// Wrapping is the spec of the key pair that the core makes for it: api.RSA2048,
// RSA3072 or RSA4096, which takes it up to seconds. What was imported before is
// not touched. The parameters are the core's: a reply without its signature is
// refused, or else the material would be encrypted to whoever is on the path.
func (c *Client) ParametersForImport(ctx context.Context, keyID string, wrapping api.KeySpec) (ImportParameters, error) {
	var res api.GetParametersForImportResult
	err := c.call(ctx, api.GetParametersForImport, false, api.GetParametersForImportRequest{KeyID: keyID, KeySpec: wrapping}, &res)
	if err != nil {
		return ImportParameters{}, err
	}
	if res.ImportToken == "" {
		return ImportParameters{}, missing(api.GetParametersForImport, "importToken")
	}
	key, err := parsePublicKey(res.PubKey)
	public, ok := key.Key.(*rsa.PublicKey)
	if err == nil && (!ok || key.Spec != wrapping) {
		err = fmt.Errorf("key pair is of %s, want %s", key.Spec, wrapping)
	}
	if err != nil {
		return ImportParameters{}, fmt.Errorf("%s: %w: %w", api.GetParametersForImport, ErrReply, err)
	}
	return ImportParameters{public, res.PubKey, res.ImportToken}, nil
}

// ImportKeyMaterial brings the material of a key, encrypted with the session's
// public key under api.OAEP (SHA-256 for both hashes, no label) or api.PKCS1. It
// may be called again with the material that the key has; other material is
// refused. ImportKey does all of it.
func (c *Client) ImportKeyMaterial(ctx context.Context, keyID string, wrapped []byte, padding api.PaddingMode, token string) error {
	var res api.ImportKeyMaterialResult
	err := c.call(ctx, api.ImportKeyMaterial, false,
		api.ImportKeyMaterialRequest{KeyID: keyID, PaddingMode: padding, KeyMaterial: wrapped, ImportToken: token}, &res)
	if err == nil && !res.Result {
		err = missing(api.ImportKeyMaterial, "result")
	}
	return err
}

// ImportKey gives a key of external origin its material: 16, 24 or 32 raw bytes,
// as its spec needs. They are encrypted here, under RSA-3072 with OAEP-SHA-256,
// to a key pair that the core made for it and vouches for. The caller zeroes
// material. Nobody can get it out of the service again.
func (c *Client) ImportKey(ctx context.Context, keyID string, material []byte) error {
	switch len(material) {
	case 16, 24, 32:
	default:
		return fmt.Errorf("key material has %d bytes, want 16, 24 or 32", len(material))
	}
	p, err := c.ParametersForImport(ctx, keyID, api.RSA3072)
	if err != nil {
		return err
	}
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, p.PublicKey, material, nil)
	if err != nil {
		return fmt.Errorf("wrap key material: %w", err)
	}
	return c.ImportKeyMaterial(ctx, keyID, wrapped, api.OAEP, p.Token)
}
