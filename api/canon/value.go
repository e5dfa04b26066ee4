// Package canon reads JSON requests strictly and renders the canonical string
// that their signatures cover.
//
// The package is used on both sides of the wire: clients sign what
// AppendCanonical returns, the trusted core verifies it. One tree serves both
// the signature and the execution, so the values that are verified are the
// values that are executed; Covered removes from the tree what the signature
// does not protect.
//
// The canonical string of an object lists its members as name=value joined by
// "&", sorted by the UTF-16 code units of their names. Objects and arrays
// recurse, with the indexes of an array as its names, sorted as text. Strings
// are raw, without quotes or escapes; numbers are IEEE doubles printed as
// ECMAScript does; members without content are left out (see Form). Of a
// request only appid, nonce, payload and timestamp are covered.
//
// The string is ambiguous: {"a":"1&b=2"} and {"a":"1","b":"2"} render alike, so
// do 48 and "48", and {"0":"x"} and ["x"]. Strict validation of the payload is
// what limits the effect.
package canon

import (
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
)

// Kind is the type of a JSON value. The zero Kind says that there is none.
type Kind uint8

// The kinds of a Value.
const (
	Absent Kind = iota // no such member or element
	Null
	Bool
	Number
	String
	Array
	Object
)

// String returns the name of the kind in lower case.
func (k Kind) String() string {
	names := [...]string{"absent", "null", "bool", "number", "string", "array", "object"}
	if int(k) < len(names) {
		return names[k]
	}
	return "kind " + strconv.Itoa(int(k))
}

// A Value is one value of a JSON text. It is immutable and safe for concurrent
// use. The zero Value is Absent, and every accessor of an absent value or of
// one of another kind answers with its zero, so a chain of calls needs one
// check at its end.
//
// The strings of a Value may share the memory of the whole text it was read
// from and keep it alive.
type Value struct {
	kind Kind
	// text is what the canonical string shows of a scalar: the characters of a
	// String, the ECMAScript digits of a Number, "true" or "false" of a Bool.
	text string
	// kids are the members of an Object in canonical order, or the elements of
	// an Array, which have no names.
	kids []member
}

type member struct {
	name  string
	value Value
}

// Kind returns the type of v.
func (v Value) Kind() Kind { return v.kind }

// Text returns the characters of a String as valid UTF-8, and "" for every
// other kind.
func (v Value) Text() string {
	if v.kind != String {
		return ""
	}
	return v.text
}

// Number returns the IEEE double of a Number, and 0 for every other kind. It is
// finite, and never the negative zero.
func (v Value) Number() float64 {
	if v.kind != Number {
		return 0
	}
	// The text came from a double, so it parses back to the same one.
	f, _ := strconv.ParseFloat(v.text, 64)
	return f
}

// Bool reports whether v is the JSON literal true.
func (v Value) Bool() bool { return v.kind == Bool && v.text == "true" }

// Len is the number of members of an Object or elements of an Array, else 0.
func (v Value) Len() int { return len(v.kids) }

// Elem returns element i of an Array. It is Absent if v is no Array or i is out
// of range.
func (v Value) Elem(i int) Value {
	if v.kind != Array || i < 0 || i >= len(v.kids) {
		return Value{}
	}
	return v.kids[i].value
}

// Get returns the member of an Object with exactly this name, letter case
// included. It is Absent if v is no Object or has no such member.
func (v Value) Get(name string) Value {
	if i, ok := v.find(name); ok {
		return v.kids[i].value
	}
	return Value{}
}

// find returns the position of the member of an Object with this name.
func (v Value) find(name string) (int, bool) {
	if v.kind != Object {
		return 0, false
	}
	return slices.BinarySearchFunc(v.kids, name, func(m member, name string) int {
		return compareNames(m.name, name)
	})
}

// Members yields name and value of each member of an Object in canonical
// order, by the UTF-16 code units of the names. Names are unique. It yields
// nothing for other kinds.
func (v Value) Members() iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		if v.kind != Object {
			return
		}
		for _, m := range v.kids {
			if !yield(m.name, m.value) {
				return
			}
		}
	}
}

// Without returns the Object v without the member of this name: signed replies
// carry their signature as a member, which is not part of what it covers. Any
// other value is returned as it is.
func (v Value) Without(name string) Value {
	i, ok := v.find(name)
	if !ok {
		return v
	}
	return Value{kind: Object, kids: slices.Concat(v.kids[:i], v.kids[i+1:])}
}

// Format implements fmt.Formatter. It prints the kind and never the content
// under every verb, because requests carry plaintexts. fmt does not call it for
// an unexported field of another struct, so do not print those.
func (v Value) Format(f fmt.State, _ rune) { io.WriteString(f, v.kind.String()) }
