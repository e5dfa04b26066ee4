package core

import (
	"cmp"
	"encoding/hex"
	"slices"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// tokenActions are about who may enroll.
func tokenActions() []*action {
	id := keyIDMember("tokenid")
	name := member{name: "name", kind: kindText, min: 1, max: api.MaxName, optional: true}
	return []*action{
		{name: api.CreateToken, mutates: true, run: (*request).createToken, storage: "createToken failed", members: []member{
			id, hashMember("hash"), name, {name: "role", kind: kindName, names: []string{api.RoleOwner, api.RoleUser}},
			{name: "uses", kind: kindInteger, min: 1, max: record.MaxTokenUses},
			{name: "seconds", kind: kindInteger, min: api.MinTokenLifetime, max: api.MaxTokenLifetime},
		}},
		{name: api.ListTokens, run: (*request).listTokens, storage: "listTokens failed"},
		{name: api.RevokeToken, mutates: true, run: (*request).revokeToken, storage: "revokeToken failed", members: []member{id}},
	}
}

func tokenRecord(id wire.UUID) wire.RecordID { return wire.RecordID{Type: wire.Token, ID: id} }

// loadToken returns an enrollment token, nil if there is none.
func (x *request) loadToken(id wire.UUID) (*cached[record.Token], error) {
	return load(x, x.core.tokens, tokenRecord(id), x.core.openToken)
}

func (c *Core) openToken(h record.Header, sealed []byte) (record.Token, error) {
	return record.OpenToken(c.keys, h, sealed)
}

// writeToken adds a token to the writes. revision is the one it replaces, 0 for a
// new one. Revoked ones are listed no more.
func (x *request) writeToken(id wire.UUID, revision uint64, t record.Token) error {
	name := tokenRecord(id)
	sealed, err := record.SealToken(x.core.keys, record.Header{ID: name, Revision: revision + 1}, t)
	if err != nil {
		return errInternal("seal token")
	}
	w := wire.Write{ID: name, Expected: revision, Revision: revision + 1, Hidden: t.Revoked, Sealed: sealed}
	x.write(w)
	x.onStored = append(x.onStored, func() { x.core.tokens.put(name, w.Revision, w.Tag(), t) })
	return nil
}

// createToken keeps the hash of a token that an administrator has drawn. Its text
// does not come here before it is used.
func (x *request) createToken() (result, error) {
	id, err := wire.ParseUUID(x.payload.text("tokenid"))
	if err != nil {
		return result{}, bad("Parameter invalid, The tokenid format wrong.", "invalid member")
	}
	x.key = id
	name := x.payload.text("name")
	if !printable(name) {
		return result{}, bad("Parameter invalid, The name format wrong.", "invalid member")
	}
	old, err := x.loadToken(id)
	if err != nil {
		return result{}, err
	}
	if old != nil { // check: token-exists
		return result{}, bad(api.MessageTokenExists, "token exists")
	}
	now := x.millis()
	t := record.Token{
		Name: name, Role: roles()[x.payload.text("role")], Uses: uint32(x.payload.integer("uses")),
		Created: now, Expires: now + 1000*int64(x.payload.integer("seconds")), By: x.credential.ID,
	}
	hex.Decode(t.Hash[:], []byte(x.payload.text("hash"))) // validated
	return result{message: textSuccessful}, x.writeToken(id, 0, t)
}

// revokeToken ends a token for good, also one that is used up or has expired.
func (x *request) revokeToken() (result, error) {
	id, err := wire.ParseUUID(x.payload.text("tokenid"))
	if err != nil {
		return result{}, bad(api.MessageTokenUnknown, "no such token")
	}
	x.key = id
	t, err := x.loadToken(id)
	if err != nil {
		return result{}, err
	}
	if t == nil {
		return result{}, bad(api.MessageTokenUnknown, "no such token")
	}
	next := t.value
	next.Revoked = true
	return result{message: textSuccessful}, x.narrowing(x.writeToken(id, t.revision, next))
}

// listTokens lists the tokens that were not revoked, oldest first. The host answers
// the query and can leave tokens out.
func (x *request) listTokens() (result, error) {
	x.query = &wire.Query{Type: wire.Token, Limit: wire.MaxSecrets}
	if !x.call.Listed {
		return result{}, &needError{list: x.query}
	}
	var tokens []*cached[record.Token]
	err := eachListed(x, x.core.tokens, x.core.openToken, func(t *cached[record.Token]) error {
		if !t.value.Revoked {
			tokens = append(tokens, t)
		}
		return nil
	})
	if err != nil {
		return result{}, err
	}
	slices.SortFunc(tokens, func(a, b *cached[record.Token]) int {
		return cmp.Or(cmp.Compare(a.value.Created, b.value.Created), cmp.Compare(a.id.ID.String(), b.id.ID.String()))
	})
	return listing(tokens, func(t *cached[record.Token]) []byte {
		v := &t.value
		return object{}.text("tokenid", t.id.ID.String()).text("name", v.Name).text("role", nameOf(roles(), v.Role)).
			integer("uses", int64(v.Uses)).integer("used", int64(v.Used)).
			integer("createTime", v.Created).integer("expireTime", v.Expires).text("by", v.By.String()).end()
	}, object{}), nil
}

// listing is a result with a list.
func listing[T any](items []T, item func(T) []byte, more object) result {
	o := more.key("list")
	o = append(o, '[')
	for i, v := range items {
		if i > 0 {
			o = append(o, ',')
		}
		o = append(o, item(v)...)
	}
	return result{textSuccessful, append(o, ']').end()}
}

// printable reports whether a text can be shown as it is.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
