package core

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// adminKey is the key of an administrator of a name.
func adminKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func adminID(name string) string {
	return api.AdminCredentialText(adminKey(name).Public().(ed25519.PublicKey))
}

// An admin is an administrator at a host.
type admin struct{ *holder }

func (h *host) admin(name string) *admin {
	return &admin{&holder{tenant: &tenant{h: h, appid: api.DomainAppID}, credential: adminID(name), ed25519: adminKey(name)}}
}

// ask has a core execute an action that the payload names.
func (a *admin) ask(core int, action string, payload map[string]any) reply {
	a.h.t.Helper()
	p := map[string]any{"action": action}
	maps.Copy(p, payload)
	return a.send(core, action, a.body(p))
}

func (a *admin) must(action string, payload map[string]any) reply {
	a.h.t.Helper()
	r := a.ask(0, action, payload)
	want(a.h.t, action, r, 200, "successful")
	return r
}

func adding(name string) map[string]any {
	return map[string]any{"name": name, "publicKey": base64.StdEncoding.EncodeToString(adminKey(name).Public().(ed25519.PublicKey))}
}

func listOf(r reply) []any { l, _ := r.Result["list"].([]any); return l }

func TestAdministrators(t *testing.T) {
	h, _ := newHost(t)
	frank, grace := h.admin("frank"), h.admin("grace")
	want(t, "stranger", grace.ask(0, api.ListAdministrators, nil), 400, "sign error")
	want(t, "the last", frank.ask(0, api.RemoveAdministrator, map[string]any{"id": adminID("frank")}), 400, api.MessageAdminLast)
	frank.must(api.AddAdministrator, adding("grace"))
	for _, action := range []string{api.DisableApp, api.EnableApp, api.DeleteApp} {
		want(t, action+" of the domain", frank.ask(0, action, map[string]any{"appid": api.DomainAppID}), 400, api.MessageAppUnknown)
	}
	want(t, "again", frank.ask(0, api.AddAdministrator, adding("grace")), 400, api.MessageAdminExists)
	if l := listOf(grace.must(api.ListAdministrators, nil)); len(l) != 2 || l[1].(map[string]any)["name"] != "grace" || l[1].(map[string]any)["id"] != adminID("grace") {
		t.Errorf("got %v", l)
	}
	grace.must(api.RemoveAdministrator, map[string]any{"id": adminID("frank")})
	want(t, "removed", frank.ask(0, api.ListAdministrators, nil), 400, "sign error")
	want(t, "removed twice", grace.ask(0, api.RemoveAdministrator, map[string]any{"id": adminID("frank")}), 400, api.MessageAdminUnknown)
	want(t, "the last", grace.ask(0, api.RemoveAdministrator, map[string]any{"id": adminID("grace")}), 400, api.MessageAdminLast)
	for i := range api.MaxAdministrators - 1 {
		grace.must(api.AddAdministrator, adding(strings.Repeat("x", i+1)))
	}
	want(t, "too many", grace.ask(0, api.AddAdministrator, adding("y")), 400, api.MessageAdminMany)
}

func TestAdministratorRefusals(t *testing.T) {
	h, _ := newHost(t)
	frank, alice := h.admin("frank"), h.enroll()
	for name, payload := range map[string]map[string]any{
		"short key":     {"name": "g", "publicKey": "AAAA"},
		"no key":        {"name": "g"},
		"no name":       {"publicKey": adding("g")["publicKey"]},
		"name in UTF-8": {"name": "gr\u00e4ce", "publicKey": adding("g")["publicKey"]},
		"long name":     {"name": strings.Repeat("g", 65), "publicKey": adding("g")["publicKey"]},
		"more":          {"name": "g", "publicKey": adding("g")["publicKey"], "role": "owner"},
	} {
		if r := frank.ask(0, api.AddAdministrator, payload); r.Code != 400 {
			t.Errorf("%s: got %d %s", name, r.Code, r.Message)
		}
	}
	want(t, "action not signed", frank.send(0, api.ListApps, frank.body(map[string]any{})), 400, "sign error")
	for _, action := range api.AdminActions() {
		want(t, "tenant: "+action, alice.do(0, action, map[string]any{"action": action}), 404, "API Not Found")
	}
	for _, action := range api.Actions() {
		switch action {
		case api.Enroll, api.GetVersion, api.GetEvidence:
			continue
		}
		want(t, "administrator: "+action, frank.ask(0, action, nil), 404, "API Not Found")
	}
	h2 := newDomain(t)
	h2.frank.Key = nil
	nobody := h2.host(t, Limits{})
	want(t, "no administrator in the genesis", nobody.admin("frank").ask(0, api.ListApps, nil), 400, "sign error")
}

