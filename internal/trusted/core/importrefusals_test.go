package core

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

func TestParametersRefusals(t *testing.T) {
	h, _ := rsaHost(t)
	c, other := h.enroll(), h.enroll()
	good := m{"keyid": c.createExternal("EH_SM4_CTR"), "keyspec": "EH_RSA_2048"}
	disabled, deleted := c.createExternal("EH_SM4_CTR"), c.createExternal("EH_SM4_CTR")
	c.mustDo("DisableKey", named(disabled))
	c.mustDo("DeleteKey", named(deleted))
	type row struct {
		name    string
		more    m
		code    int
		message string
	}
	rows := []row{
		{"internal AES key", m{"keyid": c.createKey()}, 500, server},
		{"internal RSA key", m{"keyid": c.mustCreate("EH_RSA_2048", forCrypt)}, 500, server},
		{"HMAC key", m{"keyid": c.mustCreate("EH_HMAC", forSigns)}, 500, server},
		{"foreign key", m{"keyid": other.createExternal("EH_SM4_CTR")}, 400, "keyid error"},
		{"unknown key", m{"keyid": wire.NewUUID().String()}, 400, "keyid error"},
		{"disabled key", m{"keyid": disabled}, 400, "keyid is disabled"},
		{"deleted key", m{"keyid": deleted}, 400, "keyid error"},
		{"no key", m{"keyid": nil}, 400, fmt.Sprintf(missingMember, "keyid")},
		{"no wrapping spec", m{"keyspec": nil}, 400, fmt.Sprintf(missingMember, "keyspec")},
		{"unknown wrapping spec", m{"keyspec": "EH_RSA_1024"}, 400, fmt.Sprintf(wrongMember, "keyspec")},
		{"unknown member", m{"padding_mode": oaep}, 400, fmt.Sprintf(wrongMember, "padding_mode")},
		{"signed for another action", m{"action": "ImportKeyMaterial"}, 400, "sign error"},
	}
	for _, spec := range append(append([]string{"EH_SM2", "EH_HMAC"}, symmetricSpecs...), ecSpecs...) {
		rows = append(rows, row{"wrapped by " + spec, m{"keyspec": spec}, 500, server})
	}
	for _, r := range rows {
		want(t, r.name, c.do(0, "GetParametersForImport", with(good, r.more)), r.code, r.message)
	}
	for id := range h.rows {
		if id.Type == wire.ImportSession {
			t.Error("a refused call has opened a session")
		}
	}
	h.outcome = func(*wire.Answer) wire.Outcome { return wire.Failed }
	want(t, "store fails", c.do(0, "GetParametersForImport", good), 500, "GetParametersForImport failed.")
}

