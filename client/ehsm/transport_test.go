package ehsm

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api"
)

func TestParseURL(t *testing.T) {
	tests := []struct{ in, want string }{
		{"https://kms:9000", "https://kms:9000/ehsm?Action=X"},
		{"https://kms:9000/", "https://kms:9000/ehsm?Action=X"},
		{"https://kms:9000/ehsm", "https://kms:9000/ehsm?Action=X"},
		{"https://kms:9000/EHSM/", "https://kms:9000/ehsm?Action=X"},
		{"https://gateway/kms", "https://gateway/kms/ehsm?Action=X"},
		{"https://[::1]:9000", "https://[::1]:9000/ehsm?Action=X"},
		{"", ""},
		{"kms:9000", ""},
		{"//kms:9000", ""},
		{"https://", ""},
		{"https://:9000", ""},
		{"ftp://kms", ""},
		{"unix:/run/kms", ""},
		{"https://user:pw@kms", ""},
		{"https://kms?a=b", ""},
		{"https://kms#f", ""},
		{"https://kms:port", ""},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			c, err := New(Config{URL: tt.in})
			if (err == nil) != (tt.want != "") {
				t.Fatalf("New: got %v", err)
			}
			if err == nil && c.URL("X") != tt.want {
				t.Errorf("URL: got %s, want %s", c.URL("X"), tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "pw") {
				t.Errorf("New: error shows the password: %v", err)
			}
		})
	}
}

func TestConfigRefusals(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	sum := strings.Repeat("ab", 32)
	tests := []struct {
		name string
		cfg  Config
	}{
		{"plain http", Config{URL: "http://127.0.0.1:9000"}},
		{"plain http elsewhere", Config{URL: "http://kms:9000", Insecure: true}},
		{"insecure elsewhere", Config{URL: "https://kms:9000", Insecure: true}},
		{"insecure at an address that is not loopback", Config{URL: "https://192.0.2.1:9000", Insecure: true}},
		{"insecure at a name like localhost", Config{URL: "https://localhost.example:9000", Insecure: true}},
		{"fingerprint on plain http", Config{URL: "http://127.0.0.1:9000", Insecure: true, Fingerprint: sum}},
		{"CA file on plain http", Config{URL: "http://127.0.0.1:9000", Insecure: true, CAFile: empty}},
		{"short fingerprint", Config{URL: "https://kms", Fingerprint: sum[2:]}},
		{"fingerprint is no hex", Config{URL: "https://kms", Fingerprint: "zz" + sum[2:]}},
		{"missing CA file", Config{URL: "https://kms", CAFile: filepath.Join(dir, "none.pem")}},
		{"CA file without certificates", Config{URL: "https://kms", CAFile: empty}},
		{"app id without key", Config{URL: "https://kms", AppID: "a"}},
		{"key without app id", Config{URL: "https://kms", APIKey: NewAPIKey("k")}},
		{"negative timeout", Config{URL: "https://kms", Timeout: -time.Second}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if c, err := New(tt.cfg); err == nil || c != nil {
				t.Errorf("New: got %v, want an error", err)
			}
		})
	}
}

func TestParseFingerprint(t *testing.T) {
	const want = 0xab
	plain := strings.Repeat("ab", 32)
	for name, text := range map[string]string{
		"plain": plain, "upper case": strings.ToUpper(plain),
		"colons": strings.TrimSuffix(strings.Repeat("AB:", 32), ":"),
	} {
		sum, err := ParseFingerprint(text)
		if err != nil || sum[0] != want || sum[31] != want {
			t.Errorf("%s: got %x, %v", name, sum, err)
		}
	}
}

