package core

import (
	"slices"

	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// permit decides whether the action may be run for the credential that signed the
// request. It is the only place that does: every signed action passes it, before
// anything but the signature is judged, and nothing that it refuses is run. Who may
// not learns no more than who has no credential.
func (x *request) permit(payload canon.Value) error {
	// A body of an old client must not be made into one that hands out an API key.
	if x.action.named && payload.Get(memberAction).Kind() == canon.Absent { // check: action-named
		return bad(textSignError, "action is not named")
	}
	var keys []wire.UUID
	if x.credential.Policy != (wire.UUID{}) {
		keys = keysIn(payload)
	}
	rule, err := x.loadRule(x.credential.Policy)
	if err != nil {
		return err
	}
	allowed, reason := decide(&x.credential.Credential, rule, x.action, keys)
	if allowed {
		return nil
	}
	if len(keys) > 0 {
		x.key = keys[0]
	}
	// A policy may be widened while the request can still be sent again, to this core
	// after a restart or to another one. It was refused, and stays so.
	if x.credential.Policy != (wire.UUID{}) && (x.action.mutates || x.fitsMutation(payload)) { // check: shared-replay-refused
		x.once()
	}
	return bad(textSignError, reason)
}

// decide says whether a credential may have an action run that is about keys, and
// why. rule is the policy that the credential names, nil if it names none or there is
// none. A role allows what no policy can add to, and what a policy does not list it
// denies.
func decide(c *record.Credential, rule *record.Policy, a *action, keys []wire.UUID) (allowed bool, reason string) {
	if a.owner && c.Role != record.Owner { // check: owner-only
		return false, "not the owner"
	}
	if c.Policy == (wire.UUID{}) {
		return true, "credential has no policy"
	}
	if rule == nil { // check: policy-absent
		return false, "policy is absent"
	}
	allowed, reason = rule.Allows(a.name, keys)
	return allowed, reason
}

// keyMembers are the payload members by which actions name keys.
func keyMembers() []string { return []string{"keyid", "ukeyid", "encryptionKeyId"} }

// keysIn are the keys that a payload names. What is no id names the zero key, which
// there is not.
func keysIn(payload canon.Value) (keys []wire.UUID) {
	for _, name := range keyMembers() {
		if v := payload.Get(name); !empty(v) {
			id, _ := wire.ParseUUID(v.Text())
			keys = append(keys, id)
		}
	}
	return keys
}

// keyed reports whether each request with the action is about a key that it names,
// and about no other.
func (a *action) keyed() bool {
	return slices.ContainsFunc(a.members, func(m member) bool { return m.name == "keyid" && !m.optional })
}

func (x *request) ruleRecord(id wire.UUID) wire.RecordID {
	return wire.RecordID{Type: wire.Policy, Tenant: x.tenant, ID: id}
}

// loadRule returns a policy of the request's tenant, nil if there is none or if id is
// zero. The policy must not be changed.
func (x *request) loadRule(id wire.UUID) (*record.Policy, error) {
	if id == (wire.UUID{}) {
		return nil, nil
	}
	p, err := load(x, x.core.rules, x.ruleRecord(id), x.core.openRule)
	if err != nil || p == nil {
		return nil, err
	}
	return &p.value, nil
}

func (c *Core) openRule(h record.Header, sealed []byte) (record.Policy, error) {
	return record.OpenPolicy(c.keys, h, sealed)
}
