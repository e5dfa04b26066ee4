package core

import (
	"fmt"
	"strings"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// An intern has a credential of alice's under a policy, and helps the attacker: he
// wants to list her keys.
type intern struct {
	*tenant
	policy     string
	credential string
}

// hire gives an intern of alice's a policy.
func (a *attacker) hire(policy map[string]any) *intern {
	a.t.Helper()
	id := a.must(0, a.alice, api.PutPolicy, acting(api.PutPolicy, policy)).text("policyId")
	r := a.must(0, a.alice, "CreateCredential", acting("CreateCredential", map[string]any{"kind": "api-key", "role": "user", "policyId": id}))
	return &intern{&tenant{h: a.host, appid: a.alice.appid, apikey: r.text("apikey"), nonce: 5000}, id, r.text("credentialId")}
}

// acting is a payload that names its action.
func acting(action string, payload map[string]any) map[string]any {
	named := map[string]any{"action": action}
	for k, v := range payload {
		named[k] = v
	}
	return named
}

func (a *attacker) policyRecord(i *intern) wire.RecordID { return i.policyRecord(a.t, i.policy) }

// lists reports whether the intern lists alice's keys.
func (a *attacker) lists(core int, i *intern) bool { return a.succeeds(core, "ListKey", i.body(nil)) }

var (
	listing1 = map[string]any{"actions": []string{"ListKey"}}
	signing1 = map[string]any{"preset": api.PresetSignOnly}
)

// narrowed has alice narrow the intern's policy, and puts all records back.
func (a *attacker) narrowed(i *intern, action string, change map[string]any) (before map[wire.RecordID]wire.Write) {
	before = a.snapshot()
	payload := acting(action, map[string]any{"policyId": i.policy})
	for k, v := range change {
		payload[k] = v
	}
	a.must(0, a.alice, action, payload)
	return before
}

// policyAttacks want more than a policy allows.
var policyAttacks = []attack{
	{"what the policy does not list", func(a *attacker) bool {
		i, key := a.hire(signing1), a.alice.createKey()
		return a.lists(0, i) || a.usable(0, i.tenant, key)
	}},
	{"a key that the policy does not list", func(a *attacker) bool {
		one, two := a.alice.createKey(), a.alice.createKey()
		i := a.hire(map[string]any{"actions": []string{"Encrypt"}, "keys": []string{one}})
		if !a.usable(0, i.tenant, one) {
			a.t.Fatal("preparation: the policy is not in force")
		}
		return a.usable(0, i.tenant, two)
	}},
	{"an owner's action", func(a *attacker) bool {
		i := a.hire(listing1)
		return a.succeeds(0, "ListCredentials", i.body(acting("ListCredentials", nil))) ||
			a.succeeds(0, api.PutPolicy, i.body(acting(api.PutPolicy, map[string]any{"policyId": i.policy, "preset": api.PresetReadOnly})))
	}},
	{"an altered policy", func(a *attacker) bool {
		i := a.hire(listing1)
		return a.altered(a.policyRecord(i), func(core int) bool { return a.lists(core, i) })
	}},
	{"a policy that is left out", func(a *attacker) bool {
		i := a.hire(signing1)
		delete(a.rows, a.policyRecord(i))
		return a.lists(a.start(), i)
	}},
	{"a wider policy of the app in its place", func(a *attacker) bool {
		i, other := a.hire(signing1), a.hire(listing1)
		a.relabel(a.policyRecord(i), a.policyRecord(other))
		return a.lists(a.start(), i)
	}},
	{"a policy of bob's in its place", func(a *attacker) bool {
		i := a.hire(signing1)
		id := a.must(0, a.bob, api.PutPolicy, acting(api.PutPolicy, listing1)).text("policyId")
		a.relabel(a.policyRecord(i), a.bob.policyRecord(a.t, id))
		return a.lists(a.start(), i)
	}},
	{"a quote policy in its place", func(a *attacker) bool {
		i := a.hire(signing1)
		hash := strings.Repeat("0", 64)
		id := a.must(0, a.alice, "UploadQuotePolicy", map[string]any{"mr_enclave": hash, "mr_signer": hash}).text("policyId")
		other := a.alice.policyRecord(a.t, id)
		other.Type = wire.QuotePolicy
		a.relabel(a.policyRecord(i), other)
		return a.lists(a.start(), i)
	}},
	{"a policy from before it was narrowed", func(a *attacker) bool {
		i := a.hire(listing1)
		a.rows = a.narrowed(i, api.PutPolicy, signing1)
		return a.lists(0, i)
	}},
	{"a policy from before it was narrowed, on a new core", func(a *attacker) bool {
		i := a.hire(listing1)
		a.rows = a.narrowed(i, api.PutPolicy, signing1)
		return a.lists(a.start(), i)
	}},
	{"a policy from before it was narrowed, in the cache of another core", func(a *attacker) bool {
		i := a.hire(listing1)
		a.lists(small, i)
		a.rows = a.narrowed(i, api.PutPolicy, signing1)
		a.show(a.cores[small])
		return a.lists(small, i)
	}},
	{"a policy from before it was deleted, on a new core", func(a *attacker) bool {
		i := a.hire(listing1)
		a.rows = a.narrowed(i, api.DeletePolicy, nil)
		return a.lists(a.start(), i)
	}},
	{"a policy that was deleted, for a new credential", func(a *attacker) bool {
		i := a.hire(listing1)
		a.narrowed(i, api.DeletePolicy, nil)
		return a.succeeds(0, api.SetCredentialPolicy, a.alice.body(acting(api.SetCredentialPolicy, map[string]any{"credentialId": i.credential, "policyId": i.policy})))
	}},
	{"an app from before the credential had its policy, on a new core", func(a *attacker) bool {
		free, tight := a.hire(listing1), a.hire(signing1)
		before := a.snapshot()
		a.must(0, a.alice, api.SetCredentialPolicy, acting(api.SetCredentialPolicy, map[string]any{"credentialId": free.credential, "policyId": tight.policy}))
		a.rows = before
		return a.lists(a.start(), free)
	}},
	{"a policy for an owner", func(a *attacker) bool {
		i := a.hire(listing1)
		return a.succeeds(0, api.SetCredentialPolicy, a.alice.body(acting(api.SetCredentialPolicy, map[string]any{"credentialId": api.FirstCredential, "policyId": i.policy})))
	}},
	{"a request that was refused, after the policy was widened", func(a *attacker) bool {
		i := a.hire(signing1)
		body := i.body(newKey)
		if a.succeeds(0, "CreateKey", body) {
			return true
		}
		a.must(0, a.alice, api.PutPolicy, acting(api.PutPolicy, map[string]any{"policyId": i.policy, "actions": []string{"CreateKey"}}))
		return a.succeeds(a.start(), "CreateKey", body)
	}},
	{"the keys of a policy in its description", func(a *attacker) bool {
		// Both bodies have one canonical string, so alice's signature fits both.
		key := wire.NewUUID().String()
		return a.folded(api.PutPolicy, fmt.Sprintf(`"preset":"encrypt-only","description":"d","keys":[%q]`, key),
			fmt.Sprintf(`"preset":"encrypt-only","description":"d&keys=0=%s"`, key))
	}},
	{"the end of a credential in its description", func(a *attacker) bool {
		const more = `"kind":"api-key","role":"user",`
		expires := a.now.UnixMilli() + 1000
		return a.folded("CreateCredential", fmt.Sprintf(`%s"description":"d","expires":%d`, more, expires), fmt.Sprintf(`%s"description":"d&expires=%d"`, more, expires))
	}},
}

// folded has alice sign one payload and sends another one that has the same canonical
// string.
func (a *attacker) folded(action, signed, sent string) bool {
	body := func(payload string) string {
		return fmt.Sprintf(`{"appid":%q,"timestamp":"%d","nonce":"d1","payload":{"action":%q,%s}}`, a.alice.appid, a.now.UnixMilli(), action, payload)
	}
	text := string(a.alice.signText(body(signed), canon.Skipping))
	sign := text[strings.Index(text, `"sign":"`)+8 : len(text)-2]
	code, message := a.gets(0, action, withSign(body(sent), sign))
	if message == "sign error" {
		a.t.Fatal("preparation: the signature does not fit")
	}
	return code == codeOK
}
