package manifest

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Draft is what people decide before a domain is made. A TEE completes it with
// the domain's key to a genesis, which the operators sign.
type Draft struct {
	Format string `json:"format"` // DraftFormat
	Terms
}

// Encode returns the one encoding of d. Errors: ErrInvalid.
func (d *Draft) Encode() ([]byte, error) {
	if d.Format != DraftFormat {
		return nil, fmt.Errorf("%w: format %q, want %q", ErrInvalid, d.Format, DraftFormat)
	}
	if err := d.Terms.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return encode(d, "")
}

// ParseDraft reads what Draft.Encode wrote, and nothing else. Errors: ErrInvalid.
func ParseDraft(b []byte) (*Draft, error) {
	d := new(Draft)
	return d, parse(b, d, d.Encode)
}

// Complete returns the genesis, still without signatures, of a domain with the
// public key domainKey, made at date. recovery may be nil.
func (d *Draft) Complete(domainKey ed25519.PublicKey, recovery *Recovery, date time.Time) *Manifest {
	return &Manifest{Statement{
		Format: Format, Version: 1, Date: date.UTC().Truncate(time.Second), DomainKey: domainKey, Recovery: recovery, Terms: d.Terms,
	}, []Signature{}}
}

// Follow returns a manifest, still without signatures, that follows s and changes
// nothing yet. It is dated now, or like s where the clock is behind that.
func (s *State) Follow(now time.Time) (*Manifest, error) {
	if len(s.Operators.Members) == 0 {
		return nil, ErrFinal
	}
	n := s.Statement
	n.Version, n.Domain, n.Previous = s.Version+1, Hash(s.Domain), s.Hash
	if date := now.UTC().Truncate(time.Second); date.After(s.Date) {
		n.Date = date
	}
	return &Manifest{n, []Signature{}}, nil
}

// Sign adds the signature of an Ed25519 key, which may be in a device, in the
// place of an earlier one. Whether the key is an operator's is not checked.
func (m *Manifest) Sign(key crypto.Signer) error {
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return errors.New("operators sign with Ed25519 keys")
	}
	text := m.SignedText()
	signature, err := key.Sign(rand.Reader, text, crypto.Hash(0))
	if err != nil {
		return fmt.Errorf("sign the manifest: %w", err)
	}
	if !ed25519.Verify(public, text, signature) {
		return ErrSignature
	}
	i, found := slices.BinarySearchFunc(m.Signatures, []byte(public), func(s Signature, key []byte) int { return bytes.Compare(s.Key, key) })
	if !found {
		m.Signatures = slices.Insert(m.Signatures, i, Signature{})
	}
	m.Signatures[i] = Signature{public, signature}
	return nil
}

// ThrowAway returns the draft of a domain that nobody means to keep, and its one
// operator, whose key is in no other place: who forgets it can never change the
// domain's settings.
func ThrowAway(s Settings) (*Draft, crypto.Signer, error) {
	public, operator, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, nil, err
	}
	administrator, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, nil, err
	}
	return &Draft{DraftFormat, Terms{
		Root: Seal, Administrator: Person{"nobody", administrator}, Settings: s,
		Operators: Quorum{1, []Person{{"throw-away", public}}},
	}}, operator, nil
}
