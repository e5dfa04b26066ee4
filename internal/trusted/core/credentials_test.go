package core

import (
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

const manyAppID = "7d1c6a52-9d0f-4c55-8a3b-3b1f1e9c2d40"

// TestSeveralAPIKeys has an app with as many API keys as it may have, of which the
// third expires.
func TestSeveralAPIKeys(t *testing.T) {
	h, d := newHost(t)
	c := &tenant{h: h, appid: manyAppID}
	texts := []string{"first key", "second key", "third key", "fourth key"}
	a := record.App{State: record.Active, Created: 1}
	for i := range texts {
		a.Credentials = append(a.Credentials, record.Credential{ID: wire.UUID{byte(i + 1)}, Kind: record.APIKey, Role: record.Owner, Created: 1})
	}
	expires := h.now.UnixMilli() + 1000
	a.Credentials[2].Expires = expires
	h.putAppWith(d, c, 1, a, texts...)
	nonce := 0
	as := func(key string) *tenant {
		nonce += 10
		return &tenant{h: h, appid: c.appid, apikey: key, nonce: nonce}
	}
	for _, key := range texts {
		want(t, key, as(key).do(0, "ListKey", nil), 200, "successful")
	}
	want(t, "a fifth", as("fifth key").do(0, "ListKey", nil), 400, "sign error")
	want(t, "two in one", as(texts[0]+texts[1]).do(0, "ListKey", nil), 400, "sign error")
	want(t, "empty", as("").do(0, "ListKey", nil), 400, "sign error")

	h.now = h.now.Add(999 * 1e6)
	want(t, "before its end", as("third key").do(0, "ListKey", nil), 200, "successful")
	h.now = h.now.Add(1e6)
	want(t, "at its end", as("third key").do(0, "ListKey", nil), 400, "sign error")
	for _, key := range []string{"first key", "second key", "fourth key"} {
		want(t, key+" later", as(key).do(0, "ListKey", nil), 200, "successful")
	}
	want(t, "all of them keep the generation", as("second key").do(0, "DeleteAllKey", nil), 200, "successful")
	want(t, "after a change of the record", as("fourth key").do(0, "ListKey", nil), 200, "successful")
	want(t, "expired, after a change", as("third key").do(0, "ListKey", nil), 400, "sign error")
}

// TestActionRequired has a credential whose requests must name their action.
func TestActionRequired(t *testing.T) {
	h, d := newHost(t)
	c := &tenant{h: h, appid: manyAppID, apikey: "strict"}
	a := record.App{State: record.Active, Created: 1, Credentials: []record.Credential{{Kind: record.APIKey, Role: record.Owner, Created: 1, RequireAction: true}}}
	h.putAppWith(d, c, 1, a, c.apikey)
	want(t, "without", c.do(0, "ListKey", nil), 400, "sign error")
	want(t, "without, empty", c.do(0, "ListKey", map[string]any{"action": ""}), 400, "sign error")
	want(t, "another", c.do(0, "ListKey", map[string]any{"action": "DeleteAllKey"}), 400, "sign error")
	want(t, "its own", c.do(0, "ListKey", map[string]any{"action": "ListKey"}), 200, "successful")
}

// TestNewKeyElsewhere has an API key made at one node used at another one at once,
// whose manager still has the app of before.
func TestNewKeyElsewhere(t *testing.T) {
	h, d := newHost(t)
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	c := h.enroll()
	want(t, "at the other node", c.do(1, "ListKey", nil), 200, "successful")
	old := h.rows[appID(c.id())]
	key, _ := c.newAPIKey(t, nil)
	lag := true
	h.edit = func(r *wire.Ref) {
		if r.ID == appID(c.id()) && lag {
			r.Revision, r.Tag, r.Sealed = old.Revision, old.Tag(), nil
			lag = false // what is read again is new
		}
	}
	want(t, "new key", key.do(1, "ListKey", nil), 200, "successful")
	// Whoever guesses has the store read now and then, and not each time.
	h.now = h.now.Add(1e9)
	reads := 0
	h.edit = func(r *wire.Ref) {
		if r.Sealed != nil {
			reads++
		}
	}
	wrong := &tenant{h: h, appid: c.appid, apikey: "wrong"}
	for range 3 * maxLooks {
		want(t, "wrong key", wrong.do(1, "ListKey", nil), 400, "sign error")
	}
	if reads != maxLooks {
		t.Errorf("%d reads of the store for %d wrong signatures, want %d", reads, 3*maxLooks, maxLooks)
	}
}
