package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// A middle is a manager's place in the hands of an attacker: it ends TLS, reads and
// keeps all that passes, and alters it as a test wants.
type middle struct {
	*httptest.Server
	g *target

	mu      sync.Mutex
	passed  bytes.Buffer // bodies of both directions
	asked   [][]byte     // bodies of requests
	replied [][]byte
	request func(action string, body []byte) []byte // nil: as it came
	reply   func(action string, body []byte) []byte // nil: as it came
}

func newMiddle(t *testing.T, g *target) *middle {
	m := &middle{g: g}
	m.Server = httptest.NewTLSServer(m)
	t.Cleanup(m.Close)
	return m
}

func (m *middle) fingerprint() string { return fmt.Sprintf("%x", sha256.Sum256(m.Certificate().Raw)) }

func (m *middle) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	action := r.URL.Query().Get("Action")
	body, _ := io.ReadAll(r.Body)
	if m.request != nil {
		body = m.request(action, body)
	}
	on, err := http.NewRequestWithContext(r.Context(), r.Method, m.g.base()+r.URL.String(), bytes.NewReader(body))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	resp, err := m.g.http.Do(on)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	if m.reply != nil {
		answer = m.reply(action, answer)
	}
	m.passed.Write(body)
	m.passed.Write(answer)
	if len(body) > 0 {
		m.asked, m.replied = append(m.asked, body), append(m.replied, answer)
	}
	for _, name := range []string{"Content-Type", "Ehsm-Reply-Signature"} {
		if v := resp.Header.Get(name); v != "" {
			w.Header().Set(name, v)
		}
	}
	w.WriteHeader(resp.StatusCode)
	w.Write(answer)
}

// as has the middle alter what passes, until the next call.
func (m *middle) as(request, reply func(action string, body []byte) []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.request, m.reply = request, reply
}

// last returns the last request with a body and its reply.
func (m *middle) last() (asked, replied []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked[len(m.asked)-1], m.replied[len(m.replied)-1]
}

// run runs ehsm with an input.
func (m *middle) run(t *testing.T, input string, args ...string) (stdout, stderr string, ok bool) {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, "ehsm"), args...)
	cmd.Env, cmd.Stdin = m.g.environ(), strings.NewReader(input)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	return out.String(), errs.String(), err == nil
}

func (m *middle) must(t *testing.T, input string, args ...string) string {
	t.Helper()
	stdout, stderr, ok := m.run(t, input, args...)
	if !ok {
		t.Fatalf("ehsm %v: %s", args, stderr)
	}
	return strings.TrimSuffix(stdout, "\n")
}

// pin makes a tenant through the middle and has its profile pin the core that is
// there and its domain, as a user does.
func (m *middle) pin(t *testing.T) {
	t.Helper()
	p := []string{"--profile", "sealed"}
	m.must(t, "", append([]string{"enroll", "--url", m.URL, "--fingerprint", m.fingerprint()}, p...)...)
	m.pinCore(t)
}

