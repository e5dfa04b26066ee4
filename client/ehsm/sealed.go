package ehsm

import (
	"context"
	"crypto/hpke"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/api/sealed"
)

// ErrSealed says that the service cannot be called sealed: it was not verified, or
// does not have the key that it was verified with. Nothing was sent in clear.
var ErrSealed = errors.New("no sealed request possible")

// A SealingKey is the HPKE key of a core instance that was verified.
type SealingKey struct {
	Domain    [32]byte // id of its domain
	PublicKey []byte   // MLKEM768-X25519, 1216 bytes
}

const (
	// keyAge is how long a verified key is used: as long as an instance has it, and
	// no longer, so that what has been revoked meanwhile is found out.
	keyAge = 24 * time.Hour
	// contextAge is how long one encapsulated key is used.
	contextAge = 10 * time.Minute
	maxKeys    = 16 // instances whose keys are remembered
	sealTries  = 4  // keys that a request is sealed to, one after the other
)

// Sealed returns a client whose signed requests only the verified core reads, and
// whose replies it alone has made: the host on the way sees who calls which action on
// which record, and lengths in steps. Connections and credentials are those of c.
//
// Verify is called before the first request, with a client in clear, and again once
// a day or when the service has another key; it must not return a key that evidence
// over a fresh challenge does not bind. Package attested has one (Verifier.Sealed).
// Its errors come back wrapped in ErrSealed, and then no request is sent.
//
// Enroll, Version and Evidence are not sealed, and what Sign returns is not either. A
// refusal that came sealed is the core's, whether it knew the caller or not.
func (c *Client) Sealed(verify func(ctx context.Context, plain *Client) (SealingKey, error)) *Client {
	other := *c
	other.sealer = &sealer{verify: verify, turn: make(chan struct{}, 1)}
	return &other
}

// Plain returns a client that does not seal.
func (c *Client) Plain() *Client {
	other := *c
	other.sealer = nil
	return &other
}

// A sealer has the keys of a service's instances. All fields below turn belong to who
// has an entry in it.
type sealer struct {
	verify func(context.Context, *Client) (SealingKey, error)
	turn   chan struct{}

	keys    []*sealingKey // verified ones, oldest first
	current *sealingKey
}

type sealingKey struct {
	SealingKey
	id       string
	verified time.Time
	context  *sealingContext // nil: none yet
}

// A sealingContext is one encapsulation. It is not changed.
type sealingContext struct {
	keyID        string
	made         time.Time
	encapsulated [sealed.EncapsulatedSize]byte
	secret       sealed.Secret
}

// use returns what to seal with. Failed is the id of a key that the service does not
// have, "" if none was tried; hint is the one that it says it has, which counts only
// if it was verified.
func (s *sealer) use(ctx context.Context, c *Client, failed, hint string) (*sealingContext, error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.turn }()
	now := c.now()
	key := s.choose(now, failed, hint)
	if key == nil {
		var err error
		if key, err = s.ask(ctx, c, failed); err != nil {
			return nil, err
		}
	}
	s.current = key
	if key.context == nil || now.Sub(key.context.made) >= contextAge {
		made, err := encapsulate(key)
		if err != nil {
			return nil, err
		}
		made.made, key.context = now, made
	}
	return key.context, nil
}

// choose returns a key that was verified, nil if there is none of use.
func (s *sealer) choose(now time.Time, failed, hint string) *sealingKey {
	if failed == "" && s.current != nil {
		hint = s.current.id
	}
	for _, k := range s.keys {
		if k.id == hint && k.id != failed && now.Sub(k.verified) < keyAge {
			return k
		}
	}
	return nil
}

// ask verifies the service anew.
func (s *sealer) ask(ctx context.Context, c *Client, failed string) (*sealingKey, error) {
	verified, err := s.verify(ctx, c.Plain())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSealed, err)
	}
	key := &sealingKey{SealingKey: verified, id: sealed.KeyID(verified.PublicKey), verified: c.now()}
	if key.id == failed {
		return nil, fmt.Errorf("%w: the service says that it does not have the key which its evidence binds", ErrSealed)
	}
	kept := make([]*sealingKey, 0, maxKeys)
	for _, k := range s.keys[max(0, len(s.keys)-(maxKeys-1)):] {
		if k.id != key.id {
			kept = append(kept, k)
		}
	}
	s.keys = append(kept, key)
	return key, nil
}

