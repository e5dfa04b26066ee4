package ehsm

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/ehsm-kms/ehsm/api"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// An actionTest is a call, what the service must get, and what it answers.
type actionTest struct {
	action  string
	payload string // in the order of encoding/json's maps; "" for none
	result  string
	call    func(*Client) (any, error)
	want    string
}

// Each method sends what the contract asks for and returns what the reply has.
func TestActions(t *testing.T) {
	testActions(t, []actionTest{
		{api.CreateKey, `{"keyspec":"EH_AES_GCM_256","keyusage":"EH_KEYUSAGE_ENCRYPT_DECRYPT","origin":"EH_INTERNAL_KEY"}`, `{"keyid":"k1"}`,
			func(c *Client) (any, error) {
				return c.CreateKey(t.Context(), api.AESGCM256, api.EncryptDecrypt, api.InternalKey)
			}, "k1"},
		{api.CreateKey, `{"keyspec":"EH_RSA_2048","keyusage":"EH_KEYUSAGE_SIGN_VERIFY","origin":"EH_INTERNAL_KEY","padding_modes":["EH_RSA_PKCS1","EH_RSA_PKCS1_PSS"]}`, `{"keyid":"k1"}`,
			func(c *Client) (any, error) {
				return c.CreateKey(t.Context(), api.RSA2048, api.SignVerify, api.InternalKey, api.PKCS1, api.PSS)
			}, "k1"},
		{api.Encrypt, `{"keyid":"k1","plaintext":"` + b64("hi") + `"}`, `{"ciphertext":"` + b64("ct") + `"}`,
			func(c *Client) (any, error) {
				b, err := c.Encrypt(t.Context(), "k1", []byte("hi"), nil)
				return string(b), err
			}, "ct"},
		{api.Encrypt, `{"aad":"` + b64("a") + `","keyid":"k1","plaintext":"` + b64("hi") + `"}`, `{"ciphertext":"` + b64("ct") + `"}`,
			func(c *Client) (any, error) {
				b, err := c.Encrypt(t.Context(), "k1", []byte("hi"), []byte("a"))
				return string(b), err
			}, "ct"},
		{api.Decrypt, `{"aad":"` + b64("a") + `","ciphertext":"` + b64("ct") + `","keyid":"k1"}`, `{"plaintext":"` + b64("hi") + `"}`,
			func(c *Client) (any, error) {
				b, err := c.Decrypt(t.Context(), "k1", []byte("ct"), []byte("a"))
				return string(b), err
			}, "hi"},
		{api.GenerateDataKey, `{"keyid":"k1","keylen":3}`, `{"plaintext":"` + b64("abc") + `","ciphertext":"` + b64("ct") + `"}`,
			func(c *Client) (any, error) {
				p, b, err := c.GenerateDataKey(t.Context(), "k1", 3, nil)
				return string(p) + " " + string(b), err
			}, "abc ct"},
		{api.GenerateDataKeyWithoutPlaintext, `{"keyid":"k1","keylen":3}`, `{"ciphertext":"` + b64("ct") + `"}`,
			func(c *Client) (any, error) {
				b, err := c.GenerateDataKeyWithoutPlaintext(t.Context(), "k1", 3, nil)
				return string(b), err
			}, "ct"},
		{api.ListKey, `{}`, `{"list":[{"keyid":"k1","creationDate":5,"expireTime":253402300799000,"alias":"","keyspec":"EH_SM4_CBC","keyState":0}]}`,
			func(c *Client) (any, error) { return c.ListKeys(t.Context()) }, "[{k1 5 253402300799000  EH_SM4_CBC disabled}]"},
		{api.EnableKey, `{"keyid":"k1"}`, `{}`, func(c *Client) (any, error) { return nil, c.EnableKey(t.Context(), "k1") }, "<nil>"},
		{api.DisableKey, `{"keyid":"k1"}`, `{}`, func(c *Client) (any, error) { return nil, c.DisableKey(t.Context(), "k1") }, "<nil>"},
		{api.DeleteKey, `{"keyid":"k1"}`, `{}`, func(c *Client) (any, error) { return nil, c.DeleteKey(t.Context(), "k1") }, "<nil>"},
		{api.DeleteAllKey, `{}`, `{}`, func(c *Client) (any, error) { return nil, c.DeleteAllKeys(t.Context()) }, "<nil>"},
		{api.GetVersion, "", `{"version":"1.2","git_sha":"abc"}`, func(c *Client) (any, error) { return c.Version(t.Context()) }, "{1.2 abc}"},
		{api.Enroll, "", `{"appid":"a","apikey":"the-key"}`,
			func(c *Client) (any, error) {
				cred, err := c.Enroll(t.Context())
				return fmt.Sprintf("%v %s", cred, cred.APIKey.Expose()), err
			}, "{a apikey} the-key"},
		{"Sign", `{"message":"x","n":7}`, `{"signature":"s"}`,
			func(c *Client) (any, error) {
				var res struct{ Signature string }
				err := c.Do(t.Context(), "Sign", map[string]any{"message": "x", "n": 7}, &res)
				return res.Signature, err
			}, "s"},
		{"VerifyAll", `{}`, `{"ignored":1}`, func(c *Client) (any, error) { return nil, c.Do(t.Context(), "VerifyAll", nil, nil) }, "<nil>"},
	})
}

