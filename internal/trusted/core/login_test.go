package core

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// issuerKey signs the tokens of the issuer that tests trust.
var issuerKey = ed25519.NewKeyFromSeed([]byte(strings.Repeat("i", 32)))

const issuerURL = "https://cluster.example"

func raw64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// jwks is the issuer's key set, with a key of another algorithm beside it.
func jwks() string {
	return `{"keys":[{"kid":"k1","kty":"OKP","crv":"Ed25519","x":"` + raw64(issuerKey.Public().(ed25519.PublicKey)) + `"},` +
		`{"kid":"k2","kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}`
}

// loginRule is the payload for a rule of the issuer.
func loginRule(name string, more ...m) m {
	p := m{
		"name": name, "kind": "jwt", "policy": "all", "lifetimeSeconds": 600, "issuer": issuerURL, "audience": "ehsm",
		"subject": "system:serviceaccount:shop:*", "jwks": jwks(),
	}
	for _, change := range more {
		maps.Copy(p, change)
	}
	maps.DeleteFunc(p, func(_ string, v any) bool { return v == nil })
	return withAction(api.PutLoginRule, p)
}

// withAction names the action in a payload.
func withAction(action string, p m) m {
	out := m{"action": action}
	maps.Copy(out, p)
	return out
}

// jwtOf makes a token of the issuer, of now, changed.
func (h *host) jwtOf(change m) string {
	return jwtWith(`{"alg":"EdDSA","kid":"k1"}`, h.claimsOf(change))
}

func (h *host) claimsOf(change m) string {
	now := h.now.Unix()
	claims := m{"iss": issuerURL, "aud": []string{"ehsm"}, "sub": "system:serviceaccount:shop:web", "exp": now + 600, "iat": now, "nbf": now}
	maps.Copy(claims, change)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	b, _ := json.Marshal(claims) // of plain values
	return string(b)
}

func jwtWith(header, claims string) string {
	signed := raw64([]byte(header)) + "." + raw64([]byte(claims))
	return signed + "." + raw64(ed25519.Sign(issuerKey, []byte(signed)))
}

// A workload logs in at the cores of a host.
type workload struct {
	h    *host
	of   *tenant
	ask  api.LoginAsk
	key  ed25519.PrivateKey
	core int

	info  wire.Info
	reply []byte // key of the reply to the last message
}

