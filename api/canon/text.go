package canon

// Bytes repeated in each of the eight lanes of a word.
const (
	lanes    = 0x0101010101010101
	highBits = 0x80 * lanes
)

// word returns the first eight bytes of s, which must have as many. The
// compiler makes one load of it.
func word(s string) uint64 {
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// plainLen is the number of leading bytes of s that stand for themselves in a
// JSON string: no quote, no backslash, no control character below U+0020.
func plainLen(s string) int {
	i := 0
	for ; len(s)-i >= 8; i += 8 {
		w := word(s[i : i+8])
		quote, slash := w^'"'*lanes, w^'\\'*lanes
		// A lane whose subtraction borrows while its high bit was clear is
		// below the subtrahend: zero after the XOR, or below a space.
		special := (quote-lanes)&^quote | (slash-lanes)&^slash | (w-' '*lanes)&^w
		if special&highBits != 0 {
			break
		}
	}
	for i < len(s) && s[i] >= ' ' && s[i] != '"' && s[i] != '\\' {
		i++
	}
	return i
}

// UTF16Len is the length of s, which must be valid UTF-8, in UTF-16 code units.
// The length limits of the native API count these.
func UTF16Len(s string) int {
	n := 0
	for len(s) >= 8 && word(s[:8])&highBits == 0 {
		n, s = n+8, s[8:]
	}
	for i := range len(s) {
		if s[i]&0xC0 != 0x80 { // not a continuation byte
			n++
		}
		if s[i] >= astralLead {
			n++
		}
	}
	return n
}

// First bytes of UTF-8 sequences.
const (
	afterSurrogates = 0xEE // U+E000 and above; the surrogates end at U+DFFF
	astralLead      = 0xF0 // U+10000 and above; two surrogates in UTF-16
)

// compareNames orders two strings of valid UTF-8 by their UTF-16 code units.
// That is the order of their bytes, except that characters from U+10000, being
// surrogate pairs, come before those from U+E000 to U+FFFF.
func compareNames(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		x, y := a[i], b[i]
		if x == y {
			continue
		}
		// No continuation byte is this large, so both start a character.
		swap := x >= afterSurrogates && y >= afterSurrogates && (x >= astralLead) != (y >= astralLead)
		if (x < y) != swap {
			return -1
		}
		return 1
	}
	return len(a) - len(b)
}
