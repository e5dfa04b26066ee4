package api

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"
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

const pairReplyLabel = "ehsm-reply/v2\x00"

// VerdictLabel stands before the canonical string of a VerifyQuoteResult when the
// instance's reply key signs it, for requests that were signed with a key pair.
const VerdictLabel = "ehsm-verdict/v1\x00"

// PairReplyMessage is what the reply key of the core's instance signs, with Ed25519,
// in the reply to a request that was signed with a key pair:
//
//	"ehsm-reply/v2\0" | credential id (16 bytes) | SHA-256 of the request's canonical
//	string (32) | length of the action (1) | action | body
//
// For an action of more than 255 bytes it is nil.
func PairReplyMessage(credential *[16]byte, request *[32]byte, action string, body []byte) []byte {
	if len(action) > 255 {
		return nil
	}
	m := make([]byte, 0, len(pairReplyLabel)+16+32+1+len(action)+len(body))
	m = append(append(append(m, pairReplyLabel...), credential[:]...), request[:]...)
	return append(append(append(m, byte(len(action))), action...), body...)
}

const pairReplyForm = "ed25519"

// PairReplySignature returns the value of the header for the reply to a key pair:
// "ed25519", the instance's UUID and the signature over PairReplyMessage in standard
// base64, with spaces between them.
func PairReplySignature(instance string, signature []byte) string {
	return pairReplyForm + " " + instance + " " + base64.StdEncoding.EncodeToString(signature)
}

// ParsePairReplySignature undoes PairReplySignature. It verifies nothing; ok is false
// for another form.
func ParsePairReplySignature(header string) (instance string, signature []byte, ok bool) {
	fields := strings.Split(header, " ")
	if len(fields) != 3 || fields[0] != pairReplyForm {
		return "", nil, false
	}
	signature, err := base64.StdEncoding.Strict().DecodeString(fields[2])
	return fields[1], signature, err == nil && len(signature) == ed25519.SignatureSize
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
