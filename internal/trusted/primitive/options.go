package primitive

import (
	"crypto"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"

	"github.com/emmansun/gmsm/sm3"
)

// MessageType says what a caller passes as the message to sign or verify. The
// zero value is invalid.
type MessageType uint8

// The message types of the native API.
const (
	_              MessageType = iota
	MessageRaw                 // EH_RAW: the message itself
	MessageDigest              // EH_DIGEST: its digest; for SM2 a message all the same
	endMessageType             // not a message type
)

// Digest is a hash function. The zero value is invalid.
type Digest uint8

// The digests of the native API.
const (
	_ Digest = iota
	SHA224
	SHA256
	SHA384
	SHA512
	SM3
	endDigest // not a digest
)

// Padding is an RSA padding; the other families ignore it. The zero value is
// invalid and means that a request named none.
type Padding uint8

// The paddings of the native API.
const (
	_            Padding = iota
	PaddingNone          // EH_PAD_NONE: for keys that have no padding
	PaddingPKCS1         // RSAES or RSASSA-PKCS1-v1_5, RFC 8017
	PaddingPSS           // RSASSA-PSS: salt as long as the digest, MGF1 with the same digest
	PaddingOAEP          // RSAES-OAEP: SHA-256, MGF1 with SHA-256, empty label
	endPadding           // not a padding
)

var messageTypeNames = [endMessageType]string{MessageRaw: "EH_RAW", MessageDigest: "EH_DIGEST"}

var digestNames = [endDigest]string{
	SHA224: "EH_SHA_224", SHA256: "EH_SHA_256", SHA384: "EH_SHA_384", SHA512: "EH_SHA_512", SM3: "EH_SM3",
}

var paddingNames = [endPadding]string{
	PaddingNone: "EH_PAD_NONE", PaddingPKCS1: "EH_RSA_PKCS1", PaddingPSS: "EH_RSA_PKCS1_PSS", PaddingOAEP: "EH_RSA_PKCS1_OAEP",
}

// documentedPaddings are the spellings that only the documentation ever used.
var documentedPaddings = [endPadding]string{
	PaddingPKCS1: "EH_PAD_RSA_PKCS1", PaddingPSS: "EH_PAD_RSA_PKCS1_PSS", PaddingOAEP: "EH_PAD_RSA_PKCS1_OAEP",
}

// index is the place of name in names, or 0, which is invalid in every enum.
func index(names []string, name string) int {
	for i, n := range names {
		if n == name && n != "" {
			return i
		}
	}
	return 0
}

// nameOf is the name of i, or kind(i) for what has none.
func nameOf(names []string, kind string, i uint8) string {
	if int(i) < len(names) && names[i] != "" {
		return names[i]
	}
	return fmt.Sprintf("%s(%d)", kind, i)
}

// ParseMessageType finds a message type by its native name, case-sensitive.
func ParseMessageType(name string) (MessageType, bool) {
	m := MessageType(index(messageTypeNames[:], name))
	return m, m != 0
}

// String is the native name, or "MessageType(n)".
func (m MessageType) String() string { return nameOf(messageTypeNames[:], "MessageType", uint8(m)) }

// ParseDigest finds a digest by its native name, case-sensitive.
func ParseDigest(name string) (Digest, bool) {
	d := Digest(index(digestNames[:], name))
	return d, d != 0
}

// String is the native name, or "Digest(n)".
func (d Digest) String() string { return nameOf(digestNames[:], "Digest", uint8(d)) }

// Size is the length of the digest in bytes, 0 for an invalid one.
func (d Digest) Size() int {
	switch d {
	case SHA224:
		return sha256.Size224
	case SHA256:
		return sha256.Size
	case SHA384:
		return sha512.Size384
	case SHA512:
		return sha512.Size
	case SM3:
		return sm3.Size
	}
	return 0
}

// Sum is the digest of message, nil for an invalid digest.
func (d Digest) Sum(message []byte) []byte {
	switch d {
	case SHA224:
		sum := sha256.Sum224(message)
		return sum[:]
	case SHA256:
		sum := sha256.Sum256(message)
		return sum[:]
	case SHA384:
		sum := sha512.Sum384(message)
		return sum[:]
	case SHA512:
		sum := sha512.Sum512(message)
		return sum[:]
	case SM3:
		sum := sm3.Sum(message)
		return sum[:]
	}
	return nil
}

// standard is the standard library's name of d; SM3, which it lacks, has none.
func (d Digest) standard() (crypto.Hash, bool) {
	switch d {
	case SHA224:
		return crypto.SHA224, true
	case SHA256:
		return crypto.SHA256, true
	case SHA384:
		return crypto.SHA384, true
	case SHA512:
		return crypto.SHA512, true
	}
	return 0, false
}

// DefaultDigest is what a request that names no digest means: SM3 for SM2 keys,
// SHA-256 for all others.
func (s Spec) DefaultDigest() Digest {
	if s == SM2 {
		return SM3
	}
	return SHA256
}

// ParsePadding finds a padding by its native name or by the spelling of the
// native documentation, case-sensitive.
func ParsePadding(name string) (Padding, bool) {
	p := index(paddingNames[:], name)
	if p == 0 {
		p = index(documentedPaddings[:], name)
	}
	return Padding(p), p != 0
}

// String is the native name, or "Padding(n)".
func (p Padding) String() string { return nameOf(paddingNames[:], "Padding", uint8(p)) }

// PaddingSet is the paddings that an RSA key admits, a sealed attribute of the
// key. The bits are persisted, so they never change. The empty set admits none.
type PaddingSet uint8

// The bits of a PaddingSet, and the sets that old clients expect of keys that
// encrypt and of keys that sign.
const (
	AllowPKCS1 PaddingSet = 1 << iota
	AllowPSS
	AllowOAEP

	EncryptionPaddings = AllowPKCS1 | AllowOAEP
	SignaturePaddings  = AllowPKCS1 | AllowPSS
)

// Has says whether the set admits p. No set admits PaddingNone.
func (s PaddingSet) Has(p Padding) bool {
	switch p {
	case PaddingPKCS1:
		return s&AllowPKCS1 != 0
	case PaddingPSS:
		return s&AllowPSS != 0
	case PaddingOAEP:
		return s&AllowOAEP != 0
	}
	return false
}

// Valid says whether the set has known bits only.
func (s PaddingSet) Valid() bool { return s&^(AllowPKCS1|AllowPSS|AllowOAEP) == 0 }

// prehash is the digest to sign or verify: the message itself if it is said to
// be one already. It returns ErrParameter for invalid enums.
func prehash(message []byte, mt MessageType, d Digest) ([]byte, error) {
	if d.Size() == 0 {
		return nil, fmt.Errorf("hash with %s: %w", d, ErrParameter)
	}
	switch mt {
	case MessageRaw:
		return d.Sum(message), nil
	case MessageDigest:
		return message, nil
	}
	return nil, fmt.Errorf("hash a message of type %s: %w", mt, ErrParameter)
}

// prehashExact is prehash for signing, where a digest must have its size.
func prehashExact(message []byte, mt MessageType, d Digest) ([]byte, error) {
	digest, err := prehash(message, mt, d)
	if err == nil && len(digest) != d.Size() {
		return nil, fmt.Errorf("sign a digest of %s: got %d bytes, want %d: %w", d, len(digest), d.Size(), ErrParameter)
	}
	return digest, err
}
