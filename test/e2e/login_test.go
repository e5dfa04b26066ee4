package e2e

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim/remote"
)

// A workload logs in: a second implementation of docs/login.md, which verifies no
// evidence.
type workload struct {
	appid, token string
	key          ed25519.PrivateKey

	domain, instance, hpke []byte // of the service that answered last
}

func newWorkload(appid string) *workload {
	_, key, _ := ed25519.GenerateKey(nil) // never fails
	return &workload{appid: appid, key: key}
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// meet asks who the service is.
func (w *workload) meet(t testing.TB, g *target) {
	t.Helper()
	r := g.evidence(t, base64.RawURLEncoding.EncodeToString(randomBytes(32)))
	w.domain, w.instance, w.hpke = unhex(t, r.text(t, "domainId")), unhex(t, r.text(t, "instanceId")), r.bytes(t, "hpkePublicKey")
}

// publicKey is kind and key.
func (w *workload) publicKey() []byte {
	return append([]byte{2}, w.key.Public().(ed25519.PublicKey)...)
}

// login sends a proof to the service that it has met.
func (w *workload) login(t testing.TB, g *target, proof []byte) reply {
	t.Helper()
	public, err := hpke.MLKEM768X25519().NewPublicKey(w.hpke)
	if err != nil {
		t.Fatal(err)
	}
	enc, s, err := hpke.NewSender(public, hpke.HKDFSHA256(), hpke.AES256GCM(), bytes.Join([][]byte{[]byte("ehsm/login/v1\x00"), w.domain, w.instance}, nil))
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := s.Seal(nil, bytes.Join([][]byte{{1}, unhex(t, w.appid), w.publicKey(), proof}, nil))
	if err != nil {
		t.Fatal(err)
	}
	id := hex.EncodeToString(w.instance)
	id = strings.Join([]string{id[:8], id[8:12], id[12:16], id[16:20], id[20:]}, "-")
	r := g.must(t, http.MethodPost, "/ehsm?Action=Login", []byte(jsonText(fields{"instanceId": id, "enc": b64(enc), "ciphertext": b64(sealed)})))
	r.action = "Login"
	if r.Code != 200 {
		return r
	}
	key, err := s.Export("ehsm/login-reply/v1\x00", 32)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := aes.NewCipher(key) // of 32 bytes
	aead, _ := cipher.NewGCM(block)
	box := r.bytes(t, "ciphertext")
	grant, err := aead.Open(nil, box[:12], box[12:], nil)
	if err != nil || grant[0] != 1 {
		t.Fatalf("grant %x: %v", grant, err)
	}
	if at := time.UnixMilli(int64(binary.BigEndian.Uint64(grant[1:]))); time.Since(at).Abs() > time.Minute {
		t.Errorf("the core's time is %v", at)
	}
	w.token = string(grant[9:])
	return r
}

// call signs a request with the key of the login.
func (w *workload) call(t testing.TB, g *target, action string, payload fields) reply {
	t.Helper()
	c := &tenant{target: g, appid: w.appid}
	q := c.unsigned(named(action, payload)).signed("")
	q.envelope["sign"] = b64(ed25519.Sign(w.key, []byte(q.text)))
	q.envelope["credential"] = w.token
	r := g.must(t, http.MethodPost, "/ehsm?Action="+action, q.body())
	r.action = action
	if r.Code == 200 {
		w.checkReply(t, g, q.text, r)
	}
	return r
}

// checkReply verifies a reply by the reply key of the service's instance.
func (w *workload) checkReply(t testing.TB, g *target, text string, r reply) {
	t.Helper()
	evidence := g.evidence(t, base64.RawURLEncoding.EncodeToString(randomBytes(32)))
	parts := strings.Split(r.signature, " ")
	if len(parts) != 3 || parts[0] != "ed25519" || parts[1] != evidence.text(t, "instanceId") {
		t.Fatalf("%s: reply signature is %q", r.action, r.signature)
	}
	signature, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil {
		t.Fatal(err)
	}
	id := sha256.Sum256(bytes.Join([][]byte{[]byte("ehsm/login-credential/v1\x00"), unhex(t, w.appid), w.publicKey()}, nil))
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80
	request := sha256.Sum256([]byte(text))
	message := bytes.Join([][]byte{[]byte("ehsm-reply/v2\x00"), id[:16], request[:], {byte(len(r.action))}, []byte(r.action), r.body}, nil)
	if !ed25519.Verify(evidence.bytes(t, "replyKey"), message, signature) {
		t.Errorf("%s: reply signature does not verify: %s", r.action, r.body)
	}
}

// An issuer of tokens, as a cluster is one.
type issuer struct{ key ed25519.PrivateKey }

func newIssuer() issuer {
	_, key, _ := ed25519.GenerateKey(nil) // never fails
	return issuer{key}
}

func raw64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (i issuer) jwks() string {
	return jsonText(fields{"keys": []any{fields{"kid": "k1", "kty": "OKP", "crv": "Ed25519", "x": raw64(i.key.Public().(ed25519.PublicKey))}}})
}

// proof is a token as the proof of a login.
func (i issuer) proof(subject string) []byte {
	now := time.Now().Unix()
	signed := raw64([]byte(`{"alg":"EdDSA","kid":"k1"}`)) + "." + raw64([]byte(jsonText(fields{
		"iss": "https://cluster.example", "aud": "ehsm", "sub": subject, "iat": now, "exp": now + 600})))
	return append([]byte{1}, signed+"."+raw64(ed25519.Sign(i.key, []byte(signed)))...)
}

// accepts makes the rule for the issuer's tokens.
func (i issuer) accepts(t testing.TB, owner *tenant) {
	t.Helper()
	want(t, owner.call(t, "PutLoginRule", named("PutLoginRule", fields{
		"name": "shop", "kind": "jwt", "policy": "all", "lifetimeSeconds": 600, "issuer": "https://cluster.example", "audience": "ehsm",
		"subject": "system:serviceaccount:shop:*", "jwks": i.jwks()})), 200, textSuccessful)
}

// TestLogin has workloads log in at one of three nodes and be served by all of them,
// until the rule goes.
func TestLogin(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	owner := c.everywhere(t)[0]
	key := owner.createAES(t)
	i := newIssuer()
	i.accepts(t, owner)
	w := newWorkload(owner.appid)
	w.meet(t, c.nodes[0])
	want(t, w.login(t, c.nodes[0], i.proof("system:serviceaccount:other:web")), 400, "login failed")
	want(t, w.login(t, c.nodes[0], newIssuer().proof("system:serviceaccount:shop:web")), 400, "login failed")
	want(t, w.login(t, c.nodes[0], i.proof("system:serviceaccount:shop:web")), 200, textSuccessful)
	encrypts := fields{"keyid": key, "plaintext": "AAAA"}
	for _, g := range c.nodes {
		want(t, w.call(t, g, "Encrypt", encrypts), 200, textSuccess)
		want(t, w.call(t, g, "ListLoginRules", nil), 400, "sign error")
	}
	thief := &workload{appid: w.appid, token: w.token, key: newWorkload("").key}
	want(t, thief.call(t, c.nodes[1], "Encrypt", encrypts), 400, "sign error")

	want(t, owner.call(t, "DeleteLoginRule", named("DeleteLoginRule", fields{"name": "shop"})), 200, textSuccessful)
	since := time.Now()
	for n, g := range c.nodes {
		read := func(*tenant) reply { return w.call(t, g, "Encrypt", encrypts) }
		if lag, ok := await(owner.on(g), read, func(r reply) bool { return r.Code == 400 && r.Message == "sign error" }, since); !ok {
			t.Errorf("node %d: logged in without a rule after %v", n, lag)
		}
	}
	want(t, w.login(t, c.nodes[0], i.proof("system:serviceaccount:shop:web")), 400, "login failed")
}

// TestLoginRolledBack has a host put the rows back as they were before a rule was
// deleted, and restart every core.
func TestLoginRolledBack(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, nil)
	s.up(t)
	one, two := s.machines[0], s.machines[1]
	owner, bystander := one.g.enroll(t), one.g.enroll(t)
	i := newIssuer()
	i.accepts(t, owner)
	w := newWorkload(owner.appid)
	w.meet(t, one.g)
	want(t, w.login(t, one.g, i.proof("system:serviceaccount:shop:web")), 200, textSuccessful)
	want(t, w.call(t, one.g, "ListKey", nil), 200, textSuccessful)
	r := s.rollback(t)
	r.exec(t, "CREATE TABLE before AS TABLE records")
	want(t, owner.call(t, "DeleteLoginRule", named("DeleteLoginRule", fields{"name": "shop"})), 200, textSuccessful)
	one.anchored(t, 1)
	two.anchored(t, 1)
	r.takeBack(t, "before")
	for _, n := range s.machines {
		n.restart(t)
	}
	for _, n := range s.machines {
		n.ready(t)
		want(t, bystander.on(n.g).call(t, "ListKey", nil), 200, textSuccessful)
		if reply := w.call(t, n.g, "ListKey", nil); reply.Code == 200 {
			t.Error("a workload is logged in by a rule that was deleted")
		}
		w.meet(t, n.g)
		if reply := w.login(t, n.g, i.proof("system:serviceaccount:shop:web")); reply.Code == 200 {
			t.Error("a deleted rule lets a workload in")
		}
	}
}

