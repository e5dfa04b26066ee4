// Package jwt decides whether a JSON Web Token (RFC 7519) is a proof of who a workload
// is: signed by a key that its reader has pinned, for this reader, now.
//
// It knows the compact serialization with public-key signatures and nothing else of
// JOSE: no shared secrets, no "none", no encryption, no key that a token brings along
// or says where to find. It is the core's own, as what a general library understands
// beyond that would all have to be reviewed as something that must not happen. It
// trusts nothing that it is given and holds no secrets; it does no I/O.
package jwt

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/strictjson"
)

// Limits of tokens.
const (
	MaxToken = 16 << 10 // bytes
	// Leeway is by how much a token may be ahead of the reader's time.
	Leeway = 60 * time.Second

	maxHeader = 2048 // bytes of JSON
	maxDate   = 1 << 40
)

// Refusals of Parse and Check. Each says which check has failed, and no more.
var (
	ErrMalformed = errors.New("token is malformed")
	ErrAlgorithm = errors.New("algorithm is not accepted")
	ErrCritical  = errors.New("header has critical members")
	ErrKeyID     = errors.New("key id is unknown")
	ErrSignature = errors.New("signature does not verify")
	ErrIssuer    = errors.New("issuer is another")
	ErrAudience  = errors.New("audience is another")
	ErrExpired   = errors.New("token has expired")
	ErrFuture    = errors.New("token is of the future")
	ErrSubject   = errors.New("subject is another")
	ErrClaim     = errors.New("claim is another")
)

// A signature is a JSON Web Signature (RFC 7515) in compact form, taken apart.
type signature struct {
	keyID     string
	algorithm Algorithm
	payload   []byte
	signed    string // header and payload as they are signed
	value     []byte
}

// parseSignature reads header and form. Errors: ErrMalformed, ErrAlgorithm,
// ErrCritical.
func parseSignature(text string) (*signature, error) {
	if len(text) > MaxToken {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrMalformed, len(text), MaxToken)
	}
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return nil, fmt.Errorf("%w: %d parts, want 3", ErrMalformed, len(parts))
	}
	var decoded [3][]byte
	for i, part := range parts {
		var err error
		if decoded[i], err = decodeSegment(part); err != nil {
			return nil, fmt.Errorf("%w: part %d: %w", ErrMalformed, i, err)
		}
	}
	s := &signature{payload: decoded[1], value: decoded[2], signed: text[:len(parts[0])+1+len(parts[1])]}
	return s, s.readHeader(decoded[0])
}

func (s *signature) readHeader(b []byte) error {
	_, n, err := strictjson.Parse(b, maxHeader)
	if err != nil {
		return fmt.Errorf("%w: header: %w", ErrMalformed, err)
	}
	if n.Has("crit") {
		return ErrCritical
	}
	if n.Has("typ") {
		switch t := n.Member("typ").Text(); strings.ToLower(t) {
		case "jwt", "jose", "at+jwt", "application/at+jwt":
		default:
			return fmt.Errorf("%w: type %q", ErrMalformed, t)
		}
	}
	s.algorithm, s.keyID = parseAlgorithm(n.Member("alg").Text()), n.Member("kid").Text()
	if err := n.Err(); err != nil {
		return fmt.Errorf("%w: header: %w", ErrMalformed, err)
	}
	if s.algorithm == 0 {
		return ErrAlgorithm
	}
	return nil
}

// verify checks the signature with the key of keys that the header names. Errors:
// ErrKeyID, ErrAlgorithm, ErrSignature.
func (s *signature) verify(keys []Key) error {
	for i := range keys {
		k := &keys[i]
		if k.ID != s.keyID {
			continue
		}
		if k.Algorithm != s.algorithm { // the key decides, not the token
			return ErrAlgorithm
		}
		if !k.verify([]byte(s.signed), s.value) {
			return ErrSignature
		}
		return nil
	}
	return ErrKeyID
}

// decodeSegment reads base64url without padding in its one encoding.
func decodeSegment(text string) ([]byte, error) {
	if strings.ContainsAny(text, "\r\n") { // which the decoder skips
		return nil, errors.New("line end in base64")
	}
	return base64.RawURLEncoding.Strict().DecodeString(text)
}

// A Token is a token that has been read. What it says is not to be believed before
// Check.
type Token struct {
	signature *signature
	issuer    string
}

// Parse reads a token of at most MaxToken bytes in compact form. Errors: ErrMalformed,
// ErrAlgorithm, ErrCritical.
func Parse(text string) (*Token, error) {
	s, err := parseSignature(text)
	if err != nil {
		return nil, err
	}
	_, claims, err := strictjson.Parse(s.payload, MaxToken)
	if err != nil {
		return nil, fmt.Errorf("%w: claims: %w", ErrMalformed, err)
	}
	t := &Token{signature: s, issuer: claims.Member("iss").Text()}
	if err := claims.Err(); err != nil {
		return nil, fmt.Errorf("%w: claims: %w", ErrMalformed, err)
	}
	return t, nil
}

// Issuer is who the token says has made it. Nothing is verified.
func (t *Token) Issuer() string { return t.issuer }
