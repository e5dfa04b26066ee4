// Package attested verifies a service before anything secret is sent to it: that
// its core runs in a genuine TEE, that it is the wanted program on a wanted
// machine, and that it belongs to the expected domain.
//
//	policy, err := attested.ParsePolicy(file)
//	v := attested.Verifier{Policy: policy, Domain: domain}
//	report, err := v.Verify(ctx, client)
//
// The host of the service makes the connection, carries the evidence and may be
// hostile; it cannot answer a fresh challenge with evidence of another program,
// domain, instance or purpose. What it can do is to refuse. A report tells which
// core instance was verified, and its HPKE key: what is encrypted to that key is
// for this core only. TLS ends at the host, so that a request which is only
// signed is still read there. Requests of a client of Sealed are not:
//
//	client = v.Sealed(client)
//
// A workload that has no credentials logs in with a token or a quote, which only the
// verified core sees:
//
//	client, report, err := v.Login(ctx, client, attested.Workload{AppID: appID, JWT: attested.JWTFile(path)})
//
// Evidence of SGX, TDX and SEV-SNP is verified. Programs that import this package
// link the verifiers of all three; package ehsm alone links none.
package attested

import (
	"context"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
	"github.com/ehsm-kms/ehsm/internal/attest"
)

// Kinds of failure. Every error of Verify and VerifyNative that judges evidence
// is an *Error that wraps one of them.
var (
	// ErrConfig says that the Verifier itself is not usable.
	ErrConfig = errors.New("verifier is not usable")
	// ErrNoEvidence says that there is nothing to judge: the service gives no
	// evidence, or none that can be read.
	ErrNoEvidence = errors.New("service shows no evidence")
	// ErrNoCollateral says that nothing is known about the platform, so that
	// nothing can be said about the evidence.
	ErrNoCollateral = errors.New("no collateral for the evidence")
	// ErrNotGenuine says that the evidence does not come from a TEE that one of
	// the roots vouches for.
	ErrNotGenuine = errors.New("evidence is not genuine")
	// ErrSimulated says that the evidence is of a simulated platform: no hardware
	// protects the keys. It comes with ErrNotGenuine.
	ErrSimulated = errors.New("platform is simulated")
	// ErrStale says that certificate, revocation list or document is not in force
	// at this time. The clock may be wrong, or newer collateral is needed.
	ErrStale = errors.New("evidence or collateral is not in force")
	// ErrChallenge says that the evidence was made for another challenge, use,
	// role, domain, instance or key than the answer says: it may be an old one.
	ErrChallenge = errors.New("evidence was not made for this challenge")
	// ErrDomain says that the service belongs to another domain.
	ErrDomain = errors.New("service is of another domain")
	// ErrNotWanted says that the evidence is genuine, of something that the
	// policy does not accept.
	ErrNotWanted = errors.New("evidence is genuine, but not wanted")
)

// An Error is a refusal: its kind, the check that failed, and why.
type Error struct {
	Kind error  // one of the errors above
	Step string // such as "pck-chain", "report-data" or "policy"
	Err  error  // the cause
}

func (e *Error) Error() string { return fmt.Sprintf("%v: %s: %v", e.Kind, e.Step, e.Err) }

// Unwrap returns kind and cause.
func (e *Error) Unwrap() []error { return []error{e.Kind, e.Err} }