func (h *host) workload(of *tenant, core int) *workload {
	h.t.Helper()
	key := ed25519.NewKeyFromSeed([]byte(strings.Repeat("w", 32)))
	w := &workload{h: h, of: &tenant{h: h, appid: of.appid, nonce: len(h.calls)}, key: key, core: core}
	w.ask = api.LoginAsk{Tenant: of.id(), Kind: api.KindEd25519, PublicKey: key.Public().(ed25519.PublicKey)}
	var err error
	if w.info, err = h.cores[core].Info(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	return w
}

// message encrypts a text to the core.
func (w *workload) message(text []byte) []byte {
	w.h.t.Helper()
	public, err := hpke.MLKEM768X25519().NewPublicKey(w.info.HPKEKey[:])
	if err != nil {
		w.h.t.Fatal(err)
	}
	enc, s, err := hpke.NewSender(public, hpke.HKDFSHA256(), hpke.AES256GCM(), api.LoginInfo(w.info.Domain, w.info.Instance))
	if err != nil {
		w.h.t.Fatal(err)
	}
	sealed, err := s.Seal(nil, text)
	if err != nil {
		w.h.t.Fatal(err)
	}
	if w.reply, err = s.Export(api.LoginReplyExport, 32); err != nil {
		w.h.t.Fatal(err)
	}
	b, err := json.Marshal(api.LoginRequest{InstanceID: wire.UUID(w.info.Instance).String(), Enc: enc, Ciphertext: sealed})
	if err != nil {
		w.h.t.Fatal(err)
	}
	return b
}

func (w *workload) send(body []byte) reply {
	w.h.t.Helper()
	return parseReply(w.h.t, w.h.call(w.core, &wire.Call{Action: api.Login, Body: body}))
}

func (w *workload) try(jwt string) reply {
	w.h.t.Helper()
	w.ask.JWT = []byte(jwt)
	return w.send(w.message(w.ask.Append(nil)))
}

// opened reads a grant.
func (w *workload) opened(r reply) (*api.LoginGrant, error) {
	sealed, _ := base64.StdEncoding.DecodeString(r.text("ciphertext"))
	block, err := aes.NewCipher(w.reply)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil || len(sealed) < 12 {
		return nil, fmt.Errorf("grant of %d bytes: %w", len(sealed), err)
	}
	text, err := aead.Open(nil, sealed[:12], sealed[12:], nil)
	if err != nil {
		return nil, err
	}
	return api.DecodeLoginGrant(text)
}

// holds returns who signs with the credential of a grant.
func (w *workload) holds(token string) *holder {
	return &holder{tenant: w.of, credential: token, ed25519: w.key}
}

// login logs in with a token of the issuer.
func (w *workload) login() *holder {
	w.h.t.Helper()
	r := w.try(w.h.jwtOf(nil))
	want(w.h.t, "login", r, 200, "successful")
	g, err := w.opened(r)
	if err != nil {
		w.h.t.Fatal(err)
	}
	if g.Now != w.h.now.UnixMilli() {
		w.h.t.Errorf("time of the grant: got %d, want %d", g.Now, w.h.now.UnixMilli())
	}
	return w.holds(g.Token)
}

// lists is a request that works for every credential in force.
func (p *holder) lists(core int) reply {
	p.h.t.Helper()
	return p.send(core, "ListKey", p.body(m{"action": "ListKey"}))
}

func TestLogin(t *testing.T) {
	h, d := newHost(t)
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	alice := h.enroll()
	w := h.workload(alice, 0)
	want(t, "no rules", w.try(h.jwtOf(nil)), 400, api.MessageLogin)
	id := alice.mustDo(api.PutLoginRule, loginRule("web")).text("ruleId")
	c := w.login()
	key := c.do("CreateKey", m{"action": "CreateKey", "keyspec": "EH_AES_GCM_256", "origin": "EH_INTERNAL_KEY", "keyusage": "EH_KEYUSAGE_ENCRYPT_DECRYPT"})
	want(t, "create key", key, 200, "success!")
	want(t, "another core", c.lists(1), 200, "successful")
	body := c.body(m{"action": "ListKey"})
	want(t, "once", c.send(0, "ListKey", body), 200, "successful")
	want(t, "twice", c.send(0, "ListKey", body), 400, "Timestamp can't be repeated in 20 minutes")
	// The same key logs in again: what it has signed stays used.
	again := w.login()
	if again.credential == c.credential {
		h.now = h.now.Add(time.Second)
		again = w.login()
	}
	replayed := strings.Replace(string(body), c.credential, again.credential, 1)
	want(t, "under another login", c.send(0, "ListKey", []byte(replayed)), 400, "Timestamp can't be repeated in 20 minutes")
	want(t, "action not named", c.do("ListKey", nil), 400, "sign error")

	tok, err := api.ParseLoginToken(c.credential)
	if err != nil || wire.UUID(tok.Rule).String() != id || tok.Tenant != alice.id() || tok.Revision != 1 {
		t.Errorf("token: got %+v, %v", tok, err)
	}
	for action, payload := range map[string]m{
		"CreateCredential": {"kind": "api-key", "role": "owner"}, "ListCredentials": {}, api.PutLoginRule: loginRule("mine"), api.ListLoginRules: {},
		api.DeleteLoginRule: {"name": "web"},
	} {
		want(t, action+" of a workload", c.send(0, action, c.body(withAction(action, payload))), 400, "sign error")
	}
	h.now = h.now.Add(599 * time.Second)
	want(t, "last second", again.lists(0), 200, "successful")
	h.now = h.now.Add(time.Second)
	want(t, "expired", again.lists(0), 400, "sign error")
}

func TestLoginP256(t *testing.T) {
	h, _ := newHost(t)
	alice := h.enroll()
	alice.mustDo(api.PutLoginRule, loginRule("web"))
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), []byte(strings.Repeat("p", 32)))
	if err != nil {
		t.Fatal(err)
	}
	w := h.workload(alice, 0)
	w.ask.Kind = api.KindP256
	if w.ask.PublicKey, err = key.PublicKey.Bytes(); err != nil {
		t.Fatal(err)
	}
	c := w.login()
	c.ed25519, c.p256 = nil, key
	want(t, "P-256", c.lists(0), 200, "successful")
	w.ask.PublicKey[64] ^= 1
	want(t, "not on the curve", w.try(h.jwtOf(nil)), 400, api.MessageLogin)
}

