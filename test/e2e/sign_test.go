package e2e

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"
)

// fields is a JSON object as tests write it: texts, numbers, booleans, nil,
// []any and fields.
type fields map[string]any

// A form says what the canonical string does with values that are empty.
type form struct {
	keep    bool // "", 0 and false are kept
	capital bool // True and False, as Python prints them
}

// canonical is C(object) of the contract, section 3.3.
func canonical(object fields, f form) string {
	names := make([]string, 0, len(object))
	for name := range object {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return slices.Compare(utf16.Encode([]rune(a)), utf16.Encode([]rune(b)))
	})
	var parts []string
	for _, name := range names {
		if v := object[name]; !skipped(v, f) {
			parts = append(parts, name+"="+value(v, f))
		}
	}
	return strings.Join(parts, "&")
}

// skipped says that a member does not appear in the string.
func skipped(v any, f form) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return v == "" && !f.keep
	case bool:
		return !v && !f.keep
	case int, float64:
		return number(v) == "0" && !f.keep
	case []any:
		return joined(v) == ""
	}
	return false
}

// joined is what ECMAScript makes of an array as text.
func joined(a []any) string {
	var parts []string
	for _, v := range a {
		switch v := v.(type) {
		case nil:
			parts = append(parts, "")
		case []any:
			parts = append(parts, joined(v))
		case fields:
			parts = append(parts, "[object Object]")
		default:
			parts = append(parts, value(v, form{}))
		}
	}
	return strings.Join(parts, ",")
}

func value(v any, f form) string {
	switch v := v.(type) {
	case string:
		return v
	case bool:
		text := strconv.FormatBool(v)
		if f.capital {
			text = strings.ToUpper(text[:1]) + text[1:]
		}
		return text
	case int, float64:
		return number(v)
	case fields:
		return canonical(v, f)
	case []any:
		indexed := fields{}
		for i, e := range v {
			indexed[strconv.Itoa(i)] = e
		}
		return canonical(indexed, f)
	}
	panic(fmt.Sprintf("a test signs a %T", v))
}

// number prints as ECMAScript does, which encoding/json does too.
func number(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	if string(text) == "-0" {
		return "0"
	}
	return string(text)
}

// sign is the signature over a canonical string.
func sign(apikey, text string) string {
	return base64.StdEncoding.EncodeToString(mac([]byte(apikey), []byte(text)))
}

func mac(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// replySignature is what the header Ehsm-Reply-Signature must be.
func replySignature(apikey, requestSign, action string, body []byte) string {
	key, err := hkdf.Key(sha256.New, []byte(apikey), nil, "ehsm-reply/v1", sha256.Size)
	if err != nil {
		panic(err)
	}
	of, err := base64.StdEncoding.DecodeString(requestSign)
	if err != nil {
		return "the request's signature is no base64"
	}
	return base64.StdEncoding.EncodeToString(mac(key, of, []byte{byte(len(action))}, []byte(action), body))
}

// jsonText is v as JSON, without escapes that are not needed.
func jsonText(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// TestVectors is line 5 of the checklist: V1 to V5 of the contract.
func TestVectors(t *testing.T) {
	const appid, apikey, stamp = "86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c", "D3nK2Vq90QrFkHGRZ3dBAyFEfPTtLfQy", "1700000000000"
	for name, row := range map[string]struct {
		more         fields
		text, signed string
	}{
		"V1": {fields{"payload": fields{"keyusage": "EH_KEYUSAGE_ENCRYPT_DECRYPT", "keyspec": "EH_AES_GCM_256", "origin": "EH_INTERNAL_KEY"}},
			"appid=" + appid + "&payload=keyspec=EH_AES_GCM_256&keyusage=EH_KEYUSAGE_ENCRYPT_DECRYPT&origin=EH_INTERNAL_KEY&timestamp=" + stamp,
			"GKaU25v+F7f+JzCW4GATwOMZByGceoEJc4iK0ct0Acs="},
		"V2": {fields{"nonce": "12345678901234567890", "payload": fields{"keyid": "aac3e45a-d3dc-4791-89b6-4ada0e38e6ef", "keylen": 48, "aad": "YWFk+/8="}},
			"appid=" + appid + "&nonce=12345678901234567890&payload=aad=YWFk+/8=&keyid=aac3e45a-d3dc-4791-89b6-4ada0e38e6ef&keylen=48&timestamp=" + stamp,
			"NUMQ7Q5tNQXBQYaC0TOp9uLH5+x0J2rjyJx3rAATHc4="},
		"V3": {nil, "appid=" + appid + "&timestamp=" + stamp, "0QnfZb4jZLoCooe3W7nLRGGxLZXG2TO6uGtQslk9fBA="},
		"V4": {fields{"payload": fields{}}, "appid=" + appid + "&payload=&timestamp=" + stamp, "8jEWnmr55ORqc1NvoWR2S61cZjIjtBrp7LkQgIKXdNI="},
		"V5": {fields{"payload": fields{"secretName": "a b&c=d", "secretData": "x\ny+%41\"\\\u00e9"}},
			"appid=" + appid + "&payload=secretData=x\ny+%41\"\\é&secretName=a b&c=d&timestamp=" + stamp,
			"pkDjM3dlROsKTcGG2jtkhpMaIsWTu76aJWkxoauG/NA="},
	} {
		object := fields{"appid": appid, "timestamp": stamp}
		for k, v := range row.more {
			object[k] = v
		}
		if got := canonical(object, form{}); got != row.text {
			t.Errorf("%s: got %q, want %q", name, got, row.text)
		}
		if got := sign(apikey, row.text); got != row.signed {
			t.Errorf("%s: got %s, want %s", name, got, row.signed)
		}
	}
}
