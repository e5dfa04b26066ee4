package core

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

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
