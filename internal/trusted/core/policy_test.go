package core

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// policy makes a policy and returns its id.
func (c *tenant) policy(t testing.TB, payload map[string]any) string {
	t.Helper()
	r := naming(c, api.PutPolicy, payload)
	want(t, api.PutPolicy, r, 200, "successful")
	return r.text("policyId")
}

// under makes an API key of a user with a policy, and returns who has it.
func (c *tenant) under(t testing.TB, policy string) (user *tenant, id string) {
	t.Helper()
	return c.newAPIKey(t, map[string]any{"role": "user", "policyId": policy})
}

func (c *tenant) policyRecord(t testing.TB, id string) wire.RecordID {
	t.Helper()
	u, err := wire.ParseUUID(id)
	if err != nil {
		t.Fatal(err)
	}
	return wire.RecordID{Type: wire.Policy, Tenant: c.id(), ID: u}
}

// TestEveryActionAndRole has every action asked for by everybody. A payload that fits
// none keeps those that may from doing anything.
func TestEveryActionAndRole(t *testing.T) {
	h, _ := newHost(t)
	frank, alice := h.admin("frank"), h.enroll()
	user, _ := alice.newAPIKey(t, map[string]any{"role": "user"})
	all := actions()
	owners := map[string]bool{
		"CreateCredential": true, "ListCredentials": true, "RevokeCredential": true,
		api.PutLoginRule: true, api.ListLoginRules: true, api.DeleteLoginRule: true,
		api.PutPolicy: true, api.GetPolicy: true, api.ListPolicies: true, api.DeletePolicy: true, api.TestPolicy: true, api.SetCredentialPolicy: true,
	}
	type role struct {
		name string
		who  doer
		may  func(a *action) bool
	}
	roles := []role{
		{"owner", alice, func(a *action) bool { return !a.admin }},
		{"user", user, func(a *action) bool { return !a.admin && !owners[a.name] }},
		{"administrator", frank.holder, func(a *action) bool { return a.admin }},
		{"stranger", &tenant{h: h, appid: alice.appid, apikey: "chosen"}, func(*action) bool { return false }},
		{"stranger of no app", &tenant{h: h, appid: wire.NewUUID().String(), apikey: "chosen"}, func(*action) bool { return false }},
	}
	for preset, listed := range presets() {
		c := h.enroll()
		holder, _ := c.under(t, c.policy(t, map[string]any{"preset": preset}))
		roles = append(roles, role{preset, holder, func(a *action) bool { return slices.Contains(listed, a.name) }})
	}
	asked := 0
	for _, r := range roles {
		for name, a := range all {
			got := naming(r.who, name, map[string]any{"nonsense": true})
			refused := got.Message == "sign error" || got.Code == 404
			if r.may(a) == refused {
				t.Errorf("%s by %s: got %d %q", name, r.name, got.Code, got.Message)
			}
			asked++
		}
	}
	if asked < 400 {
		t.Errorf("asked %d times, want at least 400", asked)
	}
}

func TestPresetsAreActions(t *testing.T) {
	all := actions()
	if got := slices.Sorted(maps.Keys(presets())); !slices.Equal(got, slices.Sorted(slices.Values(api.Presets()))) {
		t.Errorf("presets are %v", got)
	}
	for preset, listed := range presets() {
		for _, name := range listed {
			if a := all[name]; a == nil || a.name != name || a.owner || a.admin || a.mutates {
				t.Errorf("%s: %s is %+v", preset, name, a)
			}
		}
	}
	may := grantable(slices.Collect(maps.Values(all)))
	slices.Sort(may)
	if got := slices.Sorted(slices.Values(api.PolicyActions())); !slices.Equal(got, slices.Compact(may)) {
		t.Errorf("api.PolicyActions: got %v, want %v", got, may)
	}
	if api.MaxPolicyActions != record.MaxPolicyActions || api.MaxPolicyKeys != record.MaxPolicyKeys || len(may) > record.MaxPolicyActions {
		t.Error("limits differ, or not all actions fit into a policy")
	}
}

