// Package sealed is the form of sealed requests and of the replies to them: signed
// requests of the native API, encrypted to a core instance, so that the manager
// between client and core sees who calls which action on which record, and sizes,
// but nothing else. Layout: docs/formats.md#sealed-request-v1.
//
// A client encapsulates a shared secret to the instance's attested HPKE key (RFC
// 9180 base mode, MLKEM768-X25519, HKDF-SHA-256, export only, with Info) and
// exports it with ExportLabel. Each request then has a key of its own, derived from
// that secret and a random nonce, and so has each reply. The encapsulated key comes
// with every request, so that the core need remember nothing.
//
// The package has no HPKE in it and decides nothing. Who makes the secret has to
// have verified whose key it is.
package sealed

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// Sizes in bytes.
const (
	PublicKeySize    = 1216 // of MLKEM768-X25519
	EncapsulatedSize = 1120
	SecretSize       = 32
	NonceSize        = 32

	formatV1  = 1
	tagSize   = 16
	firstSize = 512      // least size of a padded text
	stepSize  = 64 << 10 // padded texts of more are multiples of it
)

// Labels. Those with a version are never given another meaning.
const (
	// ExportLabel is the exporter context of the shared secret, SecretSize bytes.
	ExportLabel = "ehsm/sealed-secret/v1\x00"

	infoLabel    = "ehsm/sealed/v1\x00"
	keyLabel     = "ehsm/sealed-key/v1\x00"
	outerLabel   = "ehsm/sealed-outer/v1\x00"
	requestLabel = "ehsm/sealed-request/v1\x00"
	replyLabel   = "ehsm/sealed-reply/v1\x00"
)

// ErrOpen says that a message does not open: it is none, was changed, or belongs to
// another key, request or outer part. It is the same for every cause.
var ErrOpen = errors.New("sealed message does not open")

// Info is the info of the HPKE context: an instance's key serves one domain.
func Info(domain [32]byte) []byte { return append([]byte(infoLabel), domain[:]...) }

