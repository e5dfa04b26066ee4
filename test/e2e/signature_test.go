package e2e

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"
)

// signatureLines are about the canonical string and who signed it.
func signatureLines() []line {
	return []line{
		{"5-vectors-of-today", testVectorsOfToday},
		{"5-spellings-of-a-signature", testSignatureSpellings},
		{"6-empty-aad-in-both-forms", testEmptyAAD},
		{"7-skipped-and-kept-values", testCanonicalValues},
		{"7-second-form", testSecondForm},
		{"7-unsigned-members-are-absent", testUnsignedMembers},
		{"8-strangers", testStrangers},
		{"41-signed-action", testSignedAction},
		{"names-and-duplicates", testNames},
	}
}

// testVectorsOfToday sends what V1 to V5 sign, at the time of now.
func testVectorsOfToday(t *testing.T, g *target) {
	c := g.enroll(t)
	r := c.deliver(t, "CreateKey", c.raw(`{"keyusage":"EH_KEYUSAGE_ENCRYPT_DECRYPT","keyspec":"EH_AES_GCM_256","origin":"EH_INTERNAL_KEY"}`,
		"keyspec=EH_AES_GCM_256&keyusage=EH_KEYUSAGE_ENCRYPT_DECRYPT&origin=EH_INTERNAL_KEY").bare().signed(c.apikey))
	want(t, r, 200, textSuccess)
	key := r.text(t, "keyid")
	q := c.raw(`{"keyid":"`+key+`","keylen":48,"aad":"YWFk+/8="}`, "aad=YWFk+/8=&keyid="+key+"&keylen=48")
	q.envelope["nonce"] = "12345678901234567890"
	r = c.deliver(t, "GenerateDataKey", q.signed(c.apikey))
	want(t, r, 200, textSuccess)
	if n := len(r.bytes(t, "plaintext")); n != 48 {
		t.Errorf("data key has %d bytes, want 48", n)
	}
	want(t, c.deliver(t, "ListKey", c.raw("", "").bare().signed(c.apikey)), 200, textSuccessful)
	want(t, c.deliver(t, "ListKey", c.raw("{}", "").bare().signed(c.apikey)), 200, textSuccessful)
	// V5's members go along with an action that ignores them.
	r = c.deliver(t, "Encrypt", c.raw(`{"keyid":"`+key+`","plaintext":"AAAA","secretName":"a b&c=d","secretData":"x\ny+%41\"\\\u00e9"}`,
		"keyid="+key+"&plaintext=AAAA&secretData=x\ny+%41\"\\é&secretName=a b&c=d").signed(c.apikey))
	want(t, r, 200, textSuccess)
}

// testSignatureSpellings sends a good signature in wrong spellings.
func testSignatureSpellings(t *testing.T, g *target) {
	c := g.enroll(t)
	for name, spell := range map[string]func(s string) string{
		"upper case":           strings.ToUpper,
		"lower case":           strings.ToLower,
		"no padding":           func(s string) string { return strings.TrimRight(s, "=") },
		"unused bits":          unusedBits,
		"trailing line feed":   func(s string) string { return s + "\n" },
		"line feed within":     func(s string) string { return s[:20] + "\n" + s[20:] },
		"CR instead of a half": func(s string) string { return s[:43] + "\r" },
		"leading space":        func(s string) string { return " " + s },
		"cut short":            func(s string) string { return s[:40] },
		"twice":                func(s string) string { return s + s },
		"url-safe":             func(s string) string { return strings.NewReplacer("+", "-", "/", "_").Replace(s) },
		"hex":                  func(s string) string { b, _ := base64.StdEncoding.DecodeString(s); return hexText(b) },
	} {
		q := c.unsigned(nil).signed(c.apikey)
		for !strings.ContainsAny(q.envelope["sign"].(string), "+/") || spell(q.envelope["sign"].(string)) == q.envelope["sign"] {
			q = c.unsigned(nil).signed(c.apikey)
		}
		good := q.envelope["sign"].(string)
		q.envelope["sign"] = spell(good)
		r := c.deliver(t, "ListKey", q)
		r.action = name
		want(t, r, 400, textSign)
		q.envelope["sign"] = good
		want(t, c.deliver(t, "ListKey", q), 200, textSuccessful)
	}
}

// unusedBits alters the two bits of the last character that stand for nothing.
func unusedBits(s string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	return s[:42] + string(alphabet[strings.IndexByte(alphabet, s[42])^1]) + s[43:]
}

func hexText(b []byte) string {
	const digits = "0123456789abcdef"
	var s strings.Builder
	for _, c := range b {
		s.WriteByte(digits[c>>4])
		s.WriteByte(digits[c&15])
	}
	return s.String()
}

