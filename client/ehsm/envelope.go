package ehsm

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Errors of reading an envelope. An error of the service, such as a disabled
// key, and one of the source are returned as they are.
var (
	// ErrEnvelopeFormat says that the header is none of a known version.
	ErrEnvelopeFormat = errors.New("not an envelope of a known version")

	// ErrEnvelope says that the content is damaged, cut, extended or reordered,
	// or that the additional data or the key are others. What was read before is
	// genuine, but incomplete.
	ErrEnvelope = errors.New("envelope does not authenticate")

	// ErrEnvelopeKey says that the envelope is for another key than asked for.
	ErrEnvelopeKey = errors.New("envelope is for another key")
)

// An Envelope encrypts streams of any size, also empty ones, under a data key of
// their own, which the service wraps with a symmetric key of the tenant. Only
// the data key travels; the content does not leave this process unencrypted. It
// is safe for concurrent use.
//
// # Format
//
// An envelope is a header and chunks. Integers are big endian.
//
//	offset  size
//	0       1     format and version: 0xE1
//	1       7     "ehsmenv"
//	8       1     binary logarithm of the chunk size: 16, so 65536 bytes
//	9       32    salt, random for each envelope
//	41      36    key id, a lower-case UUID in text
//	77      2     n, length of the wrapped data key, 1 to 1024
//	79      n     wrapped data key, a ciphertext of GenerateDataKey
//	79+n    32    header MAC
//
// The data key has 32 bytes. It is wrapped with the additional data
//
//	SHA-256("ehsm-envelope/v1 wrap\x00" | aad)
//
// so that a wrapped data key opens neither as a message of its own nor for other
// additional data, which here may have any length. From the data key, HKDF-SHA-256
// with the salt and the infos "ehsm-envelope/v1 header" and
// "ehsm-envelope/v1 chunks" derives two keys of 32 bytes:
//
//	header MAC = HMAC-SHA-256(header key, bytes 0 to 79+n of the header | aad)
//	chunk      = AES-256-GCM(chunk key, nonce, plaintext, additional data = header MAC)
//	nonce      = number of the chunk from 0 (11 bytes) | 1 if it is the last, else 0
//
// A chunk is 65536 bytes of plaintext, the last one 1 to 65536, and a tag of 16
// bytes; an empty plaintext is one chunk with nothing but its tag. This is the
// STREAM construction: a chunk opens only at its place, in its envelope, and only
// the last one as the last, so that chunks which were cut off, appended, moved or
// exchanged do not open. The header MAC is the same for one data key only, so an
// envelope commits to its key even where the wrapping does not. It covers the
// additional data also under the SM4 specs, which ignore it in the wrapping.
//
// An envelope has at most 2^32 chunks (256 TiB).
type Envelope struct {
	keys  dataKeys
	keyID string
	aad   []byte
}

// dataKeys is the part of a Client that an Envelope needs.
type dataKeys interface {
	GenerateDataKey(ctx context.Context, keyID string, n int, aad []byte) (plaintext, ciphertext []byte, err error)
	Decrypt(ctx context.Context, keyID string, ciphertext, aad []byte) (plaintext []byte, err error)
}

// Envelope returns an Envelope for a symmetric key. Aad, of any length, is
// authenticated and must be given again for reading; it is not copied. With an
// empty keyID the result only reads, whatever key of the tenant is used.
func (c *Client) Envelope(keyID string, aad []byte) *Envelope {
	return &Envelope{keys: c, keyID: keyID, aad: aad}
}

// EnvelopePrefixLen is how many bytes IsEnvelope looks at.
const EnvelopePrefixLen = len(envelopeMagic)

// IsEnvelope reports whether data begins as an envelope of this version does.
// No text does, and no base64.
func IsEnvelope(data []byte) bool { return bytes.HasPrefix(data, []byte(envelopeMagic)) }

// EnvelopeKeyID returns the id of the key that an envelope names in its first
// bytes, false if they are of no envelope or too few. Nothing is authenticated.
func EnvelopeKeyID(data []byte) (keyID string, ok bool) {
	const start = len(envelopeMagic) + 1 + saltSize
	if !IsEnvelope(data) || len(data) < start+keyIDSize {
		return "", false
	}
	keyID = string(data[start : start+keyIDSize])
	if !isKeyID(keyID) {
		return "", false
	}
	return keyID, true
}

const (
	envelopeMagic = "\xE1ehsmenv"
	chunkLog      = 16
	chunkSize     = 1 << chunkLog
	tagSize       = 16
	saltSize      = 32
	keyIDSize     = 36
	fixedSize     = len(envelopeMagic) + 1 + saltSize + keyIDSize + 2
	maxWrapped    = 1024
	dataKeySize   = 32

	wrapLabel   = "ehsm-envelope/v1 wrap\x00"
	headerLabel = "ehsm-envelope/v1 header"
	chunksLabel = "ehsm-envelope/v1 chunks"
)

// A header is what stands before the chunks, without its MAC.
type header struct {
	salt    [saltSize]byte
	keyID   string
	wrapped []byte
}

func (h *header) append(dst []byte) []byte {
	dst = append(dst, envelopeMagic...)
	dst = append(dst, chunkLog)
	dst = append(dst, h.salt[:]...)
	dst = append(dst, h.keyID...)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(h.wrapped)))
	return append(dst, h.wrapped...)
}

