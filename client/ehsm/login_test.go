package ehsm

import (
	"context"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api"
)

// sessionOf is a session that begins now, of a credential with a number in its id.
func sessionOf(n byte, now time.Time) Session {
	key := ed25519.NewKeyFromSeed([]byte(strings.Repeat("w", 32)))
	t := api.LoginToken{Credential: [16]byte{n}, Kind: api.KindEd25519, PublicKey: key.Public().(ed25519.PublicKey)}
	return Session{Token: t.Text(), Signer: key, Renew: now.Add(time.Minute), Ends: now.Add(2 * time.Minute)}
}

func TestSession(t *testing.T) {
	now := time.Unix(1_780_000_000, 0)
	broken := errors.New("no token")
	var fails error
	logins := byte(0)
	s := &session{turn: make(chan struct{}, 1), login: func(context.Context) (Session, error) {
		if fails != nil {
			return Session{}, fails
		}
		logins++
		return sessionOf(logins, now), nil
	}}
	use := func(what string, at time.Time, refused *keyPair, want byte) *keyPair {
		t.Helper()
		now = at
		p, err := s.use(t.Context(), at, refused)
		if err != nil || p.id != [16]byte{want} {
			t.Errorf("%s: got %+v, %v, want credential %d", what, p, err, want)
		}
		return p
	}
	start := now
	first := use("first", start, nil, 1)
	use("again", start.Add(59*time.Second), nil, 1)
	second := use("due", start.Add(60*time.Second), nil, 2)
	use("refused", start.Add(61*time.Second), second, 3)
	use("refused, by one of before", start.Add(62*time.Second), first, 3)
	fails = broken
	use("renewal fails", start.Add(130*time.Second), nil, 3)
	for name, at := range map[string]time.Time{"over": start.Add(181 * time.Second), "refused": start.Add(62 * time.Second)} {
		var refused *keyPair
		if name == "refused" {
			refused = s.pair
		}
		if p, err := s.use(t.Context(), at, refused); !errors.Is(err, broken) {
			t.Errorf("%s: got %v, %v", name, p, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.turn <- struct{}{}
	if _, err := s.use(ctx, now, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("turn of another: got %v", err)
	}
	<-s.turn
	bad := sessionOf(1, now)
	for name, made := range map[string]Session{
		"no token": {Signer: bad.Signer, Ends: bad.Ends}, "no signer": {Token: bad.Token, Ends: bad.Ends}, "nothing": {},
	} {
		if err := s.take(made); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
}

func TestWithLoginRefuses(t *testing.T) {
	c, err := New(Config{URL: "https://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.WithLogin("", nil, nil); !errors.Is(err, ErrNoCredentials) {
		t.Errorf("got %v", err)
	}
}
