package canon

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Limits of Parse.
const (
	// MaxDepth is how many objects and arrays may contain each other, the
	// outermost object included.
	MaxDepth = 16

	// MaxValues is how many values a text may have, containers included. It
	// bounds the nodes of a tree to 1 MiB, and while it is read there are a few
	// times as many. No text of up to 32 KiB exceeds it.
	MaxValues = 1 << 14

	// MaxDecimals is how many bytes those numbers of a text may have together
	// that are not integers of up to 15 characters. Some of these take more than
	// ten microseconds to read, and no request of the native API has one.
	MaxDecimals = 1024
)

// ErrSyntax is returned for a text that is not one strict JSON object within
// the limits.
var ErrSyntax = errors.New("invalid JSON")

// Parse reads one JSON object (RFC 8259) in UTF-8, with white space around it.
// It does not keep body. If an object has several members of one name, the last
// one wins. Escapes of lone surrogates become U+FFFD, in names too.
//
// Every error is ErrSyntax: anything the grammar does not allow, a value that
// is no object, bytes after it, invalid UTF-8, a byte order mark, a number
// beyond the range of an IEEE double such as 1e999, and what exceeds MaxDepth,
// MaxValues or MaxDecimals. The text of an error has positions but nothing of the content.
func Parse(body []byte) (Value, error) {
	if !utf8.Valid(body) {
		return Value{}, fmt.Errorf("%w: invalid UTF-8", ErrSyntax)
	}
	p := parser{src: string(body), stack: make([]member, 0, 8)} // enough for most requests
	p.space()
	if p.peek() != '{' {
		return Value{}, p.fail("no object")
	}
	v, err := p.value(0)
	if err != nil {
		return Value{}, err
	}
	if p.space(); p.pos != len(p.src) {
		return Value{}, p.fail("more than one value")
	}
	return v, nil
}

// A parser is a position in a text, and the members of all containers that are
// open there.
type parser struct {
	src      string // valid UTF-8
	pos      int
	values   int
	decimals int // bytes; see MaxDecimals
	stack    []member
}

// fail says what is wrong at the current position.
func (p *parser) fail(what string) error {
	return fmt.Errorf("%w: %s at byte %d", ErrSyntax, what, p.pos)
}

// peek returns the next byte. It is 0 at the end, which like a NUL in the text
// is an error wherever peek is called.
func (p *parser) peek() byte {
	if p.pos < len(p.src) {
		return p.src[p.pos]
	}
	return 0
}

// space skips white space.
func (p *parser) space() {
	for p.pos < len(p.src) {
		switch p.src[p.pos] {
		case ' ', '\t', '\n', '\r':
			p.pos++
		default:
			return
		}
	}
}

// value reads the value that starts here, inside depth containers.
func (p *parser) value(depth int) (Value, error) {
	if p.values++; p.values > MaxValues {
		return Value{}, p.fail("too many values")
	}
	switch c := p.peek(); c {
	case '"':
		s, err := p.string()
		return Value{kind: String, text: s}, err
	case '{':
		return p.container(Object, '}', depth)
	case '[':
		return p.container(Array, ']', depth)
	case 't':
		return p.literal(Bool, "true")
	case 'f':
		return p.literal(Bool, "false")
	case 'n':
		return p.literal(Null, "null")
	default:
		return p.number()
	}
}

// literal reads one of the three words.
func (p *parser) literal(kind Kind, word string) (Value, error) {
	if !strings.HasPrefix(p.src[p.pos:], word) {
		return Value{}, p.fail("no value")
	}
	p.pos += len(word)
	return Value{kind: kind, text: word}, nil
}

// container reads an Object or an Array from its opening bracket to end.
func (p *parser) container(kind Kind, end byte, depth int) (Value, error) {
	if depth == MaxDepth {
		return Value{}, p.fail("too deep nesting")
	}
	p.pos++
	if p.space(); p.peek() == end {
		p.pos++
		return Value{kind: kind}, nil
	}
	base := len(p.stack)
	for {
		m, err := p.member(kind, depth+1)
		if err != nil {
			return Value{}, err
		}
		p.stack = append(p.stack, m)
		p.space()
		switch p.peek() {
		case ',':
			p.pos++
		case end:
			p.pos++
			return Value{kind: kind, kids: p.take(kind, base)}, nil
		default:
			return Value{}, p.fail("no comma or closing bracket")
		}
	}
}

