package core

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// presets are lists of actions with a name. A policy keeps the actions and not the
// name, so that it allows the same when a later release has more of them.
func presets() map[string][]string {
	return map[string][]string{
		api.PresetReadOnly: {
			api.DescribeKey, api.DescribeSecret, api.GetPublicKey, api.GetQuotePolicy, api.ListKey, api.ListKeyVersions, api.ListSecretVersionIds, api.ListSecrets,
		},
		api.PresetEncryptOnly: {api.AsymmetricEncrypt, api.BatchEncrypt, api.Encrypt, api.GenerateDataKey, api.GenerateDataKeyWithoutPlaintext},
		api.PresetDecryptOnly: {api.AsymmetricDecrypt, api.BatchDecrypt, api.Decrypt},
		api.PresetSignOnly:    {api.BatchSign, api.GetPublicKey, api.Sign},
	}
}

// policyActions are about what credentials may do. others are all further actions.
func policyActions(others []*action) []*action {
	id := keyIDMember("policyId")
	table := []*action{
		{name: api.PutPolicy, mutates: true, run: (*request).putPolicy, storage: "put policy failed", members: []member{
			id.opt(), {name: "preset", kind: kindName, names: api.Presets(), optional: true},
			{name: "actions", kind: kindNames, names: grantable(others), optional: true},
			{name: "keys", kind: kindUUIDs, max: record.MaxPolicyKeys, optional: true},
			{name: "description", kind: kindText, min: 1, max: record.MaxText, optional: true}}},
		{name: api.GetPolicy, run: (*request).getPolicy, members: []member{id}},
		{name: api.ListPolicies, run: (*request).listPolicies},
		{name: api.DeletePolicy, mutates: true, run: (*request).deletePolicy, storage: "delete policy failed", members: []member{id}},
		{name: api.TestPolicy, run: (*request).testPolicy, members: []member{
			id.opt(), keyIDMember("credentialId").opt(), {name: "testAction", kind: kindText, min: 1, max: record.MaxText}, keyIDMember("keyid").opt()}},
		{name: api.SetCredentialPolicy, mutates: true, run: (*request).setCredentialPolicy, storage: "set credential policy failed", members: []member{
			keyIDMember("credentialId"), id}},
	}
	for _, a := range table {
		a.owner, a.named, a.strict = true, true, true
	}
	return table
}

// grantable are the names of the actions that a policy can allow: neither those of
// owners, as only users have policies, nor those of administrators.
func grantable(all []*action) (names []string) {
	for _, a := range all {
		if a.owner || a.admin { // check: policy-grantable
			continue
		}
		names = append(names, a.name)
	}
	return names
}

// namedPolicy returns the policy that the request names, which its owner has not
// deleted.
func (x *request) namedPolicy() (*cached[record.Policy], error) {
	unknown := bad(api.MessagePolicyUnknown, "no such policy")
	id, err := wire.ParseUUID(x.payload.text("policyId"))
	if err != nil {
		return nil, unknown
	}
	x.key = id
	p, err := load(x, x.core.rules, x.ruleRecord(id), x.core.openRule)
	if err != nil {
		return nil, err
	}
	if p == nil || p.value.Deleted != 0 { // check: policy-gone
		return nil, unknown
	}
	return p, nil
}

// putPolicy makes a policy, or has another one take its place under its id.
func (x *request) putPolicy() (result, error) {
	next, err := x.newPolicy()
	if err != nil {
		return result{}, err
	}
	if x.payload.text("policyId") != "" {
		old, err := x.namedPolicy()
		if err != nil {
			return result{}, err
		}
		next.Created = old.value.Created
		// It may allow less than the one before, which must not come back.
		err = x.narrowing(x.writePolicy(old.id, old.revision, next))
		return result{textSuccessful, object{}.text("policyId", old.id.ID.String()).end()}, err
	}
	if err := x.reserve(wire.Policy, api.MaxPolicies, errFullPolicies()); err != nil {
		return result{}, err
	}
	id := x.ruleRecord(wire.NewUUID())
	x.key = id.ID
	return result{textSuccessful, object{}.text("policyId", id.ID.String()).end()}, x.writePolicy(id, 0, next)
}

