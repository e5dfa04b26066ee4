// Package genesis reads and writes the first statement of a domain. It is
// public: the host keeps the file, clients and auditors pin its hash.
//
// Layout: docs/formats.md#genesis-v1.
package genesis

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Format is the value of the format member.
const Format = "ehsm-genesis/v1"

// DefaultWindow is the request window of a domain whose maker chose none.
const DefaultWindow = 10 * time.Minute

const (
	maxSize   = 64 << 10 // bytes of a genesis file
	minWindow = 60       // seconds
	maxWindow = 3600     // seconds
)

// ErrInvalid is wrapped by every error of this package.
var ErrInvalid = errors.New("invalid genesis")

// ID is a domain id: the SHA-256 of the genesis file.
type ID [sha256.Size]byte

// String returns the id in hex.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// A Genesis states what decides security in a domain. Every TEE program of the
// domain takes these settings from here and from nowhere else.
type Genesis struct {
	Format string `json:"format"`
	// Created is when the domain was made, in UTC. No TEE of the domain takes
	// an earlier time for the present.
	Created time.Time `json:"created"`
	// DomainKey is the Ed25519 public key of the domain; the private half was
	// made in a TEE and stays in TEEs. It vouches for instances' audit keys.
	DomainKey []byte `json:"domainKey"`
	// AllowSim admits simulated platforms: keys are then not protected by hardware.
	AllowSim bool `json:"allowSim"`
	// OpenEnrollment lets anyone who reaches the service enroll.
	OpenEnrollment bool `json:"openEnrollment"`
	// RequestWindow is how far a request's timestamp may lie from now, in seconds.
	RequestWindow int `json:"requestWindowSeconds"`
	// SimRoot is the root certificate, in DER, of the simulated platforms whose
	// quotes VerifyQuote takes for genuine. Only with AllowSim; nil: none.
	SimRoot []byte `json:"simRoot,omitempty"`
	// Attestation says which genuine quotes VerifyQuote accepts; nil: those of
	// platforms that are up to date.
	Attestation *Attestation `json:"attestation,omitempty"`
}

// Window is RequestWindow as a duration.
func (g Genesis) Window() time.Duration { return time.Duration(g.RequestWindow) * time.Second }

// Encode returns the one encoding of g.
func (g Genesis) Encode() ([]byte, error) {
	if err := g.validate(); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(g, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return append(b, '\n'), nil
}

// Parse reads what Encode wrote, and nothing else: unknown members, other
// spacing and another order are refused, so that a domain has one id.
func Parse(b []byte) (Genesis, ID, error) {
	var g Genesis
	if len(b) > maxSize {
		return g, ID{}, fmt.Errorf("%w: %d bytes, limit %d", ErrInvalid, len(b), maxSize)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&g); err != nil {
		return g, ID{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	again, err := g.Encode()
	if err != nil {
		return g, ID{}, err
	}
	if !bytes.Equal(again, b) {
		return g, ID{}, fmt.Errorf("%w: the file was edited or re-formatted; restore the original", ErrInvalid)
	}
	return g, sha256.Sum256(b), nil
}

func (g Genesis) validate() error {
	switch {
	case g.Format != Format:
		return fmt.Errorf("%w: format %q, want %q", ErrInvalid, g.Format, Format)
	case g.Created.IsZero() || g.Created.Location() != time.UTC:
		return fmt.Errorf("%w: created must be a UTC time", ErrInvalid)
	case len(g.DomainKey) != ed25519.PublicKeySize:
		return fmt.Errorf("%w: domainKey has %d bytes, want %d", ErrInvalid, len(g.DomainKey), ed25519.PublicKeySize)
	case g.RequestWindow < minWindow || g.RequestWindow > maxWindow: // in seconds, as a duration may overflow
		return fmt.Errorf("%w: requestWindowSeconds is %d, want %d to %d", ErrInvalid, g.RequestWindow, minWindow, maxWindow)
	}
	err := g.validateSimRoot()
	if err == nil && g.Attestation != nil {
		err = g.Attestation.validate()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}
