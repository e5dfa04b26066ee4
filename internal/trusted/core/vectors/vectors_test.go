// Package vectors holds tests only: the vectors of C2SP Wycheproof through the
// core as the manager calls it, from the signed request to the reply. Package
// primitive runs all of them; here it is shown that nothing between the API and
// the primitives turns a refusal into a success.
//
// A stored key needs a private half. Possible are: HMAC; RSA signatures that are
// made and RSA ciphertexts, as those files have private keys; and ECDSA
// signatures, because a stored EC key has its point beside its scalar and the
// point is what verifies. Not possible are: AES-GCM, whose ciphertexts have our
// header and derived keys; files of RSA signatures to verify, which have no
// private keys; and what the API does not take, such as an empty message, one
// over 6144 bytes, an RSA exponent of 3, or an OAEP label.
//
// The vectors (Apache License 2.0) come with the module github.com/c2sp/wycheproof,
// pinned in go.mod. They are a hundred megabytes of a test binary, which is why
// these tests have a package of their own.
package vectors

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/c2sp/wycheproof"

	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/internal/trusted/core"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// hexBytes is a byte string written in hexadecimal in a JSON file.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// groups reads one Wycheproof file whose groups decode into G.
func groups[G any](t testing.TB, file string) []G {
	t.Helper()
	raw, err := fs.ReadFile(wycheproof.TestVectors, file)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ TestGroups []G }
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return doc.TestGroups
}

// A tally counts rows by what became of them, so that a file which silently runs
// nothing is seen.
type tally map[string]int

func (c tally) check(t *testing.T, file string, verdicts ...string) {
	t.Helper()
	t.Logf("%s: %v", file, map[string]int(c))
	for _, v := range verdicts {
		if c[v] == 0 {
			t.Errorf("%s: got %v, want some %s rows", file, map[string]int(c), v)
		}
	}
}

const (
	maxBytes     = 6144 // of a base64 member
	maxSignature = 512  // bytes
	apiKey       = "0123456789abcdefghijkmnpqrstuvwx"
)

// service is a core with one tenant, whose keys the test makes.
type service struct {
	t      *testing.T
	core   *core.Core
	keys   *domainkey.Keyring
	now    time.Time
	tenant wire.UUID
	refs   []wire.Ref // of the tenant and the last key
	nonce  int
}

func newService(t *testing.T) *service {
	t.Helper()
	dir := t.TempDir()
	s := &service{t: t, now: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC), tenant: wire.NewUUID()}
	p, err := sim.Open(filepath.Join(dir, "sim"), tee.ProductCore, 1)
	if err != nil {
		t.Fatal(err)
	}
	draft, operator, err := manifest.ThrowAway(manifest.Defaults(manifest.Development))
	if err != nil {
		t.Fatal(err)
	}
	domain := filepath.Join(dir, "domain")
	if err := domainkey.Create(domain, p, draft, s.now.Add(-time.Hour), operator); err != nil {
		t.Fatal(err)
	}
	var state *manifest.State
	if s.keys, state, err = domainkey.Open(domain, p, secret.NewHeap()); err != nil {
		t.Fatal(err)
	}
	s.core, err = core.New(core.Config{Platform: p, Keys: s.keys, Settings: state.Settings, Date: state.Date, Clock: func() time.Time { return s.now }})
	if err != nil {
		t.Fatal(err)
	}
	if f, err := s.core.Facts(t.Context(), &wire.Facts{First: 1, End: true}); err != nil || f.Trouble != "" {
		t.Fatalf("Facts: got %+v, %v", f, err)
	}
	id := wire.RecordID{Type: wire.App, Tenant: s.tenant, ID: s.tenant}
	a := record.App{State: record.Active, Credentials: []record.Credential{record.FirstCredential(0)}}
	app, err := record.SealApp(s.keys, record.Header{ID: id, Revision: 1}, a, []secret.Bytes{secret.Copy([]byte(apiKey))})
	s.refs = []wire.Ref{s.ref(id, app, err)}
	return s
}

