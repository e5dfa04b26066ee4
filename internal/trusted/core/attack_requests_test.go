package core

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"
	"sync"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/trail"
)

// sent has alice send a request that only reads, and returns its bytes.
func (a *attacker) sent(core int, nonce string) []byte {
	key := a.alice.createKey()
	body := a.alice.sign(map[string]any{"keyid": key, "keylen": 16}, a.now, nonce)
	if !a.succeeds(core, "GenerateDataKey", body) {
		a.t.Fatal("preparation: GenerateDataKey is refused")
	}
	return body
}

// replayAttacks send requests again that alice has sent.
var replayAttacks = []attack{
	{"the same request", func(a *attacker) bool {
		return a.succeeds(0, "GenerateDataKey", a.sent(0, "n"))
	}},
	{"the same request without nonce", func(a *attacker) bool {
		return a.succeeds(0, "GenerateDataKey", a.sent(0, ""))
	}},
	{"the same request for another action", func(a *attacker) bool {
		return a.succeeds(0, "GenerateDataKeyWithoutPlaintext", a.sent(0, "n"))
	}},
	{"the same change for another change", func(a *attacker) bool {
		body := a.alice.body(named(a.alice.createKey()))
		a.succeeds(0, "EnableKey", body)
		return a.succeeds(0, "DeleteKey", body)
	}},
	{"the same request at the end of its time", func(a *attacker) bool {
		body := a.sent(0, "n")
		a.now = a.now.Add(10*time.Minute - time.Millisecond)
		a.cores[0].Checkpoint(context.Background())
		return a.succeeds(0, "GenerateDataKey", body)
	}},
	{"a request from the future during all of its time", func(a *attacker) bool {
		key := a.alice.createKey()
		body := a.alice.sign(encrypts(key), a.now.Add(9*time.Minute), "")
		a.succeeds(0, "Encrypt", body)
		done := false
		for range 20 {
			done = done || a.succeeds(0, "Encrypt", body)
			a.now = a.now.Add(time.Minute)
			a.cores[0].Checkpoint(context.Background())
		}
		return done
	}},
	{"the same request with its members in another order", func(a *attacker) bool {
		return a.succeeds(0, "GenerateDataKey", reorder(a.sent(0, "n")))
	}},
	{"the same request with members that are not signed", func(a *attacker) bool {
		body := string(a.sent(0, "n"))
		return a.succeeds(0, "GenerateDataKey", []byte(`{"x":1,`+body[1:])) ||
			a.succeeds(0, "GenerateDataKey", []byte(strings.Replace(body, `"payload":{`, `"payload":{"aad":"",`, 1)))
	}},
	{"the same request with a signature spelled otherwise", func(a *attacker) bool {
		body, done := a.sent(0, "n"), false
		for _, sign := range otherSpellings(signOf(body)) {
			done = done || a.succeeds(0, "GenerateDataKey", bytes.Replace(body, []byte(signOf(body)), []byte(sign), 1))
		}
		return done
	}},
	{"the same request many times at once", func(a *attacker) bool {
		key := a.alice.createKey()
		body := a.alice.body(encrypts(key))
		a.alice.mustDo("Encrypt", encrypts(key)) // so that no call needs records
		var codes [8]int
		var wg sync.WaitGroup
		for i := range codes {
			wg.Go(func() { codes[i], _ = a.gets(0, "Encrypt", body) })
		}
		wg.Wait()
		n := 0
		for _, code := range codes {
			if code == codeOK {
				n++
			}
		}
		if n == 0 {
			a.t.Error("nobody was served")
		}
		return n > 1
	}},
	{"a request on a second core, twice", func(a *attacker) bool {
		body := a.sent(0, "n")
		a.succeeds(small, "GenerateDataKey", body)
		return a.succeeds(small, "GenerateDataKey", body)
	}},
	{"a request after its time, on a new core", func(a *attacker) bool {
		body := a.sent(0, "n")
		a.now = a.now.Add(10 * time.Minute)
		return a.succeeds(a.start(), "GenerateDataKey", body)
	}},
	{"a request before its time", func(a *attacker) bool {
		return a.succeeds(0, "ListKey", a.alice.sign(nil, a.now.Add(10*time.Minute), "n"))
	}},
	{"the clock set forward until the entry is gone, and back", func(a *attacker) bool {
		body, now := a.sent(0, "n"), a.now
		a.now = now.Add(time.Hour)
		a.cores[0].Checkpoint(context.Background())
		a.now = now
		return a.succeeds(0, "GenerateDataKey", body)
	}},
	{"so many requests that the entry is dropped", func(a *attacker) bool {
		key := a.alice.createKey()
		a.now = a.now.Add(-5 * time.Minute)
		var older [20][]byte
		for i := range older {
			older[i] = a.alice.body(encrypts(key))
		}
		a.now = a.now.Add(5 * time.Minute)
		for _, body := range older {
			if !a.succeeds(small, "Encrypt", body) {
				a.t.Fatal("preparation: Encrypt is refused")
			}
		}
		for range 1024 - 10 {
			a.gets(small, "Encrypt", a.alice.body(encrypts(key)))
		}
		return a.succeeds(small, "Encrypt", older[0])
	}},
	{"a change while it is being stored", func(a *attacker) bool {
		key := a.alice.createKey()
		body := a.alice.body(named(key))
		a.outcome = func(*wire.Answer) wire.Outcome { return unresolved }
		a.try(0, &wire.Call{Action: "DisableKey", Body: body})
		a.try(0, &wire.Call{Action: "DisableKey", Body: body})
		return len(a.handles) > 1
	}},
	{"a change that failed, twice", func(a *attacker) bool {
		key := a.alice.createKey()
		body := a.alice.body(named(key))
		a.outcome = func(*wire.Answer) wire.Outcome { return wire.Failed }
		a.gets(0, "DisableKey", body)
		a.outcome = func(*wire.Answer) wire.Outcome { return wire.Stored } // it does not say replayed
		a.gets(0, "DisableKey", body)
		return a.succeeds(0, "DisableKey", body)
	}},
	// The host of these is honest: the attacker sits on the path to two nodes.
	{"a change on a second node", func(a *attacker) bool {
		key := a.alice.createKey()
		body := a.alice.body(named(key))
		a.succeeds(0, "DisableKey", body)
		return a.succeeds(small, "DisableKey", body)
	}},
	{"a listing as a deletion on a second node", func(a *attacker) bool {
		body := a.alice.body(nil)
		a.succeeds(0, "ListKey", body)
		return a.succeeds(small, "DeleteAllKey", body)
	}},
	{"a refused change as another one on a second node", func(a *attacker) bool {
		body := a.alice.body(named(wire.NewUUID().String()))
		a.gets(0, "EnableKey", body)
		return a.succeeds(small, "DeleteKey", body)
	}},
}

