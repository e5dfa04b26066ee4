package manifest

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// Why a manifest does not follow the one that a State is of.
var (
	ErrDomain    = errors.New("manifest of another domain")
	ErrVersion   = errors.New("manifest is not newer than the one in force")
	ErrPrevious  = errors.New("manifest does not follow the one in force")
	ErrDate      = errors.New("date of the manifest")
	ErrFixed     = errors.New("manifest changes what a domain never changes")
	ErrRecovery  = errors.New("recovery key and custodians change together")
	ErrEndorsed  = errors.New("recovery key is not endorsed by a TEE of the domain")
	ErrSigner    = errors.New("manifest is signed by somebody who is no operator")
	ErrSignature = errors.New("signature of the manifest does not verify")
	ErrQuorum    = errors.New("manifest has too few signatures")
	ErrFinal     = errors.New("the domain has no operators and never gets another manifest")
)

// maxAhead is how far the date of a manifest may lie ahead of the clock.
const maxAhead = 24 * time.Hour

// State is what holds in a domain: the last manifest of a verified chain. Its
// fields are read only.
type State struct {
	Domain genesis.ID
	Hash   Hash // of the manifest; of a genesis of version 1 the domain id
	// Operators has no members in a domain whose genesis is of package genesis.
	Statement
}

// Open verifies a genesis: a manifest of version 1 that a quorum of its own
// operators has signed, or a file of package genesis, which has no operators. The
// caller compares State.Domain with the id it knows, as anybody can make a domain.
// Errors: ErrInvalid, genesis.ErrInvalid, ErrVersion, and those of signatures.
func Open(file []byte) (*State, error) {
	if isV1(file) {
		return openV1(file)
	}
	m, err := Parse(file)
	if err != nil {
		return nil, err
	}
	if m.Statement.Version != 1 {
		return nil, fmt.Errorf("%w: it has version %d, a genesis has 1", ErrVersion, m.Statement.Version)
	}
	if err := m.verify(&m.Statement.Operators); err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	return m.state(), nil
}

// Trust returns the state of a file that the caller has verified before and kept
// where nobody else writes, such as a signer's own copy. It verifies no signature.
// Errors: ErrInvalid, genesis.ErrInvalid.
func Trust(file []byte) (*State, error) {
	if isV1(file) {
		return openV1(file)
	}
	m, err := Parse(file)
	if err != nil {
		return nil, err
	}
	return m.state(), nil
}

// state is that of a manifest which the caller has verified or trusts.
func (m *Manifest) state() *State {
	s := &State{Domain: genesis.ID(m.Statement.Domain), Hash: m.Hash(), Statement: m.Statement}
	if m.Statement.Version == 1 {
		s.Domain = genesis.ID(s.Hash)
	}
	return s
}

// Next verifies that a manifest follows: of the same domain, newer, naming the
// hash of s, not dated before it nor, unless now is zero, more than a day after
// now, changing nothing that is fixed, and signed by a quorum of the operators of
// s. Version numbers may be left out, as the hash shows that nothing else is.
// Errors: ErrInvalid, ErrDomain, ErrVersion, ErrPrevious, ErrDate, ErrFixed,
// ErrRecovery, ErrEndorsed, ErrSigner, ErrSignature, ErrQuorum, ErrFinal.
func (s *State) Next(file []byte, now time.Time) (*State, error) {
	m, err := Parse(file)
	if err != nil {
		return nil, err
	}
	if err := s.Leads(m, now); err != nil {
		return nil, err
	}
	if err := m.verify(&s.Operators); err != nil {
		return nil, err
	}
	return m.state(), nil
}

