package canon

import (
	"iter"
	"strconv"
)

// Form is one of the canonical forms that a signature may cover. They differ in
// the members they leave out, and in how they print true and false. All forms
// leave out null, [] and arrays whose joined text is empty: [""], [null], [[]].
//
// Any other value of a Form acts as Skipping.
type Form uint8

const (
	_ Form = iota

	// Skipping also leaves out "", 0, -0 and false. It is the form to sign.
	Skipping

	// Keeping shows empty strings, zeros and false: a=&b=0&c=false.
	Keeping

	// KeepingTitle is Keeping with True and False.
	KeepingTitle
)

// skips reports whether the form leaves out a member with the value v.
func (f Form) skips(v Value) bool {
	switch v.kind {
	case Absent, Null:
		return true
	case Array:
		return joinsEmpty(v)
	case Object:
		return false
	}
	return empty(v) && f != Keeping && f != KeepingTitle
}

// empty reports whether v is a scalar that only Skipping leaves out.
func empty(v Value) bool {
	switch v.kind {
	case String:
		return v.text == ""
	case Number:
		return v.text == "0"
	case Bool:
		return v.text == "false"
	}
	return false
}

// joinsEmpty reports whether Array.prototype.join of ECMAScript gives "". Null
// joins as "", an object as "[object Object]", and two elements have a comma.
func joinsEmpty(array Value) bool {
	if len(array.kids) != 1 {
		return len(array.kids) == 0
	}
	switch v := array.kids[0].value; v.kind {
	case Null:
		return true
	case String:
		return v.text == ""
	case Array:
		return joinsEmpty(v)
	}
	return false
}

// covers reports whether a signature covers the member of a request with this
// name.
func covers(name string) bool {
	switch name {
	case "appid", "nonce", "payload", "timestamp":
		return true
	}
	return false
}

// AppendCanonical appends the canonical string of the request v in the form f:
// that of its members appid, nonce, payload and timestamp. It appends nothing
// if v is no Object.
func (v Value) AppendCanonical(dst []byte, f Form) []byte {
	base := len(dst)
	for name, m := range v.Members() {
		if covers(name) {
			dst = f.appendMember(dst, base, name, m)
		}
	}
	return dst
}

// AppendCanonicalObject appends the canonical string of any Object v, with all
// its members, in the form f. It appends nothing if v is no Object.
func (v Value) AppendCanonicalObject(dst []byte, f Form) []byte {
	if v.kind != Object {
		return dst
	}
	return f.appendValue(dst, v)
}

// appendMember appends name=value, unless the form skips it, and an "&" before
// it if dst is longer than base, where the string of its object begins.
func (f Form) appendMember(dst []byte, base int, name string, v Value) []byte {
	if f.skips(v) {
		return dst
	}
	if len(dst) > base {
		dst = append(dst, '&')
	}
	dst = append(dst, name...)
	dst = append(dst, '=')
	return f.appendValue(dst, v)
}

func (f Form) appendValue(dst []byte, v Value) []byte {
	switch {
	case v.kind == Object:
		base := len(dst)
		for _, m := range v.kids {
			dst = f.appendMember(dst, base, m.name, m.value)
		}
		return dst
	case v.kind == Array:
		return f.appendArray(dst, v)
	case v.kind == Bool && f == KeepingTitle:
		if v.Bool() {
			return append(dst, "True"...)
		}
		return append(dst, "False"...)
	}
	return append(dst, v.text...)
}

// appendArray appends the elements in the order of their indexes as text:
// 0, 1, 10, 11, 2.
func (f Form) appendArray(dst []byte, v Value) []byte {
	base, n := len(dst), len(v.kids)
	for i, left := 0, n; left > 0; i, left = nextIndex(i, n), left-1 {
		e := v.kids[i].value
		if f.skips(e) {
			continue
		}
		if len(dst) > base {
			dst = append(dst, '&')
		}
		dst = append(strconv.AppendInt(dst, int64(i), 10), '=')
		dst = f.appendValue(dst, e)
	}
	return dst
}

// nextIndex returns the index below n whose text follows that of i. After the
// last one the result means nothing, but is below n.
func nextIndex(i, n int) int {
	if i == 0 {
		return min(1, n-1)
	}
	if i*10 < n {
		return i * 10
	}
	for i%10 == 9 || i+1 >= n {
		i /= 10
	}
	return i + 1
}

// Forms yields the forms to try on the request v, in order, without those that
// would give the same string again. The first is always Skipping, and mostly
// the only one. v is looked at only when the loop goes on after it.
func (v Value) Forms() iter.Seq[Form] {
	return func(yield func(Form) bool) { v.forms(yield) }
}

func (v Value) forms(yield func(Form) bool) {
	if !yield(Skipping) {
		return
	}
	var has content
	for name, m := range v.Members() {
		if covers(name) {
			has.look(m)
		}
	}
	if has.empty && !yield(Keeping) {
		return
	}
	if has.bool {
		yield(KeepingTitle)
	}
}

// content says what the Keeping form shows of a value: scalars that Skipping
// leaves out, and words that KeepingTitle prints otherwise.
type content struct{ empty, bool bool }

func (c *content) look(v Value) {
	if Keeping.skips(v) {
		return
	}
	c.empty = c.empty || empty(v)
	c.bool = c.bool || v.kind == Bool
	for _, m := range v.kids {
		c.look(m.value)
	}
}
