package e2e

import (
	"bytes"
	"crypto/hpke"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api"
)

// An enrolling is how people enroll with a token and administer a domain: by the
// command line, which verifies the service first.
type enrolling struct {
	*middle
	dir, domain, policy string
	admin               []string // flags of the administrator
}

func (m *middle) enrolling(t *testing.T) *enrolling {
	t.Helper()
	e := &enrolling{middle: m, dir: t.TempDir()}
	screen := m.must(t, "", append([]string{"attest", "verify", "--allow-sim"}, m.flags()...)...)
	policy := regexp.MustCompile(`(?m)^\{.*$`).FindString(screen)
	domain := regexp.MustCompile(`(?m)^domain: +([0-9a-f]{64})`).FindStringSubmatch(screen)
	if policy == "" || domain == nil {
		t.Fatalf("attest verify prints %s", screen)
	}
	e.domain, e.policy = domain[1], e.file(t, "policy.json", policy)
	e.admin = append([]string{"--key", m.g.data("administrator.key"), "--domain", e.domain, "--policy", e.policy}, m.flags()...)
	return e
}

// flags reach the service by the middle.
func (m *middle) flags() []string { return []string{"--url", m.URL, "--fingerprint", m.fingerprint()} }

func (e *enrolling) file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(e.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// token makes an enrollment token.
func (e *enrolling) token(t *testing.T, args ...string) string {
	t.Helper()
	return e.must(t, "", append(append([]string{"admin", "tokens", "create"}, args...), e.admin...)...)
}

// enroll enrolls with a token, into a profile.
func (e *enrolling) enroll(t *testing.T, token, profile string) (stderr string, ok bool) {
	t.Helper()
	_, stderr, ok = e.run(t, token, append([]string{"enroll", "--token", "-", "--domain", e.domain, "--policy", e.policy, "--profile", profile}, e.flags()...)...)
	return stderr, ok
}

// config is the file of profiles.
func (e *enrolling) config(t *testing.T) string {
	t.Helper()
	path := filepath.Join(e.g.dir, "home", "ehsm", "config.yaml")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %v, %v", path, info.Mode(), err)
	}
	return string(b)
}

// hides checks that nothing of the texts, or of the bytes that they stand for, has
// passed the middle.
func (m *middle) hides(t *testing.T, what string, secrets ...[]byte) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	passed := m.passed.Bytes()
	for _, s := range secrets {
		for form, b := range map[string][]byte{
			"as it is": s, "in hex": []byte(hex.EncodeToString(s)), "in base64": []byte(base64.RawStdEncoding.EncodeToString(s)[:len(s)]),
			"in base64url": []byte(base64.RawURLEncoding.EncodeToString(s)[:len(s)]),
		} {
			if bytes.Contains(passed, b) {
				t.Errorf("the middle sees the %s, %s", what, form)
			}
		}
	}
}

// TestEnrollMiddle has a man in the middle in the manager's place from the making of a
// token on. He keeps all that passes.
func TestEnrollMiddle(t *testing.T) {
	t.Parallel()
	m := newMiddle(t, newTarget(t, splitUnix))
	e := m.enrolling(t)
	token := e.token(t, "--tenant", "shop", "--uses", "2")
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(token, "ehsm-token-v1."))
	if err != nil || len(raw) != 48 {
		t.Fatalf("got token of %d bytes, %v", len(raw), err)
	}
	if stderr, ok := e.enroll(t, token, "shop"); !ok {
		t.Fatal(stderr)
	}
	apiKey := regexp.MustCompile(`(?m)apikey: (\S{32})$`).FindAllStringSubmatch(e.config(t), -1)
	if len(apiKey) != 2 { // that of ehsm dev, whose service it is, and ours
		t.Fatalf("got %d API keys", len(apiKey))
	}
	const marker = "a plaintext that nobody else may read"
	p := []string{"--profile", "shop"}
	key := m.must(t, "", append(p, "key", "create")...)
	sealed := m.must(t, marker, append(p, "encrypt", "--key", key)...)
	if got := m.must(t, sealed, append(p, "decrypt")...); got != marker {
		t.Fatalf("got %q", got)
	}
	secrets := [][]byte{raw, raw[16:], []byte(token), []byte(marker)}
	for _, k := range apiKey {
		secrets = append(secrets, []byte(k[1]))
	}
	m.hides(t, "token, API key or plaintext", secrets...)
	if m.mu.Lock(); !bytes.Contains(m.passed.Bytes(), []byte(key)) || !bytes.Contains(m.passed.Bytes(), []byte(`"instanceId"`)) {
		t.Error("the middle does not see the key's name and the enrollment: the test looks at the wrong place")
	}
	m.mu.Unlock()
	e.puts(t, token)
	e.elsewhere(t, token)
	m.hides(t, "token", raw, raw[16:])
	// What he could: have an app made for his own token, and waste uses of ours.
	apps := m.must(t, "", append([]string{"admin", "apps", "list"}, e.admin...)...)
	if strings.Count(apps, `"name":"shop","state":"active","exposed":false`) != 2 || strings.Count(apps, `"name":"thief"`) != 1 {
		t.Errorf("got %s", apps)
	}
}