func testEmptyAAD(t *testing.T, g *target) {
	c := g.enroll(t)
	key := c.createAES(t)
	payload := `{"keyid":"` + key + `","plaintext":"AAAA","aad":""}`
	skip, keep := "keyid="+key+"&plaintext=AAAA", "aad=&keyid="+key+"&plaintext=AAAA"
	for _, text := range []string{skip, keep} {
		r := c.deliver(t, "Encrypt", c.raw(payload, text).signed(c.apikey))
		want(t, r, 200, textSuccess)
		// None is the same as an empty one.
		r = c.call(t, "Decrypt", fields{"keyid": key, "ciphertext": r.text(t, "ciphertext")})
		want(t, r, 200, textSuccess)
		if r.text(t, "plaintext") != "AAAA" {
			t.Errorf("got plaintext %s", r.body)
		}
	}
	for name, text := range map[string]string{
		"of another value": "aad=AAAA&" + skip, "quoted": `aad=""&` + skip, "escaped": strings.ReplaceAll(skip, "=", "%3D"),
		"unsorted": "plaintext=AAAA&keyid=" + key, "trailing &": keep + "&", "leading &": "&" + keep, "null for empty": "aad=null&" + skip,
	} {
		r := c.deliver(t, "Encrypt", c.raw(payload, text).signed(c.apikey))
		r.action = name
		want(t, r, 400, textSign)
	}
}

// testCanonicalValues has an unknown member zz of every kind of value: Encrypt
// ignores it, but it is signed. "-" is for skipped.
func testCanonicalValues(t *testing.T, g *target) {
	c := g.enroll(t)
	key := c.createAES(t)
	for _, row := range [][2]string{
		{`0`, "-"}, {`-0`, "-"}, {`0.0`, "-"}, {`-0.0e5`, "-"}, {`1e-400`, "-"}, {`false`, "-"}, {`null`, "-"}, {`""`, "-"},
		{`[]`, "-"}, {`[""]`, "-"}, {`[null]`, "-"}, {`[[]]`, "-"}, {`[[null]]`, "-"}, {`[[[""]]]`, "-"},
		{`"0"`, "zz=0"}, {`"false"`, "zz=false"}, {`" "`, "zz= "}, {`"\t"`, "zz=\t"}, {`"null"`, "zz=null"}, {`true`, "zz=true"},
		{`{}`, "zz="}, {`{"a":""}`, "zz="}, {`{"a":0,"b":null}`, "zz="}, {`[0]`, "zz="}, {`[false]`, "zz="}, {`["x"]`, "zz=0=x"},
		{`[{}]`, "zz=0="}, {`["",""]`, "zz="}, {`[1,[2,3]]`, "zz=0=1&1=0=2&1=3"}, {`[null,"x"]`, "zz=1=x"},
		{`[1,2,3,4,5,6,7,8,9,10,11]`, "zz=0=1&1=2&10=11&2=3&3=4&4=5&5=6&6=7&7=8&8=9&9=10"},
		{`{"b":"2","a":"1","B":"3","_":"4"}`, "zz=B=3&_=4&a=1&b=2"}, {`{"a":{"b":{"c":"d"}}}`, "zz=a=b=c=d"},
		{`{"10":"x","9":"y"}`, "zz=10=x&9=y"}, {`{"":"x"}`, "zz==x"},
		{`{"\ud83d\ude00":"1","\uff5e":"2"}`, "zz=\U0001F600=1&\uff5e=2"}, // UTF-16 order, not UTF-8
		{`"\ud800"`, "zz=\uFFFD"}, {`"a\ud800b"`, "zz=a\uFFFDb"}, {`"\udc00\ud800"`, "zz=\uFFFD\uFFFD"}, {`"\ud83d\ude00"`, "zz=\U0001F600"},
		{`"a\nb\r\t\u000b\f\"\\&=+%"`, "zz=a\nb\r\t\v\f\"\\&=+%"}, {`"\u0000"`, "zz=\x00"}, {`"a\/b"`, "zz=a/b"}, {`"<>&\u2028"`, "zz=<>&\u2028"},
		{`48`, "zz=48"}, {`1.5`, "zz=1.5"}, {`1.0`, "zz=1"}, {`48.0`, "zz=48"}, {`1e21`, "zz=1e+21"}, {`1e20`, "zz=100000000000000000000"},
		{`0.0000001`, "zz=1e-7"}, {`0.000001`, "zz=0.000001"}, {`-1`, "zz=-1"}, {`-1.50`, "zz=-1.5"}, {`1E3`, "zz=1000"}, {`1e+2`, "zz=100"},
		{`9007199254740993`, "zz=9007199254740992"}, {`123456789012345678901`, "zz=123456789012345680000"}, {`0.1`, "zz=0.1"},
		{`5e-324`, "zz=5e-324"}, {`1.7976931348623157e308`, "zz=1.7976931348623157e+308"}, {`1e-10`, "zz=1e-10"}, {`123e-20`, "zz=1.23e-18"},
		{`4.35`, "zz=4.35"}, {`100`, "zz=100"}, {`1000000000000000128`, "zz=1000000000000000100"},
	} {
		text := "keyid=" + key + "&plaintext=AAAA"
		if row[1] != "-" {
			text += "&" + row[1]
		}
		q := c.raw(`{"zz":`+row[0]+`,"plaintext":"AAAA","keyid":"`+key+`"}`, text).signed(c.apikey)
		r := c.deliver(t, "Encrypt", q)
		r.action = row[0]
		want(t, r, 200, textSuccess)
	}
}

