package record

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/jwt"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// Limits of login rules.
const (
	MaxLoginRules    = 16        // of each kind
	MinLoginLifetime = 60        // seconds
	MaxLoginLifetime = 12 * 3600 // seconds
)

// TenantSettings is what an owner has decided for the tenant beside its credentials: by
// which proofs workloads log in. It has no material.
type TenantSettings struct {
	Modified int64 // Unix milliseconds
	Rules    []LoginRule
}

// LoginRule says which workloads may have a credential, and which one. It has either
// Issuer or Code, and never changes: another state of it has another ID.
type LoginRule struct {
	ID       wire.UUID
	Name     string    // 1 to MaxText bytes of printable ASCII, of one rule
	Policy   wire.UUID // zero: all that a user may
	Lifetime uint32    // seconds, of the credentials
	Created  int64     // Unix milliseconds
	By       wire.UUID // credential of the owner who made it
	Issuer   *jwt.Expected
	Code     *ClientCode
}

// ClientCode is an enclave that may log in with its own quote: of exactly MREnclave, or
// else of a signer, product and version.
type ClientCode struct {
	MREnclave, MRSigner [32]byte
	Product, MinSVN     uint16
}

const (
	tenantSettingsV1 = 1
	ruleIssuer       = 1
	ruleCode         = 2
	leastRule        = 16 + 2 + 16 + 4 + 8 + 16 + 1 // bytes
)

func (s *TenantSettings) validate() error {
	kinds, names, ids := [2]int{}, map[string]bool{}, map[wire.UUID]bool{}
	for i := range s.Rules {
		r := &s.Rules[i]
		if err := r.Validate(); err != nil {
			return fmt.Errorf("login rule %q: %w", r.Name, err)
		}
		if names[r.Name] || ids[r.ID] {
			return fmt.Errorf("login rule %q: there are two", r.Name)
		}
		names[r.Name], ids[r.ID] = true, true
		if r.Issuer != nil {
			kinds[0]++
		} else {
			kinds[1]++
		}
	}
	if max(kinds[0], kinds[1]) > MaxLoginRules {
		return fmt.Errorf("%d rules for tokens and %d for quotes, limit %d of each", kinds[0], kinds[1], MaxLoginRules)
	}
	return nil
}

// Validate refuses a rule that settings could not hold, and says why.
func (r *LoginRule) Validate() error {
	switch {
	case r.ID == wire.UUID{}:
		return errors.New("it has no id")
	case r.Name == "" || !printable(r.Name):
		return fmt.Errorf("name is not of 1 to %d bytes of printable ASCII", MaxText)
	case r.Lifetime < MinLoginLifetime || r.Lifetime > MaxLoginLifetime:
		return fmt.Errorf("credentials for %d s, want %d to %d", r.Lifetime, MinLoginLifetime, MaxLoginLifetime)
	case (r.Issuer == nil) == (r.Code == nil):
		return errors.New("it wants both a token and a quote, or neither")
	case r.Issuer != nil:
		return r.Issuer.Validate()
	}
	return r.Code.validate()
}

func (c *ClientCode) validate() error {
	none := [32]byte{}
	switch {
	case (c.MREnclave == none) == (c.MRSigner == none):
		return errors.New("it wants both a measurement and a signer, or neither")
	case c.MRSigner == none && (c.Product != 0 || c.MinSVN != 0):
		return errors.New("product or version beside a measurement")
	}
	return nil
}

// SealTenantSettings seals settings. It refuses what OpenTenantSettings would refuse,
// and rules that take more than 48 KiB.
func SealTenantSettings(keys *domainkey.Keyring, h Header, s TenantSettings) ([]byte, error) {
	if err := sealable(h, wire.TenantSettings, s.validate()); err != nil {
		return nil, err
	}
	b := appendInt64s([]byte{tenantSettingsV1}, s.Modified)
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.Rules)))
	for i := range s.Rules {
		b = s.Rules[i].append(b)
	}
	return seal(keys, h, b, secret.Bytes{})
}