// reorder writes the members of an object in the order of their names.
func reorder(body []byte) []byte {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(body, &m); err != nil {
		panic(err)
	}
	b, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		panic(err)
	}
	return b
}

func signOf(body []byte) string {
	v, err := canon.Parse(body)
	if err != nil {
		panic(err)
	}
	return v.Get("sign").Text()
}

// otherSpellings are texts that lenient decoders take for the same bytes.
func otherSpellings(sign string) []string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	last := strings.IndexByte(alphabet, sign[42]) // of its six bits, two are unused
	return []string{
		sign[:42] + alphabet[last^1:last^1+1] + "=", sign[:42] + alphabet[last^2:last^2+1] + "=",
		sign[:43], sign + "=", sign + `\n`, sign[:4] + `\n` + sign[4:], sign[:4] + `\r\n` + sign[4:], " " + sign,
		strings.NewReplacer("+", "-", "/", "_").Replace(sign[:43]),
	}
}

// confusions use requests that alice has signed, and the host has held back, for
// something else.
var confusions = []attack{
	{"a request that names its action, for another action", func(a *attacker) bool {
		payload := named(a.alice.createKey())
		payload["action"] = "EnableKey"
		body := a.alice.body(payload)
		return a.succeeds(0, "DisableKey", body) || a.succeeds(0, "DeleteKey", body)
	}},
	{"an Encrypt as a DeleteKey", func(a *attacker) bool {
		body := a.alice.body(encrypts(a.alice.createKey()))
		return a.succeeds(0, "DeleteKey", body) || a.succeeds(0, "DisableKey", body)
	}},
	{"a request for a key, for another key", func(a *attacker) bool {
		key, other := a.alice.createKey(), a.alice.createKey()
		body := string(a.alice.body(encrypts(key)))
		payload := `"payload":{"keyid":"` + other + `","plaintext":"` + hello + `"}`
		for _, changed := range []string{
			strings.ReplaceAll(body, key, other), `{` + payload + `,` + body[1:], body[:len(body)-1] + `,` + payload + `}`,
			strings.Replace(body, `"keyid"`, `"keyid":"`+other+`","keyid"`, 1),
			strings.Replace(body, `"keyid"`, `"KEYID":"`+other+`","keyid"`, 1),
			strings.Replace(body, `"payload"`, `"Payload":{"keyid":"`+other+`"},"payload"`, 1),
		} {
			answer, err := a.try(0, &wire.Call{Action: "Encrypt", Body: []byte(changed)})
			if err == nil && answer.Code == codeOK {
				head, err := base64.StdEncoding.DecodeString(parseReply(a.t, answer).text("ciphertext")[:28])
				if id := a.alice.keyRecord(other).ID; err != nil || bytes.Equal(head[1:17], id[:]) {
					return true
				}
			}
		}
		return false
	}},
	{"a reply of the host's making, signed with a long action", func(a *attacker) bool {
		body := a.alice.body(nil)
		const action, head = "ListKey", `{"code":200,"message":"successful","result":{"list":[]},"x":[`
		forged := head + strings.Repeat(" ", 256-len(head))
		answer, err := a.try(0, &wire.Call{Action: action + forged, Body: body})
		if err != nil {
			return false
		}
		key := api.ReplyKey([]byte(a.alice.apikey))
		mac, err := base64.StdEncoding.DecodeString(signOf(body))
		if err != nil {
			a.t.Fatal(err)
		}
		reply := append([]byte(forged), answer.Reply...)
		return api.VerifyReplySignature(&key, (*[32]byte)(mac), action, reply, answer.Sign)
	}},
	{"a reply to one request for another", func(a *attacker) bool {
		first, second := a.alice.body(nil), a.alice.body(nil)
		answer := a.call(0, &wire.Call{Action: "ListKey", Body: first})
		a.call(0, &wire.Call{Action: "ListKey", Body: second})
		key := api.ReplyKey([]byte(a.alice.apikey))
		mac, err := base64.StdEncoding.DecodeString(signOf(second))
		if err != nil {
			a.t.Fatal(err)
		}
		return api.VerifyReplySignature(&key, (*[32]byte)(mac), "ListKey", answer.Reply, answer.Sign)
	}},
}

