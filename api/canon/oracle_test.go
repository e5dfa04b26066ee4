package canon

import (
	"bytes"
	"encoding/json"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"
)

// This file is a second implementation, on encoding/json, written from the
// rules and not from the code: slow, and as literal as it can be.

// oracle is the canonical string of an object or array.
func oracle(v any, f Form) string {
	members := map[string]any{}
	switch v := v.(type) {
	case map[string]any:
		members = v
	case []any:
		for i, e := range v {
			members[strconv.Itoa(i)] = e
		}
	}
	names := make([]string, 0, len(members))
	for name := range members {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return slices.Compare(utf16.Encode([]rune(a)), utf16.Encode([]rune(b)))
	})
	var parts []string
	for _, name := range names {
		if !oracleSkips(members[name], f) {
			parts = append(parts, name+"="+oracleValue(members[name], f))
		}
	}
	return strings.Join(parts, "&")
}

func oracleSkips(v any, f Form) bool {
	switch v := v.(type) {
	case nil:
		return true
	case []any:
		return oracleJoin(v) == ""
	case string:
		return f == Skipping && v == ""
	case float64:
		return f == Skipping && v == 0
	case bool:
		return f == Skipping && !v
	}
	return false
}

func oracleValue(v any, f Form) string {
	switch v := v.(type) {
	case string:
		return v
	case float64:
		return oracleNumber(v)
	case bool:
		s := strconv.FormatBool(v)
		if f == KeepingTitle {
			s = strings.ToUpper(s[:1]) + s[1:]
		}
		return s
	}
	return oracle(v, f)
}

// oracleJoin is Array.prototype.join of ECMA-262.
func oracleJoin(array []any) string {
	var parts []string
	for _, v := range array {
		switch v := v.(type) {
		case nil:
			parts = append(parts, "")
		case []any:
			parts = append(parts, oracleJoin(v))
		case map[string]any:
			parts = append(parts, "[object Object]")
		default:
			parts = append(parts, oracleValue(v, Keeping))
		}
	}
	return strings.Join(parts, ",")
}

// oracleNumber follows the steps of Number::toString in ECMA-262 with its names
// n, k and s: the value is s * 10^(n-k), and s has k digits.
func oracleNumber(x float64) string {
	if x == 0 {
		return "0"
	}
	if x < 0 {
		return "-" + oracleNumber(-x)
	}
	mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(x, 'e', -1, 64), "e")
	s := strings.ReplaceAll(mantissa, ".", "")
	e, _ := strconv.Atoi(exponent)
	k, n := len(s), e+1
	switch {
	case k <= n && n <= 21:
		return s + strings.Repeat("0", n-k)
	case 0 < n && n <= 21:
		return s[:n] + "." + s[n:]
	case -6 < n && n <= 0:
		return "0." + strings.Repeat("0", -n) + s
	}
	sign := "+"
	if n-1 < 0 {
		sign, n = "-", 2-n
	}
	if k > 1 {
		s = s[:1] + "." + s[1:]
	}
	return s + "e" + sign + strconv.Itoa(n-1)
}

// oracleParse reads body with encoding/json. It accepts what Parse should. The
// differences from json.Unmarshal into an any, all deliberate, are that Parse
// demands an object and UTF-8, and bounds the nesting and the decimal numbers,
// even inside a duplicate member that loses. (Its limit on values is not reached
// here.)
func oracleParse(body []byte) (map[string]any, bool) {
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		return nil, false
	}
	object, ok := v.(map[string]any)
	return object, ok && utf8.Valid(body) && withinLimits(body)
}

func withinLimits(body []byte) bool {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	depth, deepest, decimals := 0, 0, 0
	for {
		token, err := dec.Token()
		if err == io.EOF {
			return deepest <= MaxDepth && decimals <= MaxDecimals
		}
		switch token := token.(type) {
		case json.Delim:
			if token == '{' || token == '[' {
				depth++
				deepest = max(deepest, depth)
			} else {
				depth--
			}
		case json.Number:
			if s := token.String(); len(s) > 15 || s == "-0" || strings.ContainsAny(s, ".eE") {
				decimals += len(s)
			}
		}
	}
}

