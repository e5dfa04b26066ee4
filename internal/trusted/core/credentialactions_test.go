package core

import (
	"bytes"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// A doer sends signed requests.
type doer interface {
	ask(action string, payload map[string]any) reply
}

func (c *tenant) ask(action string, payload map[string]any) reply { return c.do(0, action, payload) }
func (p *holder) ask(action string, payload map[string]any) reply { return p.do(action, payload) }

// naming has d name the action, as these actions want.
func naming(d doer, action string, payload map[string]any) reply {
	named := map[string]any{"action": action}
	maps.Copy(named, payload)
	return d.ask(action, named)
}

// mustName also wants a success.
func mustName(t testing.TB, d doer, action string, payload map[string]any) reply {
	t.Helper()
	r := naming(d, action, payload)
	if r.Code != 200 {
		t.Fatalf("%s: %d %s", action, r.Code, r.Message)
	}
	return r
}

// newAPIKey makes an API key and returns who has it.
func (c *tenant) newAPIKey(t testing.TB, payload map[string]any) (*tenant, string) {
	t.Helper()
	p := map[string]any{"kind": "api-key", "role": "owner"}
	maps.Copy(p, payload)
	r := mustName(t, c, "CreateCredential", p)
	c.nonce += 1000
	return &tenant{h: c.h, appid: c.appid, apikey: r.text("apikey"), nonce: c.nonce}, r.text("credentialId")
}

func TestCreateAndRevoke(t *testing.T) {
	h, _ := newHost(t)
	first := h.enroll()
	second, id := first.newAPIKey(t, map[string]any{"description": "batch", "expires": h.now.UnixMilli() + 5000})
	if len(second.apikey) != 32 || second.apikey == first.apikey {
		t.Errorf("API key is %q", second.apikey)
	}
	want(t, "second", second.ask("ListKey", nil), 200, "successful")
	want(t, "first", first.ask("ListKey", nil), 200, "successful")

	list := mustName(t, second, "ListCredentials", nil).Result["credentials"].([]any)
	if len(list) != 2 {
		t.Fatalf("list is %v", list)
	}
	old, made := list[0].(map[string]any), list[1].(map[string]any)
	if old["credentialId"] != (wire.UUID{}).String() || old["kind"] != "api-key" || old["role"] != "owner" || old["expires"] != 0.0 {
		t.Errorf("first is %v", old)
	}
	if made["credentialId"] != id || made["description"] != "batch" || made["expires"] != float64(h.now.UnixMilli()+5000) ||
		made["policyId"] != "" || made["publicKey"] != "" || made["requireAction"] != false {
		t.Errorf("second is %v", made)
	}
	if used, now := made["lastUsed"].(float64), float64(h.now.UnixMilli()); used <= 0 || used > now || now-used >= minuteMillis {
		t.Errorf("last used at %v, now is %v", used, now)
	}

	want(t, "revoke", naming(first, "RevokeCredential", map[string]any{"credentialId": id}), 200, "successful")
	want(t, "revoked", second.ask("ListKey", nil), 400, "sign error")
	want(t, "revoke again", naming(first, "RevokeCredential", map[string]any{"credentialId": id}), 400, "not find this credential")
	want(t, "first still", first.ask("ListKey", nil), 200, "successful")
}

func TestCreateKeyPair(t *testing.T) {
	h, d := newHost(t)
	_, ed, p256 := pairs(t, newHostOf(t), d)
	c := h.enroll()
	for _, p := range []*holder{ed, p256} {
		kind, public := "ed25519", []byte(nil)
		if p.ed25519 != nil {
			public = p.ed25519[32:]
		} else {
			kind = "p256"
			public, _ = p.p256.PublicKey.Bytes()
		}
		payload := map[string]any{"kind": kind, "role": "user", "publicKey": b64(public), "requireAction": true}
		p.tenant = &tenant{h: h, appid: c.appid}
		p.credential = mustName(t, c, "CreateCredential", payload).text("credentialId")
		want(t, kind, naming(p, "ListKey", nil), 200, "successful")
		want(t, kind+", action not named", p.ask("ListKey", nil), 400, "sign error")
		want(t, kind+" twice", naming(c, "CreateCredential", payload), 400, "another credential has this publicKey")
		for _, action := range []string{"CreateCredential", "ListCredentials", "RevokeCredential"} {
			want(t, kind+" of a user, "+action, naming(p, action, payload), 400, "sign error")
		}
		want(t, kind+" has no API key", naming(p, "RotateAPIKey", nil), 400, "Missing required parameters, The credentialId cannot be empty.")
		want(t, kind+" of a user rotates another's", naming(p, "RotateAPIKey", map[string]any{"credentialId": (wire.UUID{}).String()}), 400, "sign error")
	}
}

// newHostOf is a host for what is stored and not used.
func newHostOf(t *testing.T) *host {
	h, _ := newHost(t)
	return h
}

func TestCredentialRefusals(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	create := func(change map[string]any) reply {
		p := map[string]any{"kind": "api-key", "role": "owner"}
		maps.Copy(p, change)
		return naming(c, "CreateCredential", p)
	}
	ed := b64(bytes.Repeat([]byte{1}, 32))
	for _, row := range []struct {
		name    string
		change  map[string]any
		message string
	}{
		{"no kind", map[string]any{"kind": nil}, "Missing required parameters, The kind cannot be empty."},
		{"unknown kind", map[string]any{"kind": "rsa"}, "Parameter invalid, The kind type is incorrect."},
		{"no role", map[string]any{"role": nil}, "Missing required parameters, The role cannot be empty."},
		{"unknown role", map[string]any{"role": "admin"}, "Parameter invalid, The role type is incorrect."},
		{"unknown member", map[string]any{"policy": "x"}, "Parameter invalid, The policy type is incorrect."},
		{"API key with a public key", map[string]any{"publicKey": ed}, "Parameter invalid, The publicKey type is incorrect."},
		{"key pair without one", map[string]any{"kind": "ed25519"}, "Missing required parameters, The publicKey cannot be empty."},
		{"of another kind", map[string]any{"kind": "p256", "publicKey": ed}, "Parameter invalid, The publicKey format wrong."},
		{"point off the curve", map[string]any{"kind": "p256", "publicKey": b64(append([]byte{4}, make([]byte, 64)...))}, "Parameter invalid, The publicKey format wrong."},
		{"long key", map[string]any{"kind": "ed25519", "publicKey": b64(make([]byte, 69))}, "Parameter invalid, The publicKey length error."},
		{"long description", map[string]any{"description": strings.Repeat("x", 65)}, "Parameter invalid, The description length error."},
		{"description not printable", map[string]any{"description": "a\x7f"}, "Parameter invalid, The description format wrong."},
		{"expires now", map[string]any{"expires": h.now.UnixMilli()}, "Parameter invalid, The expires value must be later than now."},
		{"expires before 1970", map[string]any{"expires": -1}, "Parameter invalid, The expires value must be greater than or equal to 0."},
		{"expires as text", map[string]any{"expires": "1"}, "Parameter invalid, The expires must be of integer type."},
		{"requireAction as text", map[string]any{"requireAction": "true"}, "Parameter invalid, The requireAction type is incorrect."},
	} {
		want(t, row.name, create(row.change), 400, row.message)
	}
	for range record.MaxAPIKeys - 1 {
		want(t, "as many as there may be", create(nil), 200, "successful")
	}
	want(t, "one more", create(nil), 400, "too many credentials")
	want(t, "rotation with overlap", naming(c, "RotateAPIKey", map[string]any{"overlapSeconds": 1}), 400, "too many credentials")
	for _, row := range []struct{ id, message string }{
		{"", "Missing required parameters, The credentialId cannot be empty."},
		{"x", "Parameter invalid, The credentialId length error."},
		{wire.UUID{1}.String(), "not find this credential"},
		{strings.Repeat("z", 8) + "-zzzz-zzzz-zzzz-zzzzzzzzzzzz", "not find this credential"},
	} {
		want(t, "revoke "+row.id, naming(c, "RevokeCredential", map[string]any{"credentialId": row.id}), 400, row.message)
	}
	for name, overlap := range map[string]any{"negative": -1, "31 days": 31 * 86400, "text": "1", "fraction": 1.5} {
		if r := naming(c, "RotateAPIKey", map[string]any{"overlapSeconds": overlap}); r.Code != 400 {
			t.Errorf("overlap is %s: got %d %s", name, r.Code, r.Message)
		}
	}
}

// TestActionsMustBeNamed has the body of an old client sent as what it is not.
func TestActionsMustBeNamed(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	for _, action := range []string{"RotateAPIKey", "ListCredentials", "CreateCredential", "RevokeCredential"} {
		want(t, action, c.ask(action, nil), 400, "sign error")
		want(t, action+", empty", c.ask(action, map[string]any{"action": ""}), 400, "sign error")
	}
	want(t, "the key is as it was", c.ask("ListKey", nil), 200, "successful")
}

func TestLastOwner(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	zero := map[string]any{"credentialId": (wire.UUID{}).String()}
	const last = "the last owner credential cannot be revoked"
	want(t, "alone", naming(c, "RevokeCredential", zero), 400, last)
	_, user := c.newAPIKey(t, map[string]any{"role": "user"})
	want(t, "beside a user", naming(c, "RevokeCredential", zero), 400, last)
	_, expired := c.newAPIKey(t, map[string]any{"expires": h.now.UnixMilli() + 1})
	h.now = h.now.Add(time.Millisecond)
	want(t, "beside one that has expired", naming(c, "RevokeCredential", zero), 400, last)
	want(t, "expired", naming(c, "RevokeCredential", map[string]any{"credentialId": expired}), 200, "successful")

	r := mustName(t, c, "RotateAPIKey", map[string]any{"overlapSeconds": 60})
	next := &tenant{h: h, appid: c.appid, apikey: r.text("apikey")}
	want(t, "beside one whose place is taken", naming(next, "RevokeCredential", map[string]any{"credentialId": r.text("credentialId")}), 400, last)
	want(t, "the one whose place is taken", naming(next, "RevokeCredential", zero), 200, "successful")
	want(t, "user", naming(next, "RevokeCredential", map[string]any{"credentialId": user}), 200, "successful")
	want(t, "revoked", c.ask("ListKey", nil), 400, "sign error")
}

func TestRotate(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	user, id := c.newAPIKey(t, map[string]any{"role": "user", "description": "u", "expires": h.now.UnixMilli() + 100_000})
	now := h.now.UnixMilli()
	r := mustName(t, user, "RotateAPIKey", map[string]any{"overlapSeconds": 10})
	if r.Result["overlapEnds"] != float64(now+10_000) || r.text("credentialId") == id || r.text("apikey") == user.apikey {
		t.Errorf("got %v", r.Result)
	}
	next := &tenant{h: h, appid: c.appid, apikey: r.text("apikey")}
	want(t, "new", next.ask("ListKey", nil), 200, "successful")
	want(t, "old, meanwhile", user.ask("ListKey", nil), 200, "successful")
	want(t, "new is a user too", naming(next, "ListCredentials", nil), 400, "sign error")

	// The reply to a rotation may get lost: the key rotates again, and its second
	// successor lasts as long as the first. The overlap gets no longer.
	r = mustName(t, user, "RotateAPIKey", map[string]any{"overlapSeconds": 50})
	if r.Result["overlapEnds"] != float64(now+10_000) {
		t.Errorf("overlap of the second rotation: got %v", r.Result["overlapEnds"])
	}
	third := &tenant{h: h, appid: c.appid, apikey: r.text("apikey")}
	h.now = h.now.Add(10 * time.Second)
	want(t, "old, after the overlap", user.ask("ListKey", nil), 400, "sign error")
	want(t, "third", third.ask("ListKey", nil), 200, "successful")

	r = mustName(t, third, "RotateAPIKey", map[string]any{"overlapSeconds": 0})
	fourth := &tenant{h: h, appid: c.appid, apikey: r.text("apikey")}
	want(t, "no overlap", third.ask("ListKey", nil), 400, "sign error")
	want(t, "fourth", fourth.ask("ListKey", nil), 200, "successful")
	h.now = h.now.Add(90 * time.Second)
	want(t, "it expires with the first", fourth.ask("ListKey", nil), 400, "sign error")

	r = mustName(t, c, "RotateAPIKey", map[string]any{"credentialId": (wire.UUID{}).String()})
	want(t, "by id", (&tenant{h: h, appid: c.appid, apikey: r.text("apikey")}).ask("ListKey", nil), 200, "successful")
	want(t, "and the old one has ended", c.ask("ListKey", nil), 400, "sign error")
}

// TestUsesAreBounded has more credentials than the table remembers.
func TestUsesAreBounded(t *testing.T) {
	u := newUses(2)
	u.note(wire.UUID{1}, &openCredential{}, 123_456)
	if got := u.last(wire.UUID{1}, wire.UUID{}); got != 120_000 {
		t.Errorf("last use is %d, want 120000", got)
	}
	for i := range 10 {
		u.note(wire.UUID{byte(i)}, &openCredential{}, 999_999)
	}
	if len(u.times) != 2 {
		t.Errorf("%d entries, limit 2", len(u.times))
	}
	if got := u.last(wire.UUID{9}, wire.UUID{}); got != 960_000 {
		t.Errorf("last use is %d, want 960000", got)
	}
}

// TestUnknownPolicy has a credential that names a policy which does not exist.
func TestUnknownPolicy(t *testing.T) {
	h, d := newHost(t)
	c := &tenant{h: h, appid: manyAppID, apikey: "k"}
	a := record.App{State: record.Active, Created: 1, Credentials: []record.Credential{{Kind: record.APIKey, Role: record.Owner, Created: 1, Policy: wire.UUID{1}}}}
	h.putAppWith(d, c, 1, a, c.apikey)
	want(t, "a policy that nobody wrote", c.ask("ListKey", nil), 400, "sign error")
}