// readHeader reads a header and its MAC. The error wraps ErrEnvelopeFormat for
// what is no header, also a cut one.
func readHeader(src io.Reader) (h header, mac [sha256.Size]byte, err error) {
	var b [fixedSize]byte
	if err = readExactly(src, b[:]); err != nil {
		return h, mac, err
	}
	rest, ok := bytes.CutPrefix(b[:], []byte(envelopeMagic))
	if !ok || rest[0] != chunkLog {
		return h, mac, ErrEnvelopeFormat
	}
	rest = rest[1:]
	rest = rest[copy(h.salt[:], rest):]
	h.keyID = string(rest[:keyIDSize])
	n := int(binary.BigEndian.Uint16(rest[keyIDSize:]))
	if !isKeyID(h.keyID) || n == 0 || n > maxWrapped {
		return h, mac, ErrEnvelopeFormat
	}
	h.wrapped = make([]byte, n)
	if err = readExactly(src, h.wrapped); err != nil {
		return h, mac, err
	}
	return h, mac, readExactly(src, mac[:])
}

// readExactly fills b; the end of src is an error of the format.
func readExactly(src io.Reader, b []byte) error {
	_, err := io.ReadFull(src, b)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: it ends in the header", ErrEnvelopeFormat)
	case err != nil:
		return fmt.Errorf("read envelope: %w", err)
	}
	return nil
}

// isKeyID reports whether id has the form of a key id: 8-4-4-4-12 lower-case
// letters and digits.
func isKeyID(id string) bool {
	if len(id) != keyIDSize {
		return false
	}
	for i, c := range []byte(id) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z'
		if dash && c != '-' || !dash && !alnum {
			return false
		}
	}
	return true
}

// wrapAAD is what binds the wrapped data key to this format and to aad.
func wrapAAD(aad []byte) []byte {
	h := sha256.New()
	h.Write([]byte(wrapLabel))
	h.Write(aad)
	return h.Sum(nil)
}

// derive returns the MAC of a header and the cipher of its chunks, and zeroes
// the data key. The runtime may keep other copies of it.
func (h *header) derive(dataKey, aad []byte) (mac [sha256.Size]byte, chunks cipher.AEAD, err error) {
	defer clear(dataKey)
	headerKey, err := hkdf.Key(sha256.New, dataKey, h.salt[:], headerLabel, sha256.Size)
	if err != nil {
		return mac, nil, fmt.Errorf("derive header key: %w", err)
	}
	defer clear(headerKey)
	m := hmac.New(sha256.New, headerKey)
	m.Write(h.append(nil))
	m.Write(aad)
	m.Sum(mac[:0])

	chunkKey, err := hkdf.Key(sha256.New, dataKey, h.salt[:], chunksLabel, dataKeySize)
	if err != nil {
		return mac, nil, fmt.Errorf("derive chunk key: %w", err)
	}
	defer clear(chunkKey)
	block, err := aes.NewCipher(chunkKey)
	if err != nil {
		return mac, nil, fmt.Errorf("make chunk cipher: %w", err)
	}
	chunks, err = cipher.NewGCM(block)
	return mac, chunks, err
}

// Encrypt asks the service for a data key, writes the header to dst and returns
// a writer of the content. Close writes the last chunk; without it the envelope
// is incomplete and does not open. Close does not close dst. The writer is for
// one goroutine.
func (e *Envelope) Encrypt(ctx context.Context, dst io.Writer) (io.WriteCloser, error) {
	if !isKeyID(e.keyID) {
		return nil, fmt.Errorf("key id is %q, want a lower-case UUID", e.keyID)
	}
	dataKey, wrapped, err := e.keys.GenerateDataKey(ctx, e.keyID, dataKeySize, wrapAAD(e.aad))
	if err != nil {
		return nil, err
	}
	defer clear(dataKey)
	if len(wrapped) == 0 || len(wrapped) > maxWrapped {
		return nil, fmt.Errorf("wrapped data key has %d bytes, want 1 to %d", len(wrapped), maxWrapped)
	}
	h := header{keyID: e.keyID, wrapped: wrapped}
	rand.Read(h.salt[:])
	mac, aead, err := h.derive(dataKey, e.aad)
	if err != nil {
		return nil, err
	}
	if _, err := dst.Write(append(h.append(nil), mac[:]...)); err != nil {
		return nil, fmt.Errorf("write envelope: %w", err)
	}
	return newChunkWriter(dst, aead, mac), nil
}

// Decrypt reads the header from src, has the service open the data key and
// returns a reader of the content. The reader releases a chunk only after it has
// authenticated; but only io.EOF says that the content is complete, so do not act
// on what was read before it. It may read src ahead, and must reach its end. The
// reader is for one goroutine.
func (e *Envelope) Decrypt(ctx context.Context, src io.Reader) (io.Reader, error) {
	h, want, err := readHeader(src)
	if err != nil {
		return nil, err
	}
	if e.keyID != "" && h.keyID != e.keyID {
		return nil, fmt.Errorf("%w: %s", ErrEnvelopeKey, h.keyID)
	}
	dataKey, err := e.keys.Decrypt(ctx, h.keyID, h.wrapped, wrapAAD(e.aad))
	if err != nil {
		return nil, err
	}
	defer clear(dataKey)
	if len(dataKey) != dataKeySize {
		return nil, ErrEnvelope
	}
	mac, aead, err := h.derive(dataKey, e.aad)
	if err != nil {
		return nil, err
	}
	if !hmac.Equal(mac[:], want[:]) {
		return nil, ErrEnvelope
	}
	return newChunkReader(src, aead, mac), nil
}
