package core

import (
	"context"
	"testing"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// restrict adds a core of the domain under other settings and returns its number.
func (h *host) restrict(t *testing.T, d domain, change func(*manifest.Settings)) int {
	t.Helper()
	change(&d.settings)
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	return len(h.cores) - 1
}

// TestProductionRefusesPlainEnroll is line 33 of the compatibility checklist, and
// that nothing else is refused.
func TestProductionRefusesPlainEnroll(t *testing.T) {
	h, d := newHost(t)
	c := h.enroll()
	for name, change := range map[string]func(*manifest.Settings){
		"production":           func(s *manifest.Settings) { *s = manifest.Defaults(manifest.Production) },
		"production, but open": func(s *manifest.Settings) { s.Mode = manifest.Production }, // no manifest says so
		"no mode":              func(s *manifest.Settings) { s.Mode = "" },
		"closed":               func(s *manifest.Settings) { s.Enrollment = manifest.EnrollmentClosed },
		"no enrollment":        func(s *manifest.Settings) { s.Enrollment = "" },
	} {
		d := d
		d.platform = hardware{newQuoter(t, d.platform, noon2026)}
		n := h.restrict(t, d, change)
		rows := len(h.rows)
		for range 3 {
			r := h.call(n, &wire.Call{Action: "Enroll", Get: true})
			if r.Code != 400 || string(r.Reply) != `{"code":400,"message":"enroll user info failed","result":{}}` || len(h.rows) != rows {
				t.Errorf("%s: Enroll: got %d %s, %d rows more", name, r.Code, r.Reply, len(h.rows)-rows)
			}
		}
		if info, _ := h.cores[n].Info(context.Background()); info.OpenEnrollment {
			t.Errorf("%s: the core says that enrollment is open", name)
		}
		if r := h.call(n, &wire.Call{Action: "GetVersion", Get: true}); r.Code != 200 {
			t.Errorf("%s: GetVersion: got %d %s", name, r.Code, r.Reply)
		}
		want(t, name+": CreateKey", c.do(n, "CreateKey", m{"keyspec": "EH_AES_GCM_128", "origin": originInternal, "keyusage": forCrypt}), 200, "success!")
	}
}

// TestDisabledKeySpecs has a spec that no new key has. Keys that exist serve on.
func TestDisabledKeySpecs(t *testing.T) {
	h, d := newHost(t)
	c := h.enroll()
	old := c.mustDo("CreateKey", m{"keyspec": "EH_SM4_CTR", "origin": originInternal, "keyusage": forCrypt}).text("keyid")
	n := h.restrict(t, d, func(s *manifest.Settings) { s.DisabledKeySpecs = []api.KeySpec{api.SM4CTR, api.AESGCM256} })
	for _, origin := range []string{originInternal, originExternal} {
		want(t, origin, c.do(n, "CreateKey", m{"keyspec": "EH_SM4_CTR", "origin": origin, "keyusage": forCrypt}), 500, "Server exception.")
	}
	want(t, "another spec", c.do(n, "CreateKey", m{"keyspec": "EH_SM4_CBC", "origin": originInternal, "keyusage": forCrypt}), 200, "success!")
	want(t, "key that exists", c.do(n, "Encrypt", m{"keyid": old, "plaintext": hello}), 200, "success!")
	want(t, "new version of it", c.do(n, "RotateKey", under("RotateKey", old)), 500, "Server exception.")
	if r := h.call(n, &wire.Call{Action: "Enroll", Get: true}); r.Code != 200 { // with a default key of AES-256
		t.Errorf("Enroll: got %d %s", r.Code, r.Reply)
	}
}

// TestDisabledPaddings has a padding that is refused wherever one is chosen, by
// keys that admit it too.
func TestDisabledPaddings(t *testing.T) {
	h, d := rsaHost(t)
	c := h.enroll()
	crypt, signs := c.mustCreate("EH_RSA_2048", forCrypt), c.mustCreate("EH_RSA_2048", forSigns)
	aes := c.mustCreate("EH_AES_GCM_256", forCrypt)
	dk := c.mustDo("GenerateDataKey", m{"keyid": aes, "keylen": 16}).text("ciphertext")
	sealed := c.mustDo("AsymmetricEncrypt", m{"keyid": crypt, "plaintext": hello, "padding_mode": pkcs1}).text("ciphertext")
	signature := m{"keyid": signs, "message": hello, "message_type": "EH_RAW", "digest_mode": "EH_SHA_256", "padding_mode": pkcs1}
	signed := c.mustDo("Sign", signature).text("signature")
	imports := c.parameters(c.createExternal("EH_AES_GCM_128"), "EH_RSA_2048")
	n := h.restrict(t, d, func(s *manifest.Settings) { s.DisabledPaddings = []api.PaddingMode{api.PKCS1} })
	oaepOff := h.restrict(t, d, func(s *manifest.Settings) { s.DisabledPaddings = []api.PaddingMode{api.OAEP} })
	allOff := h.restrict(t, d, func(s *manifest.Settings) {
		s.DisabledPaddings = []api.PaddingMode{api.PKCS1, api.PSS, api.OAEP}
	})
	for _, row := range []struct {
		name, action string
		core         int
		payload      m
		code         int
		message      string
	}{
		{"encrypt", "AsymmetricEncrypt", n, m{"keyid": crypt, "plaintext": hello, "padding_mode": pkcs1}, 500, "Server exception."},
		{"encrypt, documented name", "AsymmetricEncrypt", n, m{"keyid": crypt, "plaintext": hello, "padding_mode": "EH_PAD_RSA_PKCS1"}, 500, "Server exception."},
		{"decrypt", "AsymmetricDecrypt", n, m{"keyid": crypt, "ciphertext": sealed, "padding_mode": pkcs1}, 500, "Server exception."},
		{"sign", "Sign", n, signature, 500, "Server exception."},
		{"verify", "Verify", n, with(signature, m{"signature": signed}), 500, "Server exception."},
		{"export", "ExportDataKey", n, m{"keyid": aes, "olddatakey_base": dk, "ukeyid": crypt, "padding_mode": pkcs1}, 500, "Server exception."},
		{"export to a public key", "ExportDataKey", n, m{"keyid": aes, "olddatakey_base": dk, "upubkey": c.publicKey(crypt), "padding_mode": pkcs1}, 500, "Server exception."},
		{"export by default", "ExportDataKey", oaepOff, m{"keyid": aes, "olddatakey_base": dk, "upubkey": c.publicKey(crypt)}, 500, "Server exception."},
		{"import", "ImportKeyMaterial", n, imports.payload(t, pkcs1, make([]byte, 16)), 500, importFailed},
		{"new key for it alone", "CreateKey", n, m{"keyspec": "EH_RSA_2048", "origin": originInternal, "keyusage": forCrypt, "padding_modes": []string{pkcs1}}, 500, "Server exception."},
		{"new key without any", "CreateKey", allOff, m{"keyspec": "EH_RSA_2048", "origin": originInternal, "keyusage": forSigns}, 500, "Server exception."},
		{"another padding", "AsymmetricEncrypt", n, m{"keyid": crypt, "plaintext": hello, "padding_mode": oaep}, 200, "success!"},
		{"export by another", "ExportDataKey", n, m{"keyid": aes, "olddatakey_base": dk, "ukeyid": crypt}, 200, "success!"},
		{"import by another", "ImportKeyMaterial", n, imports.payload(t, oaep, make([]byte, 16)), 200, "success!"},
		{"keys without padding", "CreateKey", allOff, m{"keyspec": "EH_SM2", "origin": originInternal, "keyusage": forSigns}, 200, "success!"},
	} {
		want(t, row.name, c.do(row.core, row.action, row.payload), row.code, row.message)
	}
	left := c.do(n, "CreateKey", m{"keyspec": "EH_RSA_2048", "origin": originInternal, "keyusage": forCrypt}).text("keyid")
	want(t, "new key where it is allowed again", c.do(0, "AsymmetricEncrypt", m{"keyid": left, "plaintext": hello, "padding_mode": pkcs1}), 500, "Server exception.")
}

// TestAuditSync has a domain in which each entry of the audit trail is durable
// before the reply.
func TestAuditSync(t *testing.T) {
	h, d := newHost(t)
	c := h.enroll()
	key := c.createKey()
	n := h.restrict(t, d, func(s *manifest.Settings) { s.Audit = manifest.Sync })
	encrypt := func() *wire.Call {
		return &wire.Call{Action: "Encrypt", Body: c.body(m{"keyid": key, "plaintext": hello}), Records: []wire.Ref{
			h.ref(appID(c.id()), true), h.ref(c.keyRecord(key), true), h.ref(wire.RecordID{Type: wire.KeyVersion, Tenant: c.id(), ID: c.keyRecord(key).ID, Version: 1}, true),
		}}
	}
	for core, durable := range map[int]bool{0: false, n: true} {
		a, err := h.cores[core].Call(t.Context(), encrypt())
		if err != nil || a.Code != 200 || a.Audit.Durable != durable {
			t.Errorf("core %d: got code %d, durable %v, %v, want 200, %v", core, a.Code, a.Audit.Durable, err, durable)
		}
		pending, err := h.cores[core].Call(t.Context(), &wire.Call{Action: "CreateKey", Records: []wire.Ref{h.ref(appID(c.id()), true)},
			Body: c.body(m{"keyspec": "EH_AES_GCM_128", "origin": originInternal, "keyusage": forCrypt})})
		if err != nil || pending.Kind != wire.Pending {
			t.Fatalf("core %d: CreateKey: got %+v, %v", core, pending, err)
		}
		a, err = h.cores[core].Resolve(t.Context(), wire.Resolve{Handle: pending.Handle, Outcome: wire.Failed})
		if err != nil || a.Audit.Durable != durable {
			t.Errorf("core %d: aborted: got durable %v, %v, want %v", core, a.Audit.Durable, err, durable)
		}
	}
}