// TestTokenRefusals is line 29: forged, foreign, reused and old tokens.
func TestTokenRefusals(t *testing.T) {
	h, d := rsaHost(t)
	c, other := h.enroll(), h.enroll()
	s := c.parameters(c.createExternal("EH_AES_GCM_256"), "EH_RSA_2048")
	good := s.payload(t, oaep, make([]byte, 32))
	ours, foreign := c.parameters(c.createExternal("EH_AES_GCM_256"), "EH_RSA_2048"), other.parameters(other.createExternal("EH_AES_GCM_256"), "EH_RSA_2048")
	refused := func(what, token string) {
		t.Helper()
		want(t, what, c.do(0, "ImportKeyMaterial", with(good, m{"importToken": token})), 500, tokenFailed)
	}
	raw := unb64(t, s.token)
	for i := range raw {
		for _, bit := range []byte{1, 0x80} {
			b := bytes.Clone(raw)
			b[i] ^= bit
			refused(fmt.Sprintf("byte %d flipped by %#x", i, bit), b64(b))
		}
	}
	// The last character before the padding has unused bits.
	for _, last := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/" {
		if token := s.token[:81] + string(last) + "=="; token != s.token {
			refused("another last character", token)
		}
	}
	for what, token := range map[string]string{
		"cut": s.token[:80], "cut to nothing": s.token[:4], "with a byte more": b64(append(bytes.Clone(raw), 0)), "without its last byte": b64(raw[:60]),
		"twice": s.token + s.token, "line feed": s.token[:40] + "\n" + s.token[40:], "line feed in place": s.token[:40] + "\n" + s.token[41:],
		"without padding": s.token[:82], "URL alphabet": strings.Repeat("-_", 41) + "==", "zeros": b64(make([]byte, 61)), "text": "token",
		"of another key": ours.token, "of another tenant": foreign.token, "longest": strings.Repeat("A", 8192),
	} {
		refused(what, token)
	}
	want(t, "token missing", c.do(0, "ImportKeyMaterial", with(good, m{"importToken": nil})), 500, tokenFailed)
	want(t, "token empty", c.do(0, "ImportKeyMaterial", with(good, m{"importToken": ""})), 500, tokenFailed)
	want(t, "token a number", c.do(0, "ImportKeyMaterial", with(good, m{"importToken": 1})), 400, "Parameter invalid, The importToken must be of string type.")
	want(t, "token too long", c.do(0, "ImportKeyMaterial", with(good, m{"importToken": strings.Repeat("A", 8193)})), 400, "Parameter invalid, The importToken length error.")

	// Made in another domain for the same names.
	elsewhere := newDomain(t).host(t, Limits{})
	id := c.keyRecord(s.keyid)
	session, _ := c.storedSession(s.keyid)
	forged, err := elsewhere.cores[0].newToken(id, &session)
	if err != nil {
		t.Fatal(err)
	}
	refused("of another domain", forged.text())
	// What could be forged with the MAC of one part for another.
	for what, change := range map[string]func(*importToken){
		"expiry moved": func(t *importToken) { t.expires++ }, "DomainKey version not held": func(t *importToken) { t.dkVersion++ },
		"DomainKey version 0": func(t *importToken) { t.dkVersion = 0 }, "session of another": func(t *importToken) { t.session[0]++ },
	} {
		token, _ := parseToken(s.token)
		change(&token)
		refused(what, token.text())
	}
	// A genuine one for a session that is not there.
	genuine, err := h.cores[0].newToken(id, &record.ImportSession{Expires: session.Expires})
	if err != nil {
		t.Fatal(err)
	}
	refused("of no session", genuine.text())
	refused("of a key that had no session", mustToken(t, h.cores[0], c.keyRecord(c.createExternal("EH_AES_GCM_256")), session).text())

	if got, _ := c.storedSession(s.keyid); got.Failures != 0 {
		t.Errorf("refused tokens have cost %d attempts", got.Failures)
	}
	if len(materialOf(t, h, c, s.keyid)) != 0 {
		t.Error("a refused token has imported")
	}
	c.imported("after all this", good)
	want(t, "reused", c.do(0, "ImportKeyMaterial", good), 500, tokenFailed)
	want(t, "reused for other material", c.do(0, "ImportKeyMaterial", s.payload(t, oaep, bytes.Repeat([]byte{1}, 32))), 500, tokenFailed)
	// On another core of the domain, too.
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	want(t, "reused on another core", c.do(1, "ImportKeyMaterial", good), 500, tokenFailed)
}