// Rows that a host puts back or leaves out, before a core that has just started too.
func TestAdministratorRows(t *testing.T) {
	h, d := newHost(t)
	frank, grace := h.admin("frank"), h.admin("grace")
	domain := appID(wire.UUID{})
	frank.must(api.AddAdministrator, adding("grace"))
	two := h.rows[domain]
	grace.must(api.RemoveAdministrator, map[string]any{"id": adminID("frank")})
	one := h.rows[domain]
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	refused := func(what string, core int) {
		t.Helper()
		if r := frank.ask(core, api.ListApps, nil); r.Code == 200 {
			t.Errorf("%s, core %d: the removed administrator is one", what, core)
		}
	}
	for core := range h.cores {
		refused("honest", core)
		h.rows[domain] = two
		refused("rolled back", core)
		delete(h.rows, domain)
		refused("left out", core)
		edited := one
		edited.Sealed = append([]byte(nil), one.Sealed...)
		edited.Sealed[len(edited.Sealed)-100] ^= 1
		h.rows[domain] = edited
		refused("edited", core)
		app := h.rows[h.tenantRecord(t)]
		h.rows[domain] = wire.Write{ID: domain, Revision: one.Revision + 1, Sealed: app.Sealed}
		refused("the record of a tenant", core)
		h.rows[domain] = one
	}
	want(t, "the other one", grace.ask(1, api.ListApps, nil), 200, "successful")
}

// tenantRecord makes an app and returns the name of its record.
func (h *host) tenantRecord(t *testing.T) wire.RecordID {
	t.Helper()
	return appID(h.enroll().id())
}

func TestApps(t *testing.T) {
	h, d := newHost(t)
	frank, alice, bob := h.admin("frank"), h.enroll(), h.enroll()
	named := map[string]any{"appid": alice.appid}
	key := alice.createKey()
	active := h.rows[appID(alice.id())]
	frank.must(api.DisableApp, named)
	want(t, "disabled", alice.do(0, "ListKey", nil), 400, "sign error")
	want(t, "another", bob.do(0, "ListKey", nil), 200, "successful")
	suspended := h.rows[appID(alice.id())]
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	h.rows[appID(alice.id())] = active
	if r := alice.do(1, "ListKey", nil); r.Code == 200 {
		t.Error("a disabled app is active after its row was put back")
	}
	h.rows[appID(alice.id())] = suspended
	frank.must(api.DisableApp, named)
	frank.must(api.EnableApp, named)
	frank.must(api.EnableApp, named)
	want(t, "enabled", alice.do(0, "Encrypt", encrypts(key)), 200, "success!")
	active = h.rows[appID(alice.id())]
	if l := listOf(frank.must(api.ListApps, nil)); len(l) != 2 {
		t.Errorf("got %v", l)
	}
	frank.must(api.DeleteApp, named)
	want(t, "deleted", alice.do(0, "ListKey", nil), 400, "sign error")
	for _, action := range []string{api.DisableApp, api.EnableApp, api.DeleteApp} {
		want(t, action+" of a deleted one", frank.ask(0, action, named), 400, api.MessageAppUnknown)
		want(t, action+" of nobody", frank.ask(0, action, map[string]any{"appid": wire.NewUUID().String()}), 400, api.MessageAppUnknown)
		want(t, action+" of the domain", frank.ask(0, action, map[string]any{"appid": api.DomainAppID}), 400, api.MessageAppUnknown)
	}
	l := listOf(frank.must(api.ListApps, nil))
	if len(l) != 1 || l[0].(map[string]any)["appid"] != bob.appid || l[0].(map[string]any)["exposed"] != true {
		t.Errorf("got %v", l)
	}
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	h.rows[appID(alice.id())] = active
	if r := alice.do(2, "ListKey", nil); r.Code == 200 {
		t.Error("a deleted app is back with its row")
	}
}