// member reads a member of an Object, or an element of an Array.
func (p *parser) member(kind Kind, depth int) (m member, err error) {
	p.space()
	if kind == Object {
		if p.peek() != '"' {
			return m, p.fail("no member name")
		}
		if m.name, err = p.string(); err != nil {
			return m, err
		}
		if p.space(); p.peek() != ':' {
			return m, p.fail("no colon")
		}
		p.pos++
		p.space()
	}
	m.value, err = p.value(depth)
	return m, err
}

// take removes the members from base on from the stack and returns a copy.
func (p *parser) take(kind Kind, base int) []member {
	kids := p.stack[base:]
	p.stack = p.stack[:base]
	if kind == Object {
		return sortMembers(kids)
	}
	// Not slices.Clone, which rounds the capacity up: the tree is kept.
	return append(make([]member, 0, len(kids)), kids...)
}

// sortMembers returns a copy of ms in canonical order, with the last of several
// members that have one name. It sorts positions, which are cheaper to move and
// tell equal names apart.
func sortMembers(ms []member) []member {
	var room [16]int
	order := room[:0]
	for i := range ms {
		order = append(order, i)
	}
	slices.SortFunc(order, func(i, j int) int {
		if c := compareNames(ms[i].name, ms[j].name); c != 0 {
			return c
		}
		return i - j
	})
	sorted := make([]member, 0, len(ms))
	for k, i := range order {
		if k+1 == len(order) || ms[order[k+1]].name != ms[i].name {
			sorted = append(sorted, ms[i])
		}
	}
	return sorted
}

// string reads from the opening quote past the closing one. Without escapes the
// result is part of the text.
func (p *parser) string() (string, error) {
	p.pos++
	start := p.pos
	p.pos += plainLen(p.src[start:])
	switch p.peek() {
	case '"':
		p.pos++
		return p.src[start : p.pos-1], nil
	case '\\':
		return p.escaped(start)
	}
	return "", p.fail("control character in string, or no closing quote")
}

// escaped reads on in a string that began at start and has its first escape
// here.
func (p *parser) escaped(start int) (string, error) {
	// Decoding never makes a text longer; the next quote is at the end, or at
	// least a guess.
	room := p.pos - start + strings.IndexByte(p.src[p.pos:], '"') + 1
	buf := append(make([]byte, 0, room), p.src[start:p.pos]...)
	for {
		switch p.peek() {
		case '"':
			p.pos++
			return string(buf), nil
		case '\\':
			var err error
			if buf, err = p.escape(buf); err != nil {
				return "", err
			}
		default:
			n := plainLen(p.src[p.pos:])
			if n == 0 {
				return "", p.fail("control character in string, or no closing quote")
			}
			buf = append(buf, p.src[p.pos:p.pos+n]...)
			p.pos += n
		}
	}
}

// escape reads one escape sequence, or two that are a surrogate pair, and
// appends its character to buf.
func (p *parser) escape(buf []byte) ([]byte, error) {
	const letters, meanings = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	if len(p.src)-p.pos < 2 {
		return nil, p.fail("no closing quote")
	}
	c := p.src[p.pos+1]
	if i := strings.IndexByte(letters, c); i >= 0 {
		p.pos += 2
		return append(buf, meanings[i]), nil
	}
	r, ok := p.unit(p.pos)
	if !ok {
		return nil, p.fail("unknown escape")
	}
	p.pos += unitLen
	if utf16.IsSurrogate(r) {
		low, _ := p.unit(p.pos)
		if r = utf16.DecodeRune(r, low); r != unicode.ReplacementChar {
			p.pos += unitLen
		}
	}
	return utf8.AppendRune(buf, r), nil
}

const unitLen = len(`\u0000`)

// unit decodes the UTF-16 code unit that is escaped at position i.
func (p *parser) unit(i int) (rune, bool) {
	if len(p.src)-i < unitLen || p.src[i] != '\\' || p.src[i+1] != 'u' {
		return 0, false
	}
	u, err := strconv.ParseUint(p.src[i+2:i+unitLen], 16, 16)
	return rune(u), err == nil
}
