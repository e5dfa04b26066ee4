package core

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// Texts of the order of checks.
const (
	textMissing     = "Missing required parameters"
	textType        = "param type error"
	textNonceLength = "Nonce length error"
	textStampLength = "Timestamp length error"
	textStamp       = "Timestamp error"
	textSign        = "sign error"
	textReplay      = "Timestamp can't be repeated in 20 minutes"
	textAPI         = "API Not Found"
)

// Each request has the fault of its row and faults of all rows below it, as far
// as they go together, so that only the right order gives the text.
func TestOrderOfChecks(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	stamp := fmt.Sprint(h.now.UnixMilli())
	far := fmt.Sprint(h.now.Add(22 * time.Minute).UnixMilli())
	long := strings.Repeat("n", 65)
	tests := []struct{ name, action, body, want string }{
		{"1 no body", "Encrypt", ``, textMissing},
		{"1 no members", "Encrypt", `{}`, textMissing},
		{"1 appid absent", "Encrypt", `{"timestamp":1,"sign":1,"nonce":1}`, textMissing},
		{"1 appid null", "Encrypt", `{"appid":null,"timestamp":1,"sign":1,"nonce":1}`, textMissing},
		{"1 appid empty", "Encrypt", `{"appid":"","timestamp":1,"sign":1,"nonce":1}`, textMissing},
		{"1 timestamp absent", "Encrypt", `{"appid":1,"sign":1,"nonce":1}`, textMissing},
		{"1 timestamp empty", "Encrypt", `{"appid":1,"timestamp":"","sign":1,"nonce":1}`, textMissing},
		{"1 sign absent", "ListKey", `{"appid":1,"timestamp":1,"payload":1}`, textMissing},
		{"1 sign empty", "ListKey", `{"appid":1,"timestamp":1,"sign":"","payload":1}`, textMissing},
		{"1 other letter case", "ListKey", `{"AppID":"x","Timestamp":"` + stamp + `","Sign":"x"}`, textMissing},
		{"2 payload absent", "Encrypt", `{"appid":1,"timestamp":1,"sign":1,"nonce":1}`, textMissing},
		{"2 payload null", "CreateKey", `{"appid":"x","timestamp":"12","sign":"x","payload":null}`, textMissing},
		{"3 appid a number", "ListKey", `{"appid":1,"timestamp":"12","sign":"x","nonce":"` + long + `"}`, textType},
		{"3 timestamp a number", "ListKey", `{"appid":"x","timestamp":` + far + `,"sign":"x","nonce":"` + long + `"}`, textType},
		{"3 sign true", "ListKey", `{"appid":"x","timestamp":"12","sign":true,"nonce":"` + long + `"}`, textType},
		{"3 nonce a number", "ListKey", `{"appid":"x","timestamp":"12","sign":"x","nonce":5}`, textType},
		{"3 nonce an object", "ListKey", `{"appid":"x","timestamp":"12","sign":"x","nonce":{}}`, textType},
		{"3 payload a string", "Encrypt", `{"appid":"x","timestamp":"12","sign":"x","payload":"{}"}`, textType},
		{"3 payload an empty string", "Encrypt", `{"appid":"x","timestamp":"12","sign":"x","payload":""}`, textType},
		{"3 payload an array", "ListKey", `{"appid":"x","timestamp":"12","sign":"x","payload":[]}`, textType},
		{"3 payload false", "ListKey", `{"appid":"x","timestamp":"12","sign":"x","payload":false}`, textType},
		{"4 nonce of 65", "ListKey", `{"appid":"x","timestamp":"12","sign":"x","nonce":"` + long + `"}`, textNonceLength},
		{"4 nonce of 66 units in 33 characters", "ListKey", `{"appid":"x","timestamp":"12","sign":"x","nonce":"` + strings.Repeat("\U0001f600", 33) + `"}`, textNonceLength},
		{"5 timestamp of 12", "ListKey", `{"appid":"x","timestamp":"17000000000x","sign":"x"}`, textStampLength},
		{"5 timestamp of 14", "ListKey", `{"appid":"x","timestamp":"` + far + `0","sign":"x"}`, textStampLength},
		{"5 timestamp with a space", "ListKey", `{"appid":"x","timestamp":" ` + stamp + `","sign":"x"}`, textStampLength},
		{"6 timestamp not numeric", "ListKey", `{"appid":"x","timestamp":"17000000000x0","sign":"x"}`, textStamp},
		{"6 timestamp with a sign", "ListKey", `{"appid":"x","timestamp":"+170000000000","sign":"x"}`, textStamp},
		{"6 timestamp negative", "ListKey", `{"appid":"x","timestamp":"-170000000000","sign":"x"}`, textStamp},
		{"6 timestamp with an underscore", "ListKey", `{"appid":"x","timestamp":"1_70000000000","sign":"x"}`, textStamp},
		{"6 timestamp of other digits", "ListKey", `{"appid":"x","timestamp":"` + strings.Repeat("\u0661", 13) + `","sign":"x"}`, textStamp},
		{"6 timestamp 22 minutes ahead", "ListKey", `{"appid":"x","timestamp":"` + far + `","sign":"x"}`, textStamp},
		{"7 unknown appid", "Encrypt", `{"appid":"` + wire.NewUUID().String() + `","timestamp":"` + stamp + `","sign":"x","payload":{}}`, textSign},
		{"7 appid that is no UUID", "Encrypt", `{"appid":"constructor","timestamp":"` + stamp + `","sign":"x","payload":{}}`, textSign},
		{"7 appid in upper case", "Encrypt", `{"appid":"` + strings.ToUpper(c.appid) + `","timestamp":"` + stamp + `","sign":"x","payload":{}}`, textSign},
		{"7 wrong signature", "Encrypt", `{"appid":"` + c.appid + `","timestamp":"` + stamp + `","sign":"x","payload":{}}`, textSign},
		{"7 wrong signature of an unknown action", "Nothing", `{"appid":"` + c.appid + `","timestamp":"` + stamp + `","sign":"x"}`, textSign},
		{"JSON cut short", "ListKey", `{"appid":"x"`, "Invalid JSON"},
		{"JSON not an object", "ListKey", `["appid"]`, "Invalid JSON"},
		{"JSON of spaces", "ListKey", `  `, "Invalid JSON"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := c.send(0, tt.action, []byte(tt.body))
			want(t, tt.action, r, 400, tt.want)
			if r.answer.Sign != "" || r.answer.Release != 0 {
				t.Errorf("an unauthenticated reply is signed %q and held until %d", r.answer.Sign, r.answer.Release)
			}
		})
	}
}

