package core

import (
	"crypto/hpke"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// A newcomer enrolls at the core of a host, whose evidence he takes as verified.
type newcomer struct {
	h        *host
	key      hpke.PrivateKey
	info     wire.Info
	instance wire.UUID
	ask      api.EnrollAsk
	secret   []byte
}

func (h *host) newcomer(token api.EnrollToken) *newcomer {
	h.t.Helper()
	key, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		h.t.Fatal(err)
	}
	info, err := h.cores[0].Info(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	n := &newcomer{h: h, key: key, info: info, instance: info.Instance, ask: api.EnrollAsk{Token: *token.Bytes(), Label: "laptop"}}
	copy(n.ask.PublicKey[:], key.PublicKey().Bytes())
	return n
}

// body encrypts a text as the request.
func (n *newcomer) body(text []byte) []byte {
	n.h.t.Helper()
	public, err := hpke.MLKEM768X25519().NewPublicKey(n.info.HPKEKey[:])
	if err != nil {
		n.h.t.Fatal(err)
	}
	enc, s, err := hpke.NewSender(public, hpke.HKDFSHA256(), hpke.AES256GCM(), api.EnrollInfo(n.info.Domain, n.instance))
	if err != nil {
		n.h.t.Fatal(err)
	}
	sealed, err := s.Seal(nil, text)
	if err != nil {
		n.h.t.Fatal(err)
	}
	if n.secret, err = s.Export(api.EnrollReplyExport, 32); err != nil {
		n.h.t.Fatal(err)
	}
	b, err := json.Marshal(api.EnrollFinishRequest{InstanceID: n.instance.String(), Enc: enc, Ciphertext: sealed})
	if err != nil {
		n.h.t.Fatal(err)
	}
	return b
}

func (n *newcomer) send(core int, body []byte) reply {
	n.h.t.Helper()
	return parseReply(n.h.t, n.h.call(core, &wire.Call{Action: api.EnrollFinish, Body: body}))
}

// open decrypts a reply.
func (n *newcomer) open(r reply) (*tenant, error) {
	enc, _ := base64.StdEncoding.DecodeString(r.text("enc"))
	sealed, _ := base64.StdEncoding.DecodeString(r.text("ciphertext"))
	c, err := hpke.NewRecipient(enc, n.key, hpke.HKDFSHA256(), hpke.AES256GCM(), api.EnrollReplyInfo(n.info.Domain, n.info.Instance, n.secret))
	if err != nil {
		return nil, err
	}
	text, err := c.Open(nil, sealed)
	if err != nil {
		return nil, err
	}
	g, err := api.DecodeEnrollGrant(text)
	if err != nil {
		return nil, err
	}
	return &tenant{h: n.h, appid: wire.UUID(g.AppID).String(), apikey: string(g.APIKey)}, nil
}

func (n *newcomer) enroll(t *testing.T) *tenant {
	t.Helper()
	r := n.send(0, n.body(n.ask.Append(nil)))
	want(t, "enroll", r, 200, "successful")
	c, err := n.open(r)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// withToken makes a token of some uses.
func (h *host) withToken(uses int) api.EnrollToken {
	h.t.Helper()
	token := api.NewEnrollToken()
	h.admin("frank").must(api.CreateToken, creating(token, uses))
	return token
}

func TestAttestedEnrollment(t *testing.T) {
	h, d := newHost(t)
	token := h.withToken(2)
	n := h.newcomer(token)
	body := n.body(n.ask.Append(nil))
	r := n.send(0, body)
	want(t, "first", r, 200, "successful")
	c, err := n.open(r)
	if err != nil {
		t.Fatal(err)
	}
	// The reply may be lost: the same request has the same answer, and no effect.
	again := n.send(0, body)
	want(t, "again", again, 200, "successful")
	if same, err := n.open(again); err != nil || same.appid != c.appid || same.apikey != c.apikey {
		t.Errorf("again: got %v, %v", same, err)
	}
	c.createKey()
	for _, a := range listOf(h.admin("frank").must(api.ListApps, nil)) {
		m := a.(map[string]any)
		if m["appid"] != c.appid || m["name"] != "payments" || m["exposed"] != false || m["state"] != api.AppActive {
			t.Errorf("got %v", m)
		}
	}
	other := h.newcomer(token).enroll(t)
	if other.appid == c.appid {
		t.Error("two requests made one app")
	}
	used := h.newcomer(token)
	want(t, "used up", used.send(0, used.body(used.ask.Append(nil))), 400, textEnroll)
	want(t, "create credential", c.do(0, "DeleteAllKey", nil), 200, "successful")
	want(t, "again, the app has changed", n.send(0, body), 400, textEnroll)
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	if r := n.send(1, body); r.Code != api.CodeMisdirected || !strings.HasPrefix(r.Message, api.MessageMisdirectedBefore) || strings.Contains(r.Message, n.instance.String()) {
		t.Errorf("another instance: got %d %s", r.Code, r.Message)
	}
}

// An app is exposed from the moment on at which a reply in clear has an API key of it.
func TestExposed(t *testing.T) {
	h, _ := newHost(t)
	frank := h.admin("frank")
	pair := map[string]any{"kind": "ed25519", "role": "user", "publicKey": adding("pair")["publicKey"]}
	for _, row := range []struct {
		name, action         string
		payload              map[string]any
		sealed, want, byHost bool
	}{
		{"API key, read in clear and sealed by the host", "CreateCredential", map[string]any{"kind": "api-key", "role": "user"}, true, true, true},
		{"API key, sealed", "CreateCredential", map[string]any{"kind": "api-key", "role": "user"}, true, false, false},
		{"rotated, sealed", "RotateAPIKey", map[string]any{"overlapSeconds": 60}, true, false, false},
		{"key pair, in clear", "CreateCredential", pair, false, false, false},
		{"API key, in clear", "CreateCredential", map[string]any{"kind": "api-key", "role": "user"}, false, true, false},
		{"rotated, in clear", "RotateAPIKey", map[string]any{"overlapSeconds": 60}, false, true, false},
	} {
		c := h.newcomer(h.withToken(1)).enroll(t)
		payload := maps.Clone(row.payload)
		payload["action"] = row.action
		var r reply
		if row.sealed && !row.byHost {
			payload["sealed"] = "yes"
		}
		if s := c.seals(0); row.sealed {
			r, _ = s.ask(0, s.seal(row.action, c.body(payload)))
		} else {
			r = c.do(0, row.action, payload)
		}
		want(t, row.name, r, 200, "successful")
		for _, a := range listOf(frank.must(api.ListApps, nil)) {
			if m := a.(map[string]any); m["appid"] == c.appid && m["exposed"] != row.want {
				t.Errorf("%s: exposed is %v", row.name, m["exposed"])
			}
		}
	}
}

func TestEnrollmentRefusals(t *testing.T) {
	for _, row := range []struct {
		name    string
		change  func(h *host, n *newcomer) []byte // makes the body
		code    int
		message string
	}{
		{"unknown token", func(h *host, n *newcomer) []byte {
			n.ask.Token = *api.NewEnrollToken().Bytes()
			return n.body(n.ask.Append(nil))
		}, 400, textEnroll},
		{"secret of another token", func(h *host, n *newcomer) []byte {
			n.ask.Token[47] ^= 1
			return n.body(n.ask.Append(nil))
		}, 400, textEnroll},
		{"revoked", func(h *host, n *newcomer) []byte {
			token := h.withToken(1)
			h.admin("frank").must(api.RevokeToken, map[string]any{"tokenid": token.ID()})
			n.ask.Token = *token.Bytes()
			return n.body(n.ask.Append(nil))
		}, 400, textEnroll},
		{"expired", func(h *host, n *newcomer) []byte {
			h.now = h.now.Add(time.Hour)
			return n.body(n.ask.Append(nil))
		}, 400, textEnroll},
		{"label in UTF-8", func(h *host, n *newcomer) []byte {
			n.ask.Label = "\u00e4"
			return n.body(n.ask.Append(nil))
		}, 400, textEnroll},
		{"long label", func(h *host, n *newcomer) []byte {
			n.ask.Label = strings.Repeat("l", 65)
			return n.body(n.ask.Append(nil))
		}, 400, textEnroll},
		{"key that is none", func(h *host, n *newcomer) []byte {
			for i := range n.ask.PublicKey {
				n.ask.PublicKey[i] = 0xff
			}
			return n.body(n.ask.Append(nil))
		}, 400, textEnroll},
		{"nothing", func(h *host, n *newcomer) []byte { return n.body(nil) }, 400, textEnroll},
		{"cut short", func(h *host, n *newcomer) []byte { return n.body(n.ask.Append(nil)[:1000]) }, 400, textEnroll},
		{"other format", func(h *host, n *newcomer) []byte {
			b := n.ask.Append(nil)
			b[0] = 2
			return n.body(b)
		}, 400, textEnroll},
		{"for another domain", func(h *host, n *newcomer) []byte {
			n.info.Domain[0] ^= 1
			return n.body(n.ask.Append(nil))
		}, 400, textEnroll},
		{"for another key", func(h *host, n *newcomer) []byte {
			other, err := hpke.MLKEM768X25519().GenerateKey()
			if err != nil {
				panic(err)
			}
			copy(n.info.HPKEKey[:], other.PublicKey().Bytes())
			return n.body(n.ask.Append(nil))
		}, 400, textEnroll},
		{"for another instance", func(h *host, n *newcomer) []byte {
			n.instance[0] ^= 1
			return n.body(n.ask.Append(nil))
		}, api.CodeMisdirected, ""},
		{"of another instance, renamed", func(h *host, n *newcomer) []byte {
			n.instance[0] ^= 1
			b := n.body(n.ask.Append(nil))
			return []byte(strings.Replace(string(b), n.instance.String(), n.info.Instance.String(), 1))
		}, 400, textEnroll},
		{"no JSON", func(h *host, n *newcomer) []byte { return []byte("{") }, 400, "Invalid JSON"},
		{"array", func(h *host, n *newcomer) []byte { return []byte("[]") }, 400, "Invalid JSON"},
		{"empty", func(h *host, n *newcomer) []byte { return []byte("{}") }, 400, "Missing required parameters, The instanceId cannot be empty."},
		{"one more", func(h *host, n *newcomer) []byte {
			return append([]byte(`{"appid":"x",`), n.body(n.ask.Append(nil))[1:]...)
		}, 400, "Parameter invalid, The appid type is incorrect."},
	} {
		t.Run(row.name, func(t *testing.T) {
			h, _ := newHost(t)
			n := h.newcomer(h.withToken(1))
			rows := len(h.rows)
			body := row.change(h, n)
			rows = max(rows, len(h.rows))
			r := n.send(0, body)
			if r.Code != row.code || row.message != "" && r.Message != row.message || len(r.Result) != 0 {
				t.Errorf("got %d %q %v, want %d %q", r.Code, r.Message, r.Result, row.code, row.message)
			}
			if len(h.rows) != rows {
				t.Error("something was stored")
			}
		})
	}
	h, _ := newHost(t)
	if r := parseReply(t, h.call(0, &wire.Call{Action: api.EnrollFinish, Get: true})); r.Code != 404 {
		t.Errorf("GET: got %d %s", r.Code, r.Message)
	}
}

// A host that puts rows back gets no second app for a token of one use, from this
// core or from one that has just started.
func TestTokenRows(t *testing.T) {
	h, d := newHost(t)
	token := h.withToken(1)
	id := tokenRecord(wire.UUID(token.Bytes()[:]))
	fresh := h.rows[id]
	n := h.newcomer(token)
	body := n.body(n.ask.Append(nil))
	want(t, "first", n.send(0, body), 200, "successful")
	for core := range 2 {
		h.rows[id] = fresh
		again := h.newcomer(token)
		info, err := h.cores[core].Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		again.info, again.instance = info, info.Instance
		if r := again.send(core, again.body(again.ask.Append(nil))); r.Code == 200 {
			t.Errorf("core %d: a used token was used again", core)
		}
		h.cores = append(h.cores, d.start(t, h, Limits{}))
	}
}

// Of several who use one token at a time, as many as it is good for get an app.
func TestTokenRace(t *testing.T) {
	h, _ := newHost(t)
	token := h.withToken(3)
	codes := make(chan int, 8)
	for range cap(codes) {
		n := h.newcomer(token)
		body := n.body(n.ask.Append(nil))
		go func() {
			a, err := h.try(0, &wire.Call{Action: api.EnrollFinish, Body: body})
			if err != nil || a.Reply == nil {
				codes <- 0
				return
			}
			var r struct{ Code int }
			json.Unmarshal(a.Reply, &r)
			codes <- r.Code
		}()
	}
	got := map[int]int{}
	for range cap(codes) {
		got[<-codes]++
	}
	if got[200] > 3 || got[200] == 0 {
		t.Errorf("got %v", got)
	}
	l := listOf(h.admin("frank").must(api.ListTokens, nil))
	if used := l[0].(map[string]any)["used"]; fmt.Sprint(used) != fmt.Sprint(got[200]) {
		t.Errorf("used %v times, %d succeeded", used, got[200])
	}
}
