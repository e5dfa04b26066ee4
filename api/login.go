package api

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// The actions of workload login, docs/login.md. Login and LoginChallenge are POSTs
// without a signature; the others are for owners, and their payloads must have the
// member ActionMember.
const (
	Login           = "Login"
	LoginChallenge  = "LoginChallenge"
	PutLoginRule    = "PutLoginRule"
	ListLoginRules  = "ListLoginRules"
	DeleteLoginRule = "DeleteLoginRule"
)

// Texts of refusals.
const (
	MessageLogin           = "login failed"
	MessageLoginRule       = "not find this login rule"
	MessageLoginRules      = "too many login rules"
	MessageLoginRuleBefore = "login rule refused: " // and what is wrong with it
)

// Kinds of login rules.
const (
	LoginJWT   = "jwt"   // a token of an issuer
	LoginQuote = "quote" // the client's own SGX quote
)

// PolicyAll is the policy of a login rule that allows all that the role may.
const PolicyAll = "all"

// Limits of login rules.
const (
	MaxLoginRules    = 16        // of each kind
	MinLoginLifetime = 60        // seconds
	MaxLoginLifetime = 12 * 3600 // seconds
	MaxLoginJWT      = 16 << 10  // bytes of a JWT
	MaxLoginQuote    = 8192      // bytes of a quote
)

// PutLoginRuleRequest makes a login rule, or replaces the one of its name; who has
// logged in by that is out then. Of kind LoginJWT it has the members from Issuer on,
// of LoginQuote either MREnclave, or MRSigner, Product and MinSVN.
type PutLoginRuleRequest struct {
	Name            string `json:"name"` // 1 to 64 characters of printable ASCII
	Kind            string `json:"kind"`
	Policy          string `json:"policy"` // id of a policy, or PolicyAll
	LifetimeSeconds int    `json:"lifetimeSeconds"`

	MREnclave string `json:"mrEnclave,omitempty"` // 64 hex digits
	MRSigner  string `json:"mrSigner,omitempty"`  // 64 hex digits
	Product   int    `json:"isvProdId,omitempty"`
	MinSVN    int    `json:"minIsvSvn,omitempty"`

	Issuer   string `json:"issuer,omitempty"`   // "iss", exactly
	Audience string `json:"audience,omitempty"` // "aud", exactly and alone
	Subject  string `json:"subject,omitempty"`  // "sub"; with * at its end what it begins with
	Claims   string `json:"claims,omitempty"`   // JSON object of names, or JSON pointers, and texts
	JWKS     string `json:"jwks,omitempty"`     // JSON Web Key Set: the issuer's public keys
}

// PutLoginRuleResult names the rule as it now is; another state has another id.
type PutLoginRuleResult struct {
	RuleID string `json:"ruleId"`
}

// ListLoginRulesResult has all rules of the tenant.
type ListLoginRulesResult struct {
	List []LoginRule `json:"list"`
}

// A LoginRule is one that holds. JWKS and Claims are not those of the request byte for
// byte, but what was taken from them; keys are listed by id and algorithm.
type LoginRule struct {
	RuleID          string `json:"ruleId"`
	Name            string `json:"name"`
	Kind            string `json:"kind"`
	Policy          string `json:"policy"`
	LifetimeSeconds int    `json:"lifetimeSeconds"`
	Created         int64  `json:"created"` // Unix milliseconds
	By              string `json:"by"`      // credential

	MREnclave string `json:"mrEnclave,omitempty"`
	MRSigner  string `json:"mrSigner,omitempty"`
	Product   int    `json:"isvProdId,omitempty"`
	MinSVN    int    `json:"minIsvSvn,omitempty"`

	Issuer   string            `json:"issuer,omitempty"`
	Audience string            `json:"audience,omitempty"`
	Subject  string            `json:"subject,omitempty"`
	Claims   map[string]string `json:"claims,omitempty"`
	Keys     map[string]string `json:"keys,omitempty"` // algorithm by key id
}

// DeleteLoginRuleRequest names a rule. Who has logged in by it is out. The result is
// Empty.
type DeleteLoginRuleRequest struct {
	Name string `json:"name"`
}

// A LoginRequest carries a LoginAsk, encrypted for one core instance by HPKE like an
// EnrollFinishRequest, with LoginInfo.
type LoginRequest struct {
	InstanceID string `json:"instanceId"`
	Enc        []byte `json:"enc"`
	Ciphertext []byte `json:"ciphertext"`
}

