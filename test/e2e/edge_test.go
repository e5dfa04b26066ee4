package e2e

import (
	"context"
	"net/http"
	"strings"
	"testing"
)

// edgeLines are about paths, methods and bodies.
func edgeLines() []line {
	return []line{
		{"1-paths-without-redirect", testPaths},
		{"2-method-and-action", testMethods},
		{"3-malformed-oversized-untyped", testBodies},
		{"4-api-not-found", testNotFound},
		{"33-enroll-150-times", testEnrollMany},
	}
}

func testPaths(t *testing.T, g *target) {
	c := g.enroll(t)
	for _, path := range []string{"/ehsm", "/ehsm/", "/EHSM", "/eHsM/"} {
		r := g.must(t, http.MethodGet, path+"?Action=GetVersion", nil)
		want(t, r, 200, textSuccess)
		if r.text(t, "version") == "" {
			t.Errorf("%s: no version: %s", path, r.body)
		}
		r.text(t, "git_sha")
		r = g.must(t, http.MethodPost, path+"?Action=ListKey", c.unsigned(nil).signed(c.apikey).body())
		want(t, r, 200, textSuccessful)
		r = g.must(t, http.MethodGet, path+"?Action=Enroll", nil)
		want(t, r, 200, textSuccessful)
		g.secret(r.text(t, "apikey"))
		checkCredentials(t, r)
	}
}

const uuidShape = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"

func isUUID(s string) bool {
	return len(s) == len(uuidShape) && strings.Map(func(r rune) rune {
		if strings.ContainsRune("0123456789abcdef", r) {
			return 'x'
		}
		return r
	}, s) == uuidShape
}

func checkCredentials(t *testing.T, r reply) {
	t.Helper()
	appid, apikey := r.text(t, "appid"), r.text(t, "apikey")
	if !isUUID(appid) {
		t.Errorf("appid %q is no UUID", appid)
	}
	if len(apikey) != 32 || strings.Trim(apikey, "0123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz") != "" {
		t.Errorf("apikey has %d characters, or one that is not in the alphabet", len(apikey))
	}
}

func testMethods(t *testing.T, g *target) {
	c := g.enroll(t)
	list := func() []byte { return c.unsigned(nil).signed(c.apikey).body() }
	for name, row := range map[string]struct {
		method, path string
		body         []byte
		code         int
		message      string
	}{
		"GET of another action":         {"GET", "/ehsm?Action=ListKey", nil, 400, textMissing},
		"GET of an unknown action":      {"GET", "/ehsm?Action=Nonsense", nil, 400, textMissing},
		"GET without action":            {"GET", "/ehsm", nil, 400, textMissing},
		"GET, action in lower case":     {"GET", "/ehsm?Action=getversion", nil, 400, textMissing},
		"GET, parameter in lower case":  {"GET", "/ehsm?action=GetVersion", nil, 400, textMissing},
		"GET with a signed body":        {"GET", "/ehsm?Action=ListKey", list(), 404, textNotFound},
		"GET with a wrong signature":    {"GET", "/ehsm?Action=ListKey", c.unsigned(nil).signed("x").body(), 400, textSign},
		"POST, action in lower case":    {"POST", "/ehsm?Action=listkey", list(), 404, textNotFound},
		"POST without action":           {"POST", "/ehsm", list(), 404, textNotFound},
		"POST, empty action":            {"POST", "/ehsm?Action=", list(), 404, textNotFound},
		"POST, action with a space":     {"POST", "/ehsm?Action=ListKey%20", list(), 404, textNotFound},
		"POST without body":             {"POST", "/ehsm?Action=ListKey", []byte{}, 400, textMissing},
		"POST of a very long action":    {"POST", "/ehsm?Action=" + strings.Repeat("x", 4000), list(), 404, textNotFound},
		"POST with a parameter besides": {"POST", "/ehsm?x=1&Action=ListKey", list(), 200, textSuccessful},
		"POST, action escaped":          {"POST", "/ehsm?Action=List%4bey", list(), 200, textSuccessful},
	} {
		r := g.must(t, row.method, row.path, row.body)
		r.action = name
		want(t, r, row.code, row.message)
	}
}

func testBodies(t *testing.T, g *target) {
	c := g.enroll(t)
	post := func(body string) reply { return g.must(t, http.MethodPost, "/ehsm?Action=ListKey", []byte(body)) }
	for _, body := range []string{"{", "}", "nonsense", `{"appid":}`, `{"a":1,}`, "{'a':1}", "\xff", "{}x", "\x00"} {
		want(t, post(body), 400, "Invalid JSON")
	}
	const limit = 100 << 10
	for _, n := range []int{limit + 1, 200 << 10, 5 << 20} {
		r := post(strings.Repeat(" ", n))
		if r.Code != 400 {
			t.Errorf("body of %d bytes: got %s", n, r.body)
		}
	}
	signed := string(c.unsigned(nil).signed(c.apikey).body())
	want(t, post(signed+strings.Repeat(" ", limit-len(signed))), 200, textSuccessful) // the largest body

	for _, contentType := range []string{"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ";;"} {
		req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, g.base()+"/ehsm?Action=ListKey",
			strings.NewReader(string(c.unsigned(nil).signed(c.apikey).body())))
		if err != nil {
			t.Fatal(err)
		}
		req.Header["Content-Type"] = []string{contentType}
		if contentType == "" {
			req.Header.Del("Content-Type")
		}
		if r, err := g.roundTrip(req); err != nil || r.Code != 200 {
			t.Errorf("content type %q: got %s, %v", contentType, r.body, err)
		}
	}
}

func testNotFound(t *testing.T, g *target) {
	c := g.enroll(t)
	for _, action := range []string{"Nonsense", "encrypt", "Encrypt2", "constructor", "__proto__", "toString"} {
		r := c.call(t, action, fields{})
		if string(r.body) != `{"code":404,"message":"API Not Found","result":{}}` {
			t.Errorf("%s: got %s", action, r.body)
		}
		want(t, c.deliver(t, action, c.unsigned(fields{}).signed("another key")), 400, textSign)
	}
	for _, action := range []string{"Enroll", "GetVersion"} {
		want(t, c.call(t, action, nil), 404, textNotFound)
		for _, body := range []string{"", "{}", "no JSON"} { // not even looked at
			want(t, g.must(t, http.MethodPost, "/ehsm?Action="+action, []byte(body)), 404, textNotFound)
		}
	}
}

func testEnrollMany(t *testing.T, g *target) {
	seen := map[string]bool{}
	for range 150 {
		r := g.must(t, http.MethodGet, "/ehsm/?Action=Enroll", nil)
		want(t, r, 200, textSuccessful)
		checkCredentials(t, r)
		for _, name := range []string{"appid", "apikey"} {
			if v := r.text(t, name); seen[v] {
				t.Errorf("%s %s comes a second time", name, v)
			} else {
				seen[v] = true
			}
		}
	}
}
