package ceiling

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const (
	testSecret = "D3nK2Vq90QrFkHGRZ3dBAyFEfPTtLfQy"
	testBody   = `{"keyid":"k1","plaintext":"YXR0YWNrIGF0IGRhd24="}` // attack at dawn
	// printf %s BODY | openssl dgst -sha256 -hmac SECRET -binary | base64
	testMAC = "lEdbhFEpJYg23a7OOZ1dXpQCKg2PsFRCgdCvOki8vAM="
)

func newKey(t testing.TB) (sealing, plain cipher.AEAD) {
	t.Helper()
	block, err := aes.NewCipher(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	if sealing, err = cipher.NewGCMWithRandomNonce(block); err != nil {
		t.Fatal(err)
	}
	if plain, err = cipher.NewGCM(block); err != nil {
		t.Fatal(err)
	}
	return sealing, plain
}

func post(h http.Handler, body, mac string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/encrypt", strings.NewReader(body))
	r.Header.Set(MACHeader, mac)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// The answer opens with an AES-256-GCM that is not the server's, so it was
// really encrypted, and two answers differ, so the nonce is fresh.
func TestEncrypts(t *testing.T) {
	key, plain := newKey(t)
	h := Handler([]byte(testSecret), map[string]cipher.AEAD{"k1": key})
	var last []byte
	for range 2 {
		w := post(h, testBody, testMAC)
		var reply Reply
		if err := json.Unmarshal(w.Body.Bytes(), &reply); w.Code != http.StatusOK || err != nil {
			t.Fatalf("Handler: got status %d, body %q, %v", w.Code, w.Body, err)
		}
		ct := reply.Ciphertext
		if len(ct) != 12+len("attack at dawn")+16 || bytes.Equal(ct, last) {
			t.Fatalf("Handler: got ciphertext %x after %x", ct, last)
		}
		got, err := plain.Open(nil, ct[:12], ct[12:], nil)
		if err != nil || string(got) != "attack at dawn" {
			t.Errorf("Open: got %q, %v", got, err)
		}
		last = ct
	}
}

func TestRefuses(t *testing.T) {
	key, _ := newKey(t)
	h := Handler([]byte(testSecret), map[string]cipher.AEAD{"k1": key})
	other := Handler([]byte("another secret"), map[string]cipher.AEAD{"k1": key})
	unknown := Handler([]byte(testSecret), nil)
	tests := []struct {
		name      string
		handler   http.Handler
		body, mac string
		want      int
	}{
		{"no MAC", h, testBody, "", http.StatusForbidden},
		{"no base64", h, testBody, "?", http.StatusForbidden},
		{"cut MAC", h, testBody, base64.StdEncoding.EncodeToString(make([]byte, 31)), http.StatusForbidden},
		{"wrong MAC", h, testBody, base64.StdEncoding.EncodeToString(make([]byte, 32)), http.StatusForbidden},
		{"upper-cased MAC", h, testBody, strings.ToUpper(testMAC), http.StatusForbidden},
		{"altered body", h, strings.Replace(testBody, "YXR", "YXS", 1), testMAC, http.StatusForbidden},
		{"longer body", h, testBody + " ", testMAC, http.StatusForbidden},
		{"other secret", other, testBody, testMAC, http.StatusForbidden},
		{"unknown key", unknown, testBody, testMAC, http.StatusNotFound},
		{"too long", h, strings.Repeat(" ", maxBody+1), testMAC, http.StatusBadRequest},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if w := post(tt.handler, tt.body, tt.mac); w.Code != tt.want || w.Body.Len() != 0 {
				t.Errorf("Handler: got status %d, body %q, want %d", w.Code, w.Body, tt.want)
			}
		})
	}
}

func TestRefusesMalformedBody(t *testing.T) {
	// printf '{"keyid":' | openssl dgst -sha256 -hmac SECRET -binary | base64
	const mac = "jTai3hoRvqT5PRjmIDstZphGQhc9pVr9SXaFE2VSkQs="
	if w := post(Handler([]byte(testSecret), nil), `{"keyid":`, mac); w.Code != http.StatusBadRequest {
		t.Errorf("Handler: got status %d, want %d", w.Code, http.StatusBadRequest)
	}
}

func TestServeEndsWithContext(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- Serve(ctx, ln, nil, Handler([]byte(testSecret), nil)) }()
	resp, err := http.Post("http://"+ln.Addr().String(), "", strings.NewReader(testBody))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("Post: got status %d, want %d", resp.StatusCode, http.StatusForbidden)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve: got %v, want nil", err)
	}
}
