package core

import (
	"crypto/hpke"
	"crypto/subtle"
	"errors"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// An enrollment is the request of a client for an app, decrypted.
type enrollment struct {
	ask    *api.EnrollAsk
	client hpke.PublicKey // of ask
	secret []byte         // that only the client shares, for the reply
	tenant wire.UUID      // of the app: each request has one, and no other request has it
}

// errEnroll is the one refusal of an enrollment.
func errEnroll(reason string) *refusal { return bad(textEnroll, reason) }

// enrollFinish makes an app for who has a token, after he has verified this
// instance by GetEvidence. Token and API key are encrypted on their way, so the app
// is not marked exposed. The same request once more has the same reply, as long as
// nobody has changed the app: it may have been lost.
func (x *request) enrollFinish() (result, error) {
	x.action = &action{name: api.EnrollFinish, storage: textEnroll}
	e, err := x.openEnrollment()
	if err != nil {
		return result{}, err
	}
	id := wire.UUID(e.ask.Token[:])
	if err := x.require(appID(e.tenant), tokenRecord(id)); err != nil {
		return result{}, err
	}
	done, err := x.loadApp(e.tenant)
	if err != nil {
		return result{}, err
	}
	if done != nil {
		return x.enrolled(e, done)
	}
	t, err := x.loadToken(id)
	if err != nil {
		return result{}, err
	}
	x.key = id
	if err := x.spendToken(e, id, t); err != nil {
		return result{}, err
	}
	apiKey, err := x.newTenant(e, &t.value)
	if err != nil {
		return result{}, err
	}
	return x.grant(e, apiKey)
}

// openEnrollment decrypts the request. It is for this instance, or the client has
// to start again.
func (x *request) openEnrollment() (*enrollment, error) {
	v, err := canon.Parse(x.call.Body)
	if err != nil {
		return nil, errJSON()
	}
	members := []member{keyIDMember("instanceId"), base64Member("enc", 2048), base64Member("ciphertext", 4096)}
	if x.payload, err = validate(v, members, true); err != nil {
		return nil, err
	}
	if own := x.core.info.Instance.String(); x.payload.text("instanceId") != own { // check: enroll-instance
		return nil, refuse(api.CodeMisdirected, api.MessageMisdirectedBefore+own, "other instance")
	}
	var e *enrollment
	secret.Do(func() { e, err = x.decryptEnrollment() })
	if err != nil { // check: enroll-decrypts
		return nil, errEnroll("enrollment does not open")
	}
	return e, nil
}

var errEnrollKey = errors.New("key of an enrollment")

func (x *request) decryptEnrollment() (*enrollment, error) {
	kem, domain, instance := hpke.MLKEM768X25519(), x.core.keys.Domain(), x.core.info.Instance
	private := x.core.instance.copyOf(x.instanceKey())
	defer clear(private)
	own, err := kem.NewPrivateKey(private)
	if err != nil {
		return nil, err
	}
	r, err := hpke.NewRecipient(x.payload.bytes("enc"), own, hpke.HKDFSHA256(), hpke.AES256GCM(), api.EnrollInfo(domain, instance))
	if err != nil {
		return nil, err
	}
	text, err := r.Open(nil, x.payload.bytes("ciphertext"))
	if err != nil {
		return nil, err
	}
	defer clear(text)
	e := new(enrollment)
	if e.ask, err = api.DecodeEnrollAsk(text); err != nil {
		return nil, err
	}
	if e.client, err = kem.NewPublicKey(e.ask.PublicKey[:]); err != nil {
		return nil, err
	}
	if e.secret, err = r.Export(api.EnrollReplyExport, 32); err != nil {
		return nil, err
	}
	id, err := r.Export(api.EnrollAppExport, len(e.tenant))
	if err != nil || len(id) != len(e.tenant) {
		return nil, errEnrollKey
	}
	e.tenant = wire.UUID(id)
	e.tenant[6] = e.tenant[6]&0x0f | 0x40
	e.tenant[8] = e.tenant[8]&0x3f | 0x80
	return e, nil
}

// spendToken uses the token once. The store takes the new count together with the
// app, and only in the place of the one before; the log of negative facts keeps it
// from coming back.
func (x *request) spendToken(e *enrollment, id wire.UUID, t *cached[record.Token]) error {
	got := api.EnrollTokenHash(&e.ask.Token)
	var want [len(got)]byte
	if t != nil {
		want = t.value.Hash
	}
	if subtle.ConstantTimeCompare(got[:], want[:]) != 1 { // check: token-hash
		return errEnroll("unknown token")
	}
	if !t.value.Open(x.millis()) { // check: token-open
		return errEnroll("token is revoked, used or expired")
	}
	next := t.value
	next.Used++
	return x.narrowing(x.writeToken(id, t.revision, next))
}

// newTenant adds the app of an enrollment to the writes, with its default key, and
// returns its API key.
func (x *request) newTenant(e *enrollment, t *record.Token) (secret.Bytes, error) {
	x.tenant = e.tenant
	defaultKey, err := x.newDefaultKey()
	if err != nil {
		return secret.Bytes{}, err
	}
	apiKey, now := newAPIKey(), x.millis()
	c := record.FirstCredential(now)
	c.Role, c.Description = t.Role, e.ask.Label
	a := record.App{
		State: record.Active, Name: t.Name, Created: now, Modified: now, DefaultKey: defaultKey, Credentials: []record.Credential{c},
	}
	header := record.Header{ID: appID(e.tenant), Revision: 1}
	sealed, err := record.SealApp(x.core.keys, header, a, []secret.Bytes{apiKey})
	if err != nil {
		return secret.Bytes{}, errInternal("seal app")
	}
	x.write(wire.Write{ID: header.ID, Revision: 1, Sealed: sealed})
	return apiKey, nil
}

// enrolled repeats the reply to a request that has made an app.
func (x *request) enrolled(e *enrollment, a *cached[*openApp]) (result, error) {
	x.tenant = e.tenant
	if a.revision != 1 || a.value.State != record.Active || len(a.value.apiKeys) != 1 { // check: enroll-again
		return result{}, errEnroll("enrollment was used")
	}
	return x.grant(e, a.value.apiKeys[0].text)
}

// grant is the reply, which only the client can read.
func (x *request) grant(e *enrollment, apiKey secret.Bytes) (result, error) {
	var enc, sealed []byte
	var err error
	secret.Do(func() {
		info := api.EnrollReplyInfo(x.core.keys.Domain(), x.core.info.Instance, e.secret)
		var s *hpke.Sender
		if enc, s, err = hpke.NewSender(e.client, hpke.HKDFSHA256(), hpke.AES256GCM(), info); err != nil {
			return
		}
		g := api.EnrollGrant{AppID: e.tenant, APIKey: apiKey.Expose()}
		text := g.Append(nil)
		defer clear(text)
		sealed, err = s.Seal(nil, text)
	})
	if err != nil {
		return result{}, errInternal("encrypt the reply to an enrollment")
	}
	o := object{}.text("instanceId", x.core.info.Instance.String()).base64("enc", enc).base64("ciphertext", sealed)
	return result{textSuccessful, o.end()}, nil
}