// A LoginResult carries a LoginGrant: a nonce of 12 bytes and its encryption with
// AES-256-GCM, without additional data, under the 32 bytes that LoginReplyExport takes
// out of the HPKE context of the request.
type LoginResult struct {
	InstanceID string `json:"instanceId"`
	Ciphertext []byte `json:"ciphertext"`
}

// LoginChallengeResult has what evidence of the client must bind: LoginChallengeSize
// bytes that this instance takes once, within two minutes.
type LoginChallengeResult struct {
	InstanceID string `json:"instanceId"`
	Challenge  []byte `json:"challenge"`
}

// LoginReplyExport is the exporter context of the key of the reply.
const LoginReplyExport = "ehsm/login-reply/v1\x00"

// LoginInfo is the HPKE info of the request.
func LoginInfo(domain [32]byte, instance [16]byte) []byte {
	return append(append([]byte("ehsm/login/v1\x00"), domain[:]...), instance[:]...)
}

// Sizes and numbers of what is encrypted.
const (
	// LoginChallengeSize is the size of a challenge in bytes.
	LoginChallengeSize = 32

	loginFormat   = 1
	loginAskHead  = 1 + 16 + 1
	loginEd25519  = 2
	loginP256     = 3
	ed25519Size   = 32
	p256Size      = 65
	proofJWT      = 1
	proofQuote    = 2
	tokenHeadSize = 1 + 4 + 3*16 + 8 + 8 + 1
	tokenMACSize  = 32
)

// ErrLogin is wrapped by the errors about messages of workload login and about their
// tokens.
var ErrLogin = errors.New("not a message of workload login")

// loginKeySize is the size of a public key, 0 for a kind that is none.
func loginKeySize(kind byte) int {
	switch kind {
	case loginEd25519:
		return ed25519Size
	case loginP256:
		return p256Size
	}
	return 0
}

func loginKind(kind CredentialKind) byte {
	switch kind {
	case KindEd25519:
		return loginEd25519
	case KindP256:
		return loginP256
	}
	return 0
}

func credentialKind(kind byte) CredentialKind {
	if kind == loginEd25519 {
		return KindEd25519
	}
	return KindP256
}

// LoginKey is the form of a public key in messages and report data: its kind in one
// byte (2 Ed25519, 3 P-256) and the key, 32 or 65 bytes. It is nil for what is no
// public key of that kind by its size.
func LoginKey(kind CredentialKind, public []byte) []byte {
	k := loginKind(kind)
	if k == 0 || loginKeySize(k) != len(public) {
		return nil
	}
	return append([]byte{k}, public...)
}

// A LoginAsk is what a workload sends inside: who it wants to be, and the proof, of
// which it has either JWT or Challenge and Quote.
type LoginAsk struct {
	Tenant    [16]byte // appid
	Kind      CredentialKind
	PublicKey []byte // fresh, of Kind
	JWT       []byte // a secret
	Challenge [LoginChallengeSize]byte
	Quote     []byte
}

// Append appends format 1 (1 byte), appid, LoginKey, and kind of proof (1 byte): 1 and
// a JWT, or 2, challenge and quote.
func (a *LoginAsk) Append(dst []byte) []byte {
	dst = append(append(dst, loginFormat), a.Tenant[:]...)
	dst = append(dst, LoginKey(a.Kind, a.PublicKey)...)
	if len(a.JWT) > 0 {
		return append(append(dst, proofJWT), a.JWT...)
	}
	return append(append(append(dst, proofQuote), a.Challenge[:]...), a.Quote...)
}

// DecodeLoginAsk reads what Append wrote. Proof and key share memory with b. Errors:
// ErrLogin.
func DecodeLoginAsk(b []byte) (*LoginAsk, error) {
	refused := fmt.Errorf("%w: %d bytes", ErrLogin, len(b))
	if len(b) < loginAskHead || b[0] != loginFormat {
		return nil, refused
	}
	size := loginKeySize(b[loginAskHead-1])
	if size == 0 || len(b) < loginAskHead+size+2 {
		return nil, refused
	}
	a := &LoginAsk{Tenant: [16]byte(b[1:]), Kind: credentialKind(b[loginAskHead-1]), PublicKey: b[loginAskHead : loginAskHead+size]}
	kind, proof := b[loginAskHead+size], b[loginAskHead+size+1:]
	switch {
	case kind == proofJWT && len(proof) <= MaxLoginJWT:
		a.JWT = proof
		return a, nil
	case kind == proofQuote && len(proof) > LoginChallengeSize && len(proof) <= LoginChallengeSize+MaxLoginQuote:
		a.Challenge, a.Quote = [LoginChallengeSize]byte(proof), proof[LoginChallengeSize:]
		return a, nil
	}
	return nil, refused
}

