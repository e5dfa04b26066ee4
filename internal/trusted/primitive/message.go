package primitive

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"hash"
	"slices"
	"sync"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
)

// Sizes of a symmetric ciphertext, in bytes. Layout: docs/formats.md#ciphertext-v1.
const (
	// HeaderLen is format(1), key id(16), key version(4, big endian), random(24).
	HeaderLen = prefixLen + randomLen
	// CommitmentLen is the length of the key commitment that follows the header.
	CommitmentLen = 32
	// MaxPlaintext and MaxAAD bound one message. They are far above what the
	// APIs admit; the bounds at Symmetric are stated for 6144 bytes of each.
	MaxPlaintext = 1 << 20
	MaxAAD       = 1 << 20
	// MaxOverhead is the most that any spec adds to a plaintext: SM4-CBC with a
	// whole block of padding.
	MaxOverhead = HeaderLen + CommitmentLen + 16 + sm4TagLen
)

const (
	messageV1  = 0x01
	prefixLen  = 1 + 16 + 4
	randomLen  = 24
	nonceLen   = 12 // bytes; 96-bit IV, NIST SP 800-38D section 8.2.2
	gcmTagLen  = 16
	sm4TagLen  = sha256.Size
	maxDerived = CommitmentLen + 16 + 16 + 32 // SM4: commitment, key, IV, MAC key
)

// messageLabel separates the message key from any other use of a version key.
const messageLabel = "ehsm/message/v1\x00"

// Symmetric is one opened version of a symmetric key. It encrypts messages into
// self-describing, authenticated and key-committing ciphertexts:
//
//	format 0x01 | key id | key version | 24 random bytes |     header, 45 bytes
//	commitment, 32 bytes | encrypted plaintext | tag (AES-GCM 16, SM4 32 bytes)
//
// Derivation, all HKDF-SHA-256 (RFC 5869):
//
//	KMsg = HKDF(ikm = version key, salt = none,
//	            info = "ehsm/message/v1\x00" | spec | key id | key version, 32 bytes)
//	commitment | keys = HKDF-Expand(KMsg, info = header)
//
// The keys are the AES key, used once, with the last 12 bytes of the random
// field as nonce; for SM4 see sm4.go. The header is bound by the derivation, so
// the caller's additional data alone is authenticated as such.
//
// The commitment comes first, so that it is exactly T(1) = HMAC(KMsg, header|1):
// two keys, or two headers, with one commitment are a collision of SHA-256. The
// additional data is authenticated but not committed to: whoever holds the
// version key may find a second one that the same ciphertext opens under.
//
// Bounds for one key version and 2^48 messages, each of 6144 bytes with 6144
// bytes of additional data, in the worst case over all specs:
//
//	two messages share the random field     2^95/2^192       = 2^-97
//	derived key and nonce collide (AES-128) 2^95/2^(128+96)  = 2^-129
//	two commitments are equal               2^95/2^256       = 2^-161
//	HMAC-SHA-256 is told from random        (3*2^48)^2/2^257 < 2^-157
//	CTR, CBC told from random, 386 blocks   2^48*386^2/2^128 < 2^-62
//	one forgery attempt on GCM, 769 blocks  769/2^128        < 2^-118
//
// The nonce is random although the key is fresh, because many 128-bit keys with
// one fixed nonce can be searched for together: 2^48 messages would cost 48 of
// the 128 bits. With random nonces a trial encryption tests one message.
type Symmetric struct {
	scheme scheme
	prefix [prefixLen]byte
	// derivers holds *deriver. It also hides them: fmt does not look into a pool.
	derivers sync.Pool
}

// A scheme is what the specs do differently, over keys derived per message.
type scheme struct {
	derived  int // bytes of key after the commitment
	overhead func(plaintext int) int
	// minOverhead is the overhead of the shortest ciphertext.
	minOverhead int
	seal        func(dst []byte, d *deriver, plaintext, aad []byte) ([]byte, error)
	open        func(dst []byte, d *deriver, body, aad []byte) ([]byte, error)
}

func schemeOf(s Spec) (scheme, bool) {
	switch s.family() {
	case familyAES:
		return scheme{
			derived: s.MaterialLen(), minOverhead: HeaderLen + CommitmentLen + gcmTagLen,
			overhead: func(int) int { return HeaderLen + CommitmentLen + gcmTagLen },
			seal: func(dst []byte, d *deriver, plaintext, aad []byte) ([]byte, error) {
				return sealGCM(dst, d.keys(), d.nonce(), plaintext, aad)
			},
			open: func(dst []byte, d *deriver, body, aad []byte) ([]byte, error) {
				return openGCM(dst, d.keys(), d.nonce(), body, aad)
			},
		}, true
	case familySM4:
		if s == SM4CBC {
			return sm4Scheme(sm4CBC), true
		}
		return sm4Scheme(sm4CTR), true
	}
	return scheme{}, false
}

// NewSymmetric opens version of the key keyID. The material is read, not kept:
// the caller may zero it afterwards. It returns ErrUsage if spec is not
// symmetric and ErrMaterial if the material has not spec.MaterialLen bytes.
func NewSymmetric(spec Spec, material secret.Bytes, keyID [16]byte, version uint32) (*Symmetric, error) {
	sch, ok := schemeOf(spec)
	if !ok {
		return nil, fmt.Errorf("open symmetric key as %s: %w", spec, ErrUsage)
	}
	if material.Len() != spec.MaterialLen() {
		return nil, fmt.Errorf("open %s: got %d bytes, want %d: %w", spec, material.Len(), spec.MaterialLen(), ErrMaterial)
	}
	s := &Symmetric{scheme: sch}
	s.prefix[0] = messageV1
	copy(s.prefix[1:], keyID[:])
	binary.BigEndian.PutUint32(s.prefix[17:], version)

	info := messageLabel + string([]byte{byte(spec)}) + string(s.prefix[1:])
	key, err := hkdf.Key(sha256.New, material.Expose(), nil, info, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("derive message key: %w", err)
	}
	kmsg := secret.New(key)
	s.derivers.New = func() any {
		return &deriver{mac: hmac.New(sha256.New, kmsg.Expose()), derived: CommitmentLen + sch.derived}
	}
	return s, nil
}

