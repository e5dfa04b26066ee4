package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

const sample = ` {"text":"a","n":7,"yes":true,"hex":"0aFF","at":"2025-06-19T10:56:11Z","inner": {"a":[1, 2],"b":null} } `

func TestReads(t *testing.T) {
	d, n, err := Parse([]byte(sample), 1000)
	if err != nil {
		t.Fatal(err)
	}
	var b [2]byte
	n.Member("hex").Hex(b[:])
	inner := n.Member("inner")
	items := inner.Member("a").Items(2)
	if s, v, yes := n.Member("text").Text(), n.Member("n").Uint(7), n.Member("yes").Bool(); s != "a" || v != 7 || !yes {
		t.Errorf("got %q, %d, %v", s, v, yes)
	}
	if at := n.Member("at").Time(); !at.Equal(time.Date(2025, 6, 19, 10, 56, 11, 0, time.UTC)) {
		t.Errorf("Time: got %v", at)
	}
	if b != [2]byte{0x0a, 0xff} || len(items) != 2 || items[1].Uint(9) != 2 {
		t.Errorf("got %x and %v", b, items)
	}
	if got := string(inner.Raw()); got != `{"a":[1, 2],"b":null}` {
		t.Errorf("Raw: got %s", got)
	}
	if got := strings.Join(n.Names(), " "); got != "text n yes hex at inner" {
		t.Errorf("Names: got %q", got)
	}
	if !inner.Member("a").IsArray() || inner.IsArray() || n.Member("text").IsArray() {
		t.Error("IsArray takes something else for an array")
	}
	if n.Has("TEXT") || !n.Has("text") {
		t.Error("member names are not compared exactly")
	}
	inner.Only("b", "a")
	if d.Err() != nil {
		t.Errorf("got %v", d.Err())
	}
}

func TestParseRefuses(t *testing.T) {
	for name, row := range map[string]struct {
		text string
		want error
	}{
		"empty":               {"", ErrSyntax},
		"two values":          {"{} {}", ErrSyntax},
		"trailing bytes":      {"{}x", ErrSyntax},
		"comma at the end":    {`{"a":[1,]}`, ErrSyntax},
		"not UTF-8":           {"{\"a\":\"\xff\"}", ErrSyntax},
		"cut":                 {`{"a":`, ErrSyntax},
		"too long":            {`"` + strings.Repeat("a", 1000) + `"`, ErrTooLong},
		"too deep":            {strings.Repeat("[", 18) + strings.Repeat("]", 18), ErrDepth},
		"too many members":    {manyMembers(maxMembers + 1), ErrMembers},
		"twice":               {`{"a":1,"a":1}`, ErrDuplicate},
		"twice, escaped":      {`{"a":1,"\u0061":2}`, ErrDuplicate},
		"twice, deep":         {`{"x":[{"y":{"a":1,"b":2,"a":3}}]}`, ErrDuplicate},
		"twice, not adjacent": {`{"a":1,"b":{},"a":2}`, ErrDuplicate},
	} {
		if _, _, err := Parse([]byte(row.text), 1000); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", name, err, row.want)
		}
	}
}

func manyMembers(n int) string {
	var members []string
	for i := range n {
		members = append(members, fmt.Sprintf(`"%d":0`, i))
	}
	return "{" + strings.Join(members, ",") + "}"
}

func TestNodesRefuse(t *testing.T) {
	var b [2]byte
	for name, row := range map[string]struct {
		use  func(n *Node)
		want error
	}{
		"missing":             {func(n *Node) { n.Member("Text") }, ErrMissing},
		"missing, used":       {func(n *Node) { n.Member("x").Member("y").Items(1) }, ErrMissing},
		"missing, raw":        {func(n *Node) { n.Member("x").Raw() }, ErrMissing},
		"member of a string":  {func(n *Node) { n.Member("text").Member("x") }, ErrType},
		"only of a string":    {func(n *Node) { n.Member("text").Only("x") }, ErrType},
		"unknown":             {func(n *Node) { n.Member("inner").Only("a") }, ErrUnknown},
		"string, not number":  {func(n *Node) { n.Member("text").Uint(9) }, ErrType},
		"number, not string":  {func(n *Node) { n.Member("n").Text() }, ErrType},
		"number, not bool":    {func(n *Node) { n.Member("n").Bool() }, ErrType},
		"null, not object":    {func(n *Node) { n.Member("inner").Member("b").Member("c") }, ErrType},
		"object, not array":   {func(n *Node) { n.Member("inner").Items(1) }, ErrType},
		"raw of a string":     {func(n *Node) { n.Member("text").Raw() }, ErrType},
		"too many":            {func(n *Node) { n.Member("inner").Member("a").Items(1) }, ErrValue},
		"number over limit":   {func(n *Node) { n.Member("n").Uint(6) }, ErrValue},
		"hex of wrong length": {func(n *Node) { n.Member("text").Hex(b[:]) }, ErrValue},
		"not a time":          {func(n *Node) { n.Member("text").Time() }, ErrValue},
	} {
		d, n, err := Parse([]byte(sample), 1000)
		if err != nil {
			t.Fatal(err)
		}
		row.use(n)
		n.Member("text").Text() // must keep the first error
		if !errors.Is(d.Err(), row.want) {
			t.Errorf("%s: got %v, want %v", name, d.Err(), row.want)
		}
	}
}

func TestValuesHaveOneForm(t *testing.T) {
	var b [1]byte
	for text, use := range map[string]func(n *Node){
		`1.0`:                         func(n *Node) { n.Uint(9) },
		`1e0`:                         func(n *Node) { n.Uint(9) },
		`-0`:                          func(n *Node) { n.Uint(9) },
		`-1`:                          func(n *Node) { n.Uint(9) },
		`18446744073709551616`:        func(n *Node) { n.Uint(1 << 63) },
		`"0g"`:                        func(n *Node) { n.Hex(b[:]) },
		`"2025-06-19T10:56:11.5Z"`:    func(n *Node) { n.Time() },
		`"2025-06-19T10:56:11+00:00"`: func(n *Node) { n.Time() },
		`"2025-06-31T10:56:11Z"`:      func(n *Node) { n.Time() },
	} {
		d, n, err := Parse([]byte(text), 100)
		if err != nil {
			t.Fatal(err)
		}
		if use(n); !errors.Is(d.Err(), ErrValue) {
			t.Errorf("%s: got %v, want ErrValue", text, d.Err())
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{sample, `{"a":1,"a":2}`, `[[[]]]`, `"\ud800"`, `{"tcbInfo":{},"signature":""}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, n, err := Parse(b, 1<<12)
		if err != nil {
			return
		}
		if raw := n.Raw(); d.Err() == nil && (!json.Valid(raw) || !bytes.Equal(raw, bytes.TrimSpace(b))) {
			t.Errorf("Raw: got %q of %q", raw, b)
		}
	})
}
