package core

import (
	"context"
	"encoding/base64"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

const textServer = "Server exception."

// with is a payload with one member changed, or removed if v is nil.
func set(payload map[string]any, name string, v any) map[string]any {
	p := maps.Clone(payload)
	if p[name] = v; v == nil {
		delete(p, name)
	}
	return p
}

func TestCreateKeyRefusals(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	for _, spec := range symmetricSpecs {
		key := set(newKey, "keyspec", spec)
		want(t, spec, c.do(0, "CreateKey", key), 200, "success!")
		want(t, spec+" external", c.do(0, "CreateKey", set(key, "origin", "EH_EXTERNAL_KEY")), 200, "success!")
		for _, usage := range []any{"EH_KEYUSAGE_SIGN_VERIFY", "", "x", 5, nil, []string{"EH_KEYUSAGE_ENCRYPT_DECRYPT"}} {
			want(t, spec+" usage", c.do(0, "CreateKey", set(key, "keyusage", usage)), 500, textServer)
			want(t, spec+" external usage", c.do(0, "CreateKey", set(set(key, "keyusage", usage), "origin", "EH_EXTERNAL_KEY")), 500, textServer)
		}
	}
	for _, spec := range []string{"EH_RSA_2048", "EH_EC_P256", "EH_SM2", "EH_HMAC"} {
		for _, usage := range []string{"EH_KEYUSAGE_SIGN_VERIFY", "EH_KEYUSAGE_ENCRYPT_DECRYPT"} {
			key := map[string]any{"keyspec": spec, "origin": "EH_EXTERNAL_KEY", "keyusage": usage}
			want(t, spec+" external", c.do(0, "CreateKey", key), 500, textServer)
		}
	}
	want(t, "HMAC for encryption", c.do(0, "CreateKey", set(newKey, "keyspec", "EH_HMAC")), 500, textServer)
	h.outcome = func(*wire.Answer) wire.Outcome { return wire.Failed }
	want(t, "store fails", c.do(0, "CreateKey", newKey), 400, "create cmk failed")
	want(t, "store fails", c.do(0, "DeleteAllKey", nil), 400, "deleteALLKey failed")
	want(t, "store fails", c.do(0, "ListKey", nil), 400, "listKey failed")
}

// uses are what one can do with a symmetric key. Those that protect are refused
// once it has expired.
func uses(c *tenant, id string) []struct {
	action   string
	protects bool
	payload  map[string]any
} {
	ct := c.mustDo("Encrypt", encrypts(id)).text("ciphertext")
	return []struct {
		action   string
		protects bool
		payload  map[string]any
	}{
		{"Encrypt", true, encrypts(id)},
		{"GenerateDataKey", true, map[string]any{"keyid": id, "keylen": 16}},
		{"GenerateDataKeyWithoutPlaintext", true, map[string]any{"keyid": id, "keylen": 16}},
		{"Decrypt", false, map[string]any{"keyid": id, "ciphertext": ct}},
	}
}

func TestKeyLookup(t *testing.T) {
	h, d := newHost(t)
	c, other := h.enroll(), h.enroll()
	id := c.createKey()
	all := uses(c, id)
	for _, use := range all {
		unknown := set(use.payload, "keyid", wire.NewUUID().String())
		want(t, "unknown "+use.action, c.do(0, use.action, unknown), 400, "keyid error")
		want(t, "foreign "+use.action, other.do(0, use.action, use.payload), 400, "keyid error")
		want(t, use.action, c.do(0, use.action, use.payload), 200, "success!")
	}
	h.alter(d, c, id, func(k *record.Key) { k.Expires = h.now.UnixMilli() + 1 })
	for _, use := range all {
		want(t, "not yet expired "+use.action, c.do(0, use.action, use.payload), 200, "success!")
	}
	h.now = h.now.Add(time.Millisecond)
	for _, use := range all {
		if use.protects {
			want(t, "expired "+use.action, c.do(0, use.action, use.payload), 400, "keyid expire")
		} else {
			want(t, "expired "+use.action, c.do(0, use.action, use.payload), 200, "success!")
		}
	}
	c.mustDo("DisableKey", named(id))
	for _, use := range all {
		want(t, "disabled and expired "+use.action, c.do(0, use.action, use.payload), 400, "keyid is disabled")
	}
	states := c.mustDo("ListKey", nil).Result["list"].([]any)
	k := states[0].(map[string]any)
	if k["keyState"] != 0.0 || k["expireTime"] != float64(h.now.UnixMilli()) || k["alias"] != "" || k["keyspec"] != "EH_AES_GCM_256" {
		t.Errorf("ListKey: got %v", k)
	}
	c.mustDo("DeleteKey", named(id))
	for _, use := range all {
		want(t, "deleted "+use.action, c.do(0, use.action, use.payload), 400, "keyid error")
	}
}

func TestOtherKeyStates(t *testing.T) {
	h, d := newHost(t)
	c := h.enroll()
	for _, tt := range []struct {
		state            record.State
		protect, process string
	}{
		{record.Deactivated, "keyid expire", "success!"},
		{record.Compromised, "keyid is disabled", "keyid is disabled"},
		{record.Destroyed, "keyid is disabled", "keyid is disabled"},
		{record.PreActivation, textServer, textServer},
	} {
		id := c.createKey()
		all := uses(c, id)
		h.alter(d, c, id, func(k *record.Key) { k.State = tt.state })
		for _, use := range all {
			text := tt.process
			if use.protects {
				text = tt.protect
			}
			if r := c.do(0, use.action, use.payload); r.Message != text {
				t.Errorf("state %d, %s: got %d %q, want %q", tt.state, use.action, r.Code, r.Message, text)
			}
		}
		if tt.state == record.PreActivation {
			continue
		}
		// There is no way out of these states, and no success that means nothing.
		want(t, "DisableKey", c.do(0, "DisableKey", named(id)), 400, "disableKey failed")
		want(t, "EnableKey", c.do(0, "EnableKey", named(id)), 200, "successful")
		if r := c.do(0, "Encrypt", encrypts(id)); r.Code == 200 {
			t.Errorf("state %d: EnableKey makes the key usable", tt.state)
		}
	}
}

func TestKeyWithoutMaterial(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	id := c.mustDo("CreateKey", set(newKey, "origin", "EH_EXTERNAL_KEY")).text("keyid")
	check := func(what string, code int, text string) {
		t.Helper()
		want(t, what, c.do(0, "Encrypt", encrypts(id)), code, text)
		want(t, what, c.do(0, "Decrypt", map[string]any{"keyid": id, "ciphertext": hello}), code, text)
	}
	check("waiting", 500, textServer)
	c.mustDo("EnableKey", named(id))
	check("enabled", 500, textServer)
	c.mustDo("DisableKey", named(id))
	check("disabled", 400, "keyid is disabled")
	c.mustDo("EnableKey", named(id))
	check("enabled again", 500, textServer)
}

// Attributes that no action makes today, sealed as another version of the
// program could.
func TestForeignAttributes(t *testing.T) {
	h, d := newHost(t)
	c := h.enroll()
	for _, tt := range []struct {
		name                       string
		change                     func(*record.Key)
		protect, process, generate string
	}{
		{"usage", func(k *record.Key) { k.Usage = record.SignVerify }, textServer, textServer, textServer},
		{"spec", func(k *record.Key) { k.Spec = primitive.ECP256 }, textServer, textServer, textServer},
		{"no primary", func(k *record.Key) { k.Primary = 0 }, textServer, textServer, textServer},
		{"no versions", func(k *record.Key) { k.Versions = nil }, textServer, textDecryption, textServer},
		{"version suspended", func(k *record.Key) { k.Versions[0].State = record.Suspended }, textServer, textDecryption, textServer},
		{"version destroyed", func(k *record.Key) { k.Versions[0].State = record.Destroyed }, textServer, textDecryption, textServer},
		{"another digest", func(k *record.Key) { k.Versions[0].Digest[31] ^= 1 },
			errInternal("").message, errInternal("").message, errInternal("").message},
	} {
		id := c.createKey()
		all := uses(c, id)
		h.alter(d, c, id, tt.change)
		for _, use := range all {
			text := tt.protect
			if !use.protects {
				text = tt.process
			}
			if r := c.do(0, use.action, use.payload); r.Message != text {
				t.Errorf("%s, %s: got %d %q, want %q", tt.name, use.action, r.Code, r.Message, text)
			}
		}
	}
}

// Whatever is wrong with a ciphertext, the answer is the same.
func TestDecryptRefusals(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	for _, spec := range symmetricSpecs {
		id := c.mustDo("CreateKey", set(newKey, "keyspec", spec)).text("keyid")
		other := c.mustDo("CreateKey", set(newKey, "keyspec", spec)).text("keyid")
		aad := base64.StdEncoding.EncodeToString([]byte("aad"))
		encoded := c.mustDo("Encrypt", set(encrypts(id), "aad", aad)).text("ciphertext")
		raw, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			t.Fatal(err)
		}
		refused := func(what string, payload map[string]any) {
			t.Helper()
			want(t, spec+": "+what, c.do(0, "Decrypt", payload), 400, textDecryption)
		}
		payload := map[string]any{"keyid": id, "ciphertext": encoded, "aad": aad}
		if got := c.mustDo("Decrypt", payload).text("plaintext"); got != hello {
			t.Errorf("%s: decrypts to %q", spec, got)
		}
		for i := 0; i < len(raw); i += 3 {
			b := slices.Clone(raw)
			b[i] ^= 0x10
			refused("altered", set(payload, "ciphertext", base64.StdEncoding.EncodeToString(b)))
		}
		for _, n := range []int{1, 20, 44, 77, len(raw) - 1} {
			refused("cut", set(payload, "ciphertext", base64.StdEncoding.EncodeToString(raw[:n])))
		}
		refused("longer", set(payload, "ciphertext", base64.StdEncoding.EncodeToString(append(slices.Clone(raw), 0))))
		refused("another key", set(payload, "keyid", other))
		if spec[:6] == "EH_SM4" {
			want(t, spec+" ignores aad", c.do(0, "Decrypt", set(payload, "aad", nil)), 200, "success!")
		} else {
			refused("no aad", set(payload, "aad", nil))
			refused("other aad", set(payload, "aad", hello))
		}
	}
}