func TestLoginRefused(t *testing.T) {
	h, _ := newHost(t)
	alice, bob := h.enroll(), h.enroll()
	alice.mustDo(api.PutLoginRule, loginRule("web", m{"claims": `{"/kubernetes.io/namespace":"shop"}`}))
	alice.mustDo(api.PutLoginRule, loginRule("other", m{"issuer": "https://other.example"}))
	bob.mustDo(api.PutLoginRule, loginRule("batch", m{"subject": "spiffe://bob"}))
	inShop := m{"kubernetes.io": m{"namespace": "shop"}}
	with := func(more m) string { c := maps.Clone(inShop); maps.Copy(c, more); return h.jwtOf(c) }
	w := h.workload(alice, 0)
	want(t, "good", w.try(with(nil)), 200, "successful")
	now := h.now.Unix()
	claims := h.claimsOf(inShop)
	hs := raw64([]byte(`{"alg":"HS256","kid":"k1"}`)) + "." + raw64([]byte(claims))
	mac := hmac.New(sha256.New, issuerKey.Public().(ed25519.PublicKey))
	mac.Write([]byte(hs))
	for _, row := range []struct{ name, jwt, reason string }{
		{"none", raw64([]byte(`{"alg":"none","kid":"k1"}`)) + "." + raw64([]byte(claims)) + ".", "JWT: algorithm is not accepted"},
		{"HS256 with the public key", hs + "." + raw64(mac.Sum(nil)), "JWT: algorithm is not accepted"},
		{"algorithm of another key", jwtWith(`{"alg":"EdDSA","kid":"k2"}`, claims), "JWT: algorithm is not accepted"},
		{"critical", jwtWith(`{"alg":"EdDSA","kid":"k1","crit":["x"],"x":1}`, claims), "JWT: header has critical members"},
		{"unknown kid", jwtWith(`{"alg":"EdDSA","kid":"k3"}`, claims), "JWT: key id is unknown"},
		{"other signature", with(nil)[:len(with(nil))-8] + "AAAAAAAA", "JWT: signature does not verify"},
		{"unknown issuer", with(m{"iss": "https://evil.example"}), "JWT: issuer is another"},
		{"wrong audience", with(m{"aud": "vault"}), "JWT: audience is another"},
		{"two audiences", with(m{"aud": []string{"ehsm", "vault"}}), "JWT: audience is another"},
		{"expired", with(m{"exp": now}), "JWT: token has expired"},
		{"no end", with(m{"exp": nil}), "JWT: token is malformed"},
		{"not yet", with(m{"nbf": now + 61}), "JWT: token is of the future"},
		{"made in the future", with(m{"iat": now + 61}), "JWT: token is of the future"},
		{"other subject", with(m{"sub": "system:serviceaccount:shop2:web"}), "JWT: subject is another"},
		{"other claim", with(m{"kubernetes.io": m{"namespace": "kube-system"}}), "JWT: claim is another"},
		{"no JWT", "hello", "JWT: token is malformed"},
		{"member twice", jwtWith(`{"alg":"EdDSA","kid":"k1"}`, strings.Replace(claims, `"iss"`, `"sub":"a","iss"`, 1)), "JWT: token is malformed"},
	} {
		want(t, row.name, w.try(row.jwt), 400, api.MessageLogin)
		h.wantReason(t, row.name, row.reason)
	}
	other := h.workload(bob, 0)
	want(t, "rules of another tenant", other.try(with(nil)), 400, api.MessageLogin)
	w.ask.Tenant = wire.UUID{9}
	want(t, "unknown app", w.try(with(nil)), 400, api.MessageLogin)
	w.ask.Tenant = wire.UUID{}
	want(t, "the domain", w.try(with(nil)), 400, api.MessageLogin)
	h.admin("frank").must(api.DisableApp, m{"appid": alice.appid})
	want(t, "suspended app", h.workload(alice, 0).try(with(nil)), 400, api.MessageLogin)
}