// testSecondForm signs with empty values kept, as Go and Python do, in all four
// spellings of booleans.
func testSecondForm(t *testing.T, g *target) {
	c := g.enroll(t)
	key := c.createAES(t)
	for _, row := range []struct {
		zz, text string
		code     int
	}{
		{`""`, "zz=", 200}, {`0`, "zz=0", 200}, {`-0`, "zz=0", 200}, {`false`, "zz=false", 200}, {`false`, "zz=False", 200},
		{`true`, "zz=True", 200}, {`{"a":false,"b":0,"c":""}`, "zz=a=False&b=0&c=", 200}, {`{"a":false,"b":true}`, "zz=a=false&b=true", 200},
		{`{"a":false,"b":true}`, "zz=a=False&b=True", 200}, {`{"a":"","b":true}`, "zz=b=true", 200},
		{`false`, "zz=FALSE", 400}, {`true`, "zz=TRUE", 400}, {`true`, "zz=1", 400}, {`null`, "zz=null", 400}, {`null`, "zz=", 400},
		{`null`, "zz=None", 400}, {`0`, "zz=0.0", 400}, {`{"a":"","b":0}`, "zz=a=", 400}, {`{"a":"","b":false}`, "zz=b=false", 400},
	} {
		q := c.raw(`{"zz":`+row.zz+`,"plaintext":"AAAA","keyid":"`+key+`"}`, "keyid="+key+"&plaintext=AAAA&"+row.text).signed(c.apikey)
		r := c.deliver(t, "Encrypt", q)
		r.action = row.zz + " as " + row.text
		if row.code == 200 {
			want(t, r, 200, textSuccess)
		} else {
			want(t, r, 400, textSign)
		}
	}
}

// testUnsignedMembers has members with an effect that the signature leaves out.
func testUnsignedMembers(t *testing.T, g *target) {
	c := g.enroll(t)
	key := c.createAES(t)
	keyed := func(more string) string { return `{"keyid":"` + key + `",` + more + `}` }
	r := c.deliver(t, "GenerateDataKey", c.raw(keyed(`"keylen":0`), "keyid="+key).signed(c.apikey))
	want(t, r, 400, "Missing required parameters, The keylen cannot be empty.")
	r = c.deliver(t, "GenerateDataKey", c.raw(keyed(`"keylen":0`), "keyid="+key+"&keylen=0").signed(c.apikey))
	want(t, r, 400, "Parameter invalid, The keylen value must be greater than or equal to 1.")
	r = c.deliver(t, "Encrypt", c.raw(keyed(`"plaintext":"AAAA","aad":[]`), "keyid="+key+"&plaintext=AAAA").signed(c.apikey))
	want(t, r, 200, textSuccess)
	r = c.deliver(t, "Encrypt", c.raw(keyed(`"plaintext":"AAAA","aad":[[null]]`), "keyid="+key+"&plaintext=AAAA").signed(c.apikey))
	want(t, r, 200, textSuccess)
	// Members beside the known ones are not signed and have no effect.
	q := c.unsigned(fields{"keyid": key, "plaintext": "AAAA"}).signed(c.apikey)
	q.envelope["extra"], q.envelope["Payload"], q.envelope["action"] = "x", fields{"keyid": "y"}, "DeleteKey"
	want(t, c.deliver(t, "Encrypt", q), 200, textSuccess)
}

