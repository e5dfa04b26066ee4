package record

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// Limits of an app's credentials.
const (
	MaxCredentials = 16
	MaxAPIKeys     = 4  // each request that names no credential is tried against all of them
	MaxText        = 64 // bytes of printable ASCII: name of an app, description of a credential
	maxAPIKey      = 255
)

// CredentialKind is how the holder of a credential proves that he is it.
type CredentialKind uint8

const (
	_       CredentialKind = iota
	APIKey                 // HMAC-SHA-256 under the API key's text
	Ed25519                // RFC 8032; the public key has 32 bytes
	P256                   // ECDSA with SHA-256, low s; the public key is an uncompressed point, 65 bytes
)

// Role is what a credential is for.
type Role uint8

const (
	_     Role = iota
	Owner      // may do everything, and decides about the app's credentials
	User       // uses keys and secrets
)

// Credential is one of an app's ways to sign requests. The text of an API key is
// in the material of the app record.
type Credential struct {
	// ID is random, save that of the API key of an app of layout 1, which is zero.
	ID            wire.UUID
	Kind          CredentialKind
	Role          Role
	RequireAction bool      // the payload of each request must name its action
	Created       int64     // Unix milliseconds
	Expires       int64     // Unix milliseconds, 0: never
	Ends          int64     // Unix milliseconds: a rotation has put another one in its place; 0: none has
	Policy        wire.UUID // zero: all that the role may
	Description   string    // up to MaxText bytes of printable ASCII
	PublicKey     []byte    // of a key pair, in the encoding of its kind; nil for an API key
}

// FirstCredential is the API key of an app that has nothing else, made with it.
// The app is then of layout 1, which all releases read.
func FirstCredential(created int64) Credential {
	return Credential{Kind: APIKey, Role: Owner, Created: created}
}

// Ended reports whether the credential is of no use any more at a time in Unix
// milliseconds: it has expired, or its place has been taken.
func (c *Credential) Ended(now int64) bool {
	return c.Expires != 0 && now >= c.Expires || c.Ends != 0 && now >= c.Ends
}

// first reports whether the app is one that layout 1 can say.
func (a *App) first() bool {
	if a.Name != "" || len(a.Credentials) != 1 {
		return false
	}
	c, want := &a.Credentials[0], FirstCredential(a.Created)
	return c.ID == want.ID && c.Kind == want.Kind && c.Role == want.Role && c.Created == want.Created && c.Expires == 0 && c.Ends == 0 &&
		!c.RequireAction && c.Policy == want.Policy && c.Description == "" && len(c.PublicKey) == 0
}

// apiKeys counts the credentials whose texts are in the material.
func (a *App) apiKeys() (n int) {
	for i := range a.Credentials {
		if a.Credentials[i].Kind == APIKey {
			n++
		}
	}
	return n
}

func (a *App) validateCredentials() error {
	if n := len(a.Credentials); n < 1 || n > MaxCredentials {
		return fmt.Errorf("%d credentials, want 1 to %d", n, MaxCredentials)
	}
	if n := a.apiKeys(); n > MaxAPIKeys {
		return fmt.Errorf("%d API keys, limit %d", n, MaxAPIKeys)
	}
	ids, keys := map[wire.UUID]bool{}, map[string]bool{}
	for i := range a.Credentials {
		c := &a.Credentials[i]
		if err := c.validate(); err != nil {
			return fmt.Errorf("credential %s: %w", c.ID, err)
		}
		if ids[c.ID] {
			return fmt.Errorf("credential %s: there are two", c.ID)
		}
		// A request does not cover which credential it is of: of two with one key
		// it would be of either.
		if c.Kind != APIKey && keys[string(c.PublicKey)] { // check+: credential-key-twice: the core looks before it adds one
			return fmt.Errorf("credential %s: another one has its public key", c.ID)
		}
		ids[c.ID], keys[string(c.PublicKey)] = true, true
	}
	return nil
}

func (c *Credential) validate() error {
	switch {
	case c.Role != Owner && c.Role != User:
		return fmt.Errorf("role %d is unknown", c.Role)
	case c.Expires < 0 || c.Ends < 0:
		return errors.New("it ends before 1970")
	case !printable(c.Description):
		return fmt.Errorf("description is not of up to %d bytes of printable ASCII", MaxText)
	case c.Kind == APIKey && len(c.PublicKey) > 0:
		return errors.New("API key with a public key")
	case c.Kind == APIKey:
		return nil
	case c.ID == wire.UUID{}:
		return errors.New("key pair without an id")
	}
	return CheckPublicKey(c.Kind, c.PublicKey)
}