func TestOrderAfterTheSignature(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	id := c.createKey()
	c.mustDo("DisableKey", named(id))

	invalid := c.body(map[string]any{"keyid": id, "plaintext": "?"})
	want(t, "9 before 10", c.send(0, "Encrypt", invalid), 400, "Parameter invalid, The plaintext not a vailed base64 string.")
	want(t, "8 before 9", c.send(0, "Encrypt", invalid), 400, textReplay)
	want(t, "8 before 10", c.send(0, "Nothing", invalid), 400, textReplay)
	want(t, "10 action", c.do(0, "Nothing", map[string]any{"keyid": 1}), 404, textAPI)
	want(t, "10 action in another case", c.do(0, "listkey", nil), 404, textAPI)
	want(t, "10 key", c.do(0, "Encrypt", encrypts(id)), 400, "keyid is disabled")
}

func TestMethods(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	get := func(action string, body []byte) reply {
		return parseReply(t, h.call(0, &wire.Call{Action: action, Get: true, Body: body}))
	}
	want(t, "GET GetVersion", get("GetVersion", nil), 200, "success!")
	want(t, "GET GetVersion with a body", get("GetVersion", []byte("?")), 200, "success!")
	want(t, "GET Enroll", get("Enroll", nil), 200, "successful")
	want(t, "GET of another action", get("ListKey", nil), 400, textMissing)
	want(t, "GET of an unknown action", get("Nothing", nil), 400, textMissing)
	want(t, "GET without action", get("", nil), 400, textMissing)
	want(t, "GET with a signed body", get("ListKey", c.body(nil)), 404, textAPI)
	want(t, "GET with a body signed wrongly", get("ListKey", bytes.Replace(c.body(nil), []byte("nonce"), []byte("ecnon"), 1)), 400, textSign)
	for _, action := range []string{"Enroll", "GetVersion"} {
		want(t, "POST "+action, c.send(0, action, nil), 404, textAPI)
		want(t, "POST "+action+" signed", c.do(0, action, nil), 404, textAPI)
	}
	want(t, "POST of an unknown action", c.do(0, "Nothing", nil), 404, textAPI)
	if r := get("GetVersion", nil); r.text("version") != "test" {
		t.Errorf("GetVersion: got %v", r.Result)
	} else if _, ok := r.Result["git_sha"].(string); !ok {
		t.Errorf("GetVersion: no git_sha in %v", r.Result)
	}
}