// newPolicy reads a policy from the request. One that allows nothing, or names keys
// for actions that are about none, is a mistake.
func (x *request) newPolicy() (record.Policy, error) {
	p := record.Policy{Created: x.millis(), Modified: x.millis(), Description: x.payload.text("description")}
	// A signature does not cover a list that is there and empty. Without keys a policy
	// is about all of them, so whoever sends it has meant something else.
	for _, name := range []string{"preset", "actions", "keys"} {
		if x.sent.Get(name).Kind() != canon.Absent && x.payload.get(name).Kind() == canon.Absent { // check: policy-empty-list
			return p, bad(fmt.Sprintf("Parameter invalid, The %s type is incorrect.", name), "empty list")
		}
	}
	if !printable(p.Description) { // check: policy-description
		return p, bad("Parameter invalid, The description format wrong.", "invalid member")
	}
	p.Actions = append(x.payload.names("actions"), presets()[x.payload.text("preset")]...)
	if len(p.Actions) == 0 { // check: policy-nothing
		return p, errEmpty("actions")
	}
	slices.Sort(p.Actions)
	p.Actions = slices.Compact(p.Actions)
	return p, x.policyKeys(&p)
}

// policyKeys reads the keys of a policy.
func (x *request) policyKeys(p *record.Policy) error {
	for _, text := range x.payload.names("keys") {
		id, err := wire.ParseUUID(text)
		if err != nil {
			return bad("Parameter invalid, The keys format wrong.", "invalid member")
		}
		p.Keys = append(p.Keys, id)
	}
	p.Keys = record.SortKeys(p.Keys)
	p.AllKeys = len(p.Keys) == 0
	for _, name := range p.Actions {
		if !p.AllKeys && !x.core.actions[name].keyed() { // check: policy-keyed
			return bad(fmt.Sprintf("Parameter invalid, The keys do not fit %s.", name), "keys of an action without")
		}
	}
	return nil
}

// writePolicy adds a policy to the writes.
func (x *request) writePolicy(id wire.RecordID, revision uint64, p record.Policy) error {
	sealed, err := record.SealPolicy(x.core.keys, record.Header{ID: id, Revision: revision + 1}, p)
	if err != nil {
		return errInternal("seal policy")
	}
	w := wire.Write{ID: id, Expected: revision, Revision: revision + 1, Hidden: p.Deleted != 0, Sealed: sealed}
	x.write(w)
	x.onStored = append(x.onStored, func() { x.core.rules.put(id, w.Revision, w.Tag(), p) })
	return nil
}

func (x *request) getPolicy() (result, error) {
	p, err := x.namedPolicy()
	if err != nil {
		return result{}, err
	}
	return result{textSuccessful, describePolicy(p)}, nil
}

// listPolicies lists the tenant's policies, oldest first. The host can leave some out.
func (x *request) listPolicies() (result, error) {
	x.query = &wire.Query{Type: wire.Policy, Tenant: x.tenant, Limit: 2 * api.MaxPolicies}
	if !x.call.Listed {
		return result{}, &needError{list: x.query}
	}
	var all []*cached[record.Policy]
	err := eachListed(x, x.core.rules, x.core.openRule, func(p *cached[record.Policy]) error {
		if p.value.Deleted == 0 {
			all = append(all, p)
		}
		return nil
	})
	if err != nil {
		return result{}, err
	}
	slices.SortFunc(all, func(a, b *cached[record.Policy]) int {
		return cmp.Or(cmp.Compare(a.value.Created, b.value.Created), bytes.Compare(a.id.ID[:], b.id.ID[:]))
	})
	return listing(all, describePolicy, object{}), nil
}

