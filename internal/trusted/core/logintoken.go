package core

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"slices"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// A workload that has logged in holds a token that says so, with its public key in
// it. No record is made: the core of any node of the domain checks the MAC, and that
// the tenant's settings still hold the rule that the login was by.

const loginIDLabel = "ehsm/login-credential/v1\x00"

// loginID is the id of the credential that a public key has at a tenant. It does not
// depend on the login: a request of one login is a replay under another one of the same
// key.
func loginID(tenant wire.UUID, key []byte) (id wire.UUID) {
	sum := sha256.Sum256(slices.Concat([]byte(loginIDLabel), tenant[:], key))
	copy(id[:], sum[:])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}

// newLoginToken makes the token of a login by a rule of settings.
func (x *request) newLoginToken(ask *api.LoginAsk, rule *record.LoginRule, revision uint64) (*api.LoginToken, error) {
	t := &api.LoginToken{
		DomainKey: x.core.keys.Current(), Tenant: ask.Tenant, Rule: rule.ID, Revision: revision,
		Expires: x.millis() + 1000*int64(rule.Lifetime), Kind: ask.Kind, PublicKey: ask.PublicKey,
	}
	t.Credential = loginID(ask.Tenant, api.LoginKey(ask.Kind, ask.PublicKey))
	var err error
	t.MAC, err = x.core.loginMAC(t)
	return t, err
}

// loginMAC is HMAC-SHA-256 over the domain and what the token says, under the purpose
// key of the DomainKey version that it names.
func (c *Core) loginMAC(t *api.LoginToken) (mac [sha256.Size]byte, err error) {
	c.keys.Hold()
	defer c.keys.Release()
	k, err := c.keys.Key(domainkey.LoginToken, t.DomainKey)
	if err != nil {
		return mac, err
	}
	domain := c.keys.Domain()
	secret.Do(func() {
		m := hmac.New(sha256.New, k.Expose())
		m.Write(domain[:])
		m.Write(t.Head())
		m.Sum(mac[:0])
	})
	return mac, nil
}

// loggedIn returns the credential of a token, nil if it is of no use: not genuine, of
// another tenant, at its end, or of a rule that does not hold any more.
func (x *request) loggedIn(tenant wire.UUID, app *openApp, text string) (*openCredential, error) {
	t, err := api.ParseLoginToken(text)
	if err != nil {
		return nil, nil
	}
	// Tokens of older versions that are not held have ended; strangers must not have
	// those fetched.
	if t.DomainKey == x.core.terms.Load().settings.DomainKeyVersion() {
		if need := x.core.lacks(t.DomainKey); need != nil {
			return nil, need
		}
	}
	want, err := x.core.loginMAC(t)
	if err != nil || !hmac.Equal(t.MAC[:], want[:]) { // check: login-mac
		return nil, nil
	}
	if t.Tenant != tenant { // check: login-tenant
		return nil, nil
	}
	if x.millis() >= t.Expires { // check: login-expired
		return nil, nil
	}
	// Who had that version can make tokens.
	if t.DomainKey <= x.core.terms.Load().settings.DomainKey.LastCompromised() && t.DomainKey < x.core.keys.Current() { // check: login-compromised
		return nil, nil
	}
	// A request of a key pair would be another one under this credential.
	if slices.ContainsFunc(app.Credentials, func(c record.Credential) bool { return bytes.Equal(c.PublicKey, t.PublicKey) }) { // check: login-key-twice
		return nil, nil
	}
	rule, err := x.ruleBehind(t)
	if err != nil || rule == nil {
		return nil, err
	}
	c := record.Credential{
		ID: t.Credential, Kind: credentialKinds()[string(t.Kind)], Role: record.User, RequireAction: true, Expires: t.Expires,
		Policy: rule.Policy, Description: rule.Name, PublicKey: t.PublicKey,
	}
	open := &openCredential{Credential: c, login: true}
	if open.public, err = newPublicKey(&c); err != nil {
		return nil, nil
	}
	return open, nil
}

// ruleBehind returns the rule that a token was made by, nil if it is there no more. The
// token has seen the settings at a revision, and older ones say nothing about it.
func (x *request) ruleBehind(t *api.LoginToken) (*record.LoginRule, error) {
	s, err := x.loadSettings(t.Tenant)
	if err != nil {
		return nil, err
	}
	if s == nil || s.revision < t.Revision { // check: login-revision
		if !x.call.Fresh {
			return nil, x.need(settingsRecord(t.Tenant))
		}
		return nil, nil
	}
	at := slices.IndexFunc(s.value.Rules, func(r record.LoginRule) bool { return r.ID == t.Rule })
	if at < 0 { // check: login-rule
		return nil, nil
	}
	return &s.value.Rules[at], nil
}