func TestSweepSteps(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	for range 30 {
		c.createKey()
	}
	disabled, deleted := c.createKey(), c.createKey()
	c.mustDo("DisableKey", named(disabled))
	c.mustDo("DeleteKey", named(deleted))
	c.mustDo("DeleteAllKey", nil)
	at := h.now.UnixMilli()
	h.now = h.now.Add(time.Minute)
	fresh := c.createKey()

	keys := h.list(wire.Query{Type: wire.Key, Tenant: c.id()})
	if len(keys) != 32 { // the deleted one is hidden
		t.Fatalf("the store lists %d keys", len(keys))
	}
	app, swept := h.ref(appID(c.id()), true), 0
	for step := range slices.Chunk(keys, 10) {
		for range 2 { // again, with the states from before: nothing is left to do
			a, err := h.cores[0].Sweep(context.Background(), &wire.Sweep{RequestID: "s", App: app, Keys: step})
			if err != nil {
				t.Fatal(err)
			}
			swept += len(a.Writes)
			if a, err = h.settle(0, a); err != nil || a.Code != 200 || a.Sign != "" {
				t.Errorf("a step ends with %+v, %v", a, err)
			}
		}
	}
	if swept != 31 {
		t.Errorf("%d keys are swept, want 31", swept)
	}
	if left := h.list(wire.Query{Type: wire.Key, Tenant: c.id()}); len(left) != 1 || left[0].ID.ID.String() != fresh {
		t.Errorf("%d keys are not hidden", len(left))
	}
	k, err := record.OpenKey(h.cores[0].keys, record.Header{ID: c.keyRecord(disabled), Revision: 3}, h.rows[c.keyRecord(disabled)].Sealed)
	if err != nil || k.Deleted != at || k.State != record.Suspended {
		t.Errorf("the disabled key is %+v, %v", k, err)
	}
	want(t, "the new key", c.do(0, "Encrypt", encrypts(fresh)), 200, "success!")
}

