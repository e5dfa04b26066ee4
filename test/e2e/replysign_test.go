package e2e

import (
	"bytes"
	"net/http"
	"testing"
)

// replySignatureLines are about the header Ehsm-Reply-Signature. That it
// verifies is checked with every reply that any test gets.
func replySignatureLines() []line { return []line{{"42-reply-signature", testReplySignature}} }

func testReplySignature(t *testing.T, g *target) {
	c := g.enroll(t)
	key := c.createAES(t)
	for _, row := range []struct {
		name, action string
		payload      fields
		code         int
	}{
		{"success", "Encrypt", fields{"keyid": key, "plaintext": "AAAA"}, 200},
		{"list", "ListKey", nil, 200},
		{"change", "DisableKey", fields{"keyid": key}, 200},
		{"refused by state", "Encrypt", fields{"keyid": key, "plaintext": "AAAA"}, 400},
		{"refused member", "Encrypt", fields{"keyid": "x", "plaintext": "AAAA"}, 400},
		{"unknown key", "DisableKey", fields{"keyid": "3f2504e0-4f89-41d3-9a0c-0305e82c3301"}, 400},
		{"unknown action", "Nonsense", nil, 404},
		{"operation not fit", "CreateKey", fields{"keyspec": "EH_AES_GCM_128", "origin": internalKey}, 500},
		{"second spelling", "DeleteALLKey", nil, 200},
		{"action not in ASCII", "ListK%C3%A9y", nil, 404},
	} {
		q := c.unsigned(row.payload).signed(c.apikey)
		r := g.must(t, http.MethodPost, "/ehsm?Action="+row.action, q.body())
		action, sent := row.action, q.envelope["sign"].(string)
		if row.name == "action not in ASCII" {
			action = "ListKéy"
		}
		if r.Code != row.code {
			t.Errorf("%s: got %s", row.name, r.body)
		}
		if got := replySignature(c.apikey, sent, action, r.body); got != r.signature {
			t.Errorf("%s: the reply signature does not verify", row.name)
		}
		changed := bytes.Replace(bytes.Clone(r.body), []byte(`"code":`), []byte(`"code": `), 1)
		for what, other := range map[string]string{
			"another body": replySignature(c.apikey, sent, action, changed), "another action": replySignature(c.apikey, sent, action+"x", r.body),
			"another request": replySignature(c.apikey, sign("x", "x"), action, r.body), "another key": replySignature("x", sent, action, r.body),
		} {
			if other == r.signature {
				t.Errorf("%s: the reply signature verifies for %s", row.name, what)
			}
		}
	}
	for _, path := range []string{"GetVersion", "Enroll"} {
		if r := g.must(t, http.MethodGet, "/ehsm?Action="+path, nil); r.signature != "" {
			t.Errorf("%s: a reply to nobody is signed", path)
		}
	}
}
