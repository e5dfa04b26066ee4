package core

import (
	"testing"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// TestSealedOnly has a domain that takes signed requests sealed alone, and what needs
// no signature as ever.
func TestSealedOnly(t *testing.T) {
	h, d := newHost(t)
	c := h.enroll()
	key := c.createKey()
	n := h.restrict(t, d, func(s *manifest.Settings) { s.SealedOnly, s.Enrollment = true, manifest.EnrollmentClosed })
	s := c.seals(n)
	clear := encrypts(key)
	request := c.body(clear)
	for _, row := range []struct {
		name, action string
		body         []byte
	}{
		{"payload", "Encrypt", request},
		{"no payload", "ListKey", c.body(nil)},
		{"change", "CreateKey", c.body(newKey)},
		{"wrong signature", "Encrypt", (&tenant{h: h, appid: c.appid, apikey: "another"}).body(clear)},
		{"no signature", "Encrypt", []byte(`{"appid":"` + c.appid + `"}`)},
		{"no JSON", "Encrypt", []byte("sealed")},
		{"sealed is not the first member", "Encrypt", []byte(`{"appid":"` + c.appid + `","sealed":"AAAA"}`)},
		{"administration", "ListApps", h.admin("frank").body(map[string]any{"action": "ListApps"})},
		{"unknown action", "Decrypted", request},
	} {
		s.refuse(row.name, n, row.action, row.body, api.MessageSealedOnly)
	}
	said := with(encrypts(key), m{"action": "Encrypt", "sealed": "yes"})
	for _, row := range []struct {
		name    string
		core    int
		payload m
		code    int
		message string
	}{
		{"sealed", n, said, 200, "success!"},
		{"read in clear and sealed by the host", n, clear, 400, api.MessageSealedOnly},
		{"the same where the domain takes both", 0, clear, 200, "success!"},
		{"sealed, where the domain takes both", 0, said, 200, "success!"},
		{"another word", n, with(said, m{"sealed": "no"}), 400, textSealed},
		{"no word", 0, with(said, m{"sealed": true}), 400, textSealed},
		{"action is not named", 0, with(encrypts(key), m{"sealed": "yes"}), 400, textSealed},
	} {
		at := c.seals(row.core)
		r, _ := at.ask(row.core, at.seal("Encrypt", c.body(row.payload)))
		want(t, row.name, r, row.code, row.message)
	}
	want(t, "said to be sealed, in clear", c.do(0, "Encrypt", said), 400, textSealed)
	h.wantReason(t, "said to be sealed, in clear", "sealed request in clear")
	folded := m{"action": "CreateCredential", "kind": "api-key", "role": "user", "description": "x&sealed=yes"}
	want(t, "text that looks like the member", c.do(0, "CreateCredential", folded), 400, "Parameter invalid, The description format wrong.")
	want(t, "in clear where the domain takes it", c.do(0, "Encrypt", clear), 200, "success!")
	if a := h.call(n, &wire.Call{Action: "GetVersion", Get: true}); a.Code != 200 {
		t.Errorf("GetVersion: got %d %s", a.Code, a.Reply)
	}
}

// TestPaddingsOfAttestedApps has keys of apps whose API key the host has not seen
// admit PKCS#1 v1.5 for encryption only if it is asked for.
func TestPaddingsOfAttestedApps(t *testing.T) {
	h, d := rsaHost(t)
	attested, exposed := h.newcomer(h.withToken(1)).enroll(t), h.enroll()
	const no, yes = 500, 200
	for _, row := range []struct {
		name        string
		app         *tenant
		usage       string
		asked       []string
		pkcs1, oaep int
	}{
		{"attested", attested, forCrypt, nil, no, yes},
		{"attested, none named", attested, forCrypt, []string{}, no, yes},
		{"attested, PKCS#1 v1.5 asked for", attested, forCrypt, []string{pkcs1}, yes, no},
		{"attested, both asked for", attested, forCrypt, []string{pkcs1, oaep}, yes, yes},
		{"attested, OAEP asked for", attested, forCrypt, []string{oaep}, no, yes},
		{"exposed", exposed, forCrypt, nil, yes, yes},
		{"exposed, OAEP asked for", exposed, forCrypt, []string{oaep}, no, yes},
	} {
		more := m{}
		if row.asked != nil {
			more["padding_modes"] = row.asked
		}
		r := row.app.create("EH_RSA_2048", row.usage, more)
		if r.Code != 200 {
			t.Errorf("%s: CreateKey: got %d %s", row.name, r.Code, r.Message)
			continue
		}
		for padding, code := range map[string]int{pkcs1: row.pkcs1, oaep: row.oaep} {
			got := row.app.do(0, "AsymmetricEncrypt", m{"keyid": r.text("keyid"), "plaintext": hello, "padding_mode": padding})
			if got.Code != code {
				t.Errorf("%s: %s: got %d %s, want %d", row.name, padding, got.Code, got.Message, code)
			}
		}
	}
	signs := attested.mustCreate("EH_RSA_2048", forSigns)
	for _, padding := range []string{pkcs1, "EH_RSA_PKCS1_PSS"} {
		want(t, "signature with "+padding, attested.do(0, "Sign", m{"keyid": signs, "message": hello, "message_type": "EH_RAW", "digest_mode": "EH_SHA_256", "padding_mode": padding}), 200, "success!")
	}
	n := h.restrict(t, d, func(s *manifest.Settings) { s.DisabledPaddings = []api.PaddingMode{api.OAEP} })
	fixedRSA(h.cores[n])
	want(t, "OAEP is off", attested.do(n, "CreateKey", m{"keyspec": "EH_RSA_2048", "origin": originInternal, "keyusage": forCrypt}), 500, "Server exception.")
	want(t, "keys without padding", attested.do(n, "CreateKey", m{"keyspec": "EH_SM2", "origin": originInternal, "keyusage": forCrypt}), 200, "success!")
}
