package primitive

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
)

// hmacPrivate is HMAC-SHA-256, FIPS 198-1, under a key of 32 bytes.
type hmacPrivate struct {
	noEncryption
	key secret.Bytes
}

func openHMAC(material []byte) (operations, error) {
	if len(material) != HMAC.MaterialLen() {
		return nil, ErrMaterial
	}
	return hmacPrivate{key: secret.Copy(material)}, nil
}

// hmacSHA256 is the tag of message under a key of any length.
func hmacSHA256(key, message []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(message)
	return mac.Sum(nil)
}

func (k hmacPrivate) sign(message []byte, mt MessageType, d Digest, _ Padding) ([]byte, error) {
	if mt != MessageRaw || d != SHA256 {
		return nil, fmt.Errorf("HMAC with %s and %s: %w", mt, d, ErrParameter)
	}
	return hmacSHA256(k.key.Expose(), message), nil
}

func (k hmacPrivate) verify(message, signature []byte, mt MessageType, d Digest, p Padding) (bool, error) {
	want, err := k.sign(message, mt, d, p)
	return err == nil && hmac.Equal(signature, want), err
}

func (hmacPrivate) publicPEM() (string, error) {
	return "", fmt.Errorf("public key of HMAC: %w", ErrUsage)
}