// listings answer the core's queries wrongly.
var listings = []attack{
	{"foreign keys in a listing", func(a *attacker) bool {
		a.bob.createKey()
		a.rows = a.as(a.alice, a.bob)
		states, _ := a.listed(0, a.alice)
		return len(states) > 0
	}},
	{"foreign keys under the tenant's name in a listing", func(a *attacker) bool {
		key := a.bob.createKey()
		a.relabel(a.alice.keyRecord(key), a.bob.keyRecord(key))
		states, _ := a.listed(0, a.alice)
		return len(states) > 0
	}},
	{"a key twice in a listing", func(a *attacker) bool {
		key := a.alice.keyRecord(a.alice.createKey())
		a.rows[wire.RecordID{Type: wire.Key, Tenant: key.Tenant, ID: wire.NewUUID()}] = a.rows[key]
		a.edit = func(r *wire.Ref) {
			if r.ID.Type == wire.Key {
				r.ID = key
			}
		}
		_, twice := a.listed(0, a.alice)
		return twice
	}},
	{"the key from before in a listing", func(a *attacker) bool {
		key, before := a.disabled(0)
		a.bring(before)
		states, _ := a.listed(0, a.alice)
		return states[key] == 1
	}},
	{"the key from before in a listing, no longer cached", func(a *attacker) bool {
		key, before := a.disabled(small)
		a.flush()
		a.bring(before)
		states, _ := a.listed(small, a.alice)
		return states[key] == 1
	}},
	{"a deleted key in a listing", func(a *attacker) bool {
		key := a.alice.createKey()
		before := a.rows[a.alice.keyRecord(key)]
		a.must(small, a.alice, "DeleteKey", named(key))
		states, _ := a.listed(small, a.alice)
		a.flush()
		a.bring(before)
		again, _ := a.listed(small, a.alice)
		return len(states) > 0 || len(again) > 0
	}},
	{"altered keys in a listing", func(a *attacker) bool {
		key := a.alice.createKey()
		return a.altered(a.alice.keyRecord(key), func(core int) bool {
			states, _ := a.listed(core, a.alice)
			return len(states) > 0
		})
	}},
	{"key versions in a listing of keys", func(a *attacker) bool {
		key := a.alice.createKey()
		a.edit = func(r *wire.Ref) {
			if r.ID.Type == wire.Key {
				w := a.rows[a.version(a.alice, key)]
				*r = wire.Ref{ID: w.ID, Revision: w.Revision, Tag: w.Tag(), Sealed: w.Sealed}
			}
		}
		states, _ := a.listed(0, a.alice)
		return len(states) > 0
	}},
}

