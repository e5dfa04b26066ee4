package main

import "testing"

func TestFindMember(t *testing.T) {
	for name, row := range map[string]struct{ object, want string }{
		"alone":                 {`{"c":"AAAA"}`, "AAAA"},
		"with white space":      {" {\t\"a\" : [1,\"c\"], \"c\" :  \"AAAA\"\n}", "AAAA"},
		"empty":                 {`{"c":""}`, ""},
		"also below":            {`{"x":{"c":"BBBB"},"c":"AAAA","y":["c"]}`, "AAAA"},
		"escaped name":          {`{"\u0063":"AAAA"}`, "AAAA"},
		"none":                  {`{"d":"AAAA"}`, `!no member "c"`},
		"only below":            {`{"d":{"c":"AAAA"}}`, `!no member "c"`},
		"as a value":            {`{"d":"c"}`, `!no member "c"`},
		"twice":                 {`{"c":"AAAA","c":"AAAA"}`, `!two members "c"`},
		"a number":              {`{"c":1}`, `!member "c" is no text in base64`},
		"null":                  {`{"c":null}`, `!member "c" is no text in base64`},
		"an object":             {`{"c":{"c":"AAAA"}}`, `!member "c" is no text in base64`},
		"escapes":               {`{"c":"AA\u0041A"}`, `!member "c" is no text in base64`},
		"an array":              {`["c","AAAA"]`, "!no JSON object"},
		"a text":                {`"c"`, "!no JSON object"},
		"no JSON":               {`{"c":"AAAA"`, "!no JSON"},
		"two objects on a line": {`{"c":"AAAA"}{}`, "!no JSON"},
	} {
		start, end, err := findMember([]byte(row.object), "c")
		got := ""
		if err != nil {
			got = "!" + err.Error()
		} else {
			got = row.object[start:end]
		}
		if got != row.want {
			t.Errorf("%s: got %q, want %q", name, got, row.want)
		}
	}
}

// FuzzFindMember looks at any line. Where there is a member, what is found is a text
// between quotes.
func FuzzFindMember(f *testing.F) {
	for _, s := range []string{`{"c":"AAAA"}`, `{"c":1}`, `{"x":{"c":""},"c":""}`, `[`, `{"c":"\""}`, "{\"c\":\"\xff\"}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, object []byte) {
		start, end, err := findMember(object, "c")
		if err == nil && (start < 1 || end < start || end >= len(object) || object[start-1] != '"' || object[end] != '"') {
			t.Errorf("findMember(%q): %d to %d", object, start, end)
		}
	})
}
