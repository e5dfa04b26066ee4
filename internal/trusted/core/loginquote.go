package core

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// challengeTime is for how long a challenge is good, in milliseconds.
const challengeTime = 2 * 60_000

const challengeLabel = "ehsm/login-challenge/v1\x00"

// loginChallenge gives anybody a challenge. The core keeps none of them: it knows its
// own by their MAC, and remembers those that were used.
func (x *request) loginChallenge() (result, error) {
	x.action = &action{name: api.LoginChallenge}
	var random [8]byte
	rand.Read(random[:]) // never fails
	c := x.core.challenge(x.millis(), random)
	return result{textSuccess, object{}.text("instanceId", x.core.info.Instance.String()).base64("challenge", c[:]).end()}, nil
}

// challenge is time (8) | random (8) | the first 16 bytes of HMAC-SHA-256 over both,
// under a key of this instance.
func (c *Core) challenge(millis int64, random [8]byte) (out [api.LoginChallengeSize]byte) {
	binary.BigEndian.PutUint64(out[:], uint64(millis))
	copy(out[8:], random[:])
	secret.Do(func() {
		m := hmac.New(sha256.New, c.challenges.Expose())
		m.Write([]byte(challengeLabel))
		m.Write(out[:16])
		copy(out[16:], m.Sum(nil))
	})
	return out
}

// newChallengeKey draws the key of an instance's challenges.
func newChallengeKey() secret.Bytes {
	key := make([]byte, 32)
	rand.Read(key) // never fails
	return secret.New(key)
}

// proveQuote returns the first rule that accepts a client's quote, which must bind its
// public key and a challenge of this instance that was not used before.
func (x *request) proveQuote(ask *api.LoginAsk, rules []record.LoginRule) (*record.LoginRule, error) {
	made := int64(binary.BigEndian.Uint64(ask.Challenge[:]))
	want := x.core.challenge(made, [8]byte(ask.Challenge[8:]))
	if !hmac.Equal(want[:], ask.Challenge[:]) { // check: login-challenge
		return nil, errLogin("challenge of nobody")
	}
	if x.millis()-made >= challengeTime { // check: login-challenge-time
		return nil, errLogin("challenge has expired")
	}
	// The host is not to fetch collateral for whoever asks.
	if !slices.ContainsFunc(rules, func(r record.LoginRule) bool { return r.Code != nil }) { // check: login-no-quotes
		return nil, errLogin("no rule for quotes")
	}
	c, err := x.collateral(ask.Quote)
	if err != nil {
		return nil, quoteRefused(err)
	}
	r, err := x.core.terms.Load().judge.verify(ask.Quote, c, time.UnixMicro(x.now))
	if err != nil {
		return nil, quoteRefused(err)
	}
	instance := x.core.info.Instance
	bound := attest.ReportData(attest.UseLogin, x.core.keys.Domain(), ask.Tenant[:], instance[:], ask.Challenge[:], api.LoginKey(ask.Kind, ask.PublicKey))
	if r.Report.ReportData != bound { // check: login-binding
		return nil, errLogin("quote binds something else")
	}
	for i := range rules {
		if rules[i].Code != nil && runs(rules[i].Code, &r.Report) {
			return &rules[i], x.useChallenge(ask, made)
		}
	}
	return nil, errLogin("quote of another enclave")
}

// runs reports whether a report is of a client's code.
func runs(c *record.ClientCode, r *quote.Report) bool {
	if c.MREnclave != [32]byte{} {
		return r.MREnclave == c.MREnclave
	}
	if r.ISVProdID != c.Product { // check: login-product
		return false
	}
	if r.ISVSVN < c.MinSVN { // check: login-svn
		return false
	}
	return r.MRSigner == c.MRSigner
}

// useChallenge lets a challenge through once.
func (x *request) useChallenge(ask *api.LoginAsk, made int64) error {
	used := x.core.replays.admit(wire.UUID(ask.Tenant), wire.Tag(ask.Challenge[8:24]), made, x.millis())
	if used == replayed { // check: login-challenge-used
		return errLogin("challenge was used")
	}
	if used != admitted { // check+: login-challenge-room: challenges end before their entries do
		return errTooMany()
	}
	return nil
}

// quoteRefused is the refusal of a login for that of a quote. What the core needs to
// judge it is asked for.
func quoteRefused(err error) error {
	var r *refusal
	if errors.As(err, &r) {
		return errLogin(r.reason)
	}
	return err
}
