// Package manifest reads, writes and checks the signed statements that decide
// security in a domain. The first one, the genesis, makes the domain: its hash is
// the domain id. Each later one is signed by operators that the one before it
// names. A manifest is public and holds no secrets; whoever has the domain id and
// all manifests can check them, and so every TEE does.
//
// Layout: docs/formats.md#manifest-v1.
package manifest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// Values of the format members.
const (
	Format      = "ehsm-manifest/v1"
	DraftFormat = "ehsm-manifest-draft/v1"
)

const (
	maxSize    = 1 << 20 // bytes of a file
	maxVersion = 1 << 32
)

// ErrInvalid is wrapped by the errors of what is no manifest, whoever signed it.
var ErrInvalid = errors.New("invalid manifest")

// A Hash is a SHA-256, in files and texts 64 lower-case hex digits: of a
// statement, or of code as SGX measures it.
type Hash [sha256.Size]byte

// String returns the hash in hex.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hash) UnmarshalText(b []byte) error { return unhex(h[:], b) }

// unhex fills dst from hex digits, which must be as many as it takes.
func unhex(dst, text []byte) error {
	if len(text) != hex.EncodedLen(len(dst)) {
		return fmt.Errorf("%q has %d characters, want %d hex digits", text, len(text), hex.EncodedLen(len(dst)))
	}
	_, err := hex.Decode(dst, text)
	return err
}

// A Manifest is a statement with the signatures of operators. What Parse returns
// keeps the rules of the format; only State says whether it holds.
type Manifest struct {
	Statement Statement `json:"statement"`
	// Signatures are in ascending order of Key, each key once.
	Signatures []Signature `json:"signatures"`
}

// A Signature is an operator's, over what Manifest.SignedText returns.
type Signature struct {
	Key       []byte `json:"key"`       // the operator's Ed25519 public key, 32 bytes
	Signature []byte `json:"signature"` // 64 bytes
}

// A Statement is what operators sign.
type Statement struct {
	Format string `json:"format"`
	// Version is 1 in the genesis and higher in each later manifest.
	Version uint64 `json:"version"`
	// Date is when the statement was made, in UTC and whole seconds. No TEE of the
	// domain takes an earlier time for the present.
	Date time.Time `json:"date"`
	// Domain is the domain id, zero in the genesis, whose hash it is.
	Domain Hash `json:"domain,omitzero"`
	// Previous is the hash of the manifest that this one replaces, zero in the
	// genesis.
	Previous Hash `json:"previous,omitzero"`
	// DomainKey is the Ed25519 public key of the domain; the private half was made
	// in a TEE and stays in TEEs. It vouches for instances' audit keys.
	DomainKey []byte `json:"domainKey"`
	// Recovery is nil where no recovery key was made.
	Recovery *Recovery `json:"recovery,omitempty"`
	Terms
}

// Recovery is the public side of the escrow of the DomainKey, made in a TEE: a
// random scalar is shared among the custodians, and the key pair is derived of it.
type Recovery struct {
	PublicKey []byte `json:"publicKey"` // HPKE with MLKEM768-X25519, 1216 bytes
	// Commitment has 32 bytes for each custodian that must come together: elements
	// of ristretto255, by which a custodian checks a share.
	Commitment []byte `json:"commitment"`
	// Digests has 32 bytes for each custodian, in their order: package escrow says
	// what of. Nil in no manifest that a TEE has made.
	Digests []byte `json:"digests,omitempty"`
	// Endorsement is the signature of the domain's key over EndorsedText, 64 bytes:
	// a TEE of the domain has made the recovery key. Nil in a genesis, where whoever made the
	// domain's key made the recovery key too.
	Endorsement []byte `json:"endorsement,omitempty"`
}

// Terms are what people decide about a domain.
type Terms struct {
	Root Root `json:"root"`
	// Administrator is who sets up the domain's first tenants: an Ed25519 key.
	Administrator Person `json:"administrator"`
	// Operators sign manifests: Ed25519 keys.
	Operators Quorum `json:"operators"`
	// Custodians hold shares of the recovery key: HPKE keys with MLKEM768-X25519;
	// nil where there are none.
	Custodians *Quorum  `json:"custodians,omitempty"`
	Settings   Settings `json:"settings"`
}

// Root says what protects the DomainKey where it is made.
type Root string

// The kinds of root.
const (
	Seal Root = "seal" // the seal key of the dkeyserver's platform
	HSM  Root = "hsm"  // a key in a hardware security module
)

// Encode returns the one encoding of m.
func (m *Manifest) Encode() ([]byte, error) {
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return encode(m, "")
}

// Parse reads what Encode wrote, and nothing else: unknown members, other spacing
// and another order are refused. Errors: ErrInvalid.
func Parse(b []byte) (*Manifest, error) {
	m := new(Manifest)
	return m, parse(b, m, m.Encode)
}