func TestLoginMessages(t *testing.T) {
	h, d := newHost(t)
	alice := h.enroll()
	alice.mustDo(api.PutLoginRule, loginRule("web"))
	w := h.workload(alice, 0)
	w.ask.JWT = []byte(h.jwtOf(nil))
	good := w.ask.Append(nil)
	body := w.message(good)
	first, second := w.send(body), w.send(body) // the reply may be lost
	for i, r := range []reply{first, second} {
		if _, err := w.opened(r); err != nil || r.answer.Sign != "" {
			t.Errorf("reply %d: got %v, signature %q", i, err, r.answer.Sign)
		}
	}
	if first.text("ciphertext") == second.text("ciphertext") {
		t.Error("two replies under one nonce")
	}
	want(t, "GET", parseReply(t, h.call(0, &wire.Call{Action: api.Login, Get: true, Body: body})), 404, "API Not Found")
	want(t, "no JSON", w.send([]byte("{")), 400, "Invalid JSON")
	want(t, "unknown member", w.send([]byte(strings.Replace(string(body), "{", `{"x":1,`, 1))), 400, "Parameter invalid, The x type is incorrect.")
	want(t, "no ciphertext", w.send([]byte(`{"instanceId":"`+wire.UUID(w.info.Instance).String()+`","enc":"AAAA"}`)), 400, "Missing required parameters, The ciphertext cannot be empty.")
	var q api.LoginRequest
	if err := json.Unmarshal(body, &q); err != nil {
		t.Fatal(err)
	}
	q.Ciphertext[5] ^= 1
	b, _ := json.Marshal(q)
	want(t, "flipped", w.send(b), 400, api.MessageLogin)
	for name, text := range map[string][]byte{"format": append([]byte{2}, good[1:]...), "cut": good[:40], "nothing": {}, "no key": append(append([]byte{}, good[:17]...), 9)} {
		want(t, name, w.send(w.message(text)), 400, api.MessageLogin)
	}
	other := h.workload(alice, 0)
	other.info.Domain[0] ^= 1
	want(t, "other domain", other.try(h.jwtOf(nil)), 400, api.MessageLogin)
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	w.core = 1
	if r := w.send(body); r.Code != api.CodeMisdirected || !strings.HasPrefix(r.Message, api.MessageMisdirectedBefore) {
		t.Errorf("another instance: got %d %s", r.Code, r.Message)
	}
}

// TestLoginTokens has tokens that are not what the core has made.
func TestLoginTokens(t *testing.T) {
	h, _ := newHost(t)
	alice, bob := h.enroll(), h.enroll()
	alice.mustDo(api.PutLoginRule, loginRule("web"))
	bob.mustDo(api.PutLoginRule, loginRule("web"))
	c := h.workload(alice, 0).login()
	want(t, "good", c.lists(0), 200, "successful")
	genuine, err := api.ParseLoginToken(c.credential)
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(*api.LoginToken)) string {
		t := *genuine
		change(&t)
		return t.Text()
	}
	for name, token := range map[string]string{
		"later":              with(func(t *api.LoginToken) { t.Expires++ }),
		"other rule":         with(func(t *api.LoginToken) { t.Rule[0]++ }),
		"other revision":     with(func(t *api.LoginToken) { t.Revision = 0 }),
		"other id":           with(func(t *api.LoginToken) { t.Credential[0]++ }),
		"other DomainKey":    with(func(t *api.LoginToken) { t.DomainKey++ }),
		"other MAC":          with(func(t *api.LoginToken) { t.MAC[31]++ }),
		"cut":                c.credential[:len(c.credential)-4],
		"longer":             c.credential + "AAAA",
		"nothing behind":     api.LoginTokenPrefix,
		"id of its own":      wire.UUID(genuine.Credential).String(),
		"of another tenant":  h.workload(bob, 0).login().credential,
		"prefix in capitals": strings.ToUpper(c.credential[:4]) + c.credential[4:],
	} {
		p := &holder{tenant: c.tenant, credential: token, ed25519: c.ed25519}
		want(t, name, p.lists(0), 400, "sign error")
	}
	swapped := &holder{tenant: c.tenant, credential: c.credential, ed25519: ed25519.NewKeyFromSeed([]byte(strings.Repeat("x", 32)))}
	want(t, "other key", swapped.lists(0), 400, "sign error")
	theirs := *genuine
	theirs.PublicKey = swapped.ed25519.Public().(ed25519.PublicKey)
	swapped.credential = theirs.Text()
	want(t, "their key in it", swapped.lists(0), 400, "sign error")

	// Another domain has a tenant with the same id and rules, and other keys.
	other := newDomain(t)
	foreign := other.host(t, Limits{})
	twin := foreign.adopt(other, alice.appid, "an API key")
	twin.mustDo(api.PutLoginRule, loginRule("web"))
	far := &holder{tenant: c.tenant, credential: foreign.workload(twin, 0).login().credential, ed25519: c.ed25519}
	want(t, "of another domain", far.lists(0), 400, "sign error")

	// A key that is a credential of the app already would sign for two.
	alice.mustDo("CreateCredential", withAction("CreateCredential", m{
		"kind": "ed25519", "role": "user", "publicKey": base64.StdEncoding.EncodeToString(genuine.PublicKey)}))
	want(t, "key of a credential", c.lists(0), 400, "sign error")
}