// OpenTenantSettings opens settings. Errors: ErrOpen.
func OpenTenantSettings(keys *domainkey.Keyring, h Header, sealed []byte) (TenantSettings, error) {
	var s TenantSettings
	if h.ID.Type != wire.TenantSettings { // check+: settings-type: the core asks for settings by their type
		return s, fmt.Errorf("%w: %s is no tenant settings", ErrOpen, h.ID)
	}
	attributes, none, err := open(keys, h, sealed)
	if err != nil {
		return s, err
	}
	r := version(attributes, tenantSettingsV1)
	s.Modified = r.Int64()
	if n := r.Count(2*MaxLoginRules, leastRule); n > 0 {
		s.Rules = make([]LoginRule, n)
	}
	for i := range s.Rules {
		s.Rules[i].read(r)
	}
	if none.Len() != 0 {
		r.Fail("tenant settings have material")
	}
	if err := finish(r, s.validate()); err != nil {
		return TenantSettings{}, err
	}
	return s, nil
}

func (l *LoginRule) append(dst []byte) []byte {
	dst = pack.AppendString(append(dst, l.ID[:]...), l.Name)
	dst = binary.BigEndian.AppendUint32(append(dst, l.Policy[:]...), l.Lifetime)
	dst = append(appendInt64s(dst, l.Created), l.By[:]...)
	if c := l.Code; c != nil {
		dst = append(append(append(dst, ruleCode), c.MREnclave[:]...), c.MRSigner[:]...)
		return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(dst, c.Product), c.MinSVN)
	}
	return appendIssuer(append(dst, ruleIssuer), l.Issuer)
}

func appendIssuer(dst []byte, e *jwt.Expected) []byte {
	for _, text := range []string{e.Issuer, e.Audience, e.Subject} {
		dst = pack.AppendString(dst, text)
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(e.Claims)))
	for _, c := range e.Claims {
		dst = pack.AppendString(pack.AppendString(dst, c.Name), c.Value)
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(e.Keys)))
	for i := range e.Keys {
		k := &e.Keys[i]
		dst = pack.AppendBytes(append(pack.AppendString(dst, k.ID), byte(k.Algorithm)), k.Public)
	}
	return dst
}

func (l *LoginRule) read(r *pack.Reader) {
	r.Array(l.ID[:])
	l.Name = r.String(MaxText)
	r.Array(l.Policy[:])
	l.Lifetime, l.Created = r.Uint32(), r.Int64()
	r.Array(l.By[:])
	switch kind := r.Uint8(); {
	case r.Err() != nil:
	case kind == ruleIssuer:
		l.Issuer = readIssuer(r)
	case kind == ruleCode:
		c := new(ClientCode)
		r.Array(c.MREnclave[:])
		r.Array(c.MRSigner[:])
		c.Product, c.MinSVN = r.Uint16(), r.Uint16()
		l.Code = c
	default:
		r.Fail("login rule of kind %d", kind)
	}
}

func readIssuer(r *pack.Reader) *jwt.Expected {
	e := &jwt.Expected{Issuer: r.String(jwt.MaxText), Audience: r.String(jwt.MaxText), Subject: r.String(jwt.MaxText)}
	if n := r.Count(jwt.MaxClaims, 4); n > 0 {
		e.Claims = make([]jwt.Claim, n)
	}
	for i := range e.Claims {
		e.Claims[i] = jwt.Claim{Name: r.String(jwt.MaxText), Value: r.String(jwt.MaxText)}
	}
	if n := r.Count(jwt.MaxKeys, 2+1+4); n > 0 {
		e.Keys = make([]jwt.Key, n)
	}
	for i := range e.Keys {
		e.Keys[i] = jwt.Key{ID: r.String(jwt.MaxKeyID), Algorithm: jwt.Algorithm(r.Uint8()), Public: append([]byte(nil), r.Bytes(jwt.MaxPublic)...)}
	}
	return e
}
