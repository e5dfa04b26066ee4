package sealed

import (
	"bytes"
	"crypto/hpke"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/api/canon"
)

// Messages made by testdata/vectors.py, which was written from docs/formats.md. Add
// lines, never change one.
//
//go:embed testdata/vectors.json
var vectors []byte

type vector map[string]string

func readVector(t testing.TB) vector {
	t.Helper()
	var v vector
	if err := json.Unmarshal(vectors, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v vector) bytes(t testing.TB, name string) []byte {
	t.Helper()
	b, err := hex.DecodeString(v[name])
	if err != nil || len(b) == 0 {
		t.Fatalf("%s: %v", name, err)
	}
	return b
}

func (v vector) shared(t testing.TB) Secret { return NewSecret([32]byte(v.bytes(t, "secret"))) }

// outer makes the outer part of a request of the vectors.
func (v vector) outer(t testing.TB) *Outer {
	t.Helper()
	tree, err := canon.Parse([]byte(v["request"]))
	if err != nil {
		t.Fatal(err)
	}
	o, err := NewOuter("Encrypt", v["key id"], tree)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// TestKnownSecret has the core's side come to the secret of the vectors.
func TestKnownSecret(t *testing.T) {
	v := readVector(t)
	key, err := hpke.MLKEM768X25519().NewPrivateKey(v.bytes(t, "seed"))
	if err != nil {
		t.Fatal(err)
	}
	public := key.PublicKey().Bytes()
	if sum := sha256.Sum256(public); hex.EncodeToString(sum[:]) != v["public key"] {
		t.Fatalf("public key: got %x", sum)
	}
	if got := KeyID(public); got != v["key id"] {
		t.Errorf("KeyID: got %s, want %s", got, v["key id"])
	}
	r, err := hpke.NewRecipient(v.bytes(t, "encapsulated"), key, hpke.HKDFSHA256(), hpke.ExportOnly(), Info([32]byte(v.bytes(t, "domain"))))
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Export(ExportLabel, SecretSize)
	if err != nil || hex.EncodeToString(got) != v["secret"] {
		t.Errorf("secret: got %x, %v, want %s", got, err, v["secret"])
	}
}

func TestKnownRequest(t *testing.T) {
	v := readVector(t)
	s, o := v.shared(t), v.outer(t)
	encapsulated, nonce := [EncapsulatedSize]byte(v.bytes(t, "encapsulated")), [NonceSize]byte(v.bytes(t, "nonce"))
	message, err := s.SealRequest(&encapsulated, nonce, o, []byte(v["request"]))
	if err != nil || hex.EncodeToString(message) != v["message"] {
		t.Errorf("SealRequest: got %x, %v", message, err)
	}
	body := o.AppendBody(nil, v.bytes(t, "message"))
	if string(body) != v["body"] {
		t.Errorf("AppendBody: got %s, want %s", body, v["body"])
	}
	read, got, err := ParseBody("Encrypt", []byte(v["body"]))
	if err != nil || !reflect.DeepEqual(read, o) || !bytes.Equal(got, message) {
		t.Fatalf("ParseBody: got %+v, %v", read, err)
	}
	request, err := s.OpenRequest(got, read)
	if err != nil || string(request) != v["request"] {
		t.Errorf("OpenRequest: got %q, %v", request, err)
	}
	large, err := s.SealRequest(&encapsulated, nonce, o, make([]byte, 70000))
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(large[1+EncapsulatedSize+NonceSize:]); hex.EncodeToString(sum[:]) != v["large"] {
		t.Errorf("large: got %x, want %s", sum, v["large"])
	}
}

func TestKnownReply(t *testing.T) {
	v := readVector(t)
	s, want := v.shared(t), Reply{v["sign"], []byte(v["reply"])}
	message, err := s.SealReply(v.bytes(t, "message"), [NonceSize]byte(v.bytes(t, "reply nonce")), want)
	if err != nil || hex.EncodeToString(message) != v["reply message"] {
		t.Errorf("SealReply: got %x, %v", message, err)
	}
	got, err := s.OpenReply(v.bytes(t, "message"), v.bytes(t, "reply message"))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("OpenReply: got %+v, %v", got, err)
	}
	if got := ParseReply(ReplyBody(message)); !bytes.Equal(got, message) {
		t.Errorf("ParseReply: got %x", got)
	}
}

// TestDamagedReply flips each bit of the first bytes and some others.
func TestDamagedReply(t *testing.T) {
	v := readVector(t)
	s, request, message := v.shared(t), v.bytes(t, "message"), v.bytes(t, "reply message")
	for at := range message {
		bad := bytes.Clone(message)
		bad[at] ^= 1 << (at % 8)
		if _, err := s.OpenReply(request, bad); !errors.Is(err, ErrOpen) {
			t.Errorf("byte %d: got %v", at, err)
		}
	}
	for n := range message {
		if _, err := s.OpenReply(request, message[:n]); !errors.Is(err, ErrOpen) {
			t.Errorf("%d bytes: got %v", n, err)
		}
	}
	if _, err := s.OpenReply(request[:len(request)-1], message); !errors.Is(err, ErrOpen) {
		t.Errorf("another request: got %v", err)
	}
	if _, err := s.OpenReply(request, append(bytes.Clone(message), 0)); !errors.Is(err, ErrOpen) {
		t.Errorf("extended: got %v", err)
	}
	if _, err := (Secret{}).OpenReply(request, message); !errors.Is(err, ErrOpen) {
		t.Errorf("no secret: got %v", err)
	}
	if _, err := s.OpenReply(request, request); !errors.Is(err, ErrOpen) {
		t.Errorf("a request as its own reply: got %v", err)
	}
}

// TestPadding has lengths be hidden in steps, and one encoding of each text.
func TestPadding(t *testing.T) {
	for n, want := range map[int]int{
		0: 512, 508: 512, 509: 1024, 1020: 1024, 1021: 2048, 40000: 65536, 65532: 65536, 65533: 131072, 131068: 131072, 131069: 196608,
	} {
		if got := Padded(n); got != want {
			t.Errorf("Padded(%d): got %d, want %d", n, got, want)
		}
		if text, err := unpad(pad(make([]byte, n))); err != nil || len(text) != n {
			t.Errorf("%d bytes: got %d, %v", n, len(text), err)
		}
	}
	zero := func(n int, length uint32) []byte {
		b := make([]byte, n)
		b[0], b[1], b[2], b[3] = byte(length>>24), byte(length>>16), byte(length>>8), byte(length)
		return b
	}
	dirty := pad([]byte("text"))
	dirty[511] = 1
	for name, b := range map[string][]byte{
		"none": nil, "short": zero(508, 0), "over": zero(512, 509), "far over": zero(512, 1<<31), "all ones": zero(512, 1<<32-1),
		"no step": zero(600, 500), "a step too many": zero(1024, 508), "dirty": dirty,
	} {
		if _, err := unpad(b); !errors.Is(err, ErrOpen) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestParseBodyRefusals(t *testing.T) {
	v := readVector(t)
	good := v["body"]
	swap := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("no %q", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	for name, body := range map[string]string{
		"empty":            "",
		"in clear":         v["request"],
		"space before":     " " + good,
		"cut":              good[:len(good)-1],
		"trailing":         good + "x",
		"no appid":         swap(`"appid":"86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c",`, ``),
		"upper-case appid": swap("86f0c2a1", "86F0C2A1"),
		"upper-case key":   swap(`"sealedKey":"9733ae`, `"sealedKey":"9733AE`),
		"no key":           swap(`"sealedKey"`, `"sealedkey"`),
		"short key":        swap(`"sealedKey":"97`, `"sealedKey":"`),
		"unknown member":   swap(`"appid"`, `"x":1,"appid"`),
		"unknown name":     swap(`"keyid"`, `"plaintext":"AAAA","keyid"`),
		"secret in clear":  swap(`"keyid"`, `"secretName":"a name","keyid"`),
		"name is none":     swap(`"keyid":"aac3`, `"keyid":"AAC3`),
		"name is a number": swap(`"keyid":"aac3e45a-d3dc-4791-89b6-4ada0e38e6ef"`, `"keyid":1`),
		"payload is text":  good[:strings.Index(good, `"payload"`)] + `"payload":"x"}`,
		"payload is empty": good[:strings.Index(good, `"payload"`)] + `"payload":{}}`,
		"not base64":       swap(`"sealed":"`, `"sealed":"!`),
		"line end":         swap(`"sealed":"A`, `"sealed":"A\n`),
		"no message":       `{"sealed":"","sealedKey":"` + v["key id"] + `","appid":"86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c"}`,
		"another message":  swap(`"appid"`, `"sealed":1,"appid"`),
	} {
		if o, _, err := ParseBody("Encrypt", []byte(body)); !errors.Is(err, ErrRequest) {
			t.Errorf("%s: got %+v, %v", name, o, err)
		}
	}
}

func TestOuter(t *testing.T) {
	const id = "aac3e45a-d3dc-4791-89b6-4ada0e38e6ef"
	for name, row := range map[string]struct {
		payload string
		want    []string // members
	}{
		"none":         {`{}`, nil},
		"all":          {`{"ukeyid":"` + id + `","keyid":"` + id + `","policyId":"` + id + `","encryptionKeyId":"` + id + `","secretName":"s"}`, []string{"encryptionKeyId", "keyid", "policyId", "secretId", "ukeyid"}},
		"no UUIDs":     {`{"keyid":"x","ukeyid":1,"policyId":null,"secretName":""}`, nil},
		"a secretId":   {`{"secretId":"` + id + `"}`, nil},
		"plain member": {`{"plaintext":"` + id + `"}`, nil},
	} {
		v, err := canon.Parse([]byte(`{"appid":"86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c","payload":` + row.payload + `}`))
		if err != nil {
			t.Fatal(err)
		}
		o, err := NewOuter("A", strings.Repeat("ab", 16), v)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, n := range o.Names {
			got = append(got, n.Member)
		}
		if !reflect.DeepEqual(got, row.want) || !o.Matches(v) {
			t.Errorf("%s: got %v, want %v", name, got, row.want)
		}
	}
	for _, appid := range []string{"", "x", "86F0C2A1-4b5d-4c3e-9a77-0d1e2f3a4b5c", "86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c0", "86f0c2a1a4b5d-4c3e-9a77-0d1e2f3a4b5c"} {
		v, _ := canon.Parse([]byte(`{"appid":"` + appid + `"}`))
		if _, err := NewOuter("A", "", v); !errors.Is(err, ErrRequest) {
			t.Errorf("appid %q: got %v", appid, err)
		}
	}
}

func TestSecretPrintsNothing(t *testing.T) {
	s := NewSecret([32]byte{0xAA, 0xBB})
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%s", "%d"} {
		for _, v := range []any{s, struct{ s Secret }{s}, &s} {
			if text := fmt.Sprintf(verb, v); strings.Contains(strings.ToLower(text), "aabb") || strings.Contains(text, "170") {
				t.Errorf("%s prints %s", verb, text)
			}
		}
	}
	s.Zero()
	if s.get() == nil || *s.get() != [32]byte{} {
		t.Error("Zero leaves the secret")
	}
}

// FuzzParseBody has what is accepted be what it becomes when it is written again.
func FuzzParseBody(f *testing.F) {
	v := readVector(f)
	f.Add([]byte(v["body"]))
	f.Add([]byte(`{"sealed":"AQ==","sealedKey":"` + v["key id"] + `","appid":"86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c"}`))
	s := v.shared(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		o, message, err := ParseBody("Encrypt", body)
		if err != nil {
			return
		}
		again, same, err := ParseBody("Encrypt", o.AppendBody(nil, message))
		if err != nil || !reflect.DeepEqual(again, o) || !bytes.Equal(same, message) {
			t.Errorf("%s becomes %+v, %v", body, again, err)
		}
		if request, err := s.OpenRequest(message, o); err == nil && string(request) != v["request"] {
			t.Errorf("a message opens that nobody has sealed: %q", request)
		}
	})
}

// FuzzOpenReply has nothing open but what was sealed.
func FuzzOpenReply(f *testing.F) {
	v := readVector(f)
	s, request := v.shared(f), v.bytes(f, "message")
	f.Add(ReplyBody(v.bytes(f, "reply message")))
	f.Add([]byte(`{"code":200,"result":{"sealed":"AQ=="}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if r, err := s.OpenReply(request, ParseReply(body)); err == nil && string(r.Body) != v["reply"] {
			t.Errorf("a reply opens that nobody has sealed: %q", r.Body)
		}
	})
}