// TestLoginQuote has this program log in by a quote of itself.
func TestLoginQuote(t *testing.T) {
	t.Parallel()
	g := newTarget(t, splitUnix)
	owner := g.enroll(t)
	machine, err := remote.Dial(t.Context(), g.tee(), 77, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer machine.Close()
	w := newWorkload(owner.appid)
	w.meet(t, g)
	prove := func(bind []byte) []byte {
		t.Helper()
		r := g.must(t, http.MethodPost, "/ehsm?Action=LoginChallenge", []byte("{}"))
		challenge := r.bytes(t, "challenge")
		sum := sha512.New()
		for _, field := range [][]byte{[]byte("ehsm/reportdata-login/v1\x00"), w.domain, unhex(t, w.appid), w.instance, challenge, bind} {
			sum.Write(binary.BigEndian.AppendUint32(nil, uint32(len(field))))
			sum.Write(field)
		}
		e, err := machine.Evidence(t.Context(), [64]byte(sum.Sum(nil)))
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Join([][]byte{{2}, challenge, e.Quote}, nil)
	}
	rule := func(more fields) fields {
		return named("PutLoginRule", fields{"name": "me", "kind": "quote", "policy": "all", "lifetimeSeconds": 600}.with(more))
	}
	other := sha256.Sum256([]byte("another program"))
	want(t, owner.call(t, "PutLoginRule", rule(fields{"mrEnclave": hex.EncodeToString(other[:])})), 200, textSuccessful)
	want(t, w.login(t, g, prove(w.publicKey())), 400, "login failed")
	id := machine.Identity()
	want(t, owner.call(t, "PutLoginRule", rule(fields{"mrEnclave": hex.EncodeToString(id.Measurement[:])})), 200, textSuccessful)
	proof := prove(w.publicKey())
	want(t, w.login(t, g, proof), 200, textSuccessful)
	want(t, w.call(t, g, "ListKey", nil), 200, textSuccessful)
	want(t, w.login(t, g, proof), 400, "login failed") // the challenge was used
	want(t, w.login(t, g, prove(newWorkload("").publicKey())), 400, "login failed")
	want(t, owner.call(t, "PutLoginRule", rule(fields{"mrSigner": hex.EncodeToString(id.Signer[:]), "isvProdId": 77, "minIsvSvn": 4})), 200, textSuccessful)
	want(t, w.call(t, g, "ListKey", nil), 400, "sign error") // the rule is another one
	want(t, w.login(t, g, prove(w.publicKey())), 400, "login failed")
	want(t, owner.call(t, "PutLoginRule", rule(fields{"mrSigner": hex.EncodeToString(id.Signer[:]), "isvProdId": 77, "minIsvSvn": 3})), 200, textSuccessful)
	want(t, w.login(t, g, prove(w.publicKey())), 200, textSuccessful)
	want(t, w.call(t, g, "ListKey", nil), 200, textSuccessful)
}