func (s *service) ref(id wire.RecordID, sealed []byte, err error) wire.Ref {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
	return wire.Ref{ID: id, Revision: 1, Tag: wire.SealedTag(sealed), Sealed: sealed}
}

// key makes a key of given material and returns its id. Only the last one can
// be used.
func (s *service) key(spec primitive.Spec, usage record.Usage, paddings primitive.PaddingSet, material []byte) string {
	s.t.Helper()
	id := wire.RecordID{Type: wire.Key, Tenant: s.tenant, ID: wire.NewUUID()}
	version := id
	version.Type, version.Version = wire.KeyVersion, 1
	v := record.KeyVersion{Spec: spec, Usage: usage, Origin: record.Internal}
	k := record.Key{
		Spec: spec, Usage: usage, Origin: record.Internal, State: record.Active, Paddings: paddings, Primary: 1,
		Versions: []record.Version{{Number: 1, State: record.Active, Digest: record.VersionDigest(version, v, secret.Copy(material))}},
	}
	sealedKey, err := record.SealKey(s.keys, record.Header{ID: id, Revision: 1}, k)
	key := s.ref(id, sealedKey, err)
	sealedVersion, err := record.SealKeyVersion(s.keys, record.Header{ID: version, Revision: 1}, v, secret.Copy(material))
	s.refs = append(s.refs[:1], key, s.ref(version, sealedVersion, err))
	return id.ID.String()
}

type reply struct {
	Code    int
	Message string
	Result  struct {
		Signature, Plaintext []byte
		Result               *bool
	}
}

// do signs and sends one request.
func (s *service) do(action string, payload map[string]any) reply {
	s.t.Helper()
	s.nonce++
	payload["action"] = action
	m := map[string]any{
		"appid": s.tenant.String(), "timestamp": strconv.FormatInt(s.now.UnixMilli(), 10), "nonce": strconv.Itoa(s.nonce), "payload": payload,
	}
	body, err := json.Marshal(m)
	if err != nil {
		s.t.Fatal(err)
	}
	v, err := canon.Parse(body)
	if err != nil {
		s.t.Fatal(err)
	}
	mac := hmac.New(sha256.New, []byte(apiKey))
	mac.Write(v.AppendCanonical(nil, canon.Skipping))
	m["sign"] = base64.StdEncoding.EncodeToString(mac.Sum(nil))
	body, _ = json.Marshal(m)
	a, err := s.core.Call(context.Background(), &wire.Call{RequestID: "r", Action: action, Body: body, Records: s.refs, Fresh: true})
	if err != nil || a.Kind != wire.Final {
		s.t.Fatalf("%s: got %+v, %v", action, a, err)
	}
	var r reply
	if err := json.Unmarshal(a.Reply, &r); err != nil {
		s.t.Fatalf("%s: reply %s: %v", action, a.Reply, err)
	}
	return r
}

// sayable reports whether a request can have these bytes as a member.
func sayable(b []byte) bool { return len(b) > 0 && len(b) <= maxBytes }

func digest(sha string) string {
	return map[string]string{"SHA-224": "EH_SHA_224", "SHA-256": "EH_SHA_256", "SHA-384": "EH_SHA_384", "SHA-512": "EH_SHA_512"}[sha]
}

// verifies says what Verify makes of a signature.
func (s *service) verifies(what string, payload map[string]any) bool {
	s.t.Helper()
	r := s.do("Verify", payload)
	if r.Code != 200 || r.Result.Result == nil {
		s.t.Errorf("%s: Verify: got %d %s, want 200", what, r.Code, r.Message)
		return false
	}
	return *r.Result.Result
}

