package core

import (
	"crypto/rand"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/api/sealed"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// sealing is what it takes to reply to a sealed request.
type sealing struct {
	key          *instanceKey
	encapsulated [sealed.EncapsulatedSize]byte
	shared       secret.Bytes
	message      []byte // of the request
}

// unseal replaces a sealed request by the signed one inside, from where on it is
// served like any other. It knows nothing yet of who has sent it: everybody can seal
// to the instance's key. A request in clear stays as it is, where the domain takes any.
func (x *request) unseal() error {
	if !sealed.Is(x.call.Body) {
		if x.core.terms.Load().settings.SealedOnly { // check: sealed-only
			return bad(api.MessageSealedOnly, "request in clear")
		}
		return nil
	}
	o, message, err := sealed.ParseBody(x.call.Action, x.call.Body)
	if err != nil {
		return errSealed()
	}
	encapsulated := sealed.Encapsulated(message)
	if encapsulated == nil {
		return errSealed()
	}
	key := x.core.instance.named(o.KeyID, x.now)
	if key == nil {
		return errSealedKey(x.instanceKey().id)
	}
	s := &sealing{key: key, encapsulated: [sealed.EncapsulatedSize]byte(encapsulated), message: message}
	if s.shared, err = x.core.instance.share(key, sealed.Info(x.core.keys.Domain()), &s.encapsulated); err != nil {
		return errSealed()
	}
	inner := *x.call // the call is the manager's
	if inner.Body, err = s.secret().OpenRequest(message, o); err != nil {
		return errSealed()
	}
	v, err := canon.Parse(inner.Body)
	if err != nil || !o.Matches(v) { // check: sealed-outer
		return errSealed()
	}
	x.call, x.sealed = &inner, s
	return nil
}

// promise reads whether the signature says that the request is sealed. Then it is one,
// made by who has signed it: the host cannot seal what it has read in clear, to have it
// taken for a sealed one.
func (x *request) promise(payload canon.Value) error {
	v := payload.Get(api.SealedMember)
	x.promised = v.Kind() != canon.Absent
	switch {
	case !x.promised && x.core.terms.Load().settings.SealedOnly: // check: sealed-only-signed
		return bad(api.MessageSealedOnly, "not signed as sealed")
	case x.promised && x.sealed == nil: // check: sealed-in-clear
		return bad(api.MessageSealed, "sealed request in clear")
	case x.promised && (v.Kind() != canon.String || v.Text() != api.SealedYes): // check: sealed-yes
		return errSealed()
	case x.promised && payload.Get(memberAction).Kind() == canon.Absent: // check: sealed-action
		return errSealed() // it would not be known as the change that it might be elsewhere
	}
	return nil
}

func (s *sealing) secret() sealed.Secret {
	return sealed.NewSecret([sealed.SecretSize]byte(s.shared.Expose()))
}

// close seals the reply and its signature for the client: the manager learns the code
// and the length in steps. After a failure there is a refusal and nothing else.
func (s *sealing) close(a *wire.Answer, authenticated bool) {
	if authenticated {
		s.key.contexts.put(&s.encapsulated, s.shared)
	}
	var nonce [sealed.NonceSize]byte
	rand.Read(nonce[:]) // never fails
	message, err := s.secret().SealReply(s.message, nonce, sealed.Reply{Sign: a.Sign, Body: a.Reply})
	clear(a.Reply)
	a.Sign = ""
	if err != nil {
		r := errInternal("seal reply")
		a.Code, a.Reply = r.code, appendEnvelope(nil, r.code, result{message: r.message})
		return
	}
	a.Reply = sealed.ReplyBody(message)
}

// errSealed is the one refusal of a sealed request that does not open, or says
// outside what it does not say inside.
func errSealed() *refusal { return bad(api.MessageSealed, "sealed request does not open") }

// errSealedKey refuses a request that is sealed to a key that this instance does not
// have, and names the one that it has.
func errSealedKey(id string) *refusal {
	r := bad(api.MessageSealedKey, "sealed to an unknown key")
	r.result = object{}.text(sealed.KeyMember, id).end()
	return r
}
