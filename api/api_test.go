package api

import (
	"encoding/json"
	"strings"
	"testing"
)

// The members are the wire contract; a renamed one breaks clients that exist.
func TestMembers(t *testing.T) {
	tests := []struct {
		name  string
		value any
		want  string
	}{
		{"CreateKey", CreateKeyRequest{AESGCM256, InternalKey, EncryptDecrypt}, `{"keyspec":"EH_AES_GCM_256","origin":"EH_INTERNAL_KEY","keyusage":"EH_KEYUSAGE_ENCRYPT_DECRYPT"}`},
		{"Encrypt without aad", EncryptRequest{KeyID: "k", Plaintext: []byte("hi?>")}, `{"keyid":"k","plaintext":"aGk/Pg=="}`},
		{"Encrypt", EncryptRequest{"k", []byte("hi"), []byte("a")}, `{"keyid":"k","plaintext":"aGk=","aad":"YQ=="}`},
		{"Decrypt", DecryptRequest{"k", []byte("hi"), []byte("a")}, `{"keyid":"k","ciphertext":"aGk=","aad":"YQ=="}`},
		{"GenerateDataKey", DataKeyRequest{KeyID: "k", KeyLen: 48}, `{"keyid":"k","keylen":48}`},
		{"without plaintext", DataKeyResult{Ciphertext: []byte("hi")}, `{"ciphertext":"aGk="}`},
		{"DeleteKey", KeyRequest{"k"}, `{"keyid":"k"}`},
		{"ListKey", ListKeyResult{[]Key{{"k", 1, NeverExpires, "", SM4CBC, Enabled}}}, `{"list":[{"keyid":"k","creationDate":1,"expireTime":253402300799000,"alias":"","keyspec":"EH_SM4_CBC","keyState":1}]}`},
		{"GetVersion", GetVersionResult{"v1", "abc"}, `{"version":"v1","git_sha":"abc"}`},
		{"Enroll", EnrollResult{"a", "k"}, `{"appid":"a","apikey":"k"}`},
		{"request", Request{"a", "n", json.RawMessage(`{}`), "1700000000000", "s"}, `{"appid":"a","nonce":"n","payload":{},"timestamp":"1700000000000","sign":"s"}`},
		{"error reply", Reply[Empty]{Code: CodeInvalid, Message: MessageSign}, `{"code":400,"message":"sign error","result":{}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := json.Marshal(tt.value)
			if err != nil || string(got) != tt.want {
				t.Errorf("Marshal: got %s, %v, want %s", got, err, tt.want)
			}
		})
	}
}

func TestErrorText(t *testing.T) {
	tests := []struct {
		name string
		err  Error
		want string
	}{
		{"plain", Error{CodeInvalid, MessageKeyDisabled}, "keyid is disabled (code 400)"},
		{"no message", Error{Code: CodeServerError}, `"" (code 500)`},
		{"terminal control", Error{CodeInvalid, "\x1b[2Jgone"}, `"\x1b[2Jgone" (code 400)`},
		{"not ASCII", Error{CodeInvalid, "a\u202eb"}, `"a\u202eb" (code 400)`},
		{"long", Error{CodeInvalid, strings.Repeat("a", 300)}, `"` + strings.Repeat("a", 256) + `" (code 400)`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.err.Error(); got != tt.want {
				t.Errorf("Error: got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestKeySpecsAreUnique(t *testing.T) {
	seen := map[KeySpec]bool{}
	for _, s := range KeySpecs() {
		if seen[s] || !strings.HasPrefix(string(s), "EH_") {
			t.Errorf("KeySpecs: %q is a duplicate or misspelt", s)
		}
		seen[s] = true
	}
	if len(seen) != 15 {
		t.Errorf("KeySpecs: got %d, want 15", len(seen))
	}
}