// Hash is the SHA-256 of the statement as it stands in the file, from { to }.
func (m *Manifest) Hash() Hash {
	b, err := encode(m.Statement, "  ")
	if err != nil {
		panic(fmt.Sprintf("a statement does not encode: %v", err)) // it has nothing that could
	}
	return sha256.Sum256(bytes.TrimSuffix(b, []byte("\n")))
}

// signatureLabel is in every message that an operator signs.
const signatureLabel = "ehsm/manifest-signature/v1\x00"

// SignedText returns the message that operators sign: a label and the hash.
func (m *Manifest) SignedText() []byte {
	h := m.Hash()
	return append([]byte(signatureLabel), h[:]...)
}

// encode writes JSON with two spaces of indentation and without the escapes that
// only HTML needs. Each line but the first begins with prefix.
func encode(v any, prefix string) ([]byte, error) {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	e.SetIndent(prefix, "  ")
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return buf.Bytes(), nil
}

// parse reads into v what again writes, and nothing else.
func parse(b []byte, v any, again func() ([]byte, error)) error {
	if len(b) > maxSize {
		return fmt.Errorf("%w: %d bytes, limit %d", ErrInvalid, len(b), maxSize)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	encoded, err := again()
	if err != nil {
		return err
	}
	if !bytes.Equal(encoded, b) {
		return fmt.Errorf("%w: the file was edited or re-formatted; restore the original", ErrInvalid)
	}
	return nil
}

func (m *Manifest) validate() error {
	if err := m.Statement.validate(); err != nil {
		return err
	}
	if m.Signatures == nil {
		return errors.New("signatures is no list")
	}
	for i, s := range m.Signatures {
		switch {
		case len(s.Key) != ed25519.PublicKeySize || len(s.Signature) != ed25519.SignatureSize:
			return fmt.Errorf("signature %d has a key of %d bytes and a signature of %d, want %d and %d",
				i+1, len(s.Key), len(s.Signature), ed25519.PublicKeySize, ed25519.SignatureSize)
		case i >= maxPeople:
			return fmt.Errorf("more than %d signatures", maxPeople)
		case i > 0 && bytes.Compare(m.Signatures[i-1].Key, s.Key) >= 0:
			return errors.New("signatures are not in ascending order of their keys, or one signs twice")
		}
	}
	return nil
}

func (s *Statement) validate() error {
	first := s.Version == 1
	switch {
	case s.Format != Format:
		return fmt.Errorf("format %q, want %q", s.Format, Format)
	case s.Version < 1 || s.Version > maxVersion:
		return fmt.Errorf("version %d, want 1 to %d", s.Version, uint64(maxVersion))
	case s.Date.IsZero() || s.Date.Year() > 9999 || s.Date.Location() != time.UTC || s.Date.Nanosecond() != 0:
		return errors.New("date must be a UTC time in whole seconds")
	case first != (s.Domain == Hash{}) || first != (s.Previous == Hash{}):
		return errors.New("all but the genesis, and it alone does not, name domain and previous")
	case len(s.DomainKey) != ed25519.PublicKeySize:
		return fmt.Errorf("domainKey has %d bytes, want %d", len(s.DomainKey), ed25519.PublicKeySize)
	}
	if err := s.Terms.validate(); err != nil {
		return err
	}
	if name := s.Terms.holder(s.DomainKey); name != "" {
		return fmt.Errorf("domainKey is also the key of %s", name)
	}
	return s.validateRecovery()
}

func (s *Statement) validateRecovery() error {
	const element = 32 // bytes of one of ristretto255
	switch {
	case s.Recovery == nil:
		return nil
	case s.Custodians == nil:
		return errors.New("recovery without custodians")
	case len(s.Recovery.PublicKey) != wire.HPKEKeySize:
		return fmt.Errorf("recovery: publicKey has %d bytes, want %d", len(s.Recovery.PublicKey), wire.HPKEKeySize)
	case len(s.Recovery.Commitment) != element*s.Custodians.Threshold:
		return fmt.Errorf("recovery: commitment has %d bytes, want %d for each of the %d custodians that it takes",
			len(s.Recovery.Commitment), element, s.Custodians.Threshold)
	case len(s.Recovery.Digests) != 0 && len(s.Recovery.Digests) != sha256.Size*len(s.Custodians.Members):
		return fmt.Errorf("recovery: digests have %d bytes, want %d for each of %d custodians", len(s.Recovery.Digests), sha256.Size, len(s.Custodians.Members))
	case len(s.Recovery.Endorsement) != 0 && (s.Version == 1 || len(s.Recovery.Endorsement) != ed25519.SignatureSize):
		return fmt.Errorf("recovery: endorsement has %d bytes, want %d, and none in a genesis",
			len(s.Recovery.Endorsement), ed25519.SignatureSize)
	}
	return nil
}