// TestLoginRotation has tokens of versions of the DomainKey that come and go.
func TestLoginRotation(t *testing.T) {
	h, d := newHost(t)
	alice := h.enroll()
	alice.mustDo(api.PutLoginRule, loginRule("web"))
	old := h.workload(alice, 0).login()
	asleep := d.twin(t)
	h.cores = append(h.cores, asleep.start(t, h, Limits{}))
	leaked := func(s *manifest.Settings) { s.DomainKey = manifest.DomainKey{Version: 2, Compromised: []uint32{1}} }
	h.update(0, d.manifest(2, leaked))
	want(t, "before the new version is used", old.lists(0), 200, "successful")
	h.cores = h.cores[:1]
	h.reachVersion(d, 2)
	h.cores = h.cores[:2]
	want(t, "of the version that has leaked", old.lists(0), 400, "sign error")
	next := h.workload(alice, 0).login()
	want(t, "of the new version", next.lists(0), 200, "successful")
	body := next.body(m{"action": "ListKey"})
	want(t, "a version that no manifest has", next.send(1, "ListKey", body), 400, "sign error")
	h.update(1, d.manifest(2, leaked))
	a, err := h.cores[1].Call(t.Context(), &wire.Call{Action: "ListKey", Body: next.body(m{"action": "ListKey"}), Records: h.all(), Fresh: true})
	if err != nil || a.Kind != wire.Need || a.NeedVersion != 2 {
		t.Errorf("a version that is still to come: got %+v, %v", a, err)
	}
	if err := asleep.keys.Adopt(d.keys); err != nil {
		t.Fatal(err)
	}
	want(t, "when it has come", next.lists(1), 200, "successful")
}

// TestLoginRuleRemoved has rules go, also where the host keeps the rows of before.
func TestLoginRuleRemoved(t *testing.T) {
	h, d := newHost(t)
	for range 2 {
		h.cores = append(h.cores, d.start(t, h, Limits{}))
	}
	alice := h.enroll()
	alice.mustDo(api.PutLoginRule, loginRule("web"))
	id := settingsRecord(alice.id())
	for name, remove := range map[string]func() reply{
		"deleted": func() reply {
			return alice.do(0, api.DeleteLoginRule, withAction(api.DeleteLoginRule, m{"name": "web"}))
		},
		"replaced": func() reply { return alice.do(0, api.PutLoginRule, loginRule("web", m{"lifetimeSeconds": 60})) },
	} {
		c := h.workload(alice, 0).login()
		for core := range h.cores {
			want(t, name+": before", c.lists(core), 200, "successful")
		}
		before := h.rows[id]
		want(t, name, remove(), 200, "successful")
		after := h.rows[id]
		for core := range h.cores {
			want(t, name, c.lists(core), 400, "sign error")
		}
		// The host goes back to the row of before, for cores that were started anew too.
		h.rows[id] = before
		h.cores = append(h.cores, d.start(t, h, Limits{}))
		for core := range h.cores {
			if r := c.lists(core); r.Code == 200 {
				t.Errorf("%s, rolled back, core %d: it works", name, core)
			}
		}
		delete(h.rows, id)
		if r := c.lists(len(h.cores) - 1); r.Code == 200 {
			t.Errorf("%s, row removed: it works", name)
		}
		h.rows[id] = after
		alice.mustDo(api.PutLoginRule, loginRule("web"))
		want(t, name+", a new rule of that name", c.lists(0), 400, "sign error")
	}
	c := h.workload(alice, 0).login()
	h.admin("frank").must(api.DisableApp, m{"appid": alice.appid})
	want(t, "disabled app", c.lists(0), 400, "sign error")
}

