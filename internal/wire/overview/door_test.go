package overview

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

var key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))

func request() *DoorRequest {
	return &DoorRequest{Kind: AskManifests, Nonce: [32]byte{7}, Body: []byte{0, 0, 0, 0, 0, 0, 0, 3}}
}

// Messages written out by hand. Add lines, never change one.
const (
	requestHex = "01" + "02" + "0700000000000000000000000000000000000000000000000000000000000000" + "0000000000000003"
	answerHex  = "01" + "80" + "00000002" + "6162" + "00000000"
	refusalHex = "01" + "ff" + "00000002" + "6e6f" + "00000000"
	listHex    = "00000002" + "00000002" + "6162" + "00000001" + "63"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDoorMessages(t *testing.T) {
	b := unhex(t, requestHex)
	if got := request().Encode(); !bytes.Equal(got, b) {
		t.Errorf("request: got %x", got)
	}
	if got, err := ParseDoorRequest(b); err != nil || !reflect.DeepEqual(got, request()) {
		t.Errorf("request: got %+v, %v", got, err)
	}
	for text, a := range map[string]*DoorAnswer{
		answerHex: {Payload: []byte("ab"), Signature: []byte{}}, refusalHex: {Refused: true, Payload: []byte("no"), Signature: []byte{}},
		answerHex[:16] + "00000040" + strings.Repeat("ab", 64): {Payload: []byte("ab"), Signature: bytes.Repeat([]byte{0xab}, 64)},
	} {
		b := unhex(t, text)
		if got := a.Encode(); !bytes.Equal(got, b) {
			t.Errorf("answer: got %x, want %x", got, b)
		}
		if got, err := ParseDoorAnswer(b); err != nil || !reflect.DeepEqual(got, a) {
			t.Errorf("answer: got %+v, %v", got, err)
		}
		for n := range b {
			if _, err := ParseDoorAnswer(b[:n]); !errors.Is(err, ErrDoor) {
				t.Errorf("cut to %d bytes: got %v", n, err)
			}
		}
	}
	list := [][]byte{[]byte("ab"), []byte("c")}
	if got := AppendManifests(nil, list); !bytes.Equal(got, unhex(t, listHex)) {
		t.Errorf("list: got %x", got)
	}
	if got, err := ParseManifests(unhex(t, listHex)); err != nil || !reflect.DeepEqual(got, list) {
		t.Errorf("list: got %q, %v", got, err)
	}
}

func TestMalformedDoorMessages(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "format": "02" + requestHex[2:], "kind 0": "0100" + requestHex[4:], "kind of an answer": "0180" + requestHex[4:], "short nonce": requestHex[:60],
	} {
		if q, err := ParseDoorRequest(unhex(t, text)); !errors.Is(err, ErrDoor) {
			t.Errorf("request, %s: got %+v, %v", name, q, err)
		}
	}
	for name, text := range map[string]string{
		"format": "02" + answerHex[2:], "kind of a request": "0101" + answerHex[4:], "kind": "0181" + answerHex[4:], "more": answerHex + "00",
		"long payload": "0180" + "01000000", "short signature": answerHex[:16] + "00000001" + "00", "long signature": answerHex[:16] + "00000041" + strings.Repeat("00", 65),
	} {
		if a, err := ParseDoorAnswer(unhex(t, text)); !errors.Is(err, ErrDoor) {
			t.Errorf("answer, %s: got %+v, %v", name, a, err)
		}
	}
	for name, text := range map[string]string{"empty": "", "too many": "ffffffff", "missing": "00000001", "more": listHex + "00", "long": "00000001" + "00200000"} {
		if l, err := ParseManifests(unhex(t, text)); !errors.Is(err, ErrDoor) {
			t.Errorf("list, %s: got %q, %v", name, l, err)
		}
	}
	for name, text := range map[string]string{"null": "null", "unknown": `{"version":1,"hash":"` + strings.Repeat("00", 32) + `","new":true,"x":1}`, "escape": `{"version":1,"hash":"` + strings.Repeat("00", 32) + `","new":true,"unwritten":"\u001b"}`} {
		if s, err := ParseSubmitted([]byte(text)); !errors.Is(err, ErrStatus) {
			t.Errorf("submitted, %s: got %+v, %v", name, s, err)
		}
	}
	s := &Submitted{Version: 2, Hash: manifest.Hash{1}, New: true, Unwritten: "no space"}
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseSubmitted(b); err != nil || *got != *s {
		t.Errorf("submitted: got %+v, %v", got, err)
	}
}

