package api

import (
	"crypto/ed25519"
	"encoding/base64"
	"strings"
)

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
