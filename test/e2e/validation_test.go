package e2e

import (
	"strings"
	"testing"
)

// validationLines are about the members of payloads.
func validationLines() []line {
	return []line{
		{"13-validation-texts", testValidation},
		{"13-integers", testIntegers},
		{"13-limits-are-usable", testLimits},
		{"13-changes-refuse-unknown-members", testUnknownMembers},
	}
}

// A fault is one member that is wrong.
type fault struct {
	action string
	member string
	value  any // nil deletes
	rest   string
}

func (f fault) message() string {
	if f.rest == "cannot be empty." {
		return "Missing required parameters, The " + f.member + " cannot be empty."
	}
	return "Parameter invalid, The " + f.member + " " + f.rest
}

// faulty runs faults against payloads that are good otherwise. Every action
// that has a good payload must be among the faults.
func faulty(t *testing.T, c *tenant, good map[string]fields, faults []fault) {
	t.Helper()
	tried := map[string]bool{}
	for _, f := range faults {
		tried[f.action] = true
		payload := good[f.action].with(fields{f.member: f.value})
		if f.value == nil {
			payload = payload.without(f.member)
		}
		r := c.call(t, f.action, payload)
		value := jsonText(f.value)
		r.action = f.action + " " + f.member + " " + value[:min(len(value), 40)]
		want(t, r, 400, f.message())
	}
	for action := range good {
		if !tried[action] {
			t.Errorf("no fault of %s is tried", action)
		}
	}
}

const (
	isEmpty   = "cannot be empty."
	noString  = "must be of string type."
	noLength  = "length error."
	noFormat  = "format wrong."
	noBase64  = "not a vailed base64 string."
	noInteger = "must be of integer type."
	noName    = "type is incorrect."
)

func testValidation(t *testing.T, g *target) {
	c := g.enroll(t)
	key := c.createAES(t)
	good := map[string]fields{
		"CreateKey":                       {"keyspec": "EH_AES_GCM_256", "origin": internalKey, "keyusage": encryptDecrypt},
		"Encrypt":                         {"keyid": key, "plaintext": "AAAA"},
		"Decrypt":                         {"keyid": key, "ciphertext": "AAAA"},
		"GenerateDataKey":                 {"keyid": key, "keylen": 16},
		"GenerateDataKeyWithoutPlaintext": {"keyid": key, "keylen": 16},
		"EnableKey":                       {"keyid": key}, "DisableKey": {"keyid": key}, "DeleteKey": {"keyid": key},
	}
	var faults []fault
	for action, payload := range good {
		if _, ok := payload["keyid"]; ok {
			faults = append(faults, uuidFaults(action, "keyid")...)
		}
	}
	faults = append(faults, base64Faults("Encrypt", "plaintext", 8192)...)
	faults = append(faults, optional(base64Faults("Encrypt", "aad", 8192))...)
	faults = append(faults, base64Faults("Decrypt", "ciphertext", 8500)...)
	faults = append(faults, optional(base64Faults("Decrypt", "aad", 8192))...)
	faults = append(faults, optional(base64Faults("GenerateDataKey", "aad", 8192))...)
	faults = append(faults, optional(base64Faults("GenerateDataKeyWithoutPlaintext", "aad", 8192))...)
	for _, action := range []string{"GenerateDataKey", "GenerateDataKeyWithoutPlaintext"} {
		faults = append(faults, integerFaults(action, "keylen", 1024)...)
	}
	faults = append(faults, nameFaults("CreateKey", "keyspec")...)
	faults = append(faults, nameFaults("CreateKey", "origin")...)
	faulty(t, c, good, faults)
	// The same without any payload member, and with null and "" for optional ones.
	want(t, c.call(t, "DeleteKey", nil), 400, "Missing required parameters, The keyid cannot be empty.")
	want(t, c.call(t, "Encrypt", fields{}), 400, "Missing required parameters, The keyid cannot be empty.")
	for _, none := range []string{`null`, `""`} {
		q := c.raw(`{"keyid":"`+key+`","plaintext":"AAAA","aad":`+none+`}`, "keyid="+key+"&plaintext=AAAA")
		want(t, c.deliver(t, "Encrypt", q.signed(c.apikey)), 200, textSuccess)
	}
}

func uuidFaults(action, member string) []fault {
	return []fault{
		{action, member, nil, isEmpty}, {action, member, "", isEmpty}, {action, member, 1, noString}, {action, member, true, noString},
		{action, member, fields{}, noString}, {action, member, []any{"x"}, noString},
		{action, member, "x", noLength}, {action, member, uuidShape + "x", noLength}, {action, member, strings.Repeat("é", 18), noLength},
		{action, member, strings.ToUpper("aac3e45a-d3dc-4791-89b6-4ada0e38e6ef"), noFormat},
		{action, member, "aac3e45a-d3dc-4791-89b6_4ada0e38e6ef", noFormat},
		{action, member, "aac3e45ad3dc479189b64ada0e38e6efaac3", noFormat},
		{action, member, "aac3e45a-d3dc-4791-89b6-4ada0e38e6e\n", noFormat},
	}
}

