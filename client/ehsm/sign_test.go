package ehsm

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/api/canon"
)

func testClient(t testing.TB) *Client {
	t.Helper()
	c, err := New(Config{URL: "https://localhost:9000", AppID: testAppID, APIKey: NewAPIKey(testAPIKey)})
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	c.now = func() time.Time { return time.UnixMilli(1700000000000) }
	return c
}

// want is the canonical string written by hand, with N for the nonce.
func TestSign(t *testing.T) {
	const head = "appid=" + testAppID + "&nonce=N&payload="
	tests := []struct{ name, action, payload, want string }{
		{"no payload", "ListKey", "", "action=ListKey"},
		{"empty payload", "ListKey", " { } ", "action=ListKey"},
		{"members", "Encrypt", `{"plaintext":"aGk=","keyid":"k","aad":"YQ=="}`, "aad=YQ==&action=Encrypt&keyid=k&plaintext=aGk="},
		{"number", "GenerateDataKey", `{"keylen":48.0}`, "action=GenerateDataKey&keylen=48"},
		{"own action", "EnableKey", `{"action":"DisableKey","keyid":"k"}`, "action=DisableKey&keyid=k"},
		{"signs raw", "CreateSecret", `{"secretData":"x\ny<&>+%\"\\é\u2028"}`, "action=CreateSecret&secretData=x\ny<&>+%\"\\é\u2028"},
		{"sorted", "X", `{"b":1,"B":2,"_":3}`, "B=2&_=3&action=X&b=1"},
		{"skipped members", "X", `{"a":"","b":0,"c":false,"d":null,"e":[]}`, "action=X"},
		{"nested", "X", `{"z":{"b":[1,"x"],"a":true}}`, "action=X&z=a=true&b=0=1&1=x"},
		{"action with a quote", `a"b`, "", `action=a"b`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			body, err := testClient(t).Sign(tt.action, []byte(tt.payload))
			if err != nil {
				t.Fatalf("Sign: %v", err)
			}
			var req api.Request
			if err := json.Unmarshal(body, &req); err != nil {
				t.Fatalf("Sign: got %s: %v", body, err)
			}
			h := hmac.New(sha256.New, []byte(testAPIKey))
			io.WriteString(h, strings.Replace(head, "N", req.Nonce, 1)+tt.want+"&timestamp=1700000000000")
			if want := base64.StdEncoding.EncodeToString(h.Sum(nil)); req.Sign != want {
				tree, _ := canon.Parse(body)
				t.Errorf("Sign: signed %q", tree.AppendCanonical(nil, canon.Skipping))
			}
			if req.AppID != testAppID || len(req.Nonce) < 26 || len(req.Nonce) > api.MaxNonce {
				t.Errorf("Sign: got appid %s, nonce %q", req.AppID, req.Nonce)
			}
		})
	}
}

func TestSignIsFresh(t *testing.T) {
	c := testClient(t)
	a, errA := c.Sign("ListKey", nil)
	b, errB := c.Sign("ListKey", nil)
	if errA != nil || errB != nil || string(a) == string(b) {
		t.Errorf("Sign: two requests of one millisecond are equal: %s, %v, %v", a, errA, errB)
	}
}

func TestSignRefusals(t *testing.T) {
	tests := []struct{ name, payload string }{
		{"no JSON", `{`},
		{"list", `[1]`},
		{"text", `"x"`},
		{"trailing bytes", `{"a":1}}`},
		{"two objects", `{"a":1}{"b":2}`},
		{"invalid UTF-8", "{\"a\":\"\xff\"}"},
		{"overflowing number", `{"a":1e999}`},
		{"too deep", strings.Repeat(`{"a":`, 16) + "1" + strings.Repeat("}", 16)},
		{"too deep with the envelope", strings.Repeat(`{"a":`, 15) + "{}" + strings.Repeat("}", 15)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if body, err := testClient(t).Sign("X", []byte(tt.payload)); !errors.Is(err, canon.ErrSyntax) || body != nil {
				t.Errorf("Sign: got %s, %v, want ErrSyntax", body, err)
			}
		})
	}
	c, err := New(Config{URL: "https://localhost:9000"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Sign("ListKey", nil); !errors.Is(err, ErrNoCredentials) {
		t.Errorf("Sign without credentials: got %v, want ErrNoCredentials", err)
	}
	if _, err := c.ListKeys(t.Context()); !errors.Is(err, ErrNoCredentials) {
		t.Errorf("ListKeys without credentials: got %v, want ErrNoCredentials", err)
	}
}

func BenchmarkSign(b *testing.B) {
	c := testClient(b)
	payload := []byte(`{"keyid":"` + testKeyID + `","plaintext":"aGVsbG8gd29ybGQsIHRoaXMgaXMgMzIgYnl0ZXM="}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Sign(api.Encrypt, payload); err != nil {
			b.Fatal(err)
		}
	}
}
