package core

import (
	"crypto/hmac"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/base64"
	"math"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// A tenant who has lost all credentials asks the custodians of the domain. They have
// keys to decrypt with, not to sign: the core makes an approval for each of them, of
// the app, its revision and its new owner, and shows it to that custodian only. It
// keeps nothing of it, as it can make the same approvals again and compare.

// rekeyActions are an administrator's, who carries messages between tenant, core and
// custodians.
func rekeyActions() []*action {
	about := []member{
		keyIDMember("appid"), {name: "kind", kind: kindName, names: []string{"ed25519", "p256"}}, base64Member("publicKey", 88),
	}
	number := func(name string, limit int) member { return member{name: name, kind: kindInteger, min: 1, max: limit} }
	return []*action{
		{name: api.PrepareRekey, run: (*request).prepareRekey, storage: "prepareRekey failed", members: append(about[:3:3],
			member{name: "seconds", kind: kindInteger, min: api.MinRekeyLifetime, max: api.MaxRekeyLifetime})},
		{name: api.RekeyApp, mutates: true, run: (*request).rekeyApp, storage: "rekeyApp failed", members: append(about[:3:3],
			number("revision", math.MaxInt), number("expires", math.MaxInt), number("domainKey", math.MaxUint32), base64sMember("approvals", 44))},
	}
}

// rekeying is what a request wants to have approved, but for its dates and numbers,
// with the app and those who decide.
func (x *request) rekeying() (*api.Rekey, *cached[*openApp], *manifest.Quorum, error) {
	custodians := x.core.terms.Load().custodians
	if custodians == nil {
		return nil, nil, nil, bad(api.MessageRekeyNobody, "no custodians")
	}
	a, err := x.tenantApp()
	if err != nil {
		return nil, nil, nil, err
	}
	r := &api.Rekey{Domain: x.core.keys.Domain(), AppID: a.id.Tenant, Kind: x.payload.text("kind"), PublicKey: x.payload.bytes("publicKey")}
	if record.CheckPublicKey(credentialKinds()[r.Kind], r.PublicKey) != nil {
		return nil, nil, nil, bad(api.MessageAdminKey, "public key")
	}
	return r, a, custodians, nil
}

// prepareRekey makes the approvals, each for its custodian only. It changes nothing.
func (x *request) prepareRekey() (result, error) {
	r, a, custodians, err := x.rekeying()
	if err != nil {
		return result{}, err
	}
	r.Revision, r.DomainKey = a.revision, x.core.keys.Current()
	r.Expires = x.millis() + 1000*int64(x.payload.integer("seconds"))
	statement := r.Statement()
	challenges := make([]api.RekeyChallenge, len(custodians.Members))
	for i, p := range custodians.Members {
		if challenges[i], err = x.core.rekeyChallenge(r, statement, p); err != nil {
			return result{}, errInternal("make an approval")
		}
	}
	return listing(challenges, func(c api.RekeyChallenge) []byte {
		return object{}.text("custodian", c.Custodian).base64("enc", c.Enc).base64("ciphertext", c.Ciphertext).end()
	}, object{}.integer("revision", int64(r.Revision)).integer("expires", r.Expires).
		integer("domainKey", int64(r.DomainKey)).integer("threshold", int64(custodians.Threshold))), nil
}

// rekeyChallenge encrypts the approval of a custodian to that custodian.
func (c *Core) rekeyChallenge(r *api.Rekey, statement []byte, p manifest.Person) (api.RekeyChallenge, error) {
	key, err := hpke.MLKEM768X25519().NewPublicKey(p.Key)
	if err != nil {
		return api.RekeyChallenge{}, err
	}
	approval, err := c.approval(r.DomainKey, statement, p)
	if err != nil {
		return api.RekeyChallenge{}, err
	}
	out := api.RekeyChallenge{Custodian: p.Name}
	secret.Do(func() {
		defer clear(approval[:])
		var s *hpke.Sender
		if out.Enc, s, err = hpke.NewSender(key, hpke.HKDFSHA256(), hpke.AES256GCM(), statement); err == nil {
			out.Ciphertext, err = s.Seal(nil, approval[:])
		}
	})
	return out, err
}

// approval is HMAC-SHA-256 over the SHA-256 of the custodian's key and the statement,
// under the purpose key of a DomainKey version.
func (c *Core) approval(version uint32, statement []byte, p manifest.Person) (mac [api.RekeyApprovalSize]byte, err error) {
	c.keys.Hold()
	defer c.keys.Release()
	k, err := c.keys.Key(domainkey.RekeyApproval, version)
	if err != nil {
		return mac, err
	}
	of := sha256.Sum256(p.Key)
	secret.Do(func() {
		m := hmac.New(sha256.New, k.Expose())
		m.Write(of[:])
		m.Write(statement)
		m.Sum(mac[:0])
	})
	return mac, nil
}

// rekeyApp gives an app one owner, in place of all credentials that it had. Who was
// suspended stays so.
func (x *request) rekeyApp() (result, error) {
	r, a, custodians, err := x.rekeying()
	if err != nil {
		return result{}, err
	}
	r.Revision, r.Expires = uint64(x.payload.integer("revision")), int64(x.payload.integer("expires"))
	r.DomainKey = uint32(x.payload.integer("domainKey"))
	if x.approvals(r, custodians) < custodians.Threshold { // check: rekey-threshold
		return result{}, bad(api.MessageRekey, "too few approvals")
	}
	if r.Revision != a.revision { // check: rekey-revision
		return result{}, bad(api.MessageRekey, "app has changed since")
	}
	if x.millis() >= r.Expires { // check: rekey-expires
		return result{}, bad(api.MessageRekey, "approvals have expired")
	}
	c := record.Credential{
		ID: wire.NewUUID(), Kind: credentialKinds()[r.Kind], Role: record.Owner, Created: x.millis(),
		Description: "given by custodians", PublicKey: r.PublicKey,
	}
	next := a.value.App
	next.Credentials = []record.Credential{c}
	return result{textSuccessful, object{}.text("credentialId", c.ID.String()).end()}, x.narrowing(x.replaceApp(a, next, nil, false))
}

// approvals counts the custodians of whom the request has the approval.
func (x *request) approvals(r *api.Rekey, custodians *manifest.Quorum) (n int) {
	statement := r.Statement()
	given := x.payload.names("approvals")
	if len(given) > len(custodians.Members) {
		return 0
	}
	for _, p := range custodians.Members {
		want, err := x.core.approval(r.DomainKey, statement, p)
		if err != nil {
			return 0 // of a DomainKey that is not held
		}
		found := false
		for _, text := range given {
			got, _ := base64.StdEncoding.DecodeString(text) // validated
			found = hmac.Equal(got, want[:]) || found
		}
		if found {
			n++
		}
	}
	return n
}
