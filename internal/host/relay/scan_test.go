package relay

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

func TestMembers(t *testing.T) {
	for name, row := range map[string]struct{ text, want string }{
		"empty text":         {``, ``},
		"empty object":       {`{}`, ``},
		"one":                {`{"a":1}`, `a=1`},
		"words and numbers":  {`{"a":true,"b":-1e5,"c":null}`, `a=true b=-1e5 c=null`},
		"space everywhere":   {" {\n\"a\" :\t1 , \"b\":\r\"x\" } ", `a=1 b="x"`},
		"nested":             {`{"a":{"b":[1,{"c":"}"}]},"d":[]}`, `a={"b":[1,{"c":"}"}]} d=[]`},
		"quotes in a string": {`{"a":"\"","b":"\\","c":"\\\"}"}`, `a="\"" b="\\" c="\\\"}"`},
		"name with escape":   {`{"\u0061":1}`, `\u0061=1`},
		"twice":              {`{"a":1,"a":2}`, `a=1 a=2`},
		"no object":          {`["a",1]`, ``},
		"no name":            {`{1:2}`, ``},
		"no colon":           {`{"a" 1}`, ``},
		"no value":           {`{"a":}`, ``},
		"no comma":           {`{"a":1 "b":2}`, `a=1`},
		"comma at the end":   {`{"a":1,}`, `a=1`},
		"name cut":           {`{"a`, ``},
		"string cut":         {`{"a":"x`, ``},
		"cut in an escape":   {`{"a":"x\`, ``},
		"quote is escaped":   {`{"a":"x\"}`, ``},
		"number cut":         {`{"a":1`, ``},
		"object cut":         {`{"a":{"b":1}`, `a={"b":1}`},
		"inner object cut":   {`{"a":{"b":1`, ``},
		"closed too often":   {`{"a":1}}}`, `a=1`},
		"brackets that mix":  {`{"a":[1},"b":2}`, `a=[1} b=2`},
	} {
		var got []string
		for name, value := range members([]byte(row.text)) {
			got = append(got, fmt.Sprintf("%s=%s", name, value))
		}
		if got := strings.Join(got, " "); got != row.want {
			t.Errorf("%s: got %s, want %s", name, got, row.want)
		}
	}
}

func TestMembersStops(t *testing.T) {
	for name := range members([]byte(`{"a":1,"b":2}`)) {
		if string(name) != "a" {
			t.Errorf("got %s after the end of the loop", name)
		}
		break
	}
}

func TestText(t *testing.T) {
	for value, want := range map[string]string{
		`"a b"`: "a b", `""`: "", `"\u4e2d\/\n"`: "中/\n", `"\ud800"`: "\uFFFD",
		``: "", `"`: "", `1`: "", `null`: "", `{"a":"b"}`: "", `"\x"`: "",
	} {
		if got := text([]byte(value)); got != want {
			t.Errorf("%s: got %q, want %q", value, got, want)
		}
	}
}

// FuzzMembers compares what is guessed of a text with what the strict parser
// reads in it, if it reads anything.
func FuzzMembers(f *testing.F) {
	f.Add(body(1))
	f.Add([]byte(`{"a":{"b":[1,"}"]},"c":"\"","d":-1e5,"a":null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		got := map[string]any{}
		escaped := false
		for name, value := range members(body) {
			escaped = escaped || bytes.IndexByte(name, '\\') >= 0
			got[string(name)] = text(value)
		}
		v, err := canon.Parse(body)
		if err != nil || escaped {
			return
		}
		want := map[string]any{}
		for name, value := range v.Members() {
			want[name] = value.Text()
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// TestPeekEscaped has clients that escape what need not be escaped.
func TestPeekEscaped(t *testing.T) {
	id := wire.UUID{0xff, 0xff, 0xff}
	ciphertext, _ := json.Marshal(head(1, id, 3))
	escaped := strings.ReplaceAll(string(ciphertext), "/", `\/`)
	if escaped == string(ciphertext) {
		t.Fatal("nothing to escape")
	}
	n, ok := peek("Decrypt", fmt.Appendf(nil, `{"appid":"%s","payload":{"keyid":"%s","ciphertext":%s}}`, tenant, id, escaped))
	if !ok || n.n != 1 || n.keys[0] != (key{id, 3}) {
		t.Errorf("ciphertext: got %v, %v", n.keys, ok)
	}
	n, ok = peek("GetSecretValue", fmt.Appendf(nil, `{"appid":"%s","payload":{"secretName":"\u4e2d"}}`, tenant))
	if want := wire.SecretID(tenant, "中"); !ok || n.secret != want {
		t.Errorf("name of a secret: got %v, %v, want %v", n.secret, ok, want)
	}
}