func TestLoginPolicy(t *testing.T) {
	h, _ := newHost(t)
	alice := h.enroll()
	key := alice.createKey()
	policy := alice.mustDo(api.PutPolicy, withAction(api.PutPolicy, m{"preset": "encrypt-only"})).text("policyId")
	alice.mustDo(api.PutLoginRule, loginRule("web", m{"policy": policy}))
	c := h.workload(alice, 0).login()
	encrypt := withAction("Encrypt", encrypts(key))
	want(t, "in the policy", c.do("Encrypt", encrypt), 200, "success!")
	want(t, "not in it", c.do("ListKey", m{"action": "ListKey"}), 400, "sign error")
	list := listOf(alice.mustDo(api.ListLoginRules, withAction(api.ListLoginRules, nil)))
	if got := list[0].(map[string]any)["policy"]; got != policy {
		t.Errorf("got policy %v, want %s", got, policy)
	}
	alice.mustDo(api.DeletePolicy, withAction(api.DeletePolicy, m{"policyId": policy}))
	want(t, "policy deleted", c.do("Encrypt", encrypt), 400, "sign error")
	want(t, "rule of a deleted policy", alice.do(0, api.PutLoginRule, loginRule("web2", m{"policy": policy})), 400, api.MessagePolicyUnknown)
}

// TestLoginOlderSettings has a core that was not shown the settings which a token was
// made by.
func TestLoginOlderSettings(t *testing.T) {
	h, d := newHost(t)
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	alice := h.enroll()
	alice.mustDo(api.PutLoginRule, loginRule("a"))
	id := settingsRecord(alice.id())
	first := h.rows[id]
	alice.mustDo(api.PutLoginRule, loginRule("web", m{"audience": "other"}))
	w := h.workload(alice, 0)
	r := w.try(h.jwtOf(m{"aud": "other"}))
	want(t, "login", r, 200, "successful")
	g, err := w.opened(r)
	if err != nil {
		t.Fatal(err)
	}
	c := w.holds(g.Token)
	second := h.rows[id]
	h.rows[id] = first
	want(t, "older settings", c.lists(1), 400, "sign error")
	h.rows[id] = second
	want(t, "the settings", c.lists(1), 200, "successful")
	h.cores = append(h.cores, d.start(t, h, Limits{})) // which has not seen that there are any
	delete(h.rows, id)
	want(t, "no settings", c.lists(2), 400, "sign error")
}

