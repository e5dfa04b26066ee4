package canon

import (
	"math"
	"strconv"
)

// exactLen is how many characters an integer may have that is certainly a
// double (2^53 has 16 digits) and printed as it was written.
const exactLen = 15

// number reads a number and keeps it as ECMAScript prints it.
func (p *parser) number() (Value, error) {
	start := p.pos
	integer, ok := p.scanNumber()
	if !ok {
		return Value{}, p.fail("no value")
	}
	lit := p.src[start:p.pos]
	if integer && len(lit) <= exactLen && lit != "-0" {
		return Value{kind: Number, text: lit}, nil
	}
	if p.decimals += len(lit); p.decimals > MaxDecimals {
		return Value{}, p.fail("too many or too long decimal numbers")
	}
	f, err := strconv.ParseFloat(lit, 64)
	if err != nil { // out of range, as the grammar was checked
		p.pos = start
		return Value{}, p.fail("number out of range")
	}
	var buf [32]byte
	text := appendNumber(buf[:0], f)
	if string(text) == lit {
		return Value{kind: Number, text: lit}, nil
	}
	return Value{kind: Number, text: string(text)}, nil
}

// scanNumber moves past a number of the JSON grammar and reports whether it has
// neither fraction nor exponent, and whether there is one at all.
func (p *parser) scanNumber() (integer, ok bool) {
	if p.peek() == '-' {
		p.pos++
	}
	if p.peek() == '0' {
		p.pos++ // and no digit after it
	} else if !p.digits() {
		return false, false
	}
	integer = true
	if p.peek() == '.' {
		p.pos++
		if integer = false; !p.digits() {
			return false, false
		}
	}
	if c := p.peek(); c == 'e' || c == 'E' {
		p.pos++
		if c := p.peek(); c == '+' || c == '-' {
			p.pos++
		}
		if integer = false; !p.digits() {
			return false, false
		}
	}
	return integer, true
}

// digits moves past decimal digits and reports whether there was one.
func (p *parser) digits() bool {
	start := p.pos
	for c := p.peek(); '0' <= c && c <= '9'; c = p.peek() {
		p.pos++
	}
	return p.pos > start
}

// appendNumber appends a finite f as Number::toString of ECMA-262 (radix 10)
// prints it.
func appendNumber(dst []byte, f float64) []byte {
	abs := math.Abs(f)
	if abs == 0 {
		return append(dst, '0') // also for the negative zero
	}
	if 1e-6 <= abs && abs < 1e21 {
		return strconv.AppendFloat(dst, f, 'f', -1, 64)
	}
	dst = strconv.AppendFloat(dst, f, 'e', -1, 64)
	// strconv writes two digits of exponent at least, ECMAScript one.
	if n := len(dst); dst[n-2] == '0' && (dst[n-3] == '-' || dst[n-3] == '+') {
		dst[n-2] = dst[n-1]
		dst = dst[:n-1]
	}
	return dst
}