// CheckPublicKey refuses what is no public key of a kind of key pair.
func CheckPublicKey(kind CredentialKind, key []byte) error {
	switch kind {
	case Ed25519:
		if len(key) != ed25519.PublicKeySize {
			return fmt.Errorf("public key of %d bytes, want %d", len(key), ed25519.PublicKeySize)
		}
		return nil
	case P256:
		_, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), key)
		return err
	}
	return fmt.Errorf("kind %d is no kind of key pair", kind)
}

// printable reports whether s is short and printable, so that programs can show it
// as it is.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return len(s) <= MaxText
}

// appendCredentials appends what layout 2 has behind layout 1.
func (a *App) appendCredentials(dst []byte) []byte {
	dst = pack.AppendString(dst, a.Name)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(a.Credentials)))
	for i := range a.Credentials {
		c := &a.Credentials[i]
		dst = append(dst, c.ID[:]...)
		dst = append(dst, byte(c.Kind), byte(c.Role))
		dst = pack.AppendBool(dst, c.RequireAction)
		dst = appendInt64s(dst, c.Created, c.Expires, c.Ends)
		dst = append(dst, c.Policy[:]...)
		dst = pack.AppendString(dst, c.Description)
		dst = pack.AppendBytes(dst, c.PublicKey)
	}
	return dst
}

// leastCredential is the size of a credential without its text and key, in bytes.
const leastCredential = 16 + 2 + 1 + 8 + 8 + 8 + 16 + 2 + 4

func (a *App) readCredentials(r *pack.Reader) {
	a.Name = r.String(MaxText)
	a.Credentials = make([]Credential, r.Count(MaxCredentials, leastCredential))
	for i := range a.Credentials {
		c := &a.Credentials[i]
		r.Array(c.ID[:])
		c.Kind, c.Role = CredentialKind(r.Uint8()), Role(r.Uint8())
		c.RequireAction = r.Bool()
		c.Created, c.Expires, c.Ends = r.Int64(), r.Int64(), r.Int64()
		r.Array(c.Policy[:])
		c.Description = r.String(MaxText)
		const most = 65 // bytes of a public key
		if key := r.Bytes(most); len(key) > 0 {
			c.PublicKey = append([]byte(nil), key...)
		}
	}
	if r.Err() == nil && a.first() {
		r.Fail("app of layout 1 in layout 2")
	}
}

// joinKeys makes the material of an app: of layout 1 the text of its API key, of
// layout 2 those of all, in the order of their credentials, each after a byte for
// its length.
func (a *App) joinKeys(keys []secret.Bytes) (secret.Bytes, error) {
	if n := a.apiKeys(); len(keys) != n {
		return secret.Bytes{}, fmt.Errorf("%d texts of API keys, want %d", len(keys), n)
	}
	if a.first() {
		return secret.Copy(keys[0].Expose()), nil
	}
	size := 0
	for _, k := range keys {
		if k.Len() < 1 || k.Len() > maxAPIKey {
			return secret.Bytes{}, fmt.Errorf("API key of %d bytes, want 1 to %d", k.Len(), maxAPIKey)
		}
		size += 1 + k.Len()
	}
	b := make([]byte, 0, size)
	for _, k := range keys {
		b = append(append(b, byte(k.Len())), k.Expose()...)
	}
	return secret.New(b), nil
}

// splitKeys undoes joinKeys. It takes over the material.
func (a *App) splitKeys(material secret.Bytes, layout uint8) ([]secret.Bytes, error) {
	if layout == appV1 {
		return []secret.Bytes{material}, nil
	}
	defer material.Zero()
	r := pack.NewReader(material.Expose())
	var keys []secret.Bytes
	for range a.apiKeys() {
		text := r.Fixed(int(r.Uint8()))
		if r.Err() == nil && len(text) == 0 {
			r.Fail("API key without a text")
		}
		keys = append(keys, secret.Copy(text))
	}
	err := r.Close()
	if err != nil {
		for _, k := range keys {
			k.Zero()
		}
		return nil, fmt.Errorf("texts of API keys: %w", err)
	}
	return keys, nil
}