// testStrangers compares refusals of those who may not know who exists.
func testStrangers(t *testing.T, g *target) {
	c, other := g.enroll(t), g.enroll(t)
	var bodies []string
	for name, row := range map[string]struct{ appid, apikey string }{
		"wrong key":          {c.appid, strings.Repeat("x", 32)},
		"another's key":      {c.appid, other.apikey},
		"another's appid":    {other.appid, c.apikey},
		"key in lower case":  {c.appid, strings.ToLower(c.apikey)},
		"key with a space":   {c.appid, c.apikey + " "},
		"unknown appid":      {"3f2504e0-4f89-41d3-9a0c-0305e82c3301", c.apikey},
		"appid no UUID":      {"x", c.apikey},
		"appid constructor":  {"constructor", c.apikey},
		"appid __proto__":    {"__proto__", c.apikey},
		"appid in upper":     {strings.ToUpper(c.appid), c.apikey},
		"appid in braces":    {"{" + c.appid + "}", c.apikey},
		"appid without dash": {strings.ReplaceAll(c.appid, "-", ""), c.apikey},
		"very long appid":    {strings.Repeat("a", 50000), c.apikey},
		"zero appid":         {"00000000-0000-0000-0000-000000000000", c.apikey},
	} {
		q := c.unsigned(nil)
		q.envelope["appid"] = row.appid
		r := c.deliver(t, "ListKey", q.signed(row.apikey))
		r.action = name
		want(t, r, 400, textSign)
		bodies = append(bodies, string(r.body))
	}
	for _, b := range bodies {
		if b != bodies[0] {
			t.Errorf("refusals differ: %s and %s", b, bodies[0])
		}
	}
	// The content that was signed is what counts.
	key := c.createAES(t)
	for name, change := range map[string]func(q *request){
		"plaintext": func(q *request) { q.payload = strings.Replace(q.payload, "AAAA", "AAAB", 1) },
		"timestamp": func(q *request) { q.at(time.Now().Add(-time.Minute)) },
		"nonce":     func(q *request) { q.envelope["nonce"] = "1" },
		"no nonce":  func(q *request) { q.bare() },
		"added":     func(q *request) { q.payload = `{"x":"y",` + q.payload[1:] },
		"removed":   func(q *request) { q.payload = `{"keyid":"` + key + `"}` },
		"none":      func(q *request) { q.payload = `{}` },
	} {
		q := c.unsigned(fields{"keyid": key, "plaintext": "AAAA"}).signed(c.apikey)
		change(q)
		r := c.deliver(t, "Encrypt", q)
		r.action = name
		want(t, r, 400, textSign)
	}
}

func testSignedAction(t *testing.T, g *target) {
	c := g.enroll(t)
	key := c.createAES(t)
	want(t, c.call(t, "DisableKey", fields{"keyid": key, "action": "DisableKey"}), 200, textSuccessful)
	want(t, c.call(t, "EnableKey", fields{"keyid": key, "action": "EnableKey"}), 200, textSuccessful)
	want(t, c.call(t, "ListKey", fields{"action": "ListKey"}), 200, textSuccessful)
	for _, action := range []any{"DisableKey", "enablekey", "EnableKey ", " ", 1, true, fields{}, []any{"EnableKey"}} {
		r := c.call(t, "EnableKey", fields{"keyid": key, "action": action})
		r.action = jsonText(action)
		want(t, r, 400, textSign)
	}
	want(t, c.call(t, "DeleteAllKey", fields{"action": "ListKey"}), 400, textSign)
	if !c.hasKey(t, key) {
		t.Error("the key is gone")
	}
}

// testNames: names are exact, and of a duplicate member the last one is both
// verified and executed.
func testNames(t *testing.T, g *target) {
	c := g.enroll(t)
	key, other := c.createAES(t), c.createAES(t)
	r := c.call(t, "Encrypt", fields{"Keyid": key, "plaintext": "AAAA"})
	want(t, r, 400, "Missing required parameters, The keyid cannot be empty.")
	twice := `{"keyid":"` + other + `","keyid":"` + key + `","plaintext":"AAAA"}`
	r = c.deliver(t, "Encrypt", c.raw(twice, "keyid="+key+"&plaintext=AAAA").signed(c.apikey))
	want(t, r, 200, textSuccess)
	want(t, c.call(t, "Decrypt", fields{"keyid": key, "ciphertext": r.text(t, "ciphertext")}), 200, textSuccess)
	want(t, c.deliver(t, "Encrypt", c.raw(twice, "keyid="+other+"&plaintext=AAAA").signed(c.apikey)), 400, textSign)
	q := c.unsigned(fields{"keyid": key, "plaintext": "AAAA"}).signed(c.apikey)
	q.envelope["Appid"], q.envelope["APPID"], q.envelope["Sign"] = "x", "y", "z"
	want(t, c.deliver(t, "Encrypt", q), 200, textSuccess)
	// A payload that comes twice at the top level: the last one.
	q = c.unsigned(fields{"keyid": key, "plaintext": "AAAA"}).signed(c.apikey)
	q.payload = `{"keyid":"` + other + `"},"payload":` + q.payload
	want(t, c.deliver(t, "Encrypt", q), 200, textSuccess)
}
