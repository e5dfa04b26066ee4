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
		{"CreateKey", CreateKeyRequest{KeySpec: AESGCM256, Origin: InternalKey, KeyUsage: EncryptDecrypt}, `{"keyspec":"EH_AES_GCM_256","origin":"EH_INTERNAL_KEY","keyusage":"EH_KEYUSAGE_ENCRYPT_DECRYPT"}`},
		{"CreateKey with paddings", CreateKeyRequest{RSA2048, InternalKey, SignVerify, []PaddingMode{PKCS1, PSS}}, `{"keyspec":"EH_RSA_2048","origin":"EH_INTERNAL_KEY","keyusage":"EH_KEYUSAGE_SIGN_VERIFY","padding_modes":["EH_RSA_PKCS1","EH_RSA_PKCS1_PSS"]}`},
		{"Encrypt without aad", EncryptRequest{KeyID: "k", Plaintext: []byte("hi?>")}, `{"keyid":"k","plaintext":"aGk/Pg=="}`},
		{"Encrypt", EncryptRequest{"k", []byte("hi"), []byte("a"), 2}, `{"keyid":"k","plaintext":"aGk=","aad":"YQ==","keyversion":2}`},
		{"Decrypt", DecryptRequest{"k", []byte("hi"), []byte("a")}, `{"keyid":"k","ciphertext":"aGk=","aad":"YQ=="}`},
		{"GenerateDataKey", DataKeyRequest{KeyID: "k", KeyLen: 48}, `{"keyid":"k","keylen":48}`},
		{"without plaintext", DataKeyResult{Ciphertext: []byte("hi")}, `{"ciphertext":"aGk="}`},
		{"DeleteKey", KeyRequest{"k"}, `{"keyid":"k"}`},
		{"ListKey", ListKeyResult{[]Key{{"k", 1, NeverExpires, "", SM4CBC, Enabled}}}, `{"list":[{"keyid":"k","creationDate":1,"expireTime":253402300799000,"alias":"","keyspec":"EH_SM4_CBC","keyState":1}]}`},
		{"GetVersion", GetVersionResult{"v1", "abc"}, `{"version":"v1","git_sha":"abc"}`},
		{"Enroll", EnrollResult{"a", "k"}, `{"appid":"a","apikey":"k"}`},
		{"AsymmetricEncrypt", AsymmetricEncryptRequest{"k", []byte("hi"), OAEP}, `{"keyid":"k","plaintext":"aGk=","padding_mode":"EH_RSA_PKCS1_OAEP"}`},
		{"AsymmetricDecrypt", AsymmetricDecryptRequest{"k", []byte("hi"), NoPadding}, `{"keyid":"k","ciphertext":"aGk=","padding_mode":"EH_PAD_NONE"}`},
		{"Sign", SignRequest{"k", []byte("hi"), DigestMessage, SHA384, PSS}, `{"keyid":"k","message":"aGk=","message_type":"EH_DIGEST","digest_mode":"EH_SHA_384","padding_mode":"EH_RSA_PKCS1_PSS"}`},
		{"Sign by default", SignRequest{KeyID: "k", Message: []byte("hi"), MessageType: RawMessage}, `{"keyid":"k","message":"aGk=","message_type":"EH_RAW"}`},
		{"Verify", VerifyRequest{SignRequest{"k", []byte("hi"), RawMessage, SM3, ""}, []byte("s")}, `{"keyid":"k","message":"aGk=","message_type":"EH_RAW","digest_mode":"EH_SM3","signature":"cw=="}`},
		{"verified", VerifyResult{false}, `{"result":false}`},
		{"GetPublicKey", GetPublicKeyResult{"p", "k"}, `{"pubkey":"p","keyid":"k"}`},
		{"ExportDataKey to a key", ExportDataKeyRequest{KeyID: "k", DataKey: []byte("hi"), UKeyID: "u", AAD: []byte("a")}, `{"keyid":"k","olddatakey_base":"aGk=","ukeyid":"u","aad":"YQ=="}`},
		{"ExportDataKey to a public key", ExportDataKeyRequest{KeyID: "k", DataKey: []byte("hi"), UPubKey: "p", PaddingMode: PKCS1}, `{"keyid":"k","olddatakey_base":"aGk=","upubkey":"p","padding_mode":"EH_RSA_PKCS1"}`},
		{"exported", ExportDataKeyResult{[]byte("hi")}, `{"newdatakey":"aGk="}`},
		{"GetParametersForImport", GetParametersForImportRequest{"k", RSA3072}, `{"keyid":"k","keyspec":"EH_RSA_3072"}`},
		{"import parameters", GetParametersForImportResult{"p", "t"}, `{"pubkey":"p","importToken":"t"}`},
		{"ImportKeyMaterial", ImportKeyMaterialRequest{"k", OAEP, []byte("hi"), "t"}, `{"keyid":"k","padding_mode":"EH_RSA_PKCS1_OAEP","key_material":"aGk=","importToken":"t"}`},
		{"CreateSecret", CreateSecretRequest{"n", "d", "k", "x", "7d"}, `{"secretName":"n","secretData":"d","encryptionKeyId":"k","description":"x","rotationInterval":"7d"}`},
		{"CreateSecret by default", CreateSecretRequest{SecretName: "n", SecretData: "d"}, `{"secretName":"n","secretData":"d"}`},
		{"PutSecretValue", PutSecretValueRequest{"n", "d"}, `{"secretName":"n","secretData":"d"}`},
		{"UpdateSecretDesc", UpdateSecretDescRequest{"n", ""}, `{"secretName":"n"}`},
		{"DeleteSecret", DeleteSecretRequest{"n", 7, false}, `{"secretName":"n","recoveryPeriod":7}`},
		{"DeleteSecret at once", DeleteSecretRequest{"n", 0, true}, `{"secretName":"n","forceDelete":true}`},
		{"GetSecretValue", GetSecretValueRequest{"n", 2}, `{"secretName":"n","versionId":2}`},
		{"secret value", GetSecretValueResult{"n", "d", 2, 3}, `{"secretName":"n","secretData":"d","versionId":2,"createTime":3}`},
		{"ListSecrets", SecretRequest{}, `{}`},
		{"secrets", ListSecretsResult{2, []Secret{{"n", "x", 1, 2}, {"m", "", 3, 0}}}, `{"totalCount":2,"secretList":[{"secretName":"n","description":"x","createTime":1,"plannedDeleteTime":2},{"secretName":"m","createTime":3}]}`},
		{"ListSecretVersionIds", ListSecretVersionIDsResult{"n", 1, []SecretVersion{{1, 5}}}, `{"secretName":"n","totalCount":1,"versionIds":[{"versionId":1,"createTime":5}]}`},
		{"DescribeSecret", DescribeSecretResult{"n", "x", 1, 2, "7d", "7d", 3, 4}, `{"secretName":"n","description":"x","createTime":1,"plannedDeleteTime":2,"rotationInterval":"7d","rationalInterval":"7d","lastRotationDate":3,"nextRotationDate":4}`},
		{"request", Request{"a", "", "n", "1700000000000", json.RawMessage(`{}`), "s"}, `{"appid":"a","nonce":"n","timestamp":"1700000000000","payload":{},"sign":"s"}`},
		{"request of a key pair", Request{AppID: "a", Credential: "c", Timestamp: "1700000000000", Sign: "s"}, `{"appid":"a","credential":"c","timestamp":"1700000000000","sign":"s"}`},
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
