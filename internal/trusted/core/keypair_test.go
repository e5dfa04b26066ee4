package core

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strconv"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// A holder signs requests with a key pair.
type holder struct {
	*tenant
	credential string
	ed25519    ed25519.PrivateKey
	p256       *ecdsa.PrivateKey
}

// halfOrder is the largest s of a signature that is accepted.
var halfOrder = new(big.Int).Rsh(elliptic.P256().Params().N, 1)

// rawSign signs a canonical string; a high s is made low, or a low one high.
func (p *holder) rawSign(message []byte, high bool) []byte {
	if p.ed25519 != nil {
		return ed25519.Sign(p.ed25519, message)
	}
	digest := sha256.Sum256(message)
	r, s, err := ecdsa.Sign(nil, p.p256, digest[:])
	if err != nil {
		p.h.t.Fatal(err)
	}
	if s.Cmp(halfOrder) > 0 != high {
		s.Sub(elliptic.P256().Params().N, s)
	}
	out := make([]byte, 64)
	r.FillBytes(out[:32])
	s.FillBytes(out[32:])
	return out
}

// unsigned makes a request without its signature, and the string to sign.
func (p *holder) unsigned(payload map[string]any) (text string, message []byte) {
	p.nonce++
	m := map[string]any{
		"appid": p.appid, "credential": p.credential, "timestamp": strconv.FormatInt(p.h.now.UnixMilli(), 10), "nonce": "p" + strconv.Itoa(p.nonce),
	}
	if payload != nil {
		m["payload"] = payload
	}
	b, _ := json.Marshal(m)
	v, err := canon.Parse(b)
	if err != nil {
		p.h.t.Fatal(err)
	}
	return string(b), v.AppendCanonical(nil, canon.Skipping)
}

func (p *holder) body(payload map[string]any) []byte {
	text, message := p.unsigned(payload)
	return withSign(text, base64.StdEncoding.EncodeToString(p.rawSign(message, false)))
}

func (p *holder) do(action string, payload map[string]any) reply {
	p.h.t.Helper()
	return p.send(0, action, p.body(payload))
}

// pairs stores an app that has an API key and one key pair of each kind. Both are
// the owner's.
func pairs(t testing.TB, h *host, d domain) (key *tenant, ed, p256 *holder) {
	t.Helper()
	edKey := ed25519.NewKeyFromSeed([]byte(strings.Repeat("e", 32)))
	p256Key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), []byte(strings.Repeat("p", 32)))
	if err != nil {
		t.Fatal(err)
	}
	point, err := p256Key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	key = &tenant{h: h, appid: manyAppID, apikey: "an API key"}
	ed = &holder{tenant: &tenant{h: h, appid: manyAppID}, credential: wire.UUID{2}.String(), ed25519: edKey}
	p256 = &holder{tenant: &tenant{h: h, appid: manyAppID}, credential: wire.UUID{3}.String(), p256: p256Key}
	h.putAppWith(d, key, 1, record.App{State: record.Active, Created: 1, Credentials: []record.Credential{
		record.FirstCredential(1),
		{ID: wire.UUID{2}, Kind: record.Ed25519, Role: record.Owner, PublicKey: edKey.Public().(ed25519.PublicKey), Expires: h.now.UnixMilli() + 60_000},
		{ID: wire.UUID{3}, Kind: record.P256, Role: record.Owner, PublicKey: point},
	}}, key.apikey)
	return key, ed, p256
}

func TestKeyPairs(t *testing.T) {
	h, d := newHost(t)
	key, ed, p256 := pairs(t, h, d)
	id := ed.do("CreateKey", newKey).text("keyid")
	want(t, "P-256", p256.do("Encrypt", encrypts(id)), 200, "success!")
	want(t, "API key", key.do(0, "Encrypt", encrypts(id)), 200, "success!")
	want(t, "no payload", ed.do("ListKey", nil), 200, "successful")

	body := p256.body(nil)
	want(t, "once", p256.send(0, "ListKey", body), 200, "successful")
	want(t, "twice", p256.send(0, "ListKey", body), 400, "Timestamp can't be repeated in 20 minutes")
	want(t, "twice, another action", p256.send(0, "DeleteAllKey", body), 400, "Timestamp can't be repeated in 20 minutes")
	text, message := p256.unsigned(nil)
	for i, code := range []int{200, 400} { // two signatures of one request
		sign := base64.StdEncoding.EncodeToString(p256.rawSign(message, false))
		if r := p256.send(0, "ListKey", withSign(text, sign)); r.Code != code {
			t.Errorf("signature %d: got %d %s, want %d", i, r.Code, r.Message, code)
		}
	}
	h.now = h.now.Add(60 * 1e9)
	want(t, "expired", ed.do("ListKey", nil), 400, "sign error")
	want(t, "not expired", p256.do("ListKey", nil), 200, "successful")
}

