package canon

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// show renders a tree so that different trees have different texts.
func show(v Value) string {
	switch v.Kind() {
	case String:
		return fmt.Sprintf("%q", v.Text())
	case Number:
		return fmt.Sprint(v.Number())
	case Bool:
		return fmt.Sprint(v.Bool())
	case Object:
		var members []string
		for name, m := range v.Members() {
			members = append(members, fmt.Sprintf("%q:%s", name, show(m)))
		}
		return "{" + strings.Join(members, ",") + "}"
	case Array:
		var elems []string
		for i := range v.Len() {
			elems = append(elems, show(v.Elem(i)))
		}
		return "[" + strings.Join(elems, ",") + "]"
	}
	return v.Kind().String()
}

func nested(depth int) string { // depth containers, the object included
	return `{"a":` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1) + "}"
}

// many is the shortest text with n values: the object, its array, and zeros.
func many(n int) string { return `{"":[0` + strings.Repeat(",0", n-3) + "]}" }

func TestParseAccepts(t *testing.T) {
	tests := []struct{ name, body, want string }{
		{"empty object", `{}`, `{}`},
		{"white space", " \t\r\n{ \"a\" :\t[ 1 ,\n2 ] , \"b\" : { } }\r\n", `{"a":[1,2],"b":{}}`},
		{"every kind", `{"s":"x","n":1,"t":true,"f":false,"z":null,"o":{},"a":[]}`, `{"a":[],"f":false,"n":1,"o":{},"s":"x","t":true,"z":null}`},
		{"every escape", `{"a":"\"\\\/\b\f\n\r\t\u0041\u00e9\u20AC"}`, `{"a":"\"\\/\b\f\n\r\tAé€"}`},
		{"escape in name", `{"\u0061\n":1}`, `{"a\n":1}`},
		{"escapes late in a long string", `{"a":"0123456789abcdef\n0123456789abcdef\n"}`, `{"a":"0123456789abcdef\n0123456789abcdef\n"}`},
		{"DEL and NEL are no control characters here", "{\"a\":\"\x7f\u0085\"}", `{"a":"\x7f\u0085"}`},
		{"high surrogate, then a letter escape", `{"a":"\ud800\u0041"}`, `{"a":"�A"}`},
		{"high surrogate, then another escape", `{"a":"\ud800\n"}`, `{"a":"�\n"}`},
		{"two high surrogates, then a low one", `{"a":"\ud83d\ud83d\ude00"}`, `{"a":"�` + "\U0001f600" + `"}`},
		{"escaped U+FFFD", `{"a":"\ufffd\ufffd"}`, `{"a":"��"}`},
		{"names that lone surrogates make equal", `{"\ud800":1,"\udfff":2}`, `{"�":2}`},
		{"last of many duplicates", `{"a":1,"b":2,"a":3,"b":4,"a":5}`, `{"a":5,"b":4}`},
		{"letter case matters", `{"a":1,"A":2}`, `{"A":2,"a":1}`},
		{"deepest", nested(MaxDepth), `{"a":` + strings.Repeat("[", MaxDepth-1) + strings.Repeat("]", MaxDepth-1) + "}"},
		{"deep again after a deep one", `{"a":` + strings.Repeat("[", MaxDepth-1) + strings.Repeat("]", MaxDepth-1) + `,"b":[[1]]}`,
			`{"a":` + strings.Repeat("[", MaxDepth-1) + strings.Repeat("]", MaxDepth-1) + `,"b":[[1]]}`},
		{"more members than the parser's first room", `{"a":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18],"b":{"c":1}}`,
			`{"a":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18],"b":{"c":1}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := show(mustParse(t, tt.body)); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	mustParse(t, `{"a":0.`+strings.Repeat("3", MaxDecimals-2)+`}`)
	if v := mustParse(t, many(MaxValues)); v.Get("").Len() != MaxValues-2 {
		t.Errorf("got %d elements, want %d", v.Get("").Len(), MaxValues-2)
	}
}

func TestParseRefuses(t *testing.T) {
	tests := []struct{ name, body string }{
		{"nothing", ``}, {"white space only", " \n"}, {"NUL", "\x00"},
		{"array", `[]`}, {"string", `"a"`}, {"number", `1`}, {"null", `null`}, {"true", `true`},
		{"byte order mark", "\ufeff{}"}, {"form feed as space", "\f{}"}, {"no-break space", "{\u00a0}"},
		{"two objects", `{}{}`}, {"comma after", `{},`}, {"NUL after", "{}\x00"}, {"bracket after", `{}}`},
		{"not closed", `{`}, {"not closed after member", `{"a":1`}, {"closed by the other bracket", `{"a":1]`},
		{"array closed by the other bracket", `{"a":[1}`}, {"array not closed", `{"a":[1`},
		{"comma before the end", `{"a":1,}`}, {"comma first", `{,"a":1}`}, {"comma only", `{,}`}, {"two commas", `{"a":1,,"b":2}`},
		{"comma before the end of an array", `{"a":[1,]}`}, {"comma only in an array", `{"a":[,]}`},
		{"no comma", `{"a":1 "b":2}`}, {"no comma in array", `{"a":[1 2]}`},
		{"no colon", `{"a" 1}`}, {"two colons", `{"a"::1}`}, {"no value", `{"a":}`}, {"no value at the end", `{"a":`}, {"name only", `{"a"}`}, {"name only at the end", `{"a"`},
		{"name not quoted", `{a:1}`}, {"name in single quotes", `{'a':1}`}, {"number as name", `{1:1}`}, {"null as name", `{null:1}`},
		{"member in array", `{"a":["b":1]}`},
		{"comment", `{"a":1/**/}`}, {"line comment", "{\"a\":1//\n}"},

		{"word cut short", `{"a":tru}`}, {"word too long", `{"a":truee}`}, {"upper case", `{"a":True}`}, {"nul", `{"a":nul}`}, {"undefined", `{"a":undefined}`},
		{"NaN", `{"a":NaN}`}, {"Infinity", `{"a":Infinity}`}, {"minus Infinity", `{"a":-Infinity}`},

		{"plus sign", `{"a":+1}`}, {"leading zero", `{"a":01}`}, {"two zeros", `{"a":00}`}, {"minus only", `{"a":-}`}, {"minus leading zero", `{"a":-01}`}, {"two minus", `{"a":--1}`},
		{"no digit before the point", `{"a":.5}`}, {"no digit after the point", `{"a":1.}`}, {"point then exponent", `{"a":1.e5}`}, {"two points", `{"a":1.2.3}`},
		{"no exponent", `{"a":1e}`}, {"no exponent after the sign", `{"a":1e+}`}, {"two signs", `{"a":1e+-1}`}, {"fraction in exponent", `{"a":1e1.5}`},
		{"hexadecimal", `{"a":0x10}`}, {"underscore", `{"a":1_000}`}, {"big integer suffix", `{"a":1n}`}, {"other digits", `{"a":１}`},
		{"overflow", `{"a":1e999}`}, {"negative overflow", `{"a":-1e309}`}, {"just overflow", `{"a":1.7976931348623159e308}`}, {"overflow in full", `{"a":` + strings.Repeat("9", 310) + `}`},
		{"overflow in a duplicate that loses", `{"a":1e999,"a":1}`},

		{"string not closed", `{"a":"x`}, {"name not closed", `{"a`}, {"quote only", `{"`}, {"single quotes", `{"a":'x'}`},
		{"line feed in string", "{\"a\":\"x\ny\"}"}, {"tab in string", "{\"a\":\"\t\"}"}, {"NUL in string", "{\"a\":\"\x00\"}"}, {"U+001F in string", "{\"a\":\"\x1f\"}"},
		{"control character in name", "{\"a\n\":1}"}, {"control character after an escape", "{\"a\":\"\\n\n\"}"}, {"control character far inside", "{\"a\":\"0123456789abcdef\x01\"}"},
		{"backslash at the end", `{"a":"\`}, {"escaped closing quote", `{"a":"\"}`}, {"not closed after an escape", `{"a":"\n`},
		{"unknown escape", `{"a":"\x41"}`}, {"upper case escape", `{"a":"\N"}`}, {"vertical tab escape", `{"a":"\v"}`}, {"zero escape", `{"a":"\0"}`}, {"single quote escape", `{"a":"\'"}`}, {"escaped line feed", "{\"a\":\"\\\n\"}"},
		{"short unicode escape", `{"a":"\u12"}`}, {"unicode escape at the end", `{"a":"\u12`}, {"unicode escape of other digits", `{"a":"\u12g4"}`}, {"upper case U", `{"a":"\U0041"}`},
		{"unicode escape with sign", `{"a":"\u+123"}`}, {"unicode escape with underscore", `{"a":"\u1_23"}`}, {"unicode escape in braces", `{"a":"\u{41}"}`}, {"bad escape after a high surrogate", `{"a":"\ud800\u12"}`},

		{"invalid UTF-8", "{\"a\":\"\xff\"}"}, {"invalid UTF-8 in name", "{\"\xc3\":1}"}, {"overlong", "{\"a\":\"\xc0\x80\"}"}, {"encoded surrogate", "{\"a\":\"\xed\xa0\x80\"}"},
		{"above U+10FFFF", "{\"a\":\"\xf4\x90\x80\x80\"}"}, {"UTF-16", "{\x00}\x00"}, {"invalid UTF-8 after", "{}\xff"},

		{"too deep", nested(MaxDepth + 1)}, {"too deep objects", strings.Repeat(`{"a":`, MaxDepth+1) + "1" + strings.Repeat("}", MaxDepth+1)},
		{"far too deep", nested(100000)}, {"deep and not closed", `{"a":` + strings.Repeat("[", 100000)},
		{"too deep in a duplicate that loses", `{"a":` + strings.TrimPrefix(nested(MaxDepth+1), `{"a":`)[:2*MaxDepth] + `,"a":1}`},
		{"too many values", many(MaxValues + 1)},
		{"too long decimal number", `{"a":0.` + strings.Repeat("3", MaxDecimals-1) + `}`},
		{"too many decimal numbers", `{"a":[0.5` + strings.Repeat(",0.5", MaxDecimals/3) + `]}`},
		{"too many negative zeros", `{"a":[-0` + strings.Repeat(",-0", MaxDecimals/2) + `]}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, err := Parse([]byte(tt.body))
			if !errors.Is(err, ErrSyntax) || v.Kind() != Absent {
				t.Fatalf("got %v, %v, want absent, %v", v, err, ErrSyntax)
			}
			if strings.Contains(err.Error(), "%!") {
				t.Errorf("error does not format: %v", err)
			}
		})
	}
	if got := len(many(MaxValues + 1)); got <= 32<<10 {
		t.Errorf("a text of %d bytes has too many values; the comment on MaxValues promises 32 KiB", got)
	}
}

// Every proper prefix of a request is refused.
func TestParsePrefixes(t *testing.T) {
	for _, tt := range vectors {
		for i := range len(tt.body) {
			if _, err := Parse([]byte(tt.body[:i])); !errors.Is(err, ErrSyntax) {
				t.Fatalf("%s cut to %d bytes: got %v, want %v", tt.name, i, err, ErrSyntax)
			}
		}
	}
}

func TestParseDoesNotKeepBody(t *testing.T) {
	body := []byte(`{"name":"text","n":1234}`)
	v, err := Parse(body)
	if err != nil {
		t.Fatal(err)
	}
	clear(body)
	if got, want := show(v), `{"n":1234,"name":"text"}`; got != want {
		t.Errorf("after the body was overwritten: got %s, want %s", got, want)
	}
}

func TestAccessors(t *testing.T) {
	v := mustParse(t, `{"s":"0","n":1.5,"t":true,"f":false,"z":null,"o":{"a":1},"a":["x"],"tt":"true"}`)
	tests := []struct {
		name   string
		kind   Kind
		text   string
		number float64
		bool   bool
		len    int
	}{
		{"s", String, "0", 0, false, 0},
		{"n", Number, "", 1.5, false, 0},
		{"t", Bool, "", 0, true, 0},
		{"f", Bool, "", 0, false, 0},
		{"z", Null, "", 0, false, 0},
		{"o", Object, "", 0, false, 1},
		{"a", Array, "", 0, false, 1},
		{"tt", String, "true", 0, false, 0},
		{"none", Absent, "", 0, false, 0},
		{"S", Absent, "", 0, false, 0},
		{"", Absent, "", 0, false, 0},
	}
	for _, tt := range tests {
		got := v.Get(tt.name)
		if got.Kind() != tt.kind || got.Text() != tt.text || got.Number() != tt.number || got.Bool() != tt.bool || got.Len() != tt.len {
			t.Errorf("%q: got %v, %q, %v, %v, %d, want %v, %q, %v, %v, %d", tt.name,
				got.Kind(), got.Text(), got.Number(), got.Bool(), got.Len(), tt.kind, tt.text, tt.number, tt.bool, tt.len)
		}
		if tt.kind != Object {
			if kid := got.Get("a"); kid.Kind() != Absent {
				t.Errorf("%q: Get answers for a %v", tt.name, tt.kind)
			}
			for name := range got.Members() {
				t.Errorf("%q: Members of a %v has %q", tt.name, tt.kind, name)
			}
		}
		if kid := got.Elem(0); (kid.Kind() != Absent) != (tt.kind == Array) {
			t.Errorf("%q: Elem(0) of a %v is %v", tt.name, tt.kind, kid)
		}
	}
	for _, i := range []int{-1, 1, 1 << 40} {
		if got := v.Get("a").Elem(i); got.Kind() != Absent {
			t.Errorf("Elem(%d): got %v, want absent", i, got)
		}
	}
	for name := range v.Members() {
		if name != "a" {
			t.Errorf("first member: got %q, want %q", name, "a")
		}
		break
	}
}

// Requests carry plaintexts, so a stray print must not show them.
func TestValueDoesNotPrint(t *testing.T) {
	v := mustParse(t, `{"plaintext":"marker"}`)
	nested := struct{ V *Value }{&v}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if got := fmt.Sprintf(verb, v); got != "object" {
			t.Errorf("%s: got %q, want %q", verb, got, "object")
		}
		if got := fmt.Sprintf(verb, []any{v, nested, v.Get("plaintext")}); strings.Contains(got, "marker") || strings.Contains(got, fmt.Sprintf("%x", "marker")) {
			t.Errorf("%s prints the content: %s", verb, got)
		}
	}
	if _, err := Parse([]byte(`{"plaintext":"marker`)); err == nil || strings.Contains(err.Error(), "marker") {
		t.Errorf("error prints the content: %v", err)
	}
	if got := Kind(99).String(); got != "kind 99" {
		t.Errorf("unknown kind: got %q", got)
	}
}

func TestUTF16Len(t *testing.T) {
	tests := []struct {
		name, s string
		want    int
	}{
		{"empty", "", 0},
		{"ASCII", "abc", 3},
		{"words of ASCII", strings.Repeat("a", 41), 41},
		{"two bytes", "é", 1},
		{"three bytes", "€\uffff", 2},
		{"four bytes", "\U0001f600", 2},
		{"last character", "\U0010ffff", 2},
		{"ASCII before and after", "0123456789\U0001f600é0123456789", 23},
	}
	for _, tt := range tests {
		if got := UTF16Len(tt.s); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestPlainLen(t *testing.T) {
	for stop := range 256 {
		special := stop < ' ' || stop == '"' || stop == '\\'
		for n := range 20 {
			s := strings.Repeat("\xff", n) + string([]byte{byte(stop)}) + strings.Repeat("a", 9)
			want := n
			if !special {
				want = len(s)
			}
			if got := plainLen(s); got != want {
				t.Fatalf("byte %#x at %d: got %d, want %d", stop, n, got, want)
			}
		}
	}
}

func TestCompareNames(t *testing.T) {
	sorted := []string{"", "\x00", "A", "Aa", "_", "a", "é", "\ud7ff", "\U00010000", "\U00010000a", "\U0010ffff", "\ue000", "\ue000a", "\ufffd", "\uffff"}
	for i, a := range sorted {
		for j, b := range sorted {
			if got := compareNames(a, b); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("compareNames(%q, %q): got %d, want the sign of %d", a, b, got, i-j)
			}
		}
	}
	if !slices.IsSortedFunc(sorted, compareNames) {
		t.Error("not sorted")
	}
}