// TestPythonEnrolls enrolls with a client in Python, which was written from the
// documents alone, makes sealed requests, and compares what the documents say.
func TestPythonEnrolls(t *testing.T) {
	t.Parallel()
	g := newTarget(t, splitUnix)
	m := newMiddle(t, g)
	e := m.enrolling(t)
	token := e.token(t, "--tenant", "python")
	measured := regexp.MustCompile(`"mrenclave": *"([0-9a-f]{64})"`).FindStringSubmatch(string(mustRead(t, e.policy)))
	if measured == nil {
		t.Fatal("the policy names no measurement")
	}
	python := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "python3", append([]string{"-B", filepath.Join("python", "enroll.py")}, args...)...)
		cmd.Stdin, cmd.WaitDelay = strings.NewReader(token), time.Second
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	appid, err := python(g.base()+"/ehsm", g.data("tls", "cert.pem"), e.domain, measured[1])
	if err != nil {
		t.Fatalf("enroll.py: %v\n%s", err, appid)
	}
	if apps := m.must(t, "", append([]string{"admin", "apps", "list"}, e.admin...)...); !strings.Contains(apps, fmt.Sprintf(`"appid":%q,"name":"python","state":"active","exposed":false`, appid)) {
		t.Errorf("got %s", apps)
	}
	if out, err := python("vectors"); err != nil || out+"\n" != string(mustRead(t, filepath.Join("..", "..", "api", "testdata", "enroll.json"))) {
		t.Errorf("enroll.py vectors prints other known answers than there are: %v", err)
	}
}

