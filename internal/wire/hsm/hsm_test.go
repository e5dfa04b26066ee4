package hsm

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

// filled returns an array of n, n+1 and so on.
func filled(n byte) (a [32]byte) {
	for i := range a {
		a[i] = n + byte(i)
	}
	return a
}

const (
	hexContext = "101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f"
	hexKey     = "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf"
)

// known are messages as docs/formats.md describes them.
var known = []struct {
	name string
	m    Message
	hex  string
}{
	{"wrap", Message{Kind: Wrap, Label: "ehsm", Context: filled(0x10), Key: filled(0xa0)}, "0101" + "000465" + "68736d" + hexContext + hexKey},
	{"wrap with the first key", Message{Kind: Wrap, Context: filled(0x10), Key: filled(0xa0)}, "0101" + "0000" + hexContext + hexKey},
	{"unwrap", Message{Kind: Unwrap, Context: filled(0x10), Wrapped: Wrapped{"k", GCM, []byte{1, 2}}}, "0102" + hexContext + "00016b" + "01" + "000000020102"},
	{"wrapped", Message{Kind: WrapDone, Wrapped: Wrapped{"k", KeyWrapPad, []byte{3}}}, "0181" + "00016b" + "02" + "0000000103"},
	{"unwrapped", Message{Kind: UnwrapKey, Key: filled(0xa0)}, "0182" + hexKey},
	{"refused", Message{Kind: Refused}, "01ff"},
}

func TestKnownMessages(t *testing.T) {
	for _, row := range known {
		want, err := hex.DecodeString(row.hex)
		if err != nil {
			t.Fatal(err)
		}
		if got := row.m.Append(nil); !bytes.Equal(got, want) {
			t.Errorf("%s: Append: got %x, want %x", row.name, got, want)
		}
		if got, err := Parse(want); err != nil || !reflect.DeepEqual(*got, row.m) {
			t.Errorf("%s: Parse: got %+v, %v", row.name, got, err)
		}
		var buf bytes.Buffer
		if err := Write(&buf, &row.m); err != nil || !bytes.Equal(buf.Bytes(), append([]byte{0, 0, 0, byte(len(want))}, want...)) {
			t.Errorf("%s: Write: got %x, %v", row.name, buf.Bytes(), err)
		}
		if got, err := Read(&buf); err != nil || !reflect.DeepEqual(*got, row.m) || buf.Len() != 0 {
			t.Errorf("%s: Read: got %+v, %v", row.name, got, err)
		}
		for n := range want {
			if _, err := Parse(want[:n]); !errors.Is(err, ErrMessage) {
				t.Errorf("%s cut to %d bytes: got %v, want ErrMessage", row.name, n, err)
			}
		}
		if _, err := Parse(append(want, 0)); !errors.Is(err, ErrMessage) {
			t.Errorf("%s and a byte: got %v, want ErrMessage", row.name, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	blob := func(n int) []byte { return bytes.Repeat([]byte{1}, n) }
	request := func(w Wrapped) []byte { return (&Message{Kind: Unwrap, Wrapped: w}).Append(nil) }
	if _, err := Parse(request(Wrapped{strings.Repeat("k", MaxLabel), GCM, blob(MaxBlob)})); err != nil {
		t.Errorf("the longest: got %v", err)
	}
	for name, b := range map[string][]byte{
		"nothing":                  {},
		"format 0":                 {0, byte(Refused)},
		"format 2":                 {2, byte(Refused)},
		"kind 0":                   {1, 0},
		"kind 3":                   {1, 3},
		"kind 0x80":                {1, 0x80},
		"no label":                 request(Wrapped{"", GCM, blob(1)}),
		"long label":               request(Wrapped{strings.Repeat("k", MaxLabel+1), GCM, blob(1)}),
		"label with a line feed":   request(Wrapped{"a\nb", GCM, blob(1)}),
		"label that is no UTF-8":   request(Wrapped{"a\xff", GCM, blob(1)}),
		"label with spaces before": request(Wrapped{" a", GCM, blob(1)}),
		"label with spaces behind": request(Wrapped{"a ", GCM, blob(1)}),
		"mechanism 0":              request(Wrapped{"k", 0, blob(1)}),
		"mechanism 3":              request(Wrapped{"k", 3, blob(1)}),
		"empty blob":               request(Wrapped{"k", GCM, nil}),
		"long blob":                request(Wrapped{"k", GCM, blob(MaxBlob + 1)}),
		"bad label of a request":   (&Message{Kind: Wrap, Label: "a\x00"}).Append(nil),
		"label turning the text":   (&Message{Kind: Wrap, Label: "a\u202eb"}).Append(nil),
	} {
		if m, err := Parse(b); !errors.Is(err, ErrMessage) || m != nil {
			t.Errorf("%s: got %+v, %v, want ErrMessage", name, m, err)
		}
	}
}

func TestReadRefusals(t *testing.T) {
	for _, row := range []struct {
		name string
		b    []byte
		want error
	}{
		{"nothing", nil, io.EOF},
		{"half a length", []byte{0, 0}, io.ErrUnexpectedEOF},
		{"no body", []byte{0, 0, 0, 2}, ErrMessage},
		{"half a body", []byte{0, 0, 0, 2, 1}, ErrMessage},
		{"empty body", []byte{0, 0, 0, 0}, ErrMessage},
		{"over the limit", []byte{0, 0, 4, 1}, ErrMessage},
		{"far over the limit", []byte{255, 255, 255, 255}, ErrMessage},
	} {
		if m, err := Read(bytes.NewReader(row.b)); !errors.Is(err, row.want) || m != nil {
			t.Errorf("%s: got %+v, %v, want %v", row.name, m, err, row.want)
		}
	}
}

// FuzzParse decodes what either end may be sent.
func FuzzParse(f *testing.F) {
	for _, row := range known {
		f.Add(row.m.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrMessage) || m != nil {
				t.Errorf("got %+v, %v", m, err)
			}
			return
		}
		if again := m.Append(nil); !bytes.Equal(again, b) {
			t.Errorf("two encodings of one message: %x and %x", again, b)
		}
	})
}