// Who the server is must be known by roots, by a CA file or by a fingerprint.
func TestServerAuthentication(t *testing.T) {
	s := &fakeServer{t: t, answer: func(string, map[string]any) string { return succeed(`{"version":"1","git_sha":""}`) }}
	ts := httptest.NewTLSServer(s)
	defer ts.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ts.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	good, bad := fingerprint(ts), strings.Repeat("00", 32)
	localhost := strings.Replace(ts.URL, "127.0.0.1", "localhost", 1) // not in the certificate
	tests := []struct {
		name string
		cfg  Config
		ok   bool
	}{
		{"system roots", Config{URL: ts.URL}, false},
		{"CA file", Config{URL: ts.URL, CAFile: ca}, true},
		{"CA file, other name", Config{URL: localhost, CAFile: ca}, false},
		{"fingerprint", Config{URL: ts.URL, Fingerprint: good}, true},
		{"fingerprint, other name", Config{URL: localhost, Fingerprint: good}, true},
		{"other fingerprint", Config{URL: ts.URL, Fingerprint: bad}, false},
		{"both", Config{URL: ts.URL, CAFile: ca, Fingerprint: good}, true},
		{"CA file with other fingerprint", Config{URL: ts.URL, CAFile: ca, Fingerprint: bad}, false},
		{"fingerprint and CA file, other name", Config{URL: localhost, CAFile: ca, Fingerprint: good}, false},
		{"insecure", Config{URL: ts.URL, Insecure: true}, true},
		{"insecure with other fingerprint", Config{URL: ts.URL, Insecure: true, Fingerprint: bad}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := New(tt.cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, err = c.Version(t.Context())
			if (err == nil) != tt.ok {
				t.Errorf("Version: got %v, want success %v", err, tt.ok)
			}
			var certificate *tls.CertificateVerificationError
			if err != nil && !errors.Is(err, ErrFingerprint) && !errors.As(err, &certificate) {
				t.Errorf("Version: got %v, want a certificate error", err)
			}
		})
	}
	if got, err := UnverifiedFingerprint(t.Context(), ts.URL); err != nil || got != good {
		t.Errorf("UnverifiedFingerprint: got %s, %v, want %s", got, err, good)
	}
}

func TestPlainHTTP(t *testing.T) {
	s := &fakeServer{t: t, answer: func(string, map[string]any) string { return succeed(`{"list":[]}`) }}
	ts := httptest.NewServer(s)
	defer ts.Close()
	c, err := New(Config{URL: ts.URL, Insecure: true, AppID: testAppID, APIKey: NewAPIKey(testAPIKey)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.ListKeys(t.Context()); err != nil {
		t.Errorf("ListKeys: %v", err)
	}
	if _, err := UnverifiedFingerprint(t.Context(), ts.URL); err == nil {
		t.Error("UnverifiedFingerprint over plain http: got no error")
	}
}

func TestOnlyLoopback(t *testing.T) {
	for address, ok := range map[string]bool{
		"127.0.0.1:80": true, "127.9.9.9:80": true, "[::1]:80": true,
		"192.0.2.1:80": false, "[2001:db8::1]:80": false, "0.0.0.0:80": false, "kms:80": false, "127.0.0.1": false,
	} {
		if err := onlyLoopback(t.Context(), "tcp", address, nil); (err == nil) != ok {
			t.Errorf("onlyLoopback(%s): got %v", address, err)
		}
	}
}

// The name localhost may resolve to anything, so the address is looked at too.
func TestInsecureDialsLoopbackOnly(t *testing.T) {
	c, err := New(Config{URL: "https://localhost:9000", Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.http.Transport.(*http.Transport).DialContext(t.Context(), "tcp", "192.0.2.1:9000")
	if err == nil || !strings.Contains(err.Error(), "not a loopback address") {
		t.Errorf("DialContext: got %v", err)
	}
}

func TestCiphertextKeyID(t *testing.T) {
	ct := append([]byte{1}, []byte("\xaa\xc3\xe4\x5a\xd3\xdc\x47\x91\x89\xb6\x4a\xda\x0e\x38\xe6\xef rest")...)
	if id, ok := CiphertextKeyID(ct); !ok || id != testKeyID {
		t.Errorf("CiphertextKeyID: got %s, %v, want %s", id, ok, testKeyID)
	}
	for name, bad := range map[string][]byte{"empty": nil, "short": ct[:16], "other format": append([]byte{2}, ct[1:]...)} {
		if id, ok := CiphertextKeyID(bad); ok || id != "" {
			t.Errorf("%s: got %s, %v", name, id, ok)
		}
	}
	if !IsEnvelope([]byte(envelopeMagic)) || IsEnvelope(ct) || IsEnvelope(nil) || IsEnvelope([]byte(api.Encrypt)) {
		t.Error("IsEnvelope: wrong")
	}
}