// Leads checks all that Next does but the signatures, which are still to come
// when an operator decides whether to sign.
func (s *State) Leads(m *Manifest, now time.Time) error {
	n := &m.Statement
	switch {
	case len(s.Operators.Members) == 0:
		return ErrFinal
	case n.Version == 1 || genesis.ID(n.Domain) != s.Domain:
		return fmt.Errorf("%w: it is for %s, this is %s", ErrDomain, m.state().Domain, s.Domain)
	case n.Version <= s.Version:
		return fmt.Errorf("%w: version %d after version %d", ErrVersion, n.Version, s.Version)
	case n.Previous != s.Hash:
		return fmt.Errorf("%w: it follows %s, version %d is %s; get what lies between", ErrPrevious, n.Previous, s.Version, s.Hash)
	case n.Date.Before(s.Date):
		return fmt.Errorf("%w: %s is before that of version %d, %s", ErrDate, n.Date.Format(time.RFC3339), s.Version, s.Date.Format(time.RFC3339))
	case !now.IsZero() && n.Date.After(now.Add(maxAhead)):
		return fmt.Errorf("%w: %s is ahead of the clock, %s", ErrDate, n.Date.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return s.keeps(n)
}

// keeps refuses changes of what is fixed.
func (s *State) keeps(n *Statement) error {
	switch {
	case !bytes.Equal(n.DomainKey, s.DomainKey):
		return fmt.Errorf("%w: domainKey", ErrFixed)
	case n.Root != s.Root:
		return fmt.Errorf("%w: root", ErrFixed)
	case !reflect.DeepEqual(n.Administrator, s.Administrator):
		return fmt.Errorf("%w: administrator", ErrFixed)
	case s.Recovery != nil && reflect.DeepEqual(n.Recovery, s.Recovery) != reflect.DeepEqual(n.Custodians, s.Custodians):
		return ErrRecovery
	case s.Recovery != nil && n.Recovery == nil && n.Custodians != nil:
		return fmt.Errorf("%w: custodians without a recovery key follow those who had one", ErrRecovery)
	case n.Recovery != nil && !reflect.DeepEqual(n.Recovery, s.Recovery) && !ed25519.Verify(s.DomainKey, EndorsedText(s.Domain, n.Recovery, n.Custodians), n.Recovery.Endorsement):
		return ErrEndorsed
	}
	return nil
}

// endorsementLabel is in every message by which a TEE vouches for a recovery key.
const endorsementLabel = "ehsm/recovery-endorsement/v1\x00"

// EndorsedText returns the message by which a TEE vouches, under the domain's key,
// that it has made a recovery key for the custodians q. Layout: docs/formats.md#manifest-v1.
func EndorsedText(domain genesis.ID, r *Recovery, q *Quorum) []byte {
	text := append([]byte(endorsementLabel), domain[:]...)
	text = pack.AppendBytes(pack.AppendBytes(pack.AppendBytes(text, r.PublicKey), r.Commitment), r.Digests)
	text = binary.BigEndian.AppendUint32(text, uint32(q.Threshold))
	for _, p := range q.Members {
		text = pack.AppendBytes(pack.AppendBytes(text, []byte(p.Name)), p.Key)
	}
	return text
}

// verify checks the signatures: all of them, and that they are enough.
func (m *Manifest) verify(operators *Quorum) error {
	text := m.SignedText()
	for _, sig := range m.Signatures {
		p, ok := operators.Member(sig.Key)
		if !ok {
			return fmt.Errorf("%w: key %x", ErrSigner, sig.Key)
		}
		if !ed25519.Verify(sig.Key, text, sig.Signature) {
			return fmt.Errorf("%w: that of %s", ErrSignature, p.Name)
		}
	}
	if len(m.Signatures) < operators.Threshold { // Parse has seen that no key signs twice
		return fmt.Errorf("%w: %d of %d operators signed, it takes %d", ErrQuorum, len(m.Signatures), len(operators.Members), operators.Threshold)
	}
	return nil
}

// isV1 reports whether a file says that it is of package genesis.
func isV1(file []byte) bool {
	var head struct {
		Format string `json:"format"`
	}
	return len(file) <= maxSize && json.Unmarshal(file, &head) == nil && head.Format == genesis.Format
}

// openV1 returns the state of a domain from before there were manifests. Its id
// is the hash of the file, as it always was.
func openV1(file []byte) (*State, error) {
	g, id, err := genesis.Parse(file)
	if err != nil {
		return nil, err
	}
	settings := Defaults(Development)
	settings.AllowSim, settings.SimRoot, settings.RequestWindow, settings.Enrollment = g.AllowSim, g.SimRoot, g.RequestWindow, EnrollmentClosed
	if g.OpenEnrollment {
		settings.Enrollment = EnrollmentOpen
	}
	if g.Attestation != nil {
		settings.Accept, settings.MinEvaluation = g.Attestation.Accept, g.Attestation.MinEvaluation
	}
	return &State{Domain: id, Hash: Hash(id), Statement: Statement{
		Format: genesis.Format, Version: 1, Date: g.Created, DomainKey: g.DomainKey, Terms: Terms{Root: Seal, Settings: settings},
	}}, nil
}
