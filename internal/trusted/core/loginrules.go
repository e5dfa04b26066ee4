package core

import (
	"encoding/hex"
	"maps"
	"math"
	"slices"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/attest/strictjson"
	"github.com/ehsm-kms/ehsm/internal/trusted/jwt"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// loginActions are about which workloads may log in.
func loginActions() []*action {
	name := member{name: "name", kind: kindText, min: 1, max: record.MaxText}
	text := func(name string, limit int) member {
		return member{name: name, kind: kindText, min: 1, max: limit, optional: true}
	}
	number := func(name string) member {
		return member{name: name, kind: kindInteger, max: math.MaxUint16, optional: true}
	}
	return []*action{
		{name: api.PutLoginRule, mutates: true, named: true, owner: true, run: (*request).putLoginRule, storage: "put login rule failed", members: []member{
			name, {name: "kind", kind: kindName, names: []string{api.LoginJWT, api.LoginQuote}},
			{name: "policy", kind: kindText, min: 1, max: 36},
			{name: "lifetimeSeconds", kind: kindInteger, min: api.MinLoginLifetime, max: api.MaxLoginLifetime},
			hashMember("mrEnclave").opt(), hashMember("mrSigner").opt(), number("isvProdId"), number("minIsvSvn"),
			text("issuer", jwt.MaxText), text("audience", jwt.MaxText), text("subject", jwt.MaxText), text("claims", maxClaimsText),
			text("jwks", jwt.MaxKeySet)}},
		{name: api.ListLoginRules, named: true, owner: true, run: (*request).listLoginRules},
		{name: api.DeleteLoginRule, mutates: true, named: true, owner: true, run: (*request).deleteLoginRule, storage: "delete login rule failed", members: []member{name}},
	}
}

// maxClaimsText is the longest JSON object of claims, in bytes.
const maxClaimsText = 4096

func settingsRecord(tenant wire.UUID) wire.RecordID {
	return wire.RecordID{Type: wire.TenantSettings, Tenant: tenant, ID: tenant}
}

// loadSettings returns the settings of a tenant, nil if it has none.
func (x *request) loadSettings(tenant wire.UUID) (*cached[record.TenantSettings], error) {
	return load(x, x.core.settings, settingsRecord(tenant), func(h record.Header, sealed []byte) (record.TenantSettings, error) {
		return record.OpenTenantSettings(x.core.keys, h, sealed)
	})
}

// ownSettings returns the settings of the request's tenant and a copy of their rules.
func (x *request) ownSettings() (revision uint64, rules []record.LoginRule, err error) {
	s, err := x.loadSettings(x.tenant)
	if err != nil || s == nil {
		return 0, nil, err
	}
	return s.revision, slices.Clone(s.value.Rules), nil
}

// writeSettings adds settings to the writes, in the place of a revision, 0 for the
// first ones.
func (x *request) writeSettings(revision uint64, rules []record.LoginRule) error {
	s := record.TenantSettings{Modified: x.millis(), Rules: rules}
	id := settingsRecord(x.tenant)
	sealed, err := record.SealTenantSettings(x.core.keys, record.Header{ID: id, Revision: revision + 1}, s)
	if err != nil {
		return bad(api.MessageLoginRules, "login rules do not fit")
	}
	w := wire.Write{ID: id, Expected: revision, Revision: revision + 1, Sealed: sealed}
	x.write(w)
	x.onStored = append(x.onStored, func() { x.core.settings.put(id, w.Revision, w.Tag(), s) })
	return nil
}

// putLoginRule makes a rule, or another one in its place: with the old one go the
// credentials that workloads have by it.
func (x *request) putLoginRule() (result, error) {
	rule, err := x.ruleOf()
	if err != nil {
		return result{}, err
	}
	revision, rules, err := x.ownSettings()
	if err != nil {
		return result{}, err
	}
	x.key = rule.ID
	done := result{textSuccessful, object{}.text("ruleId", rule.ID.String()).end()}
	if at := ruleNamed(rules, rule.Name); at >= 0 {
		rules[at] = *rule
		return done, x.narrowing(x.writeSettings(revision, rules))
	}
	same := 0
	for i := range rules {
		if (rules[i].Code == nil) == (rule.Code == nil) {
			same++
		}
	}
	if same >= record.MaxLoginRules {
		return result{}, bad(api.MessageLoginRules, "too many login rules")
	}
	return done, x.writeSettings(revision, append(rules, *rule))
}

func ruleNamed(rules []record.LoginRule, name string) int {
	return slices.IndexFunc(rules, func(r record.LoginRule) bool { return r.Name == name })
}

// errRule refuses a rule. The owner is told what is wrong with it.
func errRule(why string) *refusal { return bad(api.MessageLoginRuleBefore+why, "login rule") }

// ruleOf makes the rule of a request.
func (x *request) ruleOf() (*record.LoginRule, error) {
	r := &record.LoginRule{
		ID: wire.NewUUID(), Name: x.payload.text("name"), Lifetime: uint32(x.payload.integer("lifetimeSeconds")),
		Created: x.millis(), By: x.credential.ID,
	}
	if !printable(r.Name) {
		return nil, bad("Parameter invalid, The name format wrong.", "invalid member")
	}
	forJWT, forQuote := []string{"issuer", "audience", "subject", "claims", "jwks"}, []string{"mrEnclave", "mrSigner", "isvProdId", "minIsvSvn"}
	err := x.policyOf(r)
	if err != nil {
		return nil, err
	}
	if x.payload.text("kind") == api.LoginJWT {
		if err = x.none(forQuote); err == nil {
			r.Issuer, err = x.issuerOf()
		}
	} else {
		if err = x.none(forJWT); err == nil {
			r.Code = x.codeOf()
		}
	}
	if err != nil {
		return nil, err
	}
	if err := r.Validate(); err != nil {
		return nil, errRule(err.Error())
	}
	return r, nil
}

// policyOf takes the policy of a rule, which the owner has to name, if only as that of
// all.
func (x *request) policyOf(r *record.LoginRule) error {
	text := x.payload.text("policy")
	if text == api.PolicyAll {
		return nil
	}
	id, err := wire.ParseUUID(text)
	if err != nil || id == (wire.UUID{}) {
		return bad(api.MessagePolicyUnknown, "no such policy")
	}
	p, err := x.loadRule(id)
	if err != nil {
		return err
	}
	if p == nil || p.Deleted != 0 { // check: login-policy
		return bad(api.MessagePolicyUnknown, "no such policy")
	}
	r.Policy = id
	return nil
}

// none refuses members of another kind of rule.
func (x *request) none(names []string) error {
	for _, name := range names {
		if v := x.payload.get(name); !empty(v) {
			return errRule(name + " is for the other kind")
		}
	}
	return nil
}

func (x *request) issuerOf() (*jwt.Expected, error) {
	e := &jwt.Expected{Issuer: x.payload.text("issuer"), Audience: x.payload.text("audience"), Subject: x.payload.text("subject")}
	var err error
	if e.Keys, err = jwt.ParseKeys([]byte(x.payload.text("jwks"))); err != nil {
		return nil, errRule(err.Error())
	}
	text := x.payload.text("claims")
	if text == "" {
		return e, nil
	}
	_, n, err := strictjson.Parse([]byte(text), maxClaimsText)
	if err != nil {
		return nil, errRule("claims: " + err.Error())
	}
	for _, name := range n.Names() {
		e.Claims = append(e.Claims, jwt.Claim{Name: name, Value: n.Member(name).Text()})
	}
	if n.Err() != nil {
		return nil, errRule("claims: " + n.Err().Error())
	}
	return e, nil
}

func (x *request) codeOf() *record.ClientCode {
	c := &record.ClientCode{Product: uint16(x.payload.integer("isvProdId")), MinSVN: uint16(x.payload.integer("minIsvSvn"))}
	hex.Decode(c.MREnclave[:], []byte(x.payload.text("mrEnclave"))) // validated
	hex.Decode(c.MRSigner[:], []byte(x.payload.text("mrSigner")))
	return c
}

// deleteLoginRule ends a rule and the credentials that workloads have by it.
func (x *request) deleteLoginRule() (result, error) {
	revision, rules, err := x.ownSettings()
	if err != nil {
		return result{}, err
	}
	at := ruleNamed(rules, x.payload.text("name"))
	if at < 0 {
		return result{}, bad(api.MessageLoginRule, "no such login rule")
	}
	x.key = rules[at].ID
	return result{message: textSuccessful}, x.narrowing(x.writeSettings(revision, slices.Delete(rules, at, at+1)))
}

func (x *request) listLoginRules() (result, error) {
	_, rules, err := x.ownSettings()
	if err != nil {
		return result{}, err
	}
	return listing(rules, showRule, object{}), nil
}

// showRule is a rule for its owner.
func showRule(r record.LoginRule) []byte {
	kind := api.LoginJWT
	if r.Code != nil {
		kind = api.LoginQuote
	}
	policy := api.PolicyAll
	if r.Policy != (wire.UUID{}) {
		policy = r.Policy.String()
	}
	o := object{}.text("ruleId", r.ID.String()).text("name", r.Name).text("kind", kind).text("policy", policy).
		integer("lifetimeSeconds", int64(r.Lifetime)).integer("created", r.Created).text("by", r.By.String())
	if c := r.Code; c != nil {
		if c.MREnclave != [32]byte{} {
			return o.text("mrEnclave", hex.EncodeToString(c.MREnclave[:])).end()
		}
		return o.text("mrSigner", hex.EncodeToString(c.MRSigner[:])).integer("isvProdId", int64(c.Product)).integer("minIsvSvn", int64(c.MinSVN)).end()
	}
	e := r.Issuer
	o = o.text("issuer", e.Issuer).text("audience", e.Audience).text("subject", e.Subject)
	claims, keys := map[string]string{}, map[string]string{}
	for _, c := range e.Claims {
		claims[c.Name] = c.Value
	}
	for _, k := range e.Keys {
		keys[k.ID] = k.Algorithm.String()
	}
	return o.texts("claims", claims).texts("keys", keys).end()
}

// texts adds an object of texts, in the order of their names.
func (o object) texts(name string, values map[string]string) object {
	inner := object{}
	for _, k := range slices.Sorted(maps.Keys(values)) {
		if len(inner) == 0 {
			inner = append(inner, '{')
		} else {
			inner = append(inner, ',')
		}
		inner = appendJSON(append(appendJSON(inner, k), ':'), values[k])
	}
	return append(o.key(name), inner.end()...)
}
