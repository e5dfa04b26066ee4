package strictjson

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// fail keeps the first error.
func (n *Node) fail(err error, format string, args ...any) {
	if n.doc.err == nil {
		n.doc.err = fmt.Errorf("%w: %s"+format, append([]any{err, n.path()}, args...)...)
	}
}

// Err returns the first error of the document, like Document.Err.
func (n *Node) Err() error { return n.doc.err }

// absent is what a failed look-up returns: each method of it does nothing.
func (n *Node) absent(name string) *Node {
	return &Node{doc: n.doc, parent: n, name: name}
}

// Raw returns the bytes of an object or array as they stand in the document.
func (n *Node) Raw() []byte {
	if n.doc.err != nil {
		return nil
	}
	if n.end == 0 {
		n.fail(ErrType, ": want an object or an array")
		return nil
	}
	return n.doc.raw[n.start:n.end:n.end]
}

func (n *Node) object() object {
	o, ok := n.value.(object)
	if !ok {
		n.fail(ErrType, ": want an object")
	}
	return o
}

// Has reports whether an object has a member of that name.
func (n *Node) Has(name string) bool {
	if n.doc.err != nil {
		return false
	}
	return n.object().find(name) != nil
}

// Member returns a member that the object must have.
func (n *Node) Member(name string) *Node {
	if n.doc.err != nil {
		return n.absent(name)
	}
	if member := n.object().find(name); member != nil {
		return member
	}
	n.fail(ErrMissing, ".%s", name) // kept only if n is an object
	return n.absent(name)
}

// Only makes members of an object with other names an error.
func (n *Node) Only(names ...string) {
	if n.doc.err != nil {
		return
	}
	for _, member := range n.object() {
		if !slices.Contains(names, member.name) {
			n.fail(ErrUnknown, ".%s", member.name)
			return
		}
	}
}

// Items returns the values of an array of at most limit values.
func (n *Node) Items(limit int) []*Node {
	if n.doc.err != nil {
		return nil
	}
	a, ok := n.value.(array)
	if !ok {
		n.fail(ErrType, ": want an array")
	} else if len(a) > limit {
		n.fail(ErrValue, ": %d values, limit %d", len(a), limit)
	}
	if n.doc.err != nil {
		return nil
	}
	return a
}

// Text returns a string.
func (n *Node) Text() string {
	if n.doc.err != nil {
		return ""
	}
	s, ok := n.value.(string)
	if !ok {
		n.fail(ErrType, ": want a string")
	}
	return s
}

// Bool returns a truth value.
func (n *Node) Bool() bool {
	if n.doc.err != nil {
		return false
	}
	b, ok := n.value.(bool)
	if !ok {
		n.fail(ErrType, ": want true or false")
	}
	return b
}

// Uint returns a whole number from 0 to limit, written without a fraction or an
// exponent.
func (n *Node) Uint(limit uint64) uint64 {
	if n.doc.err != nil {
		return 0
	}
	number, ok := n.value.(json.Number)
	if !ok {
		n.fail(ErrType, ": want a number")
		return 0
	}
	v, err := strconv.ParseUint(string(number), 10, 64)
	if err != nil || v > limit {
		n.fail(ErrValue, ": %s is not a whole number from 0 to %d", number, limit)
		return 0
	}
	return v
}

// Hex fills dst from a string of hex digits in either case.
func (n *Node) Hex(dst []byte) {
	s := n.Text()
	if n.doc.err != nil {
		return
	}
	if len(s) != 2*len(dst) {
		n.fail(ErrValue, ": %d characters, want %d hex digits", len(s), 2*len(dst))
		return
	}
	if _, err := hex.Decode(dst, []byte(s)); err != nil {
		n.fail(ErrValue, ": %v", err)
	}
}

// timeLayout is the one form of dates in Intel's documents.
const timeLayout = "2006-01-02T15:04:05Z"

// Time returns a time in UTC, written as 2006-01-02T15:04:05Z and in no other way.
func (n *Node) Time() time.Time {
	s := n.Text()
	if n.doc.err != nil {
		return time.Time{}
	}
	t, err := time.Parse(timeLayout, s)
	if err != nil || t.Format(timeLayout) != s { // Parse takes fractions of seconds
		n.fail(ErrValue, ": %q is not a time like %s", s, timeLayout)
		return time.Time{}
	}
	return t
}
