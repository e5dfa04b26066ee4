package ratls

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func statement(evidence int) *Statement {
	s := &Statement{Domain: [32]byte{0xd0, 31: 1}, Instance: [16]byte{0x11, 15: 2}, Date: 1767322800}
	s.Evidence = bytes.Repeat([]byte{0xe5}, evidence)
	return s
}

// TestKnown has the bytes of docs/formats.md.
func TestKnown(t *testing.T) {
	got := hex.EncodeToString(statement(4).Append(nil))
	want := "01" + "d0" + strings.Repeat("00", 30) + "01" + "11" + strings.Repeat("00", 14) + "02" + "00000000695734b0" + "00000004" + "e5e5e5e5"
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	value := Extension(statement(300).Append(nil)).Value
	head := "82" + "78" + "21" + hex.EncodeToString([]byte("application/vnd.ehsm-kms.ratls-v1")) + "59" + "0169"
	if got := hex.EncodeToString(value); !strings.HasPrefix(got, head) {
		t.Errorf("extension begins with %.90s, want %s", got, head)
	}
	if got := ID().String(); got != "2.23.133.5.4.9" {
		t.Errorf("got OID %s", got)
	}
}

func TestFromCertificate(t *testing.T) {
	for _, size := range []int{200, 300, 60000, MaxEvidence} {
		want := statement(size)
		got, err := FromCertificate(&x509.Certificate{Extensions: []pkix.Extension{{Id: []int{1, 2, 3}}, Extension(want.Append(nil))}})
		if err != nil || got.Domain != want.Domain || got.Instance != want.Instance || got.Date != want.Date || !bytes.Equal(got.Evidence, want.Evidence) {
			t.Errorf("%d bytes: got %v, %v", size, got, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	good := Extension(statement(300).Append(nil))
	with := func(change func(b []byte) []byte) []pkix.Extension {
		return []pkix.Extension{{Id: ID(), Value: change(bytes.Clone(good.Value))}}
	}
	at := len(good.Value) - len(statement(300).Append(nil)) // of the statement
	set := func(i int, v byte) func([]byte) []byte {
		return func(b []byte) []byte { b[i] = v; return b }
	}
	for _, row := range []struct {
		name       string
		extensions []pkix.Extension
		want       error
	}{
		{"no extension", nil, ErrNone},
		{"another extension", []pkix.Extension{{Id: []int{2, 23, 133, 5, 4, 1}, Value: good.Value}}, ErrNone},
		{"two", []pkix.Extension{good, good}, ErrMalformed},
		{"empty", with(func([]byte) []byte { return nil }), ErrMalformed},
		{"cut off", with(func(b []byte) []byte { return b[:len(b)-1] }), ErrMalformed},
		{"a byte more", with(func(b []byte) []byte { return append(b, 0) }), ErrMalformed},
		{"array of three", with(set(0, 0x83)), ErrMalformed},
		{"media type", with(set(5, 'x')), ErrMalformed},
		{"text in place of bytes", with(set(at-3, 0x79)), ErrMalformed},
		{"length that says more", with(set(at-1, 0xff)), ErrMalformed},
		{"format", with(set(at, 2)), ErrMalformed},
		{"date before 1970", with(set(at+49, 0xff)), ErrMalformed},
		{"length of the evidence", with(set(at+60, 1)), ErrMalformed},
		{"evidence over the limit", []pkix.Extension{Extension(statement(MaxEvidence + 1).Append(nil))}, ErrMalformed},
		{"no evidence", []pkix.Extension{Extension(statement(0).Append(nil))}, ErrMalformed},
		{"long form of a short length", with(func(b []byte) []byte {
			long := append(bytes.Clone(b[:at-3]), 0x5a, 0, 0)
			return append(long, b[at-2:]...)
		}), ErrMalformed},
	} {
		if got, err := FromCertificate(&x509.Certificate{Extensions: row.extensions}); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, %v, want %v", row.name, got, err, row.want)
		}
	}
}

func FuzzFromCertificate(f *testing.F) {
	f.Add(Extension(statement(300).Append(nil)).Value)
	f.Add(Extension(statement(MaxEvidence).Append(nil)).Value)
	f.Add([]byte{0x82, 0x78, 0x21})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := FromCertificate(&x509.Certificate{Extensions: []pkix.Extension{{Id: ID(), Value: b}}})
		if err == nil && !bytes.Equal(Extension(s.Append(nil)).Value, b) {
			t.Errorf("%x is read, and written otherwise", b)
		}
	})
}
