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
