package ehsm

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ehsm-kms/ehsm/api"
)

const (
	testAppID  = "86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c"
	testAPIKey = "D3nK2Vq90QrFkHGRZ3dBAyFEfPTtLfQy"
	testKeyID  = goldenKeyID
)

// A fakeServer answers requests as the contract says, with its own check of
// their signatures and its own signature of replies. answer gets the payload of
// a request that was accepted and returns the envelope.
type fakeServer struct {
	t      testing.TB
	answer func(action string, payload map[string]any) string
	sign   func(key []byte, mac []byte, action, body string) string // nil: as the contract says

	mu     sync.Mutex
	nonces map[string]bool
	seen   int // requests
	conns  map[string]bool
}

// succeed is the envelope of a success.
func succeed(result string) string {
	return `{"code":200,"message":"successful","result":` + result + `}`
}

func refuse(code int, message string) string {
	return fmt.Sprintf(`{"code":%d,"message":%q,"result":{}}`, code, message)
}

func replySign(key, mac []byte, action, body string) string {
	reply, err := hkdf.Key(sha256.New, key, nil, "ehsm-reply/v1", 32)
	if err != nil {
		panic(err)
	}
	h := hmac.New(sha256.New, reply)
	h.Write(mac)
	h.Write([]byte{byte(len(action))})
	io.WriteString(h, action+body)
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// canonical renders an object of texts, numbers, true, null, objects, and arrays of up
// to ten elements.
func canonical(m map[string]any) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		switch v := m[name].(type) {
		case nil:
		case map[string]any:
			parts = append(parts, name+"="+canonical(v))
		case []any:
			indexed := map[string]any{}
			for i, e := range v {
				indexed[fmt.Sprint(i)] = e
			}
			parts = append(parts, name+"="+canonical(indexed))
		default:
			parts = append(parts, fmt.Sprintf("%s=%v", name, v))
		}
	}
	return strings.Join(parts, "&")
}

func (s *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen++
	if s.conns == nil {
		s.conns, s.nonces = map[string]bool{}, map[string]bool{}
	}
	s.conns[r.RemoteAddr] = true
	action := r.URL.Query().Get("Action")
	if r.URL.Path != "/ehsm" || r.URL.RawQuery != "Action="+action {
		s.t.Errorf("got URL %s", r.URL)
	}
	body, _ := io.ReadAll(r.Body)
	if action == api.Enroll || action == api.GetVersion {
		if r.Method != http.MethodGet || len(body) > 0 {
			s.t.Errorf("%s: got %s with %d bytes, want GET", action, r.Method, len(body))
		}
		io.WriteString(w, s.answer(action, nil))
		return
	}
	payload, mac, problem := s.check(r.Method, action, body)
	if problem != "" {
		s.t.Errorf("%s: %s", action, problem)
		io.WriteString(w, refuse(400, "sign error"))
		return
	}
	reply := s.answer(action, payload)
	sign := s.sign
	if sign == nil {
		sign = replySign
	}
	if value := sign([]byte(testAPIKey), mac, action, reply); value != "" {
		w.Header().Set("Ehsm-Reply-Signature", value)
	}
	io.WriteString(w, reply)
}

// check verifies a request and says what is wrong with it.
func (s *fakeServer) check(method, action string, body []byte) (payload map[string]any, mac []byte, problem string) {
	var m map[string]any
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.UseNumber()
	if err := d.Decode(&m); err != nil || method != http.MethodPost {
		return nil, nil, fmt.Sprintf("got %s, %v", method, err)
	}
	nonce, _ := m["nonce"].(string)
	timestamp, _ := m["timestamp"].(string)
	payload, _ = m["payload"].(map[string]any)
	sign, _ := m["sign"].(string)
	delete(m, "sign")
	h := hmac.New(sha256.New, []byte(testAPIKey))
	io.WriteString(h, canonical(m))
	mac = h.Sum(nil)
	switch {
	case m["appid"] != testAppID || len(m) != 4:
		return nil, nil, fmt.Sprintf("got members %v", slices.Sorted(maps.Keys(m)))
	case sign != base64.StdEncoding.EncodeToString(mac):
		return nil, nil, "wrong signature"
	case len(timestamp) != 13:
		return nil, nil, "timestamp " + timestamp
	case len(nonce) < 22 || len(nonce) > 64 || s.nonces[nonce]:
		return nil, nil, "nonce " + nonce
	case payload["action"] != action:
		return nil, nil, fmt.Sprintf("signed action is %v", payload["action"])
	}
	s.nonces[nonce] = true
	return payload, mac, ""
}

// start serves s over TLS and returns a client that pins the certificate.
func (s *fakeServer) start(t testing.TB) *Client {
	t.Helper()
	s.t = t
	ts := httptest.NewTLSServer(s)
	t.Cleanup(ts.Close)
	c, err := New(Config{URL: ts.URL, Fingerprint: fingerprint(ts), AppID: testAppID, APIKey: NewAPIKey(testAPIKey)})
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(c.Close)
	return c
}

func fingerprint(ts *httptest.Server) string {
	return fmt.Sprintf("%x", sha256.Sum256(ts.Certificate().Raw))
}