func TestSweepRefusals(t *testing.T) {
	h, _ := newHost(t)
	c, other := h.enroll(), h.enroll()
	key, foreign := h.ref(c.keyRecord(c.createKey()), true), h.ref(other.keyRecord(other.createKey()), true)
	before := h.ref(appID(c.id()), true)
	c.mustDo("DeleteAllKey", nil)
	app := h.ref(appID(c.id()), true)
	h.mu.Lock()
	h.frames = nil
	h.mu.Unlock()
	for _, tt := range []struct {
		name string
		app  wire.Ref
		keys []wire.Ref
	}{
		{"no app", wire.Ref{ID: app.ID}, []wire.Ref{key}},
		{"app without bytes", wire.Ref{ID: app.ID, Revision: 3}, []wire.Ref{key}},
		{"foreign key", app, []wire.Ref{key, foreign}},
		{"key without bytes", app, []wire.Ref{{ID: key.ID, Revision: key.Revision}}},
		{"key of another revision", app, []wire.Ref{{ID: key.ID, Revision: 2, Sealed: key.Sealed}}},
		{"app as a key", app, []wire.Ref{{ID: app.ID, Revision: app.Revision, Sealed: app.Sealed}}},
		{"app of a key", key, []wire.Ref{key}},
	} {
		a, err := h.cores[0].Sweep(context.Background(), &wire.Sweep{RequestID: "s", App: tt.app, Keys: tt.keys})
		if err != nil || a.Kind != wire.Final || a.Code == 200 || len(a.Writes) != 0 || a.Audit.Count == 0 {
			t.Errorf("%s: got %+v, %v", tt.name, a, err)
		}
	}
	// An older app record is replaced by the newer one that the core holds.
	if a, err := h.cores[0].Sweep(context.Background(), &wire.Sweep{RequestID: "s", App: before, Keys: []wire.Ref{key}}); err != nil || len(a.Writes) != 1 {
		t.Errorf("older app: got %+v, %v", a, err)
	}
	many := make([]wire.Ref, wire.SweepStep+1)
	if _, err := h.cores[0].Sweep(context.Background(), &wire.Sweep{App: app, Keys: many}); !errors.Is(err, ErrLimit) {
		t.Errorf("a step of %d keys: got %v, want ErrLimit", len(many), err)
	}
}

