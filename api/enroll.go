package api

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// EnrollFinish is the second request of attested enrollment; GetEvidence is the
// first. It is a POST of an EnrollFinishRequest without a signature: who has an
// enrollment token may ask. docs/enrollment.md.
const EnrollFinish = "EnrollFinish"

// CodeMisdirected says that the request was made for another core instance. Nothing
// has happened; the client starts again with GetEvidence.
const CodeMisdirected = 421

// MessageMisdirectedBefore comes before the id of the instance that answers, in the
// message of CodeMisdirected.
const MessageMisdirectedBefore = "Misdirected, The instance is "

// An EnrollFinishRequest carries an EnrollAsk, encrypted for one core instance by
// HPKE (RFC 9180, base mode, MLKEM768-X25519, HKDF-SHA-256, AES-256-GCM) with
// EnrollInfo and without additional data.
type EnrollFinishRequest struct {
	InstanceID string `json:"instanceId"` // UUID of the instance whose evidence was verified
	Enc        []byte `json:"enc"`        // encapsulated key, 1120 bytes
	Ciphertext []byte `json:"ciphertext"`
}

// An EnrollFinishResult carries an EnrollGrant, encrypted in the same way for the
// client's key with EnrollReplyInfo.
type EnrollFinishResult struct {
	InstanceID string `json:"instanceId"`
	Enc        []byte `json:"enc"`
	Ciphertext []byte `json:"ciphertext"`
}

// Labels by which both sides take secrets out of the HPKE context of the request.
const (
	// EnrollReplyExport has 32 bytes, for EnrollReplyInfo.
	EnrollReplyExport = "ehsm/enroll-reply/v1\x00"
	// EnrollAppExport has 16 bytes, of which the appid is made, so that one request
	// makes one app.
	EnrollAppExport = "ehsm/enroll-appid/v1\x00"
)

// EnrollInfo is the HPKE info of the request.
func EnrollInfo(domain [32]byte, instance [16]byte) []byte {
	return append(append([]byte("ehsm/enroll/v1\x00"), domain[:]...), instance[:]...)
}

// EnrollReplyInfo is the HPKE info of the reply. Secret is what EnrollReplyExport
// takes out of the context of the request: only who made the request and who could
// open it have it.
func EnrollReplyInfo(domain [32]byte, instance [16]byte, secret []byte) []byte {
	return append(append(append([]byte(EnrollReplyExport), domain[:]...), instance[:]...), secret...)
}

// Sizes of what is encrypted, in bytes.
const (
	enrollFormat = 1
	// EnrollKeySize is the size of a client's HPKE public key.
	EnrollKeySize = 1216
	// MaxEnrollLabel is the longest label of an EnrollAsk.
	MaxEnrollLabel = 64
	tokenIDSize    = 16
	// EnrollTokenSize is the size of an EnrollToken.
	EnrollTokenSize = tokenIDSize + 32
	enrollAskSize   = 1 + EnrollTokenSize + EnrollKeySize
	appIDSize       = 16
	maxEnrollKey    = 255 // of an API key
)

// ErrEnroll is wrapped by the errors about messages of attested enrollment and about
// tokens. They never show a token.
var ErrEnroll = errors.New("not a message of attested enrollment")

// An EnrollAsk is what a client sends inside.
type EnrollAsk struct {
	Token     [EnrollTokenSize]byte // a secret
	PublicKey [EnrollKeySize]byte   // the client's, for HPKE with MLKEM768-X25519
	Label     string                // of the credential, up to MaxEnrollLabel bytes of printable ASCII
}

// Append appends format 1 (1 byte), token, public key and label.
func (a *EnrollAsk) Append(dst []byte) []byte {
	dst = append(append(dst, enrollFormat), a.Token[:]...)
	return append(append(dst, a.PublicKey[:]...), a.Label...)
}