func TestLoginRules(t *testing.T) {
	h, _ := newHost(t)
	alice := h.enroll()
	put := func(more m) reply { return alice.do(0, api.PutLoginRule, loginRule("web", more)) }
	code := m{"kind": "quote", "issuer": nil, "audience": nil, "subject": nil, "jwks": nil}
	quoted := func(more m) m { c := maps.Clone(code); maps.Copy(c, more); return c }
	hex1 := strings.Repeat("1", 64)
	for _, row := range []struct {
		name    string
		payload m
		text    string
	}{
		{"no policy", m{"policy": nil}, "Missing required parameters, The policy cannot be empty."},
		{"other policy", m{"policy": "none"}, api.MessagePolicyUnknown},
		{"unknown policy", m{"policy": wire.NewUUID().String()}, api.MessagePolicyUnknown},
		{"the zero policy", m{"policy": api.NoPolicy}, api.MessagePolicyUnknown},
		{"no lifetime", m{"lifetimeSeconds": nil}, "Missing required parameters, The lifetimeSeconds cannot be empty."},
		{"too short", m{"lifetimeSeconds": 59}, "Parameter invalid, The lifetimeSeconds value must be greater than or equal to 60."},
		{"too long", m{"lifetimeSeconds": 43201}, "Parameter invalid, The lifetimeSeconds value must be less than or equal to 43200."},
		{"no kind", m{"kind": nil}, "Missing required parameters, The kind cannot be empty."},
		{"odd name", m{"name": "é"}, "Parameter invalid, The name format wrong."},
		{"unknown member", m{"role": "owner"}, "Parameter invalid, The role type is incorrect."},
		{"no keys", m{"jwks": nil}, "login rule refused: key set is not usable"},
		{"secret key", m{"jwks": `{"keys":[{"kty":"oct","kid":"a","k":"AAAA"}]}`}, "login rule refused: key set is not usable"},
		{"no issuer", m{"issuer": nil}, "login rule refused: issuer of 0 bytes"},
		{"no audience", m{"audience": nil}, "login rule refused: audience of 0 bytes"},
		{"everybody", m{"subject": "*"}, "login rule refused: a * of the subject"},
		{"claims a list", m{"claims": "[]"}, "login rule refused: claims: "},
		{"claim a number", m{"claims": `{"a":1}`}, "login rule refused: claims: "},
		{"quote beside", m{"mrEnclave": hex1}, "login rule refused: mrEnclave is for the other kind"},
		{"token beside", m{"kind": "quote", "mrEnclave": hex1}, "login rule refused: issuer is for the other kind"},
		{"no code", quoted(nil), "login rule refused: it wants both a measurement and a signer, or neither"},
		{"both", quoted(m{"mrEnclave": hex1, "mrSigner": hex1}), "login rule refused: it wants both a measurement and a signer, or neither"},
		{"version of a measurement", quoted(m{"mrEnclave": hex1, "minIsvSvn": 1}), "login rule refused: product or version beside a measurement"},
	} {
		if r := put(row.payload); r.Code != 400 || !strings.HasPrefix(r.Message, row.text) {
			t.Errorf("%s: got %d %q, want %q", row.name, r.Code, r.Message, row.text)
		}
	}
	want(t, "delete nothing", alice.do(0, api.DeleteLoginRule, withAction(api.DeleteLoginRule, m{"name": "web"})), 400, api.MessageLoginRule)
	want(t, "action not named", alice.do(0, api.ListLoginRules, nil), 400, "sign error")
	want(t, "claims", put(m{"claims": `{"b":"2","/a/c":"1"}`}), 200, "successful")
	want(t, "signer", alice.do(0, api.PutLoginRule, loginRule("code", quoted(m{"mrSigner": hex1, "isvProdId": 3, "minIsvSvn": 4}))), 200, "successful")
	list := listOf(alice.mustDo(api.ListLoginRules, withAction(api.ListLoginRules, nil)))
	if len(list) != 2 {
		t.Fatalf("got %v", list)
	}
	first, second := list[0].(map[string]any), list[1].(map[string]any)
	if first["name"] != "web" || first["issuer"] != issuerURL || fmt.Sprint(first["claims"]) != "map[/a/c:1 b:2]" || fmt.Sprint(first["keys"]) != "map[k1:EdDSA k2:ES256]" {
		t.Errorf("got %v", first)
	}
	if second["mrSigner"] != hex1 || second["isvProdId"] != 3.0 || second["minIsvSvn"] != 4.0 || second["policy"] != "all" {
		t.Errorf("got %v", second)
	}
	for i := range 15 {
		want(t, "up to 16", alice.do(0, api.PutLoginRule, loginRule(fmt.Sprint("r", i))), 200, "successful")
	}
	want(t, "17", alice.do(0, api.PutLoginRule, loginRule("r16")), 400, api.MessageLoginRules)
	want(t, "replaces", put(nil), 200, "successful")
}