func mustRead(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// puts has the middle alter what passes: nobody enrolls.
func (e *enrolling) puts(t *testing.T, token string) {
	t.Helper()
	own := e.token(t, "--tenant", "thief") // the thief has a genuine token, too
	old := e.evidence(t)
	for _, row := range []struct {
		name           string
		request, reply func(action string, body []byte) []byte
		want           string
	}{
		{"evidence of before", nil, only("GetEvidence", func([]byte) []byte { return old }), "evidence was not made for this challenge: challenge: the answer is to another one"},
		{"evidence of before, with the challenge of now", nil, only("GetEvidence", func(b []byte) []byte {
			return withText(old, "challenge", textOf(b, "challenge"))
		}), "evidence was not made for this challenge: report-data"},
		{"another HPKE key", nil, only("GetEvidence", func(b []byte) []byte {
			key, err := hpke.MLKEM768X25519().GenerateKey()
			if err != nil {
				t.Fatal(err)
			}
			return withText(b, "hpkePublicKey", b64(key.PublicKey().Bytes()))
		}), "evidence was not made for this challenge: report-data"},
		{"another instance", nil, only("GetEvidence", func(b []byte) []byte {
			return withText(b, "instanceId", "86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c")
		}), "evidence was not made for this challenge: report-data"},
		{"another role", nil, only("GetEvidence", func(b []byte) []byte { return withText(b, "role", "dkeycache") }), `evidence was not made for this challenge: binding: role "dkeycache"`},
		{"another domain", nil, only("GetEvidence", func(b []byte) []byte { return withText(b, "domainId", strings.Repeat("ab", 32)) }), "service is of another domain"},
		{"no evidence", nil, only("GetEvidence", func([]byte) []byte { return []byte(`{"code":500,"message":"Server exception.","result":{}}`) }), "service shows no evidence"},
		{"a bit of the request", only("EnrollFinish", func(b []byte) []byte { return withText(b, "ciphertext", turned(textOf(b, "ciphertext"))) }), nil, "enroll user info failed"},
		{"a bit of the reply", nil, only("EnrollFinish", func(b []byte) []byte { return withText(b, "ciphertext", turned(textOf(b, "ciphertext"))) }), "not a message of attested enrollment: reply"},
		{"a reply in clear", nil, only("EnrollFinish", func([]byte) []byte {
			return []byte(`{"code":200,"message":"successful","result":{"appid":"86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c","apikey":"D3nK2Vq90QrFkHGRZ3dBAyFEfPTtLfQy"}}`)
		}), "not a message of attested enrollment: reply"},
		{"a request of his own", only("EnrollFinish", func([]byte) []byte { return e.asks(t, own) }), nil, "not a message of attested enrollment: reply"},
	} {
		e.as(row.request, row.reply)
		if stderr, ok := e.enroll(t, token, "thief"); ok || !strings.Contains(stderr, row.want) {
			t.Errorf("%s: got %v, %s, want %q", row.name, ok, stderr, row.want)
		}
	}
	e.as(nil, nil)
	if strings.Contains(e.config(t), "thief") {
		t.Error("there is a profile of a refused enrollment")
	}
}

// elsewhere has another genuine service in the manager's place, of a domain of its own.
func (e *enrolling) elsewhere(t *testing.T, token string) {
	t.Helper()
	genuine, other := e.g, newTarget(t, dev)
	e.mu.Lock()
	e.g = &target{dir: genuine.dir, url: other.base(), http: other.http}
	from := e.passed.Len()
	e.mu.Unlock()
	for name, row := range map[string]struct {
		reply func(action string, body []byte) []byte
		want  string
	}{
		"as it is":              {nil, "service is of another domain"},
		"that lies about it":    {only("GetEvidence", func(b []byte) []byte { return withText(b, "domainId", e.domain) }), "evidence was not made for this challenge: report-data"},
		"of which one has both": {only("GetEvidence", func([]byte) []byte { return e.evidenceOf(t, genuine) }), "evidence was not made for this challenge: challenge"},
	} {
		e.as(nil, row.reply)
		if stderr, ok := e.enroll(t, token, "elsewhere"); ok || !strings.Contains(stderr, row.want) {
			t.Errorf("%s: got %v, %s, want %q", name, ok, stderr, row.want)
		}
	}
	e.as(nil, nil)
	e.mu.Lock()
	if bytes.Contains(e.passed.Bytes()[from:], []byte(`"ciphertext"`)) {
		t.Error("something was sent to a service that is not the one")
	}
	e.g = genuine
	e.mu.Unlock()
}

// only alters what passes for one action only.
func only(action string, change func([]byte) []byte) func(string, []byte) []byte {
	return func(a string, b []byte) []byte {
		if a != action {
			return b
		}
		return change(b)
	}
}

// evidence is an answer of GetEvidence.
func (m *middle) evidence(t *testing.T) []byte { return m.evidenceOf(t, m.g) }

func (m *middle) evidenceOf(t *testing.T, g *target) []byte {
	t.Helper()
	r := g.must(t, "GET", "/ehsm?Action=GetEvidence&challenge="+strings.Repeat("A", 43), nil)
	if r.Code != 200 {
		t.Fatalf("GetEvidence: %s", r.body)
	}
	return []byte(r.body)
}

// asks is a request of somebody who has a token and talks to the genuine service.
func (e *enrolling) asks(t *testing.T, token string) []byte {
	t.Helper()
	var evidence api.Reply[api.GetEvidenceResult]
	if err := json.Unmarshal(e.evidence(t), &evidence); err != nil {
		t.Fatal(err)
	}
	r := &evidence.Result
	domain, _ := hex.DecodeString(r.DomainID)
	instance, _ := hex.DecodeString(strings.ReplaceAll(r.InstanceID, "-", ""))
	kem := hpke.MLKEM768X25519()
	core, err := kem.NewPublicKey(r.HPKEPublicKey)
	if err != nil {
		t.Fatal(err)
	}
	own, err := kem.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := api.ParseEnrollToken(token)
	if err != nil {
		t.Fatal(err)
	}
	enc, s, err := hpke.NewSender(core, hpke.HKDFSHA256(), hpke.AES256GCM(), api.EnrollInfo([32]byte(domain), [16]byte(instance)))
	if err != nil {
		t.Fatal(err)
	}
	ask := api.EnrollAsk{Token: *parsed.Bytes(), PublicKey: [api.EnrollKeySize]byte(own.PublicKey().Bytes())}
	sealed, err := s.Seal(nil, ask.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(api.EnrollFinishRequest{InstanceID: r.InstanceID, Enc: enc, Ciphertext: sealed})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// textOf is the text of a member of a message, wherever it is in it.
func textOf(b []byte, name string) string {
	if m := regexp.MustCompile(`"` + name + `": *"([^"]*)"`).FindSubmatch(b); m != nil {
		return string(m[1])
	}
	return ""
}

// withText replaces the text of a member.
func withText(b []byte, name, text string) []byte {
	return regexp.MustCompile(`"`+name+`": *"[^"]*"`).ReplaceAllLiteral(b, []byte(fmt.Sprintf("%q:%q", name, text)))
}

// turned changes a bit of bytes in base64.
func turned(text string) string {
	b, _ := base64.StdEncoding.DecodeString(text)
	if len(b) > 0 {
		b[len(b)/2] ^= 1
	}
	return b64(b)
}