// CiphertextLen is the length in bytes of the ciphertext of a plaintext of n bytes.
func (s *Symmetric) CiphertextLen(n int) int { return n + s.scheme.overhead(n) }

// Encrypt appends the ciphertext of plaintext to dst and returns the result.
// aad may be empty; Decrypt needs the same. The spare capacity of dst must not
// overlap plaintext. It returns ErrParameter above MaxPlaintext or MaxAAD.
func (s *Symmetric) Encrypt(dst, plaintext, aad []byte) ([]byte, error) {
	if len(plaintext) > MaxPlaintext || len(aad) > MaxAAD {
		return nil, fmt.Errorf("encrypt %d bytes with %d of additional data: %w", len(plaintext), len(aad), ErrParameter)
	}
	d := s.derivers.Get().(*deriver)
	defer s.put(d)
	copy(d.header(), s.prefix[:])
	rand.Read(d.header()[prefixLen:])
	return s.seal(dst, d, plaintext, aad)
}

// seal encrypts under the header already in d.
func (s *Symmetric) seal(dst []byte, d *deriver, plaintext, aad []byte) ([]byte, error) {
	d.derive()
	dst = slices.Grow(dst, s.CiphertextLen(len(plaintext)))
	dst = append(dst, d.header()...)
	dst = append(dst, d.commitment()...)
	out, err := s.scheme.seal(dst, d, plaintext, aad)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return out, nil
}

// Decrypt appends the plaintext of ciphertext to dst and returns the result.
// The spare capacity of dst must not overlap ciphertext. Every failure is
// ErrDecrypt, found after the work of a failed tag whatever its cause, and
// returns no bytes; the spare capacity of dst is then unspecified.
func (s *Symmetric) Decrypt(dst, ciphertext, aad []byte) ([]byte, error) {
	if len(ciphertext) > s.CiphertextLen(MaxPlaintext) || len(aad) > MaxAAD {
		return nil, ErrDecrypt
	}
	good := 1
	if len(ciphertext) < s.scheme.minOverhead {
		ciphertext, good = make([]byte, s.scheme.minOverhead), 0
	}
	d := s.derivers.Get().(*deriver)
	defer s.put(d)
	copy(d.header(), ciphertext)
	d.derive()
	good &= subtle.ConstantTimeCompare(d.header()[:prefixLen], s.prefix[:])
	good &= subtle.ConstantTimeCompare(d.commitment(), ciphertext[HeaderLen:HeaderLen+CommitmentLen])
	d.spoilUnless(good)
	out, err := s.scheme.open(dst, d, ciphertext[HeaderLen+CommitmentLen:], aad)
	if err != nil || good != 1 {
		return nil, ErrDecrypt
	}
	return out, nil
}

func (s *Symmetric) put(d *deriver) {
	clear(d.okm[:])
	s.derivers.Put(d)
}

// PeekVersion reads the key id and key version that a ciphertext names. Nothing
// is authenticated: they say only which key to try. ok is false if the
// ciphertext is of no known format or shorter than any ciphertext.
func PeekVersion(ciphertext []byte) (keyID [16]byte, version uint32, ok bool) {
	if len(ciphertext) < HeaderLen+CommitmentLen+gcmTagLen {
		return keyID, 0, false
	}
	return PeekHeader(ciphertext)
}

// PeekHeader is PeekVersion for the beginning of a ciphertext, 21 bytes or more.
func PeekHeader(ciphertext []byte) (keyID [16]byte, version uint32, ok bool) {
	if len(ciphertext) < prefixLen || ciphertext[0] != messageV1 {
		return keyID, 0, false
	}
	return [16]byte(ciphertext[1:17]), binary.BigEndian.Uint32(ciphertext[17:prefixLen]), true
}

// A deriver expands KMsg over a header. It keeps the keyed state of HMAC, which
// makes a derivation about three times as fast as hkdf.Expand.
type deriver struct {
	mac     hash.Hash
	derived int                 // bytes of okm in use
	info    [HeaderLen + 1]byte // header, then the counter of HKDF-Expand
	okm     [maxDerived]byte    // whole blocks of HMAC output
}

func (d *deriver) header() []byte     { return d.info[:HeaderLen] }
func (d *deriver) commitment() []byte { return d.okm[:CommitmentLen] }
func (d *deriver) keys() []byte       { return d.okm[CommitmentLen:d.derived] }
func (d *deriver) nonce() []byte      { return d.info[HeaderLen-nonceLen : HeaderLen] }

// derive is HKDF-Expand (RFC 5869 section 2.3) with the header as info.
func (d *deriver) derive() {
	for n := 0; n < d.derived; n += sha256.Size {
		d.info[HeaderLen] = byte(n/sha256.Size + 1)
		d.mac.Reset()
		if n > 0 {
			d.mac.Write(d.okm[n-sha256.Size : n])
		}
		d.mac.Write(d.info[:])
		d.mac.Sum(d.okm[n:n])
	}
}

// spoilUnless inverts the derived keys if good is not 1. The tag then fails, so
// a wrong commitment costs the time of a wrong tag and yields no plaintext.
func (d *deriver) spoilUnless(good int) {
	keys := d.keys()
	for i := range keys {
		keys[i] ^= byte(good - 1)
	}
}
