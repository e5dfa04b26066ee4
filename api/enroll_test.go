package api

import (
	"bytes"
	"crypto/hpke"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// Made by test/e2e/python/enroll.py from docs/enrollment.md. Never change it: what it
// shows is released.
//
//go:embed testdata/enroll.json
var released []byte

type enrollVectors struct {
	Token, TokenID, TokenHash    string
	CoreSeed, ClientSeed, Domain string
	Label, Secret, AppID, APIKey string
	Request                      EnrollFinishRequest
	Result                       EnrollFinishResult
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readVectors(t testing.TB) *enrollVectors {
	t.Helper()
	v := new(enrollVectors)
	if err := json.Unmarshal(released, v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestEnrollKnownAnswers(t *testing.T) {
	v := readVectors(t)
	token, err := ParseEnrollToken(v.Token)
	if err != nil {
		t.Fatal(err)
	}
	if hash := token.Hash(); token.ID() != v.TokenID || hex.EncodeToString(hash[:]) != v.TokenHash || token.Expose() != v.Token {
		t.Errorf("got %s, %x, %s", token.ID(), hash, token.Expose())
	}
	kem := hpke.MLKEM768X25519()
	core, err := kem.NewPrivateKey(unhex(t, v.CoreSeed))
	if err != nil {
		t.Fatal(err)
	}
	own, err := kem.NewPrivateKey(unhex(t, v.ClientSeed))
	if err != nil {
		t.Fatal(err)
	}
	domain, instance := [32]byte(unhex(t, v.Domain)), [16]byte(unhex(t, v.Request.InstanceID))

	c, err := hpke.NewRecipient(v.Request.Enc, core, hpke.HKDFSHA256(), hpke.AES256GCM(), EnrollInfo(domain, instance))
	if err != nil {
		t.Fatal(err)
	}
	text, err := c.Open(nil, v.Request.Ciphertext)
	if err != nil {
		t.Fatal(err)
	}
	ask, err := DecodeEnrollAsk(text)
	if err != nil || ask.Token != *token.Bytes() || ask.Label != v.Label || !bytes.Equal(ask.PublicKey[:], own.PublicKey().Bytes()) || !bytes.Equal(ask.Append(nil), text) {
		t.Errorf("request: got %+v, %v", ask, err)
	}
	secret, err := c.Export(EnrollReplyExport, 32)
	if err != nil || hex.EncodeToString(secret) != v.Secret {
		t.Errorf("secret: got %x, %v", secret, err)
	}
	id, err := c.Export(EnrollAppExport, 16)
	if err != nil {
		t.Fatal(err)
	}
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	if !bytes.Equal(id, unhex(t, v.AppID)) {
		t.Errorf("appid: got %x, want %s", id, v.AppID)
	}

	c, err = hpke.NewRecipient(v.Result.Enc, own, hpke.HKDFSHA256(), hpke.AES256GCM(), EnrollReplyInfo(domain, instance, secret))
	if err != nil {
		t.Fatal(err)
	}
	if text, err = c.Open(nil, v.Result.Ciphertext); err != nil {
		t.Fatal(err)
	}
	g, err := DecodeEnrollGrant(text)
	if err != nil || !bytes.Equal(g.AppID[:], id) || string(g.APIKey) != v.APIKey || !bytes.Equal(g.Append(nil), text) {
		t.Errorf("reply: got %+v, %v", g, err)
	}
}

func TestEnrollRefusals(t *testing.T) {
	ask := (&EnrollAsk{Label: "x"}).Append(nil)
	long := (&EnrollAsk{Label: strings.Repeat("x", MaxEnrollLabel+1)}).Append(nil)
	for name, b := range map[string][]byte{
		"empty": nil, "format": append([]byte{2}, ask[1:]...), "cut": ask[:enrollAskSize-1], "long": long,
		"label in UTF-8": (&EnrollAsk{Label: "\u00e4"}).Append(nil), "control": (&EnrollAsk{Label: "a\n"}).Append(nil),
	} {
		if a, err := DecodeEnrollAsk(b); !errors.Is(err, ErrEnroll) {
			t.Errorf("ask, %s: got %v, %v", name, a, err)
		}
	}
	grant := (&EnrollGrant{APIKey: []byte("k")}).Append(nil)
	for name, b := range map[string][]byte{
		"empty": nil, "format": append([]byte{0}, grant[1:]...), "no key": grant[:17], "long": append(grant, make([]byte, 255)...),
	} {
		if g, err := DecodeEnrollGrant(b); !errors.Is(err, ErrEnroll) {
			t.Errorf("grant, %s: got %v, %v", name, g, err)
		}
	}
	text := readVectors(t).Token
	for name, token := range map[string]string{
		"empty": "", "prefix": strings.Replace(text, "v1", "v2", 1), "cut": text[:len(text)-1], "longer": text + "A", "padding": text + "=",
		"alphabet": text[:20] + "+" + text[21:], "line end inside": text[:20] + "\n" + text[20:], "line end for a character": text[:20] + "\n" + text[21:], "upper case": strings.ToUpper(text),
	} {
		if got, err := ParseEnrollToken(token); !errors.Is(err, ErrEnroll) || !got.IsZero() {
			t.Errorf("token, %s: got %v, %v", name, got, err)
		} else if len(token) > 40 && strings.Contains(err.Error(), token[20:40]) {
			t.Errorf("token, %s: the error shows it: %v", name, err)
		}
	}
	if got, err := ParseEnrollToken("\t" + text + " \r\n"); err != nil || got.Expose() != text {
		t.Errorf("white space around: got %v, %v", got, err)
	}
}

func TestEnrollTokenDoesNotPrint(t *testing.T) {
	token := NewEnrollToken()
	for _, v := range []any{token, &token, struct{ t EnrollToken }{token}, []EnrollToken{token}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q"} {
			s := fmt.Sprintf(verb, v)
			if b := token.Bytes(); strings.Contains(s, token.Expose()) || strings.Contains(s, string(b[16:])) || strings.Contains(s, hex.EncodeToString(b[16:])) || strings.Contains(s, fmt.Sprint(b[16:])) {
				t.Errorf("%s prints the token", verb)
			}
		}
	}
	if other := NewEnrollToken(); *other.Bytes() == *token.Bytes() || len(token.Expose()) != len("ehsm-token-v1.")+64 {
		t.Errorf("got %s", token.Expose()[:14])
	}
}

func FuzzDecodeEnrollAsk(f *testing.F) {
	f.Add((&EnrollAsk{Label: "laptop"}).Append(nil))
	f.Add([]byte{enrollFormat})
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := DecodeEnrollAsk(b); err == nil && !bytes.Equal(a.Append(nil), b) {
			t.Error("it does not re-encode to the bytes that it came from")
		}
	})
}

func FuzzDecodeEnrollGrant(f *testing.F) {
	f.Add((&EnrollGrant{APIKey: []byte("D3nK2Vq90QrFkHGRZ3dBAyFEfPTtLfQy")}).Append(nil))
	f.Add([]byte{enrollFormat})
	f.Fuzz(func(t *testing.T, b []byte) {
		if g, err := DecodeEnrollGrant(b); err == nil && !bytes.Equal(g.Append(nil), b) {
			t.Error("it does not re-encode to the bytes that it came from")
		}
	})
}

func FuzzParseEnrollToken(f *testing.F) {
	f.Add(readVectors(f).Token)
	f.Add(tokenPrefix)
	f.Fuzz(func(t *testing.T, text string) {
		if token, err := ParseEnrollToken(text); err == nil && token.Expose() != strings.TrimSpace(text) {
			t.Error("a token has two texts")
		}
	})
}
