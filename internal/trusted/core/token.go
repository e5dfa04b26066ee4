package core

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

const tokenV1 = 1

// tokenSize is the size of an import token in bytes, before base64: format,
// session, expiry, DomainKey version, MAC. Layout: docs/formats.md#import-token.
const tokenSize = 1 + 16 + 8 + 4 + sha256.Size

// importToken says that a session was opened here for a key. Whoever holds it
// can only show it again: what the session is worth is in its record.
type importToken struct {
	session   [16]byte
	expires   int64 // Unix milliseconds
	dkVersion uint32
	mac       [sha256.Size]byte
}

var errTokenForm = errors.New("import token malformed")

// parseToken reads the one encoding of a token. It checks no authenticity.
func parseToken(text string) (t importToken, err error) {
	if len(text) != base64.StdEncoding.EncodedLen(tokenSize) || !isBase64(text) {
		return t, errTokenForm
	}
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return t, errTokenForm
	}
	r := pack.NewReader(b)
	if v := r.Uint8(); v != tokenV1 {
		return t, errTokenForm
	}
	r.Array(t.session[:])
	t.expires = r.Int64()
	t.dkVersion = r.Uint32()
	r.Array(t.mac[:])
	if r.Close() != nil {
		return importToken{}, errTokenForm
	}
	return t, nil
}

// text is the token as clients see it.
func (t importToken) text() string {
	return base64.StdEncoding.EncodeToString(append(t.head(), t.mac[:]...))
}

// head is everything before the MAC.
func (t importToken) head() []byte {
	b := append(make([]byte, 0, tokenSize), tokenV1)
	b = append(b, t.session[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(t.expires))
	return binary.BigEndian.AppendUint32(b, t.dkVersion)
}

// newToken makes the token of a session of a key.
func (c *Core) newToken(key wire.RecordID, s *record.ImportSession) (importToken, error) {
	t := importToken{session: s.Session, expires: s.Expires, dkVersion: c.keys.Current()}
	var err error
	t.mac, err = c.tokenMAC(key, t)
	return t, err
}

// genuine reports whether the token was made in this domain for a session of
// this key, and so for its tenant.
func (c *Core) genuine(key wire.RecordID, t importToken) bool {
	want, err := c.tokenMAC(key, t)
	return err == nil && hmac.Equal(t.mac[:], want[:])
}

// tokenMAC is HMAC-SHA-256 over the domain, the tenant, the key and what the
// token says, under the purpose key of the DomainKey version that it names.
func (c *Core) tokenMAC(key wire.RecordID, t importToken) (mac [sha256.Size]byte, err error) {
	c.keys.Hold()
	defer c.keys.Release()
	k, err := c.keys.Key(domainkey.ImportToken, t.dkVersion)
	if err != nil {
		return mac, err
	}
	domain := c.keys.Domain()
	secret.Do(func() {
		m := hmac.New(sha256.New, k.Expose())
		m.Write(domain[:])
		m.Write(key.Tenant[:])
		m.Write(key.ID[:])
		m.Write(t.head())
		m.Sum(mac[:0])
	})
	return mac, nil
}