// The vectors of the native API, at the time they were made.
func TestVectors(t *testing.T) {
	const appid, apikey = "86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c", "D3nK2Vq90QrFkHGRZ3dBAyFEfPTtLfQy"
	const head = `{"appid":"` + appid + `","timestamp":"1700000000000"`
	d := newDomainAt(t, time.Date(2023, 1, 1, 0, 0, 0, 0, time.UTC))
	tests := []struct {
		name, action, text, sign string
		code                     int
		message                  string
	}{
		{"V1", "CreateKey", head + `,"payload":{"keyusage":"EH_KEYUSAGE_ENCRYPT_DECRYPT","keyspec":"EH_AES_GCM_256","origin":"EH_INTERNAL_KEY"}}`,
			"GKaU25v+F7f+JzCW4GATwOMZByGceoEJc4iK0ct0Acs=", 200, "success!"},
		{"V2", "GenerateDataKey", head + `,"nonce":"12345678901234567890","payload":{"keyid":"aac3e45a-d3dc-4791-89b6-4ada0e38e6ef","keylen":48,"aad":"YWFk+/8="}}`,
			"NUMQ7Q5tNQXBQYaC0TOp9uLH5+x0J2rjyJx3rAATHc4=", 400, "keyid error"},
		{"V3", "ListKey", head + `}`, "0QnfZb4jZLoCooe3W7nLRGGxLZXG2TO6uGtQslk9fBA=", 200, "successful"},
		{"V4", "ListKey", head + `,"payload":{}}`, "8jEWnmr55ORqc1NvoWR2S61cZjIjtBrp7LkQgIKXdNI=", 200, "successful"},
		{"V5", "Nothing", head + `,"payload":{"secretName":"a b&c=d","secretData":"x\ny+%41\"\\\u00e9"}}`,
			"pkDjM3dlROsKTcGG2jtkhpMaIsWTu76aJWkxoauG/NA=", 404, textAPI},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := d.hostAt(t, Limits{}, time.UnixMilli(1700000000000))
			c := h.adopt(d, appid, apikey)
			if got := signOf(c.signText(tt.text, canon.Skipping)); got != tt.sign {
				t.Errorf("sign: got %s, want %s", got, tt.sign)
			}
			want(t, "upper case", c.send(0, tt.action, withSign(tt.text, strings.ToUpper(tt.sign))), 400, textSign)
			for _, sign := range otherSpellings(tt.sign) {
				want(t, "sign "+sign, c.send(0, tt.action, withSign(tt.text, sign)), 400, textSign)
			}
			r := c.send(0, tt.action, withSign(tt.text, tt.sign))
			want(t, "as given", r, tt.code, tt.message)
			if r.answer.Sign == "" {
				t.Error("the reply is not signed")
			}
			want(t, "again", c.send(0, tt.action, withSign(tt.text, tt.sign)), 400, textReplay)
		})
	}
}