func TestHMAC(t *testing.T) {
	type group struct {
		KeySize, TagSize int
		Tests            []struct {
			TCID          int
			Key, Msg, Tag hexBytes
			Result        string
		}
	}
	const file = "hmac_sha256_test.json"
	s, count := newService(t), tally{}
	for _, g := range groups[group](t, file) {
		for _, v := range g.Tests {
			if g.KeySize != 256 || !sayable(v.Msg) {
				count["other size"]++
				continue
			}
			what := fmt.Sprintf("%s, %d", file, v.TCID)
			p := map[string]any{"keyid": s.key(primitive.HMAC, record.SignVerify, 0, v.Key), "message": v.Msg, "message_type": "EH_RAW", "signature": v.Tag}
			count[v.Result]++
			want := v.Result == "valid" && g.TagSize == 256 // no truncated tags
			if got := s.verifies(what, p); got != want {
				t.Errorf("%s: verifies: %v, want %v", what, got, want)
			}
			if r := s.do("Sign", p); r.Code != 200 || bytes.Equal(r.Result.Signature, v.Tag) != want {
				t.Errorf("%s: Sign: got %d %x, tag is %x", what, r.Code, r.Result.Signature, v.Tag)
			}
		}
	}
	count.check(t, file, "valid", "invalid")
}

// ecMaterial is a stored EC key: a scalar, here any, and the point.
func ecMaterial(scalarLen int, point []byte) []byte {
	scalar := make([]byte, scalarLen)
	scalar[scalarLen-1] = 1
	return append(scalar, point...)
}

func TestECDSA(t *testing.T) {
	type group struct {
		SHA       string
		PublicKey struct{ Uncompressed hexBytes }
		Tests     []struct {
			TCID     int
			Msg, Sig hexBytes
			Result   string
		}
	}
	for _, f := range []struct {
		name      string
		spec      primitive.Spec
		scalarLen int
		slow      bool // left out under the race detector
	}{
		{"ecdsa_secp224r1_sha224_test.json", primitive.ECP224, 28, true},
		{"ecdsa_secp256r1_sha256_test.json", primitive.ECP256, 32, false},
		{"ecdsa_secp256k1_sha256_test.json", primitive.ECP256K, 32, true},
		{"ecdsa_secp384r1_sha384_test.json", primitive.ECP384, 48, true},
		{"ecdsa_secp521r1_sha512_test.json", primitive.ECP521, 66, true},
	} {
		if raceEnabled && f.slow {
			continue
		}
		s, count := newService(t), tally{}
		for _, g := range groups[group](t, f.name) {
			id := s.key(f.spec, record.SignVerify, 0, ecMaterial(f.scalarLen, g.PublicKey.Uncompressed))
			for _, v := range g.Tests {
				if !sayable(v.Msg) || !sayable(v.Sig) {
					count["not sayable"]++
					continue
				}
				count[v.Result]++
				what := fmt.Sprintf("%s, %d", f.name, v.TCID)
				p := map[string]any{"keyid": id, "message": v.Msg, "message_type": "EH_RAW", "digest_mode": digest(g.SHA), "signature": v.Sig, "padding_mode": "EH_RSA_PKCS1"}
				if len(v.Sig) > maxSignature { // malformed, and over the limit of the API
					if r := s.do("Verify", p); r.Code != 500 {
						t.Errorf("%s: Verify of %d bytes: got %d, want 500", what, len(v.Sig), r.Code)
					}
					continue
				}
				if got := s.verifies(what, p); got != (v.Result == "valid") {
					t.Errorf("%s: verifies: %v, want %s", what, got, v.Result)
				}
			}
		}
		count.check(t, f.name, "valid", "invalid")
	}
}

// rsaKey makes a key from a PKCS#8 one, "" if its exponent is not ours.
func (s *service) rsaKey(spec primitive.Spec, usage record.Usage, paddings primitive.PaddingSet, pkcs8 []byte) string {
	s.t.Helper()
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		s.t.Fatal(err)
	}
	der := x509.MarshalPKCS1PrivateKey(key.(*rsa.PrivateKey))
	if _, err := primitive.OpenPrivate(spec, secret.Copy(der)); err != nil {
		return ""
	}
	return s.key(spec, usage, paddings, der)
}