// A key that an action takes by a member that no policy looks at would be beyond all
// policies.
func TestKeyMembers(t *testing.T) {
	for name, a := range actions() {
		for i := range a.members {
			m := &a.members[i]
			for _, spelling := range append([]string{m.name}, m.also...) {
				if strings.HasSuffix(strings.ToLower(spelling), "keyid") && !slices.Contains(keyMembers(), spelling) {
					t.Errorf("%s takes a key by %s", name, spelling)
				}
			}
		}
	}
}

// TestDecide has the decision without requests.
func TestDecide(t *testing.T) {
	one, two := wire.UUID{1}, wire.UUID{2}
	rule := &record.Policy{Actions: []string{"Encrypt", "ListCredentials"}, Keys: []wire.UUID{one}}
	for _, row := range []struct {
		name   string
		role   record.Role
		policy wire.UUID
		rule   *record.Policy
		action string
		keys   []wire.UUID
		want   bool
		reason string
	}{
		{"owner", record.Owner, wire.UUID{}, nil, "ListCredentials", nil, true, "credential has no policy"},
		{"user", record.User, wire.UUID{}, nil, "Encrypt", []wire.UUID{two}, true, "credential has no policy"},
		{"owner's action by a user", record.User, wire.UUID{}, nil, "ListCredentials", nil, false, "not the owner"},
		{"no role", 0, wire.UUID{}, nil, "ListCredentials", nil, false, "not the owner"},
		{"owner's action that a policy lists", record.User, one, rule, "ListCredentials", []wire.UUID{one}, false, "not the owner"},
		{"policy that is not there", record.User, one, nil, "Encrypt", []wire.UUID{one}, false, "policy is absent"},
		{"owner with a policy that is not there", record.Owner, one, nil, "Encrypt", []wire.UUID{one}, false, "policy is absent"},
		{"listed", record.User, one, rule, "Encrypt", []wire.UUID{one}, true, "action and key are in the policy"},
		{"another key", record.User, one, rule, "Encrypt", []wire.UUID{two}, false, "key is not in the policy"},
		{"one of two keys", record.User, one, rule, "Encrypt", []wire.UUID{one, two}, false, "key is not in the policy"},
		{"no key", record.User, one, rule, "Encrypt", nil, false, "policy is about keys and the request names none"},
		{"not listed", record.User, one, rule, "Decrypt", []wire.UUID{one}, false, "action is not in the policy"},
		{"zero policy", record.User, one, &record.Policy{}, "Encrypt", []wire.UUID{one}, false, "action is not in the policy"},
	} {
		c := &record.Credential{Role: row.role, Policy: row.policy}
		got, reason := decide(c, row.rule, actions()[row.action], row.keys)
		if got != row.want || reason != row.reason {
			t.Errorf("%s: got %v, %q", row.name, got, reason)
		}
	}
}

