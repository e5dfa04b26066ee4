package ehsm

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/ehsm-kms/ehsm/api"
)

// A PublicKey is the public half of a key.
type PublicKey struct {
	// PEM is the key as the service gives it: "RSA PUBLIC KEY" (PKCS#1) of RSA,
	// "PUBLIC KEY" (SubjectPublicKeyInfo) of EC and SM2.
	PEM string
	// Key is an *rsa.PublicKey or *ecdsa.PublicKey, and nil for api.ECP256K and
	// api.SM2, which the standard library does not have.
	Key crypto.PublicKey
	// Spec is the key's spec, as its public half tells.
	Spec api.KeySpec
}

// PublicKey returns the public half of an RSA, EC or SM2 key. The core vouches for
// it: keep it with what you verify, and you need not ask again.
func (c *Client) PublicKey(ctx context.Context, keyID string) (PublicKey, error) {
	var res api.GetPublicKeyResult
	if err := c.call(ctx, api.GetPublicKey, true, api.KeyRequest{KeyID: keyID}, &res); err != nil {
		return PublicKey{}, err
	}
	if res.KeyID != keyID {
		return PublicKey{}, fmt.Errorf("%s: %w: it is of key %.64q", api.GetPublicKey, ErrReply, res.KeyID)
	}
	key, err := parsePublicKey(res.PubKey)
	if err != nil {
		return PublicKey{}, fmt.Errorf("%s: %w: %w", api.GetPublicKey, ErrReply, err)
	}
	return key, nil
}

// parsePublicKey reads one PEM block and nothing else.
func parsePublicKey(text string) (PublicKey, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil || len(rest) > 0 || len(block.Headers) > 0 || !strings.HasPrefix(text, "-----BEGIN ") {
		return PublicKey{}, errors.New("public key is not one block of PEM")
	}
	switch block.Type {
	case "RSA PUBLIC KEY":
		key, err := x509.ParsePKCS1PublicKey(block.Bytes)
		if err != nil {
			return PublicKey{}, err
		}
		spec, err := rsaSpec(key)
		return PublicKey{PEM: text, Key: key, Spec: spec}, err
	case "PUBLIC KEY":
		return parseSPKI(text, block.Bytes)
	}
	return PublicKey{}, fmt.Errorf("public key is a PEM block %.40q", block.Type)
}

func rsaSpec(key *rsa.PublicKey) (api.KeySpec, error) {
	switch key.N.BitLen() {
	case 2048:
		return api.RSA2048, nil
	case 3072:
		return api.RSA3072, nil
	case 4096:
		return api.RSA4096, nil
	}
	return "", fmt.Errorf("RSA key has %d bits", key.N.BitLen())
}

// parseSPKI reads an EC key. Of a curve that the standard library does not have
// it reads the name only.
func parseSPKI(text string, der []byte) (PublicKey, error) {
	if spec := foreignCurve(der); spec != "" {
		return PublicKey{PEM: text, Spec: spec}, nil
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return PublicKey{}, err
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok {
		return PublicKey{}, fmt.Errorf("public key is %T, want an EC key", parsed)
	}
	spec := map[elliptic.Curve]api.KeySpec{
		elliptic.P224(): api.ECP224, elliptic.P256(): api.ECP256,
		elliptic.P384(): api.ECP384, elliptic.P521(): api.ECP521,
	}[key.Curve]
	return PublicKey{PEM: text, Key: key, Spec: spec}, nil
}

// foreignCurve returns the spec of a key on secp256k1 or the curve of SM2, and ""
// for all else.
func foreignCurve(der []byte) api.KeySpec {
	var spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	var curve asn1.ObjectIdentifier
	if rest, err := asn1.Unmarshal(der, &spki); err != nil || len(rest) > 0 {
		return ""
	}
	if rest, err := asn1.Unmarshal(spki.Algorithm.Parameters.FullBytes, &curve); err != nil || len(rest) > 0 {
		return ""
	}
	switch {
	case !spki.Algorithm.Algorithm.Equal(asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}): // id-ecPublicKey, RFC 5480
	case curve.Equal(asn1.ObjectIdentifier{1, 3, 132, 0, 10}): // secp256k1, SEC 2
		return api.ECP256K
	case curve.Equal(asn1.ObjectIdentifier{1, 2, 156, 10197, 1, 301}): // GB/T 32918.5
		return api.SM2
	}
	return ""
}
