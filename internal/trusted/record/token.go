package record

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// MaxTokenUses is how many apps one enrollment token is good for at most.
const MaxTokenUses = 10000

// Token is an enrollment token: who has its text may make apps. The text is not
// kept, only a hash of it, and the text has 256 bits that nobody guesses.
type Token struct {
	Hash    [32]byte  // of the text, see api.EnrollToken
	Name    string    // of the apps, up to MaxText bytes of printable ASCII; may be empty
	Role    Role      // of their first credential
	Uses    uint32    // how many apps it is good for, 1 to MaxTokenUses
	Used    uint32    // how many it has made
	Revoked bool      // it makes no more
	Created int64     // Unix milliseconds
	Expires int64     // Unix milliseconds, after Created
	By      wire.UUID // credential of the administrator who made it
}

// Open reports whether the token is good for another app at a time in Unix
// milliseconds.
func (t *Token) Open(now int64) bool {
	return !t.Revoked && t.Used < t.Uses && now < t.Expires
}

const tokenV1 = 1

func (t *Token) validate() error {
	switch {
	case t.Role != Owner && t.Role != User:
		return fmt.Errorf("role %d is unknown", t.Role)
	case t.Uses < 1 || t.Uses > MaxTokenUses:
		return fmt.Errorf("token with %d uses, want 1 to %d", t.Uses, MaxTokenUses)
	case t.Used > t.Uses:
		return fmt.Errorf("token was used %d times of %d", t.Used, t.Uses)
	case t.Expires <= t.Created:
		return errors.New("token expires before it is made")
	case !printable(t.Name):
		return fmt.Errorf("name is not of up to %d bytes of printable ASCII", MaxText)
	}
	return nil
}

// SealToken seals a token. It refuses what OpenToken would refuse.
func SealToken(keys *domainkey.Keyring, h Header, t Token) ([]byte, error) {
	if err := sealable(h, wire.Token, t.validate()); err != nil {
		return nil, err
	}
	b := append([]byte{tokenV1}, t.Hash[:]...)
	b = append(pack.AppendString(b, t.Name), byte(t.Role))
	b = binary.BigEndian.AppendUint32(b, t.Uses)
	b = binary.BigEndian.AppendUint32(b, t.Used)
	b = pack.AppendBool(b, t.Revoked)
	b = appendInt64s(b, t.Created, t.Expires)
	return seal(keys, h, append(b, t.By[:]...), secret.Bytes{})
}

// OpenToken opens a token. Errors: ErrOpen.
func OpenToken(keys *domainkey.Keyring, h Header, sealed []byte) (Token, error) {
	var t Token
	if h.ID.Type != wire.Token { // check+: token-type: the core asks for tokens by their type
		return t, fmt.Errorf("%w: %s is no enrollment token", ErrOpen, h.ID)
	}
	attributes, none, err := open(keys, h, sealed)
	if err != nil {
		return t, err
	}
	r := version(attributes, tokenV1)
	r.Array(t.Hash[:])
	t.Name, t.Role = r.String(MaxText), Role(r.Uint8())
	t.Uses, t.Used, t.Revoked = r.Uint32(), r.Uint32(), r.Bool()
	t.Created, t.Expires = r.Int64(), r.Int64()
	r.Array(t.By[:])
	if none.Len() != 0 {
		r.Fail("enrollment token has material")
	}
	if err := finish(r, t.validate()); err != nil {
		return Token{}, err
	}
	return t, nil
}
