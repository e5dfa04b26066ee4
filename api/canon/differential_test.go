package canon

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A generator writes random JSON texts that make much use of what the rules
// distinguish. The seed is fixed, so a failure repeats.
type generator struct{ *rand.Rand }

func newGenerator() generator { return generator{rand.New(rand.NewPCG(1, 2))} }

func pick[T any](g generator, from ...T) T { return from[g.IntN(len(from))] }

func (g generator) space() string {
	return pick(g, "", "", "", "", "", "", " ", "\n", "\t\r ")
}

func (g generator) request() []byte {
	return []byte(g.space() + g.object(0, "appid", "nonce", "payload", "payload", "timestamp", "sign", "Payload") + g.space())
}

// object writes an object that is inside depth containers.
func (g generator) object(depth int, names ...string) string {
	var members []string
	for range g.IntN(7) {
		name := g.string()
		if g.IntN(4) > 0 && len(names) > 0 {
			name = strconv.Quote(pick(g, names...))
		}
		members = append(members, g.space()+name+g.space()+":"+g.space()+g.value(depth+1)+g.space())
	}
	return "{" + strings.Join(members, ",") + pick(g, "", " ") + "}"
}

func (g generator) array(depth int) string {
	var elems []string
	for range pick(g, 0, 1, 1, 2, 3, 12) {
		elems = append(elems, g.space()+g.value(depth+1)+g.space())
	}
	return "[" + strings.Join(elems, ",") + "]"
}

func (g generator) value(depth int) string {
	if depth < MaxDepth {
		switch g.IntN(8) {
		case 0, 1:
			return g.object(depth)
		case 2:
			return g.array(depth)
		case 3:
			if g.IntN(50) == 0 { // now and then deep, sometimes too deep
				n := MaxDepth - depth + g.IntN(2)
				return strings.Repeat("[", n) + strings.Repeat("]", n)
			}
		}
	}
	switch g.IntN(6) {
	case 0:
		return pick(g, "null", "true", "false", `""`, "0", "-0", "0.0", "0e5")
	case 1, 2:
		return g.number()
	default:
		return g.string()
	}
}

func (g generator) number() string {
	switch g.IntN(6) {
	case 0:
		return strconv.Itoa(g.IntN(2000) - 1000)
	case 1: // any double
		for {
			if f := math.Float64frombits(g.Uint64()); !math.IsNaN(f) && !math.IsInf(f, 0) {
				return strconv.FormatFloat(f, 'e', g.IntN(20), 64)
			}
		}
	case 2: // about the places where the notation changes
		return fmt.Sprintf("%d.%de%d", g.IntN(10), g.IntN(1000), pick(g, -10, -9, -8, -7, -6, -5, 0, 5, 18, 19, 20, 21, 22))
	case 3: // integers of many digits
		return strconv.FormatUint(g.Uint64(), 10) + strconv.Itoa(g.IntN(1000))
	case 4:
		return strconv.FormatFloat(g.Float64()*1000, 'f', g.IntN(10), 64)
	}
	return pick(g, "1e308", "1e309", "-1e-400", "1E21", "1e-7", "9007199254740993", "123456789012345", "1234567890123456")
}

// string writes a string of a few pieces, quotes included. Short alphabets make
// equal names frequent.
func (g generator) string() string {
	var b strings.Builder
	b.WriteByte('"')
	for range pick(g, 0, 1, 1, 1, 2, 3, 20) {
		b.WriteString(pick(g, "a", "b", "A", "_", "0", "1", "10", "&", "=", " ", "plain text", "é", "\uffff", "\ue000",
			"\U00010000", "\U0001f600", "\x7f", `\n`, `\"`, `\\`, `\/`, `\u0061`, `\u0000`, `\uFFFF`, `\ud83d\ude00`, `\ud83d`, `\ude00`))
	}
	b.WriteByte('"')
	return b.String()
}

// mutate changes up to three places of body.
func (g generator) mutate(body []byte) []byte {
	for range 1 + g.IntN(3) {
		i := g.IntN(len(body) + 1)
		j := min(len(body), i+g.IntN(3))
		var insert []byte
		if g.IntN(3) > 0 {
			insert = []byte(pick(g, "{", "}", "[", "]", ",", ":", `"`, `\`, "/", "0", "1", "-", "+", ".", "e", "E", "t", "true", "n", "null",
				"u", " ", "\n", "\x00", "\x1f", "\xff", "\xc3", "\xed\xa0\x80", `\ud800`, `\u00`, "1e999", "\ufeff"))
		}
		body = slices.Concat(body[:i], insert, body[j:])
	}
	return body
}

func TestParseAgreesWithEncodingJSON(t *testing.T) {
	g := newGenerator()
	accepted, refused := 0, 0
	for range differentialCases {
		body := g.request()
		if g.IntN(3) > 0 {
			body = g.mutate(body)
		}
		if checkParse(t, body) {
			accepted++
		} else {
			refused++
		}
	}
	t.Logf("%d accepted, %d refused", accepted, refused)
	if accepted < differentialCases/5 || refused < differentialCases/5 {
		t.Errorf("%d accepted, %d refused, want a fifth of %d each", accepted, refused, differentialCases)
	}
}

func TestCanonicalAgreesWithOracle(t *testing.T) {
	g := newGenerator()
	var withForms [4]int
	for range differentialCases {
		body := g.request()
		if _, ok := oracleParse(body); ok {
			withForms[checkCanonical(t, body)]++
		}
	}
	t.Logf("one form %d times, two %d times, three %d times", withForms[1], withForms[2], withForms[3])
	for n, count := range withForms[1:] {
		if count < differentialCases/100 {
			t.Errorf("%d requests with %d different forms, want a hundredth of %d", count, n+1, differentialCases)
		}
	}
}

// Random doubles in every range of the notation, without JSON around them.
func TestNumbersAgreeWithOracle(t *testing.T) {
	g := newGenerator()
	for range differentialCases {
		f := math.Float64frombits(g.Uint64())
		if g.IntN(2) == 0 {
			f = math.Ldexp(g.Float64(), g.IntN(100)-30)
		}
		if math.IsNaN(f) || math.IsInf(f, 0) {
			continue
		}
		if got, want := string(appendNumber(nil, f)), oracleNumber(f); got != want {
			t.Fatalf("appendNumber(%v): got %s, want %s", f, got, want)
		}
	}
}

// Arrays of lengths about which the order of the indexes changes.
func TestArrayOrder(t *testing.T) {
	for n := range 1200 {
		if n > 22 && n%100 > 2 && n%111 > 1 {
			continue
		}
		body := `{"payload":[` + strings.TrimSuffix(strings.Repeat("7,", n), ",") + `]}`
		checkCanonical(t, []byte(body))
	}
}