func base64Faults(action, member string, limit int) []fault {
	return []fault{
		{action, member, nil, isEmpty}, {action, member, "", isEmpty}, {action, member, 1, noString}, {action, member, true, noString},
		{action, member, fields{}, noString}, {action, member, []any{"AAAA"}, noString},
		{action, member, strings.Repeat("A", limit+4), noLength}, {action, member, strings.Repeat("!", 8600), noLength},
		{action, member, "A", noBase64}, {action, member, "AAA", noBase64}, {action, member, "AAAAA", noBase64},
		{action, member, "A===", noBase64}, {action, member, "====", noBase64}, {action, member, "AA=A", noBase64},
		{action, member, "AAA-", noBase64}, {action, member, "AAA_", noBase64}, {action, member, "AAAA\n", noBase64},
		{action, member, "AA A", noBase64}, {action, member, "AAA\n", noBase64}, {action, member, "AAAA====", noBase64},
		{action, member, "AAAé", noBase64}, {action, member, "####", noBase64},
	}
}

// optional drops the faults that are none in an optional member.
func optional(faults []fault) []fault { return faults[2:] }

func integerFaults(action, member string, limit int) []fault {
	return []fault{
		{action, member, nil, isEmpty}, {action, member, "", isEmpty}, {action, member, "48", noInteger}, {action, member, true, noInteger},
		{action, member, 48.5, noInteger}, {action, member, fields{}, noInteger}, {action, member, []any{48}, noInteger},
		{action, member, limit + 1, "value must be less than or equal to 1024."},
		{action, member, 1e21, "value must be less than or equal to 1024."},
		{action, member, -1, "value must be greater than or equal to 1."},
		{action, member, -1e300, "value must be greater than or equal to 1."},
	}
}

func nameFaults(action, member string) []fault {
	return []fault{
		{action, member, nil, isEmpty}, {action, member, "", isEmpty}, {action, member, "nonsense", noName}, {action, member, 1, noName},
		{action, member, true, noName}, {action, member, fields{}, noName}, {action, member, []any{"EH_AES_GCM_128"}, noName},
		{action, member, " ", noName}, {action, member, "eh_aes_gcm_128", noName}, {action, member, "EH_AES_GCM_128 ", noName},
		{action, member, "constructor", noName},
	}
}

// testIntegers writes one integer in several ways.
func testIntegers(t *testing.T, g *target) {
	c := g.enroll(t)
	key := c.createAES(t)
	for _, row := range []struct {
		json, text string
		message    string
	}{
		{"48.0", "48", textSuccess}, {"4.8e1", "48", textSuccess}, {"480e-1", "48", textSuccess}, {"48", "48", textSuccess},
		{"48.000", "48", textSuccess}, {"1024", "1024", textSuccess}, {"1", "1", textSuccess}, {"1e0", "1", textSuccess},
		{`"48"`, "48", "Parameter invalid, The keylen must be of integer type."},
		{"48.5", "48.5", "Parameter invalid, The keylen must be of integer type."},
		{"1e3", "1000", textSuccess}, {"1e4", "10000", "Parameter invalid, The keylen value must be less than or equal to 1024."},
	} {
		q := c.raw(`{"keyid":"`+key+`","keylen":`+row.json+`}`, "keyid="+key+"&keylen="+row.text)
		r := c.deliver(t, "GenerateDataKey", q.signed(c.apikey))
		r.action = row.json
		if row.message == textSuccess {
			want(t, r, 200, textSuccess)
		} else {
			want(t, r, 400, row.message)
		}
	}
}

// testLimits has the largest of every member, all at once.
func testLimits(t *testing.T, g *target) {
	c := g.enroll(t)
	key := c.createAES(t)
	largest := strings.Repeat("A", 8192)
	r := c.call(t, "Encrypt", fields{"keyid": key, "plaintext": largest, "aad": largest, "zz": strings.Repeat("z", 60000)})
	want(t, r, 200, textSuccess)
	r = c.call(t, "Decrypt", fields{"keyid": key, "ciphertext": r.text(t, "ciphertext"), "aad": largest})
	want(t, r, 200, textSuccess)
	if r.text(t, "plaintext") != largest {
		t.Error("the plaintext is another")
	}
	r = c.call(t, "GenerateDataKey", fields{"keyid": key, "keylen": 1024, "aad": largest})
	want(t, r, 200, textSuccess)
	if n := len(r.bytes(t, "plaintext")); n != 1024 {
		t.Errorf("data key has %d bytes, want 1024", n)
	}
}

// testUnknownMembers: what changes state takes no members it does not know.
func testUnknownMembers(t *testing.T, g *target) {
	c := g.enroll(t)
	key := c.createAES(t)
	for action, payload := range map[string]fields{
		"CreateKey": {"keyspec": "EH_AES_GCM_256", "origin": internalKey, "keyusage": encryptDecrypt},
		"EnableKey": {"keyid": key}, "DisableKey": {"keyid": key}, "DeleteKey": {"keyid": key},
		"DeleteAllKey": {}, "DeleteALLKey": {},
	} {
		for _, member := range []string{"zz", "plaintext", "KEYID", "constructor"} {
			want(t, c.call(t, action, payload.with(fields{member: "x"})), 400, "Parameter invalid, The "+member+" type is incorrect.")
		}
	}
	if !c.hasKey(t, key) {
		t.Error("the key is gone")
	}
	// Others ignore them.
	want(t, c.call(t, "Encrypt", fields{"keyid": key, "plaintext": "AAAA", "zz": fields{"a": []any{1, "x"}}}), 200, textSuccess)
	want(t, c.call(t, "ListKey", fields{"zz": "x"}), 200, textSuccessful)
}