func TestForms(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	id := c.createKey()
	tests := []struct {
		name, action, payload string
		form                  canon.Form
		want                  string
	}{
		{"aad empty, not signed", "Encrypt", `{"keyid":"ID","plaintext":"aGVsbG8=","aad":""}`, canon.Skipping, "success!"},
		{"aad empty, signed", "Encrypt", `{"keyid":"ID","plaintext":"aGVsbG8=","aad":""}`, canon.Keeping, "success!"},
		{"false as False", "Encrypt", `{"keyid":"ID","plaintext":"aGVsbG8=","x":false}`, canon.KeepingTitle, "success!"},
		{"false as false", "Encrypt", `{"keyid":"ID","plaintext":"aGVsbG8=","x":false}`, canon.Keeping, "success!"},
		{"true as True", "Encrypt", `{"keyid":"ID","plaintext":"aGVsbG8=","x":true}`, canon.KeepingTitle, "success!"},
		{"zero that is not signed is absent", "GenerateDataKey", `{"keyid":"ID","keylen":0}`, canon.Skipping, "Missing required parameters, The keylen cannot be empty."},
		{"zero that is signed", "GenerateDataKey", `{"keyid":"ID","keylen":0}`, canon.Keeping, "Parameter invalid, The keylen value must be greater than or equal to 1."},
		{"false that is not signed is absent", "GenerateDataKey", `{"keyid":"ID","keylen":false}`, canon.Skipping, "Missing required parameters, The keylen cannot be empty."},
		{"array that is never signed is absent", "Encrypt", `{"keyid":"ID","plaintext":["",""],"aad":[""]}`, canon.Keeping, "Parameter invalid, The plaintext must be of string type."},
		{"empty array is absent", "Encrypt", `{"keyid":"ID","plaintext":[]}`, canon.Keeping, "Missing required parameters, The plaintext cannot be empty."},
		{"unsigned member of a change is absent", "EnableKey", `{"keyid":"ID","x":0,"y":[],"z":null}`, canon.Skipping, "successful"},
		{"signed member of a change", "EnableKey", `{"keyid":"ID","x":0}`, canon.Keeping, "Parameter invalid, The x type is incorrect."},
		{"action", "EnableKey", `{"keyid":"ID","action":"EnableKey"}`, canon.Skipping, "successful"},
		{"another action", "EnableKey", `{"keyid":"ID","action":"DisableKey"}`, canon.Skipping, textSign},
		{"another action of a reading action", "ListKey", `{"action":"DeleteAllKey"}`, canon.Skipping, textSign},
		{"action in another case", "EnableKey", `{"keyid":"ID","action":"enableKey"}`, canon.Skipping, textSign},
		{"action that is no text", "EnableKey", `{"keyid":"ID","action":{}}`, canon.Skipping, textSign},
		{"action empty, signed", "EnableKey", `{"keyid":"ID","action":""}`, canon.Keeping, textSign},
		{"action empty, not signed", "EnableKey", `{"keyid":"ID","action":""}`, canon.Skipping, "successful"},
		{"action null", "EnableKey", `{"keyid":"ID","action":null}`, canon.Keeping, "successful"},
		{"keylen with a fraction of zero", "GenerateDataKeyWithoutPlaintext", `{"keyid":"ID","keylen":48.0}`, canon.Skipping, "success!"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := c.request(strings.ReplaceAll(tt.payload, "ID", id))
			if r := c.send(0, tt.action, c.signText(text, tt.form)); r.Message != tt.want {
				t.Errorf("got %d %q, want %q", r.Code, r.Message, tt.want)
			}
		})
	}
}

// The reply to a request under a wrong key must not depend on whether the tenant
// exists, nor on what it sends.
func TestWrongSignatureTellsNothing(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	id := c.createKey()
	strangers := []*tenant{{h: h, appid: c.appid, apikey: "wrong"}, {h: h, appid: wire.NewUUID().String(), apikey: c.apikey}}
	for _, s := range strangers {
		for _, action := range []string{"Encrypt", "DeleteKey", "ListKey", "Nothing"} {
			r := s.do(0, action, encrypts(id))
			want(t, action, r, 400, textSign)
			if r.answer.Sign != "" || r.answer.Kind != wire.Final {
				t.Errorf("%s: got %+v", action, r.answer)
			}
		}
	}
}

func TestNonceLengths(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	for _, nonce := range []string{strings.Repeat("n", 64), strings.Repeat("\U0001f600", 32), "\n\t \x7f", ""} {
		want(t, "nonce "+nonce, c.send(0, "ListKey", c.sign(nil, h.now, nonce)), 200, "successful")
	}
}
