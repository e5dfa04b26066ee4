package core

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hpke"
	"crypto/rand"
	"errors"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/internal/trusted/jwt"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// errLogin is the one refusal of a login.
func errLogin(reason string) *refusal { return bad(api.MessageLogin, reason) }

// A login is the request of a workload for a credential, decrypted.
type login struct {
	ask   *api.LoginAsk
	reply secret.Bytes // key of the reply, which only the workload has too
}

// login gives a workload a credential for a proof that a rule of the tenant accepts.
// The host sees neither; it carries the message to this instance and the reply back.
func (x *request) login() (result, error) {
	x.action = &action{name: api.Login, storage: api.MessageLogin}
	l, err := x.openLogin()
	if err != nil {
		return result{}, err
	}
	tenant := wire.UUID(l.ask.Tenant)
	if err := x.require(appID(tenant), settingsRecord(tenant)); err != nil {
		return result{}, err
	}
	app, err := x.loadApp(tenant)
	if err != nil {
		return result{}, err
	}
	if app == nil || app.value.State != record.Active { // check: login-app
		return result{}, errLogin("no such app")
	}
	s, err := x.loadSettings(tenant)
	if err != nil {
		return result{}, err
	}
	if s == nil || len(s.value.Rules) == 0 {
		return result{}, errLogin("no login rules")
	}
	rule, err := x.prove(l.ask, s.value.Rules)
	if err != nil {
		return result{}, err
	}
	x.tenant, x.app, x.key = tenant, app, rule.ID
	if err := x.spend(); err != nil {
		return result{}, err
	}
	t, err := x.newLoginToken(l.ask, rule, s.revision)
	if err != nil {
		return result{}, errInternal("make login token")
	}
	x.action.discloses = true
	return x.grantLogin(l, t)
}

// openLogin decrypts the request. It is for this instance, or the workload has to
// start again.
func (x *request) openLogin() (*login, error) {
	v, err := canon.Parse(x.call.Body)
	if err != nil {
		return nil, errJSON()
	}
	const most = (1 + 16 + 66 + 1 + api.MaxLoginJWT + 16 + 2) / 3 * 4
	members := []member{keyIDMember("instanceId"), base64Member("enc", 2048), base64Member("ciphertext", most)}
	if x.payload, err = validate(v, members, true); err != nil {
		return nil, err
	}
	if own := x.core.info.Instance.String(); x.payload.text("instanceId") != own { // check: login-instance
		return nil, refuse(api.CodeMisdirected, api.MessageMisdirectedBefore+own, "other instance")
	}
	var l *login
	secret.Do(func() { l, err = x.decryptLogin() })
	if err != nil { // check: login-decrypts
		return nil, errLogin("login does not open")
	}
	return l, nil
}

func (x *request) decryptLogin() (*login, error) {
	domain, instance := x.core.keys.Domain(), x.core.info.Instance
	private := x.core.instance.copyOf(x.instanceKey())
	defer clear(private)
	own, err := hpke.MLKEM768X25519().NewPrivateKey(private)
	if err != nil {
		return nil, err
	}
	r, err := hpke.NewRecipient(x.payload.bytes("enc"), own, hpke.HKDFSHA256(), hpke.AES256GCM(), api.LoginInfo(domain, instance))
	if err != nil {
		return nil, err
	}
	text, err := r.Open(nil, x.payload.bytes("ciphertext"))
	if err != nil {
		return nil, err
	}
	ask, err := api.DecodeLoginAsk(text)
	if err != nil {
		return nil, err
	}
	if err := record.CheckPublicKey(credentialKinds()[string(ask.Kind)], ask.PublicKey); err != nil {
		return nil, err
	}
	key, err := r.Export(api.LoginReplyExport, 32)
	return &login{ask, secret.New(key)}, err
}

// prove returns the first rule that accepts the proof.
func (x *request) prove(ask *api.LoginAsk, rules []record.LoginRule) (*record.LoginRule, error) {
	if len(ask.JWT) == 0 {
		return x.proveQuote(ask, rules)
	}
	defer clear(ask.JWT)
	t, err := jwt.Parse(string(ask.JWT))
	if err != nil {
		return nil, errLogin(refusedToken(err))
	}
	refused := jwt.ErrIssuer
	for i := range rules {
		if rules[i].Issuer == nil {
			continue
		}
		err := t.Check(rules[i].Issuer, time.UnixMicro(x.now))
		if err == nil { // check: login-jwt
			return &rules[i], nil
		}
		if !errors.Is(err, jwt.ErrIssuer) {
			refused = err
		}
	}
	return nil, errLogin(refusedToken(refused))
}

// refusedToken is the reason for the audit entry when no rule accepts a token.
func refusedToken(err error) string {
	for _, known := range []error{
		jwt.ErrAlgorithm, jwt.ErrCritical, jwt.ErrKeyID, jwt.ErrSignature, jwt.ErrIssuer, jwt.ErrAudience, jwt.ErrExpired, jwt.ErrFuture,
		jwt.ErrSubject, jwt.ErrClaim,
	} {
		if errors.Is(err, known) {
			return "JWT: " + known.Error()
		}
	}
	return "JWT: " + jwt.ErrMalformed.Error()
}

// grantLogin is the reply, which only the workload can read. One request that comes
// twice has two replies under one key, so the nonce is random.
func (x *request) grantLogin(l *login, t *api.LoginToken) (result, error) {
	var sealed []byte
	var err error
	secret.Do(func() {
		defer l.reply.Zero()
		var block cipher.Block
		if block, err = aes.NewCipher(l.reply.Expose()); err != nil {
			return
		}
		var aead cipher.AEAD
		if aead, err = cipher.NewGCM(block); err != nil {
			return
		}
		nonce := make([]byte, aead.NonceSize(), 512)
		rand.Read(nonce) // never fails
		g := api.LoginGrant{Now: x.millis(), Token: t.Text()}
		sealed = aead.Seal(nonce, nonce, g.Append(nil), nil)
	})
	if err != nil {
		return result{}, errInternal("encrypt the reply to a login")
	}
	return result{textSuccessful, object{}.text("instanceId", x.core.info.Instance.String()).base64("ciphertext", sealed).end()}, nil
}