// plain converts a Value to what encoding/json would have made of it.
func plain(v Value) any {
	switch v.Kind() {
	case String:
		return v.Text()
	case Number:
		return v.Number()
	case Bool:
		return v.Bool()
	case Object:
		object := map[string]any{}
		for name, m := range v.Members() {
			object[name] = plain(m)
		}
		return object
	case Array:
		array := []any{}
		for i := range v.Len() {
			array = append(array, plain(v.Elem(i)))
		}
		return array
	}
	return nil
}

// checkParse compares Parse with encoding/json and reports whether both accept.
func checkParse(t *testing.T, body []byte) bool {
	t.Helper()
	v, err := Parse(body)
	want, ok := oracleParse(body)
	if (err == nil) != ok {
		t.Fatalf("Parse(%q): got error %v, want accepted %v", body, err, ok)
	}
	if ok && !reflect.DeepEqual(plain(v), any(want)) {
		t.Fatalf("Parse(%q): got %s, want %v", body, show(v), want)
	}
	return ok
}

var allForms = []Form{Skipping, Keeping, KeepingTitle}

// checkCanonical compares all that is made of an acceptable body with the second
// implementation. It returns how many forms of the request differ.
func checkCanonical(t *testing.T, body []byte) int {
	t.Helper()
	v := mustParse(t, string(body))
	object, _ := oracleParse(body)
	request := map[string]any{}
	for _, name := range []string{"appid", "nonce", "payload", "timestamp"} {
		request[name] = object[name] // nil is absent
	}
	var wantForms []Form
	seen := map[string]bool{}
	for _, f := range allForms {
		if got, want := string(v.AppendCanonicalObject(nil, f)), oracle(object, f); got != want {
			t.Fatalf("AppendCanonicalObject of %q, form %d: got %q, want %q", body, f, got, want)
		}
		want := oracle(request, f)
		if got := string(v.AppendCanonical(nil, f)); got != want {
			t.Fatalf("AppendCanonical of %q, form %d: got %q, want %q", body, f, got, want)
		}
		if !seen[want] {
			seen[want] = true
			wantForms = append(wantForms, f)
		}
		// All that is left in the tree is in the string.
		covered := v.Covered(f)
		if got := showCovered(plain(covered), f); got != want {
			t.Fatalf("Covered of %q, form %d: got %s, want all of %q and no more", body, f, show(covered), want)
		}
	}
	if got := slices.Collect(v.Forms()); !slices.Equal(got, wantForms) {
		t.Fatalf("Forms of %q: got %v, want %v", body, got, wantForms)
	}
	return len(wantForms)
}

// showCovered prints a tree as oracle does, but skips nothing except null in an
// array, the mark of an index that is not shown.
func showCovered(v any, f Form) string {
	var parts []string
	switch v := v.(type) {
	case map[string]any:
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.SortFunc(names, func(a, b string) int {
			return slices.Compare(utf16.Encode([]rune(a)), utf16.Encode([]rune(b)))
		})
		for _, name := range names {
			parts = append(parts, name+"="+showCovered(v[name], f))
		}
	case []any:
		if len(v) > 0 && v[len(v)-1] == nil {
			return "array ends with null"
		}
		order := map[string]any{}
		for i, e := range v {
			if e != nil {
				order[strconv.Itoa(i)] = e
			}
		}
		return showCovered(order, f)
	default:
		return oracleValue(v, f)
	}
	return strings.Join(parts, "&")
}

func TestOracleOnKnownAnswers(t *testing.T) {
	for _, tt := range rules {
		object, ok := oracleParse([]byte(tt.object))
		if !ok {
			t.Fatalf("%s: the oracle refuses the object", tt.name)
		}
		for i, want := range []string{tt.skipping, tt.keeping, tt.tit} {
			if got := oracle(object, allForms[i]); got != want {
				t.Errorf("%s, form %d: got %q, want %q", tt.name, allForms[i], got, want)
			}
		}
	}
	for _, tt := range numbers {
		x, err := strconv.ParseFloat(tt.json, 64)
		if got := oracleNumber(x); err != nil || got != tt.want {
			t.Errorf("%s: got %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
}
