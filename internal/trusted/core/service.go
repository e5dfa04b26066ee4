package core

import (
	"crypto/rand"

	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

func (x *request) getVersion() (result, error) {
	i := &x.core.info
	return result{textSuccess, object{}.text("version", i.Version).text("git_sha", i.GitSHA).text("platform", i.Platform).end()}, nil
}

const apiKeyLen = 32 // characters

// apiKeyAlphabet has no characters that are easily taken for others.
const apiKeyAlphabet = "0123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz"

// newAPIKey draws an API key, each character uniformly.
func newAPIKey() secret.Bytes {
	key := make([]byte, 0, apiKeyLen)
	const limit = 256 / len(apiKeyAlphabet) * len(apiKeyAlphabet)
	var random [64]byte
	for len(key) < apiKeyLen {
		rand.Read(random[:]) // never fails
		for _, r := range random {
			if int(r) < limit && len(key) < apiKeyLen {
				key = append(key, apiKeyAlphabet[int(r)%len(apiKeyAlphabet)])
			}
		}
	}
	clear(random[:])
	return secret.New(key)
}

// textEnroll is why there is no new tenant, whatever the cause.
const textEnroll = "enroll user info failed"

// enroll makes a tenant with a default key. Its API key passes the host in the clear, so the app
// is marked exposed, and only a domain that says so enrolls in this way.
func (x *request) enroll() (result, error) {
	x.action = &action{name: "Enroll", storage: textEnroll}
	if x.core.terms.Load().settings.Mode != manifest.Development { // check: production-enrollment
		return result{}, bad(textEnroll, "plain enrollment in production mode")
	}
	if x.core.terms.Load().settings.Enrollment != manifest.EnrollmentOpen { // check: open-enrollment
		return result{}, bad(textEnroll, "open enrollment is off")
	}
	tenant, apiKey, now := wire.NewUUID(), newAPIKey(), x.millis()
	x.tenant = tenant
	defaultKey, err := x.newDefaultKey()
	if err != nil {
		return result{}, err
	}
	a := record.App{
		State: record.Active, Exposed: true, Created: now, Modified: now, DefaultKey: defaultKey,
		Credentials: []record.Credential{record.FirstCredential(now)},
	}
	sealed, err := record.SealApp(x.core.keys, record.Header{ID: appID(tenant), Revision: 1}, a, []secret.Bytes{apiKey})
	if err != nil {
		return result{}, errInternal("seal app")
	}
	x.write(wire.Write{ID: appID(tenant), Revision: 1, Sealed: sealed})
	o := object{}.text("appid", tenant.String()).text("apikey", string(apiKey.Expose()))
	return result{textSuccessful, o.end()}, nil
}

// newDefaultKey adds the key for secrets that name no other to the writes. Its id
// is not told to anybody.
func (x *request) newDefaultKey() (wire.UUID, error) {
	id, now := wire.NewUUID(), x.millis()
	k := record.Key{
		Spec: primitive.AESGCM256, Usage: record.EncryptDecrypt, Origin: record.Internal, State: record.Active,
		Default: true, Created: now, Modified: now,
	}
	if err := x.firstVersion(id, &k); err != nil {
		return id, err
	}
	return id, x.writeKey(wire.RecordID{Type: wire.Key, Tenant: x.tenant, ID: id}, 0, k)
}