// KeyID names an HPKE public key: 32 hex digits of a hash of it.
func KeyID(publicKey []byte) string {
	h := sha256.New()
	h.Write([]byte(keyLabel))
	h.Write(publicKey)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// A Secret is what client and core share. It formats as "secret" under every verb.
// The zero value seals and opens nothing.
type Secret struct {
	get func() *[SecretSize]byte // a func, because fmt prints what fields point to
}

// NewSecret copies the exported bytes.
func NewSecret(exported [SecretSize]byte) Secret {
	return Secret{func() *[SecretSize]byte { return &exported }}
}

// Format implements fmt.Formatter.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, "secret") }

// Zero overwrites the secret, for all copies of s.
func (s Secret) Zero() {
	if s.get != nil {
		clear(s.get()[:])
	}
}

// aead returns the cipher of one message. Its key is used once, so that the nonce of
// the cipher itself can be zero.
func (s Secret) aead(label string, salt []byte) (cipher.AEAD, error) {
	if s.get == nil {
		return nil, ErrOpen
	}
	key, err := hkdf.Key(sha256.New, s.get()[:], salt, label, 32)
	if err != nil {
		return nil, fmt.Errorf("derive key of a sealed message: %w", err)
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("key of a sealed message: %w", err)
	}
	return cipher.NewGCM(block)
}

var zeroNonce [12]byte // of AES-GCM; constant

// SealRequest encrypts a signed request for the instance to whose key encapsulated
// belongs. Each nonce must be used once: draw it. The length is hidden in steps, see
// Padded.
func (s Secret) SealRequest(encapsulated *[EncapsulatedSize]byte, nonce [NonceSize]byte, o *Outer, request []byte) ([]byte, error) {
	aead, err := s.aead(requestLabel, nonce[:])
	if err != nil {
		return nil, err
	}
	text := pad(request)
	defer clear(text)
	message := make([]byte, 0, 1+EncapsulatedSize+NonceSize+len(text)+tagSize)
	message = append(append(append(message, formatV1), encapsulated[:]...), nonce[:]...)
	return aead.Seal(message, zeroNonce[:], text, o.bound()), nil
}

// Encapsulated returns the encapsulated key of a request, nil if it is too short or
// of another format. It shares the memory of message.
func Encapsulated(message []byte) []byte {
	if len(message) < 1+EncapsulatedSize+NonceSize+firstSize+tagSize || message[0] != formatV1 {
		return nil
	}
	return message[1 : 1+EncapsulatedSize]
}

// OpenRequest decrypts a request. The outer part must be the one that it was sealed
// with. Errors: ErrOpen.
func (s Secret) OpenRequest(message []byte, o *Outer) ([]byte, error) {
	if Encapsulated(message) == nil {
		return nil, ErrOpen
	}
	rest := message[1+EncapsulatedSize:]
	aead, err := s.aead(requestLabel, rest[:NonceSize])
	if err != nil {
		return nil, err
	}
	text, err := aead.Open(nil, zeroNonce[:], rest[NonceSize:], o.bound())
	if err != nil {
		return nil, ErrOpen
	}
	return unpad(text)
}

// A Reply is what the core answers to the request inside.
type Reply struct {
	Sign string // value of the reply signature header, up to 255 bytes; "" if there is none
	Body []byte // the envelope
}

// SealReply encrypts the reply to a sealed request, of which request is the message.
// Nonces as of SealRequest, which also keeps apart the replies to a request that was
// sent twice.
func (s Secret) SealReply(request []byte, nonce [NonceSize]byte, r Reply) ([]byte, error) {
	if len(r.Sign) > 255 {
		return nil, fmt.Errorf("reply signature of %d bytes, want at most 255", len(r.Sign))
	}
	aead, err := s.aead(replyLabel, replySalt(nonce[:], request))
	if err != nil {
		return nil, err
	}
	content := make([]byte, 0, 1+len(r.Sign)+len(r.Body))
	content = append(append(append(content, byte(len(r.Sign))), r.Sign...), r.Body...)
	text := pad(content)
	clear(content)
	defer clear(text)
	message := make([]byte, 0, 1+NonceSize+len(text)+tagSize)
	message = append(append(message, formatV1), nonce[:]...)
	return aead.Seal(message, zeroNonce[:], text, nil), nil
}

// OpenReply decrypts the reply to the request with this message. Errors: ErrOpen.
func (s Secret) OpenReply(request, message []byte) (Reply, error) {
	if len(message) < 1+NonceSize+tagSize || message[0] != formatV1 {
		return Reply{}, ErrOpen
	}
	nonce, rest := message[1:1+NonceSize], message[1+NonceSize:]
	aead, err := s.aead(replyLabel, replySalt(nonce, request))
	if err != nil {
		return Reply{}, err
	}
	text, err := aead.Open(nil, zeroNonce[:], rest, nil)
	if err != nil {
		return Reply{}, ErrOpen
	}
	content, err := unpad(text)
	if err != nil || len(content) == 0 || len(content) < 1+int(content[0]) {
		return Reply{}, ErrOpen
	}
	n := 1 + int(content[0])
	return Reply{Sign: string(content[1:n]), Body: content[n:]}, nil
}

// replySalt binds a reply to the whole request.
func replySalt(nonce, request []byte) []byte {
	sum := sha256.Sum256(request)
	return append(append(make([]byte, 0, 2*32), nonce...), sum[:]...)
}

// Padded is the length in which a text of n bytes is encrypted, its own length
// included: a power of two of at least 512, and from 64 KiB on a multiple of that.
func Padded(n int) int {
	n += 4
	if n > stepSize {
		return (n + stepSize - 1) / stepSize * stepSize
	}
	size := firstSize
	for size < n {
		size *= 2
	}
	return size
}

// pad returns length (4) | text | zeros.
func pad(text []byte) []byte {
	padded := make([]byte, Padded(len(text)))
	binary.BigEndian.PutUint32(padded, uint32(len(text)))
	copy(padded[4:], text)
	return padded
}

// unpad accepts only what pad makes, so that a text has one encoding.
func unpad(padded []byte) ([]byte, error) {
	if len(padded) < firstSize {
		return nil, ErrOpen
	}
	n := binary.BigEndian.Uint32(padded)
	if uint64(n) > uint64(len(padded)-4) || Padded(int(n)) != len(padded) {
		return nil, ErrOpen
	}
	for _, b := range padded[4+n:] {
		if b != 0 {
			return nil, ErrOpen
		}
	}
	return padded[4 : 4+n : 4+n], nil
}