// pinCore has the profile pin the core that is there and its domain.
func (m *middle) pinCore(t *testing.T) {
	t.Helper()
	p := []string{"--profile", "sealed"}
	screen := m.must(t, "", append([]string{"attest", "verify", "--allow-sim"}, p...)...)
	policy := regexp.MustCompile(`(?m)^\{.*$`).FindString(screen)
	domain := regexp.MustCompile(`(?m)^domain: +([0-9a-f]{64})`).FindStringSubmatch(screen)
	if policy == "" || domain == nil {
		t.Fatalf("attest verify prints %s", screen)
	}
	file := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(file, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	m.must(t, "", append([]string{"attest", "verify", "--pin", "--policy", file, "--domain", domain[1]}, p...)...)
}

// TestSealedMiddle has a man in the middle between ehsm and the service, who has the
// certificate that ehsm pins, as the manager has.
func TestSealedMiddle(t *testing.T) {
	t.Parallel()
	g := newTarget(t, dev)
	m := newMiddle(t, g)
	m.pin(t)
	const marker = "a plaintext that nobody else may read"
	p := func(args ...string) []string { return append(args, "--profile", "sealed") }
	key := m.must(t, "", p("key", "create")...)
	other := m.must(t, "", p("key", "create")...)
	reply := m.must(t, "", p("api", "Encrypt", encrypts(key, marker))...)
	ciphertext := regexp.MustCompile(`"ciphertext": *"([^"]+)"`).FindStringSubmatch(reply)
	if ciphertext == nil {
		t.Fatalf("Encrypt: got %s", reply)
	}
	if got := m.must(t, "", p("api", "Decrypt", fmt.Sprintf(`{"keyid":%q,"ciphertext":%q}`, key, ciphertext[1]))...); !strings.Contains(got, b64([]byte(marker))) {
		t.Fatalf("Decrypt: got %s", got)
	}
	m.mu.Lock()
	passed := m.passed.String()
	m.mu.Unlock()
	for _, hidden := range []string{marker, b64([]byte(marker)), ciphertext[1], `"sign"`, "timestamp"} {
		if strings.Contains(passed, hidden) {
			t.Errorf("the middle sees %q", hidden)
		}
	}
	if !strings.Contains(passed, key) {
		t.Error("the middle does not see the name of the key: the test looks at the wrong place")
	}
	m.tamper(t, p, marker, key, other)
	m.replay(t, p)
}

// encrypts is the payload of an Encrypt.
func encrypts(key, plaintext string) string {
	return fmt.Sprintf(`{"keyid":%q,"plaintext":%q}`, key, b64([]byte(plaintext)))
}

// tamper alters requests, replies and evidence: nothing of it comes to a success.
func (m *middle) tamper(t *testing.T, p func(...string) []string, marker, key, other string) {
	_, earlier := m.last()
	for name, row := range map[string]struct {
		request, reply func(action string, body []byte) []byte
		want           string
	}{
		"another key outside": {request: func(_ string, b []byte) []byte { return bytes.Replace(b, []byte(key), []byte(other), 1) }, want: "sealed request error"},
		"a bit inside": {request: func(_ string, b []byte) []byte {
			if len(b) > 100 {
				b[100] ^= 1
			}
			return b
		}, want: "sealed request error"},
		"reply to an earlier request": {reply: func(action string, b []byte) []byte {
			if action == "Encrypt" {
				return earlier
			}
			return b
		}, want: "reply is not signed by the core"},
		"a reply in clear": {reply: func(action string, b []byte) []byte {
			if action == "Encrypt" {
				return []byte(`{"code":200,"message":"success!","result":{"ciphertext":"AAAA"}}`)
			}
			return b
		}, want: "reply is not signed by the core"},
		"evidence with another HPKE key": {reply: func(action string, b []byte) []byte {
			if action == "GetEvidence" {
				at := bytes.Index(b, []byte(`"hpkePublicKey":"`)) + len(`"hpkePublicKey":"`) + 1600 // of X25519
				b[at] = map[bool]byte{true: 'B', false: 'A'}[b[at] == 'A']
			}
			return b
		}, want: "no sealed request possible"},
		"a key that nobody knows": {reply: func(action string, b []byte) []byte {
			if action == "Encrypt" {
				return []byte(`{"code":400,"message":"sealed key unknown","result":{}}`)
			}
			return b
		}, want: "no sealed request possible"},
	} {
		m.as(row.request, row.reply)
		stdout, stderr, ok := m.run(t, "", p("api", "Encrypt", encrypts(key, marker))...)
		if ok || strings.Contains(stdout, "ciphertext") || !strings.Contains(stderr, row.want) {
			t.Errorf("%s: got %q, %s, want %q", name, stdout, stderr, row.want)
		}
		m.mu.Lock()
		if strings.Contains(m.passed.String(), b64([]byte(marker))) {
			t.Errorf("%s: the middle sees the plaintext", name)
		}
		m.mu.Unlock()
	}
	m.as(nil, nil)
}

// replay sends a request again that was served, to its action and to another: the
// middle learns no more than that there is a reply, and no key is made.
func (m *middle) replay(t *testing.T, p func(...string) []string) {
	m.must(t, "", p("key", "create")...)
	body, first := m.last()
	keys := m.must(t, "", p("key", "list")...)
	for _, action := range []string{"CreateKey", "ListKey"} {
		resp, err := m.g.http.Post(m.g.base()+"/ehsm?Action="+action, "application/json", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		again, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		var r struct {
			Message string
			Result  map[string]string
		}
		if err := json.Unmarshal(again, &r); err != nil || bytes.Equal(again, first) {
			t.Errorf("%s: got %s, %v", action, again, err)
		}
		if sealed := r.Message == "sealed" && r.Result["sealed"] != ""; sealed != (action == "CreateKey") || !sealed && r.Message != "sealed request error" {
			t.Errorf("%s: got %s", action, again)
		}
	}
	if after := m.must(t, "", p("key", "list")...); after != keys {
		t.Errorf("a replay made a key: %s, before %s", after, keys)
	}
}
