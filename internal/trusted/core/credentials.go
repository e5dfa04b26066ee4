package core

import (
	"encoding/base64"
	"math"
	"slices"
	"strings"

	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// maxOverlap is for how long an API key may stay beside its successor, in seconds.
const maxOverlap = 30 * 24 * 3600

const textNoCredential = "not find this credential"

// credentialKinds and roles are the names on the wire.
func credentialKinds() map[string]record.CredentialKind {
	return map[string]record.CredentialKind{"api-key": record.APIKey, "ed25519": record.Ed25519, "p256": record.P256}
}

func roles() map[string]record.Role {
	return map[string]record.Role{"owner": record.Owner, "user": record.User}
}

// nameOf is the name that a table has for a value.
func nameOf[V comparable](table map[string]V, v V) string {
	for name, value := range table {
		if value == v {
			return name
		}
	}
	return ""
}

// credentialActions are about who may sign for the tenant.
func credentialActions() []*action {
	id := keyIDMember("credentialId")
	expires := member{name: "expires", kind: kindInteger, max: math.MaxInt, optional: true}
	return []*action{
		{name: "CreateCredential", mutates: true, named: true, owner: true, run: (*request).createCredential, storage: "create credential failed", members: []member{
			{name: "kind", kind: kindName, names: []string{"api-key", "ed25519", "p256"}},
			{name: "role", kind: kindName, names: []string{"owner", "user"}},
			base64Member("publicKey", 88).opt(),
			{name: "description", kind: kindText, min: 1, max: record.MaxText, optional: true},
			expires, {name: "requireAction", kind: kindBool, optional: true}, keyIDMember("policyId").opt()}},
		{name: "ListCredentials", named: true, owner: true, run: (*request).listCredentials},
		{name: "RevokeCredential", mutates: true, named: true, owner: true, run: (*request).revokeCredential, storage: "revoke credential failed", members: []member{id}},
		{name: "RotateAPIKey", mutates: true, named: true, run: (*request).rotateAPIKey, storage: "rotate API key failed", members: []member{
			id.opt(), {name: "overlapSeconds", kind: kindInteger, max: maxOverlap, optional: true}}},
	}
}

// inForce are the app's credentials that have not ended, with the texts of the API
// keys among them.
func (x *request) inForce() (all []record.Credential, texts []secret.Bytes) {
	for _, c := range x.app.value.credentials {
		if c.Ended(x.millis()) {
			continue // it is refused already, and leaves the record with the next change
		}
		all = append(all, c.Credential)
		if c.Kind == record.APIKey {
			texts = append(texts, c.text)
		}
	}
	return all, texts
}

// writeCredentials adds the app record with other credentials to the writes.
func (x *request) writeCredentials(all []record.Credential, texts []secret.Bytes) error {
	if len(all) > record.MaxCredentials || len(texts) > record.MaxAPIKeys {
		return bad("too many credentials", "too many credentials")
	}
	next := x.app.value.App
	next.Credentials = all
	next.Exposed = next.Exposed || x.exposes
	return x.writeApp(next, texts, false)
}

func (x *request) createCredential() (result, error) {
	c := record.Credential{
		ID: wire.NewUUID(), Kind: credentialKinds()[x.payload.text("kind")], Role: roles()[x.payload.text("role")],
		RequireAction: x.payload.get("requireAction").Bool(), Created: x.millis(), Expires: int64(x.payload.integer("expires")),
		Description: x.payload.text("description"),
	}
	if strings.ContainsFunc(c.Description, func(r rune) bool { return r < ' ' || r > '~' }) {
		return result{}, bad("Parameter invalid, The description format wrong.", "invalid member")
	}
	if c.Expires != 0 && c.Expires <= c.Created {
		return result{}, bad("Parameter invalid, The expires value must be later than now.", "invalid member")
	}
	if err := x.choosePolicy(&c); err != nil {
		return result{}, err
	}
	all, texts := x.inForce()
	o := object{}.text("credentialId", c.ID.String())
	if c.Kind == record.APIKey {
		apiKey := x.handOut()
		texts = append(texts, apiKey)
		o = o.text("apikey", string(apiKey.Expose()))
	} else if err := x.newPublicKey(&c, all); err != nil {
		return result{}, err
	}
	if x.payload.text("publicKey") != "" && c.Kind == record.APIKey {
		return result{}, bad("Parameter invalid, The publicKey type is incorrect.", "invalid member")
	}
	x.key = c.ID
	return result{textSuccessful, o.end()}, x.writeCredentials(append(all, c), texts)
}

// handOut draws an API key that the reply carries. The host sees it there, and the app is
// marked as exposed, unless the signature says that the request is sealed: one that came in
// clear the host could have sealed itself.
func (x *request) handOut() secret.Bytes {
	if !x.promised { // check: exposed
		x.exposes = true
	}
	return newAPIKey()
}

// newPublicKey takes the public key of the request, which no other credential has.
func (x *request) newPublicKey(c *record.Credential, others []record.Credential) error {
	if c.PublicKey = x.payload.bytes("publicKey"); c.PublicKey == nil {
		return errEmpty("publicKey")
	}
	if record.CheckPublicKey(c.Kind, c.PublicKey) != nil {
		return bad("Parameter invalid, The publicKey format wrong.", "invalid member")
	}
	for i := range others {
		if string(others[i].PublicKey) == string(c.PublicKey) {
			return bad("another credential has this publicKey", "public key twice")
		}
	}
	return nil
}

func (x *request) listCredentials() (result, error) {
	list := []byte{'['}
	for i, c := range x.app.value.credentials {
		if i > 0 {
			list = append(list, ',')
		}
		o := object{}.text("credentialId", c.ID.String()).text("kind", nameOf(credentialKinds(), c.Kind)).text("role", nameOf(roles(), c.Role)).
			text("description", c.Description).integer("created", c.Created).integer("expires", c.Expires).integer("ends", c.Ends).
			integer("lastUsed", x.core.uses.last(x.tenant, c.ID)).boolean("requireAction", c.RequireAction).text("policyId", policyText(c.Policy)).
			text("publicKey", base64.StdEncoding.EncodeToString(c.PublicKey))
		list = append(list, o.end()...)
	}
	o := object{}.key("credentials")
	o = append(append(o, list...), ']')
	return result{textSuccessful, o.text("instanceId", x.core.info.Instance.String()).integer("usedSince", x.core.started).end()}, nil
}

// policyText is empty for the policy that allows everything.
func policyText(id wire.UUID) string {
	if id == (wire.UUID{}) {
		return ""
	}
	return id.String()
}

// revokeCredential removes a credential, also one that has ended.
func (x *request) revokeCredential() (result, error) {
	id, err := wire.ParseUUID(x.payload.text("credentialId"))
	x.key = id
	i := slices.IndexFunc(x.app.value.Credentials, func(c record.Credential) bool { return c.ID == id })
	if err != nil || i < 0 {
		return result{}, bad(textNoCredential, "no such credential")
	}
	all, texts := x.inForce()
	if at := slices.IndexFunc(all, func(c record.Credential) bool { return c.ID == id }); at >= 0 {
		all, texts = without(all, texts, at)
	}
	// Nobody else can let the owner in again.
	if !slices.ContainsFunc(all, lasts) { // check: last-owner
		return result{}, bad("the last owner credential cannot be revoked", "last owner credential")
	}
	return result{message: textSuccessful}, x.narrowing(x.writeCredentials(all, texts))
}

// without removes a credential, and its text if it is an API key.
func without(all []record.Credential, texts []secret.Bytes, at int) ([]record.Credential, []secret.Bytes) {
	if all[at].Kind == record.APIKey {
		before := 0
		for i := range all[:at] {
			if all[i].Kind == record.APIKey {
				before++
			}
		}
		texts = slices.Delete(texts, before, before+1)
	}
	return slices.Delete(all, at, at+1), texts
}

// lasts reports whether a credential is an owner's and no other takes its place.
func lasts(c record.Credential) bool { return c.Role == record.Owner && c.Ends == 0 }

// rotateAPIKey makes the successor of an API key, with all that the key has but its
// text, id and date. The key ends after the overlap. Everybody may rotate his own.
func (x *request) rotateAPIKey() (result, error) {
	old, err := x.toRotate()
	if err != nil {
		return result{}, err
	}
	overlap := int64(x.payload.integer("overlapSeconds")) * 1000
	end := x.millis() + overlap
	next := old.Credential
	next.ID, next.Created, next.Ends = wire.NewUUID(), x.millis(), 0
	apiKey := x.handOut()
	x.key = next.ID
	all, texts := x.inForce()
	at := slices.IndexFunc(all, func(c record.Credential) bool { return c.ID == old.ID })
	if all[at].Ends == 0 || end < all[at].Ends { // check: overlap-shrinks
		all[at].Ends = end
	}
	all, texts = append(all, next), append(texts, apiKey)
	end = all[at].Ends
	if overlap == 0 {
		all, texts = without(all, texts, at)
	}
	o := object{}.text("credentialId", next.ID.String()).text("apikey", string(apiKey.Expose())).integer("overlapEnds", end)
	return result{textSuccessful, o.end()}, x.narrowing(x.writeCredentials(all, texts))
}

// toRotate is the API key that the request names, or that has signed it.
func (x *request) toRotate() (*openCredential, error) {
	text := x.payload.text("credentialId")
	if text == "" {
		if x.credential.Kind != record.APIKey {
			return nil, errEmpty("credentialId")
		}
		return x.credential, nil
	}
	if x.credential.Role != record.Owner && text != x.credential.ID.String() { // check: rotate-other
		return nil, bad(textSignError, "not the owner")
	}
	for _, c := range x.app.value.apiKeys {
		if c.ID.String() == text && !c.Ended(x.millis()) {
			return c, nil
		}
	}
	return nil, bad(textNoCredential, "no such credential")
}
