package jwt

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/strictjson"
)

// Limits of what is expected.
const (
	MaxText   = 256 // bytes of an issuer, audience, subject, or name or value of a claim
	MaxClaims = 8
	maxPath   = 8 // levels of a claim
)

// A Claim must have exactly this value, a string.
type Claim struct {
	// Name is a member of the claims, or from "/" on a JSON pointer (RFC 6901) to a
	// member of objects in them.
	Name, Value string
}

// Expected is what a token must be. Issuer and audience are compared byte for byte; a
// token for several audiences is for none.
type Expected struct {
	Issuer, Audience string
	// Subject is the exact "sub", or with "*" at its end what that begins with.
	Subject string
	Claims  []Claim
	Keys    []Key
}

// Validate refuses what no token could meet, and a subject that all would.
func (e *Expected) Validate() error {
	for name, text := range map[string]string{"issuer": e.Issuer, "audience": e.Audience, "subject": e.Subject} {
		if text == "" || len(text) > MaxText {
			return fmt.Errorf("%s of %d bytes, want 1 to %d", name, len(text), MaxText)
		}
	}
	if i := strings.IndexByte(e.Subject, '*'); i == 0 || i >= 0 && i < len(e.Subject)-1 {
		return errors.New("a * of the subject is not at its end, or alone")
	}
	if len(e.Claims) > MaxClaims {
		return fmt.Errorf("%d claims, limit %d", len(e.Claims), MaxClaims)
	}
	names := map[string]bool{}
	for _, c := range e.Claims {
		if c.Name == "" || len(c.Name) > MaxText || c.Value == "" || len(c.Value) > MaxText || names[c.Name] {
			return fmt.Errorf("claim %q is empty, too long or named twice", c.Name)
		}
		if _, err := path(c.Name); err != nil {
			return fmt.Errorf("claim %q: %w", c.Name, err)
		}
		names[c.Name] = true
	}
	return e.validateKeys()
}

func (e *Expected) validateKeys() error {
	if n := len(e.Keys); n == 0 || n > MaxKeys {
		return fmt.Errorf("%d keys, want 1 to %d", n, MaxKeys)
	}
	ids := map[string]bool{}
	for i := range e.Keys {
		if err := e.Keys[i].Check(); err != nil {
			return fmt.Errorf("key %d: %w", i, err)
		}
		if ids[e.Keys[i].ID] {
			return fmt.Errorf("key %d: another one has its id", i)
		}
		ids[e.Keys[i].ID] = true
	}
	return nil
}

// path takes the name of a claim apart.
func path(name string) ([]string, error) {
	rest, pointer := strings.CutPrefix(name, "/")
	if !pointer {
		return []string{name}, nil
	}
	names := strings.Split(rest, "/")
	if len(names) > maxPath {
		return nil, fmt.Errorf("%d levels, limit %d", len(names), maxPath)
	}
	for i, s := range names {
		plain := strings.NewReplacer("~0", "", "~1", "").Replace(s)
		if strings.Contains(plain, "~") {
			return nil, errors.New("~ that escapes nothing")
		}
		names[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(s)
	}
	return names, nil
}

// Check decides whether the token is what is expected, now. Signature first. Errors:
// ErrIssuer, ErrKeyID, ErrAlgorithm, ErrSignature, ErrAudience, ErrExpired, ErrFuture,
// ErrSubject, ErrClaim; ErrMalformed for a claim of the wrong type, or none where
// there must be one.
func (t *Token) Check(e *Expected, now time.Time) error {
	if t.issuer != e.Issuer {
		return ErrIssuer
	}
	if err := t.signature.verify(e.Keys); err != nil {
		return err
	}
	// Read anew, as what one rule does not find must not be an error for the next.
	_, n, err := strictjson.Parse(t.signature.payload, MaxToken)
	if err != nil {
		return fmt.Errorf("%w: claims: %w", ErrMalformed, err)
	}
	for _, check := range []func() error{
		func() error { return checkAudience(n, e.Audience) },
		func() error { return checkTimes(n, now) },
		func() error { return checkSubject(n, e.Subject) },
		func() error { return checkClaims(n, e.Claims) },
	} {
		if err := check(); err != nil {
			return err
		}
		if err := n.Err(); err != nil {
			return fmt.Errorf("%w: claims: %w", ErrMalformed, err)
		}
	}
	return nil
}

func checkAudience(claims *strictjson.Node, want string) error {
	aud := claims.Member("aud")
	if aud.IsArray() {
		all := aud.Items(MaxText)
		if len(all) != 1 { // another reader could show it here
			return ErrAudience
		}
		aud = all[0]
	}
	if aud.Text() != want || claims.Err() != nil {
		return ErrAudience
	}
	return nil
}

// checkTimes wants an end that has not come, and dates that are not of the future.
func checkTimes(claims *strictjson.Node, now time.Time) error {
	if end := claims.Member("exp").Uint(maxDate); claims.Err() == nil && now.Unix() >= int64(end) {
		return ErrExpired
	}
	for _, name := range []string{"nbf", "iat"} {
		if !claims.Has(name) {
			continue
		}
		if date := claims.Member(name).Uint(maxDate); now.Add(Leeway).Unix() < int64(date) {
			return ErrFuture
		}
	}
	return nil
}

func checkSubject(claims *strictjson.Node, want string) error {
	sub := claims.Member("sub").Text()
	prefix, open := strings.CutSuffix(want, "*")
	if open && strings.HasPrefix(sub, prefix) || !open && sub == want {
		return nil
	}
	return ErrSubject
}

func checkClaims(claims *strictjson.Node, want []Claim) error {
	for _, c := range want {
		names, err := path(c.Name)
		if err != nil {
			return ErrClaim
		}
		n := claims
		for _, name := range names {
			if !n.Has(name) {
				return ErrClaim
			}
			n = n.Member(name)
		}
		if n.Text() != c.Value {
			return ErrClaim
		}
	}
	return nil
}
