package api

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"strings"
	"testing"
)

// The answer was computed with Python's cryptography, from docs/formats.md.
func TestPairReply(t *testing.T) {
	const instance = "0b1f2e3d-4c5b-4a69-8778-695a4b3c2d1e"
	const want = "ed25519 " + instance + " Qkz3HSZMbDJtX36lzgqq8Rhq0orpBdjS3YL9syYIjvEzu3anLzATTL0aOlh40lVTDS1o7mOzfPM02pFaXTXWCA=="
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(i)
	}
	request := sha256.Sum256([]byte("appid=a&timestamp=1700000000000"))
	message := PairReplyMessage((*[16]byte)(seed[:]), &request, "ListKey", []byte(`{"code":200}`))
	sign := ed25519.Sign(ed25519.NewKeyFromSeed(seed[:]), message)
	if got := PairReplySignature(instance, sign); got != want {
		t.Errorf("PairReplySignature: got %s, want %s", got, want)
	}
	if i, s, ok := ParsePairReplySignature(want); !ok || i != instance || !bytes.Equal(s, sign) {
		t.Errorf("ParsePairReplySignature: got %q, %x, %v", i, s, ok)
	}
	for name, text := range map[string]string{
		"empty":               "",
		"form of API keys":    "Qkz3HSZMbDJtX36lzgqq8Rhq0orpBdjS3YL9syYIjvE=",
		"another form":        strings.Replace(want, "ed25519", "ed448", 1),
		"upper case":          strings.Replace(want, "ed25519", "ED25519", 1),
		"two spaces":          strings.Replace(want, " ", "  ", 1),
		"a field more":        want + " x",
		"short signature":     want[:len(want)-4],
		"base64 of URLs":      strings.Replace(want, "+", "-", 1) + "-",
		"unused bits":         strings.Replace(want, "CA==", "CB==", 1),
		"without an ending":   strings.TrimRight(want, "="),
		"without a signature": "ed25519 " + instance + " ",
	} {
		if _, _, ok := ParsePairReplySignature(text); ok {
			t.Errorf("%s: accepted", name)
		}
	}
}
