package core

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"maps"
	"sync"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/trail"
)

type m = map[string]any

const (
	server    = "Server exception."
	forCrypt  = usageEncrypt
	forSigns  = usageSign
	pkcs1     = "EH_RSA_PKCS1"
	pss       = "EH_RSA_PKCS1_PSS"
	oaep      = "EH_RSA_PKCS1_OAEP"
	noPadding = "EH_PAD_NONE"
)

var (
	symmetricSpecs = []string{"EH_AES_GCM_128", "EH_AES_GCM_192", "EH_AES_GCM_256", "EH_SM4_CTR", "EH_SM4_CBC"}
	rsaSpecs       = []string{"EH_RSA_2048", "EH_RSA_3072", "EH_RSA_4096"}
	ecSpecs        = []string{"EH_EC_P224", "EH_EC_P256", "EH_EC_P256K", "EH_EC_P384", "EH_EC_P521"}
)

// b64 is text in base64.
func b64[T string | []byte](text T) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

func unb64(t testing.TB, text string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// with is a payload with other members, nil taking one away.
func with(p m, more m) m {
	p = maps.Clone(p)
	for k, v := range more {
		if v == nil {
			delete(p, k)
		} else {
			p[k] = v
		}
	}
	return p
}

// fixedRSA makes a core use one key pair of each RSA spec for everything, made
// once for the whole run, as generating them takes seconds.
func fixedRSA(c *Core) {
	c.generators.generate = func(s primitive.Spec) (secret.Bytes, error) {
		if !s.RSA() {
			return primitive.NewMaterial(s)
		}
		return secret.Copy(rsaMaterial(s)), nil
	}
}

var rsaMaterial = func() func(primitive.Spec) []byte {
	made := map[primitive.Spec]func() []byte{}
	for _, s := range []primitive.Spec{primitive.RSA2048, primitive.RSA3072, primitive.RSA4096} {
		made[s] = sync.OnceValue(func() []byte {
			b, err := primitive.NewMaterial(s)
			if err != nil {
				panic(err)
			}
			return b.Expose()
		})
	}
	return func(s primitive.Spec) []byte { return made[s]() }
}()

// rsaHost is a host whose core makes RSA keys at no cost.
func rsaHost(t testing.TB) (*host, domain) {
	h, d := newHost(t)
	fixedRSA(h.cores[0])
	return h, d
}

func (c *tenant) create(spec, usage string, more m) reply {
	c.h.t.Helper()
	return c.do(0, "CreateKey", with(m{"keyspec": spec, "origin": originInternal, "keyusage": usage}, more))
}

func (c *tenant) mustCreate(spec, usage string) string {
	c.h.t.Helper()
	r := c.create(spec, usage, nil)
	if r.Code != 200 {
		c.h.t.Fatalf("CreateKey %s: %d %s", spec, r.Code, r.Message)
	}
	return r.text("keyid")
}

func (c *tenant) publicKey(keyid string) string {
	c.h.t.Helper()
	return c.mustDo("GetPublicKey", named(keyid)).text("pubkey")
}

func parsePKCS1(t testing.TB, text string) *rsa.PublicKey {
	t.Helper()
	block, rest := pem.Decode([]byte(text))
	if block == nil || len(rest) > 0 || block.Type != "RSA PUBLIC KEY" {
		t.Fatalf("no PKCS#1 PEM: %q", text)
	}
	key, err := x509.ParsePKCS1PublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func modulus(spec string) int {
	var bits int
	fmt.Sscanf(spec, "EH_RSA_%d", &bits)
	return bits / 8
}

// materialOf opens the stored material of version 1 of a key.
func materialOf(t testing.TB, h *host, c *tenant, keyid string) []byte {
	t.Helper()
	id := c.keyRecord(keyid)
	id.Type, id.Version = wire.KeyVersion, 1
	w, ok := h.rows[id]
	if !ok {
		return nil
	}
	_, material, err := record.OpenKeyVersion(h.cores[0].keys, record.Header{ID: id, Revision: w.Revision}, w.Sealed)
	if err != nil {
		t.Fatal(err)
	}
	return material.Expose()
}

// reasons lists action, code and reason of each request in the trail.
func reasons(t testing.TB, h *host) (rows []string) {
	t.Helper()
	for rest := h.frames; len(rest) > 0; {
		f, more, err := trail.CutFrame(rest)
		if err != nil {
			t.Fatal(err)
		}
		e, err := trail.Parse(f.Entry)
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == trail.Request {
			rows = append(rows, fmt.Sprintf("%s %d %s", e.Action, e.Code, e.Reason))
		}
		rest = more
	}
	return rows
}