// A LoginGrant is what the core sends inside.
type LoginGrant struct {
	Now   int64 // the core's time, Unix milliseconds
	Token string
}

// Append appends format 1 (1 byte), time (8) and the text of the token.
func (g *LoginGrant) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(append(dst, loginFormat), uint64(g.Now))
	return append(dst, g.Token...)
}

// DecodeLoginGrant reads what Append wrote. Errors: ErrLogin.
func DecodeLoginGrant(b []byte) (*LoginGrant, error) {
	if len(b) <= 9 || b[0] != loginFormat {
		return nil, fmt.Errorf("%w: grant of %d bytes", ErrLogin, len(b))
	}
	return &LoginGrant{Now: int64(binary.BigEndian.Uint64(b[1:])), Token: string(b[9:])}, nil
}

// LoginTokenPrefix begins the text of a login token, and no credential id.
const LoginTokenPrefix = "ehsm-login-v1."

// A LoginToken is the credential of a workload that has logged in. It is of use with
// the private half of PublicKey only, and no secret. The core that checks it has no
// record of it.
type LoginToken struct {
	DomainKey  uint32 // version that the MAC is made with
	Tenant     [16]byte
	Credential [16]byte // id: the same for the same tenant and public key
	Rule       [16]byte // id of the login rule
	Revision   uint64   // of the tenant's settings
	Expires    int64    // Unix milliseconds
	Kind       CredentialKind
	PublicKey  []byte
	MAC        [tokenMACSize]byte
}

// Head is what the MAC covers, behind the domain id: format 1 (1 byte), version of the
// DomainKey (4), appid (16), credential id (16), rule id (16), revision (8), end (8) and
// LoginKey.
func (t *LoginToken) Head() []byte {
	b := binary.BigEndian.AppendUint32([]byte{loginFormat}, t.DomainKey)
	b = append(append(append(b, t.Tenant[:]...), t.Credential[:]...), t.Rule[:]...)
	b = binary.BigEndian.AppendUint64(b, t.Revision)
	b = binary.BigEndian.AppendUint64(b, uint64(t.Expires))
	return append(b, LoginKey(t.Kind, t.PublicKey)...)
}

// Text is the member "credential" of requests: LoginTokenPrefix and the base64url of
// Head and MAC, without padding.
func (t *LoginToken) Text() string {
	return LoginTokenPrefix + base64.RawURLEncoding.EncodeToString(append(t.Head(), t.MAC[:]...))
}

// ParseLoginToken reads the one form of a token. It does not check the MAC, which only
// a core can. Errors: ErrLogin.
func ParseLoginToken(text string) (*LoginToken, error) {
	refused := fmt.Errorf("%w: token of %d characters", ErrLogin, len(text))
	const most = tokenHeadSize + p256Size + tokenMACSize
	rest, ok := strings.CutPrefix(text, LoginTokenPrefix)
	if !ok || len(rest) > base64.RawURLEncoding.EncodedLen(most) || strings.ContainsAny(rest, "\r\n") {
		return nil, refused
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(rest)
	if err != nil || len(b) < tokenHeadSize || b[0] != loginFormat {
		return nil, refused
	}
	size := loginKeySize(b[tokenHeadSize-1])
	if size == 0 || len(b) != tokenHeadSize+size+tokenMACSize {
		return nil, refused
	}
	return &LoginToken{
		DomainKey: binary.BigEndian.Uint32(b[1:]), Tenant: [16]byte(b[5:]), Credential: [16]byte(b[21:]), Rule: [16]byte(b[37:]),
		Revision: binary.BigEndian.Uint64(b[53:]), Expires: int64(binary.BigEndian.Uint64(b[61:])),
		Kind: credentialKind(b[tokenHeadSize-1]), PublicKey: b[tokenHeadSize : tokenHeadSize+size],
		MAC: [tokenMACSize]byte(b[tokenHeadSize+size:]),
	}, nil
}
