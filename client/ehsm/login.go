package ehsm

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/ehsm-kms/ehsm/api"
)

// A Session is the credential of a workload that has logged in, docs/login.md.
type Session struct {
	Token  string        // as the core has made it
	Signer crypto.Signer // of the public key in it: Ed25519, or ECDSA on P-256

	// Renew is when to log in again, before Ends. Both are of the client's clock.
	Renew, Ends time.Time
}

// WithLogin returns a client that logs in when it has to sign a request, and again
// before its credential ends or when the service does not take it any more. It shares
// the connections of c. ReplyKey is as for a KeyPair. Package attested has what makes
// a Session (Verifier.Login). One goroutine at a time logs in, and others wait.
func (c *Client) WithLogin(appID string, replyKey func(ctx context.Context, instance string) (ed25519.PublicKey, error), login func(ctx context.Context) (Session, error)) (*Client, error) {
	if appID == "" || replyKey == nil || login == nil {
		return nil, ErrNoCredentials
	}
	other := *c
	other.appID, other.apiKey, other.pair = appID, APIKey{}, nil
	other.session = &session{replyKey: replyKey, login: login, turn: make(chan struct{}, 1)}
	return &other, nil
}

// A session has the credential in force. What is below turn belongs to who has an
// entry in it.
type session struct {
	replyKey func(context.Context, string) (ed25519.PublicKey, error)
	login    func(context.Context) (Session, error)
	turn     chan struct{}

	pair        *keyPair
	renew, ends time.Time
}

// use returns the key pair to sign with. Refused is the one that the service does not
// take, nil if none was tried. A renewal that fails is tried again with the next
// request, as long as the credential is in force.
func (s *session) use(ctx context.Context, now time.Time, refused *keyPair) (*keyPair, error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.turn }()
	usable := s.pair != nil && s.pair != refused && now.Before(s.ends)
	if usable && now.Before(s.renew) {
		return s.pair, nil
	}
	made, err := s.login(ctx)
	if err == nil {
		err = s.take(made)
	}
	if err != nil && !usable {
		return nil, fmt.Errorf("log in: %w", err)
	}
	return s.pair, nil
}

// take puts a session into force.
func (s *session) take(made Session) error {
	t, err := api.ParseLoginToken(made.Token)
	if err != nil {
		return err
	}
	if made.Signer == nil {
		return errors.New("session without Signer")
	}
	if _, _, err := encodePublicKey(made.Signer.Public()); err != nil {
		return err
	}
	s.pair = &keyPair{KeyPair{ID: made.Token, Signer: made.Signer, ReplyKey: s.replyKey}, t.Credential}
	s.renew, s.ends = made.Renew, made.Ends
	return nil
}

// attemptLoggedIn is attempt with the credential of the session. A request that is
// refused for its signature had no effect, and is signed once more by a new one.
func (c *Client) attemptLoggedIn(ctx context.Context, action string, payload []byte) ([]byte, error) {
	var tried *keyPair
	for {
		pair, err := c.session.use(ctx, c.now(), tried)
		if err != nil {
			return nil, err
		}
		signer := *c
		signer.pair, signer.session = pair, nil
		body, err := signer.attempt(ctx, action, payload)
		if tried != nil || !refused(err, api.MessageSign) {
			return body, err
		}
		tried = pair
	}
}

// LoginChallenge asks for what evidence of the client must bind.
func (c *Client) LoginChallenge(ctx context.Context) (res api.LoginChallengeResult, err error) {
	err = c.post(ctx, api.LoginChallenge, api.Empty{}, &res)
	return res, err
}

// Login sends a login and returns the reply as it came: what is in it is encrypted, and
// its recipient finds out whether it is genuine. Package attested makes the request.
func (c *Client) Login(ctx context.Context, req api.LoginRequest) (res api.LoginResult, err error) {
	err = c.post(ctx, api.Login, req, &res)
	return res, err
}

// post sends a request that is not signed, once.
func (c *Client) post(ctx context.Context, action string, req, res any) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	text, err := json.Marshal(req)
	if err != nil {
		return c.explain(action, err)
	}
	body, _, err := c.exchange(ctx, http.MethodPost, action, text)
	if err == nil {
		err = refusal(body, true)
	}
	if err == nil {
		err = decode(body, res)
	}
	return c.explain(action, outcome(err, false))
}

// PutLoginRule makes or replaces a rule by which workloads log in, as an owner.
func (c *Client) PutLoginRule(ctx context.Context, req api.PutLoginRuleRequest) (ruleID string, err error) {
	var res api.PutLoginRuleResult
	err = c.call(ctx, api.PutLoginRule, false, req, &res)
	return res.RuleID, err
}

// ListLoginRules lists the rules by which workloads log in, as an owner.
func (c *Client) ListLoginRules(ctx context.Context) ([]api.LoginRule, error) {
	var res api.ListLoginRulesResult
	err := c.call(ctx, api.ListLoginRules, true, nil, &res)
	return res.List, err
}

// DeleteLoginRule ends a rule, and with it the credentials that workloads have by it,
// as an owner.
func (c *Client) DeleteLoginRule(ctx context.Context, name string) error {
	return c.call(ctx, api.DeleteLoginRule, false, api.DeleteLoginRuleRequest{Name: name}, nil)
}
