package core

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// wantText sends a payload given as JSON, in which ID stands for a key id, and
// compares the message.
func (c *tenant) wantText(action, id, payload, text string) {
	c.h.t.Helper()
	r := c.send(0, action, c.signText(c.request(strings.ReplaceAll(payload, "ID", id)), canon.Keeping))
	if r.Message != text {
		c.h.t.Errorf("%s %.200s: got %d %q, want %q", action, payload, r.Code, r.Message, text)
	}
	if code := r.Code; code != 200 && code != 400 {
		c.h.t.Errorf("%s %.200s: code %d", action, payload, code)
	}
}

func TestValidationTexts(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	id := c.createKey()
	b64 := func(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }
	const (
		missing = "Missing required parameters, The "
		invalid = "Parameter invalid, The "
	)
	tests := []struct{ action, payload, want string }{
		{"Encrypt", `{}`, missing + "keyid cannot be empty."},
		{"Encrypt", `{"keyid":null,"plaintext":"x"}`, missing + "keyid cannot be empty."},
		{"Encrypt", `{"keyid":"","plaintext":"x"}`, missing + "keyid cannot be empty."},
		{"Encrypt", `{"keyid":"ID"}`, missing + "plaintext cannot be empty."},
		{"Encrypt", `{"keyid":"ID","plaintext":null}`, missing + "plaintext cannot be empty."},
		{"Encrypt", `{"KeyID":"ID","plaintext":"aGVsbG8="}`, missing + "keyid cannot be empty."},
		{"Encrypt", `{"keyid":5,"plaintext":"aGVsbG8="}`, invalid + "keyid must be of string type."},
		{"Encrypt", `{"keyid":["ID"],"plaintext":"aGVsbG8="}`, invalid + "keyid must be of string type."},
		{"Encrypt", `{"keyid":"ID","plaintext":{}}`, invalid + "plaintext must be of string type."},
		{"Encrypt", `{"keyid":"ID","plaintext":"aGVsbG8=","aad":false}`, invalid + "aad must be of string type."},
		{"Encrypt", `{"keyid":"IDa","plaintext":"aGVsbG8="}`, invalid + "keyid length error."},
		{"Encrypt", `{"keyid":"a","plaintext":"aGVsbG8="}`, invalid + "keyid length error."},
		{"Encrypt", `{"keyid":"` + strings.ToUpper(id) + `","plaintext":"aGVsbG8="}`, invalid + "keyid format wrong."},
		{"Encrypt", `{"keyid":"` + strings.ReplaceAll(id, "-", "_") + `","plaintext":"aGVsbG8="}`, invalid + "keyid format wrong."},
		{"Encrypt", `{"keyid":"` + id[1:] + `-","plaintext":"aGVsbG8="}`, invalid + "keyid format wrong."},
		{"Encrypt", `{"keyid":"zzzzzzzz-zzzz-zzzz-zzzz-zzzzzzzzzzzz","plaintext":"aGVsbG8="}`, "keyid error"},
		{"Encrypt", `{"keyid":"ID","plaintext":"aGVsbG8"}`, invalid + "plaintext not a vailed base64 string."},
		{"Encrypt", `{"keyid":"ID","plaintext":"aGVsbG8=="}`, invalid + "plaintext not a vailed base64 string."},
		{"Encrypt", `{"keyid":"ID","plaintext":"aGVsb===" }`, invalid + "plaintext not a vailed base64 string."},
		{"Encrypt", `{"keyid":"ID","plaintext":"===="}`, invalid + "plaintext not a vailed base64 string."},
		{"Encrypt", `{"keyid":"ID","plaintext":"aG=sbG8="}`, invalid + "plaintext not a vailed base64 string."},
		{"Encrypt", `{"keyid":"ID","plaintext":"aGVs\nbG8="}`, invalid + "plaintext not a vailed base64 string."},
		{"Encrypt", `{"keyid":"ID","plaintext":"aGVs bG8="}`, invalid + "plaintext not a vailed base64 string."},
		{"Encrypt", `{"keyid":"ID","plaintext":"-_8="}`, invalid + "plaintext not a vailed base64 string."},
		{"Encrypt", `{"keyid":"ID","plaintext":"aGVsbG8=","aad":"?"}`, invalid + "aad not a vailed base64 string."},
		{"Encrypt", `{"keyid":"ID","plaintext":"` + b64(6144) + `","aad":"` + b64(6144) + `"}`, "success!"},
		{"Encrypt", `{"keyid":"ID","plaintext":"` + b64(6145) + `"}`, invalid + "plaintext length error."},
		{"Encrypt", `{"keyid":"ID","plaintext":"aGVsbG8=","aad":"` + b64(6145) + `"}`, invalid + "aad length error."},
		{"Encrypt", `{"keyid":"ID","plaintext":"` + strings.Repeat("?", 8193) + `"}`, invalid + "plaintext length error."},
		{"Encrypt", `{"keyid":"ID","plaintext":"aGVsbG8=","aad":null,"x":1,"y":{"z":[]}}`, "success!"},
		{"Encrypt", `{"keyid":"ID","plaintext":"aGVsbG8=","aad":""}`, "success!"},
		{"Encrypt", `{"keyid":"x","keyid":"ID","plaintext":"aGVsbG8="}`, "success!"},
		{"Decrypt", `{"keyid":"ID"}`, missing + "ciphertext cannot be empty."},
		{"Decrypt", `{"keyid":"ID","ciphertext":"?"}`, invalid + "ciphertext not a vailed base64 string."},
		{"Decrypt", `{"keyid":"ID","ciphertext":"` + b64(maxCiphertext+3) + `"}`, invalid + "ciphertext length error."},
		{"Decrypt", `{"keyid":"ID","ciphertext":"` + b64(maxCiphertext) + `"}`, textDecryption},
		{"GenerateDataKey", `{"keyid":"ID"}`, missing + "keylen cannot be empty."},
		{"GenerateDataKey", `{"keyid":"ID","keylen":""}`, missing + "keylen cannot be empty."},
		{"GenerateDataKey", `{"keyid":"ID","keylen":"48"}`, invalid + "keylen must be of integer type."},
		{"GenerateDataKey", `{"keyid":"ID","keylen":48.5}`, invalid + "keylen must be of integer type."},
		{"GenerateDataKey", `{"keyid":"ID","keylen":true}`, invalid + "keylen must be of integer type."},
		{"GenerateDataKey", `{"keyid":"ID","keylen":[48]}`, invalid + "keylen must be of integer type."},
		{"GenerateDataKey", `{"keyid":"ID","keylen":0}`, invalid + "keylen value must be greater than or equal to 1."},
		{"GenerateDataKey", `{"keyid":"ID","keylen":-1}`, invalid + "keylen value must be greater than or equal to 1."},
		{"GenerateDataKey", `{"keyid":"ID","keylen":-1e300}`, invalid + "keylen value must be greater than or equal to 1."},
		{"GenerateDataKey", `{"keyid":"ID","keylen":1025}`, invalid + "keylen value must be less than or equal to 1024."},
		{"GenerateDataKey", `{"keyid":"ID","keylen":1e300}`, invalid + "keylen value must be less than or equal to 1024."},
		{"GenerateDataKey", `{"keyid":"ID","keylen":48.0}`, "success!"},
		{"GenerateDataKey", `{"keyid":"ID","keylen":1.024e3}`, "success!"},
		{"GenerateDataKeyWithoutPlaintext", `{"keyid":"ID","keylen":"48"}`, invalid + "keylen must be of integer type."},
		{"GenerateDataKeyWithoutPlaintext", `{"keyid":"ID","keylen":1}`, "success!"},
		{"CreateKey", `{}`, missing + "keyspec cannot be empty."},
		{"CreateKey", `{"keyspec":"EH_RSA_3071","origin":"x"}`, invalid + "keyspec type is incorrect."},
		{"CreateKey", `{"keyspec":"eh_aes_gcm_128","origin":"x"}`, invalid + "keyspec type is incorrect."},
		{"CreateKey", `{"keyspec":128,"origin":"x"}`, invalid + "keyspec type is incorrect."},
		{"CreateKey", `{"keyspec":"EH_AES_GCM_128"}`, missing + "origin cannot be empty."},
		{"CreateKey", `{"keyspec":"EH_AES_GCM_128","origin":"x"}`, invalid + "origin type is incorrect."},
		{"CreateKey", `{"keyspec":"EH_AES_GCM_128","origin":"EH_INTERNAL_KEY","keyusage":"EH_KEYUSAGE_ENCRYPT_DECRYPT","x":1}`, invalid + "x type is incorrect."},
		{"CreateKey", `{"keyspec":"EH_AES_GCM_128","Keyspec":"EH_AES_GCM_192","origin":"EH_INTERNAL_KEY","keyusage":"EH_KEYUSAGE_ENCRYPT_DECRYPT"}`, invalid + "keyspec type is incorrect."},
		{"CreateKey", `{"keyspec":"EH_AES_GCM_128","Keyspec":"EH_AES_GCM_128","origin":"EH_INTERNAL_KEY","keyusage":"EH_KEYUSAGE_ENCRYPT_DECRYPT"}`, "success!"},
		{"CreateKey", `{"Keyspec":"EH_AES_GCM_128","origin":"EH_INTERNAL_KEY","keyusage":"EH_KEYUSAGE_ENCRYPT_DECRYPT"}`, "success!"},
		{"EnableKey", `{}`, missing + "keyid cannot be empty."},
		{"EnableKey", ``, missing + "keyid cannot be empty."},
		{"DeleteKey", ``, missing + "keyid cannot be empty."},
		{"DeleteKey", `{"keyid":"x"}`, invalid + "keyid length error."},
		{"DisableKey", `{"keyid":"ID","plaintext":"aGVsbG8="}`, invalid + "plaintext type is incorrect."},
		{"DeleteAllKey", `{"keyid":"ID"}`, invalid + "keyid type is incorrect."},
		{"DeleteALLKey", `{"x":"<&>"}`, invalid + "x type is incorrect."},
		{"DeleteALLKey", `{"\n\"\u00e9":1}`, invalid + "\n\"é type is incorrect."},
		{"ListKey", `{"x":1}`, "successful"},
	}
	for _, tt := range tests {
		c.wantText(tt.action, id, tt.payload, tt.want)
	}
}