func describePolicy(p *cached[record.Policy]) []byte {
	v := &p.value
	o := object{}.text("policyId", p.id.ID.String()).list("actions", v.Actions).boolean("allKeys", v.AllKeys)
	if !v.AllKeys {
		keys := make([]string, 0, len(v.Keys))
		for _, k := range v.Keys {
			keys = append(keys, k.String())
		}
		o = o.list("keys", keys)
	}
	return o.text("description", v.Description).integer("created", v.Created).integer("modified", v.Modified).end()
}

// deletePolicy leaves a policy that allows nothing, to the credentials that name it.
func (x *request) deletePolicy() (result, error) {
	p, err := x.namedPolicy()
	if err != nil {
		return result{}, err
	}
	gone := record.Policy{Created: p.value.Created, Modified: x.millis(), Deleted: x.millis()}
	return result{message: textSuccessful}, x.narrowing(x.writePolicy(p.id, p.revision, gone))
}

// testPolicy says whether a policy, or all that a credential has, would allow a
// request, and executes nothing.
func (x *request) testPolicy() (result, error) {
	c, rule, err := x.toTest()
	if err != nil {
		return result{}, err
	}
	allowed, reason := false, "there is no such action"
	if a := x.core.actions[x.payload.text("testAction")]; a != nil && !a.admin {
		allowed, reason = decide(c, rule, a, keysIn(x.payload.value))
	}
	if c.Ended(x.millis()) {
		allowed, reason = false, "credential has ended"
	}
	return result{textSuccessful, object{}.boolean("allowed", allowed).text("reason", reason).end()}, nil
}

// toTest is the credential that the request names with its policy, or one of a user
// with the policy that it names.
func (x *request) toTest() (*record.Credential, *record.Policy, error) {
	credential, policy := x.payload.text("credentialId"), x.payload.text("policyId")
	switch {
	case credential == "" && policy == "":
		return nil, nil, errEmpty("policyId")
	case credential != "" && policy != "":
		return nil, nil, bad("Parameter invalid, The policyId type is incorrect.", "policy and credential")
	case policy != "":
		p, err := x.namedPolicy()
		if err != nil {
			return nil, nil, err
		}
		return &record.Credential{Role: record.User, Policy: p.id.ID}, &p.value, nil
	}
	i := x.ownCredential(credential)
	if i < 0 {
		return nil, nil, bad(textNoCredential, "no such credential")
	}
	c := &x.app.value.Credentials[i]
	x.key = c.ID
	rule, err := x.loadRule(c.Policy)
	return c, rule, err
}

// ownCredential is the place of a credential of the app, -1 if it has none with this
// id.
func (x *request) ownCredential(text string) int {
	id, err := wire.ParseUUID(text)
	if err != nil {
		return -1
	}
	return slices.IndexFunc(x.app.value.Credentials, func(c record.Credential) bool { return c.ID == id })
}

// setCredentialPolicy puts a credential under another policy, or under none where the
// request says so with the zero id. What it had before must not come back.
func (x *request) setCredentialPolicy() (result, error) {
	all, texts := x.inForce()
	id, err := wire.ParseUUID(x.payload.text("credentialId"))
	i := slices.IndexFunc(all, func(c record.Credential) bool { return c.ID == id })
	if err != nil || i < 0 {
		return result{}, bad(textNoCredential, "no such credential")
	}
	all[i].Policy = wire.UUID{}
	if x.payload.text("policyId") != all[i].Policy.String() {
		if err := x.choosePolicy(&all[i]); err != nil {
			return result{}, err
		}
	}
	x.key = id
	return result{message: textSuccessful}, x.narrowing(x.writeCredentials(all, texts))
}

// choosePolicy gives a credential the policy that the request names, if it does. An
// owner has none: he could make himself another credential.
func (x *request) choosePolicy(c *record.Credential) error {
	if x.payload.text("policyId") == "" {
		return nil
	}
	if c.Role != record.User { // check: policy-of-user
		return bad("Parameter invalid, The policyId needs the role user.", "policy of an owner")
	}
	p, err := x.namedPolicy()
	if err != nil {
		return err
	}
	c.Policy = p.id.ID
	return nil
}