func testActions(t *testing.T, tests []actionTest) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.action, func(t *testing.T) {
			s := &fakeServer{answer: func(action string, payload map[string]any) string {
				delete(payload, "action")
				got := ""
				if payload != nil {
					b, _ := json.Marshal(payload)
					got = string(b)
				}
				if action != tt.action || got != tt.payload {
					t.Errorf("server: got %s %s, want %s %s", action, got, tt.action, tt.payload)
				}
				return succeed(tt.result)
			}}
			got, err := tt.call(s.start(t))
			if err != nil || fmt.Sprint(got) != tt.want {
				t.Errorf("%s: got %v, %v, want %s", tt.action, got, err, tt.want)
			}
		})
	}
}

// A resultTest is an answer that its method must refuse.
type resultTest struct {
	name, result string
	call         func(*Client) error
}

// A success whose result has not what the action gives is an error.
func TestResultsWithoutTheirMembers(t *testing.T) {
	testResults(t, []resultTest{
		{"no keyid", `{}`, func(c *Client) error { _, err := c.CreateKey(t.Context(), "s", "u", "o"); return err }},
		{"short data key", `{"plaintext":"YWI=","ciphertext":"YQ=="}`, func(c *Client) error { _, _, err := c.GenerateDataKey(t.Context(), "k", 3, nil); return err }},
		{"no data key", `{"ciphertext":"YQ=="}`, func(c *Client) error { _, _, err := c.GenerateDataKey(t.Context(), "k", 3, nil); return err }},
		{"no ciphertext of a data key", `{"plaintext":"YWJj"}`, func(c *Client) error { _, _, err := c.GenerateDataKey(t.Context(), "k", 3, nil); return err }},
		{"no ciphertext without plaintext", `{}`, func(c *Client) error {
			_, err := c.GenerateDataKeyWithoutPlaintext(t.Context(), "k", 3, nil)
			return err
		}},
		{"no ciphertext", `{}`, func(c *Client) error { _, err := c.Encrypt(t.Context(), "k", []byte("p"), nil); return err }},
		{"null ciphertext", `null`, func(c *Client) error { _, err := c.Encrypt(t.Context(), "k", []byte("p"), nil); return err }},
		{"no plaintext", `{}`, func(c *Client) error { _, err := c.Decrypt(t.Context(), "k", []byte("c"), nil); return err }},
		{"plaintext is no base64", `{"plaintext":"?"}`, func(c *Client) error { _, err := c.Decrypt(t.Context(), "k", []byte("c"), nil); return err }},
		{"no list", `{}`, func(c *Client) error { _, err := c.ListKeys(t.Context()); return err }},
		{"no apikey", `{"appid":"a"}`, func(c *Client) error { _, err := c.Enroll(t.Context()); return err }},
		{"result is a list", `[]`, func(c *Client) error { return c.EnableKey(t.Context(), "k") }},
	})
}

func testResults(t *testing.T, tests []resultTest) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &fakeServer{answer: func(string, map[string]any) string { return succeed(tt.result) }}
			if err := tt.call(s.start(t)); err == nil {
				t.Error("got no error")
			}
		})
	}
}
