package acceptance

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/attest"
)

// resultLabel starts what the key of a statement signs.
const resultLabel = "ehsm/acceptance-result/v1\x00"

// ErrSignature says that a statement's result is not what its key signed.
var ErrSignature = errors.New("the result is not what the program signed")

// A Statement is a result as it leaves the TEE: signed with a key that was made
// for it in the TEE, with evidence that binds key, result and nonce.
type Statement struct {
	Format    string `json:"format"`
	Result    Result `json:"result"`
	Key       Hex    `json:"key"`       // Ed25519
	Signature Hex    `json:"signature"` // over resultLabel and the result
	// Kind is that of the evidence, in the words of attest.Kind; empty if there
	// is none, and Problem says why.
	Kind     string `json:"evidenceKind"`
	Evidence Hex    `json:"evidence,omitempty"`
	Problem  string `json:"evidenceProblem,omitempty"`
}

// State signs a result with a fresh key and asks for evidence over it; attester
// is nil where the platform has none. That evidence cannot be had is part of the
// statement, no error.
func State(ctx context.Context, r Result, attester attest.Attester) (*Statement, error) {
	public, private, err := ed25519.GenerateKey(nil) // nil: crypto/rand
	if err != nil {
		return nil, fmt.Errorf("make a key for the report: %w", err)
	}
	result := encode(r)
	s := &Statement{Format: StatementFormat, Result: r, Key: Hex(public)}
	s.Signature = ed25519.Sign(private, append([]byte(resultLabel), result...))
	clear(private)
	if attester == nil {
		s.Problem = "this platform has no evidence"
		return s, nil
	}
	e, err := attester.Evidence(ctx, s.ReportData())
	if err != nil {
		s.Problem = NewCheck(Evidence, Fail, err.Error()).Detail
		return s, nil
	}
	s.Kind, s.Evidence = e.Kind.String(), e.Quote
	return s, nil
}

// ReportData is what the evidence of the statement must bind.
func (s *Statement) ReportData() [64]byte {
	sum := sha256.Sum256(encode(s.Result))
	return attest.ReportData(attest.UseAcceptance, [32]byte{}, s.Result.Nonce, sum[:], s.Key)
}

// TrialReportData is what the check Evidence has the platform bind: the nonce and
// 32 random bytes, one field less than a statement, so it vouches for nothing.
func TrialReportData(nonce []byte) [64]byte {
	var random [32]byte
	rand.Read(random[:]) // never fails
	return attest.ReportData(attest.UseAcceptance, [32]byte{}, nonce, random[:])
}

// CheckSignature says whether the statement's own key signed its result, which
// finds damage and shows nothing about the TEE. Errors: ErrSignature.
func (s *Statement) CheckSignature() error {
	if len(s.Key) != ed25519.PublicKeySize ||
		!ed25519.Verify(ed25519.PublicKey(s.Key), append([]byte(resultLabel), encode(s.Result)...), s.Signature) {
		return ErrSignature
	}
	return nil
}

// Encode returns the statement in one line, without a line feed.
func (s *Statement) Encode() []byte { return encode(s) }

// DecodeStatement reads what Encode wrote, and nothing else. It verifies nothing.
// Errors: ErrMalformed.
func DecodeStatement(b []byte) (*Statement, error) {
	var s Statement
	if err := decode(b, MaxStatement, &s); err != nil {
		return nil, err
	}
	return &s, s.check()
}

func (s *Statement) check() error {
	if s.Format != StatementFormat {
		return fmt.Errorf("%w: format %q, want %q", ErrMalformed, s.Format, StatementFormat)
	}
	seen := map[Name]bool{}
	for _, c := range s.Result.Checks {
		if c.Outcome != Pass && c.Outcome != Fail && c.Outcome != NotAvailable {
			return fmt.Errorf("%w: check %q has outcome %q", ErrMalformed, c.Name, c.Outcome)
		}
		if seen[c.Name] {
			return fmt.Errorf("%w: check %q occurs twice", ErrMalformed, c.Name)
		}
		seen[c.Name] = true
	}
	return nil
}
