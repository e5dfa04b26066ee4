package bench

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

func newTestSource(t testing.TB, f *fake, payload string) *nativeSource {
	t.Helper()
	cred := ehsm.Credentials{AppID: fakeAppID, APIKey: ehsm.NewAPIKey(f.apiKey)}
	client, err := ehsm.New(ehsm.Config{URL: "https://127.0.0.1:9000", AppID: cred.AppID, APIKey: cred.APIKey})
	if err != nil {
		t.Fatal(err)
	}
	s, err := newNativeSource("127.0.0.1:9000", client, cred, api.Encrypt, []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// readRequest reads an HTTP request as net/http does, which must take all of it.
func readRequest(t *testing.T, b []byte) (*http.Request, []byte) {
	t.Helper()
	in := bufio.NewReader(bytes.NewReader(b))
	r, err := http.ReadRequest(in)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || in.Buffered() > 0 {
		t.Fatalf("read request: %v, %d bytes more than announced", err, in.Buffered())
	}
	return r, body
}

// The fake service checks signature, action and that no nonce comes twice; what
// looks like the changing members inside the payload stays as it is.
func TestNativeSource(t *testing.T) {
	f := newFake()
	s := newTestSource(t, f, `{"keyid":"k","plaintext":"aGk=","z":"\"timestamp\":\"&timestamp=&nonce=\"nonce\":\"\"sign\":\""}`)
	now := time.UnixMilli(1700000000000)
	for i := range 3 {
		r, body := readRequest(t, s.next(now.Add(time.Duration(i)*time.Millisecond)))
		if r.Method != http.MethodPost || r.Host != "127.0.0.1:9000" || r.URL.String() != "/ehsm?Action=Encrypt" {
			t.Errorf("next: got %s %s at %s", r.Method, r.URL, r.Host)
		}
		if want := []byte(`"timestamp":"170000000000` + string(rune('0'+i)) + `"`); !bytes.Contains(body, want) {
			t.Errorf("next: got %s, want %s in it", body, want)
		}
		_, payload, err := f.authenticate(api.Encrypt, body)
		if err != nil {
			t.Errorf("next: refused: %v: %s", err, body)
		}
		if want := `{"action":"Encrypt","keyid":"k","plaintext":"aGk=","z":"\"timestamp\":\"\u0026timestamp=\u0026nonce=\"nonce\":\"\"sign\":\""}`; string(payload) != want {
			t.Errorf("next: got payload %s, want %s", payload, want)
		}
	}
}

// Two connections must not have the same nonces.
func TestNativeSourcesDiffer(t *testing.T) {
	f := newFake()
	now := time.Now()
	for range 2 {
		_, body := readRequest(t, newTestSource(t, f, `{"keyid":"k"}`).next(now))
		if _, _, err := f.authenticate(api.Encrypt, body); err != nil {
			t.Errorf("next: refused: %v", err)
		}
	}
}

func TestNativeSourceDoesNotAllocate(t *testing.T) {
	s, now := newTestSource(t, newFake(), `{"keyid":"k"}`), time.Now()
	if n := testing.AllocsPerRun(100, func() { s.next(now) }); n > 0 {
		t.Errorf("next: got %v allocations, want 0", n)
	}
}

func TestCheckNative(t *testing.T) {
	tests := []struct {
		name, body, want string
	}{
		{"success", `{"code":200,"message":"successful","result":{}}`, ""},
		{"success in another order", `{"result":{},"message":"successful","code":200}`, ""},
		{"refusal", `{"code":400,"message":"sign error","result":{}}`, "sign error (code 400)"},
		{"code that begins as success", `{"code":2000,"message":"a","result":{}}`, "a (code 2000)"},
		{"no code", `{}`, `"" (code 0)`},
		{"no JSON", `oops`, "read reply: invalid character 'o' looking for beginning of value"},
		{"empty", ``, "read reply: unexpected end of JSON input"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if err := checkNative([]byte(tt.body)); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("checkNative: got %s, want %s", got, tt.want)
			}
		})
	}
}
