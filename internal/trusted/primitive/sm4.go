package primitive

import (
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/emmansun/gmsm/sm4"
)

// The keys derived for one SM4 message, after the commitment:
//
//	SM4 key(16) | initial counter or IV(16) | MAC key(32)
//
// The body is the SM4 ciphertext and a tag of 32 bytes,
//
//	HMAC-SHA-256(MAC key, len(aad) as 8 bytes big endian | aad | header | commitment | ciphertext)
//
// which is checked before anything is decrypted. The native API has SM4 ignore
// additional data: that is the caller's to do, by passing none.
const (
	sm4KeyEnd   = 16
	sm4IVEnd    = sm4KeyEnd + sm4.BlockSize
	sm4KeysLen  = sm4IVEnd + sha256.Size
	sm4Overhead = HeaderLen + CommitmentLen + sm4TagLen
)

// errBody is seen by Decrypt only, which turns it into ErrDecrypt.
var errBody = errors.New("body does not open")

// An sm4Mode is CTR or CBC over a whole message.
type sm4Mode struct {
	padded  func(n int) int // ciphertext length of n bytes
	encrypt func(dst []byte, block cipher.Block, iv, plaintext []byte) []byte
	decrypt func(dst []byte, block cipher.Block, iv, ciphertext []byte) ([]byte, error)
}

var (
	sm4CTR = sm4Mode{
		padded: func(n int) int { return n },
		encrypt: func(dst []byte, block cipher.Block, iv, plaintext []byte) []byte {
			return xorCTR(dst, block, iv, plaintext)
		},
		decrypt: func(dst []byte, block cipher.Block, iv, ciphertext []byte) ([]byte, error) {
			return xorCTR(dst, block, iv, ciphertext), nil
		},
	}
	sm4CBC = sm4Mode{
		padded:  paddedCBC,
		encrypt: encryptCBC,
		decrypt: decryptCBC,
	}
)

func sm4Scheme(m sm4Mode) scheme {
	return scheme{
		derived:     sm4KeysLen,
		minOverhead: sm4Overhead + m.padded(0),
		overhead:    func(n int) int { return sm4Overhead + m.padded(n) - n },
		seal:        m.seal,
		open:        m.open,
	}
}

func (m sm4Mode) seal(dst []byte, d *deriver, plaintext, aad []byte) ([]byte, error) {
	keys, start := d.keys(), len(dst)
	block, err := sm4.NewCipher(keys[:sm4KeyEnd])
	if err != nil {
		return nil, err
	}
	dst = m.encrypt(dst, block, keys[sm4KeyEnd:sm4IVEnd], plaintext)
	return sm4Tag(dst, d, dst[start:], aad), nil
}

func (m sm4Mode) open(dst []byte, d *deriver, body, aad []byte) ([]byte, error) {
	keys := d.keys()
	ciphertext, tag := body[:len(body)-sm4TagLen], body[len(body)-sm4TagLen:]
	if !hmac.Equal(tag, sm4Tag(nil, d, ciphertext, aad)) {
		return nil, errBody
	}
	block, err := sm4.NewCipher(keys[:sm4KeyEnd])
	if err != nil {
		return nil, err
	}
	return m.decrypt(dst, block, keys[sm4KeyEnd:sm4IVEnd], ciphertext)
}

// sm4Tag appends the tag of a body to dst.
func sm4Tag(dst []byte, d *deriver, ciphertext, aad []byte) []byte {
	mac := hmac.New(sha256.New, d.keys()[sm4IVEnd:])
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(len(aad))))
	mac.Write(aad)
	mac.Write(d.header())
	mac.Write(d.commitment())
	mac.Write(ciphertext)
	return mac.Sum(dst)
}

// grow extends dst by n bytes and returns them apart too.
func grow(dst []byte, n int) (all, tail []byte) {
	all = slices.Grow(dst, n)[:len(dst)+n]
	return all, all[len(dst):]
}

func xorCTR(dst []byte, block cipher.Block, iv, src []byte) []byte {
	dst, out := grow(dst, len(src))
	cipher.NewCTR(block, iv).XORKeyStream(out, src)
	return dst
}

func paddedCBC(n int) int { return n + sm4.BlockSize - n%sm4.BlockSize }

// encryptCBC pads as PKCS#7 (RFC 5652 section 6.3): n bytes of value n, 1..16.
func encryptCBC(dst []byte, block cipher.Block, iv, plaintext []byte) []byte {
	dst, out := grow(dst, paddedCBC(len(plaintext)))
	pad := out[copy(out, plaintext):]
	for i := range pad {
		pad[i] = byte(len(pad))
	}
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(out, out)
	return dst
}

// decryptCBC may look at the padding as it likes: the tag has been checked, so
// only a holder of the key can have made it wrong.
func decryptCBC(dst []byte, block cipher.Block, iv, ciphertext []byte) ([]byte, error) {
	if len(ciphertext) == 0 || len(ciphertext)%sm4.BlockSize != 0 {
		return nil, errBody
	}
	start := len(dst)
	dst, out := grow(dst, len(ciphertext))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(out, ciphertext)
	n := int(out[len(out)-1])
	if n < 1 || n > sm4.BlockSize {
		return nil, errBody
	}
	for _, b := range out[len(out)-n:] {
		if int(b) != n {
			return nil, errBody
		}
	}
	return dst[:start+len(out)-n], nil
}