func TestPolicyInForce(t *testing.T) {
	h, d := newHost(t)
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	c := h.enroll()
	one, two := c.createKey(), c.createKey()
	id := c.policy(t, map[string]any{"preset": "encrypt-only", "actions": []string{"ExportDataKey"}, "keys": []string{two, one, one}, "description": "till 4"})
	r := mustName(t, c, api.GetPolicy, map[string]any{"policyId": id})
	keys := []string{one, two}
	slices.Sort(keys)
	shown, _ := json.Marshal([]any{r.Result["actions"], r.Result["allKeys"], r.Result["keys"], r.Result["description"]})
	expected, _ := json.Marshal([]any{[]string{"AsymmetricEncrypt", "BatchEncrypt", "Encrypt", "ExportDataKey", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext"}, false, keys, "till 4"})
	if string(shown) != string(expected) {
		t.Errorf("GetPolicy: got %s, want %s", shown, expected)
	}
	user, credential := c.under(t, id)
	other := c.createKey()
	want(t, "what it allows", user.do(0, "Encrypt", encrypts(one)), 200, "success!")
	want(t, "at another core", user.do(1, "Encrypt", encrypts(two)), 200, "success!")
	want(t, "another key", user.do(0, "Encrypt", encrypts(other)), 400, "sign error")
	want(t, "a key that is not there", user.do(0, "Encrypt", encrypts(wire.NewUUID().String())), 400, "sign error")
	want(t, "no key", user.do(0, "Encrypt", map[string]any{"plaintext": hello}), 400, "sign error")
	want(t, "what is no id", user.do(0, "Encrypt", encrypts("x")), 400, "sign error")
	want(t, "another type", user.do(0, "Encrypt", map[string]any{"keyid": 5, "plaintext": hello}), 400, "sign error")
	want(t, "a second key that is not in it", user.do(0, "ExportDataKey", map[string]any{"keyid": one, "ukeyid": other, "olddatakey_base": hello}), 400, "sign error")
	want(t, "another action", user.do(0, "ListKey", nil), 400, "sign error")
	want(t, "another action on the key", user.do(0, "DisableKey", named(one)), 400, "sign error")
	want(t, "all keys", user.do(0, "DeleteALLKey", nil), 400, "sign error")
	want(t, "no such action", naming(user, "Everything", nil), 404, "API Not Found")
	want(t, "an owner is not under it", c.do(0, "Encrypt", encrypts(other)), 200, "success!")

	list, _ := mustName(t, c, "ListCredentials", nil).Result["credentials"].([]any)
	if got := list[1].(map[string]any)["policyId"]; got != id {
		t.Errorf("ListCredentials: got policy %v, want %s", got, id)
	}
	want(t, "narrow", naming(c, api.PutPolicy, map[string]any{"policyId": id, "actions": []string{"Decrypt"}}), 200, "successful")
	for core := range h.cores {
		want(t, "narrowed", user.do(core, "Encrypt", encrypts(one)), 400, "sign error")
	}
	want(t, "take it away", naming(c, api.SetCredentialPolicy, map[string]any{"credentialId": credential, "policyId": api.NoPolicy}), 200, "successful")
	for core := range h.cores {
		want(t, "without", user.do(core, "Encrypt", encrypts(other)), 200, "success!")
	}
	want(t, "put it back", naming(c, api.SetCredentialPolicy, map[string]any{"credentialId": credential, "policyId": id}), 200, "successful")
	want(t, "under it again", user.do(1, "Encrypt", encrypts(one)), 400, "sign error")
}

// A rotated API key has its policy too.
func TestPolicyAndRotation(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	user, _ := c.under(t, c.policy(t, map[string]any{"actions": []string{"RotateAPIKey", "ListSecrets"}}))
	r := mustName(t, user, "RotateAPIKey", nil)
	next := &tenant{h: h, appid: c.appid, apikey: r.text("apikey")}
	want(t, "the successor", next.do(0, "ListSecrets", nil), 200, "List secrets success.")
	want(t, "what the successor may not", next.do(0, "ListKey", nil), 400, "sign error")
	strict, _ := c.under(t, c.policy(t, map[string]any{"actions": []string{"ListSecrets"}}))
	want(t, "a rotation that is not listed", naming(strict, "RotateAPIKey", nil), 400, "sign error")
}

func TestDeletedPolicy(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	id := c.policy(t, map[string]any{"actions": []string{"ListKey"}})
	user, _ := c.under(t, id)
	want(t, "before", user.do(0, "ListKey", nil), 200, "successful")
	named := map[string]any{"policyId": id}
	want(t, "DeletePolicy", naming(c, api.DeletePolicy, named), 200, "successful")
	want(t, "after", user.do(0, "ListKey", nil), 400, "sign error")
	want(t, "twice", naming(c, api.DeletePolicy, named), 400, api.MessagePolicyUnknown)
	want(t, "shown", naming(c, api.GetPolicy, named), 400, api.MessagePolicyUnknown)
	want(t, "tested", naming(c, api.TestPolicy, map[string]any{"policyId": id, "testAction": "ListKey"}), 400, api.MessagePolicyUnknown)
	want(t, "changed", naming(c, api.PutPolicy, map[string]any{"policyId": id, "preset": "read-only"}), 400, api.MessagePolicyUnknown)
	want(t, "chosen", naming(c, "CreateCredential", map[string]any{"kind": "api-key", "role": "user", "policyId": id}), 400, api.MessagePolicyUnknown)
	if list := mustName(t, c, api.ListPolicies, nil).Result["list"].([]any); len(list) != 0 {
		t.Errorf("ListPolicies: got %v", list)
	}
}

func TestPutPolicyRefusals(t *testing.T) {
	h, _ := newHost(t)
	c, other := h.enroll(), h.enroll()
	foreign := other.policy(t, map[string]any{"preset": "sign-only"})
	key := wire.NewUUID().String()
	const (
		nothing = "Missing required parameters, The actions cannot be empty."
		actions = "Parameter invalid, The actions type is incorrect."
		keys    = "Parameter invalid, The keys type is incorrect."
	)
	var many []string
	for range record.MaxPolicyKeys + 1 {
		many = append(many, wire.NewUUID().String())
	}
	sign := func(name string, v any) map[string]any { return map[string]any{"preset": "sign-only", name: v} }
	for name, row := range map[string]struct {
		payload map[string]any
		want    string
	}{
		"nothing":                {nil, nothing},
		"no action":              {map[string]any{"actions": []string{}}, actions},
		"no preset":              {map[string]any{"preset": "", "actions": []string{"Sign"}}, "Parameter invalid, The preset type is incorrect."},
		"preset and no action":   {sign("actions", []string{}), actions},
		"an empty action":        {sign("actions", []string{""}), actions},
		"keys alone":             {map[string]any{"keys": []string{key}}, nothing},
		"unknown action":         {map[string]any{"actions": []string{"Everything"}}, actions},
		"all actions":            {map[string]any{"actions": []string{"*"}}, actions},
		"documented spelling":    {map[string]any{"actions": []string{"DeleteALLKey"}}, actions},
		"owner's action":         {map[string]any{"actions": []string{api.PutPolicy}}, actions},
		"another owner's action": {map[string]any{"actions": []string{"CreateCredential"}}, actions},
		"administrator's action": {map[string]any{"actions": []string{api.DeleteApp}}, actions},
		"actions as text":        {map[string]any{"actions": "Sign"}, actions},
		"actions as object":      {map[string]any{"actions": map[string]any{"0": "Sign"}}, actions},
		"unknown preset":         {map[string]any{"preset": "admin"}, "Parameter invalid, The preset type is incorrect."},
		"unknown member":         {sign("deny", []string{"Sign"}), "Parameter invalid, The deny type is incorrect."},
		"no key":                 {sign("keys", []string{}), keys},
		"null for keys":          {sign("keys", nil), keys},
		"an empty key":           {sign("keys", []string{""}), keys},
		"text for keys":          {sign("keys", key), keys},
		"empty text for keys":    {sign("keys", ""), keys},
		"false for keys":         {sign("keys", false), keys},
		"object for keys":        {sign("keys", map[string]any{"0": key}), keys},
		"too many keys":          {sign("keys", many), keys},
		"no UUID":                {sign("keys", []string{"all"}), "Parameter invalid, The keys format wrong."},
		"upper case":             {sign("keys", []string{"AAC3E45A-D3DC-4791-89B6-4ADA0E38E6EF"}), "Parameter invalid, The keys format wrong."},
		"letters beyond f":       {sign("keys", []string{"zzzzzzzz-d3dc-4791-89b6-4ada0e38e6ef"}), "Parameter invalid, The keys format wrong."},
		"a number among keys":    {sign("keys", []any{key, 5}), "Parameter invalid, The keys format wrong."},
		"keys of ListKey":        {map[string]any{"actions": []string{"ListKey"}, "keys": []string{key}}, "Parameter invalid, The keys do not fit ListKey."},
		"keys of secrets":        {map[string]any{"actions": []string{"CreateSecret"}, "keys": []string{key}}, "Parameter invalid, The keys do not fit CreateSecret."},
		"unknown policy":         {sign("policyId", key), api.MessagePolicyUnknown},
		"another's policy":       {sign("policyId", foreign), api.MessagePolicyUnknown},
		"description of two":     {sign("description", "a\nb"), "Parameter invalid, The description format wrong."},
		"description of keys":    {sign("description", "d&keys=0="+key), "Parameter invalid, The description format wrong."},
	} {
		want(t, name, naming(c, api.PutPolicy, row.payload), 400, row.want)
	}
	want(t, "action not named", c.do(0, api.PutPolicy, map[string]any{"preset": "sign-only"}), 400, "sign error")
}

func TestCredentialPolicyRefusals(t *testing.T) {
	h, _ := newHost(t)
	c, other := h.enroll(), h.enroll()
	foreign := other.policy(t, map[string]any{"preset": "sign-only"})
	mine := c.policy(t, map[string]any{"preset": "sign-only"})
	_, user := c.under(t, mine)
	const ofUser = "Parameter invalid, The policyId needs the role user."
	for name, row := range map[string]struct{ role, policy, want string }{
		"an owner":         {"owner", mine, ofUser},
		"another's policy": {"user", foreign, api.MessagePolicyUnknown},
		"no policy":        {"user", wire.NewUUID().String(), api.MessagePolicyUnknown},
		"the zero policy":  {"user", api.NoPolicy, api.MessagePolicyUnknown},
	} {
		want(t, name, naming(c, "CreateCredential", map[string]any{"kind": "api-key", "role": row.role, "policyId": row.policy}), 400, row.want)
	}
	for name, row := range map[string]struct{ credential, policy, want string }{
		"the owner":          {api.FirstCredential, mine, ofUser},
		"another's policy":   {user, foreign, api.MessagePolicyUnknown},
		"no policy":          {user, wire.NewUUID().String(), api.MessagePolicyUnknown},
		"no credential":      {wire.NewUUID().String(), mine, textNoCredential},
		"policy not named":   {user, "", "Missing required parameters, The policyId cannot be empty."},
		"nobody is named":    {"", mine, "Missing required parameters, The credentialId cannot be empty."},
		"what is no id":      {user, "zzzzzzzz-zzzz-zzzz-zzzz-zzzzzzzzzzzz", api.MessagePolicyUnknown},
		"credential no id":   {"zzzzzzzz-zzzz-zzzz-zzzz-zzzzzzzzzzzz", mine, textNoCredential},
		"not even like one":  {user, "all", "Parameter invalid, The policyId length error."},
		"credential of none": {"all", mine, "Parameter invalid, The credentialId length error."},
	} {
		want(t, name, naming(c, api.SetCredentialPolicy, map[string]any{"credentialId": row.credential, "policyId": row.policy}), 400, row.want)
	}
}

func TestTestPolicy(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	key := c.createKey()
	id := c.policy(t, map[string]any{"actions": []string{"Encrypt", "DeleteKey"}, "keys": []string{key}})
	_, user := c.under(t, id)
	_, expired := c.newAPIKey(t, map[string]any{"role": "user", "expires": h.now.UnixMilli() + 1})
	_, free := c.newAPIKey(t, map[string]any{"role": "user"})
	h.now = h.now.Add(1_000_000)
	of := func(name, v string) map[string]any { return map[string]any{name: v} }
	for _, row := range []struct {
		name        string
		of          map[string]any
		action, key string
		want        bool
		reason      string
	}{
		{"allowed", of("policyId", id), "Encrypt", key, true, "action and key are in the policy"},
		{"a change", of("policyId", id), "DeleteKey", key, true, "action and key are in the policy"},
		{"another key", of("policyId", id), "Encrypt", wire.NewUUID().String(), false, "key is not in the policy"},
		{"no key", of("policyId", id), "Encrypt", "", false, "policy is about keys and the request names none"},
		{"another action", of("policyId", id), "Decrypt", key, false, "action is not in the policy"},
		{"the documented spelling", of("policyId", id), "DeleteALLKey", key, false, "action is not in the policy"},
		{"an owner's action", of("policyId", id), api.PutPolicy, "", false, "not the owner"},
		{"an administrator's action", of("policyId", id), api.DeleteApp, "", false, "there is no such action"},
		{"no action", of("policyId", id), "Nothing", key, false, "there is no such action"},
		{"the credential", of("credentialId", user), "Encrypt", key, true, "action and key are in the policy"},
		{"the credential, another key", of("credentialId", user), "Encrypt", wire.NewUUID().String(), false, "key is not in the policy"},
		{"a credential without a policy", of("credentialId", free), "DeleteAllKey", "", true, "credential has no policy"},
		{"a user as an owner", of("credentialId", free), "ListCredentials", "", false, "not the owner"},
		{"the owner", of("credentialId", api.FirstCredential), "ListCredentials", "", true, "credential has no policy"},
		{"one that has expired", of("credentialId", expired), "Encrypt", key, false, "credential has ended"},
	} {
		payload := map[string]any{"testAction": row.action}
		maps.Copy(payload, row.of)
		if row.key != "" {
			payload["keyid"] = row.key
		}
		r := naming(c, api.TestPolicy, payload)
		want(t, row.name, r, 200, "successful")
		if r.Result["allowed"] != row.want || r.text("reason") != row.reason {
			t.Errorf("%s: got %v", row.name, r.Result)
		}
	}
	want(t, "nothing was done", c.do(0, "Encrypt", encrypts(key)), 200, "success!")
	for name, row := range map[string]struct {
		payload map[string]any
		want    string
	}{
		"of nobody":             {nil, "Missing required parameters, The policyId cannot be empty."},
		"of both":               {map[string]any{"policyId": id, "credentialId": user}, "Parameter invalid, The policyId type is incorrect."},
		"of no policy":          {of("policyId", wire.NewUUID().String()), api.MessagePolicyUnknown},
		"of no credential":      {of("credentialId", wire.NewUUID().String()), textNoCredential},
		"of what is no id":      {of("credentialId", "zzzzzzzz-zzzz-zzzz-zzzz-zzzzzzzzzzzz"), textNoCredential},
		"with another member":   {map[string]any{"policyId": id, "action=TestPolicy&keyid": key}, "Parameter invalid, The action=TestPolicy&keyid type is incorrect."},
		"with a number as text": {map[string]any{"policyId": id, "keyid": "5"}, "Parameter invalid, The keyid length error."},
	} {
		payload := map[string]any{"testAction": "Encrypt"}
		maps.Copy(payload, row.payload)
		want(t, name, naming(c, api.TestPolicy, payload), 400, row.want)
	}
}

func TestListPolicies(t *testing.T) {
	h, _ := newHost(t)
	c, other := h.enroll(), h.enroll()
	other.policy(t, map[string]any{"preset": "sign-only"})
	var ids []string
	for range 3 {
		h.now = h.now.Add(1_000_000)
		ids = append(ids, c.policy(t, map[string]any{"preset": "read-only"}))
	}
	var got []string
	for _, p := range mustName(t, c, api.ListPolicies, nil).Result["list"].([]any) {
		m := p.(map[string]any)
		if m["allKeys"] != true || m["keys"] != nil {
			t.Errorf("got %v", m)
		}
		got = append(got, m["policyId"].(string))
	}
	if !slices.Equal(got, ids) {
		t.Errorf("got %v, want %v", got, ids)
	}
	for range api.MaxPolicies - len(ids) {
		c.policy(t, map[string]any{"preset": "read-only"})
	}
	want(t, "one more", naming(c, api.PutPolicy, map[string]any{"preset": "read-only"}), 429, api.MessageFullPolicies)
	want(t, "in place of another", naming(c, api.PutPolicy, map[string]any{"preset": "sign-only", "policyId": ids[0]}), 200, "successful")
}

// A request that was refused stays so when the policy is widened, on every core.
func TestRefusedOnce(t *testing.T) {
	h, d := newHost(t)
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	c := h.enroll()
	id := c.policy(t, map[string]any{"preset": "read-only"})
	user, _ := c.under(t, id)
	body := user.body(newKey)
	want(t, "refused", user.send(0, "CreateKey", body), 400, "sign error")
	naming(c, api.PutPolicy, map[string]any{"policyId": id, "actions": []string{"CreateKey"}})
	want(t, "again, at another core", user.send(1, "CreateKey", body), 400, "Timestamp can't be repeated in 20 minutes")
	want(t, "another one", user.do(1, "CreateKey", newKey), 200, "success!")
}