// as is the database with the keys of one tenant where those of another belong:
// the references still say whose they are.
func (a *attacker) as(who, whose *tenant) map[wire.RecordID]wire.Write {
	rows := a.snapshot()
	a.edit = func(r *wire.Ref) {
		if r.ID.Type == wire.Key && r.ID.Tenant == who.id() {
			r.ID.Tenant = whose.id()
		}
	}
	for id, w := range a.rows {
		if id.Type == wire.Key && id.Tenant == whose.id() {
			id.Tenant = who.id()
			rows[id] = w
		}
	}
	return rows
}

// sweeps ask, as only the host does, for keys to be marked as deleted.
var sweeps = []attack{
	{"a sweep of keys that are not deleted", func(a *attacker) bool {
		key := a.alice.createKey()
		_, done := a.sweep(0, a.alice, a.ref(a.alice.keyRecord(key), true))
		return done
	}},
	{"a sweep of keys made after all others were deleted", func(a *attacker) bool {
		a.must(0, a.alice, "DeleteAllKey", nil)
		key := a.alice.createKey()
		_, done := a.sweep(0, a.alice, a.ref(a.alice.keyRecord(key), true))
		return done
	}},
	{"a sweep of foreign keys", func(a *attacker) bool {
		a.must(0, a.alice, "DeleteAllKey", nil)
		key := a.bob.createKey()
		_, done := a.sweep(0, a.alice, a.ref(a.bob.keyRecord(key), true))
		return done
	}},
	{"a sweep of foreign keys under the tenant's name", func(a *attacker) bool {
		a.must(0, a.alice, "DeleteAllKey", nil)
		key := a.bob.createKey()
		a.relabel(a.alice.keyRecord(key), a.bob.keyRecord(key))
		_, done := a.sweep(0, a.alice, a.ref(a.alice.keyRecord(key), true))
		return done
	}},
	{"a sweep that sets back when a key was deleted", func(a *attacker) bool {
		key := a.alice.createKey()
		a.must(0, a.alice, "DeleteKey", named(key))
		a.now = a.now.Add(time.Hour)
		a.must(0, a.alice, "DeleteAllKey", nil)
		_, done := a.sweep(0, a.alice, a.ref(a.alice.keyRecord(key), true))
		return done
	}},
	{"a sweep of a key from before, on behalf of an app from before", func(a *attacker) bool {
		key := a.alice.createKey()
		before := a.snapshot()
		a.must(0, a.alice, "DeleteAllKey", nil)
		a.rows = before
		_, done := a.sweep(0, a.alice, a.ref(a.alice.keyRecord(key), true))
		return done && a.usable(0, a.alice, key)
	}},
	{"a sweep with an app record of the attacker's making", func(a *attacker) bool {
		key := a.alice.createKey()
		a.putApp(newDomain(a.t), a.alice, 2, record.App{State: record.Active, Generation: 1})
		_, done := a.sweep(0, a.alice, a.ref(a.alice.keyRecord(key), true))
		return done
	}},
}

// inspections look for what should not be there.
var inspections = []attack{
	{"an API key or a plaintext in the records and the trail", func(a *attacker) bool {
		key := a.alice.createKey()
		const plaintext = "a text that nobody else writes"
		a.must(0, a.alice, "Encrypt", map[string]any{"keyid": key, "plaintext": base64.StdEncoding.EncodeToString([]byte(plaintext))})
		seen := bytes.Clone(a.frames)
		for _, w := range a.history {
			seen = append(seen, w.Sealed...)
		}
		return bytes.Contains(seen, []byte(a.alice.apikey)) || bytes.Contains(seen, []byte(plaintext))
	}},
	{"an operation that is not in the trail", func(a *attacker) bool {
		a.frames = nil
		key := a.alice.createKey()
		a.must(0, a.alice, "Encrypt", encrypts(key))
		a.must(0, a.alice, "DisableKey", named(key))
		a.gets(0, "Encrypt", a.alice.body(encrypts(key)))
		var got []string
		for rest := a.frames; len(rest) > 0; {
			f, more, err := trail.CutFrame(rest)
			if err != nil {
				a.t.Fatal(err)
			}
			e, err := trail.Parse(f.Entry)
			if err != nil {
				a.t.Fatal(err)
			}
			if e.Kind == trail.Request && e.Tenant == a.alice.id() && e.Key.String() == key {
				got = append(got, e.Action+" "+e.Reason)
			}
			rest = more
		}
		return strings.Join(got, ",") != "CreateKey ok,Encrypt ok,DisableKey ok,Encrypt key disabled"
	}},
}
