package wire

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

func TestTLS(t *testing.T) {
	key := TLSKey{0xab, 31: 0xcd}
	b := key.Append(nil)
	if got, want := hex.EncodeToString(b), "01"+"ab"+strings.Repeat("00", 30)+"cd"; got != want {
		t.Errorf("key: got %s, want %s", got, want)
	}
	if got, err := DecodeTLSKey(b); err != nil || got != key {
		t.Errorf("key: got %x, %v", got, err)
	}
	s := TLSStatement("said")
	said := s.Append(nil)
	if got, want := hex.EncodeToString(said), "01"+"00000004"+"73616964"; got != want {
		t.Errorf("statement: got %s, want %s", got, want)
	}
	if got, err := DecodeTLSStatement(said); err != nil || !bytes.Equal(got, s) {
		t.Errorf("statement: got %x, %v", got, err)
	}
	for name, bad := range map[string][]byte{"empty": nil, "short": b[:32], "long": append(bytes.Clone(b), 0), "format": append([]byte{2}, b[1:]...)} {
		if got, err := DecodeTLSKey(bad); err == nil {
			t.Errorf("key, %s: got %x, want an error", name, got)
		}
	}
	for name, bad := range map[string][]byte{
		"empty": nil, "short": said[:8], "long": append(bytes.Clone(said), 0), "format": append([]byte{2}, said[1:]...),
		"over the limit": TLSStatement(make([]byte, maxTLSStatement+1)).Append(nil),
	} {
		if got, err := DecodeTLSStatement(bad); err == nil {
			t.Errorf("statement, %s: got %d bytes, want an error", name, len(got))
		}
	}
}

func FuzzDecodeTLSStatement(f *testing.F) {
	f.Add(TLSStatement("said").Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := DecodeTLSStatement(b); err == nil && !bytes.Equal(s.Append(nil), b) {
			t.Errorf("%x has another encoding", b)
		}
	})
}
