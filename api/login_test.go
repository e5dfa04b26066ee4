package api

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func sampleToken() *LoginToken {
	t := &LoginToken{
		DomainKey: 2, Tenant: [16]byte{1}, Credential: [16]byte{2}, Rule: [16]byte{3}, Revision: 4, Expires: 5,
		Kind: KindEd25519, PublicKey: bytes.Repeat([]byte{6}, 32),
	}
	copy(t.MAC[:], bytes.Repeat([]byte{7}, 32))
	return t
}

func TestLoginTokenKnown(t *testing.T) {
	const head = "01" + "00000002" + "01000000000000000000000000000000" + "02000000000000000000000000000000" +
		"03000000000000000000000000000000" + "0000000000000004" + "0000000000000005" + "02" +
		"0606060606060606060606060606060606060606060606060606060606060606"
	if got := hex.EncodeToString(sampleToken().Head()); got != head {
		t.Errorf("Head: got %s, want %s", got, head)
	}
	const text = "ehsm-login-v1.AQAAAAIBAAAAAAAAAAAAAAAAAAAAAgAAAAAAAAAAAAAAAAAAAAMAAAAAAAAAAAAAAAAAAAAAAAAAAAAABAAAAAAAAAAFAgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc"
	if got := sampleToken().Text(); got != text {
		t.Errorf("Text: got %s, want %s", got, text)
	}
	got, err := ParseLoginToken(text)
	if err != nil || !reflect.DeepEqual(got, sampleToken()) {
		t.Errorf("ParseLoginToken: got %+v, %v", got, err)
	}
	p256 := sampleToken()
	p256.Kind, p256.PublicKey = KindP256, append([]byte{4}, make([]byte, 64)...)
	if got, err := ParseLoginToken(p256.Text()); err != nil || !reflect.DeepEqual(got, p256) {
		t.Errorf("P-256: got %+v, %v", got, err)
	}
	for name, bad := range map[string]string{
		"empty": "", "no prefix": text[len(LoginTokenPrefix):], "other prefix": "ehsm-login-v2." + text[14:], "cut": text[:len(text)-4],
		"longer": text + "AAAA", "padding": text + "=", "line end": text[:40] + "\n" + text[40:], "other alphabet": text[:40] + "+" + text[41:],
		"stray bits": text[:len(text)-1] + "d", "format 2": strings.Replace(text, ".AQ", ".Ag", 1),
		"P-256 of 32 bytes": strings.Replace(text, "AFAgYG", "AFAwYG", 1), "no kind": strings.Replace(text, "AFAgYG", "AFAAYG", 1),
	} {
		if got, err := ParseLoginToken(bad); !errors.Is(err, ErrLogin) {
			t.Errorf("%s: got %+v, %v, want ErrLogin", name, got, err)
		}
	}
}

func TestLoginMessages(t *testing.T) {
	key := bytes.Repeat([]byte{9}, 32)
	jwt := &LoginAsk{Tenant: [16]byte{1}, Kind: KindEd25519, PublicKey: key, JWT: []byte("a.b.c")}
	want := "01" + "01000000000000000000000000000000" + "02" + hex.EncodeToString(key) + "01" + "612e622e63"
	if got := hex.EncodeToString(jwt.Append(nil)); got != want {
		t.Errorf("Append: got %s, want %s", got, want)
	}
	quote := &LoginAsk{Tenant: [16]byte{1}, Kind: KindP256, PublicKey: make([]byte, 65), Challenge: [32]byte{5}, Quote: []byte("quote")}
	for _, a := range []*LoginAsk{jwt, quote} {
		if got, err := DecodeLoginAsk(a.Append(nil)); err != nil || !reflect.DeepEqual(got, a) {
			t.Errorf("DecodeLoginAsk: got %+v, %v, want %+v", got, err, a)
		}
	}
	good := jwt.Append(nil)
	with := func(at int, v byte) []byte { b := bytes.Clone(good); b[at] = v; return b }
	for name, bad := range map[string][]byte{
		"empty": nil, "cut in the key": good[:30], "no proof": good[:51], "format 2": with(0, 2), "key of no kind": with(17, 1),
		"P-256 of 32 bytes": with(17, 3), "proof of no kind": with(50, 3), "quote without a challenge": with(50, 2),
		"long JWT": append(bytes.Clone(good), make([]byte, MaxLoginJWT)...), "long quote": append(quote.Append(nil), make([]byte, MaxLoginQuote)...),
	} {
		if got, err := DecodeLoginAsk(bad); !errors.Is(err, ErrLogin) {
			t.Errorf("%s: got %+v, %v, want ErrLogin", name, got, err)
		}
	}
	g := &LoginGrant{Now: 7, Token: "t"}
	if got := hex.EncodeToString(g.Append(nil)); got != "01"+"0000000000000007"+"74" {
		t.Errorf("grant: got %s", got)
	}
	if got, err := DecodeLoginGrant(g.Append(nil)); err != nil || *got != *g {
		t.Errorf("DecodeLoginGrant: got %+v, %v", got, err)
	}
	if got, err := DecodeLoginGrant(g.Append(nil)[:9]); !errors.Is(err, ErrLogin) {
		t.Errorf("cut grant: got %+v, %v", got, err)
	}
}

func FuzzLoginToken(f *testing.F) {
	f.Add(sampleToken().Text())
	f.Fuzz(func(t *testing.T, text string) {
		if tok, err := ParseLoginToken(text); err == nil && tok.Text() != text {
			t.Errorf("%q does not re-encode", text)
		}
	})
}

func FuzzLoginAsk(f *testing.F) {
	a := &LoginAsk{Kind: KindEd25519, PublicKey: make([]byte, 32), JWT: []byte("a.b.c")}
	f.Add(a.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := DecodeLoginAsk(b); err == nil && !bytes.Equal(a.Append(nil), b) {
			t.Errorf("%x does not re-encode", b)
		}
	})
}