// A Verifier says what a service must prove. It is not changed by its methods and
// may be used by many goroutines.
type Verifier struct {
	// Policy says which programs, machines and TCB statuses are accepted. Every
	// machine is judged as one that is seen for the first time: the grace periods
	// of a policy do not apply.
	Policy *Policy
	// InsecureSkipPolicy accepts whatever is genuine, if there is no Policy: any
	// program of anybody, also one in debug mode. The report says what it is.
	InsecureSkipPolicy bool

	// Domain is the id of the domain that the service must belong to: anybody can
	// run the genuine programs in a domain of his own.
	Domain [32]byte
	// AnyDomain accepts every domain, if Domain is zero.
	AnyDomain bool

	// Roots are the trust anchors for SGX and TDX, and for SEV-SNP; nil means
	// those of Intel, and of AMD.
	Roots []*x509.Certificate
	// AllowSim accepts simulated platforms, as a policy with allow_sim does. If
	// none of Roots is theirs, the root is taken from the evidence, provided that
	// every certificate says that it is simulated. Nothing is proved then.
	AllowSim bool

	// Collateral is what the platform's maker says of the platform: the JSON that
	// verifiers exchange or a bundle for SGX and TDX, PEM for SEV-SNP. If it is
	// empty the service is asked; it is all signed, so that it need not be trusted.
	Collateral []byte

	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// evidenceKinds are those with a verifier here.
func evidenceKinds() []attest.Kind {
	return []attest.Kind{attest.SGXQuote3, attest.TDXQuote4, attest.TDXQuote5, attest.SNPReport}
}

// Verify asks the service for evidence over a fresh challenge and judges it. The
// client needs no credentials. Errors: *Error, and those of the connection.
func (v *Verifier) Verify(ctx context.Context, c *ehsm.Client) (*Report, error) {
	if err := v.usable(); err != nil {
		return nil, err
	}
	var challenge [api.EvidenceChallenge]byte
	rand.Read(challenge[:]) // never fails
	answer, err := c.Evidence(ctx, challenge)
	if err != nil {
		return nil, evidenceError(err)
	}
	claim, err := v.claimOf(challenge[:], &answer)
	if err != nil {
		return nil, err
	}
	return v.judge(ctx, c, claim)
}

// evidenceError tells a service that refuses from one that cannot be reached.
func evidenceError(err error) error {
	var refusal *api.Error
	if errors.As(err, &refusal) || errors.Is(err, ehsm.ErrReply) {
		return &Error{ErrNoEvidence, "answer", err}
	}
	return err
}

// A Native is an answer of GenerateQuote, whose signature by the core package
// ehsm has checked, and the challenge that was sent.
type Native struct {
	Challenge     []byte // 1 to api.MaxChallenge bytes, fresh
	Quote         []byte
	DomainID      [32]byte
	HPKEPublicKey []byte
}

// VerifyNative judges the quote of a GenerateQuote answer. The client is asked
// for collateral if the Verifier has none; it may be nil otherwise. The report
// names no instance, as such a quote does not. Errors: as of Verify.
func (v *Verifier) VerifyNative(ctx context.Context, c *ehsm.Client, n Native) (*Report, error) {
	if err := v.usable(); err != nil {
		return nil, err
	}
	if len(n.Challenge) == 0 || len(n.Challenge) > api.MaxChallenge {
		return nil, &Error{ErrChallenge, "challenge", fmt.Errorf("it has %d bytes, want 1 to %d", len(n.Challenge), api.MaxChallenge)}
	}
	kind := attest.KindOf(n.Quote)
	if kind == 0 {
		return nil, &Error{ErrNoEvidence, "parse", errors.New("quote is of no known kind")}
	}
	claim := &claim{
		evidence: attest.Evidence{Kind: kind, Quote: n.Quote}, domain: n.DomainID, hpkeKey: n.HPKEPublicKey,
		reportData: attest.NativeReportData(n.Challenge, n.DomainID, n.HPKEPublicKey),
	}
	if err := v.checkClaim(claim); err != nil {
		return nil, err
	}
	return v.judge(ctx, c, claim)
}

// usable refuses a Verifier that would accept anything, or nothing.
func (v *Verifier) usable() error {
	refuse := func(format string, args ...any) error {
		return &Error{ErrConfig, "configuration", fmt.Errorf(format, args...)}
	}
	pinned := v.Domain != [32]byte{}
	switch {
	case v.Policy == nil && !v.InsecureSkipPolicy:
		return refuse("no policy; InsecureSkipPolicy accepts any genuine program")
	case v.Policy != nil && v.InsecureSkipPolicy:
		return refuse("a policy and InsecureSkipPolicy exclude each other")
	case !pinned && !v.AnyDomain:
		return refuse("no domain id; AnyDomain accepts every domain")
	case pinned && v.AnyDomain:
		return refuse("a domain id and AnyDomain exclude each other")
	}
	return nil
}

func (v *Verifier) now() time.Time {
	if v.Now == nil {
		return time.Now()
	}
	return v.Now()
}

// A claim is what the service says of itself. The evidence must bind all of it.
type claim struct {
	evidence   attest.Evidence
	domain     [32]byte
	instance   string // UUID; empty for a native quote
	hpkeKey    []byte
	replyKey   []byte   // empty for a native quote, and of a service that has none
	reportData [64]byte // what the evidence must bind for this claim and challenge
}

// claimOf reads an answer of GetEvidence.
func (v *Verifier) claimOf(challenge []byte, answer *api.GetEvidenceResult) (*claim, error) {
	echo, err := base64.RawURLEncoding.Strict().DecodeString(answer.Challenge)
	if err != nil || subtle.ConstantTimeCompare(echo, challenge) != 1 {
		return nil, &Error{ErrChallenge, "challenge", errors.New("the answer is to another one")}
	}
	use, ok := bindings()[answer.ReportDataBinding]
	if answer.Role != api.RoleCore || !ok {
		return nil, &Error{ErrChallenge, "binding", fmt.Errorf("role %q, binding %q, want %q and %q", answer.Role, answer.ReportDataBinding, api.RoleCore, api.BindingInstanceKeys)}
	}
	c := &claim{instance: answer.InstanceID, hpkeKey: answer.HPKEPublicKey}
	if c.domain, err = ParseDomain(answer.DomainID); err != nil {
		return nil, &Error{ErrNoEvidence, "answer", err}
	}
	instance, err := parseInstance(answer.InstanceID)
	if err != nil {
		return nil, &Error{ErrNoEvidence, "answer", err}
	}
	if c.evidence, err = attest.DecodeEvidenceOf(answer.Evidence, evidenceKinds()...); err != nil {
		return nil, &Error{ErrNoEvidence, "parse", err}
	}
	fields := [][]byte{[]byte(api.RoleCore), challenge, instance[:], c.hpkeKey}
	if use == attest.UseInstanceKeys {
		if c.replyKey = answer.ReplyKey; len(c.replyKey) != ed25519.PublicKeySize {
			return nil, &Error{ErrNoEvidence, "answer", fmt.Errorf("reply key of %d bytes, want %d", len(c.replyKey), ed25519.PublicKeySize)}
		}
		fields = append(fields, c.replyKey)
	}
	c.reportData = attest.ReportData(use, c.domain, fields...)
	return c, v.checkClaim(c)
}

// bindings are those of GetEvidence that are understood.
func bindings() map[string]attest.Use {
	return map[string]attest.Use{api.BindingInstance: attest.UseInstance, api.BindingInstanceKeys: attest.UseInstanceKeys}
}

// checkDomain refuses another domain.
func (v *Verifier) checkDomain(c *claim) error {
	if !v.AnyDomain && subtle.ConstantTimeCompare(c.domain[:], v.Domain[:]) != 1 {
		return &Error{ErrDomain, "domain", fmt.Errorf("it says %x, want %x", c.domain, v.Domain)}
	}
	return nil
}

// checkClaim refuses another domain, and a key that nothing can be encrypted to.
func (v *Verifier) checkClaim(c *claim) error {
	if err := v.checkDomain(c); err != nil {
		return err
	}
	if _, err := hpke.MLKEM768X25519().NewPublicKey(c.hpkeKey); err != nil {
		return &Error{ErrNoEvidence, "answer", fmt.Errorf("HPKE public key: %w", err)}
	}
	return nil
}

// ParseDomain reads a domain id: 64 hex digits in lower case.
func ParseDomain(text string) (id [32]byte, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(id) || hex.EncodeToString(b) != text {
		return id, fmt.Errorf("domain id is %q, want 64 hex digits in lower case", text)
	}
	return [32]byte(b), nil
}

// parseInstance reads a UUID in its one form of lower case.
func parseInstance(text string) (id [16]byte, err error) {
	format := func(b []byte) string { return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]) }
	var digits []byte
	for i := range len(text) {
		if text[i] != '-' {
			digits = append(digits, text[i])
		}
	}
	if b, err := hex.DecodeString(string(digits)); err == nil && len(b) == len(id) && format(b) == text {
		return [16]byte(b), nil
	}
	return id, fmt.Errorf("instance id is %q, want a UUID in lower case", text)
}