func TestRSASign(t *testing.T) {
	type group struct {
		SHA             string
		PrivateKeyPKCS8 hexBytes
		Tests           []struct {
			TCID     int
			Msg, Sig hexBytes
			Result   string
		}
	}
	for file, spec := range map[string]primitive.Spec{
		"rsa_pkcs1_2048_sig_gen_test.json": primitive.RSA2048, "rsa_pkcs1_3072_sig_gen_test.json": primitive.RSA3072,
		"rsa_pkcs1_4096_sig_gen_test.json": primitive.RSA4096,
	} {
		if raceEnabled && spec != primitive.RSA2048 {
			continue
		}
		s, count := newService(t), tally{}
		for _, g := range groups[group](t, file) {
			id := s.rsaKey(spec, record.SignVerify, primitive.SignaturePaddings, g.PrivateKeyPKCS8)
			for _, v := range g.Tests {
				if id == "" || digest(g.SHA) == "" || !sayable(v.Msg) {
					count["not sayable"]++
					continue
				}
				count[v.Result]++
				what := fmt.Sprintf("%s, %d", file, v.TCID)
				p := map[string]any{"keyid": id, "message": v.Msg, "message_type": "EH_RAW", "digest_mode": digest(g.SHA), "padding_mode": "EH_RSA_PKCS1", "signature": v.Sig}
				if r := s.do("Sign", p); r.Code != 200 || !bytes.Equal(r.Result.Signature, v.Sig) {
					t.Errorf("%s: Sign: got %d %x, want %x", what, r.Code, r.Result.Signature, v.Sig)
				}
				if !s.verifies(what, p) {
					t.Errorf("%s: does not verify", what)
				}
			}
		}
		count.check(t, file, "valid")
	}
}

func TestRSADecrypt(t *testing.T) {
	type group struct {
		PrivateKeyPKCS8 hexBytes
		Tests           []struct {
			TCID           int
			Msg, CT, Label hexBytes
			Result         string
		}
	}
	for _, f := range []struct {
		name, padding string
		spec          primitive.Spec
	}{
		{"rsa_pkcs1_2048_test.json", "EH_RSA_PKCS1", primitive.RSA2048},
		{"rsa_pkcs1_3072_test.json", "EH_RSA_PKCS1", primitive.RSA3072},
		{"rsa_pkcs1_4096_test.json", "EH_RSA_PKCS1", primitive.RSA4096},
		{"rsa_oaep_2048_sha256_mgf1sha256_test.json", "EH_RSA_PKCS1_OAEP", primitive.RSA2048},
		{"rsa_oaep_3072_sha256_mgf1sha256_test.json", "EH_RSA_PKCS1_OAEP", primitive.RSA3072},
		{"rsa_oaep_4096_sha256_mgf1sha256_test.json", "EH_RSA_PKCS1_OAEP", primitive.RSA4096},
	} {
		if raceEnabled && f.spec != primitive.RSA2048 {
			continue
		}
		s, count := newService(t), tally{}
		for _, g := range groups[group](t, f.name) {
			id := s.rsaKey(f.spec, record.EncryptDecrypt, primitive.EncryptionPaddings, g.PrivateKeyPKCS8)
			for _, v := range g.Tests {
				if id == "" || !sayable(v.CT) {
					count["not sayable"]++
					continue
				}
				count[v.Result]++
				want := v.Result == "valid" && len(v.Label) == 0
				r := s.do("AsymmetricDecrypt", map[string]any{"keyid": id, "ciphertext": v.CT, "padding_mode": f.padding})
				switch {
				case want && (r.Code != 200 || !bytes.Equal(r.Result.Plaintext, v.Msg)):
					t.Errorf("%s, %d: got %d %x, want %x", f.name, v.TCID, r.Code, r.Result.Plaintext, v.Msg)
				case !want && (r.Code != 400 || r.Message != "Decryption failed, Please confirm that your parameters are correct."):
					t.Errorf("%s, %d: got %d %s, want it refused", f.name, v.TCID, r.Code, r.Message)
				}
			}
		}
		count.check(t, f.name, "valid", "invalid")
	}
}
