package relay

import (
	"bytes"
	"encoding/json"
	"iter"
)

// members yields the names and values of the JSON object in text as they stand
// there, names without their quotes. It checks no grammar, and ends where it can
// make nothing of the text: what it yields is a guess at what a parser would
// find. Names with escapes are yielded with them, so nobody looks for those.
func members(text []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		rest, ok := after(text, '{')
		for ok {
			rest = space(rest)
			n := valueLen(rest)
			if n < 2 || rest[0] != '"' {
				return
			}
			name := rest[1 : n-1]
			if rest, ok = after(rest[n:], ':'); !ok {
				return
			}
			rest = space(rest)
			if n = valueLen(rest); n == 0 || !yield(name, rest[:n]) {
				return
			}
			rest, ok = after(rest[n:], ',')
		}
	}
}

// space returns text without the white space that it begins with.
func space(text []byte) []byte {
	i := 0
	for i < len(text) && (text[i] == ' ' || text[i] == '\n' || text[i] == '\r' || text[i] == '\t') {
		i++
	}
	return text[i:]
}

// after returns what follows c, with which text begins apart from white space.
func after(text []byte, c byte) (rest []byte, ok bool) {
	text = space(text)
	if len(text) == 0 || text[0] != c {
		return nil, false
	}
	return text[1:], true
}

// valueLen is the length of the value that text begins with, 0 if it does not end.
func valueLen(text []byte) int {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			n := stringLen(text[i:])
			if n == 0 {
				return 0
			}
			if i += n - 1; depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth < 0 {
				return i // of a number or a word, the last in its object
			}
			if depth == 0 {
				return i + 1
			}
		case ',', ' ', '\n', '\r', '\t':
			if depth == 0 {
				return i
			}
		}
	}
	return 0
}

// stringLen is the length of the string that text begins with, quotes included,
// 0 if it does not end.
func stringLen(text []byte) int {
	for i := 1; ; i++ {
		n := bytes.IndexByte(text[i:], '"')
		if n < 0 {
			return 0
		}
		i += n
		slashes := 0
		for text[i-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return i + 1
		}
	}
}

// text returns what a JSON string says, "" for any other value.
func text(value []byte) string {
	if len(value) < 2 || value[0] != '"' {
		return ""
	}
	if bytes.IndexByte(value, '\\') < 0 {
		return string(value[1 : len(value)-1])
	}
	var s string
	if json.Unmarshal(value, &s) != nil {
		return ""
	}
	return s
}