func mustToken(t testing.TB, c *Core, key wire.RecordID, s record.ImportSession) importToken {
	t.Helper()
	token, err := c.newToken(key, &s)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// TestTokenLifetime is the 24 hours.
func TestTokenLifetime(t *testing.T) {
	h, _ := rsaHost(t)
	c := h.enroll()
	start := h.now
	first, second := c.parameters(c.createExternal("EH_AES_GCM_128"), "EH_RSA_2048"), c.parameters(c.createExternal("EH_AES_GCM_128"), "EH_RSA_2048")
	replaced := second
	second = c.parameters(second.keyid, "EH_RSA_2048")
	material := make([]byte, 16)
	h.now = start.Add(24*time.Hour - time.Millisecond)
	c.imported("at the last millisecond", first.payload(t, oaep, material))
	h.now = start.Add(24 * time.Hour)
	want(t, "after 24 hours", c.do(0, "ImportKeyMaterial", second.payload(t, oaep, material)), 500, tokenTooOld)
	want(t, "after 24 hours and replaced", c.do(0, "ImportKeyMaterial", replaced.payload(t, oaep, material)), 500, tokenTooOld)
	want(t, "after 24 hours and used", c.do(0, "ImportKeyMaterial", first.payload(t, oaep, material)), 500, tokenTooOld)
	tampered := unb64(t, second.token)
	tampered[60] ^= 1
	want(t, "after 24 hours and forged", c.do(0, "ImportKeyMaterial", with(second.payload(t, oaep, material), m{"importToken": b64(tampered)})), 500, tokenFailed)
	h.now = start // the TEE's time does not run back
	want(t, "with the clock turned back", c.do(0, "ImportKeyMaterial", second.payload(t, oaep, material)), 400, "Timestamp error")
	h.now = start.Add(24 * time.Hour)
	c.imported("with a new session", c.parameters(second.keyid, "EH_RSA_2048").payload(t, oaep, material))
}

func TestImportRefusals(t *testing.T) {
	h, d := rsaHost(t)
	c, other := h.enroll(), h.enroll()
	s := c.parameters(c.createExternal("EH_AES_GCM_192"), "EH_RSA_2048")
	good := s.payload(t, oaep, make([]byte, 24))
	internal := c.createKey()
	for _, row := range []struct {
		name    string
		more    m
		code    int
		message string
	}{
		{"no key", m{"keyid": nil}, 400, fmt.Sprintf(missingMember, "keyid")},
		{"unknown key", m{"keyid": wire.NewUUID().String()}, 400, "keyid error"},
		{"foreign key", m{"keyid": other.createExternal("EH_AES_GCM_192")}, 400, "keyid error"},
		{"internal key", m{"keyid": internal}, 500, tokenFailed},
		{"no padding", m{"padding_mode": nil}, 400, fmt.Sprintf(missingMember, "padding_mode")},
		{"unknown padding", m{"padding_mode": "EH_RSA_X931"}, 400, fmt.Sprintf(wrongMember, "padding_mode")},
		{"padding none", m{"padding_mode": noPadding}, 500, importFailed},
		{"padding of signatures", m{"padding_mode": pss}, 500, importFailed},
		{"no material", m{"key_material": nil}, 400, fmt.Sprintf(missingMember, "key_material")},
		{"material no base64", m{"key_material": "key!"}, 400, "Parameter invalid, The key_material not a vailed base64 string."},
		{"material too long", m{"key_material": strings.Repeat("AAAA", 2049)}, 400, "Parameter invalid, The key_material length error."},
		{"unknown member", m{"expire": 1}, 400, fmt.Sprintf(wrongMember, "expire")},
		{"signed for another action", m{"action": "GetParametersForImport"}, 400, "sign error"},
	} {
		want(t, row.name, c.do(0, "ImportKeyMaterial", with(good, row.more)), row.code, row.message)
	}
	// A genuine token for a key that cannot have one comes to nothing either.
	session, _ := c.storedSession(s.keyid)
	forged := mustToken(t, h.cores[0], c.keyRecord(internal), session)
	want(t, "internal key with a genuine token", c.do(0, "ImportKeyMaterial", with(good, m{"keyid": internal, "importToken": forged.text()})), 500, tokenFailed)

	c.mustDo("DisableKey", named(s.keyid))
	want(t, "disabled key", c.do(0, "ImportKeyMaterial", good), 400, "keyid is disabled")
	c.mustDo("EnableKey", named(s.keyid))
	want(t, "not imported yet", c.do(0, "Encrypt", encrypts(s.keyid)), 500, server)
	h.outcome = func(*wire.Answer) wire.Outcome { return wire.Failed }
	want(t, "store fails", c.do(0, "ImportKeyMaterial", good), 500, importFailed)
	h.outcome = nil
	want(t, "not imported yet", c.do(0, "Encrypt", encrypts(s.keyid)), 500, server)
	h.alter(d, c, s.keyid, func(k *record.Key) { k.Expires = h.now.UnixMilli() })
	c.imported("expired key", good)
	want(t, "expired key", c.do(0, "Encrypt", encrypts(s.keyid)), 400, "keyid expire")
	c.mustDo("DeleteKey", named(s.keyid))
	want(t, "deleted key", c.do(0, "ImportKeyMaterial", good), 400, "keyid error")
}
