package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// envelopeLines are about the members beside the payload.
func envelopeLines() []line {
	return []line{
		{"2-envelope-of-every-error", testEnvelopeErrors},
		{"order-of-checks", testOrderOfChecks},
	}
}

// testEnvelopeErrors sends one fault at a time. That every reply has the form
// of an envelope is checked wherever one is read.
func testEnvelopeErrors(t *testing.T, g *target) {
	c := g.enroll(t)
	for name, row := range map[string]struct {
		action  string
		change  fields // nil values delete
		message string
	}{
		"no appid":                  {"ListKey", fields{"appid": nil}, textMissing},
		"empty appid":               {"ListKey", fields{"appid": ""}, textMissing},
		"no timestamp":              {"ListKey", fields{"timestamp": nil}, textMissing},
		"empty timestamp":           {"ListKey", fields{"timestamp": ""}, textMissing},
		"no sign":                   {"ListKey", fields{"sign": nil}, textMissing},
		"empty sign":                {"ListKey", fields{"sign": ""}, textMissing},
		"cryptographic, no payload": {"Encrypt", fields{}, textMissing},
		"null payload":              {"CreateKey", fields{"payload": null{}}, textMissing},
		"appid a number":            {"ListKey", fields{"appid": 1}, "param type error"},
		"timestamp a number":        {"ListKey", fields{"timestamp": time.Now().UnixMilli()}, "param type error"},
		"sign an array":             {"ListKey", fields{"sign": []any{"x"}}, "param type error"},
		"sign true":                 {"ListKey", fields{"sign": true}, "param type error"},
		"nonce a number":            {"ListKey", fields{"nonce": 12}, "param type error"},
		"nonce an object":           {"ListKey", fields{"nonce": fields{}}, "param type error"},
		"payload a string":          {"Encrypt", fields{"payload": "{}"}, "param type error"},
		"payload an array":          {"ListKey", fields{"payload": []any{}}, "param type error"},
		"payload a number":          {"ListKey", fields{"payload": 1}, "param type error"},
		"nonce of 65":               {"ListKey", fields{"nonce": strings.Repeat("n", 65)}, "Nonce length error"},
		"timestamp of 12":           {"ListKey", fields{"timestamp": "170000000000"}, "Timestamp length error"},
		"timestamp of 14":           {"ListKey", fields{"timestamp": "17000000000000"}, "Timestamp length error"},
		"timestamp no number":       {"ListKey", fields{"timestamp": "170000000000x"}, "Timestamp error"},
		"timestamp negative":        {"ListKey", fields{"timestamp": "-170000000000"}, "Timestamp error"},
		"timestamp with a sign":     {"ListKey", fields{"timestamp": "+170000000000"}, "Timestamp error"},
		"timestamp a fraction":      {"ListKey", fields{"timestamp": "1700000000.00"}, "Timestamp error"},
		"timestamp with a space":    {"ListKey", fields{"timestamp": " 170000000000"}, "Timestamp error"},
		"timestamp in hex":          {"ListKey", fields{"timestamp": "0x18bcfe56800"}, "Timestamp error"},
		"timestamp long ago":        {"ListKey", fields{"timestamp": "1700000000000"}, "Timestamp error"},
		"wrong sign":                {"ListKey", fields{"sign": sign("x", "x")}, textSign},
		"sign no base64":            {"ListKey", fields{"sign": "!"}, textSign},
		"unknown appid":             {"ListKey", fields{"appid": "00000000-0000-4000-8000-000000000000"}, textSign},
	} {
		q := c.unsigned(nil).signed(c.apikey)
		for k, v := range row.change {
			if q.envelope[k] = v; v == nil {
				delete(q.envelope, k)
			}
		}
		r := g.must(t, http.MethodPost, "/ehsm?Action="+row.action, q.body())
		r.action = name
		want(t, r, 400, row.message)
		if r.signature != "" {
			t.Errorf("%s: the reply to a stranger is signed", name)
		}
	}
	// A nonce of 64 UTF-16 units is not too long, and null is none.
	for _, nonce := range []any{strings.Repeat("n", 64), strings.Repeat("é", 64), strings.Repeat("\U0001F511", 32)} {
		q := c.unsigned(nil)
		q.envelope["nonce"] = nonce
		want(t, c.deliver(t, "ListKey", q.signed(c.apikey)), 200, textSuccessful)
	}
	q := c.unsigned(nil).bare().signed(c.apikey)
	q.envelope["nonce"] = null{}
	want(t, c.deliver(t, "ListKey", q), 200, textSuccessful)
}

// null is JSON's null where a nil would mean "delete".
type null struct{}

// MarshalJSON implements json.Marshaler.
func (null) MarshalJSON() ([]byte, error) { return []byte("null"), nil }

// testOrderOfChecks sends two faults at once: the earlier one of section 3.2 is
// answered.
func testOrderOfChecks(t *testing.T, g *target) {
	c := g.enroll(t)
	long := strings.Repeat("n", 65)
	for name, row := range map[string]struct {
		action  string
		payload fields
		change  fields
		message string
	}{
		"missing before type":            {"ListKey", nil, fields{"sign": "", "appid": 1}, textMissing},
		"payload before type":            {"Encrypt", nil, fields{"appid": 1}, textMissing},
		"type before nonce":              {"ListKey", nil, fields{"nonce": long, "sign": 1}, "param type error"},
		"nonce before timestamp length":  {"ListKey", nil, fields{"nonce": long, "timestamp": "1"}, "Nonce length error"},
		"length before timestamp":        {"ListKey", nil, fields{"timestamp": "x", "sign": "x"}, "Timestamp length error"},
		"timestamp before signature":     {"ListKey", nil, fields{"timestamp": "1700000000000", "sign": "x"}, "Timestamp error"},
		"signature before payload":       {"Encrypt", fields{"keyid": 1}, fields{"sign": "x"}, textSign},
		"signature before action":        {"Nonsense", nil, fields{"sign": "x"}, textSign},
		"signature before key":           {"DisableKey", fields{"keyid": uuidShape}, fields{"sign": "x"}, textSign},
		"payload before key":             {"Encrypt", fields{"keyid": strings.Repeat("0", 36)}, fields{}, "Parameter invalid, The keyid format wrong."},
		"first member before the second": {"Encrypt", fields{"plaintext": 1}, fields{}, "Missing required parameters, The keyid cannot be empty."},
	} {
		q := c.unsigned(row.payload).signed(c.apikey)
		for k, v := range row.change {
			q.envelope[k] = v
		}
		r := g.must(t, http.MethodPost, "/ehsm?Action="+row.action, q.body())
		r.action = name
		want(t, r, 400, row.message)
	}
	// A replay is found before its payload is looked at.
	q := c.unsigned(fields{"keyid": 1}).signed(c.apikey)
	want(t, c.deliver(t, "Encrypt", q), 400, "Parameter invalid, The keyid must be of string type.")
	want(t, c.deliver(t, "Encrypt", q), 400, textReplay)
}