func TestListApps(t *testing.T) {
	h, _ := newHost(t)
	frank := h.admin("frank")
	frank.must(api.AddAdministrator, adding("grace")) // the domain has a record then
	for range 5 {
		h.enroll()
	}
	seen, after := map[string]bool{}, ""
	for pages := 1; ; pages++ {
		payload := map[string]any{"limit": 2}
		if after != "" {
			payload["after"] = after
		}
		r := frank.must(api.ListApps, payload)
		for _, a := range listOf(r) {
			seen[a.(map[string]any)["appid"].(string)] = true
		}
		if after = r.text("next"); after == "" {
			if pages != 3 {
				t.Errorf("got %d pages", pages)
			}
			break
		}
	}
	if len(seen) != 5 || seen[api.DomainAppID] {
		t.Errorf("got %v", seen)
	}
	for name, relist := range map[string]func([]wire.Ref) []wire.Ref{
		"twice":        func(refs []wire.Ref) []wire.Ref { return append(refs, refs[len(refs)-1]) },
		"out of order": func(refs []wire.Ref) []wire.Ref { slices.Reverse(refs); return refs },
	} {
		h.relist = relist
		if r := frank.ask(0, api.ListApps, nil); r.Code == 200 {
			t.Errorf("%s: got %d %s", name, r.Code, r.Message)
		}
	}
	h.relist = nil
	for _, text := range []string{"x", "zzzzzzzz-9d0f-4c55-8a3b-3b1f1e9c2d40"} {
		if r := frank.ask(0, api.ListApps, map[string]any{"after": text}); r.Code != 400 {
			t.Errorf("after %q: got %d %s", text, r.Code, r.Message)
		}
	}
}

// creating is the payload that makes a token.
func creating(token api.EnrollToken, uses int) map[string]any {
	hash := token.Hash()
	return map[string]any{"tokenid": token.ID(), "hash": hex.EncodeToString(hash[:]), "name": "payments", "role": "owner", "uses": uses, "seconds": 3600}
}

func TestTokens(t *testing.T) {
	h, _ := newHost(t)
	frank, token := h.admin("frank"), api.NewEnrollToken()
	frank.must(api.CreateToken, creating(token, 3))
	want(t, "again", frank.ask(0, api.CreateToken, creating(token, 3)), 400, api.MessageTokenExists)
	l := listOf(frank.must(api.ListTokens, nil))
	if len(l) != 1 {
		t.Fatalf("got %v", l)
	}
	got := l[0].(map[string]any)
	if got["tokenid"] != token.ID() || got["name"] != "payments" || got["role"] != "owner" || got["uses"] != 3.0 || got["used"] != 0.0 || got["by"] != adminID("frank") {
		t.Errorf("got %v", got)
	}
	for _, row := range h.rows {
		if b := token.Bytes(); strings.Contains(string(row.Sealed), string(b[16:])) {
			t.Error("the token is in a row")
		}
	}
	frank.must(api.RevokeToken, map[string]any{"tokenid": token.ID()})
	if l := listOf(frank.must(api.ListTokens, nil)); len(l) != 0 {
		t.Errorf("got %v", l)
	}
	for name, change := range map[string]map[string]any{
		"no uses": {"uses": 0}, "many uses": {"uses": 10001}, "short": {"seconds": 59}, "long": {"seconds": 366*86400 + 1},
		"role": {"role": "root"}, "hash": {"hash": "00"}, "id": {"tokenid": "zzzzzzzz-9d0f-4c55-8a3b-3b1f1e9c2d40"}, "name": {"name": "\u00e4"}, "more": {"x": 1},
	} {
		p := creating(api.NewEnrollToken(), 1)
		maps.Copy(p, change)
		if r := frank.ask(0, api.CreateToken, p); r.Code != 400 {
			t.Errorf("%s: got %d %s", name, r.Code, r.Message)
		}
	}
	want(t, "unknown", frank.ask(0, api.RevokeToken, map[string]any{"tokenid": wire.NewUUID().String()}), 400, api.MessageTokenUnknown)
}

