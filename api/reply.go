package api

import (
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
)

// ReplySignatureHeader is the HTTP header that carries the core's signature of
// a reply. A reply to a request that the core could not authenticate has none.
const ReplySignatureHeader = "Ehsm-Reply-Signature"

const replyInfo = "ehsm-reply/v1"

// ReplyKey derives the key that signs replies to the owner of apikey:
// HKDF-SHA-256 over the API key's text, without salt, with the info
// "ehsm-reply/v1". It depends on nothing else, so it may be kept as long as the
// API key is. The result is a secret.
func ReplyKey(apikey []byte) [32]byte {
	key, err := hkdf.Key(sha256.New, apikey, nil, replyInfo, 32)
	if err != nil {
		panic("api: " + err.Error()) // only for lengths that HKDF cannot give
	}
	return [32]byte(key)
}

// ReplySignature returns the value of the header: the standard base64, 44
// characters, of HMAC-SHA-256 under key over
//
//	request MAC (32 bytes) | length of the action (1 byte) | action | body
//
// where the request MAC is the decoded sign member of the request, and body the
// exact bytes of the reply. It allocates only the string. An action of more than
// 255 bytes cannot be signed and gives "".
func ReplySignature(key, requestMAC *[32]byte, action string, body []byte) string {
	if len(action) > 255 {
		return ""
	}
	mac := replyMAC(key, requestMAC, action, body)
	var text [44]byte
	base64.StdEncoding.Encode(text[:], mac[:])
	return string(text[:])
}

// VerifyReplySignature reports whether header is exactly what ReplySignature
// gives, in time that does not depend on where they differ.
func VerifyReplySignature(key, requestMAC *[32]byte, action string, body []byte, header string) bool {
	want := ReplySignature(key, requestMAC, action, body)
	return want != "" && subtle.ConstantTimeCompare([]byte(want), []byte(header)) == 1
}

// replyMAC is HMAC (RFC 2104) written out for a key of 32 bytes: crypto/hmac
// allocates five times per key, and this runs once per request of the core.
// TestReplySignature compares it with known answers and with crypto/hmac.
func replyMAC(key, requestMAC *[32]byte, action string, body []byte) [32]byte {
	var block [sha256.BlockSize + sha256.Size]byte // padded key, later with the inner hash
	copy(block[:], key[:])
	for i := range sha256.BlockSize {
		block[i] ^= 0x36
	}
	var head [32 + 1 + 255]byte
	n := copy(head[:], requestMAC[:])
	head[n] = byte(len(action))
	n += 1 + copy(head[n+1:], action)

	inner := sha256.New()
	inner.Write(block[:sha256.BlockSize])
	inner.Write(head[:n])
	inner.Write(body)
	inner.Sum(block[sha256.BlockSize:sha256.BlockSize])
	for i := range sha256.BlockSize {
		block[i] ^= 0x36 ^ 0x5c
	}
	return sha256.Sum256(block[:])
}
