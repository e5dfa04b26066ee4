package core

import (
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
)

// memberKind is how a payload member is checked.
type memberKind uint8

const (
	_            memberKind = iota
	kindText                // string of min..max UTF-16 units
	kindBase64              // string of min..max characters that is standard base64
	kindUUID                // lower-case UUID
	kindHex                 // string of min..max hexadecimal digits in any letter case
	kindInteger             // JSON number without fraction, min..max
	kindName                // one of names
	kindNames               // array of names
	kindUUIDs               // array of 1..max lower-case UUIDs
	kindBase64s             // array of 1..api.MaxBatch strings of min..max characters that are standard base64
	kindSparse              // the same, in which null and "" stand for none
	kindInterval            // string of 1 to 4 digits and one of d, h, m, s
	kindForce               // boolean or its text
	kindBool                // boolean
	kindAny                 // anything; the action looks at it
)

// A member is one payload member of an action.
type member struct {
	name     string
	also     []string // other spellings of the name
	kind     memberKind
	optional bool
	min, max int
	names    []string
}

// payload is a validated payload, holding nothing but what the signature covers.
type payload struct {
	value   canon.Value
	members []member
}

// validate checks a payload against the members of its action, in their order.
// A strict action also refuses members that it does not know.
func validate(v canon.Value, members []member, strict bool) (payload, error) {
	p := payload{v, members}
	for i := range members {
		if err := p.check(&members[i]); err != nil {
			return p, err
		}
	}
	if strict {
		for name := range v.Members() {
			if !known(members, name) { // check: strict-payload
				return p, bad(fmt.Sprintf("Parameter invalid, The %s type is incorrect.", name), "unknown member")
			}
		}
	}
	return p, nil
}

// folded refuses a text that looks like several members. In the canonical string it
// cannot be told from them, so that a host could hide what a client has said in the
// text before it: when a credential expires, or which keys a policy is about. Actions
// that old clients know take such texts, as they may be anything.
func (p payload) folded() error {
	for name, v := range p.value.Members() {
		if v.Kind() != canon.String || !strings.Contains(v.Text(), "&") {
			continue
		}
		if strings.Contains(v.Text(), "&"+api.SealedMember+"=") { // check: folded-sealed
			return bad(fmt.Sprintf("Parameter invalid, The %s format wrong.", name), "text that looks like members")
		}
		for i := range p.members {
			if strings.Contains(v.Text(), "&"+p.members[i].name+"=") {
				return bad(fmt.Sprintf("Parameter invalid, The %s format wrong.", name), "text that looks like members")
			}
		}
	}
	return nil
}

// memberAction is the signed member that names the action; every payload may
// have it.
const memberAction = "action"

func known(members []member, name string) bool {
	if name == memberAction || name == api.SealedMember {
		return true
	}
	return slices.ContainsFunc(members, func(m member) bool {
		return m.name == name || slices.Contains(m.also, name)
	})
}

// find returns the value of a member under the spelling that was used. Two
// spellings with different values are refused.
func (p payload) find(m *member) (canon.Value, error) {
	v := p.value.Get(m.name)
	for _, name := range m.also {
		w := p.value.Get(name)
		switch {
		case w.Kind() == canon.Absent:
		case v.Kind() == canon.Absent:
			v = w
		case v.Kind() != w.Kind() || v.Text() != w.Text() || v.Number() != w.Number() || v.Bool() != w.Bool():
			return v, bad(fmt.Sprintf("Parameter invalid, The %s type is incorrect.", m.name), "two spellings")
		}
	}
	return v, nil
}