// TestDoorSignature has answers that are not the domain's, or not to this request.
func TestDoorSignature(t *testing.T) {
	public := key.Public().(ed25519.PublicKey)
	q := request()
	a := &DoorAnswer{Payload: []byte("ab")}
	digest := sha256.Sum256(unhex(t, requestHex))
	want := append(append([]byte("ehsm/door-answer/v1\x00"), digest[:]...), 0x80, 'a', 'b')
	if got := a.SignedText(q); !bytes.Equal(got, want) {
		t.Errorf("signed text: got %x, want %x", got, want)
	}
	if err := a.Verify(q, public); !errors.Is(err, ErrUnsigned) {
		t.Errorf("unsigned: got %v", err)
	}
	a.Signature = ed25519.Sign(key, want)
	if err := a.Verify(q, public); err != nil {
		t.Error(err)
	}
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32)).Public().(ed25519.PublicKey)
	for name, row := range map[string]struct {
		edit func(*DoorRequest, *DoorAnswer)
		key  []byte
	}{
		"another domain":   {func(*DoorRequest, *DoorAnswer) {}, other},
		"no key":           {func(*DoorRequest, *DoorAnswer) {}, nil},
		"a recorded one":   {func(q *DoorRequest, _ *DoorAnswer) { q.Nonce[31] = 1 }, public},
		"another question": {func(q *DoorRequest, _ *DoorAnswer) { q.Body = nil }, public},
		"another kind":     {func(q *DoorRequest, _ *DoorAnswer) { q.Kind = Submit }, public},
		"another payload":  {func(_ *DoorRequest, a *DoorAnswer) { a.Payload = []byte("ac") }, public},
		"a refusal":        {func(_ *DoorRequest, a *DoorAnswer) { a.Refused = true }, public},
		"another signature": {func(_ *DoorRequest, a *DoorAnswer) {
			a.Signature = bytes.Clone(a.Signature)
			a.Signature[0] ^= 1
		}, public},
	} {
		q, b := request(), *a
		row.edit(q, &b)
		if err := b.Verify(q, row.key); !errors.Is(err, ErrForged) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if one, two := NewDoorRequest(AskStatus, nil), NewDoorRequest(AskStatus, nil); one.Nonce == two.Nonce {
		t.Error("two requests have one nonce")
	}
}

func TestFrames(t *testing.T) {
	var b bytes.Buffer
	if err := WriteFrame(&b, []byte("abc")); err != nil || !bytes.Equal(b.Bytes(), unhex(t, "00000003616263")) {
		t.Errorf("got %x, %v", b.Bytes(), err)
	}
	if got, err := ReadFrame(&b, 3); err != nil || string(got) != "abc" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := ReadFrame(&b, 3); err != io.EOF {
		t.Errorf("at the end: got %v", err)
	}
	for name, text := range map[string]string{"too long": "00000004" + "61626364", "cut": "00000003" + "61", "very long": "ffffffff"} {
		if _, err := ReadFrame(bytes.NewReader(unhex(t, text)), 3); !errors.Is(err, ErrDoor) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := ReadFrame(strings.NewReader("\x00\x00"), 3); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half a length: got %v", err)
	}
	big := make([]byte, MaxPayload/2)
	if got := AppendManifests(nil, [][]byte{big, big}); len(got) > MaxPayload || got[3] != 1 {
		t.Errorf("a list that is too long has %d bytes and %d manifests", len(got), got[3])
	}
}

func FuzzDoor(f *testing.F) {
	for _, text := range []string{requestHex, answerHex, refusalHex, listHex} {
		f.Add(unhex(f, text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := ParseDoorRequest(b); err == nil && !bytes.Equal(q.Encode(), b) {
			t.Errorf("request %x encodes to %x", b, q.Encode())
		}
		if a, err := ParseDoorAnswer(b); err == nil && !bytes.Equal(a.Encode(), b) {
			t.Errorf("answer %x encodes to %x", b, a.Encode())
		}
		if l, err := ParseManifests(b); err == nil && !bytes.Equal(AppendManifests(nil, l), b) {
			t.Errorf("list %x encodes to %x", b, AppendManifests(nil, l))
		}
		if s, err := ParseSubmitted(b); err == nil {
			if again, err := s.Encode(); err != nil || !bytes.Equal(again, b) {
				t.Errorf("%s encodes to %s", b, again)
			}
		}
	})
}