// sweepOf has core 0 take a step of a sweep of an app.
func (h *host) sweepOf(c *tenant, refs ...wire.Ref) *wire.Answer {
	h.t.Helper()
	a, err := h.cores[0].Sweep(h.t.Context(), &wire.Sweep{RequestID: "s", App: h.ref(appID(c.id()), true), Keys: refs})
	if err != nil {
		h.t.Fatal(err)
	}
	return a
}

// A deleted app leaves nothing of its secrets in an honest host's database, and what a
// dishonest one puts back is of no use to it.
func TestDeletedAppSecrets(t *testing.T) {
	h, d := newHost(t)
	frank, alice, bob := h.admin("frank"), h.enroll(), h.enroll()
	for _, name := range []string{"one", "two", "three"} {
		alice.mustDo("CreateSecret", secretOf(name, "secretData", "x"))
	}
	alice.mustDo("PutSecretValue", secretOf("one", "secretData", "y"))
	alice.mustDo("DeleteSecret", secretOf("two"))
	alice.mustDo("DeleteSecret", secretOf("three", "forceDelete", true))
	bob.mustDo("CreateSecret", secretOf("one", "secretData", "x"))
	list := wire.Query{Type: wire.Secret, Tenant: alice.id()}
	foreign := h.list(wire.Query{Type: wire.Secret, Tenant: bob.id()})

	secrets := h.list(list)
	if a := h.sweepOf(alice, secrets...); a.Code == 200 || len(a.Writes) != 0 {
		t.Errorf("of an active app: got %+v", a)
	}
	named := map[string]any{"appid": alice.appid}
	frank.must(api.DisableApp, named)
	if a := h.sweepOf(alice, secrets...); a.Code == 200 || len(a.Writes) != 0 {
		t.Errorf("of a disabled app: got %+v", a)
	}
	row := h.rows[appID(alice.id())]
	app, _, err := record.OpenApp(h.cores[0].keys, record.Header{ID: row.ID, Revision: row.Revision}, row.Sealed)
	if err != nil {
		t.Fatal(err)
	}
	key := wire.RecordID{Type: wire.Key, Tenant: alice.id(), ID: app.DefaultKey}
	before := maps.Clone(h.rows)
	frank.must(api.DeleteApp, named)

	if secrets = h.list(list); len(secrets) != 2 { // one, and the one that waits for its date
		t.Fatalf("got %d secrets", len(secrets))
	}
	for _, refs := range [][]wire.Ref{append(foreign, secrets...), slices.Repeat(secrets, 130)} {
		if a := h.sweepOf(alice, refs...); a.Code == 200 || len(a.Writes) != 0 {
			t.Errorf("%d records: got code %d, %d writes", len(refs), a.Code, len(a.Writes))
		}
	}
	for range 2 { // again, with the states from before: nothing is left to do
		if a, err := h.settle(0, h.sweepOf(alice, secrets...)); err != nil || a.Code != 200 {
			t.Errorf("got %+v, %v", a, err)
		}
	}
	for id, row := range h.rows {
		if id.Tenant == alice.id() && (id.Type == wire.SecretVersion || id.Type == wire.Secret && !row.Hidden) {
			t.Errorf("%s is there", id)
		}
	}
	if k, err := record.OpenKey(h.cores[0].keys, record.Header{ID: key, Revision: h.rows[key].Revision}, h.rows[key].Sealed); err != nil || k.Deleted == 0 {
		t.Errorf("the default key is %+v, %v", k, err)
	}
	want(t, "another app's", bob.do(0, "GetSecretValue", secretOf("one")), 200, "successful")

	h.rows = before
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	for core := range h.cores {
		if r := alice.do(core, "GetSecretValue", secretOf("one")); r.Code == 200 {
			t.Errorf("core %d: a secret of a deleted app: %v", core, r.Result)
		}
		if r := frank.ask(core, api.EnableApp, named); r.Code == 200 {
			t.Errorf("core %d: a deleted app is enabled", core)
		}
		for _, id := range []wire.RecordID{key, appID(alice.id())} {
			if !h.cores[core].facts.Known(id) {
				t.Errorf("core %d: no fact about %s", core, id)
			}
		}
	}
}
