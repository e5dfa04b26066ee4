package session

import (
	"crypto/hpke"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
)

const (
	sealFormat = 1
	maxSealed  = 64 << 10 // bytes of plaintext
	maxLabel   = 64       // bytes

	encapsulated = 1120 // bytes of MLKEM768-X25519
	tagSize      = 16
)

// Overhead is by how many bytes what Seal returns is longer than the plaintext.
const Overhead = 1 + encapsulated + tagSize

// Seal encrypts key material of 1 byte to 64 KiB to the peer's attested HPKE key.
// Only the peer's end of this channel opens it, and only for the same label, of 1
// to 64 bytes, which says what it is; it does not keep the peer from opening it
// twice. Whoever breaks the TLS connection alone has nothing. Errors: ErrTooLong,
// and those of an ended channel. Layout: docs/channel.md#sealed-message.
func (c *Conn) Seal(label string, plaintext secret.Bytes) ([]byte, error) {
	if n := plaintext.Len(); n == 0 || n > maxSealed || label == "" || len(label) > maxLabel {
		return nil, fmt.Errorf("%w: sealing %d bytes with a label of %d", ErrTooLong, n, len(label))
	}
	if err := c.usable(); err != nil {
		return nil, err
	}
	info, err := c.sealInfo(c.side.other(), label)
	if err != nil {
		return nil, err
	}
	key, err := hpke.MLKEM768X25519().NewPublicKey(c.Peer().HPKEKey)
	if err != nil {
		return nil, fmt.Errorf("HPKE key of the peer: %w", err)
	}
	sealed, err := hpke.Seal(key, hpke.HKDFSHA256(), hpke.AES256GCM(), info, plaintext.Expose())
	if err != nil {
		return nil, fmt.Errorf("seal to the peer: %w", err)
	}
	return append([]byte{sealFormat}, sealed...), nil
}

// Open decrypts what the peer has sealed on this channel with the label. Errors:
// ErrOpen, for every cause, and those of an ended channel.
func (c *Conn) Open(label string, sealed []byte) (secret.Bytes, error) {
	if err := c.usable(); err != nil {
		return secret.Bytes{}, err
	}
	if len(sealed) <= Overhead || len(sealed) > Overhead+maxSealed || sealed[0] != sealFormat { // check: sealed-format
		return secret.Bytes{}, ErrOpen
	}
	info, err := c.sealInfo(c.side, label)
	if err != nil {
		return secret.Bytes{}, err
	}
	plaintext, err := hpke.Open(c.key, hpke.HKDFSHA256(), hpke.AES256GCM(), info, sealed[1:])
	if err != nil {
		return secret.Bytes{}, ErrOpen
	}
	return secret.New(plaintext), nil
}

func (c *Conn) sealInfo(to Side, text string) ([]byte, error) {
	exporter, err := c.st.export(label(c.method.Kind(), forSeal, to, ""), c.full[:])
	defer clear(exporter[:])
	return sealInfo(c.cfg.Domain, to, exporter, text), err
}
