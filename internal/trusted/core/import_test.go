package core

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

const (
	importFailed  = "ImportKeyMaterial failed."
	keyFailed     = "Import key failed."
	tokenFailed   = "ImportToken failed."
	tokenTooOld   = `Token validity time is 24 hours. Try to send "GetParametersForImport" request again.`
	missingMember = "Missing required parameters, The %s cannot be empty."
	wrongMember   = "Parameter invalid, The %s type is incorrect."
)

// importing is what a client knows of an import session.
type importing struct {
	keyid  string
	public *rsa.PublicKey
	token  string
}

func (c *tenant) createExternal(spec string) string {
	c.h.t.Helper()
	r := c.create(spec, forCrypt, m{"origin": originExternal})
	if r.Code != 200 {
		c.h.t.Fatalf("CreateKey: %d %s", r.Code, r.Message)
	}
	return r.text("keyid")
}

// parameters opens an import session.
func (c *tenant) parameters(keyid, wrapping string) importing {
	c.h.t.Helper()
	r := c.mustDo("GetParametersForImport", m{"keyid": keyid, "keyspec": wrapping})
	if r.Message != "success!" || len(r.Result) != 2 {
		c.h.t.Fatalf("GetParametersForImport: %+v", r)
	}
	return importing{keyid, parsePKCS1(c.h.t, r.text("pubkey")), r.text("importToken")}
}