func TestKeyPairRefusals(t *testing.T) {
	h, d := newHost(t)
	key, ed, p256 := pairs(t, h, d)
	other := &holder{tenant: ed.tenant, credential: ed.credential, ed25519: ed25519.NewKeyFromSeed([]byte(strings.Repeat("x", 32)))}
	with := func(p *holder, change func(text string, sign []byte) (string, string)) []byte {
		text, message := p.unsigned(nil)
		text, sign := change(text, p.rawSign(message, false))
		return withSign(text, sign)
	}
	b64 := base64.StdEncoding.EncodeToString
	named := func(p *holder, credential string) []byte {
		return with(p, func(text string, sign []byte) (string, string) {
			return strings.Replace(text, p.credential, credential, 1), b64(sign)
		})
	}
	flipped := func(at int) []byte {
		return with(p256, func(text string, sign []byte) (string, string) {
			sign[at] ^= 1
			return text, b64(sign)
		})
	}
	for _, row := range []struct {
		name, message string
		body          []byte
	}{
		{"another key", "sign error", other.body(nil)},
		{"unknown id", "sign error", named(ed, wire.UUID{9}.String())},
		{"no UUID", "sign error", named(ed, "first")},
		{"id of another kind", "sign error", named(ed, p256.credential)},
		{"id of the API key", "sign error", named(ed, wire.UUID{}.String())},
		{"id in upper case is no other", "successful", named(ed, strings.ToUpper(ed.credential))},
		{"id is a number", "param type error", with(ed, func(text string, sign []byte) (string, string) {
			return strings.Replace(text, `"`+ed.credential+`"`, "2", 1), b64(sign)
		})},
		{"other appid", "sign error", with(ed, func(text string, sign []byte) (string, string) {
			return strings.Replace(text, manyAppID, wire.UUID{9}.String(), 1), b64(sign)
		})},
		{"first bit", "sign error", flipped(0)},
		{"last bit", "sign error", flipped(63)},
		{"zeros", "sign error", with(p256, func(text string, _ []byte) (string, string) { return text, b64(make([]byte, 64)) })},
		{"zeros, Ed25519", "sign error", with(ed, func(text string, _ []byte) (string, string) { return text, b64(make([]byte, 64)) })},
		{"cut short", "sign error", with(ed, func(text string, sign []byte) (string, string) { return text, b64(sign[:63]) })},
		{"a byte more", "sign error", with(ed, func(text string, sign []byte) (string, string) { return text, b64(append(sign, 0)) })},
		{"unused bits", "sign error", with(ed, func(text string, sign []byte) (string, string) {
			s := b64(sign) // the last character before the padding has four unused bits
			return text, s[:85] + string(s[85]+1) + s[86:]
		})},
		{"text behind it", "sign error", with(ed, func(text string, sign []byte) (string, string) { return text, b64(sign) + "AAAA" })},
		{"no base64", "sign error", with(ed, func(text string, _ []byte) (string, string) { return text, "?" })},
		{"an API key and an id", "sign error", func() []byte {
			text, _ := ed.unsigned(nil)
			return key.signText(text, canon.Skipping)
		}()},
	} {
		code := 400
		if row.message == "successful" {
			code = 200
		}
		want(t, row.name, ed.send(0, "ListKey", row.body), code, row.message)
	}
	text, message := p256.unsigned(nil)
	want(t, "high s", p256.send(0, "ListKey", withSign(text, b64(p256.rawSign(message, true)))), 400, "sign error")
	want(t, "low s", p256.send(0, "ListKey", withSign(text, b64(p256.rawSign(message, false)))), 200, "successful")
}

// TestPairReplies has the signature of a reply verify for what it was made for, and
// for nothing else.
func TestPairReplies(t *testing.T) {
	h, d := newHost(t)
	_, ed, _ := pairs(t, h, d)
	text, message := ed.unsigned(nil)
	a := h.call(0, &wire.Call{Action: "ListKey", Body: withSign(text, base64.StdEncoding.EncodeToString(ed.rawSign(message, false)))})
	instance, sign, ok := api.ParsePairReplySignature(a.Sign)
	if !ok || instance != h.cores[0].info.Instance.String() {
		t.Fatalf("header is %q", a.Sign)
	}
	digest := sha256.Sum256(message)
	public := h.cores[0].reply.public
	verifies := func(id wire.UUID, digest [32]byte, action string, body []byte) bool {
		return ed25519.Verify(public, api.PairReplyMessage((*[16]byte)(&id), &digest, action, body), sign)
	}
	if !verifies(wire.UUID{2}, digest, "ListKey", a.Reply) {
		t.Error("signature does not verify")
	}
	for name, other := range map[string]bool{
		"credential": verifies(wire.UUID{3}, digest, "ListKey", a.Reply),
		"request":    verifies(wire.UUID{2}, sha256.Sum256(nil), "ListKey", a.Reply),
		"action":     verifies(wire.UUID{2}, digest, "ListKeys", a.Reply),
		"body":       verifies(wire.UUID{2}, digest, "ListKey", append(a.Reply, ' ')),
	} {
		if other {
			t.Errorf("it verifies for another %s", name)
		}
	}
	if long := strings.Repeat("a", 256); api.PairReplyMessage(new([16]byte), &digest, long, nil) != nil {
		t.Error("an action of 256 bytes is signed")
	}
}

func BenchmarkKeyPair(b *testing.B) {
	for _, kind := range []string{"Ed25519", "P-256"} {
		b.Run(kind, func(b *testing.B) {
			h, d := newHost(b)
			_, ed, p256 := pairs(b, h, d)
			p := map[string]*holder{"Ed25519": ed, "P-256": p256}[kind]
			id := p.do("CreateKey", newKey).text("keyid")
			bodies := make([][]byte, b.N)
			for i := range bodies {
				bodies[i] = p.body(encrypts(id))
			}
			b.ResetTimer()
			for i := range b.N {
				if r := h.call(0, &wire.Call{Action: "Encrypt", Body: bodies[i]}); r.Code != 200 {
					b.Fatalf("%s", r.Reply)
				}
			}
		})
	}
}
