package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	var b []byte
	b = append(b, 7)
	b = AppendBool(b, true)
	b = binary.BigEndian.AppendUint16(b, 0x0102)
	b = binary.BigEndian.AppendUint32(b, 0x01020304)
	b = binary.BigEndian.AppendUint64(b, 1<<63|5)
	b = AppendBytes(b, []byte("abc"))
	b = AppendString(b, "xyz")
	b = append(b, 1, 2, 3)

	r := NewReader(b)
	if r.Uint8() != 7 || !r.Bool() || r.Uint16() != 0x0102 || r.Uint32() != 0x01020304 || r.Uint64() != 1<<63|5 {
		t.Error("integers do not come back")
	}
	if string(r.Bytes(3)) != "abc" || r.String(3) != "xyz" {
		t.Error("bytes do not come back")
	}
	var a [3]byte
	r.Array(a[:])
	if a != [3]byte{1, 2, 3} || r.Close() != nil {
		t.Errorf("array %v, %v", a, r.Err())
	}
}

func TestRefusals(t *testing.T) {
	long := AppendBytes(nil, make([]byte, 9))
	for name, f := range map[string]func(*Reader){
		"short integer":     func(r *Reader) { r.Fixed(len(long) - 3); r.Uint32() },
		"bytes over limit":  func(r *Reader) { r.Bytes(8) },
		"string over limit": func(r *Reader) { r.Fixed(2); r.String(8) },
		"boolean of 9":      func(r *Reader) { r.Fixed(3); r.Bool() },
		"count over limit":  func(r *Reader) { r.Count(8, 1) },
		"count over bytes":  func(r *Reader) { r.Count(100, 2) },
		"trailing bytes":    func(r *Reader) { r.Uint8() },
		"negative length":   func(r *Reader) { r.Fixed(-1) },
	} {
		r := NewReader(long)
		f(r)
		if err := r.Close(); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
		if r.Uint64() != 0 || r.Fixed(1) != nil || r.String(9) != "" {
			t.Errorf("%s: reading goes on after an error", name)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 9, 0, 1, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(b)
		p, s := r.Bytes(16), r.String(16)
		if r.Close() != nil {
			return
		}
		if again := AppendString(AppendBytes(nil, p), s); !bytes.Equal(again, b) {
			t.Errorf("two encodings of one value: %x and %x", b, again)
		}
	})
}