func encapsulate(k *sealingKey) (*sealingContext, error) {
	public, err := hpke.MLKEM768X25519().NewPublicKey(k.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("%w: read HPKE key: %w", ErrSealed, err)
	}
	encapsulated, sender, err := hpke.NewSender(public, hpke.HKDFSHA256(), hpke.ExportOnly(), sealed.Info(k.Domain))
	if err != nil {
		return nil, fmt.Errorf("%w: encapsulate: %w", ErrSealed, err)
	}
	exported, err := sender.Export(sealed.ExportLabel, sealed.SecretSize)
	if err != nil {
		return nil, fmt.Errorf("%w: export: %w", ErrSealed, err)
	}
	defer clear(exported)
	if len(encapsulated) != sealed.EncapsulatedSize {
		return nil, fmt.Errorf("%w: encapsulated key of %d bytes", ErrSealed, len(encapsulated))
	}
	return &sealingContext{
		keyID: k.id, encapsulated: [sealed.EncapsulatedSize]byte(encapsulated),
		secret: sealed.NewSecret([sealed.SecretSize]byte(exported)),
	}, nil
}

// A delivery is what came back for a signed request.
type delivery struct {
	body      []byte
	signature string // "" if there is none
	byCore    bool   // the core has sealed it
}

// deliver sends the body of a signed request, sealed if the client is.
func (c *Client) deliver(ctx context.Context, action string, request []byte) (d delivery, err error) {
	if c.sealer == nil {
		d.body, d.signature, err = c.exchange(ctx, http.MethodPost, action, request)
		return d, err
	}
	failed, hint := "", ""
	for n := 1; ; n++ {
		with, err := c.sealer.use(ctx, c, failed, hint)
		if err != nil {
			return d, err
		}
		if d, err = c.deliverSealed(ctx, action, request, with); err != nil {
			return d, err
		}
		switch unknown, known := unknownKey(d); {
		case unknown && n < sealTries:
			// The same signed request once more: it is served at most once.
			failed, hint = with.keyID, known
		case n > 1 && d.byCore && refused(refusal(d.body, false), api.MessageReplay):
			// It was served before, by who said that it has no such key.
			return d, connError{refusal(d.body, false), true}
		default:
			return d, nil
		}
	}
}

// unknownKey reports whether the service does not have the key that was sealed to,
// and which it has. Nobody vouches for it.
func unknownKey(d delivery) (unknown bool, known string) {
	if d.byCore || !refused(refusal(d.body, true), api.MessageSealedKey) {
		return false, ""
	}
	var reply struct {
		Result map[string]string `json:"result"`
	}
	if json.Unmarshal(d.body, &reply) != nil {
		return true, ""
	}
	return true, reply.Result[sealed.KeyMember]
}

// deliverSealed seals, sends and opens once. What the core has not sealed comes back
// only if it is a refusal.
func (c *Client) deliverSealed(ctx context.Context, action string, request []byte, with *sealingContext) (d delivery, err error) {
	tree, err := canon.Parse(request)
	if err != nil {
		return d, fmt.Errorf("read request: %w", err)
	}
	o, err := sealed.NewOuter(action, with.keyID, tree)
	if err != nil {
		return d, fmt.Errorf("%w: %w", ErrSealed, err)
	}
	var nonce [sealed.NonceSize]byte
	rand.Read(nonce[:]) // never fails
	message, err := with.secret.SealRequest(&with.encapsulated, nonce, o, request)
	if err != nil {
		return d, fmt.Errorf("%w: %w", ErrSealed, err)
	}
	body, _, err := c.exchange(ctx, http.MethodPost, action, o.AppendBody(nil, message))
	if err != nil {
		return d, err
	}
	answer := sealed.ParseReply(body)
	if answer == nil {
		if err := refusal(body, true); err == nil {
			return d, fmt.Errorf("%w: it came in clear", ErrReplySignature)
		}
		return delivery{body: body}, nil
	}
	reply, err := with.secret.OpenReply(message, answer)
	if err != nil {
		return d, fmt.Errorf("%w: %w", ErrReplySignature, err)
	}
	return delivery{body: reply.Body, signature: reply.Sign, byCore: true}, nil
}