// A listing that a change has overtaken shows the newer state.
func TestListingOvertaken(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	disabled, deleted, fresh := c.createKey(), c.createKey(), c.createKey()
	early := maps.Clone(h.rows)
	c.mustDo("DisableKey", named(disabled))
	c.mustDo("DeleteKey", named(deleted))
	h.rows = early
	list := c.mustDo("ListKey", nil).Result["list"].([]any)
	got := map[string]any{}
	for _, k := range list {
		got[k.(map[string]any)["keyid"].(string)] = k.(map[string]any)["keyState"]
	}
	if len(got) != 2 || got[disabled] != 0.0 || got[fresh] != 1.0 {
		t.Errorf("got %v", got)
	}
}

// A listing that a change of this node has overtaken is asked for again: a change
// of another node may have come before that. It ends all the same if that happens
// every time.
func TestListingAgain(t *testing.T) {
	h, d := newHost(t)
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	c := h.enroll()
	for name, tt := range map[string]struct {
		late  int // listings that miss both changes
		needs int
		first float64 // state of the key that the other node has disabled
	}{
		"never late":  {0, 1, 0},
		"late once":   {1, 2, 0},
		"late twice":  {2, 3, 0},
		"always late": {9, 3, 1},
	} {
		t.Run(name, func(t *testing.T) {
			first, second := c.createKey(), c.createKey()
			q := wire.Query{Type: wire.Key, Tenant: c.id(), Limit: wire.MaxList}
			early := h.list(q)
			for core, key := range []string{second, first} {
				if a, err := h.try(core, &wire.Call{Action: "DisableKey", Body: c.body(named(key))}); err != nil || a.Code != 200 {
					t.Fatalf("DisableKey: got %+v, %v", a, err)
				}
			}
			call := &wire.Call{RequestID: "r", Action: "ListKey", Body: c.body(nil), Fresh: true, Records: []wire.Ref{h.ref(appID(c.id()), true)}}
			needs := 0
			a, err := h.cores[0].Call(t.Context(), call)
			for ; err == nil && a.Kind == wire.Need; a, err = h.cores[0].Call(t.Context(), call) {
				call.Listed, call.Listing = true, h.list(q)
				if needs < tt.late {
					call.Listing = early
				}
				for _, id := range a.NeedRecords {
					call.Records = append(call.Records, h.ref(id, true))
				}
				if needs++; needs > 5 {
					t.Fatal("the core asks again and again")
				}
			}
			if err == nil {
				a, err = h.settle(0, a)
			}
			if err != nil || a.Code != 200 {
				t.Fatalf("got %+v, %v", a, err)
			}
			states := map[string]any{}
			for _, k := range parseReply(t, a).Result["list"].([]any) {
				states[k.(map[string]any)["keyid"].(string)] = k.(map[string]any)["keyState"]
			}
			if needs != tt.needs || states[first] != tt.first || states[second] != 0.0 {
				t.Errorf("asked %d times, got %v and %v, want %d, %v and 0", needs, states[first], states[second], tt.needs, tt.first)
			}
		})
	}
}

func TestCallLimits(t *testing.T) {
	h, _ := newHost(t)
	for name, call := range map[string]*wire.Call{
		"records": {Records: make([]wire.Ref, wire.MaxRecords+1)},
		"listing": {Listing: make([]wire.Ref, wire.MaxList+1)},
		"body":    {Body: make([]byte, wire.MaxBody+1)},
		"action":  {Action: string(make([]byte, wire.MaxName+1))},
	} {
		if a, err := h.cores[0].Call(context.Background(), call); !errors.Is(err, ErrLimit) {
			t.Errorf("%s: got %+v, %v, want ErrLimit", name, a, err)
		}
	}
}
