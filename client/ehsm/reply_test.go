package ehsm

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/api"
)

// Nothing that the core did not sign for this very request counts as a success.
func TestReplySignatures(t *testing.T) {
	enabled := succeed(`{}`)
	tests := []struct {
		name  string
		sign  func(key, mac []byte, action, body string) string
		reply string
		want  error // nil for a success
	}{
		{"signed", nil, enabled, nil},
		{"no signature", func(_, _ []byte, _, _ string) string { return "" }, enabled, ErrReplySignature},
		{"other key", func(_, mac []byte, action, body string) string { return replySign([]byte("x"), mac, action, body) }, enabled, ErrReplySignature},
		{"other request", func(key, mac []byte, action, body string) string {
			return replySign(key, append([]byte{mac[0] ^ 1}, mac[1:]...), action, body)
		}, enabled, ErrReplySignature},
		{"other action", func(key, mac []byte, _, body string) string { return replySign(key, mac, "DisableKey", body) }, enabled, ErrReplySignature},
		{"other body", func(key, mac []byte, action, body string) string { return replySign(key, mac, action, body+" ") }, enabled, ErrReplySignature},
		{"garbage", func(_, _ []byte, _, _ string) string { return "garbage" }, enabled, ErrReplySignature},
		{"badly signed refusal", func(_, _ []byte, _, _ string) string { return "garbage" }, refuse(400, api.MessageKeyDisabled), ErrReplySignature},
		{"no code", nil, `{"message":"successful","result":{}}`, ErrReply},
		{"no object", nil, `[]`, ErrReply},
		{"no JSON", nil, `<html>`, ErrReply},
		{"empty", nil, ``, ErrReply},
		{"unsigned and no JSON", func(_, _ []byte, _, _ string) string { return "" }, `<html>`, ErrReply},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &fakeServer{sign: tt.sign, answer: func(string, map[string]any) string { return tt.reply }}
			c := s.start(t)
			err := c.EnableKey(t.Context(), "k")
			if !errors.Is(err, tt.want) {
				t.Errorf("EnableKey: got %v, want %v", err, tt.want)
			}
			if IsUnauthenticated(err) || IsKeyDisabled(err) {
				t.Errorf("EnableKey: %v is taken for a refusal", err)
			}
			_, err = c.Raw(t.Context(), api.EnableKey, []byte(`{"keyid":"k"}`))
			if !errors.Is(err, tt.want) {
				t.Errorf("Raw: got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	unsigned := func(_, _ []byte, _, _ string) string { return "" }
	tests := []struct {
		name     string
		sign     func(key, mac []byte, action, body string) string
		code     int
		message  string
		is       func(error) bool
		unsigned bool
	}{
		{"disabled", nil, 400, api.MessageKeyDisabled, IsKeyDisabled, false},
		{"disabled, says the host", unsigned, 400, api.MessageKeyDisabled, IsKeyDisabled, true},
		{"unknown key", nil, 400, api.MessageKeyUnknown, IsKeyNotFound, false},
		{"unknown key of EnableKey", nil, 400, api.MessageKeyNotFound, IsKeyNotFound, false},
		{"expired", nil, 400, api.MessageKeyExpired, IsKeyExpired, false},
		{"does not open", nil, 400, api.MessageDecryptionFailed, IsDecryptionFailed, false},
		{"clock", unsigned, 400, api.MessageTimestamp, IsClock, true},
		{"credentials", unsigned, 400, api.MessageSign, IsBadCredentials, true},
		{"overload", unsigned, 429, api.MessageTooMany, IsOverloaded, true},
		{"over the limit of requests", nil, 429, api.MessageTooMany, IsOverloaded, false},
		{"too many keys", nil, 429, api.MessageFullKeys, IsFull, false},
		{"too many secrets", nil, 429, api.MessageFullSecrets, IsFull, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &fakeServer{sign: tt.sign, answer: func(string, map[string]any) string { return refuse(tt.code, tt.message) }}
			err := s.start(t).EnableKey(t.Context(), "k")
			var refusal *api.Error
			if !errors.As(err, &refusal) || *refusal != (api.Error{Code: tt.code, Message: tt.message}) {
				t.Fatalf("EnableKey: got %v", err)
			}
			if IsUnauthenticated(err) != tt.unsigned {
				t.Errorf("IsUnauthenticated: got %v, want %v", !tt.unsigned, tt.unsigned)
			}
			if got := strings.Contains(err.Error(), "not signed by the core"); got != tt.unsigned {
				t.Errorf("Error: got %q", err)
			}
			for i, is := range []func(error) bool{IsKeyDisabled, IsKeyNotFound, IsKeyExpired, IsDecryptionFailed, IsClock, IsBadCredentials, IsOverloaded, IsFull} {
				if is(err) && !tt.is(err) {
					t.Errorf("helper %d takes %v for its own", i, err)
				}
			}
			if !tt.is(err) {
				t.Errorf("helper does not know %v", err)
			}
		})
	}
}

// What does not look like the API at all.
func TestReplyTransport(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("a redirect was followed")
	}))
	defer other.Close()
	tests := []struct {
		name  string
		serve http.HandlerFunc
	}{
		{"not found", http.NotFound},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		}},
		{"gateway", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }},
		{"no content", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }},
		{"announced too long", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(maxReply+1))
			w.Write(make([]byte, maxReply+1))
		}},
		{"endless", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ts := httptest.NewTLSServer(tt.serve)
			defer ts.Close()
			c, err := New(Config{URL: ts.URL, Fingerprint: fingerprint(ts), AppID: testAppID, APIKey: NewAPIKey(testAPIKey)})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.EnableKey(t.Context(), "k"); !errors.Is(err, ErrReply) {
				t.Errorf("EnableKey: got %v, want ErrReply", err)
			}
		})
	}
}

func TestDeadline(t *testing.T) {
	hang := make(chan struct{})
	ts := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	defer ts.Close()
	defer close(hang)
	c, err := New(Config{URL: ts.URL, Fingerprint: fingerprint(ts), AppID: testAppID, APIKey: NewAPIKey(testAPIKey), Timeout: 50e6})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.ListKeys(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ListKeys: got %v, want DeadlineExceeded", err)
	}
	if err := c.EnableKey(t.Context(), "k"); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("EnableKey: got %v, want DeadlineExceeded and ErrOutcomeUnknown", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.ListKeys(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("ListKeys: got %v, want Canceled", err)
	}
}

func TestConnectionsAreReused(t *testing.T) {
	s := &fakeServer{answer: func(string, map[string]any) string { return succeed(`{"list":[]}`) }}
	c := s.start(t)
	for range 20 {
		if _, err := c.With(Credentials{testAppID, NewAPIKey(testAPIKey)}).ListKeys(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if s.seen != 20 || len(s.conns) != 1 {
		t.Errorf("got %d requests over %d connections, want 20 over 1", s.seen, len(s.conns))
	}
}