// A body that would pass as a state change, or is one, gets an entry in the
// store, and no other.
func TestSharedReplayEntries(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	id := c.createKey()
	tests := []struct {
		name, action, payload string
		want                  bool
	}{
		{"a change", "EnableKey", `{"keyid":"ID"}`, true},
		{"a change with its action", "EnableKey", `{"keyid":"ID","action":"EnableKey"}`, true},
		{"a refused change", "EnableKey", `{"keyid":"` + wire.NewUUID().String() + `"}`, true},
		{"a change without effect", "DeleteKey", `{"keyid":"` + wire.NewUUID().String() + `"}`, true},
		{"no payload fits DeleteAllKey", "ListKey", ``, true},
		{"an empty payload fits DeleteAllKey", "ListKey", `{}`, true},
		{"a listing with its action", "ListKey", `{"action":"ListKey"}`, false},
		{"a listing with more", "ListKey", `{"x":1}`, false},
		{"an Encrypt", "Encrypt", `{"keyid":"ID","plaintext":"aGVsbG8="}`, false},
		{"a refused Encrypt", "Encrypt", `{"keyid":"` + wire.NewUUID().String() + `","plaintext":"aGVsbG8="}`, false},
		{"a change refused by its payload", "EnableKey", `{"keyid":"ID","x":1}`, false},
		{"an unknown action", "Nothing", `{"keyid":"ID"}`, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			clear(h.replays)
			body := c.signText(c.request(strings.ReplaceAll(tt.payload, "ID", id)), canon.Skipping)
			c.send(0, tt.action, body)
			if got := len(h.replays) > 0; got != tt.want {
				t.Errorf("entry: got %v, want %v", got, tt.want)
			}
		})
	}
}
