package ehsm

import (
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/api"
)

// ErrMarshal is returned by every attempt to encode an APIKey.
var ErrMarshal = errors.New("ehsm: an API key must not be marshaled")

// An APIKey is the secret that signs a tenant's requests. It formats as "apikey"
// under every verb and refuses to be marshaled. The zero value is no key.
type APIKey struct {
	// A func, because fmt prints unexported fields through reflection and would
	// show a slice or a struct.
	get func() *keys
}

type keys struct {
	text  []byte
	reply [32]byte // api.ReplyKey(text)
}

// NewAPIKey returns the key with this text; "" gives the zero value.
func NewAPIKey(text string) APIKey {
	if text == "" {
		return APIKey{}
	}
	k := &keys{text: []byte(text)}
	k.reply = api.ReplyKey(k.text)
	return APIKey{get: func() *keys { return k }}
}

// Expose returns the text of the key, for the one place that stores it.
func (k APIKey) Expose() string {
	if k.get == nil {
		return ""
	}
	return string(k.get().text)
}

// IsZero reports whether there is no key.
func (k APIKey) IsZero() bool { return k.get == nil }

// Format implements fmt.Formatter.
func (k APIKey) Format(f fmt.State, _ rune) { fmt.Fprint(f, "apikey") }

// MarshalText implements encoding.TextMarshaler, so that JSON and YAML encoders
// fail instead of printing.
func (k APIKey) MarshalText() ([]byte, error) { return nil, ErrMarshal }

// MarshalBinary implements encoding.BinaryMarshaler, so that gob fails.
func (k APIKey) MarshalBinary() ([]byte, error) { return nil, ErrMarshal }

// Credentials are what Enroll gives to a tenant.
type Credentials struct {
	AppID  string
	APIKey APIKey
}