func (p payload) check(m *member) error {
	v, err := p.find(m)
	if err != nil {
		return err
	}
	if empty(v) {
		if m.optional {
			return nil
		}
		return errEmpty(m.name)
	}
	switch m.kind {
	case kindAny:
		return nil
	case kindInteger:
		return m.checkInteger(v)
	case kindBool:
		if v.Kind() != canon.Bool {
			return m.invalid("type is incorrect.")
		}
		return nil
	case kindForce:
		if !isForce(v) {
			return bad("The forceDelete must be true or false", "invalid member")
		}
		return nil
	case kindName:
		if v.Kind() != canon.String || !slices.Contains(m.names, v.Text()) {
			return m.invalid("type is incorrect.")
		}
		return nil
	case kindNames:
		return m.checkNames(v)
	case kindUUIDs:
		return m.checkUUIDs(v)
	case kindBase64s, kindSparse:
		return m.checkBase64s(v)
	}
	if v.Kind() != canon.String {
		return m.invalid("must be of string type.")
	}
	return m.checkText(v.Text())
}

// couldFit reports whether v has all required members and none that are unknown.
// It is the cheap half of a strict validate.
func couldFit(v canon.Value, members []member) bool {
	for name := range v.Members() {
		if !known(members, name) {
			return false
		}
	}
	p := payload{v, members}
	for i := range members {
		if w, err := p.find(&members[i]); err != nil || empty(w) && !members[i].optional {
			return false
		}
	}
	return true
}

func empty(v canon.Value) bool {
	return v.Kind() == canon.Absent || v.Kind() == canon.Null || v.Kind() == canon.String && v.Text() == ""
}

func (m *member) checkInteger(v canon.Value) error {
	n := v.Number()
	switch {
	case v.Kind() != canon.Number || n != math.Trunc(n):
		return m.invalid("must be of integer type.")
	case n > float64(m.max):
		return m.invalid(fmt.Sprintf("value must be less than or equal to %d.", m.max))
	case n < float64(m.min):
		return m.invalid(fmt.Sprintf("value must be greater than or equal to %d.", m.min))
	}
	return nil
}

func (m *member) checkNames(v canon.Value) error {
	if v.Kind() != canon.Array {
		return m.invalid("type is incorrect.")
	}
	for i := range v.Len() {
		if e := v.Elem(i); e.Kind() != canon.String || !slices.Contains(m.names, e.Text()) {
			return m.invalid("type is incorrect.")
		}
	}
	return nil
}

func (m *member) checkUUIDs(v canon.Value) error {
	if v.Kind() != canon.Array || v.Len() == 0 || v.Len() > m.max {
		return m.invalid("type is incorrect.")
	}
	for i := range v.Len() {
		if e := v.Elem(i); e.Kind() != canon.String || len(e.Text()) != 36 || !isKeyID(e.Text()) {
			return m.invalid("format wrong.")
		}
	}
	return nil
}

// checkBase64s checks the items of a batch. One that is malformed has the whole
// request refused: the canonical string does not tell ["QQ==&1=QQ=="] from two items,
// so that whoever is on the way could take items, or their additional data, out.
func (m *member) checkBase64s(v canon.Value) error {
	if v.Kind() != canon.Array {
		return m.invalid("must be of array type.")
	}
	if v.Len() > api.MaxBatch { // check: batch-size
		return m.invalid("length error.")
	}
	one := member{name: m.name, kind: kindBase64, min: m.min, max: m.max}
	for i := range v.Len() {
		switch e := v.Elem(i); {
		case empty(e) && m.kind == kindSparse:
		case empty(e):
			return errEmpty(m.name)
		case e.Kind() != canon.String:
			return m.invalid("must be of string type.")
		default:
			if err := one.checkText(e.Text()); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *member) checkText(s string) error {
	// A string has at most one UTF-16 unit per byte, so short ones need no count.
	if n := len(s); n > m.max || m.min > 1 {
		if n = canon.UTF16Len(s); n < m.min || n > m.max {
			return m.invalid("length error.")
		}
	}
	switch m.kind {
	case kindBase64:
		if !isBase64(s) {
			return m.invalid("not a vailed base64 string.")
		}
	case kindUUID:
		if !isKeyID(s) {
			return m.invalid("format wrong.")
		}
	case kindHex:
		if strings.Trim(s, "0123456789abcdefABCDEF") != "" {
			return m.invalid("format wrong.")
		}
	case kindInterval:
		if !isInterval(s) {
			return m.invalid("format wrong.")
		}
	}
	return nil
}

func (m *member) invalid(what string) error {
	return bad(fmt.Sprintf("Parameter invalid, The %s %s", m.name, what), "invalid member")
}

// isBase64 accepts the standard alphabet with correct padding and nothing else.
func isBase64(s string) bool {
	if len(s)%4 != 0 {
		return false
	}
	n := len(s)
	for pad := 0; pad < 2 && n > 0 && s[n-1] == '='; pad++ {
		n--
	}
	for i := range n {
		c := s[i]
		if !(c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '+' || c == '/') {
			return false
		}
	}
	return true
}

// isKeyID is the contract's pattern, which is wider than a UUID: what passes
// here and is no UUID names no key.
func isKeyID(s string) bool {
	for i := range len(s) {
		c := s[i]
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return false
			}
		} else if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9') {
			return false
		}
	}
	return true
}

