package api

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"
)

const (
	testAPIKey = "D3nK2Vq90QrFkHGRZ3dBAyFEfPTtLfQy"
	testMAC    = "GKaU25v+F7f+JzCW4GATwOMZByGceoEJc4iK0ct0Acs=" // sign of vector V1
)

func decodeMAC(t testing.TB) *[32]byte {
	b, err := base64.StdEncoding.DecodeString(testMAC)
	if err != nil || len(b) != 32 {
		t.Fatalf("decode MAC: got %d bytes, err %v", len(b), err)
	}
	return (*[32]byte)(b)
}

// openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt key:<apikey> -kdfopt info:ehsm-reply/v1 HKDF
func TestReplyKey(t *testing.T) {
	const want = "2a125c5fe6b6d3396bda1b863fbdb9dd7c0bd6b07555be93478765f6ad2ef241"
	key := ReplyKey([]byte(testAPIKey))
	if got := hex.EncodeToString(key[:]); got != want {
		t.Errorf("ReplyKey: got %s, want %s", got, want)
	}
}

// The answers were computed with Python's hmac and hashlib.
func TestReplySignature(t *testing.T) {
	tests := []struct{ name, action, body, want string }{
		{"success", "CreateKey", `{"code":200,"message":"success!","result":{"keyid":"aac3e45a-d3dc-4791-89b6-4ada0e38e6ef"}}`, "gBFe8gt6qYvcT622bNTxPmF4ogoZbOiHxX9IeZ0s6Uk="},
		{"error", "DeleteAllKey", `{"code":400,"message":"keyid is disabled","result":{}}`, "IV1Mi6QWw19mAk1numIAQvuWyuyi8cSwwxMoVNlaQO0="},
		{"empty", "", "", "PGzh8mYZDOH69kM1ERJXez9BGSh6ZbD5ZFST4/qf5+E="},
		{"longest action", strings.Repeat("A", 255), strings.Repeat("x", 1000), "zRmSFbxZezPls2lybQ47fnZEDRILlKZYoheGs1GVNp0="},
	}
	key, mac := ReplyKey([]byte(testAPIKey)), decodeMAC(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := ReplySignature(&key, mac, tt.action, []byte(tt.body)); got != tt.want {
				t.Errorf("ReplySignature: got %s, want %s", got, tt.want)
			}
			if !VerifyReplySignature(&key, mac, tt.action, []byte(tt.body), tt.want) {
				t.Error("VerifyReplySignature: got false for the known answer")
			}
			if got, want := replyMAC(&key, mac, tt.action, []byte(tt.body)), stdMAC(key, mac, tt.action, tt.body); got != want {
				t.Errorf("replyMAC: got %x, crypto/hmac gives %x", got, want)
			}
		})
	}
}

func stdMAC(key [32]byte, mac *[32]byte, action, body string) [32]byte {
	h := hmac.New(sha256.New, key[:])
	h.Write(mac[:])
	h.Write([]byte{byte(len(action))})
	h.Write([]byte(action + body))
	return [32]byte(h.Sum(nil))
}

func TestVerifyReplySignatureRefuses(t *testing.T) {
	key, mac := ReplyKey([]byte(testAPIKey)), decodeMAC(t)
	body := []byte(`{"code":200,"message":"successful","result":{}}`)
	good := ReplySignature(&key, mac, "EnableKey", body)

	otherKey, otherMAC := key, *mac
	otherKey[31] ^= 1
	otherMAC[0] ^= 1
	tests := []struct {
		name   string
		key    *[32]byte
		mac    *[32]byte
		action string
		body   []byte
		header string
	}{
		{"no header", &key, mac, "EnableKey", body, ""},
		{"cut header", &key, mac, "EnableKey", body, good[:43]},
		{"longer header", &key, mac, "EnableKey", body, good + "="},
		{"unused bits of the base64 text", &key, mac, "EnableKey", body, nextDigit(good)},
		{"upper case", &key, mac, "EnableKey", body, strings.ToUpper(good)},
		{"other key", &otherKey, mac, "EnableKey", body, good},
		{"other request", &key, &otherMAC, "EnableKey", body, good},
		{"other action", &key, mac, "DisableKey", body, good},
		{"action moved into the body", &key, mac, "EnableKe", append([]byte("y"), body...), good},
		{"other body", &key, mac, "EnableKey", bytes.ToUpper(body), good},
		{"cut body", &key, mac, "EnableKey", body[:len(body)-1], good},
		{"too long action", &key, mac, strings.Repeat("A", 256), body, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if VerifyReplySignature(tt.key, tt.mac, tt.action, tt.body, tt.header) {
				t.Error("VerifyReplySignature: got true, want false")
			}
		})
	}
}

// nextDigit changes the two bits of the last base64 digit that carry no data.
func nextDigit(text string) string {
	b := []byte(text)
	b[42]++
	return string(b)
}

func TestReplySignatureAllocates(t *testing.T) {
	key, mac, body := ReplyKey([]byte(testAPIKey)), decodeMAC(t), make([]byte, 300)
	if got := testing.AllocsPerRun(100, func() { ReplySignature(&key, mac, "Encrypt", body) }); got > 1 {
		t.Errorf("ReplySignature: got %v allocations, want 1", got)
	}
}

func BenchmarkReplySignature(b *testing.B) {
	key, mac, body := ReplyKey([]byte(testAPIKey)), decodeMAC(b), make([]byte, 300)
	b.ReportAllocs()
	for b.Loop() {
		ReplySignature(&key, mac, "Encrypt", body)
	}
}