// payload is the payload that imports material.
func (i importing) payload(t testing.TB, padding string, material []byte) m {
	t.Helper()
	var wrapped []byte
	var err error
	if strings.HasSuffix(padding, "OAEP") {
		wrapped, err = rsa.EncryptOAEP(sha256.New(), rand.Reader, i.public, material, nil)
	} else {
		//lint:ignore SA1019 the native API offers it
		wrapped, err = rsa.EncryptPKCS1v15(rand.Reader, i.public, material)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m{"keyid": i.keyid, "padding_mode": padding, "key_material": b64(wrapped), "importToken": i.token}
}

// imported fails unless the payload imports.
func (c *tenant) imported(what string, p m) {
	c.h.t.Helper()
	r := c.do(0, "ImportKeyMaterial", p)
	if want(c.h.t, what, r, 200, "success!"); r.Code == 200 && (len(r.Result) != 1 || r.Result["result"] != true) {
		c.h.t.Errorf("%s: got %v, want {result: true}", what, r.Result)
	}
}

// storedSession opens the session record that the host stores for a key.
func (c *tenant) storedSession(keyid string) (record.ImportSession, int) {
	c.h.t.Helper()
	id := sessionRecord(c.keyRecord(keyid))
	w := c.h.rows[id]
	s, keyPair, err := record.OpenImportSession(c.h.cores[0].keys, record.Header{ID: id, Revision: w.Revision}, w.Sealed)
	if err != nil {
		c.h.t.Fatal(err)
	}
	return s, keyPair.Len()
}

// TestImportCombinations is line 27: each spec under each wrapping. Material is
// raw bytes, also where it is the text of hexadecimal digits.
func TestImportCombinations(t *testing.T) {
	h, _ := rsaHost(t)
	c := h.enroll()
	n := 0
	for _, spec := range symmetricSpecs {
		parsed, _ := primitive.ParseSpec(spec)
		for _, wrapping := range rsaSpecs {
			for _, padding := range []string{pkcs1, oaep} {
				what := fmt.Sprintf("%s under %s with %s", spec, wrapping, padding)
				material := []byte("0123456789abcdef0123456789abcdef")[:parsed.MaterialLen()]
				if n++; n%2 == 0 {
					rand.Read(material)
				}
				id := c.createExternal(spec)
				want(t, what+", before", c.do(0, "Encrypt", encrypts(id)), 500, server)
				s := c.parameters(id, wrapping)
				if s.public.Size() != modulus(wrapping) || s.token == "" {
					t.Errorf("%s: public key of %d bytes, token %q", what, s.public.Size(), s.token)
				}
				c.imported(what, s.payload(t, padding, material))
				if got := materialOf(t, h, c, id); !bytes.Equal(got, material) {
					t.Errorf("%s: the material is %x, want %x", what, got, material)
				}
				ct := c.mustDo("Encrypt", encrypts(id)).text("ciphertext")
				if pt := c.mustDo("Decrypt", m{"keyid": id, "ciphertext": ct}).text("plaintext"); pt != hello {
					t.Errorf("%s: decrypts to %q", what, pt)
				}
				dk := c.mustDo("GenerateDataKey", m{"keyid": id, "keylen": 16}) // line 25
				if pt := c.mustDo("Decrypt", m{"keyid": id, "ciphertext": dk.text("ciphertext")}).text("plaintext"); pt != dk.text("plaintext") {
					t.Errorf("%s: data key does not open", what)
				}
				blind := c.mustDo("GenerateDataKeyWithoutPlaintext", m{"keyid": id, "keylen": 48})
				if len(blind.Result) != 1 {
					t.Errorf("%s: blind data key has %d members", what, len(blind.Result))
				}
			}
		}
	}
	if n != 30 {
		t.Errorf("%d combinations, want 30", n)
	}
}

// TestGeneratedSession imports under a key pair that the core makes itself.
func TestGeneratedSession(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	first, second := c.parameters(c.createExternal("EH_AES_GCM_256"), "EH_RSA_2048"), c.parameters(c.createExternal("EH_AES_GCM_256"), "EH_RSA_2048")
	if first.public.Equal(second.public) || first.token == second.token {
		t.Error("two sessions have one key pair or token")
	}
	again := c.parameters(first.keyid, "EH_RSA_2048")
	if again.public.Equal(first.public) || again.token == first.token {
		t.Error("a new session has the key pair or the token of the last one")
	}
	c.imported("first", again.payload(t, oaep, make([]byte, 32)))
	c.imported("second", second.payload(t, pkcs1, make([]byte, 32)))
}

func TestImportSpellings(t *testing.T) {
	h, _ := rsaHost(t)
	c := h.enroll()
	for _, name := range []string{"importToken", "ImportToken", "import_token"} {
		for _, padding := range []string{"EH_PAD_RSA_PKCS1", "EH_PAD_RSA_PKCS1_OAEP"} {
			s := c.parameters(c.createExternal("EH_AES_GCM_128"), "EH_RSA_2048")
			p := s.payload(t, padding, make([]byte, 16))
			c.imported(name, with(p, m{"importToken": nil, name: s.token, "KeyMaterialExpireUnix": 1}))
		}
	}
	s := c.parameters(c.createExternal("EH_AES_GCM_128"), "EH_RSA_2048")
	p := s.payload(t, oaep, make([]byte, 16))
	want(t, "two spellings, two values", c.do(0, "ImportKeyMaterial", with(p, m{"import_token": "x"})), 400, fmt.Sprintf(wrongMember, "importToken"))
	c.imported("two spellings, one value", with(p, m{"import_token": s.token}))
	want(t, "Keyspec", c.do(0, "GetParametersForImport", m{"keyid": s.keyid, "Keyspec": "EH_RSA_2048"}), 200, "success!")
}

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

// TestNewSession is line 28: it leaves imported material as it is and
// invalidates the older token.
func TestNewSession(t *testing.T) {
	h, _ := rsaHost(t)
	c := h.enroll()
	material := bytes.Repeat([]byte{5}, 32)
	first := c.parameters(c.createExternal("EH_AES_GCM_256"), "EH_RSA_2048")
	second := c.parameters(first.keyid, "EH_RSA_3072")
	want(t, "token of a replaced session", c.do(0, "ImportKeyMaterial", first.payload(t, oaep, material)), 500, tokenFailed)
	// Not even with the newer session's key pair, or for its token's sake.
	mixed := second.payload(t, oaep, material)
	want(t, "token of a replaced session, wrapped for the new one", c.do(0, "ImportKeyMaterial", with(mixed, m{"importToken": first.token})), 500, tokenFailed)
	if s, _ := c.storedSession(first.keyid); s.Failures != 0 || s.State != record.SessionOpen {
		t.Errorf("the new session has %d failures, state %d", s.Failures, s.State)
	}
	c.imported("new session", second.payload(t, oaep, material))
	ct := c.mustDo("Encrypt", encrypts(first.keyid)).text("ciphertext")
	before := c.stored(first.keyid)
	third := c.parameters(first.keyid, "EH_RSA_4096")
	if !slices.Equal(c.stored(first.keyid), before) {
		t.Error("a new session has changed the key or its material")
	}
	if pt := c.mustDo("Decrypt", m{"keyid": first.keyid, "ciphertext": ct}).text("plaintext"); pt != hello {
		t.Errorf("with a new session open it decrypts to %q", pt)
	}
	c.imported("the same material again", third.payload(t, pkcs1, material))
	if !slices.Equal(c.stored(first.keyid), before) {
		t.Error("the same material again has changed the key or its material")
	}
	want(t, "and again with that token", c.do(0, "ImportKeyMaterial", third.payload(t, pkcs1, material)), 500, tokenFailed)
}

// stored is what the host has of a key and of its version 1.
func (c *tenant) stored(keyid string) []string {
	id := c.keyRecord(keyid)
	version := id
	version.Type, version.Version = wire.KeyVersion, 1
	return []string{string(c.h.rows[id].Sealed), string(c.h.rows[version].Sealed)}
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

// stranger is the public half of a key pair that nobody has.
var stranger = sync.OnceValue(func() *rsa.PublicKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return &key.PublicKey
})

// badMaterial is what does not import, from every cause there is. The key has
// the spec EH_AES_GCM_256.
func badMaterial(t testing.TB, s importing) map[string]m {
	ok := s.payload(t, oaep, make([]byte, 32))
	wrapped := unb64(t, ok["key_material"].(string))
	raw := func(b []byte) m { return with(ok, m{"key_material": b64(b)}) }
	flipped := bytes.Clone(wrapped)
	flipped[100] ^= 1
	return map[string]m{
		"OAEP opened as PKCS1": with(ok, m{"padding_mode": pkcs1}),
		"PKCS1 opened as OAEP": with(s.payload(t, pkcs1, make([]byte, 32)), m{"padding_mode": oaep}),
		"for another key pair": importing{s.keyid, stranger(), s.token}.payload(t, oaep, make([]byte, 32)),
		"31 bytes":             s.payload(t, oaep, make([]byte, 31)),
		"33 bytes":             s.payload(t, pkcs1, make([]byte, 33)),
		"16 bytes":             s.payload(t, oaep, make([]byte, 16)),
		"nothing":              s.payload(t, oaep, nil),
		"64 hex digits":        s.payload(t, oaep, bytes.Repeat([]byte("ab"), 32)),
		"byte flipped":         raw(flipped),
		"cut":                  raw(wrapped[:255]),
		"byte more":            raw(append(bytes.Clone(wrapped), 0)),
		"not wrapped":          raw(make([]byte, 32)),
		"as long as may be":    raw(make([]byte, 6144)),
	}
}

// TestImportFailures has every cause of a failure give one answer, whose count
// is stored before it is released.
func TestImportFailures(t *testing.T) {
	h, _ := rsaHost(t)
	c := h.enroll()
	id := c.createExternal("EH_AES_GCM_256")
	s := c.parameters(id, "EH_RSA_2048")
	for name := range badMaterial(t, s) {
		s = c.parameters(id, "EH_RSA_2048") // each with a session of its own
		h.history = nil
		want(t, name, c.do(0, "ImportKeyMaterial", badMaterial(t, s)[name]), 500, keyFailed)
		if len(h.history) != 1 || h.history[0].ID != sessionRecord(c.keyRecord(id)) || len(h.history[0].Sealed) == 0 {
			t.Errorf("%s: writes %v, want one of the session", name, h.history)
		}
		if got, keyPair := c.storedSession(id); got.Failures != 1 || got.State != record.SessionOpen || keyPair == 0 {
			t.Errorf("%s: stored session has %d failures, state %d, key pair of %d bytes", name, got.Failures, got.State, keyPair)
		}
	}
	c.imported("afterwards", s.payload(t, oaep, make([]byte, 32)))
}

// TestImportFailureLimit is the end of a session after ten failures.
func TestImportFailureLimit(t *testing.T) {
	h, d := rsaHost(t)
	h.cores = append(h.cores, d.start(t, h, Limits{})) // both count in one record
	c := h.enroll()
	s := c.parameters(c.createExternal("EH_AES_GCM_256"), "EH_RSA_2048")
	bad, good := s.payload(t, pkcs1, make([]byte, 31)), s.payload(t, oaep, make([]byte, 32))
	for i := 1; i <= maxImportFailures; i++ {
		want(t, fmt.Sprintf("failure %d", i), c.do(i%2, "ImportKeyMaterial", bad), 500, keyFailed)
		if got, _ := c.storedSession(s.keyid); int(got.Failures) != i {
			t.Errorf("after failure %d: %d are counted", i, got.Failures)
		}
	}
	if got, keyPair := c.storedSession(s.keyid); got.State != record.SessionExhausted || keyPair != 0 {
		t.Errorf("stored session has state %d, key pair of %d bytes", got.State, keyPair)
	}
	for core := range h.cores {
		want(t, "bad material afterwards", c.do(core, "ImportKeyMaterial", bad), 500, tokenFailed)
		want(t, "good material afterwards", c.do(core, "ImportKeyMaterial", good), 500, tokenFailed)
	}
	c.imported("new session", c.parameters(s.keyid, "EH_RSA_2048").payload(t, oaep, make([]byte, 32)))
}

// TestImportFailuresNotStored has a host that lets no failure be stored, to learn
// from the answers of the core how each attempt went. It sees no more of them.
func TestImportFailuresNotStored(t *testing.T) {
	for name, outcome := range map[string]wire.Outcome{"failed": wire.Failed, "conflict": wire.Conflict, "unresolved": unresolved} {
		h, _ := rsaHost(t)
		c := h.enroll()
		s := c.parameters(c.createExternal("EH_AES_GCM_256"), "EH_RSA_2048")
		bad, good := s.payload(t, pkcs1, make([]byte, 31)), s.payload(t, oaep, make([]byte, 32))
		seen := 0
		h.outcome = func(a *wire.Answer) wire.Outcome {
			if len(a.Writes) > 0 {
				seen++
			}
			return outcome
		}
		for range 3 * maxImportFailures {
			if _, err := h.try(0, &wire.Call{Action: "ImportKeyMaterial", Body: c.body(bad)}); err != nil {
				t.Fatal(err)
			}
		}
		if seen != maxImportFailures {
			t.Errorf("%s: got %d answers about material, want %d", name, seen, maxImportFailures)
		}
		h.outcome = nil
		want(t, name, c.do(0, "ImportKeyMaterial", good), 500, tokenFailed)
	}
}

// TestImportKeepsMaterial tries everything that might destroy material.
func TestImportKeepsMaterial(t *testing.T) {
	h, _ := rsaHost(t)
	c := h.enroll()
	material := bytes.Repeat([]byte{7}, 32)
	s := c.parameters(c.createExternal("EH_AES_GCM_256"), "EH_RSA_2048")
	c.imported("first", s.payload(t, oaep, material))
	ct := c.mustDo("Encrypt", encrypts(s.keyid)).text("ciphertext")
	before := c.stored(s.keyid)
	intact := func(what string) {
		t.Helper()
		if pt := c.mustDo("Decrypt", m{"keyid": s.keyid, "ciphertext": ct}).text("plaintext"); pt != hello {
			t.Errorf("%s: decrypts to %q", what, pt)
		}
		if !slices.Equal(c.stored(s.keyid), before) {
			t.Errorf("%s: the key's records have changed", what)
		}
	}
	s = c.parameters(s.keyid, "EH_RSA_2048")
	want(t, "other material", c.do(0, "ImportKeyMaterial", s.payload(t, oaep, make([]byte, 32))), 500, keyFailed)
	intact("other material")
	other := bytes.Clone(material)
	other[31] ^= 1
	want(t, "last bit differs", c.do(0, "ImportKeyMaterial", s.payload(t, oaep, other)), 500, keyFailed)
	intact("last bit differs")
	want(t, "shorter", c.do(0, "ImportKeyMaterial", s.payload(t, oaep, material[:16])), 500, keyFailed)
	intact("shorter")
	for range maxImportFailures - 3 {
		want(t, "garbage", c.do(0, "ImportKeyMaterial", with(s.payload(t, oaep, material), m{"padding_mode": pkcs1})), 500, keyFailed)
	}
	want(t, "session exhausted", c.do(0, "ImportKeyMaterial", s.payload(t, oaep, material)), 500, tokenFailed)
	intact("session exhausted")
	s = c.parameters(s.keyid, "EH_RSA_4096")
	h.now = h.now.Add(25 * time.Hour)
	want(t, "session expired", c.do(0, "ImportKeyMaterial", s.payload(t, oaep, material)), 500, tokenTooOld)
	intact("session expired")
	s = c.parameters(s.keyid, "EH_RSA_2048")
	h.outcome = func(*wire.Answer) wire.Outcome { return wire.Failed }
	want(t, "not stored", c.do(0, "ImportKeyMaterial", s.payload(t, oaep, material)), 500, importFailed)
	h.outcome = nil
	intact("not stored")
	c.imported("the same again", s.payload(t, oaep, material))
	intact("the same again")
	if n := len(c.mustDo("ListKey", nil).Result["list"].([]any)); n != 1 {
		t.Errorf("ListKey: got %d keys, want 1", n)
	}
}

// TestImportAttacks has a host that serves other sessions than the one asked
// for.
func TestImportAttacks(t *testing.T) {
	h, _ := rsaHost(t)
	c, other := h.enroll(), h.enroll()
	s := c.parameters(c.createExternal("EH_AES_GCM_256"), "EH_RSA_2048")
	id := sessionRecord(c.keyRecord(s.keyid))
	bad, good := s.payload(t, pkcs1, make([]byte, 31)), s.payload(t, oaep, make([]byte, 32))
	fresh := h.rows[id]
	const internal = "Server internal error, please contact the administrator."
	for range 3 {
		want(t, "failure", c.do(0, "ImportKeyMaterial", bad), 500, keyFailed)
	}
	newest := h.rows[id]
	serve := func(what string, w wire.Write) {
		t.Helper()
		h.rows[id] = w
		want(t, what, c.do(0, "ImportKeyMaterial", bad), 500, internal)
		h.rows[id] = newest
	}
	// The core goes on from the state it knows, which the host does not store.
	h.rows[id] = fresh
	if a, err := h.try(0, &wire.Call{Action: "ImportKeyMaterial", Body: c.body(bad)}); err != nil || a.Reply != nil {
		t.Errorf("failures taken back: got %q, %v, want no reply", a.Reply, err)
	}
	if got := h.history[len(h.history)-1]; got.Expected != newest.Revision {
		t.Errorf("the core built on revision %d, want %d", got.Expected, newest.Revision)
	}
	h.rows[id] = newest
	claims := newest
	claims.Sealed = fresh.Sealed
	serve("an older session under a newer revision", claims)
	ours, foreign := c.parameters(c.createExternal("EH_AES_GCM_256"), "EH_RSA_2048"), other.parameters(other.createExternal("EH_AES_GCM_256"), "EH_RSA_2048")
	for what, w := range map[string]wire.Write{
		"session of another key": h.rows[sessionRecord(c.keyRecord(ours.keyid))], "session of another tenant": h.rows[sessionRecord(other.keyRecord(foreign.keyid))],
		"a key": h.rows[c.keyRecord(s.keyid)],
	} {
		w.ID, w.Revision = id, newest.Revision+1
		serve(what, w)
	}
	delete(h.rows, id)
	want(t, "session hidden", c.do(0, "ImportKeyMaterial", good), 500, internal)
	h.rows[id] = newest
	want(t, "session hidden from a new one", func() reply {
		delete(h.rows, id)
		defer func() { h.rows[id] = newest }()
		return c.do(0, "GetParametersForImport", m{"keyid": s.keyid, "keyspec": "EH_RSA_2048"})
	}(), 500, internal)
	c.imported("honest again", good)
	used := h.rows[id]
	h.rows[id] = newest
	want(t, "used session taken back", c.do(0, "ImportKeyMaterial", good), 500, tokenFailed)
	h.rows[id] = used
}

// TestParallelImports has material that differs compete for one key.
func TestParallelImports(t *testing.T) {
	h, _ := rsaHost(t)
	c := h.enroll()
	s := c.parameters(c.createExternal("EH_AES_GCM_256"), "EH_RSA_2048")
	var bodies [][]byte
	for i := range 4 {
		bodies = append(bodies, c.body(s.payload(t, oaep, bytes.Repeat([]byte{byte(i)}, 32))))
	}
	replies := make([]reply, len(bodies))
	var wg sync.WaitGroup
	for i := range bodies {
		wg.Go(func() { replies[i] = c.send(0, "ImportKeyMaterial", bodies[i]) })
	}
	wg.Wait()
	won := -1
	for i, r := range replies {
		switch {
		case r.Code == 200 && won < 0:
			won = i
		case r.Code != 500:
			t.Errorf("request %d: got %d %s", i, r.Code, r.Message)
		}
	}
	if got := materialOf(t, h, c, s.keyid); won < 0 || !bytes.Equal(got, bytes.Repeat([]byte{byte(won)}, 32)) {
		t.Errorf("request %d has won, and the material is %x", won, got)
	}
	c.mustDo("Encrypt", encrypts(s.keyid))
}

// TestImportAudit looks for the reasons in the trail.
func TestImportAudit(t *testing.T) {
	h, _ := rsaHost(t)
	c := h.enroll()
	s := c.parameters(c.createExternal("EH_AES_GCM_256"), "EH_RSA_2048")
	c.do(0, "ImportKeyMaterial", with(s.payload(t, oaep, make([]byte, 32)), m{"importToken": "x"}))
	c.do(0, "ImportKeyMaterial", s.payload(t, oaep, make([]byte, 31)))
	c.imported("good", s.payload(t, oaep, make([]byte, 32)))
	got := reasons(t, h)
	want := []string{
		"GetParametersForImport 200 ok", "ImportKeyMaterial 500 import token malformed",
		"ImportKeyMaterial 500 material refused", "ImportKeyMaterial 200 ok",
	}
	if !slices.Equal(got[len(got)-len(want):], want) {
		t.Errorf("trail: got %q, want %q", got, want)
	}
}
