package core

import (
	"bytes"
	"context"
	"crypto/hpke"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/api/sealed"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

const (
	textSealed    = "sealed request error"
	textSealedKey = "sealed key unknown"
)

// A sealer is a client that shares a secret with a core's instance.
type sealer struct {
	*tenant
	keyID        string
	encapsulated [sealed.EncapsulatedSize]byte
	secret       sealed.Secret
	nonce        byte
}

// seals makes a sealer for the key that a core has now.
func (c *tenant) seals(core int) *sealer {
	c.h.t.Helper()
	info, err := c.h.cores[core].Info(context.Background())
	if err != nil {
		c.h.t.Fatal(err)
	}
	return c.sealsTo(info.HPKEKey[:], info.Domain)
}

func (c *tenant) sealsTo(public []byte, domain [32]byte) *sealer {
	c.h.t.Helper()
	key, err := hpke.MLKEM768X25519().NewPublicKey(public)
	if err != nil {
		c.h.t.Fatal(err)
	}
	encapsulated, sender, err := hpke.NewSender(key, hpke.HKDFSHA256(), hpke.ExportOnly(), sealed.Info(domain))
	if err != nil {
		c.h.t.Fatal(err)
	}
	exported, err := sender.Export(sealed.ExportLabel, sealed.SecretSize)
	if err != nil {
		c.h.t.Fatal(err)
	}
	return &sealer{
		tenant: c, keyID: sealed.KeyID(public), encapsulated: [sealed.EncapsulatedSize]byte(encapsulated),
		secret: sealed.NewSecret([sealed.SecretSize]byte(exported)),
	}
}

// A sealedBody is what travels, and what it is made of.
type sealedBody struct {
	outer         *sealed.Outer
	message, body []byte
}

// seal seals a signed request.
func (s *sealer) seal(action string, request []byte) sealedBody {
	s.h.t.Helper()
	v, err := canon.Parse(request)
	if err != nil {
		s.h.t.Fatal(err)
	}
	o, err := sealed.NewOuter(action, s.keyID, v)
	if err != nil {
		s.h.t.Fatal(err)
	}
	return s.sealWith(o, request)
}

func (s *sealer) sealWith(o *sealed.Outer, request []byte) sealedBody {
	s.h.t.Helper()
	s.nonce++
	message, err := s.secret.SealRequest(&s.encapsulated, [sealed.NonceSize]byte{s.nonce}, o, request)
	if err != nil {
		s.h.t.Fatal(err)
	}
	return sealedBody{o, message, o.AppendBody(nil, message)}
}

// ask sends a body and opens the reply.
func (s *sealer) ask(core int, b sealedBody) (reply, sealed.Reply) {
	s.h.t.Helper()
	a := s.h.call(core, &wire.Call{Action: b.outer.Action, Body: b.body})
	if a.Sign != "" {
		s.h.t.Errorf("the reply has the signature %q outside", a.Sign)
	}
	message := sealed.ParseReply(a.Reply)
	if message == nil {
		s.h.t.Fatalf("reply in clear: %s", a.Reply)
	}
	opened, err := s.secret.OpenReply(b.message, message)
	if err != nil {
		s.h.t.Fatal(err)
	}
	var r reply
	if err := json.Unmarshal(opened.Body, &r); err != nil {
		s.h.t.Fatal(err)
	}
	r.answer = a
	return r, opened
}

// refuse expects a refusal in clear.
func (s *sealer) refuse(what string, core int, action string, body []byte, message string) {
	s.h.t.Helper()
	r := parseReply(s.h.t, s.h.call(core, &wire.Call{Action: action, Body: body}))
	if r.Code != 400 || r.Message != message || r.answer.Sign != "" {
		s.h.t.Errorf("%s: got %d %q, want 400 %q", what, r.Code, r.Message, message)
	}
}

// TestSealed has requests served as in clear, with the signature of their replies,
// and shows the manager neither request nor reply.
func TestSealed(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	s := c.seals(0)
	r, _ := s.ask(0, s.seal("CreateKey", c.body(newKey)))
	want(t, "CreateKey", r, 200, "success!")
	key := r.text("keyid")
	b := s.seal("Encrypt", c.body(encrypts(key)))
	r, opened := s.ask(0, b)
	want(t, "Encrypt", r, 200, "success!")
	if r.answer.Code != 200 || opened.Sign == "" {
		t.Errorf("Encrypt: code %d, signature %q", r.answer.Code, opened.Sign)
	}
	for _, hidden := range []string{hello, r.text("ciphertext"), opened.Sign} {
		if bytes.Contains(b.body, []byte(hidden)) || bytes.Contains(r.answer.Reply, []byte(hidden)) {
			t.Errorf("the manager sees %q", hidden)
		}
	}
	r, _ = s.ask(0, s.seal("Decrypt", c.body(map[string]any{"keyid": key, "ciphertext": r.text("ciphertext")})))
	if r.text("plaintext") != hello {
		t.Errorf("Decrypt: got %v", r.Result)
	}
	h.cores[0].instance.current.contexts.clear() // decapsulated each time from here on
	secretName := map[string]any{"secretName": "a name", "secretData": "a value"}
	r, _ = s.ask(0, s.seal("CreateSecret", c.body(secretName)))
	want(t, "CreateSecret", r, 200, "The a name create success.")
	r, _ = s.ask(0, s.seal("GetSecretValue", c.body(map[string]any{"secretName": "a name"})))
	if r.text("secretData") != "a value" {
		t.Errorf("GetSecretValue: got %v", r)
	}
}

// TestSealedRefusals has the refusals of what is inside come sealed, with the texts
// that they have in clear.
func TestSealedRefusals(t *testing.T) {
	h, _ := newHost(t)
	c, other := h.enroll(), h.enroll()
	s, key := c.seals(0), c.createKey()
	old := c.sign(encrypts(key), h.now.Add(-time.Hour), "old")
	forged := bytes.Replace(c.body(encrypts(key)), []byte(hello), []byte(plain32), 1)
	named := encrypts(key)
	named["action"] = "Decrypt"
	for what, row := range map[string]struct {
		action, message string
		request         []byte
	}{
		"outside of the window":  {"Encrypt", "Timestamp error", old},
		"changed":                {"Encrypt", "sign error", forged},
		"of another action":      {"Encrypt", "sign error", c.body(named)},
		"foreign key":            {"Encrypt", "keyid error", c.body(encrypts(other.createKey()))},
		"key that is none":       {"Encrypt", "Parameter invalid, The keyid length error.", c.body(encrypts("none"))},
		"no signature":           {"Encrypt", "Missing required parameters", []byte(`{"appid":"` + c.appid + `"}`)},
		"a sealed one in itself": {"Encrypt", "Missing required parameters", s.seal("Encrypt", []byte(`{"appid":"`+c.appid+`"}`)).body},
	} {
		r, opened := s.ask(0, s.seal(row.action, row.request))
		want(t, what, r, 400, row.message)
		if (opened.Sign != "") != (row.message[0] == 'k' || row.message[0] == 'P') {
			t.Errorf("%s: signature %q", what, opened.Sign)
		}
	}
}

// TestSealedReplay has a sealed request be served once, however often it comes and
// whoever seals it anew, and the replies under other keys.
func TestSealedReplay(t *testing.T) {
	h, d := newHost(t)
	c := h.enroll()
	s, key := c.seals(0), c.createKey()
	request := c.body(encrypts(key))
	b := s.seal("Encrypt", request)
	first, _ := s.ask(0, b)
	want(t, "first", first, 200, "success!")
	second, _ := s.ask(0, b)
	want(t, "again", second, 400, "Timestamp can't be repeated in 20 minutes")
	if bytes.Equal(first.answer.Reply[:100], second.answer.Reply[:100]) {
		t.Error("two replies have one nonce")
	}
	r, _ := s.ask(0, s.seal("Encrypt", request))
	want(t, "sealed anew", r, 400, "Timestamp can't be repeated in 20 minutes")
	want(t, "in clear", c.send(0, "Encrypt", request), 400, "Timestamp can't be repeated in 20 minutes")

	// A change is served once on all nodes.
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	create := c.body(newKey)
	r, _ = s.ask(0, s.seal("CreateKey", create))
	want(t, "CreateKey", r, 200, "success!")
	elsewhere := c.seals(1)
	r, _ = elsewhere.ask(1, elsewhere.seal("CreateKey", create))
	want(t, "CreateKey elsewhere", r, 400, "Timestamp can't be repeated in 20 minutes")
}

// TestSealedReplySwap has a reply open for its request only.
func TestSealedReplySwap(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	s, key := c.seals(0), c.createKey()
	one, two := s.seal("Encrypt", c.body(encrypts(key))), s.seal("Encrypt", c.body(encrypts(key)))
	r, _ := s.ask(0, one)
	message := sealed.ParseReply(r.answer.Reply)
	if _, err := s.secret.OpenReply(two.message, message); err != sealed.ErrOpen {
		t.Errorf("reply to another request: got %v", err)
	}
	if _, err := c.seals(0).secret.OpenReply(one.message, message); err != sealed.ErrOpen {
		t.Errorf("reply under another secret: got %v", err)
	}
}

// tampered are changes to a sealed request by who carries it.
func tampered(b sealedBody, other *tenant, otherKey string) map[string][]byte {
	edit := func(change func(o *sealed.Outer)) []byte {
		o := *b.outer
		o.Names = append([]sealed.Name(nil), o.Names...)
		change(&o)
		return o.AppendBody(nil, b.message)
	}
	flip := func(at int) []byte {
		m := bytes.Clone(b.message)
		if at < 0 {
			at += len(m)
		}
		m[at] ^= 1
		return b.outer.AppendBody(nil, m)
	}
	return map[string][]byte{
		"another appid":       edit(func(o *sealed.Outer) { o.AppID = other.appid }),
		"another key":         edit(func(o *sealed.Outer) { o.Names[0].ID = otherKey }),
		"no name":             edit(func(o *sealed.Outer) { o.Names = nil }),
		"one name more":       edit(func(o *sealed.Outer) { o.Names = append(o.Names, sealed.Name{Member: "ukeyid", ID: otherKey}) }),
		"another member":      edit(func(o *sealed.Outer) { o.Names[0].Member = "ukeyid" }),
		"format":              flip(0),
		"encapsulated":        flip(1),
		"encapsulated X25519": flip(sealed.EncapsulatedSize),
		"nonce":               flip(1 + sealed.EncapsulatedSize),
		"length inside":       flip(1 + sealed.EncapsulatedSize + sealed.NonceSize),
		"tag":                 flip(-1),
		"cut":                 b.outer.AppendBody(nil, b.message[:len(b.message)-1]),
		"cut short":           b.outer.AppendBody(nil, b.message[:100]),
		"extended":            b.outer.AppendBody(nil, append(bytes.Clone(b.message), 0)),
		"unknown member":      append(bytes.Clone(b.body[:len(b.body)-1]), `,"sign":"x"}`...),
		"no JSON":             b.body[:len(b.body)-1],
	}
}

func TestSealedTampered(t *testing.T) {
	h, d := newHost(t)
	c, other := h.enroll(), h.enroll()
	s, key, second := c.seals(0), c.createKey(), c.createKey()
	b := s.seal("Encrypt", c.body(encrypts(key)))
	for what, body := range tampered(b, other, second) {
		s.refuse(what, 0, "Encrypt", body, textSealed)
	}
	s.refuse("another action", 0, "GenerateDataKey", b.body, textSealed)
	r, _ := s.ask(0, b)
	want(t, "the request itself", r, 200, "success!")

	// Of another domain, though to the same key.
	foreign := d.keys.Domain()
	foreign[0] ^= 1
	key0 := h.cores[0].instance.current.public
	s.refuse("another domain", 0, "Encrypt", c.sealsTo(key0[:], foreign).seal("Encrypt", c.body(encrypts(key))).body, textSealed)
}

// TestSealedOuter has an outer part that is sealed with the request, but says
// something else than it, be refused: the client itself, or who stole its secret,
// must not have a request served under other names than the manager was told.
func TestSealedOuter(t *testing.T) {
	h, _ := newHost(t)
	c, other := h.enroll(), h.enroll()
	s, key, second := c.seals(0), c.createKey(), c.createKey()
	request := c.body(encrypts(key))
	for what, o := range map[string]sealed.Outer{
		"another appid": {AppID: other.appid, Names: []sealed.Name{{Member: "keyid", ID: key}}},
		"another key":   {AppID: c.appid, Names: []sealed.Name{{Member: "keyid", ID: second}}},
		"no key":        {AppID: c.appid},
		"one more":      {AppID: c.appid, Names: []sealed.Name{{Member: "keyid", ID: key}, {Member: "ukeyid", ID: second}}},
		"a secret":      {AppID: c.appid, Names: []sealed.Name{{Member: "keyid", ID: key}, {Member: "secretId", ID: second}}},
	} {
		o.Action, o.KeyID = "Encrypt", s.keyID
		s.refuse(what, 0, "Encrypt", s.sealWith(&o, request).body, textSealed)
	}
	for what, text := range map[string]string{"empty": "", "no JSON": "{", "an array": "[]"} {
		o := sealed.Outer{Action: "Encrypt", AppID: c.appid, KeyID: s.keyID}
		s.refuse(what, 0, "Encrypt", s.sealWith(&o, []byte(text)).body, textSealed)
	}
}

// TestSealedKeyLife follows the key of an instance through a day: another one comes,
// the old one opens for one window more and then nothing.
func TestSealedKeyLife(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	key := c.createKey()
	first := c.seals(0)
	start := h.now
	h.now = start.Add(24*time.Hour - time.Second)
	if c.seals(0).keyID != first.keyID {
		t.Error("another key before its time")
	}
	h.now = start.Add(24 * time.Hour)
	second := c.seals(0)
	if second.keyID == first.keyID {
		t.Fatal("no other key after a day")
	}
	for what, s := range map[string]*sealer{"old": first, "new": second} {
		r, _ := s.ask(0, s.seal("Encrypt", c.body(encrypts(key))))
		want(t, what, r, 200, "success!")
	}
	private, contexts := h.cores[0].instance.former.private, &h.cores[0].instance.former.contexts
	h.now = start.Add(24*time.Hour + 10*time.Minute)
	b := first.seal("Encrypt", c.body(encrypts(key)))
	first.refuse("old after the window", 0, "Encrypt", b.body, textSealedKey)
	if !bytes.Equal(private.Expose(), make([]byte, 32)) || len(contexts.young) != 0 {
		t.Error("the old key and its secrets are still there")
	}
	r := parseReply(t, h.call(0, &wire.Call{Action: "Encrypt", Body: b.body}))
	if r.text("sealedKey") != second.keyID || len(r.Result) != 1 {
		t.Errorf("got %v, want the id of the key that is there", r.Result)
	}
	h.now = start.Add(49 * time.Hour)
	third := c.seals(0)
	answer, _ := third.ask(0, third.seal("Encrypt", c.body(encrypts(key))))
	want(t, "third", answer, 200, "success!")
}

// TestSealedElsewhere has a request for one instance be refused by another.
func TestSealedElsewhere(t *testing.T) {
	h, d := newHost(t)
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	c := h.enroll()
	key := c.createKey()
	b := c.seals(0).seal("Encrypt", c.body(encrypts(key)))
	c.seals(0).refuse("other instance", 1, "Encrypt", b.body, textSealedKey)
	// With the other's id in the outer part it does not open.
	b.outer.KeyID = c.seals(1).keyID
	c.seals(0).refuse("other id", 1, "Encrypt", b.outer.AppendBody(nil, b.message), textSealed)
}

// TestSealedRemembered has secrets be kept of clients who have shown who they are,
// and of no others.
func TestSealedRemembered(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	contexts := &h.cores[0].instance.current.contexts
	s := c.seals(0)
	r, _ := s.ask(0, s.seal("ListKey", bytes.Replace(c.body(nil), []byte(`"sign":"`), []byte(`"sign":"A`), 1)))
	want(t, "stranger", r, 400, "sign error")
	if len(contexts.young) != 0 {
		t.Error("the secret of a stranger is kept")
	}
	for range 3 {
		r, _ = s.ask(0, s.seal("ListKey", c.body(nil)))
		want(t, "tenant", r, 200, "successful")
	}
	if len(contexts.young) != 1 {
		t.Errorf("%d secrets are kept, want 1", len(contexts.young))
	}
	for i := range 2*maxContexts + 1 {
		var e [sealed.EncapsulatedSize]byte
		copy(e[:], fmt.Sprint(i))
		contexts.put(&e, h.cores[0].instance.current.private)
	}
	if n := len(contexts.young) + len(contexts.old); n > 2*maxContexts {
		t.Errorf("%d secrets are kept", n)
	}
	if !strings.Contains(fmt.Sprintf("%+v", s.secret), "secret") {
		t.Error("a secret prints")
	}
}