func (p payload) get(name string) canon.Value {
	for i := range p.members {
		if p.members[i].name == name {
			v, _ := p.find(&p.members[i]) // validated
			return v
		}
	}
	return canon.Value{}
}

// text returns a string member, "" if absent.
func (p payload) text(name string) string { return p.get(name).Text() }

// bytes returns a base64 member decoded, nil if absent.
func (p payload) bytes(name string) []byte {
	s := p.text(name)
	if s == "" {
		return nil
	}
	b, _ := base64.StdEncoding.DecodeString(s) // validated
	return b
}

// names returns the elements of an array of names, nil if absent.
func (p payload) names(name string) (names []string) {
	v := p.get(name)
	for i := range v.Len() {
		names = append(names, v.Elem(i).Text())
	}
	return names
}

// integer returns an integer member, 0 if absent.
func (p payload) integer(name string) int { return int(p.get(name).Number()) }

// Members that several actions share.
const (
	maxBase64         = 8192                                 // characters of a base64 member
	maxPlaintext      = maxBase64 / 4 * 3                    // 6144 bytes
	maxDataKey        = 1024                                 // bytes
	maxCiphertext     = maxPlaintext + primitive.MaxOverhead // bytes
	maxCiphertextText = (maxCiphertext + 2) / 3 * 4
)

func keyIDMember(name string) member {
	return member{name: name, kind: kindUUID, min: 36, max: 36}
}

// hashMember is 32 bytes in hexadecimal.
func hashMember(name string) member {
	return member{name: name, kind: kindHex, min: 64, max: 64}
}

// textMember is arbitrary text of up to maxBase64 UTF-16 units.
func textMember(name string) member {
	return member{name: name, kind: kindText, min: 1, max: maxBase64}
}

func base64Member(name string, limit int) member {
	return member{name: name, kind: kindBase64, min: 1, max: limit}
}

// base64sMember is the items of a batch.
func base64sMember(name string, limit int) member {
	return member{name: name, kind: kindBase64s, min: 1, max: limit}
}

// sparseMember is something that each item of a batch may have, or not.
func sparseMember(name string, limit int) member {
	return member{name: name, kind: kindSparse, optional: true, min: 1, max: limit}
}

// paddingNames lists the paddings, PaddingNone first, and the spellings that only
// the documentation of old has.
func paddingNames() []string {
	return []string{
		primitive.PaddingNone.String(),
		primitive.PaddingPKCS1.String(), primitive.PaddingPSS.String(), primitive.PaddingOAEP.String(),
		"EH_PAD_RSA_PKCS1", "EH_PAD_RSA_PKCS1_PSS", "EH_PAD_RSA_PKCS1_OAEP",
	}
}

func messageTypeNames() []string {
	return []string{primitive.MessageRaw.String(), primitive.MessageDigest.String()}
}

func digestNames() []string {
	return []string{
		primitive.SHA224.String(), primitive.SHA256.String(), primitive.SHA384.String(), primitive.SHA512.String(),
		primitive.SM3.String(),
	}
}

func (m member) opt() member {
	m.optional = true
	return m
}

func (m member) or(names ...string) member {
	m.also = names
	return m
}