// DecodeEnrollAsk reads what Append wrote. Errors: ErrEnroll.
func DecodeEnrollAsk(b []byte) (*EnrollAsk, error) {
	if len(b) < enrollAskSize || len(b) > enrollAskSize+MaxEnrollLabel || b[0] != enrollFormat {
		return nil, fmt.Errorf("%w: %d bytes", ErrEnroll, len(b))
	}
	a := &EnrollAsk{
		Token: [EnrollTokenSize]byte(b[1:]), PublicKey: [EnrollKeySize]byte(b[1+EnrollTokenSize:]), Label: string(b[enrollAskSize:]),
	}
	if a.Label != "" && !printable(a.Label) {
		return nil, fmt.Errorf("%w: label", ErrEnroll)
	}
	return a, nil
}

// An EnrollGrant is what the core sends inside.
type EnrollGrant struct {
	AppID  [appIDSize]byte
	APIKey []byte // text, 1 to 255 bytes; a secret
}

// Append appends format 1 (1 byte), appid and API key.
func (g *EnrollGrant) Append(dst []byte) []byte {
	dst = append(append(dst, enrollFormat), g.AppID[:]...)
	return append(dst, g.APIKey...)
}

// DecodeEnrollGrant reads what Append wrote. The API key shares memory with b.
// Errors: ErrEnroll.
func DecodeEnrollGrant(b []byte) (*EnrollGrant, error) {
	const head = 1 + appIDSize
	if len(b) <= head || len(b) > head+maxEnrollKey || b[0] != enrollFormat {
		return nil, fmt.Errorf("%w: %d bytes", ErrEnroll, len(b))
	}
	return &EnrollGrant{AppID: [appIDSize]byte(b[1:]), APIKey: b[head:]}, nil
}

const (
	tokenPrefix = "ehsm-token-v1."
	tokenLabel  = "ehsm/enroll-token/v1\x00"
)

// An EnrollToken lets its holder make apps. It is a secret that its maker draws and
// of which the service gets the hash only, so that the way of its making does not
// show it. It formats as "token" under every verb.
type EnrollToken struct{ get func() *[EnrollTokenSize]byte }

// NewEnrollToken draws a token.
func NewEnrollToken() EnrollToken {
	b := new([EnrollTokenSize]byte)
	rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return EnrollToken{func() *[EnrollTokenSize]byte { return b }}
}

// ParseEnrollToken reads what Expose returned; white space around it is no part of
// it. Errors: ErrEnroll.
func ParseEnrollToken(text string) (EnrollToken, error) {
	refused := fmt.Errorf("%w: a token is %s and 64 more characters", ErrEnroll, tokenPrefix)
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), tokenPrefix)
	if !ok || len(rest) != base64.RawURLEncoding.EncodedLen(EnrollTokenSize) {
		return EnrollToken{}, refused
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(rest)
	if err != nil || len(b) != EnrollTokenSize {
		return EnrollToken{}, refused
	}
	token := [EnrollTokenSize]byte(b)
	return EnrollToken{func() *[EnrollTokenSize]byte { return &token }}, nil
}

// IsZero reports whether there is no token.
func (t EnrollToken) IsZero() bool { return t.get == nil }

// Bytes returns the token: 16 bytes of its id and 32 more. It is the token itself,
// not a copy.
func (t EnrollToken) Bytes() *[EnrollTokenSize]byte { return t.get() }

// ID returns the UUID that names the token to administrators. It is no secret.
func (t EnrollToken) ID() string {
	b := t.get()
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:tokenIDSize])
}

// Hash is what the service keeps: see EnrollTokenHash.
func (t EnrollToken) Hash() [32]byte { return EnrollTokenHash(t.get()) }

// Expose returns the text, for the one place that passes it on: ehsm-token-v1. and
// the base64url of the token without padding.
func (t EnrollToken) Expose() string {
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(t.get()[:])
}

// Format implements fmt.Formatter.
func (t EnrollToken) Format(f fmt.State, _ rune) { fmt.Fprint(f, "token") }

// EnrollTokenHash is SHA-256 over "ehsm/enroll-token/v1\0" and the token.
func EnrollTokenHash(token *[EnrollTokenSize]byte) [32]byte {
	return sha256.Sum256(append([]byte(tokenLabel), token[:]...))
}
